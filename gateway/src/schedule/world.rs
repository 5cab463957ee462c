//! A world: what waits for it, whether it has anywhere to send to, and how much it may still send again.

use std::time::{Duration, Instant};

use seeway_proto::bug::{self, Bug};

use super::budget::Lease;
use super::fair::FairQueue;
use super::order::InOrder;
use super::tally::WorldCounts;
use super::{Affinity, JobId, MachineId, RetrySettings, WorldSettings};

/// A world as this shard sees it.
#[derive(Debug)]
pub(super) struct World {
    pub(super) machines: Vec<MachineId>,
    pub(super) affinity: Affinity,
    pub(super) is_retired: bool,
    /// Waiting jobs, by the order of their admission: all of them, in line or not.
    pub(super) waiting: InOrder<JobId>,
    /// The same jobs as they take turns.
    pub(super) queue: FairQueue,
    room: Lease,
    byte_room: Lease,
    /// Bytes of the waiting jobs.
    pub(super) waiting_bytes: usize,
    /// Since when no machine has been up; `None` while one is.
    pub(super) down_since: Option<Instant>,
    /// Whether it takes jobs: a machine is up, and the configuration has it.
    pub(super) is_ready: bool,
    pub(super) retries: RetryBudget,
    pub(super) counts: WorldCounts,
}

impl World {
    pub(super) fn new(now: Instant, settings: WorldSettings, retry: &RetrySettings) -> Self {
        Self {
            machines: settings.machines,
            affinity: settings.affinity,
            is_retired: settings.is_retired,
            waiting: InOrder::default(),
            queue: FairQueue::default(),
            room: Lease::new(settings.queue),
            byte_room: Lease::new(settings.queue_bytes),
            waiting_bytes: 0,
            down_since: Some(now),
            is_ready: false,
            retries: RetryBudget::new(retry),
            counts: WorldCounts::default(),
        }
    }

    /// When a job that has been waiting since `admitted` has waited long enough for a machine to come up; `None` while
    /// one is up.
    pub(super) fn hold_ends(&self, admitted: Instant, hold: Duration) -> Option<Instant> {
        self.down_since.map(|down_since| down_since.max(admitted) + hold)
    }

    /// Takes a place in the queue for a job of `bytes` bytes, if there is one.
    pub(super) fn take_place(&mut self, bytes: usize) -> bool {
        if !self.room.try_use(1) {
            return false;
        }
        let has_room = self.byte_room.try_use(bytes);
        if !has_room {
            self.room.release(1);
        }
        has_room
    }

    /// Takes a place for a job that had one before, though there be none.
    pub(super) fn take_place_again(&mut self, bytes: usize) {
        self.room.use_anyway(1);
        self.byte_room.use_anyway(bytes);
    }

    /// Returns a place that was taken.
    pub(super) fn release_place(&mut self, bytes: usize) {
        self.room.release(1);
        self.byte_room.release(bytes);
    }
}

/// How many jobs may be sent again: a share of those that were sent, and some besides. So a machine that loses every job is
/// not sent three times as many for it.
#[derive(Debug)]
pub(super) struct RetryBudget {
    /// In hundredths of a retry.
    balance: u64,
    /// Jobs that were sent for the first time and are not in the balance yet.
    earned: u64,
}

/// A world that has long had no need of retries may have this many times its reserve, and `LEAST_SAVED` at least.
const SAVED_RESERVES: u64 = 10;
const LEAST_SAVED: u64 = 100;

impl RetryBudget {
    fn new(settings: &RetrySettings) -> Self {
        Self { balance: u64::from(settings.reserve) * 100, earned: 0 }
    }

    /// A job was sent for the first time.
    #[inline]
    pub(super) fn earn(&mut self) {
        self.earned += 1;
    }

    /// Adds to the balance what was earned, by what it is worth now.
    pub(super) fn settle(&mut self, settings: &RetrySettings) {
        let most = (u64::from(settings.reserve) * SAVED_RESERVES).max(LEAST_SAVED) * 100;
        let earned = std::mem::take(&mut self.earned).saturating_mul(settings.budget_percent.into());
        self.balance = self.balance.saturating_add(earned).min(most);
    }

    /// Whether a job may be sent again; if so, it is paid for.
    pub(super) fn spend(&mut self, settings: &RetrySettings) -> bool {
        self.settle(settings);
        if bug::is_on(Bug::RetryBudgetIgnored) {
            return true;
        }
        let is_enough = self.balance >= 100;
        if is_enough {
            self.balance -= 100;
        }
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_tenth_of_what_is_sent_and_the_reserve() {
        let settings = RetrySettings { max_attempts: 3, budget_percent: 10, reserve: 2 };
        let mut budget = RetryBudget::new(&settings);
        assert!(budget.spend(&settings) && budget.spend(&settings) && !budget.spend(&settings), "the reserve");
        (0..9).for_each(|_| budget.earn());
        assert!(!budget.spend(&settings), "nine jobs are not enough");
        budget.earn();
        assert!(budget.spend(&settings) && !budget.spend(&settings));
        (0..1_000_000).for_each(|_| budget.earn());
        assert_eq!((0..1000).filter(|_| budget.spend(&settings)).count(), 100, "what is saved up has a limit");
    }
}
