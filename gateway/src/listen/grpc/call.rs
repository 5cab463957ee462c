//! One unary job: handed to the shard, waited for, cancelled when its caller goes away.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::Frame;
use seeway_proto::grpc::Submit;
use seeway_proto::outcome::Rejected;
use tokio::sync::oneshot;
use tonic::Status;
use tonic::body::Body;

use super::connection::Caller;
use super::limits::check_affinity_key;
use super::messages::{Held, Messages};
use super::priority;
use super::somebody::Somebody;
use crate::schedule::{JobId, NewJob};
use crate::shard::{Finished, Shard};
use crate::trace;

/// A job whose outcome is waited for. Dropping it cancels the job, as far as it has not left.
struct Call<'a> {
    shard: &'a Shard,
    caller: Arc<Caller>,
    ticket: u64,
    job: Option<JobId>,
    has_ended: bool,
}

/// Sends a job and waits for its outcome.
pub(super) async fn submit(
    shard: &Shard,
    somebody: Somebody,
    mut messages: Messages,
    deadline: Option<Instant>,
    context: Option<trace::Context>,
) -> Result<Answer, Status> {
    if let Err(status) = messages.only().await {
        shard.with(|state, _| state.front.late.grpc += u64::from(messages.was_late()));
        return Err(status);
    }
    let caller = somebody.caller().clone();
    let mut held = Held::none(caller.holding().clone());
    let mut call = Call { shard, ticket: caller.ticket(), caller, job: None, has_ended: false };
    let (mut outcome, mut context) = (None, context);
    messages.take(|message| {
        if outcome.is_none() {
            outcome = Some(call.begin(&Submit::decode(message)?, &somebody, deadline, context.take()));
        }
        Ok(true)
    })?;
    // The bytes are with the scheduler now, as long as it needs them.
    drop(messages);
    let outcome = outcome.ok_or_else(|| Status::internal("the call has no message"))??.await;
    call.has_ended = outcome.is_ok();
    match outcome {
        Ok(Finished::Replied(message)) => {
            // Until it is read: the caller's window may be closed.
            held.set(message.len());
            Ok(Answer { message: Some(message.freeze()), has_ended: false, _held: held })
        }
        Ok(Finished::Failed(failure)) => Err(failure.into()),
        Err(_) => Err(Status::internal("the gateway lost the call; the job may have run")),
    }
}

impl Call<'_> {
    fn begin(
        &mut self,
        request: &Submit<'_>,
        somebody: &Somebody,
        deadline: Option<Instant>,
        context: Option<trace::Context>,
    ) -> Result<oneshot::Receiver<Finished>, Status> {
        check_affinity_key(self.shard, somebody, request.world, request.affinity_key)?;
        let default_timeout = self.shard.config().limits.default_timeout;
        self.shard.with(|state, now| {
            let (standing, whose) = (somebody.standing(state, now), somebody.of_call());
            let Some(world) = state.front.world(&standing, request.world) else {
                let rejected = Rejected::NoSuchWorld;
                return Err(state.front.reject(self.caller.id(), whose, request.world, rejected).into());
            };
            let of_call = whose.map(|_| standing);
            let outcome = state.front.add_call(self.caller.id(), self.ticket, of_call);
            let new = NewJob {
                ticket: self.ticket,
                world,
                bytes: request.job,
                deadline: deadline.unwrap_or(now + default_timeout),
                idempotent: request.idempotent,
                priority: priority(request.priority),
                affinity_key: request.affinity_key.as_bytes(),
            };
            state.front.trace_next(self.caller.id(), context);
            self.job = state.submit(now, self.caller.id(), new);
            Ok(outcome)
        })
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        self.shard.with(|state, now| {
            state.front.remove_call(self.caller.id(), self.ticket);
            if let Some(job) = self.job {
                state.scheduler.cancel(now, job, &mut state.front);
            }
        });
    }
}

/// The answer to a call that went well: a message, and the trailers that say so.
pub(super) struct Answer {
    message: Option<Bytes>,
    has_ended: bool,
    _held: Held,
}

impl Answer {
    /// The trailers of a call that went well.
    pub(super) fn trailers() -> HeaderMap {
        let mut trailers = HeaderMap::with_capacity(1);
        trailers.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("0"));
        trailers
    }

    pub(super) fn into_body(self) -> Body {
        Body::new(self)
    }
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        let is_last = !std::mem::replace(&mut self.has_ended, true);
        Poll::Ready(is_last.then(|| Ok(Frame::trailers(Self::trailers()))))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}
