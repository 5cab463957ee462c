//! What can be seen of the scheduler from outside, for metrics, for the control plane and for tests.

use std::cmp::Reverse;

use super::chance::{rendezvous_weight, stable_hash};
use super::scheduler::Scheduler;
use super::stats::{MachineStats, WorldStats};
use super::world::World;
use super::{Affinity, CallerLoad, MachineId, MachineState, WorldId};

impl Scheduler {
    /// Whether no job is in hand.
    pub fn is_idle(&self) -> bool {
        self.jobs.len() == 0
    }

    /// Whether nothing at all is kept of jobs that have ended: no queue, flow, lane, group or deadline.
    pub fn is_bare(&self) -> bool {
        self.is_idle()
            && self.groups.is_empty()
            && self.deadlines() == 0
            && self
                .worlds
                .iter()
                .all(|world| world.waiting.is_empty() && world.waiting_bytes == 0 && world.queue.is_bare())
    }

    /// Jobs in hand: queued, or sent and wanted.
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Callers that have joined and not left.
    pub fn callers(&self) -> usize {
        self.jobs.callers()
    }

    /// Callers that have been told that they have no room.
    pub fn callers_waiting(&self) -> usize {
        self.jobs.callers_waiting()
    }

    /// What each caller has in hand, and how many jobs of its were admitted since this was last asked.
    pub fn caller_loads(&mut self) -> Vec<CallerLoad> {
        self.jobs.loads()
    }

    /// How many worlds there are, retired ones among them.
    pub fn worlds(&self) -> usize {
        self.worlds.len()
    }

    /// Jobs that wait in a world's queue.
    pub fn queued(&self, world: WorldId) -> usize {
        self.worlds[world.0].waiting.len()
    }

    /// Bytes of the jobs that wait in a world's queue.
    pub fn queued_bytes(&self, world: WorldId) -> usize {
        self.worlds[world.0].waiting_bytes
    }

    /// Tags that are taken on a machine's channels: jobs sent and unanswered, wanted or not.
    pub fn in_flight(&self, machine: MachineId) -> usize {
        self.machines.all[machine.0].in_flight.used()
    }

    /// A machine's channels that are up.
    pub fn channels(&self, machine: MachineId) -> usize {
        self.machines.all[machine.0].channels.len()
    }

    /// Whether a machine takes jobs, and why not.
    pub fn machine_state(&self, machine: MachineId) -> MachineState {
        self.machines.state(machine)
    }

    /// Whether a world takes jobs: it has a machine that is up.
    pub fn is_ready(&self, world: WorldId) -> bool {
        self.worlds[world.0].is_ready
    }

    /// A world's machines in the order in which something else than a job, which goes by the same rules, should try them, and
    /// whether each takes jobs now: those that do first. Without a key the one with the least in flight goes first; with one the
    /// key's own, and where affinity is strict no other.
    pub fn machines_for(&self, world: WorldId, affinity_key: &[u8]) -> Vec<(MachineId, bool)> {
        let World { machines, affinity, .. } = &self.worlds[world.0];
        let mut order = machines.clone();
        if affinity_key.is_empty() {
            order.sort_by_key(|machine| self.in_flight(*machine));
        } else {
            let key = stable_hash(affinity_key);
            order.sort_by_key(|machine| Reverse(rendezvous_weight(key, self.machines.all[machine.0].name_hash)));
            if *affinity == Affinity::Strict {
                order.truncate(1);
            }
        }
        let usable = |machine: MachineId| (machine, self.machines.is_usable(machine, machines));
        let mut order: Vec<_> = order.into_iter().map(usable).collect();
        order.sort_by_key(|(_, is_usable)| !is_usable);
        order
    }

    /// What was counted for a world.
    pub fn world_stats(&self, world: WorldId) -> WorldStats {
        let machines = self.machines.all.iter().map(|machine| &machine.tally);
        WorldStats::new(world, &self.worlds[world.0].counts, std::iter::once(&self.tally).chain(machines))
    }

    /// What was counted for a machine.
    pub fn machine_stats(&self, machine: MachineId) -> MachineStats {
        let mut stats = self.machines.all[machine.0].stats.clone();
        self.machines.all[machine.0].tally.all().iter().for_each(|cell| stats.machine_time.merge(&cell.at_once));
        stats
    }
}
