//! The hardserver front end: one legacy caller's connection, from its first byte to its last.
//!
//! Each connection is one task. It takes what the socket has, decodes every whole command in it and hands the batch to the
//! shard in one call. What is answered in one of the shard's calls is written at the end of that call, in one write for each
//! caller; only where a socket takes no more does the connection's own writer wait until it does. An idle connection holds no
//! buffer but one for small answers: what is read passes through one that the whole shard shares, and only a message that is
//! cut in two is kept until the rest has come.
//!
//! Where `listen.upstream_hardserver` is set, commands that are not Seeway's are passed on to that (`pass`).

mod pass;
mod socket;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use seeway_proto::mux::{Incoming, Received, UnknownCommands};
use seeway_proto::outcome::{Outcome, Rejected};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Command, FrameError};
use tokio::sync::Notify;

use crate::config::Config;
use crate::schedule::{CallerId, NewJob, Priority};
use crate::shard::{AnswerSink, CallerCount, LegacyPort, Meaning, Shard, State};

use pass::Passing;
pub use socket::Socket;
use socket::{Reader, Writer, decode_partial};

/// Serves a connection until its caller goes away.
pub fn start(shard: &Shard, socket: Socket, count: CallerCount) {
    let (reader, writer) = socket.split();
    let connection = Connection::new(shard.clone(), writer, count);
    tokio::spawn(connection.run(reader));
}

struct Connection {
    shard: Shard,
    writer: Arc<Writer>,
    caller: CallerId,
    left_over: Arc<Notify>,
    room: Arc<Notify>,
    /// Where commands go that are not Seeway's; `None` where they are refused.
    passing: Option<Passing>,
    _count: CallerCount,
}

/// A message of which more than this is missing is a large one.
const LARGE_BYTES: usize = 16 * 1024;

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
    fn new(shard: Shard, writer: Writer, count: CallerCount) -> Self {
        let (writer, left_over, room) = (Arc::new(writer), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let config = shard.config();
        let incoming = Incoming::new(config.wire.profile.clone(), config.wire_limits(), config.limits.caller_jobs);
        let mut port = LegacyPort::new(incoming, writer.clone(), left_over.clone(), room.clone());
        let passing = config.listen.upstream_hardserver.clone().map(Passing::to);
        if let Some(passing) = &passing {
            port = port.beside_hardserver(config.worlds.len(), passing.wakes.clone());
        }
        let caller = shard.with(|state, _| {
            let caller = state.scheduler.caller_joined();
            state.front.add_legacy(caller, port);
            caller
        });
        Self { shard, writer, caller, left_over, room, passing, _count: count }
    }

    async fn run(self, reader: Reader) {
        let end = tokio::select! {
            end = self.read(reader) => end,
            end = self.write() => end,
            never = self.pass() => match never {},
        };
        match end {
            Ok(()) | Err(End::Gone) => {}
            Err(End::Lost(error)) => tracing::debug!(peer = self.writer.peer(), %error, "a legacy connection was lost"),
            Err(End::Broken(error)) => {
                tracing::warn!(peer = self.writer.peer(), %error, "a legacy connection was closed");
            }
        }
    }

    async fn read(&self, mut reader: Reader) -> Result<(), End> {
        let mut partial = WipedBuffer::new();
        loop {
            let missing = if partial.is_empty() {
                0
            } else {
                self.shard.with(|state, _| state.front.legacy(self.caller).incoming.missing(partial.filled()))
            };
            let mut is_paused = reader.take_in(&mut partial, missing, End::Gone, |bytes| self.decode(bytes)).await?;
            if missing > LARGE_BYTES {
                // A large message is read in turns with what else this thread has to do.
                tokio::task::yield_now().await;
            }
            // It goes on with what was read and not decoded for want of room, as room comes. A caller that goes away meanwhile
            // is noticed: its jobs would otherwise run for nobody.
            while is_paused {
                tokio::select! {
                    () = self.room.notified() => {}
                    () = closed_by_peer(&reader) => return Err(End::Gone),
                }
                is_paused = decode_partial(&mut partial, |bytes| self.decode(bytes))?;
            }
        }
    }

    /// Hands every whole command in `bytes` to whom it is for, as far as there is room; returns how many bytes are left, and
    /// whether the reader is to wait for room. Where it is, whatever makes room wakes it.
    fn decode(&self, bytes: &[u8]) -> Result<(usize, bool), End> {
        self.shard.with(|state, now| {
            let config = state.front.config().clone();
            let unknown = if self.passing.is_some() { UnknownCommands::Taken } else { UnknownCommands::Refused };
            let mut rest = bytes;
            let mut is_paused = self.must_pause(&config, state);
            let mut broken = None;
            while !is_paused {
                let port = state.front.legacy(self.caller);
                match port.incoming.next_received(&mut rest, unknown) {
                    Ok(None) => break,
                    Ok(Some(received)) => self.serve(&config, state, now, received),
                    Err(error) => {
                        broken = Some(End::Broken(error));
                        break;
                    }
                }
                is_paused = self.must_pause(&config, state);
            }
            let port = state.front.legacy(self.caller);
            port.batch_served();
            if is_paused {
                port.pause();
            }
            let refused = port.incoming.take_refused();
            let has_answers = port.incoming.output_len() > 0;
            if has_answers {
                state.front.answered(self.caller);
            }
            state.front.rejected += refused;
            // What was answered before the stream broke still goes out, as far as the socket takes it at once.
            broken.map_or(Ok((rest.len(), is_paused)), Err)
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

    /// Writes what the socket did not take at once.
    async fn write(&self) -> Result<(), End> {
        loop {
            self.left_over.notified().await;
            while !self.shard.with(|state, _| state.front.legacy(self.caller).write_answers())? {
                // Others go first: what the socket takes at once may be only a part of much.
                tokio::task::yield_now().await;
                self.writer.writable().await?;
            }
        }
    }
}

impl AnswerSink for Writer {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        Self::try_write(self, bytes)
    }
}

/// Returns when a caller has closed its end. Bytes that it sent before can't be read meanwhile, so that this looks from time
/// to time.
async fn closed_by_peer(reader: &Reader) {
    loop {
        let ready = reader.ready_to_read().await;
        if !ready.is_ok_and(|ready| !ready.is_read_closed()) {
            return;
        }
        tokio::time::sleep(LOOK_FOR_CLOSE).await;
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
