//! How much one identity may have under one rule: jobs and bytes in a second, jobs in flight. Shared by all shards.
//!
//! A rate is kept as the time up to which it is used up: each job moves that time on by what it costs, and none is let in while it
//! lies more than a second ahead. So a rate needs one atomic, and no timer fills it up again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a rule allows each identity that it is about. 0: as much as the gateway's own limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaSettings {
    /// Jobs in a second.
    pub jobs_per_second: u64,
    /// Bytes of jobs in a second.
    pub bytes_per_second: u64,
    /// Jobs handed over and not ended: waiting or sent.
    pub in_flight: u64,
}

impl QuotaSettings {
    /// Whether it leaves everything to the gateway's own limits.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How far a rate may be used ahead: after a pause this much comes at once.
const BURST: u64 = NANOSECONDS;
const NANOSECONDS: u64 = 1_000_000_000;

/// The counters of one identity under one rule.
#[derive(Debug, Default)]
pub struct Quota {
    jobs_per_second: AtomicU64,
    bytes_per_second: AtomicU64,
    most_in_flight: AtomicU64,
    /// In nanoseconds from the clock's beginning.
    jobs_used_until: AtomicU64,
    bytes_used_until: AtomicU64,
    in_flight: AtomicU64,
    refused: AtomicU64,
}

impl Quota {
    /// A quota of which nothing is used.
    pub fn new(settings: QuotaSettings) -> Self {
        let quota = Self::default();
        quota.set(settings);
        quota
    }

    /// Changes what is allowed. What is used stays used.
    pub fn set(&self, settings: QuotaSettings) {
        self.jobs_per_second.store(settings.jobs_per_second, Ordering::Relaxed);
        self.bytes_per_second.store(settings.bytes_per_second, Ordering::Relaxed);
        self.most_in_flight.store(settings.in_flight, Ordering::Relaxed);
    }

    /// Takes a job of `size` bytes in, at `now` from the clock's beginning; false where it is one too many, and nothing is taken
    /// then. One that is taken in is to be [given back](Self::give_back) when it ends.
    ///
    /// A job larger than a second's bytes is taken in when those of the last second are not used up; others then wait for longer.
    #[must_use]
    pub fn take(&self, now: Duration, size: usize) -> bool {
        let is_taken = self.try_take(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2), size as u64);
        if !is_taken {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        is_taken
    }

    fn try_take(&self, now: u64, size: u64) -> bool {
        // 0 is none; where there is none jobs are counted all the same, for a reload may bring one.
        let most = match self.most_in_flight.load(Ordering::Relaxed) {
            0 => u64::MAX,
            most => most,
        };
        let one_more = |in_flight| (in_flight < most).then_some(in_flight + 1);
        if self.in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            return false;
        }
        let job = cost(1, self.jobs_per_second.load(Ordering::Relaxed));
        // Counted whole: a job's cost is known beforehand, so that no more than the rate comes in any second.
        if !spend(&self.jobs_used_until, now, job, job) {
            self.give_back();
            return false;
        }
        let bytes = cost(size, self.bytes_per_second.load(Ordering::Relaxed));
        if !spend(&self.bytes_used_until, now, bytes, bytes.min(BURST)) {
            self.jobs_used_until.fetch_sub(job, Ordering::Relaxed);
            self.give_back();
            return false;
        }
        true
    }

    /// A job that was taken in has ended.
    pub fn give_back(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Jobs taken in and not given back.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether nothing of it is used at `now`, so that a new one is as good.
    pub fn is_unused(&self, now: Duration) -> bool {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2);
        let is_past = |until: &AtomicU64| until.load(Ordering::Relaxed) <= now;
        self.in_flight() == 0 && is_past(&self.jobs_used_until) && is_past(&self.bytes_used_until)
    }

    /// Jobs that were one too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// The time that `amount` takes at `rate` in a second; none where there is no rate.
fn cost(amount: u64, rate: u64) -> u64 {
    if rate == 0 {
        return 0;
    }
    let cost = u128::from(amount) * u128::from(NANOSECONDS) / u128::from(rate);
    // A job of years at a rate of a byte in a second is as good as one of years.
    u64::try_from(cost).unwrap_or(u64::MAX).min(u64::MAX / 4)
}

/// Moves `used_until` on by `cost`, if there is room for `room` of it within the burst.
fn spend(used_until: &AtomicU64, now: u64, cost: u64, room: u64) -> bool {
    if cost == 0 {
        return true;
    }
    let moved = |until: u64| {
        let until = until.max(now);
        ((until - now).saturating_add(room) <= BURST.max(room)).then_some(until.saturating_add(cost))
    };
    used_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(jobs_per_second: u64, bytes_per_second: u64, in_flight: u64) -> Quota {
        Quota::new(QuotaSettings { jobs_per_second, bytes_per_second, in_flight })
    }

    /// How many of `asked` jobs of `size` bytes are taken in at a time.
    fn taken(quota: &Quota, now: Duration, asked: usize, size: usize) -> usize {
        (0..asked).filter(|_| quota.take(now, size)).count()
    }

    const START: Duration = Duration::from_secs(1_000);

    #[test]
    fn a_second_s_jobs_at_once_and_then_as_many_in_each_second() {
        let quota = quota(10, 0, 0);
        assert_eq!(taken(&quota, START, 50, 1), 10);
        assert_eq!(taken(&quota, START + Duration::from_millis(99), 50, 1), 0, "the next is due after 100 ms");
        assert_eq!(taken(&quota, START + Duration::from_millis(100), 50, 1), 1);
        assert_eq!(taken(&quota, START + Duration::from_millis(500), 50, 1), 4);
        assert_eq!(taken(&quota, START + Duration::from_secs(60), 50, 1), 10, "a pause saves up a second's, no more");
        assert_eq!(quota.refused(), 40 + 50 + 49 + 46 + 40);
    }

    #[test]
    fn one_job_in_a_second_is_one_job_in_a_second() {
        let quota = quota(1, 0, 0);
        assert_eq!(taken(&quota, START, 2, 1), 1);
        assert_eq!(taken(&quota, START + Duration::from_millis(999), 2, 1), 0);
        assert_eq!(taken(&quota, START + Duration::from_secs(1), 2, 1), 1);
    }

    #[test]
    fn bytes_count_and_a_job_larger_than_a_second_s_is_paid_for_afterwards() {
        let quota = quota(0, 1_000, 0);
        assert_eq!(taken(&quota, START, 20, 100), 10);
        assert_eq!(taken(&quota, START, 1, 1), 0);
        let later = START + Duration::from_secs(1);
        assert!(quota.take(later, 5_000), "or it could never run");
        assert!(!quota.take(later + Duration::from_millis(4_099), 100));
        assert!(quota.take(later + Duration::from_millis(4_100), 100), "4 s after the second that it had saved up");
        assert!(quota.take(later, 0), "nothing costs nothing");
    }

    #[test]
    fn at_the_limit_in_flight_and_one_past_it() {
        let quota = quota(0, 0, 3);
        assert_eq!(taken(&quota, START, 4, 1), 3);
        quota.give_back();
        assert_eq!(taken(&quota, START, 4, 1), 1);
        quota.set(QuotaSettings { in_flight: 1, ..QuotaSettings::default() });
        quota.give_back();
        assert_eq!((taken(&quota, START, 1, 1), quota.in_flight()), (0, 2), "above a limit that was lowered");
        quota.set(QuotaSettings::default());
        assert_eq!(taken(&quota, START, 100, 1), 100);
    }

    #[test]
    fn what_one_limit_refuses_is_not_counted_against_the_others() {
        let quota = quota(10, 100, 100);
        assert_eq!(taken(&quota, START, 1, 100), 1);
        assert_eq!(taken(&quota, START, 50, 1), 0, "no bytes left");
        assert_eq!(quota.in_flight(), 1);
        assert_eq!(taken(&quota, START, 50, 0), 9, "the jobs that were refused cost none of the ten");
    }

    #[test]
    fn absurd_rates_and_sizes_do_not_overflow() {
        for quota in [quota(u64::MAX, u64::MAX, u64::MAX), quota(1, 1, 1)] {
            assert!(quota.take(Duration::MAX, usize::MAX));
            quota.give_back();
            let _ = quota.take(Duration::MAX, usize::MAX);
            let _ = quota.take(Duration::ZERO, usize::MAX);
        }
    }

    #[test]
    fn four_threads_get_no_more_than_one_would() {
        let quota = quota(1_000, 0, 500);
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| taken(&quota, START, 1_000, 1))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!((taken, quota.in_flight()), (500, 500));
    }
}
