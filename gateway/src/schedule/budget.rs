//! Limits that all shards share: a machine's jobs in flight, a world's queue.
//!
//! The limit itself is one atomic; each shard leases permits from it in chunks, so that the atomic is not touched for
//! each job. Atomics are no I/O: this is the only thing in `schedule` that two threads see.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use seeway_proto::bug::{self, Bug};

/// A limit and how much of it the shards have leased.
#[derive(Debug)]
pub struct Budget {
    /// A reload may change it. Below what is leased nothing is leased until enough has come back.
    limit: AtomicUsize,
    shards: usize,
    leased: AtomicUsize,
    /// Shards that found no permit and want one.
    waiting: AtomicUsize,
}

impl Budget {
    /// A budget of `limit` permits for `shards` shards.
    pub fn new(limit: usize, shards: usize) -> Arc<Self> {
        Arc::new(Self {
            limit: limit.into(),
            shards: shards.max(1),
            leased: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Whether more than one shard leases from it.
    pub fn is_shared(&self) -> bool {
        self.shards > 1
    }

    /// How many permits there are for all shards together.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed) + usize::from(bug::is_on(Bug::LimitOffByOne))
    }

    /// Changes the limit. Permits that are used stay used, even where they are more.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// What each shard may have while others want some too.
    fn share(&self) -> usize {
        self.limit().div_ceil(self.shards)
    }

    /// How many permits a shard leases at once: one that sits on an unused chunk keeps little from the others, yet needs the
    /// atomic rarely.
    fn chunk(&self) -> usize {
        if self.shards == 1 { self.limit() } else { (self.limit() / (self.shards * 8)).max(1) }
    }

    /// Whether more is leased than there is: the limit was lowered, or something was let in anyway.
    fn is_exceeded(&self) -> bool {
        self.leased.load(Ordering::Relaxed) > self.limit()
    }

    fn unleased(&self) -> usize {
        self.limit().saturating_sub(self.leased.load(Ordering::Relaxed))
    }

    /// Leases a chunk, and at least `least`; nothing where that is not to be had.
    fn lease(&self, least: usize) -> usize {
        let (limit, wanted) = (self.limit(), self.chunk().max(least));
        let mut granted = 0;
        // Only the count matters; no other memory is published by it.
        let _ = self.leased.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |leased| {
            granted = wanted.min(limit.saturating_sub(leased));
            if granted < least {
                granted = 0;
            }
            (granted > 0).then_some(leased + granted)
        });
        granted
    }

    fn lease_anyway(&self, permits: usize) {
        self.leased.fetch_add(permits, Ordering::Relaxed);
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
    /// Whether it is one of those that the budget counts as waiting.
    is_waiting: bool,
}

impl Lease {
    /// A lease that holds nothing yet.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, held: 0, used: 0, is_waiting: false }
    }

    /// Whether a permit could be had now. Another shard may be faster.
    #[inline]
    pub fn has_room(&self) -> bool {
        let budget = &self.budget;
        if !budget.is_shared() {
            return self.used < budget.limit();
        }
        let is_held = self.used < self.held && self.used < budget.limit() && !budget.is_exceeded();
        (is_held || budget.unleased() > 0) && !self.leaves_room()
    }

    /// Whether it has its share, and other shards want theirs.
    fn leaves_room(&self) -> bool {
        let others_wait = self.budget.waiting.load(Ordering::Relaxed) > usize::from(self.is_waiting);
        others_wait && self.used >= self.budget.share()
    }

    /// Wants a permit as soon as another shard returns one: until then the others keep to their shares. To be called where
    /// there is no room, and followed by [`stop_waiting`](Self::stop_waiting) where none is wanted any more.
    pub fn wait(&mut self) {
        if self.budget.is_shared() && !std::mem::replace(&mut self.is_waiting, true) {
            self.budget.waiting.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Wants no permit, or has one.
    pub fn stop_waiting(&mut self) {
        if std::mem::take(&mut self.is_waiting) {
            self.budget.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Uses `permits`, all of them or none.
    #[inline(always)]
    pub fn try_use(&mut self, permits: usize) -> bool {
        let wanted = self.used + permits;
        if !self.budget.is_shared() && wanted <= self.held && wanted <= self.budget.limit() {
            // There is nobody to leave room for.
            self.used = wanted;
            return true;
        }
        self.lease_and_use(permits)
    }

    fn lease_and_use(&mut self, permits: usize) -> bool {
        if self.leaves_room() {
            return false;
        }
        if self.held > self.used && self.budget.is_exceeded() {
            // The limit was lowered: what is spare here may be what others use.
            self.budget.give_back(self.held - self.used);
            self.held = self.used;
        }
        let wanted = self.used + permits;
        if wanted > self.held {
            self.held += self.budget.lease(wanted - self.held);
        }
        // A limit that was lowered meanwhile counts at once.
        let has_room = wanted <= self.held && wanted <= self.budget.limit();
        if has_room {
            self.used = wanted;
            self.stop_waiting();
        }
        has_room
    }

    /// Uses `permits` even where there are not so many: for what was let in once and comes back. Nothing else is let in until
    /// as much has gone.
    pub fn use_anyway(&mut self, permits: usize) {
        self.used += permits;
        if self.used > self.held {
            self.budget.lease_anyway(self.used - self.held);
            self.held = self.used;
        }
    }

    /// Returns `permits` that were used; what is far more than needed goes back to the other shards.
    pub fn release(&mut self, permits: usize) {
        debug_assert!(permits <= self.used, "released more than was used");
        self.used -= permits;
        let spare = self.held - self.used;
        // Where permits are scarce, none is kept from those who wait.
        let chunk = self.budget.chunk();
        let is_wanted = self.budget.waiting.load(Ordering::Relaxed) > 0;
        let is_scarce = self.used == 0 || chunk == 1 || is_wanted || self.budget.unleased() == 0;
        let keep = if is_scarce { 0 } else { chunk };
        if spare > keep * 2 {
            self.budget.give_back(spare - keep);
            self.held -= spare - keep;
        }
    }

    /// Whether other shards lease from the same budget.
    pub fn is_shared(&self) -> bool {
        self.budget.is_shared()
    }

    /// How many permits one shard may use while the others want some too.
    pub fn share(&self) -> usize {
        self.budget.share()
    }

    /// How many permits are used.
    pub fn used(&self) -> usize {
        self.used
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop_waiting();
        self.budget.give_back(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_limit_and_one_past_it() {
        let mut lease = Lease::new(Budget::new(3, 1));
        assert!(lease.try_use(1) && lease.try_use(1) && lease.try_use(1));
        assert!(!lease.try_use(1));
        lease.release(1);
        assert!(lease.try_use(1) && !lease.try_use(1));
    }

    #[test]
    fn two_shards_never_use_more_than_the_limit_and_waste_no_permit() {
        let budget = Budget::new(10, 2);
        let (mut one, mut two) = (Lease::new(budget.clone()), Lease::new(budget.clone()));
        let used = std::iter::from_fn(|| (one.try_use(1) || two.try_use(1)).then_some(())).count();
        assert_eq!(used, 10);
        one.release(one.used());
        while two.try_use(1) {}
        assert_eq!(two.used(), 10, "what one released, two can use");
        drop((one, two));
        assert_eq!(budget.leased.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_limit_of_one_moves_between_shards() {
        let budget = Budget::new(1, 4);
        let (mut one, mut two) = (Lease::new(budget.clone()), Lease::new(budget));
        assert!(one.try_use(1) && !two.try_use(1));
        one.release(1);
        assert!(two.try_use(1) && !one.try_use(1));
    }

    #[test]
    fn what_comes_back_is_let_in_and_keeps_others_out() {
        let budget = Budget::new(3, 2);
        let (mut one, mut two) = (Lease::new(budget.clone()), Lease::new(budget.clone()));
        assert!(one.try_use(3));
        one.use_anyway(2);
        assert_eq!(one.used(), 5);
        one.release(2);
        assert!(!one.try_use(1) && !two.try_use(1), "three of three are used");
        one.release(1);
        assert!(two.try_use(1) && !two.try_use(1) && !one.try_use(1));
        drop((one, two));
        assert_eq!(budget.leased.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_lowered_limit_counts_at_once_and_a_raised_one_too() {
        let budget = Budget::new(4, 1);
        let mut lease = Lease::new(budget.clone());
        assert!(lease.try_use(4) && !lease.try_use(1));
        budget.set_limit(2);
        lease.release(1);
        assert!(!lease.has_room() && !lease.try_use(1), "three of two are used");
        lease.release(2);
        assert!(lease.has_room() && lease.try_use(1) && !lease.try_use(1));
        budget.set_limit(3);
        assert!(lease.has_room() && lease.try_use(1) && !lease.try_use(1));
    }

    #[test]
    fn a_lowered_limit_counts_what_other_shards_keep_spare() {
        let budget = Budget::new(32, 2);
        let (mut one, mut two) = (Lease::new(budget.clone()), Lease::new(budget.clone()));
        // Each leases by two, and so has one spare.
        assert!(one.try_use(3) && two.try_use(1));
        budget.set_limit(4);
        let more = std::iter::from_fn(|| (one.try_use(1) || two.try_use(1)).then_some(())).count();
        assert_eq!((more, one.used() + two.used()), (0, 4));
        one.release(1);
        assert!(two.try_use(1) && !one.try_use(1) && !two.try_use(1));
    }

    #[test]
    fn a_shard_that_wants_its_share_gets_it_from_one_that_has_more() {
        let budget = Budget::new(4, 2);
        let (mut greedy, mut modest) = (Lease::new(budget.clone()), Lease::new(budget));
        assert!(greedy.try_use(4) && !modest.try_use(1));
        modest.wait();
        for returned in 1..=2 {
            greedy.release(1);
            assert!(!greedy.has_room() && !greedy.try_use(1), "it lets the other one go first");
            assert!(modest.try_use(1));
            assert_eq!(modest.used(), returned);
            modest.wait();
        }
        greedy.release(1);
        assert!(greedy.try_use(1), "both have their share");
        modest.stop_waiting();
        modest.release(2);
        assert!(greedy.try_use(2), "nobody waits: it may have all");
    }

    #[test]
    fn many_permits_are_had_together_or_not_at_all() {
        let budget = Budget::new(1000, 4);
        let mut lease = Lease::new(budget.clone());
        assert!(lease.try_use(900), "more than a chunk");
        assert!(!lease.try_use(101) && lease.used() == 900);
        assert!(lease.try_use(100));
        lease.release(1000);
        assert_eq!(budget.leased.load(Ordering::Relaxed), 0);
    }
}
