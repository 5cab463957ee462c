//! One legacy caller's connection: what its bytes say, and who is asked to do that.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use seeway_proto::mux::{Incoming, Received, UnknownCommands};
use seeway_proto::outcome::{Outcome, Rejected};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Command, FrameError};
use tokio::task::AbortHandle;
use zeroize::Zeroize;

use super::caller::{Caller, Socket};
use super::chores::Chore;
use super::pass::Passing;
use super::socket::{KEPT_BYTES, decode_partial};
use crate::audit::Actor;
use crate::config::Config;
use crate::handover::{Carried, Leaving};
use crate::schedule::{CallerId, FrontEnd, NewJob, Priority, WorldId};
use crate::seldom::{Seldom, Tell};
use crate::shard::{CallerCount, LegacyPort, Meaning, Shard, State, Written};

/// What one read takes at most: enough for a few hundred small jobs, small enough to stay in a core's cache, and for a large job
/// not to keep the others waiting.
pub(super) const READ_BYTES: usize = 64 * 1024;

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// The caller closed it, or half-closed it, which counts as gone.
    Gone,
    /// The socket failed.
    Lost(io::Error),
    /// What came can't be followed.
    Broken(FrameError),
    /// A message took too long to come.
    Late,
}

/// What one call of the shard has in hand for all connections that it serves.
pub(super) struct Turn<'a> {
    pub(super) config: &'a Config,
    pub(super) state: &'a mut State,
    pub(super) now: Instant,
    /// What small messages are read into; empty and zero between two reads.
    pub(super) buffer: &'a mut [u8],
}

/// What the system has told of a socket. It does so once.
#[derive(Default)]
struct Told {
    /// It may have more than has been read.
    is_readable: bool,
    /// Nothing comes after what it has.
    is_closed_by_peer: bool,
}

/// A connection, from its first byte to its last. An idle one holds no buffer: what is read passes through one that all of them
/// share, and only a message that is cut in two is kept until the rest has come.
pub(super) struct Connection {
    caller_id: CallerId,
    caller: Arc<Caller>,
    partial: WipedBuffer,
    told: Told,
    is_paused: bool,
    /// It is about to leave for another gateway, and is not read from.
    is_held: bool,
    /// Since when a message has begun and not come to its end, by no fault of the gateway's.
    unfinished: Option<Instant>,
    /// Whether the socket is watched for taking more.
    pub(super) is_watched_for_room: bool,
    /// What carries commands to the hardserver behind; `None` where those that are not Seeway's are refused.
    passing: Option<AbortHandle>,
    /// `None` where somebody else counts it.
    count: Option<CallerCount>,
}

impl Connection {
    /// Joins the shard's callers; with what another gateway knew of it.
    pub(super) fn new(
        shard: &Shard,
        caller: Arc<Caller>,
        actor: &Arc<Actor>,
        count: Option<CallerCount>,
        carried: Option<Carried>,
    ) -> Self {
        let config = shard.config();
        let large_buffers = shard.with(|state, _| state.scheduler.large_buffers().clone());
        let incoming = Incoming::new(config.wire.profile.clone(), config.wire_limits(), config.limits.caller_jobs);
        let mut port = LegacyPort::new(incoming.with_spares(large_buffers, KEPT_BYTES), caller.clone());
        let passing = config.listen.upstream_hardserver.clone().map(Passing::to);
        if let Some(passing) = &passing {
            port = port.beside_hardserver(config.worlds.len(), passing.wakes.clone());
        }
        let partial = carried.map_or_else(WipedBuffer::new, |carried| {
            let find = |name: &str| config.worlds.iter().position(|world| world.name == name).map(WorldId);
            port.bring_handles(&carried, config.worlds.len(), find);
            carried.unread
        });
        let is_paused = !partial.is_empty();
        if is_paused {
            // What it has said already is served like that of a connection that has waited for room.
            caller.chores.note(caller.place, Chore::Resume);
        }
        let caller_id = shard.with(|state, now| {
            let caller = state.scheduler.caller_joined(FrontEnd::Hardserver);
            state.front.add_legacy(now, caller, actor.identity(), port);
            state.front.introduce(caller, actor);
            caller
        });
        let passing = passing.map(|passing| passing.start(shard, caller_id, caller.socket.peer()));
        Self {
            caller_id,
            caller,
            partial,
            told: Told::default(),
            is_paused,
            is_held: false,
            unfinished: None,
            is_watched_for_room: false,
            passing,
            count,
        }
    }

    /// Whether it can leave for another gateway now: nothing of it is outstanding. From the first time that this is asked it is not read
    /// from any more. Never, where something belongs to it that can not move: what TLS has agreed on, or a connection to the
    /// hardserver behind.
    pub(super) fn may_leave(&mut self, state: &mut State) -> bool {
        let port = state.front.legacy(self.caller_id);
        if self.count.is_none() || port.has_hardserver() {
            return false;
        }
        // The rest of a command that is too large is read and dropped first.
        self.is_held |= !port.incoming.is_skipping();
        self.is_held && port.is_quiet()
    }

    /// Nobody takes it: it is read from again, and what has begun to come gets all of its time once more. Returns whether it was not.
    pub(super) fn stay(&mut self, now: Instant) -> bool {
        let was_held = std::mem::take(&mut self.is_held);
        if was_held {
            self.unfinished = self.unfinished.map(|_| now);
        }
        was_held
    }

    /// Leaves for another gateway. `None` where the system has no descriptor for that: the caller sees its connection end.
    pub(super) fn leave(mut self, state: &mut State, now: Instant) -> Option<Leaving> {
        if let Some(passing) = &self.passing {
            passing.abort();
        }
        let config = state.front.config().clone();
        let mut carried = state.front.legacy(self.caller_id).take_handles(|world| config.worlds[world.0].name.clone());
        carried.unread = std::mem::take(&mut self.partial);
        state.caller_left(now, self.caller_id);
        let socket = self.caller.socket.try_clone();
        let socket = socket.inspect_err(|error| tracing::error!(%error, "a connection can not be handed over")).ok()?;
        Some(Leaving { socket, carried, count: self.count? })
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.caller.socket
    }

    /// Its place among the shard's connections.
    pub(super) fn place(&self) -> usize {
        self.caller.place
    }

    /// The socket has something to read, or will have nothing any more.
    pub(super) fn readable(&mut self, is_closed_by_peer: bool) {
        self.told.is_readable = true;
        self.told.is_closed_by_peer |= is_closed_by_peer;
    }

    /// Since when a message is waited for that has begun. None is where it is not read from.
    pub(super) fn unfinished(&self) -> Option<Instant> {
        self.unfinished.filter(|_| !self.is_held)
    }

    /// Whether [`read`](Self::read) would find something to do.
    pub(super) fn wants_turn(&self) -> bool {
        self.told.is_readable && !self.is_paused && !self.is_held
    }

    /// Reads once, if there is something to read and room for it, and hands every whole command to whom it is for.
    pub(super) fn read(&mut self, turn: &mut Turn<'_>) -> Result<(), End> {
        if self.is_paused && self.told.is_closed_by_peer {
            // Its jobs would otherwise run for nobody.
            return Err(End::Gone);
        }
        if !self.wants_turn() {
            return Ok(());
        }
        if self.partial.is_empty() {
            // Taken out for as long as it is decoded.
            let buffer = std::mem::take(&mut turn.buffer);
            let count = self.receive(buffer.len(), |socket| socket.read(buffer));
            let decoded = count.and_then(|count| {
                let read = &mut buffer[..count];
                let decoded = self.decode(turn, read);
                if let Ok(rest @ 1..) = decoded {
                    self.keep(turn, &read[count - rest..]);
                }
                read.zeroize();
                decoded
            });
            turn.buffer = buffer;
            return decoded.map(|_| ());
        }
        let missing = turn.state.front.legacy(self.caller_id).incoming.missing(self.partial.filled());
        let mut partial = std::mem::take(&mut self.partial);
        let room = partial.unfilled(missing.max(READ_BYTES / 4));
        let most = room.len().min(READ_BYTES);
        let count = self.receive(most, |socket| socket.read(&mut room[..most]))?;
        partial.commit(count);
        self.partial = partial;
        self.decode_kept(turn)
    }

    /// Hands what was kept to whom it is for, as far as it is whole and there is room.
    fn decode_kept(&mut self, turn: &mut Turn<'_>) -> Result<(), End> {
        let large_buffers = turn.state.scheduler.large_buffers().clone();
        let mut partial = std::mem::take(&mut self.partial);
        let decode = |bytes: &[u8]| self.decode(turn, bytes).map(|rest| (rest, ()));
        let decoded = decode_partial(&mut partial, decode, |buffer| large_buffers.put_back(buffer));
        self.partial = partial;
        decoded
    }

    /// Keeps what was read of a message whose rest has not come, or for which there is no room.
    fn keep(&mut self, turn: &mut Turn<'_>, rest: &[u8]) {
        let missing = turn.state.front.legacy(self.caller_id).incoming.missing(rest);
        if rest.len() + missing > KEPT_BYTES {
            self.partial = turn.state.scheduler.large_buffers().take();
        }
        self.partial.extend(rest);
    }

    /// Reads with `read`, at most `most` bytes; none where there is nothing to read. The end of the stream is an end.
    fn receive(&mut self, most: usize, read: impl FnOnce(&Socket) -> io::Result<usize>) -> Result<usize, End> {
        match read(&self.caller.socket) {
            Ok(0) => Err(End::Gone),
            Ok(count) => {
                // Less than there was room for is all that the socket has; its end still has to be met.
                self.told.is_readable = count == most || self.told.is_closed_by_peer;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.told.is_readable = false;
                Ok(0)
            }
            Err(error) => Err(End::Lost(error)),
        }
    }

    /// Goes on with what was read and not decoded for want of room, where there is some now.
    pub(super) fn resume(&mut self, turn: &mut Turn<'_>) -> Result<(), End> {
        if self.is_held {
            return Ok(());
        }
        if !std::mem::take(&mut self.is_paused) {
            // What has come meanwhile, where it stays.
            return self.read(turn);
        }
        self.decode_kept(turn)
    }

    /// Writes what is left over.
    pub(super) fn write(&mut self, turn: &mut Turn<'_>) -> Result<Written, End> {
        turn.state.front.legacy(self.caller_id).write_answers().map_err(End::Lost)
    }

    /// Hands every whole command in `bytes` to whom it is for, as far as there is room; returns how many bytes are left. Where
    /// there is no room the connection is paused, and whatever makes room resumes it.
    fn decode(&mut self, turn: &mut Turn<'_>, bytes: &[u8]) -> Result<usize, End> {
        let unknown = if self.passing.is_some() { UnknownCommands::Taken } else { UnknownCommands::Refused };
        let Turn { config, state, now, .. } = turn;
        let mut rest = bytes;
        let mut broken = None;
        let mut room = 0;
        let mut taken = 0_usize;
        let port = loop {
            let port = state.front.legacy(self.caller_id);
            // A caller that asks faster than it reads its answers, or than the hardserver takes what is passed on, is not read
            // from until that has caught up; one whose quota is full is not until it has room.
            self.is_paused = port.is_full(config.limits.caller_buffer_bytes);
            if !self.is_paused && room == 0 {
                room = state.scheduler.room(self.caller_id);
                self.is_paused = room == 0;
            }
            if self.is_paused || rest.is_empty() {
                break port;
            }
            room -= 1;
            match port.incoming.next_received(&mut rest, unknown) {
                Ok(None) => break port,
                Ok(Some(received)) => {
                    taken += 1;
                    match Self::job_of(config, port, *now, &received) {
                        Some(job) => _ = state.submit(*now, self.caller_id, job),
                        None => self.serve(config, state, received),
                    }
                }
                Err(error) => {
                    broken = Some(End::Broken(error));
                    break port;
                }
            }
        };
        port.batch_served();
        if self.is_paused {
            port.pause();
        }
        let refused = port.incoming.take_refused();
        let is_unfinished = !self.is_paused && (!rest.is_empty() || port.incoming.is_skipping());
        self.unfinished = match self.unfinished {
            Some(since) if is_unfinished && taken == 0 && refused == 0 => Some(since),
            _ => is_unfinished.then_some(*now),
        };
        if port.incoming.output_len() > 0 {
            state.front.answered(self.caller_id);
        }
        if refused > 0 {
            state.front.rejected_legacy(self.caller_id, "MALFORMED_OR_TOO_LARGE", refused);
        }
        // What was answered before the stream broke still goes out, as far as the socket takes it at once.
        broken.map_or(Ok(rest.len()), Err)
    }

    /// The job that a command is, if it is one for a world that there is.
    #[inline]
    fn job_of<'a>(config: &Config, port: &LegacyPort, now: Instant, received: &Received<'a>) -> Option<NewJob<'a>> {
        let Some(Command::SeeJob { tag, world, job }) = received.command else { return None };
        let Meaning::World(world) = port.meaning_of(world) else { return None };
        let of_world = &config.worlds[world.0];
        if of_world.is_retired {
            return None;
        }
        Some(NewJob {
            ticket: tag.into(),
            world,
            bytes: job.0,
            deadline: now + config.limits.default_timeout,
            idempotent: of_world.idempotent,
            priority: Priority::Normal,
            affinity_key: b"",
        })
    }

    /// Sees to a command that is no job for a world.
    fn serve(&self, config: &Config, state: &mut State, received: Received<'_>) {
        let profile = &config.wire.profile;
        let port = state.front.legacy(self.caller_id);
        match received.command {
            Some(Command::SeeJob { tag, world, .. }) => match port.meaning_of(world) {
                Meaning::NotGiven if self.passing.is_some() => self.pass_on(config, state, received),
                // A world that the configuration has no more is none, whoever still has a handle of it.
                Meaning::World(_) | Meaning::NotGiven => {
                    let outcome = Outcome::Rejected(Rejected::NoSuchWorld);
                    port.answer(profile, tag, outcome);
                    state.front.rejected_legacy(self.caller_id, outcome.reason(), 1);
                }
                Meaning::Ambiguous => {
                    let status = profile.statuses.unknown_id;
                    port.incoming.answer_error(tag, status, Some("the handle is ambiguous: ask for the world again"));
                    state.front.rejected_legacy(self.caller_id, "AMBIGUOUS_HANDLE", 1);
                }
            },
            Some(Command::NoOp { tag }) => port.incoming.answer_no_op(tag),
            Some(Command::GetPublishedObject { tag, name }) => {
                match state.front.published_world(self.caller_id, name) {
                    Some(world) => {
                        let port = state.front.legacy(self.caller_id);
                        if let Some(handle) = port.handle_of(world) {
                            port.incoming.answer_object(tag, handle);
                        } else {
                            let status = profile.statuses.not_available;
                            port.incoming.answer_error(tag, status, Some("this connection has no handle left"));
                        }
                    }
                    None if self.passing.is_some() => self.pass_on(config, state, received),
                    None => {
                        let port = state.front.legacy(self.caller_id);
                        port.incoming.answer_error(tag, profile.statuses.unknown_id, Some("no such world"));
                        let reason = Outcome::Rejected(Rejected::NoSuchWorld).reason();
                        state.front.record_refusal(self.caller_id, None, Some(name), reason);
                    }
                }
            }
            None => self.pass_on(config, state, received),
        }
    }

    /// Stages a command for the hardserver, if its caller may use that.
    fn pass_on(&self, config: &Config, state: &mut State, received: Received<'_>) {
        if !state.front.standing_of(self.caller_id).may_use_hardserver() {
            let outcome = Outcome::Rejected(Rejected::AccessDenied);
            let port = state.front.legacy(self.caller_id);
            port.incoming.answer_error(received.tag, outcome.status(&config.wire.profile), Some("not allowed"));
            state.front.rejected_legacy(self.caller_id, outcome.reason(), 1);
            return;
        }
        if !state.front.legacy(self.caller_id).pass_on(&config.wire.profile, received) {
            state.front.passed.not_sent += 1;
        }
    }

    /// The caller's jobs that have not been sent are dropped; nobody waits for the others any more.
    pub(super) fn end(self, turn: &mut Turn<'_>, end: &End) {
        if let Some(passing) = &self.passing {
            passing.abort();
        }
        turn.state.caller_left(turn.now, self.caller_id);
        match end {
            End::Gone => {}
            // Whoever does so often must not be able to fill the log: a metric counts it.
            End::Late => {
                turn.state.front.late.legacy += 1;
                tracing::debug!(
                    peer = self.caller.socket.peer(),
                    "a legacy connection was closed: limits.message_timeout"
                );
            }
            End::Lost(error) => {
                tracing::debug!(peer = self.caller.socket.peer(), %error, "a legacy connection was lost");
            }
            End::Broken(error) => {
                static BROKEN: Seldom = Seldom::new("a legacy connection was closed: what it sent was no message");
                turn.state.front.broken += 1;
                let peer = self.caller.socket.peer();
                if let Some(Tell { untold }) = BROKEN.tell("") {
                    tracing::warn!(peer, %error, untold, "a legacy connection was closed");
                } else {
                    tracing::debug!(peer, %error, "a legacy connection was closed");
                }
            }
        }
    }
}
