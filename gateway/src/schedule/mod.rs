//! Which job goes where and when.
//!
//! The [`Scheduler`] admits jobs, queues them where nothing is free, assigns them to channels, watches their deadlines, and
//! makes exactly one outcome of each. It does no I/O and has no clock: the shard calls it with what happened and the time,
//! and gets [`Effects`] back. So its tests move time and break machines as they please.
//!
//! A job's way: [`submit`](Scheduler::submit) → (queue →) staged on a channel → [`take_output`](Scheduler::take_output):
//! from here on it may have run → [`receive`](Scheduler::receive) → outcome. Until it is taken it can be moved or withdrawn.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
// The way that nearly every job goes is inlined as a whole: each piece of it has one caller that counts, and the instructions of all
// together are held on to (`bench/instructions.json`).
#![allow(clippy::inline_always)]

mod budget;
mod chance;
mod circuit;
mod deadlines;
mod dispatch;
mod ending;
mod fair;
mod group;
mod health;
mod job;
mod machine;
mod order;
mod pace;
mod scheduler;
mod spare;
mod stats;
mod table;
mod tally;
mod view;
mod world;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use seeway_proto::outcome::{Outcome, Unknown};
use seeway_proto::wire::{Limits, Profile};
use slotmap::new_key_type;

pub use budget::{Budget, Lease};
pub use machine::PACKET_BYTES;
pub use scheduler::Scheduler;
pub use stats::{Histogram, MachineStats, Outcomes, WorldStats};

/// A world, by its place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorldId(pub usize);

/// A machine, by its place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MachineId(pub usize);

new_key_type! {
    /// A caller of this shard.
    pub struct CallerId;
    /// A job in hand. The key of one that has ended names no other job.
    pub struct JobId;
    /// A channel that is up.
    pub struct ChannelId;
}

/// What the scheduler is made with, and made anew with when the configuration is reloaded.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The numbers of the wire. A reload can not change them.
    pub profile: Arc<Profile>,
    /// The sizes of the wire. A reload can not change them.
    pub limits: Limits,
    /// By [`WorldId`]. A reload may add some at the end, and retire some.
    pub worlds: Vec<WorldSettings>,
    /// By [`MachineId`]. A reload may add some at the end, and retire some.
    pub machines: Vec<MachineSettings>,
    /// How long jobs wait for a world with no machine up; zero fails them at once.
    pub hold: Duration,
    /// Bytes that may be staged on a channel before it counts as busy.
    pub channel_buffer: usize,
    /// Jobs of more bytes than this are [`SizeClass::Bulk`].
    pub bulk_above: usize,
    /// What each caller may have.
    pub caller: CallerQuota,
    /// When jobs are sent again.
    pub retry: RetrySettings,
    /// When a machine is ejected.
    pub circuit: CircuitSettings,
    /// How long a machine that comes back takes load step by step, where others of its world are up; zero: it does not.
    pub slow_start: Duration,
    /// What chance is drawn from. The same seed and the same calls make the same decisions.
    pub seed: u64,
}

/// A world, as the configuration has it.
#[derive(Clone, Debug)]
pub struct WorldSettings {
    /// The machines that run it.
    pub machines: Vec<MachineId>,
    /// The jobs that may wait for it over all shards.
    pub queue: Arc<Budget>,
    /// The bytes of the jobs that may wait for it over all shards.
    pub queue_bytes: Arc<Budget>,
    /// What becomes of a job whose key's machine is down.
    pub affinity: Affinity,
    /// The configuration has it no more: no job is taken in for it; those in hand run on.
    pub is_retired: bool,
}

/// A machine, as the configuration has it.
#[derive(Clone, Debug)]
pub struct MachineSettings {
    /// Its name. Affinity goes by it, so that every gateway that calls the machines the same sends a key to the same one.
    pub name: Arc<str>,
    /// The jobs that it may have in flight over all shards.
    pub in_flight: Arc<Budget>,
    /// The configuration has it no more: no job goes to it; those that are there run on.
    pub is_retired: bool,
}

/// What becomes of a job whose affinity key's machine is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// It fails: nowhere to go.
    Strict,
    /// It goes to the key's next machine.
    #[default]
    Prefer,
}

/// How much of a saturated world a job's caller gets for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// Twice as much as normal.
    High,
    /// As most.
    #[default]
    Normal,
    /// Half as much as normal.
    Low,
}

/// Which of a machine's channels a job goes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SizeClass {
    /// Jobs of up to `bulk_above` bytes.
    #[default]
    Small,
    /// Larger ones.
    Bulk,
}

/// What one caller may have. No limit is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallerQuota {
    /// Jobs that wait.
    pub queued: usize,
    /// Jobs that are sent and unanswered; its others wait.
    pub in_flight: usize,
    /// Bytes of its jobs in hand.
    pub bytes: usize,
}

/// When idempotent jobs are sent again after an unknown outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetrySettings {
    /// How often a job is sent at most.
    pub max_attempts: u32,
    /// Retries for each hundred jobs that a world is sent, at most.
    pub budget_percent: u32,
    /// Retries that a world has besides.
    pub reserve: u32,
}

/// When a machine is ejected from its worlds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitSettings {
    /// Failures in a row; 0: never, for any reason.
    pub failures: u32,
    /// How long a machine that has jobs may answer none.
    pub silent_after: Duration,
    /// How long the first ejection in a row lasts.
    pub probe_after: Duration,
    /// How long the longest lasts.
    pub probe_max: Duration,
}

/// The kind of listener that a caller came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FrontEnd {
    /// The hardserver wire.
    #[default]
    Hardserver,
    /// gRPC.
    Grpc,
}

impl FrontEnd {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Hardserver, Self::Grpc];

    /// Its name as a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Hardserver => "hardserver",
            Self::Grpc => "grpc",
        }
    }
}

/// A job that a caller hands over.
#[derive(Clone, Copy)]
pub struct NewJob<'a> {
    /// The caller's own name for it; it comes back with the outcome.
    pub ticket: u64,
    /// Where it is to run.
    pub world: WorldId,
    /// What is to be run.
    pub bytes: &'a [u8],
    /// When its caller stops waiting.
    pub deadline: Instant,
    /// Whether it may be sent again after an unknown outcome.
    pub idempotent: bool,
    /// How much of a saturated world it gets.
    pub priority: Priority,
    /// Jobs of the same key go to the same machine, those of one caller in the order in which they came; empty: anywhere.
    pub affinity_key: &'a [u8],
}

/// Whether a machine takes jobs, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MachineState {
    /// No channel is up.
    Down,
    /// It takes jobs.
    Ready,
    /// It has just come back and takes load step by step.
    Starting,
    /// It failed too many jobs, or is silent: it gets none.
    Ejected,
    /// It was ejected, and is being tried.
    Probing,
    /// It is told to take no more jobs, by an operator or because the configuration has it no more.
    Draining,
}

impl MachineState {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Down, Self::Ready, Self::Starting, Self::Ejected, Self::Probing, Self::Draining];

    /// Its name as a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Ejected => "ejected",
            Self::Probing => "probing",
            Self::Draining => "draining",
        }
    }
}

/// What a caller has in hand.
#[derive(Clone, Copy, Debug)]
pub struct CallerLoad {
    /// Who.
    pub caller: CallerId,
    /// Jobs in hand.
    pub jobs: usize,
    /// Of these, those that wait.
    pub queued: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Jobs that were admitted since somebody last looked.
    pub admitted: u64,
}

/// A job's end.
#[derive(Clone, Copy, Debug)]
pub struct Concluded<'a> {
    /// Who handed it over.
    pub caller: CallerId,
    /// The caller's own name for it.
    pub ticket: u64,
    /// Where it was to run.
    pub world: WorldId,
    /// The machine that it was last sent to, if it was.
    pub machine: Option<MachineId>,
    /// The job's bytes.
    pub size: usize,
    /// How long it waited before it was last staged on a channel, or in all.
    pub queue_time: Duration,
    /// From when it was last staged on a channel to the end.
    pub machine_time: Duration,
    /// What became of it.
    pub outcome: Outcome<'a>,
}

/// A job's end that nobody waits for: its caller cancelled it or has gone.
#[derive(Clone, Copy, Debug)]
pub struct Abandoned {
    /// Who handed it over.
    pub caller: CallerId,
    /// The caller's own name for it.
    pub ticket: u64,
    /// Where it was to run.
    pub world: WorldId,
    /// The machine that it was last sent to, if it was.
    pub machine: Option<MachineId>,
    /// The job's bytes.
    pub size: usize,
    /// When it was last staged on a channel, where it was.
    pub sent: Option<Instant>,
    /// Whether it had left, so that it may have run, or may still run.
    pub may_have_run: bool,
}

/// An attempt whose outcome is unknown, and after which the job is sent again.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Who handed the job over.
    pub caller: CallerId,
    /// The caller's own name for it.
    pub ticket: u64,
    /// The machine that it was sent to.
    pub machine: MachineId,
    /// When it was staged on a channel.
    pub sent: Instant,
    /// When it was given up.
    pub lost: Instant,
    /// Why nobody knows.
    pub reason: Unknown,
}

/// What the scheduler wants done, told while it is called. The shard notes it down and acts after the call.
pub trait Effects {
    /// A job has ended. Told exactly once for each job that was submitted and neither cancelled nor left behind by its caller.
    fn concluded(&mut self, concluded: Concluded<'_>);
    /// A job has ended that was cancelled or left behind by its caller. Told exactly once for each of those: with
    /// [`concluded`](Self::concluded), for every job that was submitted.
    fn abandoned(&mut self, abandoned: Abandoned);
    /// A job goes back to the queue, to be sent again. Nobody has to do anything about it.
    fn sent_again(&mut self, _: Attempt) {}
    /// A channel that had nothing to write now has.
    fn output_staged(&mut self, channel: ChannelId);
    /// A world can take jobs now, or no longer can: it has gained its first machine that is up, or lost its last.
    fn world_ready(&mut self, world: WorldId, ready: bool);
    /// A caller of whom [`Scheduler::has_room`] said that it has no room has some again.
    fn caller_has_room(&mut self, caller: CallerId);
    /// A large job went over one of a machine's channels for small ones, for want of a channel of its own.
    fn bulk_wanted(&mut self, machine: MachineId);
    /// A machine was ejected: it failed jobs, or was silent. Whoever keeps no history need not listen.
    fn machine_ejected(&mut self, _machine: MachineId) {}
    /// A machine that was ejected is trusted again.
    fn machine_trusted(&mut self, _machine: MachineId) {}
}
