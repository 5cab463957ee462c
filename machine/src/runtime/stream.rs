//! One stream of SEEJobs: commands are read and become jobs, replies are written as they come.
//!
//! One task serves a stream; there is none for a job. Whoever answers a job encodes the reply straight into the stream's
//! output, under a lock that nobody holds for longer than that, and the task writes all that is there in one go.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use seeway_proto::mux::Incoming;
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Command, FrameError, Profile, Statuses};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::Notify;

use super::machine::Running;
use super::{Job, MachineConfig};

/// The first read's room, in bytes; few streams ever need more.
const SMALLEST_READ: usize = 16 * 1024;

/// The most that one read or write moves. Where there is more, the machine's other streams go first.
const LARGEST_MOVE: usize = 32 * 1024;

/// An output buffer that grew beyond this is given back once it is written, so that a burst is not held for good.
const LARGEST_KEPT_OUTPUT: usize = 1024 * 1024;

/// What a machine's streams have in common and its owner can see.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    /// Set once, when the machine is killed: nothing is answered any more.
    pub(super) is_dead: AtomicBool,
    /// Streams that are served.
    pub(super) streams: AtomicUsize,
    /// Jobs that were taken and are not answered.
    pub(super) jobs: AtomicUsize,
}

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamEnd {
    #[error("the caller has gone")]
    CallerGone,
    #[error("the machine is down")]
    MachineDown,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the stream broke: {0}")]
    Io(#[from] io::Error),
    #[error("the caller took no reply for {0:?}")]
    Stalled(Duration),
    #[error("there are {0} streams already, as many as may be (max_streams)")]
    TooMany(usize),
}

/// The part of a stream that its jobs share with its task.
pub(super) struct Stream {
    profile: Arc<Profile>,
    vitals: Arc<Vitals>,
    max_held_bytes: usize,
    state: Mutex<State>,
    /// There is something to write.
    output: Notify,
    /// Another command may be taken.
    room: Notify,
}

struct State {
    /// `None` once the stream has ended.
    incoming: Option<Incoming>,
    /// Bytes of the jobs that are not answered.
    job_bytes: usize,
    /// Bytes that were taken from `incoming` to be written, and are not written yet.
    writing: usize,
    /// Whether the task waits for `room`.
    reader_waits: bool,
}

impl State {
    fn output_len(&self) -> usize {
        self.incoming.as_ref().map_or(0, Incoming::output_len)
    }

    fn has_room(&self, max_held_bytes: usize) -> bool {
        let held_bytes = self.job_bytes + self.writing + self.output_len();
        held_bytes < max_held_bytes && self.incoming.as_ref().is_some_and(Incoming::has_room)
    }
}

/// What a stream needs before another command can be taken from it.
enum Needs {
    /// That jobs are answered or replies written.
    Room,
    /// At least this many more bytes.
    Bytes(usize),
}

impl Stream {
    fn new(config: &MachineConfig, vitals: Arc<Vitals>) -> Self {
        let incoming = Incoming::new(config.profile.clone(), config.limits, config.max_outstanding.max(1));
        Self {
            profile: config.profile.clone(),
            vitals,
            max_held_bytes: config.max_held_bytes.max(1),
            state: Mutex::new(State { incoming: Some(incoming), job_bytes: 0, writing: 0, reader_waits: false }),
            output: Notify::new(),
            room: Notify::new(),
        }
    }

    pub(super) fn statuses(&self) -> &Statuses {
        &self.profile.statuses
    }

    /// Answers a job of `job_len` bytes: `encode` is to answer its tag.
    pub(super) fn answer(&self, job_len: usize, encode: impl FnOnce(&mut Incoming)) {
        self.vitals.jobs.fetch_sub(1, Ordering::Relaxed);
        if self.vitals.is_dead.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state();
        state.job_bytes -= job_len;
        let Some(incoming) = state.incoming.as_mut() else {
            return;
        };
        let was_empty = incoming.output_len() == 0;
        encode(incoming);
        let wakes_reader = state.reader_waits && state.has_room(self.max_held_bytes);
        if wakes_reader {
            state.reader_waits = false;
        }
        drop(state);
        // One wake-up for all the replies that come before the task gets to write.
        if was_empty {
            self.output.notify_one();
        }
        if wakes_reader {
            self.room.notify_one();
        }
    }

    /// Takes the whole commands off `input`, as many as there is room for.
    ///
    /// The jobs are to be run even where an error follows them: they came whole, and the caller can not know how far the
    /// machine had read.
    fn take_commands(self: &Arc<Self>, input: &mut WipedBuffer) -> (Vec<Job>, Result<Needs, FrameError>) {
        let mut jobs = Vec::new();
        let mut rest = input.filled();
        let mut state = self.state();
        let had_output = state.output_len() > 0;
        let needs = loop {
            if !state.has_room(self.max_held_bytes) {
                break Ok(Needs::Room);
            }
            let State { incoming: Some(incoming), job_bytes, .. } = &mut *state else {
                break Ok(Needs::Room);
            };
            match incoming.next(&mut rest) {
                Ok(Some(Command::SeeJob { tag, world: 0, job })) => {
                    *job_bytes += job.0.len();
                    self.vitals.jobs.fetch_add(1, Ordering::Relaxed);
                    jobs.push(Job::new(job.0.into(), Arc::clone(self), tag));
                }
                Ok(Some(Command::NoOp { tag })) => incoming.answer_no_op(tag),
                Ok(Some(Command::SeeJob { tag, .. })) => {
                    incoming.answer_error(tag, self.profile.statuses.unknown_id, Some("no such world"));
                }
                Ok(Some(Command::GetPublishedObject { tag, .. })) => {
                    let info = Some("a machine publishes no objects");
                    incoming.answer_error(tag, self.profile.statuses.unknown_command, info);
                }
                Ok(None) if incoming.has_room() => break Ok(Needs::Bytes(incoming.missing(rest))),
                Ok(None) => break Ok(Needs::Room),
                Err(error) => break Err(error),
            }
        };
        let has_new_output = !had_output && state.output_len() > 0;
        drop(state);
        let taken = input.len() - rest.len();
        input.consume(taken);
        if has_new_output {
            self.output.notify_one();
        }
        (jobs, needs)
    }

    /// Returns when one more command may be taken.
    async fn room(&self) {
        loop {
            {
                let mut state = self.state();
                state.reader_waits = !state.has_room(self.max_held_bytes);
                if !state.reader_waits {
                    return;
                }
            }
            self.room.notified().await;
        }
    }

    /// Takes all there is to write in exchange for `empty`; returns when there is something.
    async fn output(&self, empty: &mut WipedBuffer) {
        loop {
            {
                let mut state = self.state();
                if let Some(incoming) = state.incoming.as_mut()
                    && incoming.output_len() > 0
                {
                    incoming.swap_output(empty);
                    state.writing = empty.len();
                    return;
                }
            }
            self.output.notified().await;
        }
    }

    /// What [`output`](Self::output) gave is written.
    fn written(&self) {
        let mut state = self.state();
        state.writing = 0;
        if state.reader_waits && state.has_room(self.max_held_bytes) {
            state.reader_waits = false;
            self.room.notify_one();
        }
    }

    fn close(&self) {
        let ended = self.state().incoming.take();
        drop(ended);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic under this lock would be a bug of the codec's; jobs that are dropped while it unwinds must not abort.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves one stream until it ends. Once this returns or is dropped, the answers to its jobs go nowhere.
pub(super) async fn serve<S>(running: &Running, stream: S) -> StreamEnd
where
    S: AsyncRead + AsyncWrite + Send,
{
    let Some(served) = Served::start(running) else {
        return StreamEnd::TooMany(running.config.max_streams);
    };
    let (from_caller, to_caller) = tokio::io::split(stream);
    // In one task, the reader first: the writer is polled when the reader has nothing more to read, and then finds the
    // replies to all that was read.
    tokio::select! {
        biased;
        () = running.killed() => StreamEnd::MachineDown,
        end = read(running, &served.0, from_caller) => end,
        end = write(&served.0, to_caller, running.config.stalled_after) => end,
    }
}

async fn read<S: AsyncRead>(running: &Running, stream: &Arc<Stream>, mut from: ReadHalf<S>) -> StreamEnd {
    let mut input = WipedBuffer::new();
    let mut read_size = SMALLEST_READ;
    loop {
        stream.room().await;
        let (jobs, needs) = stream.take_commands(&mut input);
        running.take(jobs).await;
        let missing = match needs {
            Ok(Needs::Bytes(missing)) => missing,
            Ok(Needs::Room) => continue,
            Err(error) => return error.into(),
        };
        let room = input.unfilled(missing.max(read_size));
        let most = room.len().min(LARGEST_MOVE);
        match from.read(&mut room[..most]).await {
            Ok(0) => return StreamEnd::CallerGone,
            Ok(count) => input.commit(count),
            Err(error) => return error.into(),
        }
        if input.len() >= read_size {
            read_size = (read_size * 2).min(LARGEST_MOVE);
            // More waits to be read. What is answered already goes out first.
            tokio::task::yield_now().await;
        }
    }
}

async fn write<S: AsyncWrite>(stream: &Stream, mut to: WriteHalf<S>, stalled_after: Duration) -> StreamEnd {
    let mut output = WipedBuffer::new();
    loop {
        stream.output(&mut output).await;
        while !output.is_empty() {
            match tokio::time::timeout(stalled_after, to.write(&output.filled()[..output.len().min(LARGEST_MOVE)]))
                .await
            {
                Ok(Ok(0)) => return io::Error::from(io::ErrorKind::WriteZero).into(),
                Ok(Ok(count)) => output.consume(count),
                Ok(Err(error)) => return error.into(),
                Err(_) => return StreamEnd::Stalled(stalled_after),
            }
            if !output.is_empty() {
                tokio::task::yield_now().await;
            }
        }
        if let Err(error) = to.flush().await {
            return error.into();
        }
        stream.written();
        if output.capacity() > LARGEST_KEPT_OUTPUT {
            output = WipedBuffer::new();
        }
    }
}

/// Counts a stream as long as it is served, and closes it however that ends.
struct Served(Arc<Stream>);

impl Served {
    /// `None` where the machine serves as many streams as it may.
    fn start(running: &Running) -> Option<Self> {
        let others = running.vitals.streams.fetch_add(1, Ordering::Relaxed);
        let served = Self(Arc::new(Stream::new(&running.config, Arc::clone(&running.vitals))));
        (others < running.config.max_streams).then_some(served)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.close();
        self.0.vitals.streams.fetch_sub(1, Ordering::Relaxed);
    }
}
