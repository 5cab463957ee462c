//! One unary job: handed to the shard, waited for, cancelled when its caller goes away.

use std::sync::Arc;
use std::time::Instant;

use seeway_proto::outcome::Rejected;
use seeway_proto::v1::{SubmitRequest, SubmitResponse};
use tokio::sync::oneshot;
use tonic::Status;

use super::connection::Caller;
use super::limits::check_affinity_key;
use super::priority;
use crate::schedule::{JobId, NewJob};
use crate::shard::{Finished, Shard};

/// A job whose outcome is waited for. Dropping it cancels the job, as far as it has not left.
struct Call<'a> {
    shard: &'a Shard,
    caller: Arc<Caller>,
    ticket: u64,
    job: Option<JobId>,
}

/// Sends a job and waits for its outcome.
pub(super) async fn submit(
    shard: &Shard,
    caller: Arc<Caller>,
    request: SubmitRequest,
    deadline: Option<Instant>,
) -> Result<SubmitResponse, Status> {
    check_affinity_key(shard, &request.world, &request.affinity_key)?;
    let mut call = Call { shard, ticket: caller.ticket(), caller, job: None };
    let outcome = call.begin(&request, deadline)?;
    // The bytes are with the scheduler now, as long as it needs them.
    drop(request);
    match outcome.await {
        Ok(Finished::Replied(reply)) => Ok(reply.into()),
        Ok(Finished::Failed(failure)) => Err(failure.into()),
        Err(_) => Err(Status::internal("the gateway lost the call; the job may have run")),
    }
}

impl Call<'_> {
    fn begin(
        &mut self,
        request: &SubmitRequest,
        deadline: Option<Instant>,
    ) -> Result<oneshot::Receiver<Finished>, Status> {
        let default_timeout = self.shard.config().limits.default_timeout;
        self.shard.with(|state, now| {
            let Some(world) = state.front.world(&request.world) else {
                return Err(state.front.reject(&request.world, Rejected::NoSuchWorld).into());
            };
            let outcome = state.front.add_call(self.caller.id(), self.ticket);
            let new = NewJob {
                ticket: self.ticket,
                world,
                bytes: &request.job,
                deadline: deadline.unwrap_or(now + default_timeout),
                idempotent: request.idempotent,
                priority: priority(request),
                affinity_key: request.affinity_key.as_bytes(),
            };
            self.job = state.submit(now, self.caller.id(), new);
            Ok(outcome)
        })
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.shard.with(|state, now| {
            state.front.remove_call(self.caller.id(), self.ticket);
            if let Some(job) = self.job {
                state.scheduler.cancel(now, job, &mut state.front);
            }
        });
    }
}
