//! A whole gateway in this process: its shards, its listeners, its admin port. The control plane, for `serve`, `demo` and
//! whoever embeds it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

use crate::admin::{self, Metrics, Readiness};
use crate::config::{Config, HardserverAddress};
use crate::listen::accept::{self, BindError, Listener, Refused, SocketAccess};
use crate::listen::grpc::{Common, Health};
use crate::schedule::{Budget, WorldId};
use crate::shard::{self, ShardHandle, WorldChange};

/// Where a gateway listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The gRPC front end, where it is on.
    pub grpc: Option<SocketAddr>,
    /// The hardserver front ends.
    pub hardserver: Vec<HardserverAddress>,
    /// The admin port, where it is on.
    pub admin: Option<SocketAddr>,
}

/// Why a gateway does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A listener's address can not be used.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system gave no thread or no event queue.
    #[error("a shard does not start: {0}")]
    Shard(io::Error),
    /// The metrics can not be set up.
    #[error("the metrics can not be set up: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// A shard has ended unasked.
    #[error(transparent)]
    Ended(#[from] shard::ShardEnded),
}

/// A gateway that takes jobs until it is drained. Must be used on the runtime that it was started on.
pub struct Gateway {
    config: Arc<Config>,
    shards: Arc<[ShardHandle]>,
    board: Arc<Board>,
    health: Health,
    metrics: Arc<Metrics>,
    addresses: Addresses,
    acceptors: JoinSet<Result<(), shard::ShardEnded>>,
    others: JoinSet<()>,
}

impl Gateway {
    /// Binds every listener, starts the shards, and begins to take jobs. Tunnels are made meanwhile.
    pub async fn start(config: Arc<Config>) -> Result<Self, GatewayError> {
        let (listeners, addresses, admin) = bind(&config).await?;
        let board = Arc::new(Board::new(&config));
        let health = Health::new(config.worlds.iter().map(|world| world.name.as_str())).await;
        let budgets: Vec<_> =
            config.machines.iter().map(|machine| Budget::new(machine.max_in_flight, config.runtime.shards)).collect();
        let pipes = Arc::new(Semaphore::new(config.limits.pipes));
        let common = Common { health: health.clone(), pipes: pipes.clone() };
        let shards: Arc<[ShardHandle]> = (0..config.runtime.shards)
            .map(|index| shard::spawn(index, config.clone(), budgets.clone(), board.clone(), common.clone()))
            .collect::<io::Result<_>>()
            .map_err(GatewayError::Shard)?;

        let refused = Arc::new(Refused::default());
        let metrics = Arc::new(Metrics::new(config.clone(), refused.clone(), pipes)?);
        let mut acceptors = JoinSet::new();
        for listener in listeners {
            acceptors.spawn(accept::accept(listener, shards.clone(), config.limits.callers, refused.clone()));
        }
        let mut others = JoinSet::new();
        if let Some(listener) = admin {
            others.spawn(admin::serve(listener, shards.clone(), metrics.clone(), board.clone()));
        }
        others.spawn(tell_health(board.clone(), health.clone()));
        Ok(Self { config, shards, board, health, metrics, addresses, acceptors, others })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Waits until every world can take a job; returns whether that came true within `timeout`.
    pub async fn worlds_ready(&self, timeout: Duration) -> bool {
        let all_ready = async {
            while !self.board.worlds().iter().all(|(_, ready)| *ready) {
                self.board.changed_for_waiters.notified().await;
            }
        };
        tokio::time::timeout(timeout, all_ready).await.is_ok()
    }

    /// The text that Prometheus reads.
    pub async fn metrics(&self) -> String {
        let mut reports = Vec::new();
        for shard in self.shards.iter() {
            reports.extend(shard.report().await);
        }
        self.metrics.render(&reports)
    }

    /// Waits for what must not happen: a shard that ends.
    pub async fn failed(&mut self) -> GatewayError {
        while let Some(ended) = self.acceptors.join_next().await {
            if !matches!(ended, Ok(Ok(()))) {
                return shard::ShardEnded.into();
            }
        }
        // With no front end there is nothing to fail.
        std::future::pending().await
    }

    /// Takes no more jobs, finishes those in hand, at most for `runtime.drain_timeout`, and ends.
    pub async fn drain(self) -> Result<(), GatewayError> {
        let Self { config, shards, board, health, mut acceptors, mut others, .. } = self;
        tracing::info!(timeout = ?config.runtime.drain_timeout, "draining");
        board.is_draining.store(true, Ordering::Relaxed);
        health.set_draining().await;
        health.set_any_world(false).await;
        acceptors.shutdown().await;
        // The admin port answers to the end, so that an operator can watch.
        let mut drains = JoinSet::new();
        for index in 0..shards.len() {
            let shards = shards.clone();
            drains.spawn(async move { shards[index].drain().await });
        }
        let mut result = Ok(());
        while let Some(drained) = drains.join_next().await {
            if !matches!(drained, Ok(Ok(()))) {
                result = Err(shard::ShardEnded.into());
            }
        }
        others.shutdown().await;
        result
    }
}

type Bound = (Vec<Listener>, Addresses, Option<tokio::net::TcpListener>);

async fn bind(config: &Config) -> Result<Bound, BindError> {
    let access = SocketAccess { mode: config.listen.socket_mode, group: config.listen.socket_group };
    let mut listeners = Vec::new();
    let mut addresses = Addresses { grpc: None, hardserver: Vec::new(), admin: None };
    if let Some(address) = config.listen.grpc {
        let (listener, address) = accept::bind_grpc(address).await?;
        listeners.push(listener);
        addresses.grpc = Some(address);
    }
    for address in &config.listen.hardserver {
        let (listener, address) = accept::bind_hardserver(address, access).await?;
        listeners.push(listener);
        addresses.hardserver.push(address);
    }
    let mut admin = None;
    if let Some(address) = config.listen.admin {
        let (listener, address) = accept::bind_tcp(address).await?;
        admin = Some(listener);
        addresses.admin = Some(address);
    }
    Ok((listeners, addresses, admin))
}

/// On how many shards each world can take jobs.
struct Board {
    names: Vec<String>,
    ready_shards: Vec<AtomicUsize>,
    is_draining: AtomicBool,
    changed_for_health: Notify,
    changed_for_waiters: Notify,
}

impl Board {
    fn new(config: &Config) -> Self {
        Self {
            names: config.worlds.iter().map(|world| world.name.clone()).collect(),
            ready_shards: config.worlds.iter().map(|_| AtomicUsize::new(0)).collect(),
            is_draining: AtomicBool::new(false),
            changed_for_health: Notify::new(),
            changed_for_waiters: Notify::new(),
        }
    }
}

impl WorldChange for Board {
    fn world_ready(&self, world: WorldId, ready: bool) {
        let shards = &self.ready_shards[world.0];
        if ready {
            shards.fetch_add(1, Ordering::Relaxed);
        } else {
            shards.fetch_sub(1, Ordering::Relaxed);
        }
        self.changed_for_health.notify_one();
        self.changed_for_waiters.notify_one();
    }
}

impl Readiness for Board {
    fn worlds(&self) -> Vec<(String, bool)> {
        let ready = self.ready_shards.iter().map(|shards| shards.load(Ordering::Relaxed) > 0);
        self.names.iter().cloned().zip(ready).collect()
    }

    fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }
}

/// Keeps the health service true.
async fn tell_health(board: Arc<Board>, health: Health) {
    loop {
        board.changed_for_health.notified().await;
        if board.is_draining() {
            return;
        }
        let worlds = board.worlds();
        health.set_any_world(worlds.iter().any(|(_, ready)| *ready)).await;
        for (world, ready) in &worlds {
            health.set_world(world, *ready).await;
        }
    }
}
