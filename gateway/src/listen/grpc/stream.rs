//! Many jobs on one gRPC stream.
//!
//! A stream is a caller of its own. One task reads: it takes every request that is there and hands the batch to the shard in
//! one call. [`Answering`] is what tonic sends: it takes everything that has ended in one go. A job that fails is an item;
//! only the caller, the connection or the gateway's end ends the stream.

use std::collections::{HashSet, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use seeway_proto::outcome::Rejected;
use seeway_proto::v1::{StreamRequest, StreamResponse, SubmitRequest, stream_response};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use super::limits::bad_affinity_key;
use super::priority;
use crate::schedule::{CallerId, NewJob};
use crate::shard::{Failure, Finished, Shard};

/// How many requests are handed over in one call at most, so that one stream does not keep the shard to itself.
const BATCH: usize = 256;

/// How many bytes of jobs are read ahead of what has been handed over, about: the last job read may be larger.
const BATCH_BYTES: usize = 1024 * 1024;

/// The answers of one stream, as tonic sends them. Dropping it, as tonic does when the caller goes away, drops the stream's
/// unsent jobs.
pub struct Answering {
    shard: Shard,
    caller: CallerId,
    shared: Arc<Shared>,
    /// Ended jobs that were taken from the shard and are being sent.
    sending: VecDeque<(u64, Finished)>,
    has_ended: bool,
    reader: AbortHandle,
}

/// What the reader and the sender of one stream both see. Both run on the shard's thread.
struct Shared {
    open: Mutex<Open>,
    /// Notified when a job was answered, and when the caller's quota has room again.
    room: Arc<Notify>,
    reading: Mutex<Reading>,
}

/// What has been read and not been answered.
#[derive(Default)]
struct Open {
    ids: HashSet<u64>,
    /// Requests, those that were rejected for their id among them.
    requests: usize,
}

/// How far the reader is.
enum Reading {
    Goes,
    /// The caller has sent its last job.
    Done,
    /// The stream can't be read any further.
    Failed(Status),
}

struct Reader {
    shard: Shard,
    caller: CallerId,
    shared: Arc<Shared>,
    /// When the whole call ends.
    call_deadline: Option<Instant>,
    /// The last world that was named.
    world: String,
}

impl Answering {
    /// Begins to read.
    pub(super) fn start(shard: &Shard, requests: Streaming<StreamRequest>, call_deadline: Option<Instant>) -> Self {
        let room = Arc::new(Notify::new());
        let caller = shard.with(|state, _| {
            let caller = state.scheduler.caller_joined();
            state.front.add_stream(caller, room.clone());
            caller
        });
        let shared = Arc::new(Shared { open: Mutex::default(), room, reading: Mutex::new(Reading::Goes) });
        let reader =
            Reader { shard: shard.clone(), caller, shared: shared.clone(), call_deadline, world: String::new() };
        let reader = tokio::spawn(reader.run(requests)).abort_handle();
        Self { shard: shard.clone(), caller, shared, sending: VecDeque::new(), has_ended: false, reader }
    }

    /// Why there will be no more answers; `None` where there will be.
    fn end(&self, is_draining: bool) -> Option<Result<(), Status>> {
        let is_quiet = lock(&self.shared.open).requests == 0;
        match &*lock(&self.shared.reading) {
            Reading::Failed(status) if is_quiet => Some(Err(status.clone())),
            Reading::Done if is_quiet => Some(Ok(())),
            // What the caller has sent and nobody has read has not run.
            _ if is_quiet && is_draining => {
                Some(Err(Status::unavailable("the gateway takes no more jobs; use another one")))
            }
            _ => None,
        }
    }

    fn answer(&mut self, id: u64, finished: Finished) -> StreamResponse {
        {
            let mut open = lock(&self.shared.open);
            open.requests -= 1;
            if !matches!(&finished, Finished::Failed(failure) if failure.is_id_in_use) {
                open.ids.remove(&id);
            }
        }
        self.shared.room.notify_one();
        let result = match finished {
            Finished::Replied(reply) => stream_response::Result::Reply(reply.into()),
            Finished::Failed(failure) => stream_response::Result::Failure(failure.into()),
        };
        StreamResponse { id, result: Some(result) }
    }
}

impl Stream for Answering {
    type Item = Result<StreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if self.sending.is_empty() {
            let caller = self.caller;
            let mut sending = std::mem::take(&mut self.sending);
            let is_draining = self.shard.with(|state, _| {
                if let Some(answers) = state.front.stream(caller) {
                    std::mem::swap(&mut answers.finished, &mut sending);
                    answers.waker = Some(cx.waker().clone());
                }
                state.scheduler.is_draining()
            });
            self.sending = sending;
            if self.sending.is_empty()
                && let Some(end) = self.end(is_draining)
            {
                self.has_ended = true;
                return Poll::Ready(end.err().map(Err));
            }
        }
        match self.sending.pop_front() {
            Some((id, finished)) => Poll::Ready(Some(Ok(self.answer(id, finished)))),
            None => Poll::Pending,
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.reader.abort();
        let caller = self.caller;
        self.shard.with(|state, now| state.caller_left(now, caller));
    }
}

impl Reader {
    async fn run(mut self, mut requests: Streaming<StreamRequest>) {
        let mut batch = VecDeque::new();
        let end = loop {
            self.wait_for_room().await;
            match requests.next().await {
                None => break Reading::Done,
                Some(Err(status)) => break Reading::Failed(status),
                Some(Ok(request)) => batch.push_back(request),
            }
            let mut end = None;
            let (most, mut bytes) = (BATCH.min(self.room()), job_bytes(batch.back()));
            while end.is_none() && batch.len() < most && bytes < BATCH_BYTES {
                match ready_now(&mut requests).await {
                    None => break,
                    Some(None) => end = Some(Reading::Done),
                    Some(Some(Err(status))) => end = Some(Reading::Failed(status)),
                    Some(Some(Ok(request))) => {
                        batch.push_back(request);
                        bytes += job_bytes(batch.back());
                    }
                }
            }
            self.hand_over(&mut batch);
            // The rest goes as its caller's quota allows.
            while !batch.is_empty() {
                self.wait_for_room().await;
                self.hand_over(&mut batch);
            }
            if let Some(end) = end {
                break end;
            }
        };
        *lock(&self.shared.reading) = end;
        self.wake_sender();
    }

    /// How many more jobs may be unanswered.
    fn room(&self) -> usize {
        self.shard.config().limits.caller_jobs.saturating_sub(lock(&self.shared.open).requests)
    }

    /// A caller that asks faster than it reads its answers, or whose quota is full, is not read from: HTTP/2's flow control
    /// then holds it back.
    async fn wait_for_room(&self) {
        while self.must_pause() {
            self.shared.room.notified().await;
        }
    }

    fn must_pause(&self) -> bool {
        let has_place = self.room() > 0;
        self.shard.with(|state, _| {
            let must_pause = !has_place || !state.scheduler.has_room(self.caller);
            if let Some(answers) = state.front.stream(self.caller) {
                answers.is_paused = must_pause;
            }
            must_pause
        })
    }

    /// Hands over what the caller's quota has room for.
    fn hand_over(&mut self, batch: &mut VecDeque<StreamRequest>) {
        let Self { shard, caller, shared, call_deadline, world: last_world } = self;
        let default_timeout = shard.config().limits.default_timeout;
        shard.with(|state, now| {
            let mut open = lock(&shared.open);
            while state.scheduler.has_room(*caller)
                && let Some(request) = batch.pop_front()
            {
                let empty = SubmitRequest::default();
                let submit = request.submit.as_ref().unwrap_or(&empty);
                if !submit.world.is_empty() {
                    last_world.clone_from(&submit.world);
                }
                open.requests += 1;
                if !open.ids.insert(request.id) {
                    let mut failure = state.front.reject(last_world, Rejected::Malformed);
                    failure.message.push_str(": the id is in use by a job that is not answered yet");
                    failure.is_id_in_use = true;
                    push(state, *caller, request.id, failure);
                    continue;
                }
                let malformed = match &request.submit {
                    None => Some(": `submit` is missing".to_owned()),
                    Some(submit) => bad_affinity_key(&submit.affinity_key),
                };
                let world = state.front.world(last_world).ok_or((Rejected::NoSuchWorld, String::new()));
                let world = match malformed.map_or(world, |detail| Err((Rejected::Malformed, detail))) {
                    Ok(world) => world,
                    Err((rejected, detail)) => {
                        let mut failure = state.front.reject(last_world, rejected);
                        failure.message.push_str(&detail);
                        push(state, *caller, request.id, failure);
                        continue;
                    }
                };
                let timeout = timeout(&request).unwrap_or(default_timeout);
                let deadline = now.checked_add(timeout).unwrap_or(now + default_timeout);
                let new = NewJob {
                    ticket: request.id,
                    world,
                    bytes: &submit.job,
                    deadline: call_deadline.map_or(deadline, |call| call.min(deadline)),
                    idempotent: submit.idempotent,
                    priority: priority(submit),
                    affinity_key: submit.affinity_key.as_bytes(),
                };
                state.submit(now, *caller, new);
            }
        });
    }

    fn wake_sender(&self) {
        self.shard.with(|state, _| {
            if let Some(waker) = state.front.stream(self.caller).and_then(|answers| answers.waker.take()) {
                waker.wake();
            }
        });
    }
}

fn push(state: &mut crate::shard::State, caller: CallerId, id: u64, failure: Failure) {
    if let Some(answers) = state.front.stream(caller) {
        answers.finished.push_back((id, Finished::Failed(failure)));
        if let Some(waker) = answers.waker.take() {
            waker.wake();
        }
    }
}

fn job_bytes(request: Option<&StreamRequest>) -> usize {
    request.and_then(|request| request.submit.as_ref()).map_or(0, |submit| submit.job.len())
}

/// The next request if it is there already.
async fn ready_now(requests: &mut Streaming<StreamRequest>) -> Option<Option<Result<StreamRequest, Status>>> {
    std::future::poll_fn(|cx| match Pin::new(&mut *requests).poll_next(cx) {
        Poll::Ready(next) => Poll::Ready(Some(next)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// The job's own time-out; a negative one has passed already.
fn timeout(request: &StreamRequest) -> Option<Duration> {
    let timeout = request.timeout?;
    Some(Duration::try_from(timeout).unwrap_or(Duration::ZERO))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
