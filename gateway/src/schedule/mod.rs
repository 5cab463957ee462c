//! Which job goes where and when.
//!
//! The [`Scheduler`] admits jobs, queues them where nothing is free, assigns them to channels, watches their deadlines, and
//! makes exactly one outcome of each. It does no I/O and has no clock: the shard calls it with what happened and the time,
//! and gets [`Effects`] back. So its tests move time and break machines as they please.
//!
//! A job's way: [`submit`](Scheduler::submit) → (queue →) staged on a channel → [`take_output`](Scheduler::take_output):
//! from here on it may have run → [`receive`](Scheduler::receive) → outcome. Until it is taken it can be moved or withdrawn.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod budget;
mod job;
mod machine;
mod scheduler;
mod stats;
mod world;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use seeway_proto::outcome::Outcome;
use seeway_proto::wire::{Limits, Profile};
use slotmap::new_key_type;

pub use budget::{Budget, Lease};
pub use scheduler::Scheduler;
pub use stats::{Histogram, MachineStats, WorldStats};

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

/// What the scheduler is made with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The numbers of the wire.
    pub profile: Arc<Profile>,
    /// The sizes of the wire.
    pub limits: Limits,
    /// The machines of each world, by [`WorldId`].
    pub worlds: Vec<Vec<MachineId>>,
    /// The jobs that each machine may have in flight over all shards, by [`MachineId`].
    pub machines: Vec<Arc<Budget>>,
    /// The jobs that may wait for each world over all shards, by [`WorldId`].
    pub queues: Vec<Arc<Budget>>,
    /// How long jobs wait for a world with no machine up; zero fails them at once.
    pub hold: Duration,
    /// How often an idempotent job is sent at most.
    pub max_attempts: u32,
    /// Bytes that may be staged on a channel before it counts as busy.
    pub channel_buffer: usize,
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
    /// How long it waited before it was last staged on a channel, or in all.
    pub queue_time: Duration,
    /// From when it was last staged on a channel to the end.
    pub machine_time: Duration,
    /// What became of it.
    pub outcome: Outcome<'a>,
}

/// What the scheduler wants done, told while it is called. The shard notes it down and acts after the call.
pub trait Effects {
    /// A job has ended. Told exactly once for each job that was submitted and neither cancelled nor left behind by its caller.
    fn concluded(&mut self, concluded: Concluded<'_>);
    /// A channel that had nothing to write now has.
    fn output_staged(&mut self, channel: ChannelId);
    /// A world has gained its first channel or lost its last.
    fn world_ready(&mut self, world: WorldId, ready: bool);
}
