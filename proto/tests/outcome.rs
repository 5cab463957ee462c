//! The table of outcomes, row by row, on both wires.

use seeway_proto::outcome::{GrpcCode, NotSent, Outcome, Rejected, Unknown};
use seeway_proto::wire::{JobBytes, Profile};

#[test]
fn every_row_has_its_names_on_both_wires() {
    let profile = Profile::open_1();
    let machine = |status| Outcome::of_machine_error(&profile, status, Some("what it says"));
    #[rustfmt::skip]
    let rows = [
        // outcome, status, errorinfo must contain, code, reason, may have run
        (Outcome::Replied(JobBytes(b"")),            0,           "",                GrpcCode::Ok,                 "",                true),
        (machine(0x0001_0000),                       0x0001_0000, "what it says",    GrpcCode::FailedPrecondition, "MACHINE_STATUS",  true),
        (machine(2),                                 2,           "what it says",    GrpcCode::FailedPrecondition, "MACHINE_STATUS",  false),
        (machine(7),                                 7,           "what it says",    GrpcCode::FailedPrecondition, "MACHINE_STATUS",  false),
        (machine(9),                                 9,           "what it says",    GrpcCode::FailedPrecondition, "MACHINE_STATUS",  true),
        (Outcome::Rejected(Rejected::Malformed),     2,           "",                GrpcCode::InvalidArgument,    "MALFORMED",       false),
        (Outcome::Rejected(Rejected::NoSuchWorld),   4,           "no such world",   GrpcCode::NotFound,           "NO_SUCH_WORLD",   false),
        (Outcome::Rejected(Rejected::AccessDenied),  5,           "",                GrpcCode::PermissionDenied,   "ACCESS_DENIED",   false),
        (Outcome::Rejected(Rejected::JobTooLarge),   6,           "",                GrpcCode::OutOfRange,         "JOB_TOO_LARGE",   false),
        (Outcome::NotSent(NotSent::QueueFull),       7,           "",                GrpcCode::ResourceExhausted,  "QUEUE_FULL",      false),
        (Outcome::NotSent(NotSent::CallerQuota),     7,           "",                GrpcCode::ResourceExhausted,  "CLIENT_QUOTA",    false),
        (Outcome::NotSent(NotSent::NowhereToGo),     8,           "",                GrpcCode::Unavailable,        "NOT_SENT",        false),
        (Outcome::NotSent(NotSent::TooLate),         11,          "not sent",        GrpcCode::DeadlineExceeded,   "NOT_SENT",        false),
        (Outcome::Unknown(Unknown::TunnelLost),      9,           "",                GrpcCode::Unknown,            "OUTCOME_UNKNOWN", true),
        (machine(10),                                10,          "",                GrpcCode::Unknown,            "OUTCOME_UNKNOWN", true),
        (Outcome::Unknown(Unknown::TooLate),         11,          "outcome unknown", GrpcCode::DeadlineExceeded,   "OUTCOME_UNKNOWN", true),
    ];
    for (outcome, status, info, code, reason, may_have_run) in rows {
        assert_eq!(outcome.status(&profile), status, "{outcome:?}");
        assert!(outcome.errorinfo().unwrap_or_default().contains(info), "{outcome:?}");
        assert_eq!(outcome.grpc_code(), code, "{outcome:?}");
        assert_eq!(outcome.reason(), reason, "{outcome:?}");
        assert_eq!(outcome.may_have_run(), may_have_run, "{outcome:?}");
        assert!(
            !(outcome.may_have_run() && outcome.grpc_code() == GrpcCode::Unavailable),
            "{outcome:?}: what clients retry by themselves must not have run"
        );
    }
}
