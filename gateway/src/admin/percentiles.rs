//! Percentiles of what was counted lately, from histograms that only ever grow: the difference between two of them is a time's own.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::schedule::Histogram;

/// What of a histogram is remembered from one look to the next.
pub(super) type Counts = [u64; Histogram::BUCKETS];

/// Over how many looks percentiles are taken: so few jobs as come in one second say little of the slowest in a thousand.
pub(super) const LOOKS: usize = 10;

/// How long jobs took, in seconds. From buckets that double: each is right to within its bucket, by a factor of two at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of all took no longer.
    pub p50: f64,
    /// 99 of 100 took no longer.
    pub p99: f64,
    /// 999 of 1000 took no longer.
    pub p999: f64,
    /// Of how many jobs.
    pub jobs: u64,
}

/// A histogram's last few looks, `MOST` of them and the one before.
#[derive(Clone, Debug, Default)]
pub(super) struct Window<const MOST: usize = LOOKS> {
    looks: VecDeque<Counts>,
}

impl<const MOST: usize> Window<MOST> {
    /// Somebody has looked: these are the counts since the beginning.
    pub(super) fn push(&mut self, counts: Counts) {
        if self.looks.len() > MOST {
            self.looks.pop_front();
        }
        self.looks.push_back(counts);
    }

    /// What came between the first and the last look that is remembered.
    pub(super) fn counted(&self) -> Counts {
        match (self.looks.front(), self.looks.back()) {
            (Some(first), Some(last)) => std::array::from_fn(|bucket| last[bucket].saturating_sub(first[bucket])),
            _ => [0; Histogram::BUCKETS],
        }
    }

    /// How many came between the last two looks.
    pub(super) fn last(&self) -> u64 {
        let mut looks = self.looks.iter().rev().map(|counts| counts.iter().sum::<u64>());
        match (looks.next(), looks.next()) {
            (Some(last), Some(before)) => last.saturating_sub(before),
            _ => 0,
        }
    }
}

/// The percentiles of so many in each bucket; `None` where nothing was counted.
pub(super) fn percentiles(counts: &Counts) -> Option<Percentiles> {
    let jobs: u64 = counts.iter().sum();
    (jobs > 0).then(|| Percentiles {
        p50: quantile(counts, jobs, 500),
        p99: quantile(counts, jobs, 990),
        p999: quantile(counts, jobs, 999),
        jobs,
    })
}

/// The time that `permille` of 1000 do not exceed, as if those of a bucket lay evenly in it.
#[allow(clippy::cast_precision_loss)] // Counts of a few seconds are far below 2^52.
fn quantile(counts: &Counts, all: u64, permille: u64) -> f64 {
    let bounds = Histogram::bounds();
    let wanted = (all as f64 * permille as f64 / 1000.0).max(1.0);
    let (mut before, mut lower) = (0.0, 0.0);
    for (bucket, count) in counts.iter().map(|count| *count as f64).enumerate() {
        // What is beyond the last bound is said to be at it.
        let upper = bounds.get(bucket).copied().unwrap_or(lower);
        if count > 0.0 && before + count >= wanted {
            return lower + (upper - lower) * (wanted - before) / count;
        }
        before += count;
        lower = upper;
    }
    lower
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn counts(durations: impl IntoIterator<Item = Duration>) -> Counts {
        let mut histogram = Histogram::default();
        durations.into_iter().for_each(|duration| histogram.record(duration));
        *histogram.counts()
    }

    #[test]
    fn each_percentile_is_in_the_bucket_of_the_job_that_it_is_of() {
        let durations = (1..=1000).map(|number| Duration::from_micros(if number <= 985 { 1000 } else { 1_000_000 }));
        let of = percentiles(&counts(durations)).expect("counted");
        let is_near = |value: f64, seconds: f64| value > seconds / 2.0 && value < seconds * 2.0;
        assert!(is_near(of.p50, 0.001), "{of:?}");
        assert!(is_near(of.p99, 1.0) && is_near(of.p999, 1.0), "{of:?}");
        assert_eq!(of.jobs, 1000);
        assert!(of.p50 <= of.p99 && of.p99 <= of.p999);
    }

    #[test]
    fn nothing_is_none_and_what_is_beyond_all_bounds_is_at_the_last() {
        assert_eq!(percentiles(&counts([])), None);
        let last = Histogram::bounds()[Histogram::BUCKETS - 2];
        let of = percentiles(&counts([Duration::MAX])).expect("counted");
        assert!((of.p999 - last).abs() < 1e-9, "{of:?}");
    }

    #[test]
    fn a_window_forgets_what_is_older_than_its_looks() {
        let slow = Duration::from_secs(1);
        let mut window: Window = Window::default();
        let mut histogram = Histogram::default();
        window.push(*histogram.counts());
        histogram.record(slow);
        for look in 0..=LOOKS {
            window.push(*histogram.counts());
            assert_eq!(window.last(), u64::from(look == 0));
            assert_eq!(window.counted().iter().sum::<u64>(), u64::from(look < LOOKS), "look {look}");
        }
    }
}
