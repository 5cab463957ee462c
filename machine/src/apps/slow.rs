//! Replies with the job, a fixed time later, however many there are.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::runtime::{Application, Job};

/// One thread holds all the jobs: since each waits equally long, they are due in the order in which they came.
pub(super) struct Slow {
    delay: Duration,
    held: Arc<Held>,
}

#[derive(Default)]
struct Held {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<(Instant, Job)>,
    is_closed: bool,
}

impl Slow {
    /// # Panics
    /// If the system gives no thread; the machine then has no application.
    pub(super) fn start(delay: Duration) -> Self {
        let held = Arc::new(Held::default());
        let replier = Arc::clone(&held);
        thread::Builder::new()
            .name("slow".to_owned())
            .spawn(move || replier.reply_when_due())
            .expect("the system has room for one more thread");
        Self { delay, held }
    }
}

impl Application for Slow {
    fn run(&self, job: Job) {
        let mut state = self.held.state();
        let is_first = state.jobs.is_empty();
        state.jobs.push_back((Instant::now() + self.delay, job));
        drop(state);
        // Otherwise the thread sleeps until an earlier job is due, and then looks for the next.
        if is_first {
            self.held.changed.notify_one();
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let jobs = {
            let mut state = self.held.state();
            state.is_closed = true;
            std::mem::take(&mut state.jobs)
        };
        self.held.changed.notify_one();
        drop(jobs);
    }
}

impl Held {
    fn reply_when_due(&self) {
        let mut state = self.state();
        while !state.is_closed {
            let now = Instant::now();
            let due = state.jobs.front().map(|(due, _)| *due);
            state = match due {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(due) if due > now => {
                    self.changed.wait_timeout(state, due - now).unwrap_or_else(PoisonError::into_inner).0
                }
                Some(_) => {
                    let job = state.jobs.pop_front();
                    drop(state);
                    if let Some((_, job)) = job {
                        let (bytes, reply_to) = job.split();
                        reply_to.reply(bytes.filled());
                    }
                    self.state()
                }
            };
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
