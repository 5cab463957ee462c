//! What a load has seen so far.

use std::{collections::BTreeMap, time::Duration};

use hdrhistogram::Histogram;

use super::clock::{Clock, Nanos};

/// One for all callers of a load: ten thousand of them share a histogram of a quarter of a megabyte.
#[derive(Debug)]
pub(crate) struct Tally {
    clock: Clock,
    /// In nanoseconds, of the jobs that were sent while it was measured.
    latencies: Histogram<u64>,
    failures: BTreeMap<String, u64>,
    /// Jobs answered while it was measured, by caller.
    by_caller: Vec<u64>,
    /// All jobs answered, those of the warm-up included.
    answered: u64,
    last: Nanos,
}

/// Latencies up to ten minutes.
const LONGEST: Duration = Duration::from_secs(600);

impl Tally {
    pub(crate) fn new(clock: Clock, callers: usize) -> Self {
        let longest = super::clock::nanos(LONGEST);
        let latencies =
            Histogram::new_with_bounds(1, longest, 3).expect("the bounds are in order, the digits at most 5");
        Self { clock, latencies, failures: BTreeMap::new(), by_caller: vec![0; callers], answered: 0, last: 0 }
    }

    /// A job of `caller`, that was sent or to be sent at `sent`, got its answer at `now`.
    pub(crate) fn answered(&mut self, caller: usize, sent: Nanos, now: Nanos) {
        self.answered += 1;
        self.last = now;
        if self.clock.is_measured(now) {
            self.by_caller[caller] += 1;
        }
        if self.clock.is_measured(sent) {
            self.latencies.saturating_record(now.saturating_sub(sent));
        }
    }

    /// An answer was none that the job wanted. It is counted beside [`answered`](Self::answered).
    pub(crate) fn failed(&mut self, reason: &str) {
        match self.failures.get_mut(reason) {
            Some(count) => *count += 1,
            None => {
                self.failures.insert(reason.to_owned(), 1);
            }
        }
    }

    /// All jobs answered, those of the warm-up included.
    pub(crate) fn count(&self) -> u64 {
        self.answered
    }

    /// Adds another thread's of the same load.
    pub(crate) fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies).expect("all tallies have the same bounds");
        for (reason, count) in &other.failures {
            *self.failures.entry(reason.clone()).or_default() += count;
        }
        for (sum, count) in self.by_caller.iter_mut().zip(&other.by_caller) {
            *sum += count;
        }
        self.answered += other.answered;
        self.last = self.last.max(other.last);
    }

    /// The figures.
    pub(crate) fn seen(self) -> Seen {
        let ends = self.clock.ends.unwrap_or(self.last);
        let measured = Duration::from_nanos(ends.saturating_sub(self.clock.measured_from));
        Seen {
            latencies: self.latencies,
            failures: self.failures,
            by_caller: self.by_caller,
            answered: self.answered,
            measured,
        }
    }
}

/// What a load saw, when it is over.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) latencies: Histogram<u64>,
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) by_caller: Vec<u64>,
    pub(crate) answered: u64,
    pub(crate) measured: Duration,
}
