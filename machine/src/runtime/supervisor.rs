//! Keeps an application alive: runs jobs on the current instance, and makes a new one when it panics.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Application, Job};

/// Makes an instance of a machine's application.
pub(super) type Factory = Arc<dyn Fn() -> Arc<dyn Application> + Send + Sync>;

pub(super) struct Supervisor {
    machine: String,
    factory: Factory,
    current: Mutex<Current>,
}

struct Current {
    /// `None` once stopped, and where the last attempt to make an instance panicked.
    instance: Option<Arc<dyn Application>>,
    /// Counts the instances, so that two processors that saw the same one die start only one in its place.
    generation: u64,
    is_stopped: bool,
}

impl Supervisor {
    /// Makes the first instance.
    ///
    /// # Panics
    /// If `factory` does.
    pub(super) fn start(machine: &str, factory: Factory) -> Self {
        let instance = Some(factory());
        let current = Mutex::new(Current { instance, generation: 0, is_stopped: false });
        Self { machine: machine.to_owned(), factory, current }
    }

    /// Runs `job`; survives the application's death.
    pub(super) fn run(&self, job: Job) {
        let (instance, generation) = self.instance();
        let Some(instance) = instance else {
            return job.refuse_as_not_available("the application does not start");
        };
        // What the application leaves half done dies with the instance; what outlives it is the application's own
        // care, as it would be for a process that is killed. The instance is moved in because this may be its last user,
        // and dropping it may panic too.
        if catch_unwind(AssertUnwindSafe(move || instance.run(job))).is_err() {
            self.replace(generation);
        }
    }

    /// Lets the current instance go, and makes no other one.
    pub(super) fn stop(&self) {
        let instance = {
            let mut current = self.current();
            current.is_stopped = true;
            current.instance.take()
        };
        drop_quietly(instance);
    }

    /// How often an instance had to be replaced.
    pub(super) fn restarts(&self) -> u64 {
        self.current().generation
    }

    /// The current instance and its generation; starts one where the last attempt failed.
    fn instance(&self) -> (Option<Arc<dyn Application>>, u64) {
        let mut current = self.current();
        if current.instance.is_none() && !current.is_stopped {
            self.start_next(&mut current);
        }
        (current.instance.clone(), current.generation)
    }

    /// Puts a new instance in the place of the one of `dead_generation`, unless somebody has.
    fn replace(&self, dead_generation: u64) {
        let mut current = self.current();
        if current.generation != dead_generation || current.is_stopped {
            return;
        }
        let dead = current.instance.take();
        self.start_next(&mut current);
        let restarts = current.generation;
        drop(current);
        drop_quietly(dead);
        // One that dies with every job would fill the log.
        if restarts.is_power_of_two() {
            tracing::warn!(machine = self.machine, restarts, "the application died and was started again");
        }
    }

    fn start_next(&self, current: &mut Current) {
        current.generation += 1;
        current.instance = catch_unwind(AssertUnwindSafe(|| (self.factory)())).ok();
        if current.instance.is_none() {
            tracing::error!(machine = self.machine, "the application panicked while it started");
        }
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        // Only whole values are stored under this lock.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An application that panics when it is dropped must not take a processor thread with it.
fn drop_quietly(instance: Option<Arc<dyn Application>>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(instance)));
}
