//! What comes of a job, for its caller: a [`Reply`], or a [`JobError`] that says whether the job may have run.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use seeway_proto::outcome::{NotSent, Outcome, Rejected, Unknown};
use seeway_proto::wiped::WipedBuffer;

/// A job's reply. Its bytes are never printed, and wiped when the last handle to them is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply(Bytes);

impl Reply {
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        Self(WipedBuffer::from(bytes).freeze())
    }

    /// The reply's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The reply's bytes, as a handle that is wiped like this one.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for Reply {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Reply {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({} bytes)", self.0.len())
    }
}

/// What kind of failure it is; the rows of the table of outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobErrorKind {
    /// The machine answered with a status of its own.
    MachineStatus,
    /// The job can not be run as it is.
    Rejected(Rejected),
    /// The job never left; it could be sent again without risk.
    NotSent(NotSent),
    /// The job left, and nobody can say whether it ran.
    Unknown(Unknown),
}

/// A job has no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    kind: JobErrorKind,
    may_have_run: bool,
    /// Whom the job was handed to.
    server: Arc<str>,
    pub(crate) details: Box<Details>,
}

/// What is known besides; boxed, so that the `Result` of a job stays small.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Details {
    /// The other side's status.
    pub(crate) status: Option<u32>,
    /// What the other side says about it, or why the connection ended.
    pub(crate) info: Option<String>,
    /// The gateway's own words, instead of ours.
    pub(crate) message: Option<String>,
    pub(crate) world: Option<String>,
    pub(crate) machine: Option<String>,
}

impl JobError {
    pub(crate) fn new(kind: JobErrorKind, server: &Arc<str>) -> Self {
        let may_have_run = match kind {
            JobErrorKind::MachineStatus | JobErrorKind::Unknown(_) => true,
            JobErrorKind::Rejected(_) | JobErrorKind::NotSent(_) => false,
        };
        Self { kind, may_have_run, server: Arc::clone(server), details: Box::default() }
    }

    pub(crate) fn with_info(mut self, info: impl Into<String>) -> Self {
        self.details.info = Some(info.into());
        self
    }

    pub(crate) fn with_may_have_run(mut self, may_have_run: bool) -> Self {
        self.may_have_run = may_have_run;
        self
    }

    /// The failure of a question that comes before any job: whatever became of it, nothing has run.
    #[cfg(feature = "hardserver")]
    pub(crate) fn before_any_job(mut self) -> Self {
        self.kind = match self.kind {
            JobErrorKind::Unknown(Unknown::TooLate) => JobErrorKind::NotSent(NotSent::TooLate),
            JobErrorKind::Unknown(_) => JobErrorKind::NotSent(NotSent::NowhereToGo),
            kind => kind,
        };
        self.may_have_run = false;
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> JobErrorKind {
        self.kind
    }

    /// Whether the job may have run. Where this is false it is certain that it did not.
    pub fn may_have_run(&self) -> bool {
        self.may_have_run
    }

    /// For programs: `NOT_SENT`, `OUTCOME_UNKNOWN`, `QUEUE_FULL` and so on, the same on every way in.
    pub fn reason(&self) -> &'static str {
        self.outcome().reason()
    }

    /// The status that the other side gave, where it gave one.
    pub fn status(&self) -> Option<u32> {
        self.details.status
    }

    /// What the other side, or the connection's end, says about it.
    pub fn info(&self) -> Option<&str> {
        self.details.info.as_deref()
    }

    /// The world the job was for, where the gateway says so.
    pub fn world(&self) -> Option<&str> {
        self.details.world.as_deref()
    }

    /// The machine that had the job, where the gateway says so.
    pub fn machine(&self) -> Option<&str> {
        self.details.machine.as_deref()
    }

    fn outcome(&self) -> Outcome<'_> {
        match self.kind {
            JobErrorKind::MachineStatus => Outcome::MachineStatus {
                status: self.details.status.unwrap_or_default(),
                info: self.info(),
                may_have_run: self.may_have_run,
            },
            JobErrorKind::Rejected(rejected) => Outcome::Rejected(rejected),
            JobErrorKind::NotSent(not_sent) => Outcome::NotSent(not_sent),
            JobErrorKind::Unknown(unknown) => Outcome::Unknown(unknown),
        }
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.server)?;
        if let Some(world) = self.world() {
            write!(f, ", world {world:?}")?;
        }
        if let Some(machine) = self.machine() {
            write!(f, ", machine {machine:?}")?;
        }
        write!(f, ": {}", self.details.message.as_deref().unwrap_or(self.outcome().message()))?;
        match (self.status(), self.info()) {
            (Some(status), Some(info)) => write!(f, " (status {status}: {info})"),
            (Some(status), None) => write!(f, " (status {status})"),
            (None, Some(info)) => write!(f, " ({info})"),
            (None, None) => Ok(()),
        }
    }
}

impl std::error::Error for JobError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_prints_its_length_only() {
        let reply = Reply::copy_of(b"pin 1234");
        assert_eq!(format!("{reply:?}"), "Reply(8 bytes)");
        assert_eq!(&*reply, b"pin 1234");
    }
}
