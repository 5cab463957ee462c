//! A failure as a gRPC status with details, and as an item on a stream.

use std::collections::HashMap;
use std::time::Duration;

use seeway_proto::outcome::GrpcCode;
use seeway_proto::v1::JobFailure;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::shard::Failure;

/// The `ErrorInfo`'s domain.
const DOMAIN: &str = "seeway";

/// How soon a caller may try again what certainly did not run.
const RETRY_DELAY: Duration = Duration::from_millis(500);

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let mut metadata = HashMap::from([
            ("world".to_owned(), failure.world),
            ("may_have_run".to_owned(), failure.may_have_run.to_string()),
        ]);
        if let Some(machine) = failure.machine {
            metadata.insert("machine".to_owned(), machine.to_string());
        }
        if failure.code == GrpcCode::FailedPrecondition {
            metadata.insert("status".to_owned(), failure.status.to_string());
        }
        let mut details = ErrorDetails::with_error_info(failure.reason, DOMAIN, metadata);
        if matches!(failure.code, GrpcCode::Unavailable | GrpcCode::ResourceExhausted) {
            details.set_retry_info(Some(RETRY_DELAY));
        }
        Self::with_error_details(Code::from_i32(failure.code as i32), failure.message, details)
    }
}

impl From<Failure> for JobFailure {
    fn from(failure: Failure) -> Self {
        Self {
            code: failure.code as i32,
            reason: failure.reason.to_owned(),
            message: failure.message,
            status: failure.status,
            may_have_run: failure.may_have_run,
        }
    }
}
