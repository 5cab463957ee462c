//! What can be seen of the scheduler from outside, for metrics, for the control plane and for tests.

use super::scheduler::Scheduler;
use super::stats::{MachineStats, WorldStats};
use super::{MachineId, MachineState, WorldId};

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

    /// Whether a world has a machine that is up.
    pub fn is_ready(&self, world: WorldId) -> bool {
        self.worlds[world.0].is_ready()
    }

    /// Of a world's machines those that take jobs, the one with the least to do first.
    pub fn ready_machines(&self, world: WorldId) -> Vec<MachineId> {
        let machines = &self.worlds[world.0].machines;
        let mut ready: Vec<_> =
            machines.iter().copied().filter(|machine| self.machines.is_usable(*machine, machines)).collect();
        ready.sort_by_key(|machine| self.in_flight(*machine));
        ready
    }

    /// What was counted for a world.
    pub fn world_stats(&self, world: WorldId) -> &WorldStats {
        &self.worlds[world.0].stats
    }

    /// What was counted for a machine.
    pub fn machine_stats(&self, machine: MachineId) -> &MachineStats {
        &self.machines.all[machine.0].stats
    }
}
