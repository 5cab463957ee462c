//! A world's queue and whether it has anywhere to send to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::{Budget, Lease};
use super::stats::WorldStats;
use super::{JobId, MachineId};

/// A world as this shard sees it.
#[derive(Debug)]
pub(super) struct World {
    pub(super) machines: Vec<MachineId>,
    /// Waiting jobs, by the order of their admission.
    pub(super) queue: BTreeMap<u64, JobId>,
    /// One permit for each of them.
    pub(super) room: Lease,
    /// Since when no machine has been up; `None` while one is.
    pub(super) down_since: Option<Instant>,
    pub(super) stats: WorldStats,
}

impl World {
    pub(super) fn new(now: Instant, machines: Vec<MachineId>, queue: Arc<Budget>) -> Self {
        let room = Lease::new(queue);
        Self { machines, queue: BTreeMap::new(), room, down_since: Some(now), stats: WorldStats::default() }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.down_since.is_none()
    }

    /// When a job that has been waiting since `admitted` has waited long enough for a machine to come up; `None` while
    /// one is up.
    pub(super) fn hold_ends(&self, admitted: Instant, hold: Duration) -> Option<Instant> {
        self.down_since.map(|down_since| down_since.max(admitted) + hold)
    }
}
