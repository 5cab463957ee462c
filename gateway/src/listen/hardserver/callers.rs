//! All legacy callers of one shard, served by one task: so that what many of them say at once is taken in in one call of the shard,
//! and none of them costs a task, a wake-up or a call of its own.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::UnboundedSender;

use super::caller::{Caller, Socket};
use super::chores::{Chore, Chores};
use super::connection::{Connection, End, READ_BYTES, Turn};
use crate::audit::Actor;
use crate::handover::{Carried, Leaving};
use crate::shard::{CallerCount, Shard, Written};

/// How many connections are served in one call of the shard at most. What they say is dated with the call's beginning; with
/// this many it lasts some 100 µs.
const MOST_IN_A_TURN: usize = 64;

/// How soon one looks again whether connections can leave. It is done once in a gateway's life, for some seconds as a rule.
const BETWEEN_LEAVES: Duration = Duration::from_millis(5);

/// What tells which connections have something to read: one wait for all of them.
pub struct Poller {
    poll: AsyncFd<Poll>,
    registry: Registry,
}

impl Poller {
    /// With no connections. To be called within the runtime that will serve them.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        #[expect(
            unsafe_code,
            reason = "tokio has no other way to wait for a descriptor that is not one of its own sockets"
        )]
        // SAFETY: the poll owns its descriptor, gives the same one each time, and is dropped with the `AsyncFd` that owns it.
        let poll = unsafe { AsyncFd::register_with_interest(poll, tokio::io::Interest::READABLE) };
        Ok(Self { poll: poll?, registry })
    }
}

/// The callers. A clone is another handle to the same.
#[derive(Clone)]
pub struct Callers {
    shared: Arc<Shared>,
}

struct Shared {
    shard: Shard,
    registry: Registry,
    chores: Arc<Chores>,
    /// Used by the shard's thread alone, so that the lock is never waited for.
    connections: Mutex<Connections>,
    /// Where connections go from which nothing is outstanding; `None`: nowhere. Locked by the shard's thread alone, too.
    leaving: Mutex<Option<UnboundedSender<Option<Leaving>>>>,
    /// Whether there is such a place. Every turn looks here, and takes no lock for it.
    is_leaving: AtomicBool,
}

/// The connections by place. A place is used again when its connection has ended.
#[derive(Default)]
struct Connections {
    places: Vec<Option<Connection>>,
    free: Vec<usize>,
}

impl Callers {
    /// Serves those that are [adopted](Self::adopt), until the runtime ends.
    pub fn start(shard: &Shard, poller: Poller) -> Self {
        let Poller { poll, registry } = poller;
        let (shard, chores, connections) = (shard.clone(), Arc::default(), Mutex::default());
        let shared = Shared {
            shard,
            registry,
            chores,
            connections,
            leaving: Mutex::default(),
            is_leaving: AtomicBool::new(false),
        };
        let callers = Self { shared: Arc::new(shared) };
        let server = Server {
            shared: callers.shared.clone(),
            buffer: vec![0; READ_BYTES],
            unread: Vec::new(),
            ended: Vec::new(),
            next_look: None,
            next_leave: None,
        };
        tokio::spawn(server.run(poll));
        callers
    }

    /// Serves a connection until its caller goes away. The socket does not block. `count` is `None` where somebody else counts it;
    /// `carried` is what another gateway knew of it.
    pub fn adopt(
        &self,
        socket: Socket,
        actor: &Arc<Actor>,
        count: Option<CallerCount>,
        carried: Option<Carried>,
    ) -> io::Result<()> {
        let Shared { shard, registry, chores, .. } = &*self.shared;
        let mut connections = self.shared.connections();
        let place = connections.next_place();
        registry.register(&mut SourceFd(&socket.as_fd().as_raw_fd()), Token(place), Interest::READABLE)?;
        let caller = Arc::new(Caller { socket, place, chores: chores.clone() });
        connections.add(place, Connection::new(shard, caller, actor, count, carried));
        Ok(())
    }

    /// From now on each connection goes to `leaving` as soon as nothing of it is outstanding and every answer has been written. Those that
    /// can not move stay.
    pub fn leave(&self, leaving: UnboundedSender<Option<Leaving>>) {
        self.shared.set_leaving(Some(leaving));
        self.shared.chores.wake();
    }

    /// From now on none leaves, and those that were about to are served here again.
    pub fn stay(&self) {
        self.shared.set_leaving(None);
        let connections = &mut *self.shared.connections();
        let now = Instant::now();
        for place in 0..connections.places.len() {
            if connections.at(place).is_some_and(|connection| connection.stay(now)) {
                self.shared.chores.note(place, Chore::Resume);
            }
        }
    }
}

/// The task that serves them.
struct Server {
    shared: Arc<Shared>,
    /// What small messages are read into.
    buffer: Vec<u8>,
    /// Places whose sockets may have more than was read in their last turn.
    unread: Vec<usize>,
    /// Those that have ended in this turn.
    ended: Vec<(usize, End)>,
    /// When to look for messages that take too long to come; `None` where none has begun.
    next_look: Option<Instant>,
    /// When to look again for connections that can leave for another gateway.
    next_leave: Option<Instant>,
}

impl Server {
    async fn run(mut self, mut poll: AsyncFd<Poll>) {
        let mut events = Events::with_capacity(MOST_IN_A_TURN);
        let shared = self.shared.clone();
        let mut has_more = false;
        loop {
            if self.next_look.is_some_and(|look| look <= Instant::now()) {
                self.look();
            }
            if !shared.is_leaving.load(Ordering::Relaxed) {
                self.next_leave = None;
            } else if self.next_leave.is_none_or(|leave| leave <= Instant::now()) {
                self.let_leave();
            }
            if has_more || !self.unread.is_empty() || !shared.chores.is_empty() {
                // Others first: a large job is many reads, and a large reply many writes.
                tokio::task::yield_now().await;
            } else {
                tokio::select! {
                    biased;
                    () = shared.chores.noted() => {}
                    () = reached(self.next_look) => continue,
                    () = reached(self.next_leave) => continue,
                    // It fails where the runtime ends, and with it this task. What comes after this is told anew.
                    ready = poll.readable_mut() => match ready {
                        Ok(mut ready) => ready.clear_ready(),
                        Err(_) => return,
                    },
                }
            }
            match poll.get_mut().poll(&mut events, Some(Duration::ZERO)) {
                Ok(()) => has_more = self.turn(&events) == MOST_IN_A_TURN,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => has_more = true,
                Err(error) => {
                    tracing::error!(%error, "legacy callers can not be waited for any more");
                    return;
                }
            }
        }
    }

    /// Takes in what connections have to say, in one call of the shard; returns how many events there were.
    fn turn(&mut self, events: &Events) -> usize {
        let Self { shared, buffer, unread, ended, next_look, .. } = self;
        if events.is_empty() && unread.is_empty() && shared.chores.is_empty() {
            return 0;
        }
        let connections = &mut *shared.connections();
        let (config, chores) = (shared.shard.config(), shared.chores.take());
        let (mut count, were_unread) = (0, std::mem::take(unread));
        shared.shard.with(|state, now| {
            let mut turn = Turn { config: &config, state, now, buffer };
            let mut serve = |place: usize, act: &mut dyn FnMut(&mut Connection, &mut Turn<'_>) -> Result<(), End>| {
                let Some(connection) = connections.at(place) else { return };
                match act(connection, &mut turn) {
                    Ok(()) => {
                        if connection.wants_turn() {
                            unread.push(place);
                        }
                        if next_look.is_none() && connection.unfinished().is_some() {
                            *next_look = Some(now + between_looks(config.limits.message_timeout));
                        }
                    }
                    Err(end) => ended.push((place, end)),
                }
            };
            for event in events {
                count += 1;
                serve(event.token().0, &mut |connection, turn| {
                    if event.is_writable() {
                        shared.write(connection, turn)?;
                    }
                    if event.is_readable() || event.is_read_closed() || event.is_error() {
                        connection.readable(event.is_read_closed() || event.is_error());
                        connection.read(turn)?;
                    }
                    Ok(())
                });
            }
            for place in were_unread {
                serve(place, &mut Connection::read);
            }
            for (place, chore) in chores {
                serve(place, &mut |connection, turn| match chore {
                    Chore::Write => shared.write(connection, turn),
                    Chore::Resume => connection.resume(turn),
                });
            }
        });
        // In a call of its own: what they were answered has been written when the first one was over.
        end_all(shared, connections, buffer, ended);
        count
    }

    /// Sends those away of which nothing is outstanding, and looks again soon.
    fn let_leave(&mut self) {
        let Self { shared, next_leave, .. } = self;
        let leaving = shared.leaving();
        *next_leave = Some(Instant::now() + BETWEEN_LEAVES);
        // Once nobody takes them any more, the others stay until this gateway ends.
        let Some(leaving) = leaving.as_ref().filter(|leaving| !leaving.is_closed()) else { return };
        let connections = &mut *shared.connections();
        for place in 0..connections.places.len() {
            let Some(connection) = connections.at(place) else { continue };
            if !shared.shard.with(|state, _| connection.may_leave(state)) {
                continue;
            }
            let Some(connection) = connections.remove(place) else { continue };
            // It was registered when it came, and its descriptor is closed here in any case.
            let _ = shared.registry.deregister(&mut SourceFd(&connection.socket().as_fd().as_raw_fd()));
            if let Some(gone) = shared.shard.with(|state, now| connection.leave(state, now)) {
                // Whoever takes them may end at this moment. Nothing of it is outstanding, so that it may be closed.
                let _ = leaving.send(Some(gone));
            }
        }
    }

    /// Closes the connections of which a message takes too long to come.
    fn look(&mut self) {
        let Self { shared, buffer, ended, next_look, .. } = self;
        let connections = &mut *shared.connections();
        let timeout = shared.shard.config().limits.message_timeout;
        let now = Instant::now();
        *next_look = None;
        for (place, connection) in connections.places.iter().enumerate() {
            let Some(since) = connection.as_ref().and_then(Connection::unfinished) else { continue };
            if now.saturating_duration_since(since) >= timeout {
                ended.push((place, End::Late));
            } else {
                *next_look = Some(now + between_looks(timeout));
            }
        }
        end_all(shared, connections, buffer, ended);
    }
}

/// How often one looks: a message may take that much longer than it should, and a look passes by all connections.
fn between_looks(timeout: Duration) -> Duration {
    (timeout / 8).clamp(Duration::from_millis(10), Duration::from_secs(1))
}

async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// Ends the connections that have `ended`.
fn end_all(shared: &Shared, connections: &mut Connections, buffer: &mut [u8], ended: &mut Vec<(usize, End)>) {
    if ended.is_empty() {
        return;
    }
    let config = shared.shard.config();
    shared.shard.with(|state, now| {
        let mut turn = Turn { config: &config, state, now, buffer };
        for (place, end) in ended.drain(..) {
            if let Some(connection) = connections.remove(place) {
                connection.end(&mut turn, &end);
            }
        }
    });
}

impl Shared {
    fn set_leaving(&self, leaving: Option<UnboundedSender<Option<Leaving>>>) {
        self.is_leaving.store(leaving.is_some(), Ordering::Relaxed);
        *self.leaving() = leaving;
    }

    fn leaving(&self) -> MutexGuard<'_, Option<UnboundedSender<Option<Leaving>>>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a connection write what is left over: the rest in another turn, or when its socket takes more, which is watched for then.
    fn write(&self, connection: &mut Connection, turn: &mut Turn<'_>) -> Result<(), End> {
        let written = connection.write(turn)?;
        if written == Written::Turn {
            // The socket takes more now, and so does not tell that it does.
            self.chores.note(connection.place(), Chore::Write);
        }
        let is_blocked = written == Written::AsFarAsTaken;
        if is_blocked != connection.is_watched_for_room {
            let interest = if is_blocked { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
            let descriptor = connection.socket().as_fd().as_raw_fd();
            let watched = self.registry.reregister(&mut SourceFd(&descriptor), Token(connection.place()), interest);
            watched.map_err(End::Lost)?;
            connection.is_watched_for_room = is_blocked;
        }
        Ok(())
    }
}

impl Connections {
    fn at(&mut self, place: usize) -> Option<&mut Connection> {
        self.places.get_mut(place)?.as_mut()
    }

    fn add(&mut self, place: usize, connection: Connection) {
        if place == self.places.len() {
            self.places.push(None);
        } else {
            self.free.pop();
        }
        self.places[place] = Some(connection);
    }

    /// Where the next one goes.
    fn next_place(&self) -> usize {
        self.free.last().copied().unwrap_or(self.places.len())
    }

    fn remove(&mut self, place: usize) -> Option<Connection> {
        let connection = self.places.get_mut(place)?.take()?;
        self.free.push(place);
        Some(connection)
    }
}
