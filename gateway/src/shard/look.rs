//! What a shard tells somebody who looks at it every second, beyond what metrics have: its busiest callers, and what is wrong with
//! its machines.
//!
//! Made on the shard's thread, for the control plane's sampler. It costs a pass over the callers, and nothing where nobody looks.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Instant;

use crate::audit::Actor;
use crate::schedule::MachineId;

use super::history::{Happening, History};
use super::{Report, State};

/// How many callers are told of, at most: those with the most to do.
pub const BUSIEST: usize = 32;

/// A shard at one moment.
#[derive(Clone, Debug)]
pub struct Look {
    /// Its numbers.
    pub report: Report,
    /// Its busiest callers, the busiest first.
    pub callers: Vec<CallerLook>,
    /// By [`MachineId`].
    pub machines: Vec<MachineLook>,
}

/// One caller.
#[derive(Clone, Debug)]
pub struct CallerLook {
    /// Who it is, and how it came.
    pub actor: Arc<Actor>,
    /// Its jobs in hand.
    pub jobs: usize,
    /// Of these, those that wait.
    pub queued: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Jobs that it has handed over each second since the last look.
    pub jobs_per_second: f64,
}

/// What a [`Report`] does not say of a machine.
#[derive(Clone, Debug)]
pub struct MachineLook {
    /// How much has ever happened to it.
    pub happenings: u64,
    /// Why its last tunnel or channel is not up.
    pub trouble: Option<Happening>,
}

impl State {
    /// The shard now. The sampler is the only one who looks: rates are since the last time, and one more would take them away from it.
    pub fn look(&mut self, now: Instant) -> Look {
        let report = self.report();
        let since = now.saturating_duration_since(std::mem::replace(&mut self.looked, now)).as_secs_f64();
        let mut loads = self.scheduler.caller_loads();
        loads.retain(|load| load.jobs > 0 || load.admitted > 0);
        loads.sort_by_key(|load| Reverse((load.admitted, load.jobs)));
        let callers = loads.into_iter().filter_map(|load| {
            // Counts of one interval are far below 2^52.
            #[allow(clippy::cast_precision_loss)]
            let jobs_per_second = if since > 0.0 { load.admitted as f64 / since } else { 0.0 };
            let actor = self.front.actor(load.caller)?.clone();
            Some(CallerLook { actor, jobs: load.jobs, queued: load.queued, bytes: load.bytes, jobs_per_second })
        });
        let callers = callers.take(BUSIEST).collect();
        let machine = |index| {
            let history = self.front.history(MachineId(index));
            MachineLook {
                happenings: history.map_or(0, History::count),
                trouble: history.and_then(History::trouble).cloned(),
            }
        };
        Look { callers, machines: (0..self.pools.len()).map(machine).collect(), report }
    }
}
