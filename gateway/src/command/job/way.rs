//! The four ways that a job can go, behind one face.

use std::fmt;

use bytes::Bytes;

use super::super::Failure;
use super::Args;

/// Why a job has no reply.
#[derive(Debug)]
pub(super) struct JobFailed {
    /// For programs, such as `NOT_SENT`.
    pub(super) reason: String,
    /// The machine's own status, where it answered with one.
    pub(super) status: Option<u32>,
    /// For people.
    pub(super) message: String,
    /// Where false, it is certain that the job did not run.
    pub(super) may_have_run: bool,
}

impl fmt::Display for JobFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        write!(f, " (reason={} may_have_run={}", self.reason, self.may_have_run)?;
        if let Some(status) = self.status {
            write!(f, " status={status}")?;
        }
        f.write_str(")")
    }
}

pub(super) struct Plan;
impl Plan {
    pub(super) fn new(_: &Args) -> Result<Self, Failure> {
        Ok(Self)
    }
    pub(super) async fn connect(self) -> Result<Way, Failure> {
        Ok(Way)
    }
}
pub(super) struct Way;
impl Way {
    pub(super) async fn send(&self, job: Bytes) -> Result<Bytes, JobFailed> {
        Ok(job)
    }
    pub(super) async fn close(&self) {}
}
