//! Pipes to a world's machines without a gateway around: the pools of one shard, and no listener.

use std::sync::Arc;
use std::time::{Duration, Instant};

use seeway_client::tunnel::{Channel, Tunnel};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::access::Access;
use crate::config::Config;
use crate::schedule::WorldId;
use crate::shard::{Budgets, Shard, WorldChange};
use crate::upstream::{self, Keepers, PipeError};

/// Opens pipes to the machines of one world. Lives on the runtime that it was started on.
pub struct Forwarder {
    shard: Shard,
    world: WorldId,
    changed: Arc<Changed>,
    hold: Duration,
    _keepers: Keepers,
}

#[derive(Default)]
struct Changed(Notify);

impl WorldChange for Changed {
    fn world_ready(&self, _: WorldId, _: bool) {
        self.0.notify_waiters();
    }
}

impl Forwarder {
    /// Starts to make tunnels to the world's machines; `None` where no world has this name.
    pub fn start(mut config: Config, world: &str) -> Option<Self> {
        config.worlds.retain(|other| other.name == world);
        let wanted = config.worlds.first()?.machines.clone();
        // The world's machines and no others, and one channel each: only to know which are up.
        let mut position = 0;
        config.machines.retain(|_| {
            position += 1;
            wanted.contains(&(position - 1))
        });
        config.worlds[0].machines = (0..config.machines.len()).collect();
        for machine in &mut config.machines {
            (machine.tunnels, machine.channels) = (1, 1);
        }
        let hold = config.limits.hold;
        let budgets = Budgets::new(&config);
        let changed = Arc::new(Changed::default());
        let access = Access::new(Instant::now());
        let shard = Shard::new(Arc::new(config), &budgets, access, changed.clone());
        let keepers = upstream::start(&shard);
        Some(Self { shard, world: WorldId(0), changed, hold, _keepers: keepers })
    }

    /// Opens a pipe to a port of the machine that has the least to do, its SEEJobs port where none is given. Where no machine
    /// takes it now, waits as long as jobs wait (`limits.hold`) for one to come up, and tries once more.
    pub async fn open(&self, port: Option<u16>) -> Result<(Arc<Tunnel>, Channel), PipeError> {
        let changed = self.changed.0.notified();
        if let Ok(pipe) = upstream::open_pipe(&self.shard, self.world, b"", port).await {
            return Ok(pipe);
        }
        let _ = tokio::time::timeout(self.hold, self.up(changed)).await;
        upstream::open_pipe(&self.shard, self.world, b"", port).await
    }

    async fn up(&self, mut changed: Notified<'_>) {
        while !self.shard.with(|state, _| state.scheduler.is_ready(self.world)) {
            changed.await;
            changed = self.changed.0.notified();
        }
    }
}
