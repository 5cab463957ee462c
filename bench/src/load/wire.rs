//! The SEEJob wire, all connections from one thread: a read, the jobs' answers, a write, and on to the next.
//!
//! The generator shares the machine with what it measures, so it has neither tasks nor timers: one `epoll`, one buffer to
//! read into and one to write from, and a few words for each job in flight.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    net::TcpStream,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{Timespec, epoll},
    io::Errno,
    net,
};
use seeway_proto::{
    wiped::WipedBuffer,
    wire::{
        Direction, Frame, Framer, Limits, MAX_JOB_BYTES_CEILING, Profile, ReplyBody, command_get_published_object,
        command_no_op, decode_reply,
    },
};

use super::{
    Load, Pace, WRONG_REPLY,
    clock::{Clock, Nanos, Timetable},
    jobs::Jobs,
    tally::Tally,
    watch::Watch,
};
use crate::{CallerError, Target};

/// Room for each read: what the kernel's socket buffers commonly hold.
const READ_SIZE: usize = 256 * 1024;
/// Events taken from the kernel at once.
const EVENTS: usize = 1024;
/// The kernel tells once that something has come: told again and again, it looks at each socket twice.
const READABLE: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);
/// How often a load looks at the clock and tells of its progress when nothing happens.
const TICK: Duration = Duration::from_millis(100);

/// The connections of a load, each of which has got an answer already.
pub(crate) struct WireCallers {
    target: String,
    profile: Arc<Profile>,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    world: u32,
}

struct Connection {
    socket: OwnedFd,
    framer: Framer,
    /// The beginning of an answer whose rest has not come.
    partial: Vec<u8>,
    /// What the socket did not take.
    unsent: Vec<u8>,
    slots: Vec<Slot>,
    /// Slots that are free; a job's tag is its slot's place.
    free: Vec<u32>,
    /// Jobs sent so far; the next one's number.
    sent: u64,
    /// Intended times of jobs that are due and wait for a slot: the open loop's.
    due: VecDeque<Nanos>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    sent: Nanos,
    number: u64,
    is_taken: bool,
}

impl WireCallers {
    /// Connects them one after the other; each asks for the world's handle, or for a NoOp where there is none.
    pub(crate) fn connect(load: &Load, target: &Target) -> Result<Self, CallerError> {
        let profile = Profile::open_1();
        let lost = |source| CallerError::Connection { target: target.to_string(), source };
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| lost(error.into()))?;
        let mut connections = Vec::with_capacity(load.callers);
        let mut world = 0;
        for index in 0..load.callers {
            let (socket, handle) = connect(target, load.world.as_deref(), &profile)?;
            world = handle;
            epoll::add(&epoll, &socket, epoll::EventData::new_u64(index as u64), READABLE)
                .map_err(|error| lost(error.into()))?;
            connections.push(Connection::new(socket, load.in_flight));
        }
        Ok(Self { target: target.to_string(), profile, epoll, connections, world })
    }

    /// Runs the load on them. May be called again.
    pub(crate) fn run(&mut self, load: &Load, watch: &mut dyn Watch) -> Result<Tally, CallerError> {
        rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))
            .map_err(|error| self.lost(error.into()))?;
        let clock = load.clock();
        let jobs = Jobs::new(&load.sizes, &self.profile);
        let mut turn = Turn {
            profile: Arc::clone(&self.profile),
            load,
            clock,
            world: self.world,
            jobs,
            left: load.jobs(),
            tally: Tally::new(clock, self.connections.len()),
            outstanding: 0,
            out: Vec::new(),
        };
        let mut timetable = match load.pace {
            Pace::Closed => None,
            Pace::Open { per_second } => Some(Timetable::new(per_second, clock.ends)),
        };
        let mut input = vec![0; READ_SIZE];
        let mut events = Vec::with_capacity(EVENTS);
        if timetable.is_none() {
            for index in 0..self.connections.len() {
                self.send(index, &mut turn)?;
            }
        }
        let (mut told, mut heard) = (0, 0);
        loop {
            let now = clock.now();
            let next = match &mut timetable {
                None => None,
                Some(timetable) => {
                    self.send_due(timetable, now, &mut turn)?;
                    timetable.next().filter(|_| turn.left != Some(0))
                }
            };
            let is_over = next.is_none() && !(timetable.is_none() && turn.may_send(now));
            if is_over && turn.outstanding == 0 {
                return Ok(turn.tally);
            }
            if now.saturating_sub(told) > super::clock::nanos(TICK) {
                told = now;
                watch.progress(turn.tally.count(), Duration::from_nanos(now));
            }
            if now.saturating_sub(heard) > super::clock::nanos(load.patience) && turn.outstanding > 0 {
                return Err(CallerError::Silent { target: self.target.clone(), outstanding: turn.outstanding });
            }
            let wait = next.map_or(TICK, |next| TICK.min(Duration::from_nanos(next.saturating_sub(clock.now()))));
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timespec(wait))) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(self.lost(error.into())),
            }
            if !events.is_empty() || turn.outstanding == 0 {
                heard = clock.now();
            }
            for event in &events {
                let epoll::Event { flags, data, .. } = *event;
                let index = usize::try_from(data.u64()).expect("it is a connection's place");
                if flags.contains(epoll::EventFlags::OUT) {
                    self.connections[index].flush(&self.epoll, index, &[]).map_err(|error| self.lost(error))?;
                }
                if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                    // Less than there was room for was all.
                    while self.receive(index, &mut input, &mut turn)? == input.len() {}
                    self.send(index, &mut turn)?;
                }
            }
        }
    }

    /// Hands jobs that are due to the connections in turn, and sends what there is room for.
    fn send_due(&mut self, timetable: &mut Timetable, now: Nanos, turn: &mut Turn<'_>) -> Result<(), CallerError> {
        let callers = self.connections.len() as u64;
        while turn.left != Some(0)
            && let Some((number, intended)) = timetable.due(now)
        {
            if let Some(left) = &mut turn.left {
                *left -= 1;
            }
            let index = usize::try_from(number % callers).expect("less than there are connections");
            self.connections[index].due.push_back(intended);
            turn.outstanding += 1;
            self.send(index, turn)?;
        }
        Ok(())
    }

    /// Fills a connection's slots and writes.
    fn send(&mut self, index: usize, turn: &mut Turn<'_>) -> Result<(), CallerError> {
        let connection = &mut self.connections[index];
        turn.stage(connection, index as u64);
        if turn.out.is_empty() {
            return Ok(());
        }
        let written = connection.flush(&self.epoll, index, &turn.out);
        turn.out.clear();
        written.map_err(|error| self.lost(error))
    }

    /// Reads once; returns how many bytes.
    fn receive(&mut self, index: usize, input: &mut [u8], turn: &mut Turn<'_>) -> Result<usize, CallerError> {
        let connection = &mut self.connections[index];
        let count = loop {
            match net::recv(&connection.socket, &mut *input, net::RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                received => break received,
            }
        };
        let count = match count {
            Ok((0, _)) => return Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
            Ok((count, _)) => count,
            Err(Errno::AGAIN) => return Ok(0),
            Err(error) => return Err(self.lost(error.into())),
        };
        let took = if connection.partial.is_empty() {
            let rest = turn.take(connection, index, &input[..count]);
            rest.map(|rest| connection.partial.extend_from_slice(&input[count - rest..count]))
        } else {
            let mut whole = std::mem::take(&mut connection.partial);
            whole.extend_from_slice(&input[..count]);
            let rest = turn.take(connection, index, &whole);
            rest.map(|rest| {
                whole.drain(..whole.len() - rest);
                connection.partial = whole;
            })
        };
        took.map_err(|what| CallerError::Protocol { target: self.target.clone(), what })?;
        Ok(count)
    }

    fn lost(&self, source: io::Error) -> CallerError {
        CallerError::Connection { target: self.target.clone(), source }
    }
}

/// What one run of a load keeps beside its connections.
struct Turn<'a> {
    profile: Arc<Profile>,
    load: &'a Load,
    clock: Clock,
    world: u32,
    jobs: Jobs,
    /// Jobs that may still be sent, where their number is the end.
    left: Option<u64>,
    tally: Tally,
    /// Jobs sent and not answered, and those that are due.
    outstanding: usize,
    out: Vec<u8>,
}

impl Turn<'_> {
    /// Whether a closed loop goes on.
    fn may_send(&self, now: Nanos) -> bool {
        self.left.map_or_else(|| self.clock.is_open(now), |left| left > 0)
    }

    /// Writes messages for a connection's free slots into `out`.
    fn stage(&mut self, connection: &mut Connection, caller: u64) {
        if connection.free.is_empty() {
            return;
        }
        let now = self.clock.now();
        while let Some(place) = connection.free.pop() {
            let intended = match self.load.pace {
                Pace::Closed if self.may_send(now) => {
                    if let Some(left) = &mut self.left {
                        *left -= 1;
                    }
                    self.outstanding += 1;
                    Some(now)
                }
                Pace::Closed => None,
                Pace::Open { .. } => connection.due.pop_front(),
            };
            let Some(sent) = intended else {
                connection.free.push(place);
                return;
            };
            let number = connection.sent;
            connection.sent += 1;
            connection.slots[place as usize] = Slot { sent, number, is_taken: true };
            self.out.extend_from_slice(self.jobs.message(caller, number, place, self.world));
        }
    }

    /// Takes all whole answers out of `bytes`; returns how many bytes are left over.
    fn take(&mut self, connection: &mut Connection, index: usize, bytes: &[u8]) -> Result<usize, String> {
        let mut rest = bytes;
        let now = self.clock.now();
        while let Some(frame) = connection.framer.next(&mut rest).map_err(|error| error.to_string())? {
            let Frame::Body(body) = frame else {
                return Err("an answer was longer than any may be".to_owned());
            };
            let reply = decode_reply(&self.profile, body).map_err(|error| error.to_string())?;
            let slot = connection.slots.get_mut(reply.tag as usize).filter(|slot| slot.is_taken);
            let Some(slot) = slot else {
                return Err(format!("an answer came to tag {}, which is not outstanding", reply.tag));
            };
            slot.is_taken = false;
            connection.free.push(reply.tag);
            self.outstanding -= 1;
            self.tally.answered(index, slot.sent, now);
            match reply.body {
                ReplyBody::Job(bytes) => {
                    if self.load.verify_echo && bytes.0 != self.jobs.job(index as u64, slot.number) {
                        self.tally.failed(WRONG_REPLY);
                    }
                }
                ReplyBody::Error { status, .. } => match self.profile.statuses.name(status) {
                    Some(name) => self.tally.failed(name),
                    None => self.tally.failed(&format!("status {status:#x}")),
                },
                ReplyBody::NoOp | ReplyBody::Object(_) => self.tally.failed("not a job's reply"),
            }
        }
        Ok(rest.len())
    }
}

impl Connection {
    fn new(socket: OwnedFd, in_flight: usize) -> Self {
        let places = u32::try_from(in_flight).expect("no connection has 2^32 jobs in flight");
        Self {
            socket,
            framer: Framer::new(Direction::Replies, Limits { max_job_bytes: MAX_JOB_BYTES_CEILING }),
            partial: Vec::new(),
            unsent: Vec::new(),
            slots: vec![Slot::default(); in_flight],
            free: (0..places).rev().collect(),
            sent: 0,
            due: VecDeque::new(),
        }
    }

    /// Writes what was left over, then `more`; keeps what the socket does not take and waits until it does.
    fn flush(&mut self, epoll: &OwnedFd, index: usize, mut more: &[u8]) -> io::Result<()> {
        let had_unsent = !self.unsent.is_empty();
        if had_unsent {
            let written = write(&self.socket, &self.unsent)?;
            self.unsent.drain(..written);
        }
        if self.unsent.is_empty() {
            more = &more[write(&self.socket, more)?..];
        }
        self.unsent.extend_from_slice(more);
        if had_unsent == self.unsent.is_empty() {
            let mut wanted = READABLE;
            wanted.set(epoll::EventFlags::OUT, !self.unsent.is_empty());
            epoll::modify(epoll, &self.socket, epoll::EventData::new_u64(index as u64), wanted)?;
        }
        Ok(())
    }
}

/// Writes as much as the socket takes.
fn write(socket: &OwnedFd, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match net::send(socket, &bytes[written..], net::SendFlags::NOSIGNAL) {
            Ok(count) => written += count,
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(written)
}

fn timespec(wait: Duration) -> Timespec {
    Timespec { tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: wait.subsec_nanos().into() }
}

/// A socket that blocks, for the handshake and for callers that block.
pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Socket {
    fn connect(target: &Target, patience: Duration) -> io::Result<Self> {
        match target {
            Target::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(patience))?;
                Ok(Self::Unix(stream))
            }
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(patience))?;
                Ok(Self::Tcp(stream))
            }
            Target::Grpc(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "gRPC is not the SEEJob wire")),
        }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.write_all(bytes),
            Self::Tcp(stream) => stream.write_all(bytes),
        }
    }

    fn into_nonblocking(self) -> io::Result<OwnedFd> {
        match self {
            Self::Unix(stream) => stream.set_nonblocking(true).map(|()| stream.into()),
            Self::Tcp(stream) => stream.set_nonblocking(true).map(|()| stream.into()),
        }
    }
}

/// How long a target may take for its first answer: an SSH server opens a channel for it.
const HANDSHAKE: Duration = Duration::from_secs(30);

fn connect(target: &Target, world: Option<&str>, profile: &Profile) -> Result<(OwnedFd, u32), CallerError> {
    let (socket, world) = connect_blocking(target, world, profile)?;
    let socket = socket.into_nonblocking();
    Ok((socket.map_err(|source| CallerError::Connection { target: target.to_string(), source })?, world))
}

/// Connects; gives the socket and the world's handle, 0 where none is asked for.
pub(super) fn connect_blocking(
    target: &Target,
    world: Option<&str>,
    profile: &Profile,
) -> Result<(Socket, u32), CallerError> {
    let lost = |source| CallerError::Connection { target: target.to_string(), source };
    let broken = |what: String| CallerError::Protocol { target: target.to_string(), what };
    let mut socket = Socket::connect(target, HANDSHAKE).map_err(lost)?;
    let mut command = WipedBuffer::new();
    match world {
        Some(name) => command_get_published_object(profile, &mut command, 0, name),
        None => command_no_op(profile, &mut command, 0),
    }
    socket.write_all(command.filled()).map_err(lost)?;
    let mut framer = Framer::new(Direction::Replies, Limits::default());
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let count = socket.read(&mut buffer).map_err(lost)?;
        if count == 0 {
            return Err(lost(io::ErrorKind::UnexpectedEof.into()));
        }
        answer.extend_from_slice(&buffer[..count]);
        let mut rest = &answer[..];
        let Some(frame) = framer.next(&mut rest).map_err(|error| broken(error.to_string()))? else {
            continue;
        };
        let Frame::Body(body) = frame else {
            return Err(broken("the first answer was longer than any may be".to_owned()));
        };
        let reply = decode_reply(profile, body).map_err(|error| broken(error.to_string()))?;
        return match (reply.body, world) {
            (ReplyBody::Object(handle), Some(_)) => Ok((socket, handle)),
            (ReplyBody::NoOp, None) => Ok((socket, 0)),
            (ReplyBody::Error { status, .. }, Some(world)) => {
                Err(CallerError::NoSuchWorld { target: target.to_string(), world: world.to_owned(), status })
            }
            _ => Err(broken("the first answer does not fit its command".to_owned())),
        };
    }
}
