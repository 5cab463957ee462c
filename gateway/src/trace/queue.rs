//! Between the shards and the exporter: spans that wait, and what became of the others.
//!
//! A shard locks it once for each call that ended sampled jobs, and wakes the exporter only where a whole batch waits: what is less is
//! fetched when the exporter's time has come. Nothing waits for room: what does not fit is dropped and counted. However many wait, a
//! shard waits no longer for the lock: spans lie in the batches in which they leave, and the exporter moves none.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::span::Span;

/// So many spans are sent in one request.
pub(super) const BATCH: usize = 512;

/// Spans that wait to be exported.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// How many may wait.
    limit: usize,
    /// Notified when a batch waits.
    pub(super) has_batch: Notify,
    dropped: AtomicU64,
    exported: AtomicU64,
    failed: AtomicU64,
}

/// In the order in which they came.
#[derive(Debug)]
struct Waiting {
    /// [`BATCH`] spans in each.
    full: VecDeque<Vec<Span>>,
    /// Those after them: fewer than a batch, with room for a whole one.
    last: Vec<Span>,
}

impl Waiting {
    fn len(&self) -> usize {
        self.full.len() * BATCH + self.last.len()
    }

    /// Takes in all of these.
    fn append(&mut self, spans: &mut Vec<Span>) {
        let mut spans = spans.drain(..);
        loop {
            let room = BATCH - self.last.len();
            self.last.extend(spans.by_ref().take(room));
            if self.last.len() < BATCH {
                return;
            }
            self.full.push_back(std::mem::replace(&mut self.last, Vec::with_capacity(BATCH)));
        }
    }
}

/// What became of spans since the gateway began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// Taken by the collector.
    pub exported: u64,
    /// Dropped for want of room, or because the gateway ended first.
    pub dropped: u64,
    /// Refused by the collector, or given up after several tries.
    pub failed: u64,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        let (dropped, exported, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let waiting = Mutex::new(Waiting { full: VecDeque::new(), last: Vec::with_capacity(BATCH) });
        Self { waiting, limit, has_batch: Notify::new(), dropped, exported, failed }
    }

    /// How many may wait.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Hands spans over, as far as there is room; `batch` is empty then.
    pub(super) fn push(&self, batch: &mut Vec<Span>) {
        let mut waiting = self.lock();
        let before = waiting.len();
        let room = self.limit - before;
        if batch.len() > room {
            self.dropped(batch.len() - room);
            batch.truncate(room);
        }
        waiting.append(batch);
        let enough = BATCH.min(self.limit);
        let has_become_batch = before < enough && waiting.len() >= enough;
        drop(waiting);
        if has_become_batch {
            self.has_batch.notify_one();
        }
    }

    /// Takes up to [`BATCH`] spans, those that have waited longest.
    pub(super) fn take(&self) -> Vec<Span> {
        // Made before the lock is taken, so that no shard has to make room for what comes next.
        let empty = Vec::with_capacity(BATCH);
        let mut waiting = self.lock();
        waiting.full.pop_front().unwrap_or_else(|| std::mem::replace(&mut waiting.last, empty))
    }

    pub(super) fn dropped(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn exported(&self, count: usize) {
        self.exported.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn failed(&self, count: usize) {
        self.failed.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> SpanCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        SpanCounts { exported: read(&self.exported), dropped: read(&self.dropped), failed: read(&self.failed) }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::span::tests::span;
    use super::*;

    #[test]
    fn what_does_not_fit_is_dropped_and_counted_and_the_oldest_leave_first() {
        let queue = Queue::new(BATCH + 10);
        let mut batch: Vec<_> = (0..20).map(span).collect();
        queue.push(&mut batch);
        assert!(batch.is_empty());
        batch.extend((20..BATCH as u64 + 15).map(span));
        queue.push(&mut batch);
        assert!(batch.is_empty());
        assert_eq!(queue.counts(), SpanCounts { dropped: 5, ..SpanCounts::default() });
        let first = queue.take();
        assert_eq!((first.len(), first[0].start, first[BATCH - 1].start), (BATCH, 0, BATCH as u64 - 1));
        assert_eq!(queue.take().len(), 10);
        assert!(queue.take().is_empty());
    }

    #[test]
    fn whatever_is_handed_over_at_once_leaves_in_batches_and_in_order() {
        const LIMIT: usize = 5 * BATCH + 7;
        let queue = Queue::new(LIMIT);
        let (mut given, mut taken) = (0..u64::MAX, 0);
        let mut hand_over = |count: usize| queue.push(&mut given.by_ref().take(count).map(span).collect());
        let mut take = |count: usize| {
            let batch = queue.take();
            assert!(batch.iter().zip(taken..).all(|(span, number)| span.start == number), "the oldest leave first");
            taken += batch.len() as u64;
            assert_eq!(batch.len(), count);
        };
        hand_over(1);
        take(1);
        hand_over(BATCH);
        take(BATCH);
        take(0);
        hand_over(BATCH - 1);
        hand_over(2 * BATCH + 2);
        take(BATCH);
        hand_over(BATCH - 2);
        for count in [BATCH, BATCH, BATCH - 1, 0] {
            take(count);
        }
        // One at a time and all at once there is as much room, and again when it was taken.
        for count in [1, LIMIT + 9] {
            for _ in 0..LIMIT.div_ceil(count) {
                hand_over(count);
            }
            for count in [BATCH; 5].into_iter().chain([7, 0]) {
                take(count);
            }
        }
        assert_eq!(queue.counts(), SpanCounts { dropped: 9, ..SpanCounts::default() });
    }
}
