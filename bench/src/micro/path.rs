//! The whole way of legacy callers' jobs through a shard, as `listen::hardserver`, `shard` and `upstream::channel` go it. What is
//! left out is what moves the bytes: sockets, the runtime's tasks, and SSH.

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use seeway::schedule::{
    Abandoned, CallerId, ChannelId, Concluded, Effects, FrontEnd, MachineId, NewJob, Scheduler, SizeClass, WorldId,
};
use seeway::shard::{AnswerSink, LegacyPort, Meaning, Written};
use seeway_proto::mux::{Incoming, UnknownCommands};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Command, Limits, Profile};
use slotmap::SecondaryMap;
use tokio::sync::Notify;

use super::Work;
use super::messages::{Echo, Jobs, REPLY_MESSAGE};
use super::scheduler::{STEP, WORLD, new_job, settings};

/// What `limits.caller_buffer_bytes` says where nothing is configured.
const CALLER_BUFFER: usize = 4 << 20;

/// What `limits.caller_jobs` says where nothing is configured.
const CALLER_JOBS: usize = 1024;

/// Beyond how many bytes `listen::hardserver` has answers in buffers that callers share.
const LARGE_ANSWERS: usize = 64 << 10;

/// The callers' ports, as the shard's front has them.
struct Front {
    profile: Arc<Profile>,
    ports: SecondaryMap<CallerId, LegacyPort>,
    answered: Vec<CallerId>,
    channel: Arc<Notify>,
}

impl Front {
    /// `Front::write_answers`.
    fn write_answers(&mut self) {
        if !self.answered.is_empty() {
            self.write_to_answered();
        }
    }

    #[inline(never)]
    fn write_to_answered(&mut self) {
        for caller in self.answered.drain(..) {
            let written = self.ports.get_mut(caller).expect("callers stay").write_answers();
            assert!(matches!(written, Ok(Written::All)), "the socket takes all");
        }
    }

    fn port(&mut self, caller: CallerId) -> &mut LegacyPort {
        self.ports.get_mut(caller).expect("callers stay")
    }
}

impl Effects for Front {
    #[inline(always)]
    #[allow(clippy::inline_always)] // As the shard's front has it.
    fn concluded(&mut self, concluded: Concluded<'_>) {
        let tag = u32::try_from(concluded.ticket).expect("a legacy caller's ticket is its tag");
        if let Some(port) = self.ports.get_mut(concluded.caller) {
            let is_first = port.incoming.output_len() == 0;
            port.answer(&self.profile, tag, concluded.outcome);
            if is_first {
                self.answered.push(concluded.caller);
            }
        }
    }

    fn abandoned(&mut self, _: Abandoned) {}

    fn output_staged(&mut self, _: ChannelId) {
        self.channel.notify_one();
    }

    fn world_ready(&mut self, _: WorldId, _: bool) {}

    fn caller_has_room(&mut self, caller: CallerId) {
        self.port(caller).resume();
    }

    fn bulk_wanted(&mut self, _: MachineId) {}
}

/// A caller and its jobs.
struct Caller {
    id: CallerId,
    jobs: Jobs,
}

/// A socket that takes all that is written to it.
struct Socket {
    /// How many bytes all callers' sockets have taken.
    taken: Arc<AtomicUsize>,
}

impl AnswerSink for Socket {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let count = black_box(bytes).len();
        self.taken.fetch_add(count, Ordering::Relaxed);
        Ok(count)
    }

    fn left_over(&self) {
        unreachable!("it takes all");
    }

    fn room(&self) {}
}

/// How many connections `listen::hardserver` serves in one call of the shard.
const CALLERS_IN_A_TURN: usize = 64;

/// Callers that hand over their jobs, a channel that carries them, and the answers on their way back.
pub(super) struct Path {
    scheduler: Scheduler,
    front: Front,
    callers: Vec<Caller>,
    taken: Arc<AtomicUsize>,
    channel: ChannelId,
    echo: Echo,
    received: WipedBuffer,
    in_flight: usize,
    now: Instant,
}

impl Path {
    pub(super) fn new(callers: usize, in_flight: usize) -> Self {
        let profile = Profile::open_1();
        let now = Instant::now();
        let mut scheduler = Scheduler::new(now, settings(profile.clone(), 1, 1024));
        let mut front = Front {
            profile: profile.clone(),
            ports: SecondaryMap::new(),
            answered: Vec::new(),
            channel: Arc::new(Notify::new()),
        };
        let channel = scheduler.channel_opened(now, MachineId(0), SizeClass::Small, &mut front);
        let taken = Arc::<AtomicUsize>::default();
        let callers_in = (0..callers).map(|_| {
            let id = scheduler.caller_joined(FrontEnd::Hardserver);
            let incoming = Incoming::new(profile.clone(), Limits::default(), CALLER_JOBS);
            let incoming = incoming.with_spares(scheduler.large_buffers().clone(), LARGE_ANSWERS);
            let socket = Arc::new(Socket { taken: taken.clone() });
            let mut port = LegacyPort::new(incoming, socket);
            let handle = port.handle_of(WORLD).expect("handles are left");
            front.ports.insert(id, port);
            Caller { id, jobs: Jobs::new(&profile, handle, in_flight) }
        });
        let callers_in = callers_in.collect();
        Self {
            scheduler,
            front,
            callers: callers_in,
            taken,
            channel,
            echo: Echo::new(&profile, callers * in_flight),
            received: WipedBuffer::new(),
            in_flight,
            now,
        }
    }

    /// Goes on as `Shard::with` does at the end of each call.
    #[inline]
    fn tick(scheduler: &Scheduler, front: &mut Front, now: &mut Instant) {
        front.write_answers();
        let next = black_box(scheduler.poll_timeout(*now));
        assert!(next.is_none_or(|next| next > *now), "nothing is overdue");
        *now += STEP;
    }

    /// `Connection::decode`: every whole command in what was read.
    #[inline(never)]
    fn decode(scheduler: &mut Scheduler, front: &mut Front, now: Instant, caller: CallerId, bytes: &[u8]) {
        let mut rest = bytes;
        let mut room = 0;
        let port = loop {
            let port = front.port(caller);
            if port.is_full(CALLER_BUFFER) {
                break port;
            }
            if room == 0 {
                room = scheduler.room(caller);
                if room == 0 {
                    break port;
                }
            }
            if rest.is_empty() {
                break port;
            }
            room -= 1;
            let received = port.incoming.next_received(&mut rest, UnknownCommands::Refused).expect("whole messages");
            let Some(received) = received else { break port };
            let Some(Command::SeeJob { tag, world, job }) = received.command else { panic!("jobs were sent") };
            let Meaning::World(world) = port.meaning_of(world) else { panic!("the handle was given") };
            let new = NewJob { world, ..new_job(now, tag.into(), job.0) };
            scheduler.submit(now, caller, new, front);
        };
        port.batch_served();
        let refused = port.incoming.take_refused();
        assert!(port.incoming.output_len() == 0, "nothing is answered at once");
        assert!(rest.is_empty() && refused == 0, "every job is taken");
    }
}

impl Work for Path {
    fn turn(&mut self) {
        let Self { scheduler, front, callers, taken, channel, echo, received, in_flight, now } = self;
        for callers in callers.chunks_mut(CALLERS_IN_A_TURN) {
            for caller in callers {
                Self::decode(scheduler, front, *now, caller.id, black_box(caller.jobs.next()));
            }
            Self::tick(scheduler, front, now);
        }
        let batch = scheduler.take_output(*now, *channel, front).expect("jobs are staged");
        Self::tick(scheduler, front, now);
        received.extend(echo.replies_to(&batch));
        drop(batch);
        assert!(scheduler.take_output(*now, *channel, front).is_none(), "its writer asks until there is nothing more");
        Self::tick(scheduler, front, now);

        let mut input = received.filled();
        scheduler.receive(*now, *channel, &mut input, front).expect("replies to what was sent");
        assert!(input.is_empty());
        received.clear();
        Self::tick(scheduler, front, now);

        let count = taken.swap(0, Ordering::Relaxed);
        assert_eq!(count, callers.len() * *in_flight * REPLY_MESSAGE, "each job was answered");
    }
}
