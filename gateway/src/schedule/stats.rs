//! What the scheduler counts: plain numbers, so that counting costs a job no atomic. The shard hands them to the metrics
//! when somebody asks for these.

use std::ops::AddAssign;
use std::time::Duration;

use seeway_proto::outcome::OutcomeKind;

use super::pace::Took;
use super::tally::{Tally, WorldCounts};
use super::{FrontEnd, MachineId, WorldId};

/// How many jobs had which outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes([u64; OutcomeKind::ALL.len()]);

impl Outcomes {
    #[inline]
    pub(super) fn count(&mut self, kind: OutcomeKind) {
        self.0[kind as usize] += 1;
    }

    /// How many jobs had this outcome.
    pub fn of(&self, kind: OutcomeKind) -> u64 {
        self.0[kind as usize]
    }
}

impl AddAssign for Outcomes {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(count, others)| *count += others);
    }
}

/// What was counted for a world since the shard began.
#[derive(Clone, Debug, Default)]
pub struct WorldStats {
    /// By front end: of the jobs that no machine had, then of those that each machine had last, by [`MachineId`].
    outcomes: [Vec<Outcomes>; FrontEnd::ALL.len()],
    /// Jobs that were sent again after an unknown outcome.
    pub retries: u64,
    /// Jobs that could have been sent again, and were not because of the retry budget.
    pub retries_refused: u64,
    /// Bytes of the jobs that were admitted and have ended.
    pub job_bytes: u64,
    /// Bytes of the replies that they had.
    pub reply_bytes: u64,
    /// From admission to when the job was last staged on a channel, or to its end where it never was.
    pub queue_time: Histogram,
    /// By front end: from a job's admission to its outcome.
    pub time: [Histogram; FrontEnd::ALL.len()],
}

impl WorldStats {
    /// Adds up what was counted for a world: of the jobs that no machine had, then by machine.
    pub(super) fn new<'a>(world: WorldId, counts: &WorldCounts, tallies: impl Iterator<Item = &'a Tally>) -> Self {
        let mut stats = Self {
            retries: counts.retries,
            retries_refused: counts.retries_refused,
            queue_time: counts.queue_time.clone(),
            time: counts.time.clone(),
            ..Self::default()
        };
        for tally in tallies {
            for front_end in FrontEnd::ALL {
                let cell = tally.cell(world, front_end);
                stats.outcomes[front_end as usize].push(cell.outcomes);
                stats.job_bytes += cell.job_bytes;
                stats.reply_bytes += cell.reply_bytes;
                stats.time[front_end as usize].merge(&cell.at_once);
                stats.queue_time.record_zeros(cell.at_once.count());
            }
        }
        stats
    }

    /// How many jobs had this outcome.
    pub fn outcomes(&self, kind: OutcomeKind) -> u64 {
        self.outcomes.iter().flatten().map(|outcomes| outcomes.of(kind)).sum()
    }

    /// What became of the jobs that came in by a front end and that this machine had last, or none; nothing where the shard has not
    /// heard of the machine.
    pub fn outcomes_at(&self, front_end: FrontEnd, machine: Option<MachineId>) -> Outcomes {
        let place = machine.map_or(0, |machine| machine.0 + 1);
        self.outcomes[front_end as usize].get(place).copied().unwrap_or_default()
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

/// A duration in nanoseconds; more than five hundred years count as that.
#[inline]
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000_000).saturating_add(duration.subsec_nanos().into())
}

/// A histogram of durations whose buckets double: 2^n × 50 µs for n from 0, so up to 52.4 s, and one more up to 60 s.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: [u64; Self::BUCKETS],
    /// In nanoseconds.
    sum: u128,
}

impl Histogram {
    const FIRST_BOUND_NANOSECONDS: u64 = 50_000;
    const LAST_BOUND_NANOSECONDS: u64 = 60_000_000_000;
    /// How many buckets there are whose bounds double.
    const DOUBLING: usize = 21;
    /// The last bucket has no upper bound.
    pub const BUCKETS: usize = Self::DOUBLING + 2;

    /// Counts a duration.
    pub fn record(&mut self, duration: Duration) {
        self.record_nanoseconds(nanoseconds(duration));
    }

    /// Counts a duration of so many nanoseconds.
    #[inline]
    pub(super) fn record_nanoseconds(&mut self, nanoseconds: u64) {
        self.counts[Bucket::of_nanoseconds(nanoseconds).0] += 1;
        self.sum += u128::from(nanoseconds);
    }

    /// Counts a time that was taken.
    #[inline]
    pub(super) fn record_in(&mut self, took: &Took) {
        self.counts[took.bucket.0] += 1;
        self.sum += u128::from(took.nanoseconds);
    }

    /// Counts so many durations of nothing.
    pub(super) fn record_zeros(&mut self, count: u64) {
        self.counts[0] += count;
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
        let mut bound = 50e-6;
        std::array::from_fn(|place| {
            let this = if place < Self::DOUBLING { bound } else { 60.0 };
            bound *= 2.0;
            this
        })
    }

    /// How many durations fell into each bucket.
    pub fn counts(&self) -> &[u64; Self::BUCKETS] {
        &self.counts
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
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
    /// The highest bit of how often the first bucket has passed by before this nanosecond says which it is.
    #[inline]
    pub(super) fn of_nanoseconds(nanoseconds: u64) -> Self {
        let before = nanoseconds.saturating_sub(1) / Histogram::FIRST_BOUND_NANOSECONDS;
        let bucket = (u64::BITS - before.leading_zeros()) as usize;
        if bucket < Histogram::DOUBLING {
            return Self(bucket);
        }
        Self(Histogram::DOUBLING + usize::from(nanoseconds > Histogram::LAST_BOUND_NANOSECONDS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let bounds = Histogram::bounds();
        let minute = Duration::from_secs(60);
        let last = Duration::from_micros(50 << 20);
        let (nano, micros) = (Duration::from_nanos(1), Duration::from_micros);
        let mut cases = vec![
            (Duration::ZERO, 0),
            (micros(50), 0),
            (micros(50) + nano, 1),
            (micros(100), 1),
            (micros(101), 2),
            (micros(200), 2),
            (last, 20),
            (last + nano, 21),
            (minute, 21),
            (minute + nano, 22),
            (Duration::MAX, 22),
        ];
        // Every bound is its bucket's own, and what is above it is the next one's.
        for (bucket, bound) in bounds.iter().enumerate() {
            let bound = Duration::try_from_secs_f64(*bound).expect("a bound");
            cases.extend([(bound, bucket), (bound + nano, bucket + 1)]);
        }
        for (duration, bucket) in cases {
            let mut histogram = Histogram::default();
            histogram.record(duration);
            assert_eq!(histogram.counts().iter().position(|count| *count == 1), Some(bucket), "{duration:?}");
        }
        let texts = bounds.map(|bound| bound.to_string());
        assert_eq!(texts[..3], ["0.00005", "0.0001", "0.0002"]);
        assert_eq!(texts[19..], ["26.2144", "52.4288", "60"]);
    }

    #[test]
    fn a_sum_is_of_the_durations_and_not_of_their_buckets_bounds() {
        let (mut one, mut other) = (Histogram::default(), Histogram::default());
        for microseconds in [51, 101, 1_000_001] {
            one.record(Duration::from_micros(microseconds));
        }
        other.record(Duration::from_micros(101));
        one.merge(&other);
        assert_eq!(one.sum(), Duration::from_micros(51 + 101 + 1_000_001 + 101));
        assert_eq!((one.counts()[1], one.counts()[2]), (1, 2));
        assert_eq!(one.count(), 4);
    }
}
