//! A tunnel that is up, and the keepers of its channels.

use std::sync::Arc;
use std::time::Duration;

use seeway_client::tunnel::Tunnel;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::backoff::chance;
use super::channel;
use super::keeper::Orders;
use super::life::{Event, Life, Waits};
use crate::schedule::{MachineId, SizeClass};
use crate::seldom::{Seldom, Tell};
use crate::shard::{Shard, TunnelState, What};

/// A tunnel's life, of which every change is shown in its pool's numbers.
pub(super) struct Recorded {
    life: Life,
    shard: Shard,
    machine: MachineId,
    orders: watch::Receiver<Orders>,
}

impl Recorded {
    /// A tunnel that connects.
    pub(super) fn begin(shard: &Shard, machine: MachineId, orders: watch::Receiver<Orders>) -> Self {
        let life = Life::new(waits(&orders));
        let recorded = Self { life, shard: shard.clone(), machine, orders };
        recorded.show(None, recorded.life.state());
        recorded
    }

    /// Something has happened to it. Returns how long to wait, by the configuration as it is now.
    pub(super) fn on(&mut self, event: Event) -> Option<Duration> {
        self.life.set_waits(waits(&self.orders));
        let before = self.life.state();
        let wait = self.life.on(event, chance());
        self.show(before, self.life.state());
        wait
    }

    fn show(&self, from: Option<TunnelState>, to: Option<TunnelState>) {
        self.shard.with(|state, _| state.pools[self.machine.0].change(from, to));
    }
}

fn waits(orders: &watch::Receiver<Orders>) -> Waits {
    let ssh = &orders.borrow().config.ssh;
    Waits { first: ssh.connect_retry, longest: ssh.retry_max, refused: ssh.refused_retry }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.show(self.life.state(), None);
    }
}

/// A tunnel that is up. Dropping it cuts it, and ends the jobs that are on it.
pub(super) struct Serving {
    life: Recorded,
    tunnel: Arc<Tunnel>,
    channels: JoinSet<()>,
    /// How many channels it is to have.
    wanted: usize,
    /// How many are up.
    up: Arc<watch::Sender<usize>>,
    is_draining: watch::Sender<bool>,
    orders: watch::Receiver<Orders>,
    /// The configuration that it was made with; see [`Orders`].
    version: u64,
    since: Instant,
    /// The part of `ssh.max_age` at which it is due: by chance, so that not all are due at once.
    age: f64,
}

/// The least part of `ssh.max_age` at which a tunnel is due.
const LEAST_AGE: f64 = 0.9;

impl Serving {
    /// Opens the channels of a tunnel that has just been made.
    pub(super) fn start(mut life: Recorded, tunnel: Tunnel, class: SizeClass, orders: watch::Receiver<Orders>) -> Self {
        static UP: Seldom = Seldom::up_to(64, "tunnel up");
        life.on(Event::Connected);
        let (shard, id) = (life.shard.clone(), life.machine);
        let Orders { config, version, .. } = orders.borrow().clone();
        let machine = &config.machines[id.0];
        let agreed = tunnel.negotiated();
        if let Some(Tell { untold }) = UP.tell(&machine.name) {
            tracing::info!(
                machine = machine.name,
                server = tunnel.server(),
                version = tunnel.server_version(),
                key_exchange = agreed.map(|agreed| agreed.key_exchange.as_str()),
                host_key = agreed.map(|agreed| agreed.host_key.as_str()),
                cipher = agreed.map(|agreed| agreed.cipher.as_str()),
                untold,
                "tunnel up"
            );
        }
        let tunnel = Arc::new(tunnel);
        let which = if class == SizeClass::Bulk { ", for large jobs" } else { "" };
        shard.with(|state, _| {
            state.pools[id.0].made(&tunnel);
            let (server, version) = (tunnel.server(), tunnel.server_version());
            state.front.happened(id, What::TunnelUp, format_args!("{server}, {version}{which}"));
        });
        let (is_draining, draining) = watch::channel(false);
        let up = Arc::new(watch::Sender::new(0));
        let mut channels = JoinSet::new();
        let wanted = match class {
            SizeClass::Small => machine.channels,
            SizeClass::Bulk => machine.bulk_channels,
        };
        for _ in 0..wanted {
            let keeper = channel::Keeper {
                shard: shard.clone(),
                machine: id,
                name: machine.name.as_str().into(),
                host: machine.seejobs_host.as_str().into(),
                port: machine.seejobs_port,
                class,
                tunnel: tunnel.clone(),
                up: up.clone(),
                draining: draining.clone(),
                orders: orders.clone(),
            };
            channels.spawn(keeper.keep());
        }
        Self {
            life,
            tunnel,
            channels,
            wanted,
            up,
            is_draining,
            orders,
            version,
            since: Instant::now(),
            age: LEAST_AGE + (1.0 - LEAST_AGE) * chance(),
        }
    }

    /// The version of the configuration that it was made with.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// When it has come of age; `None`: never.
    pub(super) fn due(&self, max_age: Duration) -> Option<Instant> {
        (!max_age.is_zero()).then(|| self.since + max_age.mul_f64(self.age))
    }

    /// Waits until it is lost.
    pub(super) async fn lost(&self) {
        static LOST: Seldom = Seldom::new("tunnel lost");
        let lost = self.tunnel.closed().await;
        let config = self.orders.borrow().config.clone();
        let machine = &config.machines[self.life.machine.0].name;
        if let Some(Tell { untold }) = LOST.tell(machine) {
            tracing::warn!(machine, %lost, untold, "tunnel lost");
        }
        let id = self.life.machine;
        self.life.shard.with(|state, _| state.front.happened(id, What::TunnelLost, &lost));
    }

    /// Waits until it can take over from `other`: all its channels are up, or, where some do not come up in time, at least as many
    /// as the other one has.
    pub(super) async fn can_replace(&self, other: &Self, in_time: Duration) {
        let (mut up, mut of_other) = (self.up.subscribe(), other.up.subscribe());
        let all = up.wait_for(|up| *up >= self.wanted);
        if timeout_at(self.since + in_time, all).await.is_ok() {
            return;
        }
        while *up.borrow_and_update() < *of_other.borrow_and_update() {
            // The senders are in `self` and in `other`.
            let _ = tokio::select! {
                changed = up.changed() => changed,
                changed = of_other.changed() => changed,
            };
        }
    }

    /// It is lost. Gives back its life, how long to wait before the next connect, and what is still to be done: the replies that
    /// had come before are delivered.
    pub(super) fn end(self) -> (Recorded, Option<Duration>, impl Future<Output = ()> + use<>) {
        let Self { mut life, tunnel, mut channels, since, .. } = self;
        let wait = life.on(Event::Lost(since.elapsed()));
        let (shard, machine) = (life.shard.clone(), life.machine);
        // The channels see by themselves that the tunnel is gone, and end their jobs.
        let rest = async move {
            while channels.join_next().await.is_some() {}
            shard.with(|state, _| state.pools[machine.0].ended(&tunnel));
        };
        (life, wait, rest)
    }

    /// Takes no more jobs, and closes the tunnel when each of those that it has has its outcome: by its reply, or at its deadline.
    pub(super) async fn drain(mut self) {
        self.life.on(Event::Relieved);
        let config = self.orders.borrow().config.clone();
        let machine = &config.machines[self.life.machine.0].name;
        tracing::info!(machine, age = ?self.since.elapsed(), "a tunnel drains");
        let (id, age) = (self.life.machine, self.since.elapsed().as_secs());
        self.life.shard.with(|state, _| state.front.happened(id, What::TunnelDrains, format_args!("after {age} s")));
        self.is_draining.send_replace(true);
        while self.channels.join_next().await.is_some() {}
        self.close().await;
    }

    /// Closes the tunnel and waits for it. Jobs that are still out on it get their outcome.
    pub(super) async fn close(mut self) {
        self.channels.shutdown().await;
        self.tunnel.close().await;
        self.life.on(Event::Drained);
        self.life.shard.with(|state, _| state.pools[self.life.machine.0].ended(&self.tunnel));
    }
}
