//! What comes of a job, for its caller: a [`Reply`], or a [`JobError`] that says whether the job may have run.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use seeway_proto::outcome::{NotSent, Outcome, Rejected, Unknown};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::Profile;

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
    details: Box<Details>,
}

/// What is known besides; boxed, so that the `Result` of a job stays small.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Details {
    status: Option<u32>,
    info: Option<String>,
    /// The gateway's own words, instead of ours.
    message: Option<String>,
    world: Option<String>,
    machine: Option<String>,
}

impl JobError {
    pub(crate) fn new(kind: JobErrorKind, server: &Arc<str>) -> Self {
        let may_have_run = match kind {
            JobErrorKind::MachineStatus | JobErrorKind::Unknown(_) => true,
            JobErrorKind::Rejected(_) | JobErrorKind::NotSent(_) => false,
        };
        Self { kind, may_have_run, server: Arc::clone(server), details: Box::default() }
    }

    #[cfg(feature = "stream")]
    /// From an ErrorReturn: of a machine, of a hardserver or of a gateway, which all use the same statuses.
    pub(crate) fn from_wire(profile: &Profile, status: u32, info: Option<&str>, server: &Arc<str>) -> Self {
        let statuses = &profile.statuses;
        let kind = if status == statuses.malformed || status == statuses.invalid_parameter {
            JobErrorKind::Rejected(Rejected::Malformed)
        } else if status == statuses.unknown_id {
            JobErrorKind::Rejected(Rejected::NoSuchWorld)
        } else if status == statuses.access_denied {
            JobErrorKind::Rejected(Rejected::AccessDenied)
        } else if status == statuses.buffer_full {
            JobErrorKind::Rejected(Rejected::JobTooLarge)
        } else if status == statuses.queue_full {
            JobErrorKind::NotSent(NotSent::QueueFull)
        } else if status == statuses.not_available {
            JobErrorKind::NotSent(NotSent::NowhereToGo)
        } else if status == statuses.network_error {
            JobErrorKind::Unknown(Unknown::TunnelLost)
        } else if status == statuses.see_world_failed {
            JobErrorKind::Unknown(Unknown::MachineFailed)
        } else if status == statuses.timeout && info == Some(TIMED_OUT_UNSENT) {
            JobErrorKind::NotSent(NotSent::TooLate)
        } else if status == statuses.timeout {
            JobErrorKind::Unknown(Unknown::TooLate)
        } else {
            JobErrorKind::MachineStatus
        };
        let mut error = Self::new(kind, server);
        if kind == JobErrorKind::MachineStatus {
            error.may_have_run = !statuses.says_nothing_ran(status);
        }
        error.details.status = Some(status);
        error.details.info = info.map(str::to_owned);
        error
    }

    pub(crate) fn with_info(mut self, info: impl Into<String>) -> Self {
        self.details.info = Some(info.into());
        self
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn with_may_have_run(mut self, may_have_run: bool) -> Self {
        self.may_have_run = may_have_run;
        self
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn with_message(mut self, message: &str) -> Self {
        self.details.message = Some(message.to_owned()).filter(|message| !message.is_empty());
        self
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn with_status(mut self, status: Option<u32>) -> Self {
        self.details.status = status;
        self
    }

    #[cfg(feature = "grpc")]
    pub(crate) fn with_place(mut self, world: Option<String>, machine: Option<String>) -> Self {
        self.details.world = world;
        self.details.machine = machine;
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

/// The errorinfo of a Timeout whose job never left (the specification's "What can become of a job").
const TIMED_OUT_UNSENT: &str = "not sent";

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

    #[test]
    fn every_status_of_the_wire_says_whether_the_job_may_have_run() {
        let profile = Profile::open_1();
        let server: Arc<str> = "hsm-a:22".into();
        let of = |status, info| JobError::from_wire(&profile, status, info, &server);
        for (status, info, reason, may_have_run) in [
            (1, None, "MACHINE_STATUS", false),
            (2, None, "MALFORMED", false),
            (3, None, "MALFORMED", false),
            (4, None, "NO_SUCH_WORLD", false),
            (5, None, "ACCESS_DENIED", false),
            (6, None, "JOB_TOO_LARGE", false),
            (7, None, "QUEUE_FULL", false),
            (8, None, "NOT_SENT", false),
            (9, None, "OUTCOME_UNKNOWN", true),
            (10, None, "OUTCOME_UNKNOWN", true),
            (11, Some("not sent"), "NOT_SENT", false),
            (11, Some("outcome unknown"), "OUTCOME_UNKNOWN", true),
            (11, None, "OUTCOME_UNKNOWN", true),
            (0x0001_0007, Some("wrong pin"), "MACHINE_STATUS", true),
        ] {
            let error = of(status, info);
            assert_eq!((error.reason(), error.may_have_run()), (reason, may_have_run), "{error}");
            assert_eq!((error.status(), error.info()), (Some(status), info));
            assert!(error.to_string().contains("hsm-a:22"), "{error}");
        }
    }
}
