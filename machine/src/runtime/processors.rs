//! Who runs the jobs: processor threads behind a bounded queue, or the thread that read them.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::Notify;

use super::Job;

/// Who calls [`Application::run`](super::Application::run).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processors {
    /// So many threads, each running one job at a time. For applications that compute or wait.
    Threads(NonZeroUsize),
    /// The thread that read the job, so that none is woken for it. For applications whose `run` returns within a few
    /// microseconds; a slower one holds up every stream of its machine.
    Inline,
}

impl Default for Processors {
    /// A thread for each core.
    fn default() -> Self {
        Self::Threads(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }
}

/// Jobs on their way from the streams to the processor threads.
pub(super) struct Queue {
    max_jobs: usize,
    state: Mutex<State>,
    /// A processor is to look for work.
    work: Condvar,
    /// A stream may add jobs again.
    space: Notify,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Processors that wait for work and have not been woken.
    idle: usize,
    /// Whether a stream waits for space.
    is_waited_for: bool,
    is_closed: bool,
}

impl Queue {
    pub(super) fn new(max_jobs: usize) -> Self {
        Self { max_jobs: max_jobs.max(1), state: Mutex::default(), work: Condvar::new(), space: Notify::new() }
    }

    /// Adds `jobs`, in order; waits while the queue is full. One wake-up for all that fit.
    pub(super) async fn add(&self, mut jobs: Vec<Job>) {
        while !jobs.is_empty() {
            // Before the look at the queue, so that space that is made after it is not missed.
            let space = self.space.notified();
            let is_full = {
                let mut state = self.state();
                if state.is_closed {
                    return;
                }
                let fit = jobs.len().min(self.max_jobs.saturating_sub(state.jobs.len()));
                state.jobs.extend(jobs.drain(..fit));
                state.is_waited_for |= !jobs.is_empty();
                self.wake_one(&mut state);
                !jobs.is_empty()
            };
            if is_full {
                space.await;
            }
        }
    }

    /// Waits for a job; `None` once the queue is closed.
    pub(super) fn next(&self) -> Option<Job> {
        let mut state = self.state();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                // One processor wakes the next where there is work for it, so that adding a batch costs one wake-up.
                self.wake_one(&mut state);
                // Half of it, so that streams are not woken for every single job.
                if state.is_waited_for && state.jobs.len() <= self.max_jobs / 2 {
                    state.is_waited_for = false;
                    self.space.notify_waiters();
                }
                return Some(job);
            }
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Drops what is queued, and sends the processors home.
    pub(super) fn close(&self) {
        let dropped = {
            let mut state = self.state();
            state.is_closed = true;
            std::mem::take(&mut state.jobs)
        };
        self.work.notify_all();
        self.space.notify_waiters();
        drop(dropped);
    }

    fn wake_one(&self, state: &mut State) {
        if state.idle > 0 && !state.jobs.is_empty() {
            state.idle -= 1;
            self.work.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics under this lock; a job that is dropped while a processor unwinds must not abort all the same.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
