//! What a load measured, as a table for people and as JSON for scripts.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::load::{Load, Pace, Seen};

/// The figures of one load. Latencies run from the moment a job is written, or in an open loop should have been, to the moment its
/// reply is decoded.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How the load went.
    pub way: String,
    /// Connections.
    pub callers: usize,
    /// Jobs that each caller kept in flight; in an open loop, the most that it could have there.
    pub in_flight: usize,
    /// Jobs sent each second in an open loop; `None` in a closed one.
    pub rate: Option<f64>,
    /// Bytes of the jobs: a number, or sizes with their shares.
    pub sizes: String,
    /// Jobs that were answered while it was measured, failures included.
    pub jobs: u64,
    /// Jobs that were answered in all, those of the warm-up and of the end included.
    pub jobs_in_all: u64,
    /// Jobs that got another answer than their reply, by reason, those of the warm-up and of the end included.
    pub failures: BTreeMap<String, u64>,
    /// How long it was measured, in seconds.
    pub seconds: f64,
    /// Jobs answered in a second.
    pub jobs_per_second: f64,
    /// Jobs in a second of the caller that had the fewest.
    pub fewest_per_second: f64,
    /// The mean latency in microseconds.
    pub mean_us: f64,
    /// Half of the jobs were answered within this, in microseconds.
    pub p50_us: f64,
    /// 90 % of the jobs were answered within this, in microseconds.
    pub p90_us: f64,
    /// 99 % of the jobs were answered within this, in microseconds.
    pub p99_us: f64,
    /// 99.9 % of the jobs were answered within this, in microseconds.
    pub p99_9_us: f64,
    /// The slowest job, in microseconds.
    pub max_us: f64,
    /// The latencies' distribution: at each of [`SHARES`] the microseconds within which that share of the jobs was answered.
    pub percentiles: Vec<(f64, f64)>,
}

/// The points of [`Report::percentiles`].
pub const SHARES: [f64; 12] = [0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9999];

impl Report {
    pub(crate) fn new(load: &Load, seen: Seen) -> Self {
        let jobs = seen.by_caller.iter().sum();
        let seconds = seen.measured.as_secs_f64();
        let per_second = |jobs: u64| count(jobs) / seconds.max(f64::EPSILON);
        let quantile = |quantile| count(seen.latencies.value_at_quantile(quantile)) / 1e3;
        Self {
            way: load.way.to_string(),
            callers: load.callers,
            in_flight: load.in_flight,
            rate: match load.pace {
                Pace::Closed => None,
                Pace::Open { per_second } => Some(per_second),
            },
            sizes: load.sizes.to_string(),
            jobs,
            jobs_in_all: seen.answered,
            seconds,
            jobs_per_second: per_second(jobs),
            fewest_per_second: per_second(seen.by_caller.iter().copied().min().unwrap_or_default()),
            mean_us: seen.latencies.mean() / 1e3,
            p50_us: quantile(0.5),
            p90_us: quantile(0.9),
            p99_us: quantile(0.99),
            p99_9_us: quantile(0.999),
            max_us: count(seen.latencies.max()) / 1e3,
            percentiles: SHARES.map(|share| (share, quantile(share))).to_vec(),
            failures: seen.failures,
        }
    }

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
            self.sizes,
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

/// A figure; none of them is near 2^52.
#[expect(clippy::cast_precision_loss, reason = "said above")]
pub(crate) fn count(count: u64) -> f64 {
    count as f64
}

/// A time in microseconds, for people.
pub(crate) fn readable(microseconds: f64) -> String {
    match microseconds {
        us if us < 1e3 => format!("{us:.0} µs"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        Target, Until, Way,
        load::{Clock, Tally},
    };

    const MS: u64 = 1_000_000;

    #[test]
    fn counts_what_was_measured_and_not_what_warmed_up() {
        let clock = Clock::start(Duration::from_millis(100), Some(Duration::from_secs(2)));
        let mut tally = Tally::new(clock, 2);
        // Half of them in the warm-up, all of one caller's and half of the other's in the measured time.
        for job in 0..200 {
            let sent = job * MS;
            tally.answered(0, sent, sent + 10 * MS);
            tally.answered(1, 100 * MS + sent, 100 * MS + sent + 20 * MS);
        }
        tally.failed("QueueFull");
        tally.failed("QueueFull");
        let mut load = Load::new(Way::Wire(Target::Unix("/x".into())), None);
        load.callers = 2;
        load.until = Until::Elapsed(Duration::from_secs(2));
        let report = Report::new(&load, tally.seen());
        assert_eq!((report.jobs, report.jobs_in_all, report.failed()), (310, 400, 2));
        assert!((report.jobs_per_second - 155.0).abs() < 1e-6);
        assert!((report.fewest_per_second - 55.0).abs() < 1e-6, "{}", report.fewest_per_second);
        assert!((19_950.0..=20_050.0).contains(&report.p50_us), "p50 is {}", report.p50_us);
        assert!(report.to_string().contains("2 × QueueFull"));
    }

    #[test]
    fn times_read_well() {
        assert_eq!([0.4, 999.0, 1_500.0, 43_000.0, 2e6].map(readable).join(" "), "0 µs 999 µs 1.50 ms 43.00 ms 2.00 s");
    }
}
