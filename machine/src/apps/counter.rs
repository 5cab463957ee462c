//! Counts the jobs. With the journal it shows that none ran twice: a job is its caller's own id.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::runtime::{Application, Job};

/// The count, as the machine's non-volatile storage holds it.
#[derive(Clone, Default)]
pub(super) struct Count(Arc<AtomicU64>);

pub(super) struct Counter {
    count: Count,
}

impl Counter {
    pub(super) fn new(count: Count) -> Self {
        Self { count }
    }
}

impl Application for Counter {
    fn run(&self, job: Job) {
        let count = self.count.0.fetch_add(1, Ordering::Relaxed) + 1;
        job.reply(&count.to_le_bytes());
    }
}
