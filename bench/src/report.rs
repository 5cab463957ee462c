//! What a load measured, as a table for people and as JSON for scripts.

use std::{collections::BTreeMap, fmt, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

/// The figures of one load. Latencies run from the moment a job is staged to the moment its reply is decoded.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where the load went.
    pub target: String,
    /// Connections, each a closed loop.
    pub callers: usize,
    /// Jobs that each caller kept in flight.
    pub in_flight: usize,
    /// Bytes of each job.
    pub size: usize,
    /// Jobs that were answered, failures included.
    pub jobs: u64,
    /// Jobs that got another answer than their reply, by reason.
    pub failures: BTreeMap<String, u64>,
    /// How long the load ran, in seconds.
    pub seconds: f64,
    /// Jobs answered in a second.
    pub jobs_per_second: f64,
    /// Half of the jobs were answered within this, in microseconds.
    pub p50_us: u64,
    /// 99 % of the jobs were answered within this, in microseconds.
    pub p99_us: u64,
    /// 99.9 % of the jobs were answered within this, in microseconds.
    pub p99_9_us: u64,
    /// The slowest job, in microseconds.
    pub max_us: u64,
}

/// What one caller saw; summed into a [`Report`] at the end.
pub(crate) struct Tally {
    latencies: Histogram<u64>,
    failures: BTreeMap<String, u64>,
}

impl Tally {
    /// From 1 µs to 10 minutes, to three digits: about 200 kB for each caller.
    pub(crate) fn new() -> Self {
        let latencies =
            Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are in order and the digits at most 5");
        Self { latencies, failures: BTreeMap::new() }
    }

    pub(crate) fn answered(&mut self, latency: Duration) {
        self.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn failed(&mut self, reason: String) {
        *self.failures.entry(reason).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.latencies.add(other.latencies).expect("all tallies have the same bounds");
        for (reason, count) in other.failures {
            *self.failures.entry(reason).or_default() += count;
        }
    }

    pub(crate) fn report(self, target: String, callers: usize, in_flight: usize, size: usize, ran: Duration) -> Report {
        let jobs = self.latencies.len();
        #[expect(clippy::cast_precision_loss, reason = "a figure for people; no run has 2^52 jobs")]
        let jobs_per_second = jobs as f64 / ran.as_secs_f64().max(f64::EPSILON);
        Report {
            target,
            callers,
            in_flight,
            size,
            jobs,
            failures: self.failures,
            seconds: ran.as_secs_f64(),
            jobs_per_second,
            p50_us: self.latencies.value_at_quantile(0.5),
            p99_us: self.latencies.value_at_quantile(0.99),
            p99_9_us: self.latencies.value_at_quantile(0.999),
            max_us: self.latencies.max(),
        }
    }
}

impl Report {
    /// Jobs that got another answer than their reply.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// The heading that goes with one line of `Display`.
    pub fn heading() -> &'static str {
        "callers  in flight    size        jobs      jobs/s       p50       p99     p99.9       max"
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>7}  {:>9}  {:>6}  {:>10}  {:>10.0}  {:>8}  {:>8}  {:>8}  {:>8}",
            self.callers,
            self.in_flight,
            self.size,
            self.jobs,
            self.jobs_per_second,
            readable(self.p50_us),
            readable(self.p99_us),
            readable(self.p99_9_us),
            readable(self.max_us),
        )?;
        for (reason, count) in &self.failures {
            write!(f, "\n  {count} × {reason}")?;
        }
        Ok(())
    }
}

fn readable(microseconds: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let us = microseconds as f64;
    match microseconds {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.2} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_callers() {
        let mut sum = Tally::new();
        for _ in 0..2 {
            let mut one = Tally::new();
            for ms in 1..=100 {
                one.answered(Duration::from_millis(ms));
            }
            one.failed("QueueFull".into());
            sum.add(one);
        }
        let report = sum.report("unix:/x".into(), 2, 1, 8, Duration::from_secs(2));
        assert_eq!((report.jobs, report.failed()), (200, 2));
        assert!((report.jobs_per_second - 100.0).abs() < 0.01);
        assert!((49_900..=50_100).contains(&report.p50_us), "p50 is {}", report.p50_us);
        assert!((99_800..=100_200).contains(&report.max_us), "max is {}", report.max_us);
        assert!(report.to_string().contains("2 × QueueFull"));
    }
}
