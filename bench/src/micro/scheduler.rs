//! The scheduler with its muxes: jobs handed over, sent, answered.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seeway::schedule::{
    Abandoned, Affinity, Budget, CallerId, CallerQuota, ChannelId, CircuitSettings, Concluded, Effects, FrontEnd,
    MachineId, MachineSettings, NewJob, Priority, RetrySettings, Scheduler, Settings, SizeClass, WorldId,
    WorldSettings,
};
use seeway_proto::outcome::Outcome;
use seeway_proto::wire::{Limits, Profile};

use super::Work;
use super::messages::{Echo, job};

/// What `limits.default_timeout` says where nothing is configured.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// How far the clock moves between two calls.
pub(super) const STEP: Duration = Duration::from_micros(10);

/// The one world.
pub(super) const WORLD: WorldId = WorldId(0);

/// What a gateway has where nothing is configured, with one world on so many machines.
pub(super) fn settings(profile: Arc<Profile>, machines: usize, max_in_flight: usize) -> Settings {
    let machine = |place: usize| MachineSettings {
        name: format!("hsm-{place}").into(),
        in_flight: Budget::new(max_in_flight, 1),
        is_retired: false,
    };
    let world = WorldSettings {
        machines: (0..machines).map(MachineId).collect(),
        queue: Budget::new(4096, 1),
        queue_bytes: Budget::new(1 << 30, 1),
        affinity: Affinity::Prefer,
        is_retired: false,
    };
    Settings {
        profile,
        limits: Limits::default(),
        worlds: vec![world],
        machines: (0..machines).map(machine).collect(),
        hold: Duration::from_secs(35),
        channel_buffer: 1 << 20,
        bulk_above: 32_768,
        caller: CallerQuota { queued: 1024, in_flight: 1024, bytes: 64 << 20 },
        retry: RetrySettings { max_attempts: 3, budget_percent: 10, reserve: 10 },
        circuit: CircuitSettings {
            failures: 5,
            silent_after: Duration::from_secs(10),
            probe_after: Duration::from_secs(1),
            probe_max: Duration::from_secs(30),
        },
        slow_start: Duration::ZERO,
        seed: 1,
    }
}

/// A job with no wishes of its own.
pub(super) fn new_job(now: Instant, ticket: u64, bytes: &[u8]) -> NewJob<'_> {
    NewJob {
        ticket,
        world: WORLD,
        bytes,
        deadline: now + TIMEOUT,
        idempotent: false,
        priority: Priority::Normal,
        affinity_key: b"",
    }
}

/// Effects that are only counted.
#[derive(Default)]
struct Told {
    replied: u64,
    staged: u64,
}

impl Effects for Told {
    fn concluded(&mut self, concluded: Concluded<'_>) {
        let Outcome::Replied(reply) = black_box(concluded.outcome) else { panic!("it was answered with its reply") };
        black_box(reply.0);
        self.replied += 1;
    }

    fn abandoned(&mut self, _: Abandoned) {}

    fn output_staged(&mut self, _: ChannelId) {
        self.staged += 1;
    }

    fn world_ready(&mut self, _: WorldId, _: bool) {}

    fn caller_has_room(&mut self, _: CallerId) {}

    fn bulk_wanted(&mut self, _: MachineId) {}
}

/// A scheduler, its machines, and a clock that moves with each call.
struct Bench {
    scheduler: Scheduler,
    told: Told,
    channels: Vec<ChannelId>,
    echo: Echo,
    job: Vec<u8>,
    now: Instant,
}

impl Bench {
    fn new(machines: usize, max_in_flight: usize) -> Self {
        let profile = Profile::open_1();
        let echo = Echo::new(&profile, max_in_flight);
        let now = Instant::now();
        let mut scheduler = Scheduler::new(now, settings(profile, machines, max_in_flight));
        let mut told = Told::default();
        let mut open = |machine| scheduler.channel_opened(now, MachineId(machine), SizeClass::Small, &mut told);
        let channels = (0..machines).map(&mut open).collect();
        Self { scheduler, told, channels, echo, job: job(), now }
    }

    /// What a shard does at each call: takes the time, and asks afterwards when the next timeout is.
    fn tick(&mut self) {
        let next = black_box(self.scheduler.poll_timeout(self.now));
        assert!(next.is_none_or(|next| next > self.now), "nothing is overdue");
        self.now += STEP;
    }

    fn submit(&mut self, caller: CallerId, ticket: u64, idempotent: bool, affinity_key: &[u8]) {
        let new = NewJob { idempotent, affinity_key, ..new_job(self.now, ticket, black_box(&self.job)) };
        self.scheduler.submit(self.now, caller, new, &mut self.told);
    }

    /// Writes every channel that has something to write, and hands in the replies.
    fn exchange(&mut self) {
        for place in 0..self.channels.len() {
            let channel = self.channels[place];
            let written = self.scheduler.take_output(self.now, channel, &mut self.told);
            self.tick();
            if let Some(written) = written {
                let mut input = self.echo.replies_to(&written);
                let received = self.scheduler.receive(self.now, channel, &mut input, &mut self.told);
                received.expect("replies to what was sent");
                self.tick();
            }
        }
    }
}

/// Affinity keys, as a world's callers might have them.
const KEYS: [&[u8]; 16] = [
    b"card-0", b"card-1", b"card-2", b"card-3", b"card-4", b"card-5", b"card-6", b"card-7", b"card-8", b"card-9",
    b"card-10", b"card-11", b"card-12", b"card-13", b"card-14", b"card-15",
];

/// Every caller hands over its jobs, all are sent, all are answered.
pub(super) struct Rounds {
    bench: Bench,
    callers: Vec<CallerId>,
    in_flight: u64,
    idempotent: bool,
    /// The jobs have these in turn.
    keys: &'static [&'static [u8]],
}

impl Rounds {
    /// So many callers, each with so many jobs, and one machine.
    pub(super) fn new(callers: usize, in_flight: u64) -> Self {
        Self::of(callers, in_flight, 1)
    }

    /// One caller of idempotent jobs.
    pub(super) fn idempotent(in_flight: u64) -> Self {
        Self { idempotent: true, ..Self::of(1, in_flight, 1) }
    }

    /// One caller of jobs with 16 keys, and two machines.
    pub(super) fn with_keys(in_flight: u64) -> Self {
        Self { keys: &KEYS, ..Self::of(1, in_flight, 2) }
    }

    fn of(callers: usize, in_flight: u64, machines: usize) -> Self {
        let mut bench = Bench::new(machines, 1024);
        let callers = (0..callers).map(|_| bench.scheduler.caller_joined(FrontEnd::Hardserver)).collect();
        Self { bench, callers, in_flight, idempotent: false, keys: &[b""] }
    }
}

impl Work for Rounds {
    fn turn(&mut self) {
        let before = self.bench.told.replied;
        for &caller in &self.callers {
            for (ticket, key) in (0..self.in_flight).zip(self.keys.iter().cycle()) {
                self.bench.submit(caller, ticket, self.idempotent, key);
            }
            self.bench.tick();
        }
        self.bench.exchange();
        assert_eq!(self.bench.told.replied - before, self.callers.len() as u64 * self.in_flight);
    }
}

/// Callers who want more than the machine can take: as many jobs wait after each turn as before.
pub(super) struct Queue {
    bench: Bench,
    callers: Vec<CallerId>,
    /// How many jobs each caller hands over for those that were answered.
    share: u64,
    next_ticket: u64,
}

impl Queue {
    /// `in_flight` jobs are sent, and `waiting` wait.
    pub(super) fn new(callers: usize, in_flight: usize, waiting: usize) -> Self {
        let mut bench = Bench::new(1, in_flight);
        let callers: Vec<_> = (0..callers).map(|_| bench.scheduler.caller_joined(FrontEnd::Hardserver)).collect();
        let share = u64::try_from(in_flight / callers.len()).expect("small");
        let mut queue = Self { bench, callers, share, next_ticket: 0 };
        while queue.bench.scheduler.queued(WORLD) < waiting {
            queue.submit();
        }
        queue
    }

    fn submit(&mut self) {
        for &caller in &self.callers {
            for _ in 0..self.share {
                self.bench.submit(caller, self.next_ticket, false, b"");
                self.next_ticket += 1;
            }
            self.bench.tick();
        }
    }
}

impl Work for Queue {
    fn turn(&mut self) {
        let (before, waiting) = (self.bench.told.replied, self.bench.scheduler.queued(WORLD));
        self.bench.exchange();
        assert_eq!(self.bench.told.replied - before, self.share * self.callers.len() as u64);
        self.submit();
        assert_eq!(self.bench.scheduler.queued(WORLD), waiting, "as many wait as before");
    }
}
