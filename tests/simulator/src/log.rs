//! The readable log of a simulation.

use std::time::Duration;

/// Lines that say what happened. Nothing is written unless somebody wants to read it.
#[derive(Debug, Default)]
pub struct Log {
    lines: Option<Vec<String>>,
}

impl Log {
    /// A log that is kept, or is not.
    pub fn new(is_kept: bool) -> Self {
        Self { lines: is_kept.then(Vec::new) }
    }

    /// Writes a line, if the log is kept.
    pub fn line(&mut self, step: u64, at: Duration, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{step:>6} {:>12.6} s  {}", at.as_secs_f64(), text()));
        }
    }

    /// What was written.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}
