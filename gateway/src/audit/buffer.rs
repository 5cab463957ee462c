//! Between the shards and the audit log's thread: records that wait, what was not recorded, and whether jobs may come in.
//!
//! Each shard has a slot of its own here, and the control plane one. A shard locks its slot once for each call that had records,
//! and wakes the thread where that sleeps, which it does for a few milliseconds after each batch.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::thread::Thread;

use super::chain::Head;
use super::record::{Event, Names, Record};
use super::{Settings, WhenFull};

/// What is shared by the shards, the control plane and the audit log's thread.
pub(super) struct Buffer {
    pub(super) when_full: WhenFull,
    pub(super) job_digest: bool,
    /// How many records may wait.
    pub(super) limit: usize,
    slots: Box<[Mutex<Vec<Record>>]>,
    /// Records in the slots, and on their way to the sink.
    pending: AtomicUsize,
    /// Whether the sink takes nothing.
    is_failing: AtomicBool,
    /// Whether so many records wait that no more jobs are to come in.
    is_full: AtomicBool,
    /// Whether the thread has to be woken.
    is_asleep: AtomicBool,
    thread: OnceLock<Thread>,
    pub(super) names: RwLock<Names>,
    pub(super) next_caller: AtomicU64,
    pub(super) counts: Counts,
    head: Mutex<Head>,
    wants_reopen: AtomicBool,
    wants_end: AtomicBool,
}

/// Counts since the gateway began.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) written: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) jobs_refused: AtomicU64,
    /// Job records, and others, that were dropped.
    pub(super) dropped_jobs: AtomicU64,
    pub(super) dropped_others: AtomicU64,
    /// Connections closed at once, and not recorded yet.
    pub(super) callers_refused: AtomicU64,
}

/// What is not in the log and never will be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unrecorded {
    pub(super) jobs_refused: u64,
    pub(super) dropped_jobs: u64,
    pub(super) dropped_others: u64,
}

impl Buffer {
    /// With a slot for each shard, and one for the control plane.
    pub(super) fn new(settings: &Settings, shards: usize, names: Names) -> Self {
        Self {
            when_full: settings.when_full,
            job_digest: settings.job_digest,
            limit: settings.buffer,
            slots: (0..=shards).map(|_| Mutex::default()).collect(),
            pending: AtomicUsize::new(0),
            is_failing: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            is_asleep: AtomicBool::new(false),
            thread: OnceLock::new(),
            names: RwLock::new(names),
            next_caller: AtomicU64::new(1),
            counts: Counts::default(),
            head: Mutex::default(),
            wants_reopen: AtomicBool::new(false),
            wants_end: AtomicBool::new(false),
        }
    }

    /// Hands records over; `batch` is empty then, with some buffer. Where there is no room, records are dropped and counted; under
    /// [`WhenFull::Stop`] never a job's, of which there are no more past the limit than jobs are in hand.
    pub(super) fn push(&self, slot: usize, batch: &mut Vec<Record>) {
        let count = batch.len();
        let mut waiting = lock(&self.slots[slot]);
        let before = self.pending.fetch_add(count, Ordering::SeqCst);
        let room = self.limit.saturating_sub(before);
        if count > room {
            let dropped = self.make_fit(batch, room);
            self.pending.fetch_sub(dropped, Ordering::SeqCst);
        }
        if before + count >= self.limit && self.when_full == WhenFull::Stop {
            self.is_full.store(true, Ordering::Relaxed);
        }
        if waiting.is_empty() {
            std::mem::swap(&mut *waiting, batch);
        } else {
            waiting.append(batch);
        }
        drop(waiting);
        if self.is_asleep.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Drops what there is no room for; returns how many records that were.
    #[cold]
    fn make_fit(&self, batch: &mut Vec<Record>, room: usize) -> usize {
        let before = batch.len();
        let mut place = 0;
        batch.retain(|record| {
            let is_job = matches!(record, Record::Job(_));
            let is_kept = place < room || is_job && self.when_full == WhenFull::Stop;
            place += 1;
            if !is_kept {
                let count = if is_job { &self.counts.dropped_jobs } else { &self.counts.dropped_others };
                count.fetch_add(1, Ordering::Relaxed);
            }
            is_kept
        });
        before - batch.len()
    }

    /// Hands over one event of the control plane's.
    pub(super) fn push_event(&self, event: Event) {
        self.push(self.slots.len() - 1, &mut vec![Record::Event(event.into())]);
    }

    /// Whether a new job must be refused, because nobody could record it.
    #[inline]
    pub(super) fn refuses_jobs(&self) -> bool {
        let must = self.is_failing.load(Ordering::Relaxed) || self.is_full.load(Ordering::Relaxed);
        must && self.when_full == WhenFull::Stop
    }

    /// Whether the sink took nothing the last time.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Records that wait or are on their way.
    pub(super) fn pending(&self) -> usize {
        self.pending.load(Ordering::SeqCst)
    }

    /// How far the log has come.
    pub(super) fn head(&self) -> Head {
        *lock(&self.head)
    }

    /// The file is to be closed, and the one that has its name then is to be opened.
    pub(super) fn ask_to_reopen(&self) {
        self.wants_reopen.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// The log is to end with what waits now.
    pub(super) fn ask_to_end(&self) {
        self.wants_end.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// The thread looks whether there is something to do.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

/// For the audit log's thread.
impl Buffer {
    /// Whom to wake.
    pub(super) fn runs_on(&self, thread: Thread) {
        // There is one thread only.
        let _ = self.thread.set(thread);
    }

    /// Takes what waits in one slot, in exchange for an empty buffer.
    pub(super) fn take(&self, slot: usize, records: &mut Vec<Record>) {
        debug_assert!(records.is_empty(), "what was taken before would be lost");
        std::mem::swap(&mut *lock(&self.slots[slot]), records);
    }

    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    /// So many records are in the log, and this is its head.
    pub(super) fn wrote(&self, records: usize, of_buffer: usize, head: Head) {
        self.counts.written.fetch_add(records as u64, Ordering::Relaxed);
        *lock(&self.head) = head;
        let pending = self.pending.fetch_sub(of_buffer, Ordering::SeqCst) - of_buffer;
        if pending <= self.limit / 2 {
            self.is_full.store(false, Ordering::Relaxed);
        }
    }

    /// The sink takes nothing, or takes something again.
    pub(super) fn set_failing(&self, is_failing: bool) {
        self.is_failing.store(is_failing, Ordering::Relaxed);
        if is_failing {
            self.counts.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was not recorded so far.
    pub(super) fn unrecorded(&self) -> Unrecorded {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Unrecorded {
            jobs_refused: read(&self.counts.jobs_refused),
            dropped_jobs: read(&self.counts.dropped_jobs),
            dropped_others: read(&self.counts.dropped_others),
        }
    }

    pub(super) fn wants_reopen(&self) -> bool {
        self.wants_reopen.swap(false, Ordering::SeqCst)
    }

    pub(super) fn wants_end(&self) -> bool {
        self.wants_end.load(Ordering::SeqCst)
    }

    /// Sleeps until there is something to do, at most for `timeout`.
    pub(super) fn sleep(&self, timeout: std::time::Duration) {
        self.is_asleep.store(true, Ordering::SeqCst);
        // Who pushes after this sees that the thread sleeps; what was pushed before is seen here.
        let is_idle = self.pending() == 0 && !self.wants_end();
        if is_idle && !self.wants_reopen.load(Ordering::SeqCst) {
            std::thread::park_timeout(timeout);
        }
        self.is_asleep.store(false, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
