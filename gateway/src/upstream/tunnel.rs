//! The keeper of one tunnel.

use std::sync::Arc;
use std::time::Duration;

use seeway_client::tunnel::{Tunnel, TunnelError};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::backoff::{Backoff, chance};
use super::{channel, stopping};
use crate::schedule::MachineId;
use crate::shard::{PooledTunnel, Shard, TunnelState};

/// A tunnel that has stood for this long was a good one: the next wait is the first one again.
const PROVEN_AFTER: Duration = Duration::from_secs(10);

/// Keeps one tunnel up until it is told to stop.
pub(super) async fn keep(shard: Shard, machine: MachineId, place: usize, mut stopped: watch::Receiver<bool>) {
    let keeper = Keeper { shard, machine, place };
    tokio::select! {
        () = keeper.run(stopped.clone()) => {}
        () = stopping(&mut stopped) => {}
    }
    // What `run` held is dropped by now: the tunnel, and with it its channels.
    keeper.note(|place| *place = PooledTunnel { failed_connects: place.failed_connects, ..PooledTunnel::default() });
}

struct Keeper {
    shard: Shard,
    machine: MachineId,
    place: usize,
}

impl Keeper {
    async fn run(&self, stopped: watch::Receiver<bool>) {
        let config = self.shard.config();
        let machine = &config.machines[self.machine.0];
        let options = machine.tunnel_options(&config.ssh);
        let mut backoff = Backoff::new(config.ssh.connect_retry, config.ssh.retry_max);
        loop {
            self.note(|place| place.state = TunnelState::Connecting);
            let (state, wait) = match Tunnel::connect(&options).await {
                Ok(tunnel) => {
                    let since = std::time::Instant::now();
                    self.serve(Arc::new(tunnel), stopped.clone()).await;
                    if since.elapsed() >= PROVEN_AFTER {
                        backoff.reset();
                    }
                    (TunnelState::BackingOff, backoff.wait(chance()))
                }
                Err(error) => self.failed(&error, &mut backoff, config.ssh.refused_retry),
            };
            self.note(|place| place.state = state);
            tokio::time::sleep(wait).await;
        }
    }

    /// Keeps the tunnel's channels open for as long as it stands.
    async fn serve(&self, tunnel: Arc<Tunnel>, stopped: watch::Receiver<bool>) {
        let config = self.shard.config();
        let machine = &config.machines[self.machine.0];
        tracing::info!(
            machine = machine.name,
            server = tunnel.server(),
            version = tunnel.server_version(),
            "tunnel up"
        );
        self.note(|place| place.state = TunnelState::Ready);
        let mut channels = JoinSet::new();
        for _ in 0..machine.channels {
            channels.spawn(channel::keep(self.shard.clone(), self.machine, tunnel.clone(), stopped.clone()));
        }
        let lost = tunnel.closed().await;
        tracing::warn!(machine = machine.name, %lost, "tunnel lost");
        // They see by themselves that the tunnel is gone, and end their jobs.
        while channels.join_next().await.is_some() {}
    }

    fn failed(&self, error: &TunnelError, backoff: &mut Backoff, refused_retry: Duration) -> (TunnelState, Duration) {
        let config = self.shard.config();
        let machine = &config.machines[self.machine.0].name;
        self.note(|place| place.failed_connects += 1);
        if error.is_permanent() {
            tracing::error!(
                machine,
                %error,
                retry_in = ?refused_retry,
                "the machine's SSH server refused, or is not the one that is pinned: no tunnel until that is mended"
            );
            return (TunnelState::Refused, refused_retry);
        }
        let wait = backoff.wait(chance());
        tracing::warn!(machine, %error, retry_in = ?wait, "no tunnel");
        (TunnelState::BackingOff, wait)
    }

    fn note(&self, change: impl FnOnce(&mut PooledTunnel)) {
        self.shard.with(|state, _| change(&mut state.pools[self.machine.0].tunnels[self.place]));
    }
}
