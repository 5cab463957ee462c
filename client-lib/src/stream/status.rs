//! What an ErrorReturn says of a job.

use std::sync::Arc;

use seeway_proto::outcome::{NotSent, Rejected, Unknown};
use seeway_proto::wire::Profile;

use crate::job::{JobError, JobErrorKind};

/// The errorinfo of a Timeout whose job never left (the specification's "What can become of a job").
const TIMED_OUT_UNSENT: &str = "not sent";

/// From the status of a machine, of a hardserver or of a gateway, which all use the same ones.
pub(super) fn error_of_status(profile: &Profile, status: u32, info: Option<&str>, server: &Arc<str>) -> JobError {
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
    let mut error = JobError::new(kind, server);
    if kind == JobErrorKind::MachineStatus {
        error = error.with_may_have_run(!statuses.says_nothing_ran(status));
    }
    error.details.status = Some(status);
    error.details.info = info.map(str::to_owned);
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_the_wire_says_whether_the_job_may_have_run() {
        let profile = Profile::open_1();
        let server: Arc<str> = "hsm-a:22".into();
        let of = |status, info| error_of_status(&profile, status, info, &server);
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
