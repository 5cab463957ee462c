//! A whole gateway in this process: its shards, its listeners, its admin port. The control plane, for `serve`, `demo` and
//! whoever embeds it.

mod bound;
mod handing;
mod terminators;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::access::token::Tokens;
use crate::access::{Access, Users};
use crate::admin::{self, Board, Control, ProcessFiles};
use crate::audit::{Aside, Audit, AuditError};
use crate::config::{Config, TlsFileError};
use crate::handover::{Asked, Counts, Giver, Successor};
use crate::harden::HardenError;
use crate::listen::accept::{Acceptor, BindError, Listener, Refused, UnixSocket};
use crate::listen::grpc::{Common, Health, Pipes};
use crate::listen::inherited::{InheritError, Inherited};
use crate::log_filter::LogFilter;
use crate::places::Places;
use crate::seldom;
use crate::shard::{self, Budgets, Recording, ShardHandle};
use crate::trace::Tracing;
use crate::upstream;

pub use bound::Addresses;
use bound::{Bound, Files, bind};
pub use handing::HandedOver;
use handing::Predecessor;
pub use terminators::Terminators;

/// Why a gateway does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A listener's address can not be used.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate or key that was good when the configuration was read is no longer.
    #[error(transparent)]
    Tls(#[from] TlsFileError),
    /// The system gave no thread or no event queue.
    #[error("a shard does not start: {0}; let the process have more threads and open files (TasksMax=, LimitNOFILE=)")]
    Shard(io::Error),
    /// The audit log can not be opened.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A shard has ended unasked.
    #[error(transparent)]
    Ended(#[from] shard::ShardEnded),
    /// The process can't be confined as it has to be.
    #[error(transparent)]
    Harden(#[from] HardenError),
    /// What systemd has passed can't be used.
    #[error(transparent)]
    Inherit(#[from] InheritError),
    /// The gateway that was to be taken over from has not left its place.
    #[error("{0}; nothing was taken over")]
    NotLeft(String),
    /// What another gateway had for a moment can't be had again.
    #[error(
        "the listening sockets can not be had again from a gateway that has ended: {0}; let the process have more open files (LimitNOFILE=)"
    )]
    Retake(io::Error),
    /// Nobody could tell it from another program.
    #[error("the system does not say which file this process runs: {0}; mount /proc, or take listen.handover out")]
    Binary(io::Error),
}

/// A gateway that takes jobs until it is drained. Must be used on the runtime that it was started on.
pub struct Gateway {
    control: Arc<Control>,
    shards: Arc<[ShardHandle]>,
    addresses: Addresses,
    acceptor: Acceptor,
    /// Told to whoever accepts connections when no other is wanted.
    stop_accepting: watch::Sender<bool>,
    acceptors: JoinSet<Result<(), shard::ShardEnded>>,
    /// Whoever keeps something true in the background: the health service, keys of tokens, certificates.
    keepers: JoinSet<()>,
    admin: JoinSet<()>,
    /// Listeners at which nobody is accepted yet.
    unopened: Option<Unopened>,
    /// What somebody asks at `listen.handover`.
    asked: mpsc::Receiver<Asked>,
    files: Files,
    watchdog: Option<Duration>,
    terminators: Terminators,
    /// Whom this one has taken over from.
    predecessor: Option<Predecessor>,
    /// Who has taken over from this one: that one waits for this one's end.
    successor: Option<Successor>,
}

/// How a gateway begins.
#[derive(Default)]
pub struct Beginning {
    /// The file that the configuration was read from, which a reload reads again.
    pub file: Option<PathBuf>,
    /// Listening sockets that are there already.
    pub inherited: Inherited,
    /// Whether another gateway runs on until this one is [opened](Gateway::open).
    pub takes_over: bool,
    /// How often systemd wants to hear of the unit's main process, where it does: for the gateway after this one.
    pub watchdog: Option<Duration>,
}

/// What accepts nobody yet.
struct Unopened {
    listeners: Vec<Listener>,
    admin: Vec<admin::Listener>,
    handover: Option<(Giver, UnixSocket, mpsc::Sender<Asked>)>,
    /// Another gateway's audit log, which gets its name back unless this one is opened.
    aside: Option<Aside>,
}

impl Gateway {
    /// Binds every listener, starts the shards, and begins to take jobs. Tunnels are made meanwhile.
    pub async fn start(config: Arc<Config>) -> Result<Self, GatewayError> {
        Self::start_from(config, None).await
    }

    /// Starts one whose configuration was read from `file`, which a reload reads again.
    pub async fn start_from(config: Arc<Config>, file: Option<PathBuf>) -> Result<Self, GatewayError> {
        let mut gateway = Self::start_confined(config, Beginning { file, ..Beginning::default() }, || Ok(())).await?;
        gateway.open();
        Ok(gateway)
    }

    /// Starts one and calls `confine` when every listener is bound and no thread was started yet. Nobody is accepted until it is
    /// [opened](Self::open).
    pub async fn start_confined(
        config: Arc<Config>,
        beginning: Beginning,
        confine: impl FnOnce() -> Result<(), HardenError>,
    ) -> Result<Self, GatewayError> {
        let now = Instant::now();
        let Beginning { file, inherited, takes_over, watchdog } = beginning;
        let terminators = Terminators::new(&config)?;
        let Bound { listeners, addresses, admin: admin_listeners, handover, inherited: inherited_listeners, files } =
            bind(&config, inherited, &terminators, true).await?;
        // Opened now, since a process that is confined can not.
        let process = ProcessFiles::open();
        let process =
            process.inspect_err(|error| tracing::warn!(%error, "no figures of this process: mount /proc")).ok();
        confine()?;
        let (audit, aside) = if takes_over { Audit::start_beside(&config)? } else { (Audit::start(&config)?, None) };
        let tracing = Tracing::start(&config);
        let access = Access::new(now);
        upstream::warn_of_ends(&config);
        let board = Arc::new(Board::new(&config));
        let health = Health::new();
        board.tell(&health).await;
        let budgets = Budgets::new(&config);
        let pipes = Pipes::new(config.limits.pipes);
        let tokens = Tokens::new(config.token.clone());
        let common = Common { health: health.clone(), pipes: pipes.clone(), tokens: tokens.clone() };
        let shards: Arc<[ShardHandle]> = (0..config.runtime.shards)
            .map(|index| {
                let (config, budgets, access) = (config.clone(), budgets.clone(), access.clone());
                let recorder = audit.as_ref().map(|audit| audit.recorder(index));
                let recording = Recording::new(recorder, tracing.as_ref().map(|tracing| tracing.tracer()));
                shard::spawn(index, config, budgets, access, board.clone(), common.clone(), recording)
            })
            .collect::<io::Result<_>>()
            .map_err(GatewayError::Shard)?;

        let refused = Arc::new(Refused::recorded_in(audit.clone()));
        let callers = Places::new(config.limits.callers, config.limits.peer_callers);
        let handovers = Arc::new(Counts::default());
        handovers.listeners.store(inherited_listeners, Ordering::Relaxed);
        let (stop_accepting, stopped) = watch::channel(false);
        let (limit, users) = (callers.clone(), Users::default());
        let acceptor = Acceptor { shards: shards.clone(), limit, refused: refused.clone(), users, stopped };
        let parts = admin::Parts {
            file,
            shards: shards.clone(),
            board: board.clone(),
            health: health.clone(),
            callers,
            pipes,
            refused,
            audit,
            tracing,
            terminators: terminators.clone(),
            tokens: tokens.clone(),
            handovers: handovers.clone(),
            process,
        };
        let control = Arc::new(Control::new(parts, config, budgets));
        let mut keepers = JoinSet::new();
        keepers.spawn(seldom::keep_telling());
        if let Some(filter) = LogFilter::of_process() {
            keepers.spawn(filter.keep_time());
        }
        keepers.spawn(tokens.keep_fresh());
        for terminator in terminators.all() {
            keepers.spawn(async move { terminator.watch().await });
        }
        let told_of = board.clone();
        keepers.spawn(async move { told_of.keep_telling(&health).await });
        let (sender, asked) = mpsc::channel(1);
        let handover = match handover {
            Some((held, socket)) => {
                let giver = Giver::new(held, control.clone(), watchdog);
                Some((giver.map_err(GatewayError::Binary)?, socket, sender))
            }
            None => None,
        };
        Ok(Self {
            control,
            shards,
            addresses,
            acceptor,
            stop_accepting,
            acceptors: JoinSet::new(),
            keepers,
            admin: JoinSet::new(),
            unopened: Some(Unopened { listeners, admin: admin_listeners, handover, aside }),
            asked,
            files,
            watchdog,
            terminators,
            predecessor: None,
            successor: None,
        })
    }

    /// Begins to accept callers and operators. Does nothing the second time.
    pub fn open(&mut self) {
        self.files.claim();
        self.accept();
    }

    /// The same, while the files of sockets are another gateway's.
    fn accept(&mut self) {
        let Some(Unopened { listeners, admin, handover, aside }) = self.unopened.take() else { return };
        // The process that wrote it leaves its place.
        if let Some(aside) = aside {
            aside.keep();
        }
        for listener in listeners {
            self.acceptors.spawn(self.acceptor.clone().accept(listener));
        }
        for listener in admin {
            self.admin.spawn(admin::serve(listener, self.control.clone(), self.acceptor.users.clone()));
        }
        if let Some((giver, socket, asked)) = handover {
            self.keepers.spawn(giver.run(socket, asked));
        }
    }

    /// The first Unix socket whose file is gone, or another's, so that nobody can connect.
    pub fn lost_name(&self) -> Option<&Path> {
        self.files.lost()
    }

    /// What another gateway's audit log was renamed to, if it was.
    pub fn aside(&self) -> Option<&Path> {
        self.unopened.as_ref()?.aside.as_ref()?.name()
    }

    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// What can be done to it while it runs.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Waits until every world can take a job; returns whether that came true within `timeout`.
    pub async fn worlds_ready(&self, timeout: Duration) -> bool {
        tokio::time::timeout(timeout, self.control.board().all_ready()).await.is_ok()
    }

    /// The text that Prometheus reads.
    pub async fn metrics(&self) -> String {
        self.control.metrics().await
    }

    /// Waits for what must not happen: a shard that ends.
    pub async fn failed(&mut self) -> GatewayError {
        failed(&mut self.acceptors).await
    }

    /// Takes no more jobs, finishes those in hand, at most for `runtime.drain_timeout`, and ends.
    pub async fn drain(self) -> Result<(), GatewayError> {
        let Self { control, shards, mut acceptors, mut keepers, mut admin, unopened, asked, .. } = self;
        // Whoever waits to take over is told that there is nothing.
        drop((unopened, asked));
        let timeout = control.config().runtime.drain_timeout;
        let drained = Instant::now() + timeout;
        if let Some(predecessor) = &self.predecessor {
            predecessor.stop();
        }
        tracing::info!(?timeout, "draining, to stop then");
        control.begin_stop().await;
        acceptors.shutdown().await;
        self.files.remove();
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
        if let Some(predecessor) = self.predecessor {
            predecessor.ended(drained).await;
            self.files.remove();
        }
        keepers.shutdown().await;
        seldom::tell_rest(Instant::now() + seldom::PERIOD);
        admin.shutdown().await;
        // Both after the last job has ended, so that each has its span and its record.
        if let Some(tracing) = control.tracing() {
            tracing.end().await;
        }
        if let Some(audit) = control.audit().cloned() {
            let _ = tokio::task::spawn_blocking(move || audit.end()).await;
        }
        if let Some(successor) = self.successor {
            successor.hang_up();
        }
        result
    }
}

async fn failed(acceptors: &mut JoinSet<Result<(), shard::ShardEnded>>) -> GatewayError {
    while let Some(ended) = acceptors.join_next().await {
        if !matches!(ended, Ok(Ok(()))) {
            return shard::ShardEnded.into();
        }
    }
    // With no front end there is nothing to fail.
    std::future::pending().await
}
