//! The pools: for each machine its tunnels, and on each tunnel its channels.
//!
//! A keeper for each tunnel connects at start, and again, with back-off, whenever the tunnel is lost. A keeper for each
//! channel opens it on the tunnel, tries the machine with a NoOp, registers it with the scheduler, moves bytes until it
//! ends, and opens it again as long as the tunnel stands. What becomes of jobs is none of their business.

mod backoff;
mod channel;
mod pipe;
mod tunnel;

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use pipe::{PipeError, open_pipe};

use crate::schedule::MachineId;
use crate::shard::Shard;

/// The keepers of all of a shard's tunnels.
pub struct Keepers {
    /// By [`MachineId`]; `None` where there are none.
    machines: Vec<Option<OfMachine>>,
    /// Keepers of machines that are retired.
    leaving: JoinSet<()>,
}

/// The keepers of one machine's tunnels.
struct OfMachine {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Starts a keeper for each tunnel of each machine.
pub fn start(shard: &Shard) -> Keepers {
    let mut keepers = Keepers { machines: Vec::new(), leaving: JoinSet::new() };
    keepers.reconfigure(shard);
    keepers
}

impl Keepers {
    /// The shard's configuration has changed. Machines that are new get keepers; those that are retired lose theirs once what
    /// they have in flight is answered.
    pub fn reconfigure(&mut self, shard: &Shard) {
        while self.leaving.try_join_next().is_some() {}
        let config = shard.config();
        self.machines.resize_with(config.machines.len(), || None);
        for (index, (keepers, machine)) in self.machines.iter_mut().zip(&config.machines).enumerate() {
            let id = MachineId(index);
            if machine.is_retired {
                if let Some(keepers) = keepers.take() {
                    let shard = shard.clone();
                    self.leaving.spawn(async move {
                        while shard.with(|state, _| state.scheduler.in_flight(id)) > 0 {
                            tokio::time::sleep(LOOK_FOR_IDLE).await;
                        }
                        keepers.stop().await;
                    });
                }
            } else if keepers.is_none() {
                *keepers = Some(OfMachine::start(shard, id, machine.tunnels));
            }
        }
    }

    /// Closes every channel and tunnel and waits for it. Jobs that are still out get their outcome.
    pub async fn stop(mut self) {
        self.leaving.shutdown().await;
        for keepers in self.machines.into_iter().flatten() {
            keepers.stop().await;
        }
    }
}

/// How often keepers that are to leave look whether their machine is idle.
const LOOK_FOR_IDLE: Duration = Duration::from_millis(10);

impl OfMachine {
    fn start(shard: &Shard, machine: MachineId, tunnels: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for place in 0..tunnels {
            tasks.spawn(tunnel::keep(shard.clone(), machine, place, stopped.clone()));
        }
        Self { stop, tasks }
    }

    async fn stop(mut self) {
        // Keepers that have all ended listen no more.
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Returns when the keepers are to stop.
async fn stopping(stopped: &mut watch::Receiver<bool>) {
    // A sender that is gone has stopped too.
    let _ = stopped.wait_for(|stop| *stop).await;
}
