//! The hardserver front end: one legacy caller's connection, from its first byte to its last.
//!
//! Each connection is one task with two halves. The reader takes what the socket has, decodes every whole command in it and
//! hands the batch to the shard in one call; the writer sends everything that has been answered in one write. An idle
//! connection holds no buffer: what is read passes through one that the whole shard shares, and only a message that is cut
//! in two is kept until the rest has come.
//!
//! Where `listen.upstream_hardserver` is set, commands that are not Seeway's are passed on to that (`pass`).

mod pass;
mod socket;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use seeway_proto::mux::{Incoming, Received, UnknownCommands};
use seeway_proto::outcome::{Outcome, Rejected};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Command, FrameError};
use tokio::sync::Notify;

use crate::config::Config;
use crate::schedule::{CallerId, NewJob, Priority};
use crate::shard::{CallerCount, LegacyPort, Meaning, Shard, State};

use pass::Passing;
pub use socket::Socket;
use socket::{KEPT_BYTES, decode_partial};

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
    /// Where commands go that are not Seeway's; `None` where they are refused.
    passing: Option<Passing>,
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
        let mut port = LegacyPort::new(incoming, output.clone(), room.clone(), is_writing.clone());
        let passing = config.listen.upstream_hardserver.clone().map(Passing::to);
        if let Some(passing) = &passing {
            port = port.beside_hardserver(config.worlds.len(), passing.wakes.clone());
        }
        let caller = shard.with(|state, _| {
            let caller = state.scheduler.caller_joined();
            state.front.add_legacy(caller, port);
            caller
        });
        Self { shard, socket, caller, output, room, is_writing, passing, _count: count }
    }

    async fn run(self) {
        let end = tokio::select! {
            end = self.read() => end,
            end = self.write() => end,
            never = self.pass() => match never {},
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
        let missing = if partial.is_empty() {
            0
        } else {
            self.shard.with(|state, _| state.front.legacy(self.caller).incoming.missing(partial.filled()))
        };
        self.socket.take_in(partial, missing, End::Gone, |bytes| self.decode(bytes))
    }

    /// Hands every whole command in `bytes` to whom it is for, as far as there is room; returns how many bytes are left.
    fn decode(&self, bytes: &[u8]) -> Result<usize, End> {
        let config = self.shard.config();
        self.shard.with(|state, now| {
            let unknown = if self.passing.is_some() { UnknownCommands::Taken } else { UnknownCommands::Refused };
            let mut rest = bytes;
            while !self.must_pause(&config, state) {
                let port = state.front.legacy(self.caller);
                match port.incoming.next_received(&mut rest, unknown).map_err(End::Broken)? {
                    None => break,
                    Some(received) => self.serve(&config, state, now, received),
                }
            }
            let port = state.front.legacy(self.caller);
            port.batch_served();
            let refused = port.incoming.take_refused();
            if port.incoming.output_len() > 0 {
                port.wake();
            }
            state.front.rejected += refused;
            Ok(rest.len())
        })
    }

    fn serve(&self, config: &Config, state: &mut State, now: Instant, received: Received<'_>) {
        let port = state.front.legacy(self.caller);
        match received.command {
            Some(Command::SeeJob { tag, world, job }) => match port.meaning_of(world) {
                // A world that the configuration has no more is none, whoever still has a handle of it.
                Meaning::World(world) if config.worlds[world.0].is_retired => {
                    port.answer(&config.wire.profile, tag, Outcome::Rejected(Rejected::NoSuchWorld));
                    state.front.rejected += 1;
                }
                Meaning::World(world) => {
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
                Meaning::NotGiven if self.passing.is_some() => self.pass_on(state, received),
                Meaning::NotGiven => {
                    port.answer(&config.wire.profile, tag, Outcome::Rejected(Rejected::NoSuchWorld));
                    state.front.rejected += 1;
                }
                Meaning::Ambiguous => {
                    let status = config.wire.profile.statuses.unknown_id;
                    port.incoming.answer_error(tag, status, Some("the handle is ambiguous: ask for the world again"));
                    state.front.rejected += 1;
                }
            },
            Some(Command::NoOp { tag }) => port.incoming.answer_no_op(tag),
            Some(Command::GetPublishedObject { tag, name }) => match state.front.published_world(name) {
                Some(world) => {
                    let port = state.front.legacy(self.caller);
                    if let Some(handle) = port.handle_of(world) {
                        port.incoming.answer_object(tag, handle);
                    } else {
                        let status = config.wire.profile.statuses.not_available;
                        port.incoming.answer_error(tag, status, Some("this connection has no handle left"));
                    }
                }
                None if self.passing.is_some() => self.pass_on(state, received),
                None => {
                    let status = config.wire.profile.statuses.unknown_id;
                    state.front.legacy(self.caller).incoming.answer_error(tag, status, Some("no such world"));
                }
            },
            None => self.pass_on(state, received),
        }
    }

    /// A caller that asks faster than it reads its answers, or than the hardserver takes what is passed on, is not read from
    /// until that has caught up; one whose quota is full is not until it has room.
    fn must_pause(&self, config: &Config, state: &mut State) -> bool {
        let most = config.limits.caller_buffer_bytes;
        let port = state.front.legacy(self.caller);
        !port.incoming.has_room()
            || port.incoming.output_len() >= most
            || port.staged_len() >= most
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
                decode_partial(partial, |bytes| self.decode(bytes))?;
            }
        }
        Ok(())
    }

    /// Returns when the caller has closed its end. Bytes that it sent before can't be read meanwhile, so that this looks
    /// from time to time.
    async fn closed_by_peer(&self) {
        loop {
            let ready = self.socket.ready_to_read().await;
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
            port.resume_passage();
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
