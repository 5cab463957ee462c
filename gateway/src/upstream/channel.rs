//! The keeper of one channel: opens it, tries it, and moves bytes between it and the scheduler.

use std::sync::Arc;
use std::time::Duration;

use seeway_client::tunnel::{Channel, ReadHalf, Tunnel, TunnelError, WriteHalf};
use seeway_proto::mux::{Answer, Broken, Outgoing};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::ReplyBody;
use tokio::sync::{Notify, watch};

use super::backoff::{Backoff, chance};
use super::stopping;
use crate::schedule::{ChannelId, MachineId, SizeClass};
use crate::shard::Shard;

/// Why a channel could not be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    #[error("the port does not answer a NoOp within {0:?}: is a CodeSafe machine with SEEJobs enabled behind it?")]
    Silent(Duration),
    #[error("the port answers a NoOp with something else ({0}): is it the machine's SEEJobs port?")]
    NotSeeJobs(Broken),
    #[error("the machine refuses a NoOp")]
    NoOpRefused,
    #[error("the machine closed the channel before it answered a NoOp")]
    Closed,
}

/// Keeps one channel open for as long as its tunnel stands.
pub(super) async fn keep(shard: Shard, machine: MachineId, tunnel: Arc<Tunnel>, mut stopped: watch::Receiver<bool>) {
    tokio::select! {
        () = reopen(&shard, machine, &tunnel) => {}
        () = stopping(&mut stopped) => {}
    }
}

async fn reopen(shard: &Shard, machine: MachineId, tunnel: &Tunnel) {
    let config = shard.config();
    let name = &config.machines[machine.0].name;
    let mut backoff = Backoff::new(config.ssh.connect_retry, config.ssh.retry_max);
    while !tunnel.is_closed() {
        match open(shard, machine, tunnel).await {
            Ok((read, write)) => {
                backoff.reset();
                // Ends by itself when the tunnel is lost: then the replies that had come before are delivered first.
                Pump::start(shard, machine).run(read, write).await;
            }
            Err(unusable) => tracing::warn!(machine = name, error = %unusable, "no channel"),
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.wait(chance())) => {}
            _ = tunnel.closed() => {}
        }
    }
}

/// Opens a channel to the machine's SEEJobs port and makes sure that a machine answers there: an SSH server may well open a
/// channel to a port behind which nobody speaks.
async fn open(shard: &Shard, machine: MachineId, tunnel: &Tunnel) -> Result<(ReadHalf, WriteHalf), Unusable> {
    let config = shard.config();
    let machine = &config.machines[machine.0];
    let channel = tunnel.open(&machine.seejobs_host, machine.seejobs_port).await?;
    let limit = config.ssh.connect_timeout;
    tokio::time::timeout(limit, no_op(shard, channel)).await.map_err(|_| Unusable::Silent(limit))?
}

async fn no_op(shard: &Shard, channel: Channel) -> Result<(ReadHalf, WriteHalf), Unusable> {
    let config = shard.config();
    let (mut read, mut write) = channel.split();
    let mut mux = Outgoing::new(config.wire.profile.clone(), config.wire_limits(), 1);
    // An empty mux has room for one.
    let _ = mux.stage_no_op(());
    if let Some(bytes) = mux.take_output() {
        write.write(bytes).await.map_err(|lost| Unusable::Tunnel(lost.into()))?;
    }
    let mut received = WipedBuffer::new();
    loop {
        if !read.read_into(&mut received).await {
            return Err(Unusable::Closed);
        }
        match mux.receive(&mut received.filled()).map_err(Unusable::NotSeeJobs)? {
            Some(Answer { reply: ReplyBody::NoOp, .. }) => return Ok((read, write)),
            Some(_) => return Err(Unusable::NoOpRefused),
            None => {}
        }
    }
}

/// How long the replies that came before a channel was lost have to be delivered.
const LAST_REPLIES: Duration = Duration::from_secs(1);

/// A channel that is registered with the scheduler. Dropping it ends the jobs that are still on it.
struct Pump {
    shard: Shard,
    channel: ChannelId,
    machine: MachineId,
    wake: Arc<Notify>,
}

impl Pump {
    fn start(shard: &Shard, machine: MachineId) -> Self {
        let wake = Arc::new(Notify::new());
        let channel = shard.with(|state, now| state.channel_opened(now, machine, SizeClass::Small, wake.clone()));
        Self { shard: shard.clone(), channel, machine, wake }
    }

    async fn run(self, read: ReadHalf, write: WriteHalf) {
        let config = self.shard.config();
        let machine = &config.machines[self.machine.0].name;
        let mut receive = std::pin::pin!(self.receive(read));
        let received = tokio::select! {
            received = &mut receive => received,
            lost = self.send(write) => {
                tracing::warn!(machine, error = %lost, "a channel is lost");
                // What has come before it was lost is delivered; there is not much, and nothing more to wait for.
                tokio::time::timeout(LAST_REPLIES, receive).await.unwrap_or(Ok(()))
            }
        };
        match received {
            Ok(()) => tracing::warn!(machine, "a channel has ended"),
            Err(broken) => {
                tracing::error!(machine, error = %broken, "a channel is closed: the machine broke the protocol");
            }
        }
    }

    async fn send(&self, mut write: WriteHalf) -> seeway_client::tunnel::Lost {
        loop {
            self.wake.notified().await;
            // Whoever is ready gets to say what it has to say first: one write then carries it all.
            tokio::task::yield_now().await;
            loop {
                // Asked first: what is never taken can still go elsewhere.
                if let Some(lost) = write.lost() {
                    return lost;
                }
                let batch =
                    self.shard.with(|state, now| state.scheduler.take_output(now, self.channel, &mut state.front));
                let Some(batch) = batch else { break };
                if let Err(lost) = write.write(batch).await {
                    return lost;
                }
            }
        }
    }

    async fn receive(&self, mut read: ReadHalf) -> Result<(), Broken> {
        let mut received = WipedBuffer::new();
        while read.read_into(&mut received).await {
            self.shard.with(|state, now| {
                let mut input = received.filled();
                let result = state.scheduler.receive(now, self.channel, &mut input, &mut state.front);
                let rest = input.len();
                received.consume(received.len() - rest);
                result
            })?;
        }
        Ok(())
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        let channel = self.channel;
        self.shard.with(|state, now| state.channel_closed(now, channel));
    }
}
