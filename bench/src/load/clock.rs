//! When a load's jobs are to be sent: the clock that all of a load's times are read from, and the open loop's timetable.

use std::time::{Duration, Instant};

/// Nanoseconds since a load's start.
pub(crate) type Nanos = u64;

/// A load's clock and the borders of what is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
    /// What is sent or answered before this only warms up.
    pub(crate) measured_from: Nanos,
    /// Nothing is sent from this on. `None` where a number of jobs is the end.
    pub(crate) ends: Option<Nanos>,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start(warm_up: Duration, measured: Option<Duration>) -> Self {
        let measured_from = nanos(warm_up);
        let ends = measured.map(|measured| measured_from + nanos(measured));
        Self { started: Instant::now(), measured_from, ends }
    }

    /// Now.
    pub(crate) fn now(&self) -> Nanos {
        nanos(self.started.elapsed())
    }

    /// Whether jobs may still be sent.
    pub(crate) fn is_open(&self, now: Nanos) -> bool {
        self.ends.is_none_or(|ends| now < ends)
    }

    /// Whether what happens now counts.
    pub(crate) fn is_measured(&self, now: Nanos) -> bool {
        now >= self.measured_from && self.is_open(now)
    }
}

/// Nanoseconds, at most those of 584 years.
pub(crate) fn nanos(time: Duration) -> Nanos {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The open loop: job `n` is to be sent at `n / rate`, whatever has become of the jobs before it. A job that is sent later,
/// because the generator was late or its connection full, keeps its intended time: the wait counts as latency. (A loop that
/// forgets the wait omits exactly the jobs that a stall would have hit: coordinated omission.)
#[derive(Debug, Clone)]
pub(crate) struct Timetable {
    /// Nanoseconds between two jobs.
    interval: f64,
    next: u64,
    ends: Option<Nanos>,
}

impl Timetable {
    /// `per_second` jobs each second until `ends`.
    pub(crate) fn new(per_second: f64, ends: Option<Nanos>) -> Self {
        Self { interval: 1e9 / per_second, next: 0, ends }
    }

    /// The intended time of the next job; `None` after the last.
    pub(crate) fn next(&self) -> Option<Nanos> {
        #[expect(clippy::cast_precision_loss, reason = "no load has 2^52 jobs")]
        let time = self.next as f64 * self.interval;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "times are positive, below 2^52 ns"
        )]
        let time = time as Nanos;
        self.ends.is_none_or(|ends| time < ends).then_some(time)
    }

    /// The next job that should have been sent by now: its number, counted from 0, and its intended time.
    pub(crate) fn due(&mut self, now: Nanos) -> Option<(u64, Nanos)> {
        let intended = self.next().filter(|time| *time <= now)?;
        let number = self.next;
        self.next += 1;
        Some((number, intended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_job_keeps_its_intended_time() {
        let mut table = Timetable::new(1_000.0, Some(10_000_000));
        assert_eq!(table.due(0), Some((0, 0)));
        assert_eq!(table.due(0), None, "the second is due after a millisecond");
        // The generator stalls for 4 ms: the jobs that it should have sent meanwhile are due all at once, each at its time.
        let late: Vec<_> = std::iter::from_fn(|| table.due(4_999_999)).collect();
        assert_eq!(late, [(1, 1_000_000), (2, 2_000_000), (3, 3_000_000), (4, 4_000_000)]);
        assert_eq!(table.next(), Some(5_000_000));
    }

    #[test]
    fn nothing_is_due_from_the_end_on() {
        let mut table = Timetable::new(1_000.0, Some(3_000_000));
        assert_eq!(std::iter::from_fn(|| table.due(u64::MAX)).count(), 3, "at 0, 1 and 2 ms");
        assert_eq!(table.next(), None);
    }

    #[test]
    fn the_rate_does_not_drift() {
        let mut table = Timetable::new(300_000.0, None);
        table.next = 300_000 * 3_600;
        assert_eq!(table.next(), Some(3_600_000_000_000), "an hour later");
    }

    #[test]
    fn what_is_before_or_after_is_not_measured() {
        let clock = Clock::start(Duration::from_nanos(10), Some(Duration::from_nanos(20)));
        let measured: Vec<Nanos> = (0..40).filter(|time| clock.is_measured(*time)).collect();
        assert_eq!((measured[0], measured.len()), (10, 20));
        assert!(clock.is_open(29) && !clock.is_open(30));
        let counted = Clock::start(Duration::ZERO, None);
        assert!(counted.is_measured(0) && counted.is_measured(u64::MAX));
    }
}
