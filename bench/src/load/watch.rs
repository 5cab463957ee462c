//! Who is told how far a load has come.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

/// Is told about ten times a second.
pub trait Watch {
    /// `answered` jobs so far, those of the warm-up included, after `elapsed`.
    fn progress(&mut self, answered: u64, elapsed: Duration);
}

/// Nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn progress(&mut self, _: u64, _: Duration) {}
}

/// Columns of the bar.
const WIDTH: usize = 32;

/// A bar on standard error, where that is a terminal.
#[derive(Debug)]
pub struct Bar {
    /// The whole of the load, as far as it is known.
    whole: Whole,
    is_shown: bool,
}

#[derive(Debug, Clone, Copy)]
enum Whole {
    Time(Duration),
    Jobs(u64),
}

impl Bar {
    /// A bar that is full after `time`.
    pub fn of_time(time: Duration) -> Self {
        Self { whole: Whole::Time(time), is_shown: std::io::stderr().is_terminal() }
    }

    /// A bar that is full after so many jobs.
    pub fn of_jobs(jobs: u64) -> Self {
        Self { whole: Whole::Jobs(jobs), is_shown: std::io::stderr().is_terminal() }
    }

    fn line(&self, answered: u64, elapsed: Duration) -> String {
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let (answered_f, share) = match self.whole {
            Whole::Time(time) => (answered as f64, elapsed.as_secs_f64() / time.as_secs_f64().max(f64::EPSILON)),
            Whole::Jobs(jobs) => (answered as f64, answered as f64 / jobs.max(1) as f64),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "between 0 and WIDTH"
        )]
        let full = (share.clamp(0.0, 1.0) * WIDTH as f64) as usize;
        let rate = answered_f / elapsed.as_secs_f64().max(f64::EPSILON);
        format!(
            "[{}{}] {:>3.0} %  {answered} jobs, {rate:.0}/s",
            "█".repeat(full),
            " ".repeat(WIDTH - full),
            share.clamp(0.0, 1.0) * 100.0
        )
    }
}

impl Watch for Bar {
    fn progress(&mut self, answered: u64, elapsed: Duration) {
        if self.is_shown {
            // A terminal that is gone takes no harm from a line that is not shown.
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", self.line(answered, elapsed));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_full_as_the_load() {
        let bar = Bar::of_time(Duration::from_secs(10));
        assert!(bar.line(0, Duration::ZERO).contains("]   0 %  0 jobs"));
        let half = bar.line(500, Duration::from_secs(5));
        assert!(half.contains(" 50 %  500 jobs, 100/s") && half.matches('█').count() == WIDTH / 2, "{half}");
        assert!(Bar::of_jobs(10).line(20, Duration::from_secs(1)).contains("100 %"), "never more than the whole");
    }
}
