//! The keeper of one channel: opens it, tries it, and moves bytes between it and the scheduler.

use std::sync::Arc;
use std::time::Duration;

use seeway_client::tunnel::{Channel, ReadHalf, Tunnel, TunnelError, WriteHalf};
use seeway_proto::mux::{Answer, Broken, Outgoing};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::ReplyBody;
use tokio::sync::{Notify, watch};

use super::backoff::{Backoff, chance};
use super::keeper::{Orders, reloaded};
use crate::config::{Config, Ssh};
use crate::schedule::{ChannelId, MachineId, PACKET_BYTES, SizeClass};
use crate::seldom::{Seldom, Tell};
use crate::shard::{Shard, What};

/// Why a channel could not be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    #[error(
        "the port does not answer a NoOp within {0:?}; check seejobs_port, and that a CodeSafe machine with SEEJobs enabled is behind it"
    )]
    Silent(Duration),
    #[error("the port answers a NoOp with something else ({0}); check that seejobs_port is the machine's SEEJobs port")]
    NotSeeJobs(Broken),
    #[error("the machine refuses a NoOp; check wire.profile, and the machine's own log")]
    NoOpRefused,
    #[error("the machine closed the channel before it answered a NoOp; check seejobs_port, and that the machine runs")]
    Closed,
}

/// What a channel's keeper needs to know.
pub(super) struct Keeper {
    pub(super) shard: Shard,
    pub(super) machine: MachineId,
    /// The machine's.
    pub(super) name: Arc<str>,
    /// Where the machine's SEEJobs port is, as the SSH server sees it.
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    pub(super) class: SizeClass,
    pub(super) tunnel: Arc<Tunnel>,
    /// How many of the tunnel's channels are up.
    pub(super) up: Arc<watch::Sender<usize>>,
    /// Whether the tunnel takes no more jobs.
    pub(super) draining: watch::Receiver<bool>,
    pub(super) orders: watch::Receiver<Orders>,
}

impl Keeper {
    /// Keeps one channel open for as long as its tunnel stands and is not to drain; opens it again when the machine closes it.
    pub(super) async fn keep(mut self) {
        let mut is_draining = self.draining.clone();
        let Ssh { connect_retry, retry_max, .. } = self.orders.borrow().config.ssh;
        let mut backoff = Backoff::new(connect_retry, retry_max);
        while !self.tunnel.is_closed() {
            let reloads = self.orders.borrow().reloads;
            let opened = tokio::select! {
                opened = self.open() => opened,
                () = draining(&mut is_draining) => return,
            };
            let wait = match opened {
                Ok((read, write)) => {
                    self.up.send_modify(|up| *up += 1);
                    // Ends by itself when the tunnel is lost: then the replies that had come before are delivered first.
                    let end = Pump::start(&self).run(read, write).await;
                    self.up.send_modify(|up| *up -= 1);
                    if matches!(end, End::Drained) {
                        return;
                    }
                    self.limit(&mut backoff);
                    backoff.reset();
                    backoff.wait(chance())
                }
                Err(unusable) => self.refused(&unusable, &mut backoff),
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = self.tunnel.closed() => {}
                () = reloaded(&mut self.orders, reloads) => {}
                () = draining(&mut is_draining) => return,
            }
        }
    }

    /// Has the next waits go by the configuration as it is now.
    fn limit(&self, backoff: &mut Backoff) {
        let Ssh { connect_retry, retry_max, .. } = self.orders.borrow().config.ssh;
        backoff.set_limits(connect_retry, retry_max);
    }

    fn refused(&self, unusable: &Unusable, backoff: &mut Backoff) -> Duration {
        static NONE: Seldom = Seldom::new("no channel");
        static FORBIDDEN: Seldom = Seldom::new("the machine's SSH server forbids the channel");
        let machine = &*self.name;
        if matches!(unusable, Unusable::Tunnel(error) if error.is_permanent()) {
            let refused_retry = self.orders.borrow().config.ssh.refused_retry;
            self.shard.with(|state, _| {
                state.pools[self.machine.0].prohibited();
                state.front.happened(self.machine, What::ChannelForbidden, unusable);
            });
            if let Some(Tell { untold }) = FORBIDDEN.tell(machine) {
                tracing::error!(
                    machine,
                    error = %unusable,
                    retry_in = ?refused_retry,
                    untold,
                    "the machine's SSH server forbids the channel: none until that is mended"
                );
            }
            return refused_retry;
        }
        if let Some(Tell { untold }) = NONE.tell(machine) {
            tracing::warn!(machine, error = %unusable, untold, "no channel");
        }
        self.shard.with(|state, _| state.front.happened(self.machine, What::ChannelFailed, unusable));
        self.limit(backoff);
        backoff.wait(chance())
    }

    /// Opens a channel to the machine's SEEJobs port and makes sure that a machine answers there: an SSH server may well open a
    /// channel to a port behind which nobody speaks.
    async fn open(&self) -> Result<(ReadHalf, WriteHalf), Unusable> {
        let channel = self.tunnel.open(&self.host, self.port).await?;
        let config = self.orders.borrow().config.clone();
        let limit = config.ssh.connect_timeout;
        tokio::time::timeout(limit, no_op(&config, channel)).await.map_err(|_| Unusable::Silent(limit))?
    }
}

/// Returns when the tunnel takes no more jobs.
async fn draining(draining: &mut watch::Receiver<bool>) {
    if draining.wait_for(|is_draining| *is_draining).await.is_err() {
        // Its keeper is gone, and ends this one.
        std::future::pending::<()>().await;
    }
}

async fn no_op(config: &Config, channel: Channel) -> Result<(ReadHalf, WriteHalf), Unusable> {
    let (mut read, mut write) = channel.split();
    let mut mux = Outgoing::new(config.wire.profile.clone(), config.wire_limits(), 1);
    // An empty mux has room for one.
    let _ = mux.stage_no_op(());
    if let Some(bytes) = mux.take_output() {
        write.write(bytes.into()).await.map_err(|lost| Unusable::Tunnel(lost.into()))?;
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

/// How often a channel that drains looks whether the last of its jobs has ended.
const DRAIN_CHECK: Duration = Duration::from_millis(10);

/// What was received in one go beyond this has taken its time: others go first then.
const TURN_BYTES: usize = 32 * 1024;

/// How a channel has ended.
enum End {
    /// It is lost, or the machine has closed it.
    Lost,
    /// It was to take no more jobs, and has none left whose outcome somebody waits for.
    Drained,
}

/// A channel that is registered with the scheduler. Dropping it ends the jobs that are still on it.
struct Pump<'a> {
    keeper: &'a Keeper,
    channel: ChannelId,
    wake: Arc<Notify>,
}

impl<'a> Pump<'a> {
    fn start(keeper: &'a Keeper) -> Self {
        let wake = Arc::new(Notify::new());
        let channel = keeper.shard.with(|state, now| {
            state.front.is_well(keeper.machine);
            state.channel_opened(now, keeper.machine, keeper.class, wake.clone())
        });
        Self { keeper, channel, wake }
    }

    /// The channel is lost, for this reason.
    fn happened(&self, why: &dyn std::fmt::Display) {
        let Keeper { shard, machine, .. } = self.keeper;
        shard.with(|state, _| state.front.happened(*machine, What::ChannelLost, why));
    }

    async fn run(self, read: ReadHalf, write: WriteHalf) -> End {
        let machine = &*self.keeper.name;
        let mut receive = std::pin::pin!(self.receive(read));
        let received = tokio::select! {
            received = &mut receive => received,
            // Nothing may happen between this and the drop, which takes the channel from the scheduler: nobody waits for a job on
            // it now.
            () = self.drained() => return End::Drained,
            lost = self.send(write) => {
                static LOST: Seldom = Seldom::new("a channel is lost");
                if let Some(Tell { untold }) = LOST.tell(machine) {
                    tracing::warn!(machine, error = %lost, untold, "a channel is lost");
                }
                self.happened(&lost);
                // What has come before it was lost is delivered; there is not much, and nothing more to wait for.
                tokio::time::timeout(LAST_REPLIES, receive).await.unwrap_or(Ok(()))
            }
        };
        match received {
            Ok(()) => {
                static ENDED: Seldom = Seldom::new("a channel has ended");
                if let Some(Tell { untold }) = ENDED.tell(machine) {
                    tracing::warn!(machine, untold, "a channel has ended");
                }
                if !self.keeper.tunnel.is_closed() {
                    self.happened(&"the machine closed it");
                }
            }
            Err(broken) => {
                static BROKEN: Seldom = Seldom::new("a channel is closed: the machine broke the protocol");
                if let Some(Tell { untold }) = BROKEN.tell(machine) {
                    tracing::error!(machine, error = %broken, untold, "a channel is closed: the machine broke the protocol");
                }
                self.happened(&broken);
            }
        }
        End::Lost
    }

    /// Waits until the tunnel is to drain, and then until no job on the channel is wanted any more. Each ends by its own deadline,
    /// and only the tags of jobs that have ended so, or whose callers have gone, can be left then: of those nothing is lost.
    async fn drained(&self) {
        draining(&mut self.keeper.draining.clone()).await;
        let Keeper { shard, .. } = self.keeper;
        shard.with(|state, now| state.scheduler.drain_channel(now, self.channel, &mut state.front));
        while shard.with(|state, _| state.scheduler.has_wanted_jobs(self.channel)) {
            tokio::time::sleep(DRAIN_CHECK).await;
        }
    }

    async fn send(&self, mut write: WriteHalf) -> seeway_client::tunnel::Lost {
        loop {
            self.wake.notified().await;
            self.gather().await;
            loop {
                // Asked first: what is never taken can still go elsewhere.
                if let Some(lost) = write.lost() {
                    return lost;
                }
                let batch = self
                    .keeper
                    .shard
                    .with(|state, now| state.scheduler.take_output(now, self.channel, &mut state.front));
                let Some(batch) = batch else { break };
                if let Err(lost) = write.write(batch.into()).await {
                    return lost;
                }
            }
        }
    }

    /// Lets whoever is ready say what it has to say first, for as long as each turn brings more, up to a packet: one write then
    /// carries it all. A lone caller's job waits for one turn, in which nothing is to be done.
    async fn gather(&self) {
        let mut staged = self.staged();
        loop {
            tokio::task::yield_now().await;
            let before = std::mem::replace(&mut staged, self.staged());
            if staged <= before || staged >= PACKET_BYTES {
                return;
            }
        }
    }

    /// How many bytes wait to be written.
    fn staged(&self) -> usize {
        self.keeper.shard.with(|state, _| state.scheduler.staged_len(self.channel))
    }

    async fn receive(&self, mut read: ReadHalf) -> Result<(), Broken> {
        let mut received = WipedBuffer::new();
        while read.read_into(&mut received).await {
            let is_large = received.len() > TURN_BYTES;
            self.keeper.shard.with(|state, now| {
                let mut input = received.filled();
                let result = state.scheduler.receive(now, self.channel, &mut input, &mut state.front);
                let rest = input.len();
                received.consume(received.len() - rest);
                result
            })?;
            if is_large {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}

impl Drop for Pump<'_> {
    fn drop(&mut self) {
        let channel = self.channel;
        self.keeper.shard.with(|state, now| state.channel_closed(now, channel));
    }
}
