//! What became of jobs, counted by machine, world and front end: plain numbers in a flat array of each machine, so that a job's end
//! costs a place in it and no lock, atomic or allocation.
//!
//! Called by the scheduler where a job ends. [`Scheduler::world_stats`](super::Scheduler::world_stats) and
//! [`machine_stats`](super::Scheduler::machine_stats) add it up when somebody asks.

use std::time::Duration;

use seeway_proto::outcome::{Outcome, OutcomeKind};

use super::pace::Took;
use super::stats::{Histogram, Outcomes, nanoseconds};
use super::{FrontEnd, WorldId};

/// The jobs that one machine had last, or none had: a cell for each world and front end. 6 KiB for ten worlds.
#[derive(Debug, Default)]
pub(super) struct Tally(Vec<Cell>);

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
    /// Has cells for so many worlds, of which there are never fewer than before. What was counted stays.
    pub(super) fn make_room(&mut self, worlds: usize) {
        self.0.resize_with(worlds * FrontEnd::ALL.len(), Cell::default);
    }

    /// Where a job is counted.
    #[inline(always)]
    pub(super) fn of(&mut self, world: WorldId, front_end: FrontEnd) -> &mut Cell {
        &mut self.0[world.0 * FrontEnd::ALL.len() + front_end as usize]
    }

    /// What was counted of a world's jobs that came in by a front end.
    pub(super) fn cell(&self, world: WorldId, front_end: FrontEnd) -> &Cell {
        &self.0[world.0 * FrontEnd::ALL.len() + front_end as usize]
    }

    /// All that was counted.
    pub(super) fn all(&self) -> &[Cell] {
        &self.0
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
    fn what_was_counted_stays_where_it_was_when_worlds_are_added() {
        let mut tally = Tally::default();
        tally.make_room(2);
        let places = |worlds: usize| (0..worlds).flat_map(|world| FrontEnd::ALL.map(|front_end| (world, front_end)));
        for (size, (world, front_end)) in places(2).enumerate() {
            tally.of(WorldId(world), front_end).abandoned(size + 1);
        }
        tally.make_room(3);
        tally.of(WorldId(2), FrontEnd::Grpc).abandoned(9);
        let bytes = |(world, front_end)| tally.cell(WorldId(world), front_end).job_bytes;
        assert_eq!(places(3).map(bytes).collect::<Vec<_>>(), [1, 2, 3, 4, 0, 9]);
        assert_eq!(tally.all().iter().map(|cell| cell.job_bytes).sum::<u64>(), 19);
    }
}
