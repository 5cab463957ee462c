//! What the scheduler counts: plain numbers, so that counting costs a job no atomic. The shard hands them to the metrics
//! when somebody asks for these.

use std::time::Duration;

use seeway_proto::outcome::OutcomeKind;

use super::pace::Took;

/// What was counted for a world since the shard began.
#[derive(Clone, Debug, Default)]
pub struct WorldStats {
    outcomes: [u64; OutcomeKind::ALL.len()],
    /// Jobs that were sent again after an unknown outcome.
    pub retries: u64,
    /// Jobs that could have been sent again, and were not because of the retry budget.
    pub retries_refused: u64,
    /// From admission to when the job was last staged on a channel, or to its end where it never was.
    pub queue_time: Histogram,
}

impl WorldStats {
    #[inline]
    pub(super) fn count(&mut self, kind: OutcomeKind) {
        self.outcomes[kind as usize] += 1;
    }

    /// How many jobs had this outcome.
    pub fn outcomes(&self, kind: OutcomeKind) -> u64 {
        self.outcomes[kind as usize]
    }
}

/// What was counted for a machine since the shard began.
#[derive(Clone, Debug, Default)]
pub struct MachineStats {
    /// Replies whose job nobody waited for any more.
    pub late_replies: u64,
    /// How often it was ejected.
    pub ejections: u64,
    /// From when a job was staged on a channel to its reply.
    pub machine_time: Histogram,
}

const NANOSECONDS_PER_SECOND: u128 = 1_000_000_000;

/// A histogram of durations whose buckets double: 2^n × 16 µs for n from 0, so up to about 134 s.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: [u64; Self::BUCKETS],
    /// In nanoseconds.
    sum: u128,
}

impl Histogram {
    const FIRST_BOUND_MICROSECONDS: u64 = 16;
    /// The last bucket has no upper bound.
    pub const BUCKETS: usize = 25;

    /// Counts a duration.
    pub fn record(&mut self, duration: Duration) {
        self.record_in(&duration.into());
    }

    /// Counts a time that was taken.
    #[inline]
    pub(super) fn record_in(&mut self, took: &Took) {
        self.counts[took.bucket.0] += 1;
        self.sum += u128::from(took.nanoseconds);
    }

    /// Counts a duration of nothing.
    #[inline]
    pub(super) fn record_zero(&mut self) {
        self.counts[0] += 1;
    }

    /// Adds what another histogram has counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, others) in self.counts.iter_mut().zip(&other.counts) {
            *count += others;
        }
        self.sum += other.sum;
    }

    /// The buckets' upper bounds in seconds, inclusive, without the last bucket's.
    pub fn bounds() -> [f64; Self::BUCKETS - 1] {
        let mut bound = 16e-6;
        std::array::from_fn(|_| {
            let this = bound;
            bound *= 2.0;
            this
        })
    }

    /// How many durations fell into each bucket.
    pub fn counts(&self) -> &[u64; Self::BUCKETS] {
        &self.counts
    }

    /// All durations together.
    pub fn sum(&self) -> Duration {
        let seconds = u64::try_from(self.sum / NANOSECONDS_PER_SECOND).unwrap_or(u64::MAX);
        #[allow(clippy::cast_possible_truncation)] // It is below a second's.
        Duration::new(seconds, (self.sum % NANOSECONDS_PER_SECOND) as u32)
    }
}

/// The bucket of a [`Histogram`] that a duration belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket(usize);

impl Bucket {
    /// The highest bit of the number of microseconds before this one, above those of the first bucket, says which it is.
    #[inline]
    pub(super) fn of_nanoseconds(nanoseconds: u64) -> Self {
        let before = (nanoseconds / 1000).saturating_sub(1) / Histogram::FIRST_BOUND_MICROSECONDS;
        let bucket = (u64::BITS - before.leading_zeros()) as usize;
        Self(bucket.min(Histogram::BUCKETS - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let cases = [(0, 0), (1, 0), (16, 0), (17, 1), (32, 1), (33, 2), (64, 2), (16 << 23, 23), ((16 << 23) + 1, 24)];
        for (microseconds, bucket) in cases {
            let mut histogram = Histogram::default();
            histogram.record(Duration::from_micros(microseconds));
            assert_eq!(histogram.counts().iter().position(|count| *count == 1), Some(bucket), "{microseconds} µs");
        }
        let mut histogram = Histogram::default();
        histogram.record(Duration::MAX);
        assert_eq!(histogram.counts()[Histogram::BUCKETS - 1], 1);
        assert!((Histogram::bounds()[23] - 134.217_728).abs() < 1e-6);
    }

    #[test]
    fn a_sum_is_of_the_durations_and_not_of_their_buckets_bounds() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        for microseconds in [17, 33, 1_000_001] {
            one.record(Duration::from_micros(microseconds));
        }
        other.record(Duration::from_micros(33));
        one.merge(&other);
        assert_eq!(one.sum(), Duration::from_micros(17 + 33 + 1_000_001 + 33));
        assert_eq!((one.counts()[1], one.counts()[2]), (1, 2));
        assert_eq!(one.counts().iter().sum::<u64>(), 4);
    }
}
