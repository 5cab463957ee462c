//! Which worlds can take jobs, as the shards say it, for readiness and for gRPC's health service.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::{Mutex, Notify};

use crate::config::Config;
use crate::listen::grpc::Health;
use crate::schedule::WorldId;
use crate::shard::WorldChange;

/// On how many shards each world can take jobs.
pub struct Board {
    /// By [`WorldId`]. Written by a reload, for the moment that it takes to add to it.
    worlds: RwLock<Vec<OnBoard>>,
    is_draining: AtomicBool,
    changed_for_health: Notify,
    changed_for_waiters: Notify,
    /// The worlds that the health service knows. Whoever tells it holds this, so that what is told last is true.
    told: Mutex<BTreeSet<String>>,
}

struct OnBoard {
    name: String,
    is_retired: bool,
    ready_shards: AtomicUsize,
}

impl Board {
    /// A board on which no world is ready.
    pub fn new(config: &Config) -> Self {
        let board = Self {
            worlds: RwLock::default(),
            is_draining: AtomicBool::new(false),
            changed_for_health: Notify::new(),
            changed_for_waiters: Notify::new(),
            told: Mutex::default(),
        };
        board.reconfigure(config);
        board
    }

    /// The configuration changes: to be called before the shards hear of it, since they then speak of worlds that are new.
    pub fn reconfigure(&self, config: &Config) {
        let mut worlds = self.worlds.write().unwrap_or_else(PoisonError::into_inner);
        for (index, world) in config.worlds.iter().enumerate() {
            match worlds.get_mut(index) {
                Some(on_board) => on_board.is_retired = world.is_retired,
                None => worlds.push(OnBoard {
                    name: world.name.clone(),
                    is_retired: world.is_retired,
                    ready_shards: AtomicUsize::new(0),
                }),
            }
        }
        drop(worlds);
        self.changed();
    }

    /// Each world's name and whether it can take a job now, had the gateway not been drained. Retired worlds are none.
    pub fn worlds(&self) -> Vec<(String, bool)> {
        let worlds = self.read();
        let live = worlds.iter().filter(|world| !world.is_retired);
        live.map(|world| (world.name.clone(), world.ready_shards.load(Ordering::Relaxed) > 0)).collect()
    }

    /// Whether the gateway takes no new jobs.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// The gateway takes no new jobs, or takes them again.
    pub fn set_draining(&self, is_draining: bool) {
        self.is_draining.store(is_draining, Ordering::Relaxed);
        self.changed();
    }

    /// Waits until every world can take a job.
    pub async fn all_ready(&self) {
        while !self.worlds().iter().all(|(_, ready)| *ready) {
            self.changed_for_waiters.notified().await;
        }
    }

    /// Waits until each of these worlds can take a job, as far as the configuration has them.
    pub async fn these_ready(&self, wanted: &[String]) {
        while self.worlds().iter().any(|(world, ready)| !ready && wanted.contains(world)) {
            self.changed_for_waiters.notified().await;
        }
    }

    /// Tells the health service what is so now.
    pub async fn tell(&self, health: &Health) {
        let mut told = self.told.lock().await;
        let takes_jobs = !self.is_draining();
        let worlds = self.worlds();
        health.set_gateway(takes_jobs).await;
        health.set_any_world(takes_jobs && worlds.iter().any(|(_, ready)| *ready)).await;
        for (world, ready) in &worlds {
            health.set_world(world, takes_jobs && *ready).await;
        }
        let now: BTreeSet<String> = worlds.into_iter().map(|(world, _)| world).collect();
        for gone in told.difference(&now) {
            health.remove_world(gone).await;
        }
        *told = now;
    }

    /// Keeps the health service true, until it is dropped.
    pub async fn keep_telling(&self, health: &Health) {
        loop {
            self.tell(health).await;
            self.changed_for_health.notified().await;
        }
    }

    fn changed(&self) {
        self.changed_for_health.notify_one();
        self.changed_for_waiters.notify_one();
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<OnBoard>> {
        self.worlds.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WorldChange for Board {
    fn world_ready(&self, world: WorldId, ready: bool) {
        let shards = &self.read()[world.0].ready_shards;
        if ready {
            shards.fetch_add(1, Ordering::Relaxed);
        } else {
            shards.fetch_sub(1, Ordering::Relaxed);
        }
        self.changed();
    }
}
