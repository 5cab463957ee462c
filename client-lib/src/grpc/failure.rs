//! From what gRPC says of a failure to a [`JobError`].

use std::error::Error;
use std::sync::Arc;

use seeway_proto::outcome::{NotSent, Rejected, Unknown, reason};
use seeway_proto::v1::JobFailure;
use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt;

use crate::job::{JobError, JobErrorKind};

/// The `ErrorInfo` domain of gateways.
const DOMAIN: &str = "seeway";

/// From a call that failed. What the gateway says in an `ErrorInfo` counts; where there is none, the failure is not the
/// gateway's own, and the job is taken for one that may have run unless it is certain that it did not.
pub(super) fn of_status(status: &Status, server: &Arc<str>, world: Option<&str>) -> JobError {
    let world = world.filter(|world| !world.is_empty()).map(str::to_owned);
    let Some(info) = status.get_details_error_info().filter(|info| info.domain == DOMAIN) else {
        let mut error = JobError::new(kind_without_reason(status), server).with_info(chain(status));
        error.details.world = world;
        return error;
    };
    let said = |key: &str| info.metadata.get(key).cloned();
    let mut error = of_reason(status.code(), &info.reason, status.message(), server);
    if let Some(may_have_run) = said("may_have_run") {
        error = error.with_may_have_run(may_have_run != "false");
    }
    error.details.status = said("status").and_then(|status| status.parse().ok());
    error.details.world = said("world").or(world);
    error.details.machine = said("machine");
    error
}

/// From an item on a stream.
pub(super) fn of_item(failure: &JobFailure, server: &Arc<str>, world: &str) -> JobError {
    let mut error = of_reason(Code::from_i32(failure.code), &failure.reason, &failure.message, server)
        .with_may_have_run(failure.may_have_run);
    error.details.status = Some(failure.status).filter(|_| failure.reason == reason::MACHINE_STATUS);
    error.details.world = Some(world.to_owned()).filter(|world| !world.is_empty());
    error
}

/// The caller's time-out, noticed here.
pub(super) fn late(kind: JobErrorKind, server: &Arc<str>, world: &str) -> JobError {
    let mut error = JobError::new(kind, server);
    error.details.world = Some(world.to_owned()).filter(|world| !world.is_empty());
    error
}

/// gRPC does not tell a lost tunnel from a failed machine; the former stands for both.
fn of_reason(code: Code, said: &str, message: &str, server: &Arc<str>) -> JobError {
    let is_too_late = code == Code::DeadlineExceeded;
    let kind = match said {
        reason::MACHINE_STATUS => JobErrorKind::MachineStatus,
        reason::MALFORMED => JobErrorKind::Rejected(Rejected::Malformed),
        reason::NO_SUCH_WORLD => JobErrorKind::Rejected(Rejected::NoSuchWorld),
        reason::ACCESS_DENIED => JobErrorKind::Rejected(Rejected::AccessDenied),
        reason::JOB_TOO_LARGE => JobErrorKind::Rejected(Rejected::JobTooLarge),
        reason::QUEUE_FULL => JobErrorKind::NotSent(NotSent::QueueFull),
        reason::CLIENT_QUOTA => JobErrorKind::NotSent(NotSent::CallerQuota),
        reason::NOT_SENT if is_too_late => JobErrorKind::NotSent(NotSent::TooLate),
        reason::NOT_SENT => JobErrorKind::NotSent(NotSent::NowhereToGo),
        _ if is_too_late => JobErrorKind::Unknown(Unknown::TooLate),
        _ => JobErrorKind::Unknown(Unknown::TunnelLost),
    };
    let mut error = JobError::new(kind, server);
    error.details.message = Some(message.to_owned()).filter(|message| !message.is_empty());
    error
}

fn kind_without_reason(status: &Status) -> JobErrorKind {
    if causes(status).any(<dyn Error>::is::<tonic::ConnectError>) || is_unsent(status) {
        return JobErrorKind::NotSent(NotSent::NowhereToGo);
    }
    if causes(status).any(<dyn Error>::is::<TimeoutExpired>) {
        return JobErrorKind::Unknown(Unknown::TooLate);
    }
    match status.code() {
        Code::DeadlineExceeded => JobErrorKind::Unknown(Unknown::TooLate),
        Code::InvalidArgument | Code::Unimplemented => JobErrorKind::Rejected(Rejected::Malformed),
        Code::NotFound => JobErrorKind::Rejected(Rejected::NoSuchWorld),
        Code::PermissionDenied | Code::Unauthenticated => JobErrorKind::Rejected(Rejected::AccessDenied),
        _ => JobErrorKind::Unknown(Unknown::TunnelLost),
    }
}

/// Whether a call certainly reached nobody, since its connection was told at that moment to take no more calls, as a gateway tells its
/// connections when another one takes over. Either it had not left: hyper cancels what it still has of such a connection, and that only
/// (over HTTP/2 `Error::is_canceled` comes with the request given back). Or it had, and GOAWAY says that it was not looked at: of a peer's
/// graceful GOAWAY h2 tells the calls beyond the last one that counts, and no other (RFC 9113, 6.8: they can be made again).
pub(super) fn is_unsent(status: &Status) -> bool {
    causes(status).any(|cause| {
        cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
            || cause.downcast_ref::<h2::Error>().is_some_and(|error| {
                error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
            })
    })
}

/// What lies behind a failure, from the nearest cause on.
fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |error| (*error).source())
}

/// An error and its causes, each said once.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    fn server() -> Arc<str> {
        "grpc://gateway:50051".into()
    }

    fn status(code: Code, reason: &str, metadata: &[(&str, &str)]) -> Status {
        let metadata: HashMap<String, String> =
            metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Status::with_error_details(code, "said by the gateway", ErrorDetails::with_error_info(reason, DOMAIN, metadata))
    }

    #[test]
    fn every_reason_of_the_gateway_is_understood() {
        let late = Code::DeadlineExceeded;
        for (code, reason, kind) in [
            (Code::FailedPrecondition, "MACHINE_STATUS", JobErrorKind::MachineStatus),
            (Code::InvalidArgument, "MALFORMED", JobErrorKind::Rejected(Rejected::Malformed)),
            (Code::NotFound, "NO_SUCH_WORLD", JobErrorKind::Rejected(Rejected::NoSuchWorld)),
            (Code::PermissionDenied, "ACCESS_DENIED", JobErrorKind::Rejected(Rejected::AccessDenied)),
            (Code::OutOfRange, "JOB_TOO_LARGE", JobErrorKind::Rejected(Rejected::JobTooLarge)),
            (Code::ResourceExhausted, "QUEUE_FULL", JobErrorKind::NotSent(NotSent::QueueFull)),
            (Code::ResourceExhausted, "CLIENT_QUOTA", JobErrorKind::NotSent(NotSent::CallerQuota)),
            (Code::Unavailable, "NOT_SENT", JobErrorKind::NotSent(NotSent::NowhereToGo)),
            (late, "NOT_SENT", JobErrorKind::NotSent(NotSent::TooLate)),
            (Code::Unknown, "OUTCOME_UNKNOWN", JobErrorKind::Unknown(Unknown::TunnelLost)),
            (late, "OUTCOME_UNKNOWN", JobErrorKind::Unknown(Unknown::TooLate)),
        ] {
            let error = of_status(&status(code, reason, &[]), &server(), Some("signer"));
            assert_eq!(error.kind(), kind);
            assert_eq!(error.reason(), reason);
            assert_eq!(error.world(), Some("signer"));
            let item = JobFailure { code: code.into(), reason: reason.to_owned(), ..Default::default() };
            assert_eq!(of_item(&item, &server(), "signer").kind(), kind);
        }
    }

    #[test]
    fn what_the_gateway_says_besides_is_kept() {
        let metadata = [("world", "signer"), ("machine", "hsm-a"), ("may_have_run", "false"), ("status", "65543")];
        let error = of_status(&status(Code::FailedPrecondition, "MACHINE_STATUS", &metadata), &server(), None);
        assert!(!error.may_have_run());
        assert_eq!((error.world(), error.machine(), error.status()), (Some("signer"), Some("hsm-a"), Some(65543)));
        let text = error.to_string();
        for part in ["grpc://gateway:50051", "signer", "hsm-a", "said by the gateway", "65543"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn without_a_reason_a_job_may_have_run_unless_that_is_certain() {
        for (code, may_have_run) in [
            (Code::Unavailable, true),
            (Code::Unknown, true),
            (Code::Internal, true),
            (Code::Cancelled, true),
            (Code::ResourceExhausted, true),
            (Code::DeadlineExceeded, true),
            (Code::NotFound, false),
            (Code::Unauthenticated, false),
        ] {
            let error = of_status(&Status::new(code, "a proxy says"), &server(), None);
            assert_eq!(error.may_have_run(), may_have_run, "{code:?}");
        }
        // Another service's reasons are not ours.
        let foreign = ErrorDetails::with_error_info("NOT_SENT", "elsewhere", HashMap::new());
        let error = of_status(&Status::with_error_details(Code::Unavailable, "", foreign), &server(), None);
        assert!(error.may_have_run());
    }
}
