//! Many jobs on one gRPC stream.
//!
//! A stream is a caller of its own. One task reads: it takes every request that is there and hands them to the shard, a part in
//! each call. [`Answering`] is what is sent: it takes everything that the shard has written for the stream in one go. A job
//! that fails is an item; only the caller, the connection or the gateway's end ends the stream.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::HashSet;
use http::HeaderMap;
use hyper::body::Frame;
use seeway_proto::grpc::Request;
use seeway_proto::outcome::Rejected;
use seeway_proto::wiped::Spares;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::timeout_at;
use tonic::Status;

use super::call::Answer;
use super::limits::bad_affinity_key;
use super::messages::{Held, Messages};
use super::priority;
use super::somebody::Somebody;
use crate::schedule::{CallerId, FrontEnd, NewJob};
use crate::shard::{Answered, Shard, State};
use crate::trace;

/// How many jobs are handed over in one call, and about how many bytes of them: a packet of the tunnel's. What is more comes
/// [`TURNS`] later. A caller's whole depth in one part would be handled by one process after the other, each waiting for the
/// one before it: the gateway, the SSH server and the machine share the work only where there is more than one part of it.
const PART: usize = 32;
const PART_BYTES: usize = 32 * 1024;

/// In how many turns of the shard's tasks a part has left: the channel's writer wakes, waits a turn for others and takes the
/// batch; the SSH library's task encrypts it and writes. Decoding the next part before would only delay the first.
const TURNS: usize = 6;

/// How soon a stream that waits for what others of its connection hold looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How many bytes of jobs are read ahead of what has been handed over, about: the last job read may be larger.
const BATCH_BYTES: usize = 1024 * 1024;

/// The answers of one stream, as they are sent. Dropping it, as the HTTP/2 library does when the caller goes away, drops the stream's
/// unsent jobs.
pub struct Answering {
    shard: Shard,
    caller: CallerId,
    shared: Arc<Shared>,
    /// The jobs that are being answered.
    ids: Vec<Answered>,
    /// What was taken last counts until the library wants more: it keeps what the caller's window has no room for.
    taken: usize,
    /// What has been sent comes back here.
    spares: Spares,
    has_ended: bool,
    reader: AbortHandle,
}

/// What the reader and the sender of one stream both see. Both run on the shard's thread.
struct Shared {
    open: Mutex<Open>,
    /// Replies that were not read, as last looked at.
    unread: Mutex<Held>,
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
    /// When the token that it came with is good no more.
    expires: Option<Instant>,
    /// How much the whole connection may hold.
    most_held: usize,
    /// The last world that was named.
    world: String,
}

impl Answering {
    /// Begins to read.
    pub(super) fn start(
        shard: &Shard,
        requests: Messages,
        somebody: &Somebody,
        call_deadline: Option<Instant>,
        context: Option<trace::Context>,
    ) -> Self {
        let room = Arc::new(Notify::new());
        let caller = shard.with(|state, now| {
            let caller = state.scheduler.caller_joined(FrontEnd::Grpc);
            state.front.add_stream(now, caller, somebody.identity(), room.clone());
            state.front.introduce_over(caller, somebody.caller().id(), somebody.identity());
            state.front.trace_all(caller, context);
            caller
        });
        let expires = somebody.expires();
        let (holding, most_held) = requests.holding();
        let unread = Mutex::new(Held::none(holding.clone()));
        let shared = Arc::new(Shared { open: Mutex::default(), unread, room, reading: Mutex::new(Reading::Goes) });
        let reader = Reader {
            shard: shard.clone(),
            caller,
            shared: shared.clone(),
            call_deadline,
            expires,
            most_held,
            world: String::new(),
        };
        let reader = tokio::spawn(reader.run(requests)).abort_handle();
        Self {
            shard: shard.clone(),
            caller,
            shared,
            ids: Vec::new(),
            taken: 0,
            spares: Spares::default(),
            has_ended: false,
            reader,
        }
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

    /// The jobs of `ids` are being answered.
    fn answered(&mut self) {
        let mut open = lock(&self.shared.open);
        open.requests -= self.ids.len();
        for answered in self.ids.drain(..) {
            if let Answered::Job(id) = answered {
                open.ids.remove(&id);
            }
        }
        self.shared.room.notify_one();
    }
}

impl hyper::body::Body for Answering {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let Self { shard, caller, ids, spares, taken, shared, .. } = &mut *self;
        *taken = 0;
        let (messages, is_draining) = shard.with(|state, _| {
            let answers = state.front.stream(*caller).and_then(|answers| {
                if answers.messages.is_empty() {
                    answers.waker = Some(cx.waker().clone());
                    return None;
                }
                std::mem::swap(&mut answers.ids, ids);
                Some(std::mem::replace(&mut answers.messages, spares.take()))
            });
            *taken = answers.as_ref().map_or(0, seeway_proto::wiped::WipedBuffer::len);
            (answers, state.scheduler.is_draining())
        });
        lock(&shared.unread).set(*taken);
        if let Some(messages) = messages {
            self.answered();
            return Poll::Ready(Some(Ok(Frame::data(self.spares.lend(messages).into()))));
        }
        let Some(end) = self.end(is_draining) else { return Poll::Pending };
        self.has_ended = true;
        let trailers = end.map_or_else(|status| trailers(&status), |()| Ok(Answer::trailers()));
        Poll::Ready(Some(trailers.map(Frame::trailers)))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
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
    async fn run(mut self, mut requests: Messages) {
        let end = match self.expires {
            None => self.read(&mut requests).await,
            // What it has handed over by then is answered; what it sends afterwards has not run.
            Some(expires) => match timeout_at(expires.into(), self.read(&mut requests)).await {
                Ok(end) => end,
                Err(_) => {
                    Reading::Failed(Status::unauthenticated("the token has expired; open a stream with a new one"))
                }
            },
        };
        self.shard.with(|state, _| state.front.late.grpc += u64::from(requests.was_late()));
        *lock(&self.shared.reading) = end;
        self.wake_sender();
    }

    async fn read(&mut self, requests: &mut Messages) -> Reading {
        loop {
            self.wait_for_room().await;
            let more = std::future::poll_fn(|cx| poll_batch(requests, cx)).await;
            if let Err(status) = self.hand_all_over(requests).await {
                return Reading::Failed(status);
            }
            match more {
                Ok(true) => {}
                Ok(false) => return Reading::Done,
                Err(status) => return Reading::Failed(status),
            }
        }
    }

    /// Hands over what has come, as its caller's quota allows.
    async fn hand_all_over(&mut self, requests: &mut Messages) -> Result<(), Status> {
        while requests.has_next() {
            self.wait_for_room().await;
            self.hand_over(requests)?;
            if requests.has_next() {
                part_leaves().await;
            }
        }
        Ok(())
    }

    /// How many jobs may be unanswered.
    fn most_open(&self) -> usize {
        self.shard.config().limits.caller_jobs
    }

    /// A caller that asks faster than it reads its answers, or whose quota is full, is not read from: HTTP/2's flow control
    /// then holds it back.
    async fn wait_for_room(&self) {
        while self.must_pause() {
            // What others of the connection have read is not told.
            let _ = tokio::time::timeout(LOOK_AGAIN, self.shared.room.notified()).await;
        }
    }

    fn must_pause(&self) -> bool {
        let has_place = lock(&self.shared.open).requests < self.most_open();
        let most_unread = self.shard.config().limits.caller_buffer_bytes;
        self.shard.with(|state, _| {
            let mut must_pause = !has_place || !state.scheduler.has_room(self.caller);
            if let Some(answers) = state.front.stream(self.caller) {
                let mut unread = lock(&self.shared.unread);
                let bytes = answers.messages.len();
                // What the library has taken stays counted until it wants more.
                if bytes > unread.bytes() {
                    unread.set(bytes);
                }
                must_pause |= bytes >= most_unread || unread.of_all() >= self.most_held;
                answers.is_paused = must_pause;
            }
            must_pause
        })
    }

    /// Hands over a part of what has come, no more than the caller's quota has room for.
    fn hand_over(&mut self, requests: &mut Messages) -> Result<(), Status> {
        let most_open = self.most_open();
        let default_timeout = self.shard.config().limits.default_timeout;
        let Self { shard, caller, shared, call_deadline, world, .. } = self;
        shard.with(|state, now| {
            let mut open = lock(&shared.open);
            let (mut jobs, mut bytes) = (0, 0);
            requests.take(|message| {
                let is_whole = jobs >= PART || bytes >= PART_BYTES;
                if is_whole || open.requests >= most_open || !state.scheduler.has_room(*caller) {
                    return Ok(false);
                }
                jobs += 1;
                bytes += message.len();
                let request = Request::decode(message)?;
                let deadline = deadline(&request, now, default_timeout);
                let deadline = call_deadline.map_or(deadline, |call| call.min(deadline));
                submit(state, now, *caller, &mut open, world, &request, deadline);
                Ok(true)
            })
        })
    }

    fn wake_sender(&self) {
        self.shard.with(|state, _| {
            if let Some(waker) = state.front.stream(self.caller).and_then(|answers| answers.waker.take()) {
                waker.wake();
            }
        });
    }
}

/// Has the shard's other tasks run until what was handed over has left, where nothing holds it up.
async fn part_leaves() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

/// Reads all that is there, up to [`BATCH_BYTES`]; waits where that is no whole message. False where the caller has sent its last.
fn poll_batch(requests: &mut Messages, cx: &mut Context<'_>) -> Poll<Result<bool, Status>> {
    loop {
        match requests.poll_more(cx) {
            Poll::Ready(Ok(true)) if wants_more(requests) => {}
            Poll::Pending if requests.has_next() => return Poll::Ready(Ok(true)),
            polled => return polled,
        }
    }
}

fn wants_more(requests: &Messages) -> bool {
    !requests.has_next() || (requests.ahead() < BATCH_BYTES && !requests.is_full())
}

/// Hands a request's job to the scheduler, or answers it at once.
fn submit(
    state: &mut State,
    now: Instant,
    caller: CallerId,
    open: &mut Open,
    last_world: &mut String,
    request: &Request<'_>,
    deadline: Instant,
) {
    let submit = request.submit.unwrap_or_default();
    if !submit.world.is_empty() && submit.world != last_world {
        submit.world.clone_into(last_world);
    }
    open.requests += 1;
    let is_in_use = !open.ids.insert(request.id);
    let malformed = if is_in_use {
        Some(": the id is in use by a job that is not answered yet".to_owned())
    } else if request.submit.is_none() {
        Some(": `submit` is missing".to_owned())
    } else {
        bad_affinity_key(submit.affinity_key)
    };
    let world =
        state.front.world(state.front.standing_of(caller), last_world).ok_or((Rejected::NoSuchWorld, String::new()));
    let world = match malformed.map_or(world, |detail| Err((Rejected::Malformed, detail))) {
        Ok(world) => world,
        Err((rejected, detail)) => {
            let mut failure = state.front.reject(caller, None, last_world, rejected);
            failure.message.push_str(&detail);
            let answered = if is_in_use { Answered::InUse } else { Answered::Job(request.id) };
            if let Some(answers) = state.front.stream(caller) {
                answers.push_failure(request.id, answered, failure);
            }
            return;
        }
    };
    let new = NewJob {
        ticket: request.id,
        world,
        bytes: submit.job,
        deadline,
        idempotent: submit.idempotent,
        priority: priority(submit.priority),
        affinity_key: submit.affinity_key.as_bytes(),
    };
    state.submit(now, caller, new);
}

/// When a job's own time-out is over; a negative one has passed already.
fn deadline(request: &Request<'_>, now: Instant, default_timeout: Duration) -> Instant {
    let timeout = request.timeout.map(|timeout| Duration::try_from(timeout).unwrap_or(Duration::ZERO));
    now.checked_add(timeout.unwrap_or(default_timeout)).unwrap_or(now + default_timeout)
}

/// The trailers of a call that has failed.
fn trailers(status: &Status) -> Result<HeaderMap, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers)?;
    Ok(trailers)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
