//! One sampler for everybody who looks. It asks the shards every second, from when the first looks until a while after the last
//! has; nobody looks, nothing is asked.
//!
//! Called by the admin port for `/api/state`, `/api/events` and `/api/history`, and for the reasons in `/readyz`. What has to be remembered
//! from one second to the next (counts, for rates; the last five minutes, for plots) is here too.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::control::Control;
use super::rates::{self, Rates};
use super::state::World;

/// How often the shards are asked.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// How long the sampler goes on after the last look: whoever asks for the state every few seconds gets rates.
const LINGER: Duration = Duration::from_secs(5);

/// How many points are kept for plots: five minutes.
const POINTS: usize = 300;

/// The state at one moment, as JSON: an object, and a point of the plots.
pub(super) struct Sample {
    /// A [`State`](super::state::State).
    pub(super) state: String,
    /// What is kept of it.
    pub(super) point: Arc<str>,
    /// By the names of the worlds that are not ready: why not.
    pub(super) reasons: BTreeMap<String, String>,
    /// When the shards were asked.
    at: Instant,
}

impl Sample {
    /// Whether it is one that may be shown as what is so now: a shard that does not answer holds the next one up.
    pub(super) fn is_fresh(&self) -> bool {
        self.at.elapsed() < 3 * INTERVAL
    }
}

/// Whoever looks has one of these, and hears of each sample.
pub(super) type Samples = watch::Receiver<Option<Arc<Sample>>>;

/// The sampler, whether it runs or not.
pub(super) struct Sampler {
    latest: watch::Sender<Option<Arc<Sample>>>,
    now: Mutex<Now>,
}

struct Now {
    is_running: bool,
    /// When somebody last began to look.
    looked: Instant,
    /// For plots, the oldest first.
    points: VecDeque<Arc<str>>,
}

impl Sampler {
    /// One that does not run.
    pub(super) fn new() -> Self {
        let running = Now { is_running: false, looked: Instant::now(), points: VecDeque::new() };
        Self { latest: watch::Sender::new(None), now: Mutex::new(running) }
    }

    /// Somebody looks, as long as what is returned is kept, and [`LINGER`] longer.
    pub(super) fn look(&self, control: &Arc<Control>) -> Samples {
        let mut running = self.lock();
        running.looked = Instant::now();
        if !std::mem::replace(&mut running.is_running, true) {
            tokio::spawn(run(control.clone()));
        }
        self.latest.subscribe()
    }

    /// The last five minutes as far as somebody looked, as a JSON array of points.
    pub(super) fn points(&self) -> String {
        let points: Vec<_> = self.lock().points.iter().cloned().collect();
        format!("[{}]", points.join(",\n"))
    }

    /// Whether it runs.
    #[cfg(test)]
    pub(super) fn is_running(&self) -> bool {
        self.lock().is_running
    }

    fn publish(&self, sample: Sample) {
        let mut running = self.lock();
        if running.points.len() == POINTS {
            running.points.pop_front();
        }
        running.points.push_back(sample.point.clone());
        drop(running);
        self.latest.send_replace(Some(Arc::new(sample)));
    }

    /// Whether nobody looks any more; it runs no more then.
    fn is_over(&self) -> bool {
        let mut running = self.lock();
        let is_over = self.latest.receiver_count() == 0 && running.looked.elapsed() >= LINGER;
        if is_over {
            running.is_running = false;
            // An old state must not be taken for a new one.
            self.latest.send_replace(None);
        }
        is_over
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run(control: Arc<Control>) {
    let mut rates = Rates::default();
    let mut ticks = interval(INTERVAL);
    // After a shard has kept it waiting the next look is a second later.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if control.sampler().is_over() {
            return;
        }
        let at = Instant::now();
        let seen = control.see().await;
        let state = rates.state(&control, &seen);
        let point = rates::point(&state).to_string().into();
        let reason = |world: &World| Some((world.name.clone(), world.reason.clone()?));
        let reasons = state.worlds.iter().filter_map(reason).collect();
        match serde_json::to_string(&state) {
            Ok(state) => control.sampler().publish(Sample { state, point, reasons, at }),
            Err(error) => tracing::error!(%error, "the state can not be written as JSON"),
        }
    }
}
