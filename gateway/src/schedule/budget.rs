//! Limits that all shards share: a machine's jobs in flight, a world's queue.
//!
//! The limit itself is one atomic; each shard leases permits from it in chunks, so that the atomic is not touched for
//! each job. Atomics are no I/O: this is the only thing in `schedule` that two threads see.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A limit and how much of it the shards have leased.
#[derive(Debug)]
pub struct Budget {
    limit: AtomicUsize,
    is_shared: bool,
    chunk: usize,
    leased: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` permits for `shards` shards.
    pub fn new(limit: usize, shards: usize) -> Arc<Self> {
        // A shard that sits on one unused chunk keeps little from the others, yet needs the atomic rarely.
        let chunk = if shards <= 1 { limit } else { (limit / (shards * 8)).max(1) };
        Arc::new(Self { limit: AtomicUsize::new(limit), is_shared: shards > 1, chunk, leased: AtomicUsize::new(0) })
    }

    /// Changes the limit. Where more is leased than the new one allows, nothing is granted until enough has come back.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Whether more than one shard leases from it.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    fn is_exhausted(&self) -> bool {
        self.leased.load(Ordering::Relaxed) >= self.limit.load(Ordering::Relaxed)
    }

    fn lease(&self) -> usize {
        let mut granted = 0;
        // Only the count matters; no other memory is published by it.
        let _ = self.leased.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |leased| {
            granted = self.chunk.min(self.limit.load(Ordering::Relaxed).saturating_sub(leased));
            (granted > 0).then_some(leased + granted)
        });
        granted
    }

    fn give_back(&self, permits: usize) {
        self.leased.fetch_sub(permits, Ordering::Relaxed);
    }
}

/// One shard's part of a [`Budget`].
#[derive(Debug)]
pub struct Lease {
    budget: Arc<Budget>,
    held: usize,
    used: usize,
}

impl Lease {
    /// A lease that holds nothing yet.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, held: 0, used: 0 }
    }

    /// Whether a permit could be had now. Another shard may be faster.
    pub fn has_room(&self) -> bool {
        self.used < self.held || !self.budget.is_exhausted()
    }

    /// Uses one permit, if one can be had.
    pub fn try_use(&mut self) -> bool {
        if self.used == self.held {
            self.held += self.budget.lease();
        }
        let has_room = self.used < self.held;
        self.used += usize::from(has_room);
        has_room
    }

    /// Returns `permits` that were used; what is far more than needed goes back to the other shards.
    pub fn release(&mut self, permits: usize) {
        debug_assert!(permits <= self.used, "released more than was used");
        self.used -= permits;
        let spare = self.held - self.used;
        // Where permits are scarce, none is kept from those who wait.
        let is_scarce = self.used == 0 || self.budget.chunk == 1 || self.budget.is_exhausted();
        let keep = if is_scarce { 0 } else { self.budget.chunk };
        if spare > keep * 2 {
            self.budget.give_back(spare - keep);
            self.held -= spare - keep;
        }
    }

    /// How many permits there are for all shards together.
    pub fn limit(&self) -> usize {
        self.budget.limit.load(Ordering::Relaxed)
    }

    /// How many permits are used.
    pub fn used(&self) -> usize {
        self.used
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.give_back(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_limit_and_one_past_it() {
        let mut lease = Lease::new(Budget::new(3, 1));
        assert!(lease.try_use() && lease.try_use() && lease.try_use());
        assert!(!lease.try_use());
        lease.release(1);
        assert!(lease.try_use() && !lease.try_use());
    }

    #[test]
    fn two_shards_never_use_more_than_the_limit_and_waste_no_permit() {
        let budget = Budget::new(10, 2);
        let (mut one, mut two) = (Lease::new(budget.clone()), Lease::new(budget.clone()));
        let used = std::iter::from_fn(|| (one.try_use() || two.try_use()).then_some(())).count();
        assert_eq!(used, 10);
        one.release(one.used());
        while two.try_use() {}
        assert_eq!(two.used(), 10, "what one released, two can use");
        drop((one, two));
        assert_eq!(budget.leased.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_limit_of_one_moves_between_shards() {
        let budget = Budget::new(1, 4);
        let (mut one, mut two) = (Lease::new(budget.clone()), Lease::new(budget));
        assert!(one.try_use() && !two.try_use());
        one.release(1);
        assert!(two.try_use() && !one.try_use());
    }
}
