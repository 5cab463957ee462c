//! How fast a machine answers, and how much it may be given because of that.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::stats::{Bucket, nanoseconds};

/// A time that was taken, in the forms in which it is needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    pub(super) duration: Duration,
    pub(super) seconds: f64,
    pub(super) nanoseconds: u64,
    pub(super) bucket: Bucket,
}

impl From<Duration> for Took {
    #[inline]
    fn from(duration: Duration) -> Self {
        let nanoseconds = nanoseconds(duration);
        Self { duration, seconds: duration.as_secs_f64(), nanoseconds, bucket: Bucket::of_nanoseconds(nanoseconds) }
    }
}

/// The time between two moments, kept for the next job: the jobs of a batch were staged at the same moment and are answered
/// at the same.
#[derive(Debug)]
pub(super) struct Stopwatch {
    from: Instant,
    to: Instant,
    between: Took,
}

impl Stopwatch {
    pub(super) fn new(now: Instant) -> Self {
        Self { from: now, to: now, between: Duration::ZERO.into() }
    }

    /// The time between them; zero where the second was first.
    #[inline]
    pub(super) fn between(&mut self, from: Instant, to: Instant) -> &Took {
        if (self.from, self.to) != (from, to) {
            *self = Self { from, to, between: to.saturating_duration_since(from).into() };
        }
        &self.between
    }
}

/// The earliest of some moments, if there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Next(Option<Instant>);

impl Next {
    /// Or then, if that is earlier.
    #[inline]
    pub(super) fn or_at(&mut self, at: Option<Instant>) {
        if let Some(at) = at
            && self.0.is_none_or(|earliest| at < earliest)
        {
            self.0 = Some(at);
        }
    }

    /// The earlier one of both.
    pub(super) fn or(mut self, other: Self) -> Self {
        self.or_at(other.0);
        self
    }

    #[inline]
    pub(super) fn at(self) -> Option<Instant> {
        self.0
    }
}

/// The earliest moment of all, kept as long as nothing has happened that could make it another one.
#[derive(Debug, Default)]
pub(super) struct Kept(Cell<Option<Next>>);

impl Kept {
    /// Something has happened.
    #[inline]
    pub(super) fn forget(&self) {
        self.0.set(None);
    }

    #[inline]
    pub(super) fn get(&self) -> Option<Next> {
        self.0.get()
    }

    pub(super) fn keep(&self, next: Next) {
        self.0.set(Some(next));
    }
}

/// How long a quick reply takes to make a slow one forgotten.
const MEMORY: Duration = Duration::from_secs(10);

/// How long a machine may say nothing before that is held against it: so many of its usual reply times, and `LEAST_PATIENCE`
/// at least.
const PATIENCE: u32 = 4;
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// A machine that comes back may at first have one part in so many of what it may have in flight, and `FIRST_STEP` at least.
const FIRST_PART: usize = 16;
const FIRST_STEP: usize = 4;

/// The moving average of a machine's reply times. It follows a slower reply at once and a quicker one slowly ("peak EWMA", as
/// in Finagle and linkerd): a machine that begins to stall is noticed with its first reply.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReplyTime {
    seconds: f64,
    last: Option<Instant>,
}

impl ReplyTime {
    /// A reply has come after so many seconds.
    #[inline]
    pub(super) fn record(&mut self, now: Instant, took: f64) {
        let last = self.last.replace(now);
        if took >= self.seconds {
            self.seconds = took;
        } else if last.is_some_and(|last| last != now) {
            let since = last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
            self.follow(took, since);
        }
    }

    /// Comes closer to a quicker reply, the more the longer the last one is ago.
    fn follow(&mut self, took: f64, since: Duration) {
        let share = since.as_secs_f64() / (since + MEMORY).as_secs_f64();
        self.seconds += (took - self.seconds) * share;
    }

    /// A reply has not come for so long.
    pub(super) fn record_at_least(&mut self, now: Instant, waited: Duration) {
        let waited = waited.as_secs_f64();
        if waited > self.seconds {
            self.record(now, waited);
        }
    }

    /// How long it may say nothing before that means something.
    pub(super) fn patience(&self) -> Duration {
        LEAST_PATIENCE.max(Duration::from_secs_f64(self.seconds) * PATIENCE)
    }

    /// What one more job there is expected to wait, by which machines are compared. Never zero, so that what is in flight
    /// counts even where nothing has been measured.
    #[allow(clippy::cast_precision_loss)] // Jobs in flight are far below 2^52.
    pub(super) fn load(&self, in_flight: usize) -> f64 {
        self.seconds.max(1e-6) * (in_flight + 1) as f64
    }
}

/// The load that a machine which has come back may take: a step, and one job more for each reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowStart {
    limit: usize,
    ends: Instant,
}

impl SlowStart {
    pub(super) fn new(now: Instant, lasts: Duration, max_in_flight: usize) -> Self {
        Self { limit: (max_in_flight / FIRST_PART).max(FIRST_STEP), ends: now + lasts }
    }

    /// Replies have come.
    pub(super) fn step(&mut self, replies: usize) {
        self.limit = self.limit.saturating_add(replies);
    }

    /// How much it may have in flight.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// When it is over, at the latest.
    pub(super) fn ends(&self) -> Instant {
        self.ends
    }

    /// Whether it is over.
    pub(super) fn is_over(&self, now: Instant, max_in_flight: usize) -> bool {
        now >= self.ends || self.limit >= max_in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::tests::beginning;

    #[test]
    fn slower_counts_at_once_and_quicker_by_and_by() {
        let mut now = beginning();
        let ms = Duration::from_millis;
        let mut time = ReplyTime::default();
        time.record(now, 0.010);
        time.record(now, 0.500);
        assert!((time.load(0) - 0.5).abs() < 1e-9);
        now += ms(10);
        time.record(now, 0.010);
        assert!(time.load(0) > 0.49, "one quick reply is no recovery");
        for _ in 0..60 {
            now += Duration::from_secs(1);
            time.record(now, 0.010);
        }
        assert!(time.load(0) < 0.02, "a minute of them is: {}", time.load(0));
        assert!(time.load(9) > time.load(0) * 9.0);
        assert!(ReplyTime::default().load(2) > ReplyTime::default().load(1));
    }

    #[test]
    fn steps_lead_from_a_part_to_the_whole() {
        let now = beginning();
        let lasts = Duration::from_secs(10);
        let mut start = SlowStart::new(now, lasts, 160);
        assert_eq!(start.limit(), 10);
        for _ in 10..160 {
            assert!(!start.is_over(now, 160));
            start.step(1);
        }
        assert!(start.is_over(now, 160));
        assert!(SlowStart::new(now, lasts, 160).is_over(now + lasts, 160));
        assert!(SlowStart::new(now, lasts, 4).is_over(now, 4), "it may have them all at once");
    }
}
