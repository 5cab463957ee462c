//! The hardserver front end: one legacy caller's connection, from its first byte to its last.
//!
//! Each connection is one task with two halves. The reader takes what the socket has, decodes every whole command in it and
//! hands the batch to the shard in one call; the writer sends everything that has been answered in one write. An idle
//! connection holds no buffer: what is read passes through one that the whole shard shares, and only a message that is cut
//! in two is kept until the rest has come.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use seeway_proto::mux::Incoming;
use seeway_proto::outcome::{Outcome, Rejected};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Command, FrameError};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use zeroize::Zeroize;

use crate::config::Config;
use crate::schedule::{CallerId, NewJob, Priority};
use crate::shard::{CallerCount, LegacyPort, Shard, State};

/// What one read takes at most: enough for a few hundred small jobs, small enough to stay in a core's cache.
const READ_BYTES: usize = 64 * 1024;

/// A buffer that grew beyond this for a large message is given back when it is empty.
const KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    /// What the shard's connections read into. Empty and zero between two reads.
    static SHARED_READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A legacy caller's socket.
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl Socket {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }

    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(into),
            Self::Unix(stream) => stream.try_read(into),
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    fn peer(&self) -> String {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map_or_else(|_| "a TCP peer".into(), |peer| peer.to_string()),
            Self::Unix(stream) => {
                stream.peer_cred().map_or_else(|_| "a Unix peer".into(), |peer| format!("uid {}", peer.uid()))
            }
        }
    }
}

/// Serves a connection until its caller goes away.
pub fn start(shard: &Shard, socket: Socket, count: CallerCount) {
    let connection = Connection::new(shard.clone(), socket, count);
    tokio::spawn(connection.run());
}

struct Connection {
    shard: Shard,
    socket: Socket,
    caller: CallerId,
    output: Arc<Notify>,
    room: Arc<Notify>,
    /// Whether answers were taken from the port and have not been written yet.
    is_writing: Arc<AtomicBool>,
    _count: CallerCount,
}

/// Why a connection ended.
enum End {
    /// The caller closed it, or half-closed it, which counts as gone.
    Gone,
    /// The socket failed.
    Lost(io::Error),
    /// What came can't be followed.
    Broken(FrameError),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

impl Connection {
    fn new(shard: Shard, socket: Socket, count: CallerCount) -> Self {
        let (output, room) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let config = shard.config();
        let incoming = Incoming::new(config.wire.profile.clone(), config.wire_limits(), config.limits.caller_jobs);
        let is_writing = Arc::new(AtomicBool::new(false));
        let port = LegacyPort::new(incoming, output.clone(), room.clone(), is_writing.clone());
        let caller = shard.with(|state, _| {
            let caller = state.scheduler.caller_joined();
            state.front.add_legacy(caller, port);
            caller
        });
        Self { shard, socket, caller, output, room, is_writing, _count: count }
    }

    async fn run(self) {
        let end = tokio::select! {
            end = self.read() => end,
            end = self.write() => end,
        };
        match end {
            Ok(()) | Err(End::Gone) => {}
            Err(End::Lost(error)) => tracing::debug!(peer = self.socket.peer(), %error, "a legacy connection was lost"),
            Err(End::Broken(error)) => {
                tracing::warn!(peer = self.socket.peer(), %error, "a legacy connection was closed");
                self.write_last_answers();
            }
        }
    }

    async fn read(&self) -> Result<(), End> {
        let mut partial = WipedBuffer::new();
        loop {
            self.socket.readable().await?;
            match self.take_in(&mut partial) {
                Ok(()) => {}
                Err(End::Lost(error)) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(end) => return Err(end),
            }
            self.wait_for_room(&mut partial).await?;
        }
    }

    /// One read and everything that follows from it.
    fn take_in(&self, partial: &mut WipedBuffer) -> Result<(), End> {
        if partial.is_empty() {
            SHARED_READ_BUFFER.with_borrow_mut(|shared| {
                let count = self.socket.try_read(shared)?;
                let read = &mut shared[..count];
                let result = if count == 0 { Err(End::Gone) } else { self.decode(read) };
                let result = result.map(|rest| partial.extend(&read[count - rest..]));
                read.zeroize();
                result
            })
        } else {
            let missing =
                self.shard.with(|state, _| state.front.legacy(self.caller).incoming.missing(partial.filled()));
            let count = self.socket.try_read(partial.unfilled(missing.max(READ_BYTES / 4)))?;
            if count == 0 {
                return Err(End::Gone);
            }
            partial.commit(count);
            self.decode_partial(partial)
        }
    }

    fn decode_partial(&self, partial: &mut WipedBuffer) -> Result<(), End> {
        let rest = self.decode(partial.filled())?;
        partial.consume(partial.len() - rest);
        if partial.is_empty() && partial.capacity() > KEPT_BYTES {
            *partial = WipedBuffer::new();
        }
        Ok(())
    }

    /// Hands every whole command in `bytes` to the shard, as far as there is room; returns how many bytes are left.
    fn decode(&self, bytes: &[u8]) -> Result<usize, End> {
        let config = self.shard.config();
        self.shard.with(|state, now| {
            let mut rest = bytes;
            while !self.must_pause(&config, state) {
                let request = state.front.legacy(self.caller).incoming.next(&mut rest).map_err(End::Broken)?;
                match request {
                    None => break,
                    Some(Command::SeeJob { tag, world, job }) => {
                        let world = state.front.legacy(self.caller).world_of(world);
                        // A world that the configuration has no more is none, whoever still has a handle of it.
                        let Some(world) = world.filter(|world| !config.worlds[world.0].is_retired) else {
                            let outcome = Outcome::Rejected(Rejected::NoSuchWorld);
                            state.front.rejected += 1;
                            state.front.legacy(self.caller).answer(&config.wire.profile, tag, outcome);
                            continue;
                        };
                        let new = NewJob {
                            ticket: tag.into(),
                            world,
                            bytes: job.0,
                            deadline: now + config.limits.default_timeout,
                            idempotent: config.worlds[world.0].idempotent,
                            priority: Priority::Normal,
                            affinity_key: b"",
                        };
                        state.submit(now, self.caller, new);
                    }
                    Some(Command::NoOp { tag }) => {
                        let port = state.front.legacy(self.caller);
                        port.incoming.answer_no_op(tag);
                    }
                    Some(Command::GetPublishedObject { tag, name }) => {
                        let world = state.front.published_world(name);
                        let port = state.front.legacy(self.caller);
                        if let Some(world) = world {
                            let handle = port.handle_of(world);
                            port.incoming.answer_object(tag, handle);
                        } else {
                            let status = config.wire.profile.statuses.unknown_id;
                            port.incoming.answer_error(tag, status, Some("no such world"));
                        }
                    }
                }
            }
            let port = state.front.legacy(self.caller);
            let refused = port.incoming.take_refused();
            if port.incoming.output_len() > 0 {
                port.wake();
            }
            state.front.rejected += refused;
            Ok(rest.len())
        })
    }

    /// A caller that asks faster than it reads its answers is not read from until it has caught up; one whose quota is full
    /// is not until it has room.
    fn must_pause(&self, config: &Config, state: &mut State) -> bool {
        let incoming = &state.front.legacy(self.caller).incoming;
        !incoming.has_room()
            || incoming.output_len() >= config.limits.caller_buffer_bytes
            || !state.scheduler.has_room(self.caller)
    }

    /// Whether the reader is to wait. Where it is, whatever makes room wakes it.
    fn pauses(&self) -> bool {
        let config = self.shard.config();
        self.shard.with(|state, _| {
            let must_pause = self.must_pause(&config, state);
            if must_pause {
                state.front.legacy(self.caller).pause();
            }
            must_pause
        })
    }

    /// Goes on with what was read and not decoded for want of room, as room comes. Notices a caller that goes away
    /// meanwhile, whose jobs would otherwise run for nobody.
    async fn wait_for_room(&self, partial: &mut WipedBuffer) -> Result<(), End> {
        while self.pauses() {
            tokio::select! {
                () = self.room.notified() => {}
                () = self.closed_by_peer() => return Err(End::Gone),
            }
            if !partial.is_empty() {
                self.decode_partial(partial)?;
            }
        }
        Ok(())
    }

    /// Returns when the caller has closed its end. Bytes that it sent before can't be read meanwhile, so that this looks
    /// from time to time.
    async fn closed_by_peer(&self) {
        let interest = tokio::io::Interest::READABLE;
        loop {
            let ready = match &self.socket {
                Socket::Tcp(stream) => stream.ready(interest).await,
                Socket::Unix(stream) => stream.ready(interest).await,
            };
            if !ready.is_ok_and(|ready| !ready.is_read_closed()) {
                return;
            }
            tokio::time::sleep(LOOK_FOR_CLOSE).await;
        }
    }

    async fn write(&self) -> Result<(), End> {
        let mut writing = WipedBuffer::new();
        loop {
            self.output.notified().await;
            // Whoever is ready gets to say what it has to say first: one write then carries it all.
            tokio::task::yield_now().await;
            self.take_answers(&mut writing);
            while !writing.is_empty() {
                match self.socket.try_write(writing.filled()) {
                    Ok(0) => return Err(End::Gone),
                    Ok(count) => writing.consume(count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.writable().await?,
                    Err(error) => return Err(error.into()),
                }
            }
            self.is_writing.store(false, Ordering::Relaxed);
            if writing.capacity() > KEPT_BYTES {
                writing = WipedBuffer::new();
            }
        }
    }

    fn take_answers(&self, into: &mut WipedBuffer) {
        self.shard.with(|state, _| {
            let port = state.front.legacy(self.caller);
            port.incoming.swap_output(into);
            self.is_writing.store(!into.is_empty(), Ordering::Relaxed);
            port.resume();
        });
    }

    /// What was answered before the stream broke still goes out, as far as the socket takes it at once.
    fn write_last_answers(&self) {
        let mut last = WipedBuffer::new();
        self.take_answers(&mut last);
        while !last.is_empty() {
            match self.socket.try_write(last.filled()) {
                Ok(count) if count > 0 => last.consume(count),
                _ => return,
            }
        }
    }
}

/// How soon a paused connection notices that its caller has closed it.
const LOOK_FOR_CLOSE: std::time::Duration = std::time::Duration::from_millis(200);

impl Drop for Connection {
    fn drop(&mut self) {
        let caller = self.caller;
        self.shard.with(|state, now| state.caller_left(now, caller));
    }
}
