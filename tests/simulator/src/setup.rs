//! The topology and the settings that a seed draws.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use seeway::schedule::{
    Affinity, Budget, CallerQuota, CircuitSettings, MachineId, MachineSettings, RetrySettings, Settings, WorldSettings,
};
use seeway_proto::wire::{Limits, Profile};

use crate::draw::Chance;

/// What kind of story a seed tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Everything may fail.
    Chaos,
    /// Nothing fails and the load is below the capacity: every job has to be answered.
    Calm,
    /// Nothing fails and the load is above the capacity: everybody has to get a fair share.
    Saturated,
}

/// A simulated machine's numbers.
#[derive(Clone, Debug)]
pub struct MachineSetup {
    /// Its name. Affinity goes by it.
    pub name: Arc<str>,
    /// Jobs that it may have in flight.
    pub max_in_flight: usize,
    /// Jobs that it runs at a time.
    pub threads: usize,
    /// How long a job takes, from and to, in microseconds.
    pub service: (u64, u64),
    /// Channels for small jobs.
    pub small_channels: usize,
    /// Channels for large jobs.
    pub bulk_channels: usize,
    /// Of a hundred jobs, how many it answers with SEEWorldFailed.
    pub fails: u64,
    /// Of a hundred jobs, how many it answers with another status.
    pub refuses: u64,
    /// Of a thousand jobs, how many it never answers.
    pub swallows: u64,
    /// The configuration has it no more.
    pub is_retired: bool,
}

/// A world's numbers.
#[derive(Clone, Debug)]
pub struct WorldSetup {
    /// The machines that run it, by their places.
    pub machines: Vec<usize>,
    /// Jobs that may wait for it.
    pub queue: usize,
    /// Bytes of the jobs that may wait for it.
    pub queue_bytes: usize,
    /// What becomes of a job whose key's machine is down.
    pub affinity: Affinity,
    /// Whether legacy callers' jobs may be sent again.
    pub idempotent: bool,
    /// The configuration has it no more.
    pub is_retired: bool,
}

/// Everything that is set before a story begins. A reload changes it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The seed that all this was drawn from.
    pub seed: u64,
    /// What kind of story it is.
    pub mood: Mood,
    /// By place.
    pub machines: Vec<MachineSetup>,
    /// By place.
    pub worlds: Vec<WorldSetup>,
    /// How long jobs wait for a machine.
    pub hold: Duration,
    /// Bytes that may be staged on a channel.
    pub channel_buffer: usize,
    /// Jobs of more bytes are large ones.
    pub bulk_above: usize,
    /// What each caller may have.
    pub quota: CallerQuota,
    /// When jobs are sent again.
    pub retry: RetrySettings,
    /// When machines are ejected.
    pub circuit: CircuitSettings,
    /// How long a machine that comes back is spared.
    pub slow_start: Duration,
    /// Jobs that a legacy caller may have in hand.
    pub caller_jobs: usize,
    /// Bytes of answers that may wait for a legacy caller.
    pub caller_buffer: usize,
    /// How long a legacy caller's jobs have.
    pub default_timeout: Duration,
    /// The largest job.
    pub max_job_bytes: usize,
    /// How long bytes travel at least and at most, in microseconds.
    pub latency: (u64, u64),
    /// Into how many pieces a write is cut at most.
    pub pieces: usize,
}

/// Numbers for a limit: most often small, sometimes one, sometimes out of the way.
fn limit(chance: &mut Chance, small: usize, large: usize) -> usize {
    match chance.below(10) {
        0 | 1 => 1,
        2..=6 => chance.count(2, small),
        _ => chance.count(small, large),
    }
}

impl Setup {
    /// What this seed draws.
    pub fn drawn(seed: u64) -> Self {
        let mut chance = Chance::of(&[seed, 1]);
        let mood = match chance.below(10) {
            0 => Mood::Calm,
            1 => Mood::Saturated,
            _ => Mood::Chaos,
        };
        let machine_count = chance.pick(&[1, 1, 2, 2, 2, 3, 3, 4]);
        let machines: Vec<_> = (0..machine_count).map(|place| MachineSetup::drawn(&mut chance, mood, place)).collect();
        let world_count = chance.pick(&[1, 1, 2, 3]);
        let worlds = (0..world_count).map(|_| WorldSetup::drawn(&mut chance, mood, machine_count)).collect();
        let is_generous = mood != Mood::Chaos;
        let max_job_bytes = chance.pick(&[600, 2_000, 40_000]);
        let generous = CallerQuota { queued: 10_000, in_flight: 10_000, bytes: 1 << 30 };
        let quota = CallerQuota {
            queued: limit(&mut chance, 8, 200),
            in_flight: limit(&mut chance, 8, 200),
            bytes: chance.pick(&[1, 1_000, 10_000, 1 << 20, 1 << 30]),
        };
        let drawn = Self {
            seed,
            mood,
            machines,
            worlds,
            hold: Duration::from_millis(chance.pick(&[0, 0, 50, 500, 2_000, 35_000])),
            channel_buffer: chance.pick(&[1, 64, 512, 4_096, 65_536]),
            bulk_above: chance.pick(&[100, 400, max_job_bytes]),
            quota: if is_generous || chance.percent(40) { generous } else { quota },
            retry: RetrySettings {
                max_attempts: u32::try_from(chance.count(1, 4)).expect("small"),
                budget_percent: chance.pick(&[0, 10, 10, 50]),
                reserve: chance.pick(&[0, 1, 5, 100]),
            },
            circuit: CircuitSettings {
                failures: chance.pick(&[0, 1, 3, 5]),
                silent_after: Duration::from_millis(chance.pick(&[200, 1_000, 5_000])),
                probe_after: Duration::from_millis(chance.pick(&[50, 500, 2_000])),
                probe_max: Duration::from_millis(chance.pick(&[2_000, 5_000])),
            },
            slow_start: Duration::from_millis(chance.pick(&[0, 500, 5_000])),
            caller_jobs: limit(&mut chance, 8, 100),
            caller_buffer: chance.pick(&[1, 200, 4_096, 1 << 20]),
            default_timeout: Duration::from_millis(chance.pick(&[20, 300, 3_000, 30_000])),
            max_job_bytes,
            latency: chance.pick(&[(0, 10), (50, 500), (1_000, 20_000), (0, 100_000)]),
            pieces: chance.pick(&[1, 2, 5]),
        };
        if is_generous { drawn.with_room(&mut chance) } else { drawn }
    }

    /// The same with limits and times that only a load above the capacity could reach.
    fn with_room(self, chance: &mut Chance) -> Self {
        Self {
            hold: Duration::from_secs(30),
            channel_buffer: if self.mood == Mood::Saturated { chance.pick(&[1, 512]) } else { self.channel_buffer },
            bulk_above: if self.mood == Mood::Saturated { self.max_job_bytes } else { self.bulk_above },
            circuit: CircuitSettings { silent_after: Duration::from_secs(60), ..self.circuit },
            caller_jobs: 1_000,
            caller_buffer: 1 << 20,
            default_timeout: Duration::from_secs(300),
            latency: (50, 500),
            ..self
        }
    }

    /// What the scheduler is told of it. `budgets` are those of the machines and worlds, by place.
    pub fn settings(&self, budgets: &Budgets) -> Settings {
        Settings {
            profile: Profile::open_1(),
            limits: self.limits(),
            worlds: self.worlds.iter().zip(&budgets.queues).map(|(world, queue)| world.settings(queue)).collect(),
            machines: self
                .machines
                .iter()
                .zip(&budgets.machines)
                .map(|(machine, in_flight)| MachineSettings {
                    name: machine.name.clone(),
                    in_flight: in_flight.clone(),
                    is_retired: machine.is_retired,
                })
                .collect(),
            hold: self.hold,
            channel_buffer: self.channel_buffer,
            bulk_above: self.bulk_above,
            caller: self.quota,
            retry: self.retry,
            circuit: self.circuit,
            slow_start: self.slow_start,
            seed: self.seed,
        }
    }

    /// The sizes of the wire.
    pub fn limits(&self) -> Limits {
        Limits { max_job_bytes: u32::try_from(self.max_job_bytes).expect("small") }
    }
}

/// The budgets behind the limits, as the shell keeps them.
#[derive(Clone, Debug)]
pub struct Budgets {
    /// By machine.
    pub machines: Vec<Arc<Budget>>,
    /// By world: jobs and bytes.
    pub queues: Vec<(Arc<Budget>, Arc<Budget>)>,
}

impl Budgets {
    /// What a setup allows.
    pub fn new(setup: &Setup) -> Self {
        Self {
            machines: setup.machines.iter().map(|machine| Budget::new(machine.max_in_flight, 1)).collect(),
            queues: setup
                .worlds
                .iter()
                .map(|world| (Budget::new(world.queue, 1), Budget::new(world.queue_bytes, 1)))
                .collect(),
        }
    }
}

impl Budgets {
    /// Takes over the limits of a setup that was changed, as the shell does on a reload.
    pub fn follow(&mut self, setup: &Setup) {
        let now = Self::new(setup);
        for (known, new) in self.machines.iter().zip(&now.machines) {
            known.set_limit(new.limit());
        }
        for ((jobs, bytes), (new_jobs, new_bytes)) in self.queues.iter().zip(&now.queues) {
            jobs.set_limit(new_jobs.limit());
            bytes.set_limit(new_bytes.limit());
        }
        self.machines.extend(now.machines.into_iter().skip(self.machines.len()));
        self.queues.extend(now.queues.into_iter().skip(self.queues.len()));
    }
}

impl MachineSetup {
    /// A machine for this place.
    pub fn drawn(chance: &mut Chance, mood: Mood, place: usize) -> Self {
        let is_chaotic = mood == Mood::Chaos;
        let service = chance.pick(&[(100, 300), (100, 5_000), (2_000, 80_000)]);
        Self {
            name: format!("machine-{place}").into(),
            max_in_flight: match mood {
                Mood::Chaos => limit(chance, 6, 100),
                Mood::Calm => 1_000,
                Mood::Saturated => chance.count(1, 8),
            },
            threads: if is_chaotic { chance.count(1, 8) } else { 8 },
            service: if is_chaotic { service } else { (100, 5_000) },
            small_channels: chance.count(1, 2),
            bulk_channels: chance.count(0, 1),
            fails: if is_chaotic { chance.pick(&[0, 0, 2, 20]) } else { 0 },
            refuses: if is_chaotic { chance.pick(&[0, 0, 2, 20]) } else { 0 },
            swallows: if is_chaotic { chance.pick(&[0, 0, 5, 50]) } else { 0 },
            is_retired: false,
        }
    }

    /// How many channels it has.
    pub fn channels(&self) -> usize {
        self.small_channels + self.bulk_channels
    }
}

impl WorldSetup {
    /// A world on some of so many machines.
    pub fn drawn(chance: &mut Chance, mood: Mood, machines: usize) -> Self {
        let mut chosen: Vec<_> = (0..machines).filter(|_| chance.percent(70)).collect();
        if chosen.is_empty() {
            chosen.push(chance.place(machines));
        }
        let is_chaotic = mood == Mood::Chaos;
        Self {
            machines: chosen,
            queue: if is_chaotic { limit(chance, 10, 300) } else { 100_000 },
            queue_bytes: if is_chaotic { chance.pick(&[500, 5_000, 100_000, 1 << 24]) } else { 1 << 30 },
            affinity: chance.pick(&[Affinity::Strict, Affinity::Prefer]),
            idempotent: chance.percent(30),
            is_retired: false,
        }
    }

    fn settings(&self, (queue, queue_bytes): &(Arc<Budget>, Arc<Budget>)) -> WorldSettings {
        WorldSettings {
            machines: self.machines.iter().copied().map(MachineId).collect(),
            queue: queue.clone(),
            queue_bytes: queue_bytes.clone(),
            affinity: self.affinity,
            is_retired: self.is_retired,
        }
    }
}

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {:?}", self.seed, self.mood)?;
        for (place, machine) in self.machines.iter().enumerate() {
            writeln!(
                f,
                "  machine {place}: {} in flight, {} threads, {}-{} µs a job, channels {} small + {} bulk, fails {} %, refuses {} %, \
                 swallows {} ‰{}",
                machine.max_in_flight,
                machine.threads,
                machine.service.0,
                machine.service.1,
                machine.small_channels,
                machine.bulk_channels,
                machine.fails,
                machine.refuses,
                machine.swallows,
                if machine.is_retired { ", retired" } else { "" },
            )?;
        }
        for (place, world) in self.worlds.iter().enumerate() {
            writeln!(
                f,
                "  world {place}: machines {:?}, queue {} jobs {} bytes, affinity {:?}, legacy jobs {}{}",
                world.machines,
                world.queue,
                world.queue_bytes,
                world.affinity,
                if world.idempotent { "idempotent" } else { "not idempotent" },
                if world.is_retired { ", retired" } else { "" },
            )?;
        }
        writeln!(
            f,
            "  hold {:?}, channel buffer {}, bulk above {}, largest job {}, slow start {:?}, default timeout {:?}",
            self.hold, self.channel_buffer, self.bulk_above, self.max_job_bytes, self.slow_start, self.default_timeout
        )?;
        writeln!(f, "  {:?}; legacy: {} jobs, {} bytes of answers", self.quota, self.caller_jobs, self.caller_buffer)?;
        writeln!(f, "  {:?}", self.retry)?;
        writeln!(f, "  {:?}", self.circuit)?;
        write!(f, "  network: {}-{} µs, writes in up to {} pieces", self.latency.0, self.latency.1, self.pieces)
    }
}
