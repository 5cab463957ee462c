//! Running simulations: one, or many on all cores.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use seeway_proto::bug::{self, Bug};

use crate::promise::{Broken, Promise, Violation};
use crate::setup::Setup;
use crate::simulation::{Ended, Simulation};
use crate::story::Story;

/// How a simulation is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Whether what happens is written down.
    pub is_logged: bool,
    /// The step after which it ends.
    pub stop_after: Option<u64>,
    /// The deliberate bug that is switched on.
    pub bug: Option<Bug>,
}

thread_local! {
    /// Where this thread's last panic was, and whether anybody else is to hear of it.
    static IS_SIMULATING: Cell<bool> = const { Cell::new(false) };
}

/// Tells the story of a seed.
pub fn run(seed: u64, options: Options) -> Ended {
    let setup = Setup::drawn(seed);
    let story = Story::drawn(&setup);
    run_story(&setup, &story, options)
}

/// Tells a story.
pub fn run_story(setup: &Setup, story: &Story, options: Options) -> Ended {
    quiet_panics();
    let _bug = bug::SwitchedOn::new(options.bug);
    let mut simulation = Simulation::new(setup, options.is_logged, options.stop_after);
    IS_SIMULATING.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(|| simulation.tell(story)));
    IS_SIMULATING.set(false);
    if let Err(panic) = result {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let what = format!("panicked: {}", text.unwrap_or_default());
        let (step, at) = simulation.progress();
        let violation = Violation { step, at, broken: Broken::new(Promise::NoPanic, what) };
        return simulation.ended_by(violation);
    }
    simulation.ended()
}

/// Panics inside of a simulation are a result, not a message on the terminal.
fn quiet_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_SIMULATING.get() {
                usual(info);
            }
        }));
    });
}

/// What many simulations came to.
#[derive(Debug, Default)]
pub struct Tried {
    /// How many seeds were tried.
    pub seeds: u64,
    /// How many steps they took.
    pub steps: u64,
    /// How many jobs were asked for.
    pub jobs: u64,
    /// How many jobs ended how.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// The seeds that broke a promise, in order, and the promises.
    pub broken: Vec<(u64, Violation)>,
}

impl Tried {
    fn add(&mut self, seed: u64, ended: Ended) {
        self.seeds += 1;
        self.steps += ended.steps;
        self.jobs += ended.jobs;
        for (label, count) in ended.outcomes {
            *self.outcomes.entry(label).or_default() += count;
        }
        self.broken.extend(ended.violation.map(|violation| (seed, violation)));
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.jobs += other.jobs;
        for (label, count) in other.outcomes {
            *self.outcomes.entry(label).or_default() += count;
        }
        self.broken.extend(other.broken);
    }
}

/// Tries seeds on all cores, each on one thread, until there are no more, the time is over, or one breaks a promise.
pub fn try_seeds(
    seed: impl Fn(u64) -> Option<u64> + Sync,
    until: Option<Instant>,
    bug: Option<Bug>,
    goes_on: bool,
) -> Tried {
    let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut all = Tried::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut tried = Tried::default();
                    while !is_over.load(Ordering::Relaxed) && until.is_none_or(|until| Instant::now() < until) {
                        let Some(seed) = seed(next.fetch_add(1, Ordering::Relaxed)) else { break };
                        let ended = run(seed, Options { bug, ..Options::default() });
                        if ended.violation.is_some() && !goes_on {
                            is_over.store(true, Ordering::Relaxed);
                        }
                        tried.add(seed, ended);
                    }
                    tried
                })
            })
            .collect();
        for worker in workers {
            match worker.join() {
                Ok(tried) => all.merge(tried),
                Err(panic) => panic::resume_unwind(panic),
            }
        }
    });
    all.broken.sort_by_key(|(seed, _)| *seed);
    all
}
