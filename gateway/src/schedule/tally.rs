//! What became of jobs, counted by world, front end and machine: plain numbers in one flat array, so that a job's end costs a
//! place in it and no lock, atomic or allocation.
//!
//! Called by the scheduler where a job ends. [`Scheduler::world_stats`](super::Scheduler::world_stats) and
//! [`machine_stats`](super::Scheduler::machine_stats) add it up when somebody asks.

use std::time::Duration;

use seeway_proto::outcome::{Outcome, OutcomeKind};

use super::pace::Took;
use super::stats::{Histogram, Outcomes, nanoseconds};
use super::{FrontEnd, MachineId, WorldId};

/// A cell for each world, front end and machine, and for jobs that no machine had. 30 KiB for ten worlds and four machines.
#[derive(Debug, Default)]
pub(super) struct Tally {
    cells: Vec<Cell>,
    /// How many cells each world has for each front end: one, and one for each machine.
    row: usize,
}

/// What was counted of the jobs of one world that came in by one front end and that one machine had last.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    pub(super) outcomes: Outcomes,
    /// Bytes of jobs that have ended, however they did, but for those that were refused.
    pub(super) job_bytes: u64,
    pub(super) reply_bytes: u64,
    /// From admission to the answer, of jobs that were answered and had not waited. It counts for the machine, for the world, and
    /// as no time in the queue.
    pub(super) at_once: Histogram,
}

impl Tally {
    /// Has cells for so many worlds and machines, of which there are never fewer than before. What was counted stays.
    pub(super) fn make_room(&mut self, worlds: usize, machines: usize) {
        let mut wider = Self { cells: Vec::new(), row: machines + 1 };
        wider.cells.resize_with(worlds * FrontEnd::ALL.len() * wider.row, Cell::default);
        if self.row > 0 {
            for (new, old) in wider.cells.chunks_mut(wider.row).zip(self.cells.chunks_mut(self.row)) {
                new[..old.len()].swap_with_slice(old);
            }
        }
        *self = wider;
    }

    /// Where a job is counted.
    #[inline(always)]
    pub(super) fn of(&mut self, world: WorldId, front_end: FrontEnd, machine: Option<MachineId>) -> &mut Cell {
        let row = world.0 * FrontEnd::ALL.len() + front_end as usize;
        &mut self.cells[row * self.row + machine.map_or(0, |machine| machine.0 + 1)]
    }

    /// A world's cells for a front end: of the jobs that no machine had, then by machine.
    pub(super) fn row(&self, world: WorldId, front_end: FrontEnd) -> &[Cell] {
        let row = world.0 * FrontEnd::ALL.len() + front_end as usize;
        &self.cells[row * self.row..][..self.row]
    }

    /// A machine's cells, of all worlds and front ends.
    pub(super) fn of_machine(&self, machine: MachineId) -> impl Iterator<Item = &Cell> {
        self.cells.chunks(self.row).map(move |row| &row[machine.0 + 1])
    }
}

impl Cell {
    #[inline(always)]
    pub(super) fn ended(&mut self, outcome: &Outcome<'_>, size: usize) {
        self.outcomes.count(outcome.kind());
        self.job_bytes += size as u64;
        if let Outcome::Replied(reply) = outcome {
            self.reply_bytes += reply.0.len() as u64;
        }
    }

    #[inline(always)]
    pub(super) fn answered_at_once(&mut self, took: &Took) {
        self.at_once.record_in(took);
    }

    /// A job was not admitted.
    pub(super) fn refused(&mut self, kind: OutcomeKind) {
        self.outcomes.count(kind);
    }

    /// A job has ended without an outcome.
    pub(super) fn abandoned(&mut self, size: usize) {
        self.job_bytes += size as u64;
    }
}

/// What was counted for a world besides: what most jobs have nothing to do with.
#[derive(Debug, Default)]
pub(super) struct WorldCounts {
    pub(super) retries: u64,
    pub(super) retries_refused: u64,
    /// Of jobs that waited, or got no answer from a machine.
    pub(super) queue_time: Histogram,
    /// From admission to the end, of the same jobs, by front end.
    pub(super) time: [Histogram; FrontEnd::ALL.len()],
}

impl WorldCounts {
    /// A job has ended that waited, or that no machine has answered.
    #[inline(never)]
    pub(super) fn waited(&mut self, front_end: FrontEnd, queue_time: Duration, machine_time: &Took) {
        let queue_time = nanoseconds(queue_time);
        self.queue_time.record_nanoseconds(queue_time);
        self.time[front_end as usize].record_nanoseconds(queue_time.saturating_add(machine_time.nanoseconds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_stays_where_it_was_when_worlds_and_machines_are_added() {
        let mut tally = Tally::default();
        tally.make_room(2, 1);
        let (old, new) = (MachineId(0), MachineId(2));
        for (world, machine) in [(0, None), (0, Some(old)), (1, Some(old)), (1, None)] {
            for front_end in FrontEnd::ALL {
                let size = 1 + world * 4 + front_end as usize * 2 + usize::from(machine.is_some());
                tally.of(WorldId(world), front_end, machine).abandoned(size);
            }
        }
        tally.make_room(3, 3);
        let bytes = |world, front_end| tally.row(WorldId(world), front_end).iter().map(|cell| cell.job_bytes);
        let all = (0..3).flat_map(|world| FrontEnd::ALL.map(|front_end| (world, front_end)));
        let all: Vec<Vec<u64>> = all.map(|(world, front_end)| bytes(world, front_end).collect()).collect();
        assert_eq!(
            all,
            [[1, 2, 0, 0], [3, 4, 0, 0], [5, 6, 0, 0], [7, 8, 0, 0], [0; 4], [0; 4]],
            "a row for each world and front end"
        );
        assert_eq!(tally.of_machine(old).map(|cell| cell.job_bytes).sum::<u64>(), 2 + 4 + 6 + 8);
        tally.of(WorldId(2), FrontEnd::Grpc, Some(new)).abandoned(9);
        assert_eq!(tally.of_machine(new).map(|cell| cell.job_bytes).sum::<u64>(), 9);
    }
}
