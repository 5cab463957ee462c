//! The pools: for each machine its tunnels, and on each tunnel its channels.
//!
//! A keeper for each tunnel connects at start, and again, with back-off, whenever the tunnel is lost. A keeper for each
//! channel opens it on the tunnel, tries the machine with a NoOp, registers it with the scheduler, moves bytes until it
//! ends, and opens it again as long as the tunnel stands. What becomes of jobs is none of their business.

mod backoff;
mod channel;
mod pipe;
mod tunnel;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use pipe::{PipeError, open_pipe};

use crate::schedule::MachineId;
use crate::shard::Shard;

/// The keepers of all of a shard's tunnels.
pub struct Keepers {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Starts a keeper for each tunnel of each machine.
pub fn start(shard: &Shard) -> Keepers {
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for (index, machine) in shard.config().machines.iter().enumerate() {
        for place in 0..machine.tunnels {
            tasks.spawn(tunnel::keep(shard.clone(), MachineId(index), place, stopped.clone()));
        }
    }
    Keepers { stop, tasks }
}

impl Keepers {
    /// Closes every channel and tunnel and waits for it. Jobs that are still out get their outcome.
    pub async fn stop(mut self) {
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
