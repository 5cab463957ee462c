//! A whole gateway in this process: its shards, its listeners, its admin port. The control plane, for `serve`, `demo` and
//! whoever embeds it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::access::token::Tokens;
use crate::access::{Access, Users};
use crate::admin::{self, Board, Control, ProcessFiles};
use crate::audit::{Audit, AuditError};
use crate::config::{Config, HardserverAddress, Tls, TlsFileError};
use crate::handover::{Counts, Giver, Held, MessageError, Offer, Yours};
use crate::harden::HardenError;
use crate::listen::accept::{Acceptor, BindError, Binder, Listener, Refused, SocketAccess, UnixSocket};
use crate::listen::grpc::{Common, Health, Pipes};
use crate::listen::inherited::{InheritError, Inherited, Role};
use crate::listen::tls::{Terminator, TlsCounts};
use crate::log_filter::LogFilter;
use crate::places::Places;
use crate::seldom;
use crate::shard::{self, Budgets, Recording, ShardHandle};
use crate::trace::Tracing;
use crate::upstream;

/// Connections from another gateway that may wait to be served here.
const ARRIVALS: usize = 64;

/// How long gRPC callers that were told to connect anew may still begin calls here: they hear of it within a round trip.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// How often one looks whether everything has moved. It is done once in a gateway's life.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Where a gateway listens.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The gRPC front end, where it is on.
    pub grpc: Option<SocketAddr>,
    /// The hardserver front ends.
    pub hardserver: Vec<HardserverAddress>,
    /// The admin port, where it is on.
    pub admin: Option<SocketAddr>,
    /// Where changes come in, where that is not the admin port.
    pub management: Option<HardserverAddress>,
}

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
    offers: mpsc::Receiver<Offer>,
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
}

/// What accepts nobody yet.
struct Unopened {
    listeners: Vec<Listener>,
    admin: Vec<admin::Listener>,
    handover: Option<(Giver, UnixSocket, mpsc::Sender<Offer>)>,
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
        let Beginning { file, inherited, takes_over } = beginning;
        let terminators = Terminators::new(&config)?;
        let Bound { listeners, addresses, admin: admin_listeners, handover, inherited: inherited_listeners } =
            bind(&config, inherited, &terminators).await?;
        // Opened now, since a process that is confined can not.
        let process = ProcessFiles::open();
        let process =
            process.inspect_err(|error| tracing::warn!(%error, "no figures of this process: mount /proc")).ok();
        confine()?;
        let audit = if takes_over { Audit::start_beside(&config) } else { Audit::start(&config) }?;
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
        let (sender, offers) = mpsc::channel(1);
        let handover = match handover {
            Some((held, socket)) => {
                Some((Giver::new(held, board.clone(), handovers).map_err(GatewayError::Binary)?, socket, sender))
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
            unopened: Some(Unopened { listeners, admin: admin_listeners, handover }),
            offers,
        })
    }

    /// Begins to accept callers and operators. Does nothing the second time.
    pub fn open(&mut self) {
        let Some(Unopened { listeners, admin, handover }) = self.unopened.take() else { return };
        for listener in listeners {
            if let Listener::LegacyUnix(socket) = &listener {
                socket.claim();
            }
            self.acceptors.spawn(self.acceptor.clone().accept(listener));
        }
        for listener in admin {
            if let admin::Listener::Unix(socket) = &listener {
                socket.claim();
            }
            self.admin.spawn(admin::serve(listener, self.control.clone(), self.acceptor.users.clone()));
        }
        if let Some((giver, socket, offers)) = handover {
            socket.claim();
            self.keepers.spawn(giver.run(socket, offers));
        }
    }

    /// Accepts callers and operators at the listeners that another gateway had, and takes its legacy connections in as they come.
    pub fn open_after(&mut self, yours: Option<Yours>) {
        let counts = self.control.handovers().clone();
        Counts::add(&counts.taken_over);
        self.open();
        let Some(yours) = yours else { return };
        let (sender, mut arrived) = mpsc::channel(ARRIVALS);
        let acceptor = self.acceptor.clone();
        self.keepers.spawn(async move {
            let taking = tokio::task::spawn_blocking(move || yours.take(&sender));
            while let Some(arrived) = arrived.recv().await {
                Counts::add(&counts.callers);
                if acceptor.take_over(arrived).await.is_err() {
                    return;
                }
            }
            if let Ok(Err(error)) = taking.await {
                tracing::warn!(%error, "the gateway that was taken over from has not given all of its callers");
            }
        });
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

    /// Waits for another gateway that can take over.
    ///
    /// # Errors
    /// What must not happen: a shard that ends.
    pub async fn what_next(&mut self) -> Result<Offer, GatewayError> {
        let Self { offers, acceptors, .. } = self;
        tokio::select! {
            error = failed(acceptors) => Err(error),
            Some(offer) = offers.recv() => Ok(offer),
        }
    }

    /// Gives everything to another gateway that can move, and returns when what can't has ended, or `runtime.handover_timeout` is over;
    /// then this one is to be [drained](Self::drain).
    ///
    /// # Errors
    /// The other one has ended before anything was given: this one goes on as it was.
    pub async fn hand_over(&mut self, mut offer: Offer) -> Result<(), MessageError> {
        let running = offer.running.clone();
        // It takes a moment, and nobody is to be accepted by neither.
        let offer = tokio::task::spawn_blocking(move || offer.accept().map(|()| offer)).await;
        let offer = offer.unwrap_or(Err(MessageError::Closed)).inspect_err(|error| {
            Counts::add(&self.control.handovers().failed);
            tracing::warn!(%error, "the gateway that was to take over did not; this one goes on");
        })?;
        tracing::info!(pid = running.pid, version = running.version, "another gateway takes over");
        self.control.begin_handover(&running).await;
        self.stop_accepting.send_replace(true);
        self.admin.shutdown().await;
        // Those that are on their way in come in first.
        while let Some(ended) = self.acceptors.join_next().await {
            if !matches!(ended, Ok(Ok(()))) {
                tracing::error!("connections that were being accepted are lost");
            }
        }
        let (leaving, to_give) = mpsc::unbounded_channel();
        let giving = tokio::task::spawn_blocking(move || offer.give(to_give));
        for shard in self.shards.iter() {
            // One that has ended has no callers.
            let _ = shard.hand_over(leaving.clone()).await;
        }
        let timeout = self.control.config().runtime.handover_timeout;
        let left = self.until_moved(timeout).await;
        let _ = leaving.send(None);
        drop(leaving);
        match giving.await.unwrap_or(Err(MessageError::Closed)) {
            Ok(callers) if left == 0 => tracing::info!(callers, "everything has been handed over"),
            Ok(callers) => tracing::warn!(callers, left, ?timeout, "what can not move is served no longer"),
            Err(error) => tracing::warn!(%error, "the gateway that takes over has not said that it is well"),
        }
        Ok(())
    }

    /// Waits until nothing is left, at most for `timeout`; returns how much is.
    async fn until_moved(&self, timeout: Duration) -> usize {
        let end = Instant::now() + timeout;
        // Whoever is told to connect anew may have a call on its way that is served here.
        tokio::time::sleep(LAST_CALLS.min(timeout)).await;
        loop {
            let mut left = self.control.open_pipes();
            for shard in self.shards.iter() {
                left += shard.remaining().await.unwrap_or_default();
            }
            if left == 0 || Instant::now() >= end {
                return left;
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Takes no more jobs, finishes those in hand, at most for `runtime.drain_timeout`, and ends.
    pub async fn drain(self) -> Result<(), GatewayError> {
        let Self { control, shards, mut acceptors, mut keepers, mut admin, unopened, .. } = self;
        drop(unopened);
        tracing::info!(timeout = ?control.config().runtime.drain_timeout, "draining, to stop then");
        control.begin_stop().await;
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

/// What every listener is bound to.
struct Bound {
    listeners: Vec<Listener>,
    addresses: Addresses,
    admin: Vec<admin::Listener>,
    /// What another gateway may have, and where it asks for it.
    handover: Option<(Vec<Held>, UnixSocket)>,
    /// How many sockets another gateway had bound.
    inherited: u64,
}

/// TLS, where it is spoken.
#[derive(Clone, Default)]
pub struct Terminators {
    /// For gRPC.
    pub grpc: Option<Arc<Terminator>>,
    /// For the hardserver wire.
    pub hardserver: Option<Arc<Terminator>>,
    /// For `listen.management`.
    pub management: Option<Arc<Terminator>>,
}

impl Terminators {
    fn new(config: &Config) -> Result<Self, TlsFileError> {
        let new = |listener, tls: Option<&Tls>, protocols| {
            tls.map(|tls| Terminator::new(listener, tls, protocols)).transpose()
        };
        let is_tls = |address: &HardserverAddress| matches!(address, HardserverAddress::Tls(_));
        let of_hardserver = config.tls.as_ref().filter(|_| config.listen.hardserver.iter().any(is_tls));
        Ok(Self {
            grpc: new("grpc", config.tls.as_ref().filter(|_| config.listen.grpc.is_some()), &[b"h2"])?,
            hardserver: new("hardserver", of_hardserver, &[])?,
            management: new("management", config.management_tls.as_ref(), &[b"http/1.1"])?,
        })
    }

    /// Each that there is.
    pub fn all(&self) -> impl Iterator<Item = Arc<Terminator>> + use<> {
        [&self.grpc, &self.hardserver, &self.management].map(Clone::clone).into_iter().flatten()
    }

    /// How handshakes and reloads went, by listener; nothing where no TLS is spoken.
    pub fn counts(&self) -> [(&'static str, TlsCounts); 3] {
        let counts = |terminator: &Option<Arc<Terminator>>| {
            terminator.as_ref().map(|terminator| terminator.counts()).unwrap_or_default()
        };
        [
            ("grpc", counts(&self.grpc)),
            ("hardserver", counts(&self.hardserver)),
            ("management", counts(&self.management)),
        ]
    }

    /// How much of `handshakes` is used where most of it is, 0 to 1; 0 where no TLS is spoken.
    pub fn used(&self) -> f64 {
        self.all().map(|terminator| terminator.used()).fold(0.0, f64::max)
    }

    /// Goes by another configuration, which has TLS where this one has it.
    pub fn reload(&self, config: &Config) {
        for (terminator, tls) in
            [(&self.grpc, &config.tls), (&self.hardserver, &config.tls), (&self.management, &config.management_tls)]
        {
            if let (Some(terminator), Some(tls)) = (terminator, tls) {
                terminator.reload(tls);
            }
        }
    }
}

async fn bind(config: &Config, inherited: Inherited, terminators: &Terminators) -> Result<Bound, GatewayError> {
    let access = SocketAccess { mode: config.listen.socket_mode, group: config.listen.socket_group };
    let mut binder = Binder { inherited, access, held: config.listen.handover.as_ref().map(|_| Vec::new()) };
    let mut listeners = Vec::new();
    let mut addresses = Addresses { grpc: None, hardserver: Vec::new(), admin: None, management: None };
    if let Some(address) = config.listen.grpc {
        let (listener, address) = binder.tcp(Role::Grpc, address).await?;
        listeners.push(Listener::Grpc(listener, terminators.grpc.clone()));
        addresses.grpc = Some(address);
    }
    for address in &config.listen.hardserver {
        let (listener, address) = binder.hardserver(address, terminators.hardserver.as_ref()).await?;
        listeners.push(listener);
        addresses.hardserver.push(address);
    }
    let mut admin = Vec::new();
    if let Some(address) = config.listen.admin {
        let (listener, address) = binder.tcp(Role::Admin, address).await?;
        admin.push(admin::Listener::Plain { listener, takes_changes: config.listen.management.is_none() });
        addresses.admin = Some(address);
    }
    match (&config.listen.management, &terminators.management) {
        (Some(HardserverAddress::Unix(path)), _) => {
            admin.push(admin::Listener::Unix(binder.unix(Role::Management, path)?));
            addresses.management = Some(HardserverAddress::Unix(path.clone()));
        }
        (Some(HardserverAddress::Tls(address)), Some(terminator)) => {
            let (listener, address) = binder.tcp(Role::Management, *address).await?;
            admin.push(admin::Listener::Tls(listener, terminator.clone()));
            addresses.management = Some(HardserverAddress::Tls(address));
        }
        // The configuration has neither without the other, and no plain TCP here.
        (Some(HardserverAddress::Tls(_) | HardserverAddress::Tcp(_)) | None, _) => {}
    }
    let handover = match &config.listen.handover {
        Some(path) => Some(binder.unix(Role::Handover, path)?),
        None => None,
    };
    let inherited = binder.inherited.taken_over();
    binder.inherited.all_taken()?;
    Ok(Bound { listeners, addresses, admin, handover: binder.held.zip(handover), inherited })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::path::Path;

    use russh::keys::ssh_key::LineEnding;
    use russh::keys::{Algorithm, PrivateKey};
    use seeway_proto::v1::SubmitRequest;
    use seeway_proto::v1::see_job_service_client::SeeJobServiceClient;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tonic::transport::{Channel, Endpoint};
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;
    use crate::schedule::WorldId;
    use crate::shard::WorldChange as _;

    /// For what takes milliseconds on an idle computer. Far below the time-outs of [`config`].
    const BOUND: Duration = Duration::from_secs(20);

    /// One world `w`, on a machine at `address`, as `seeway.toml` in the folder has it. Jobs wait for longer than a test.
    fn config(folder: &Path, address: SocketAddr) -> Config {
        let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).expect("a key");
        let mut identity = std::fs::OpenOptions::new();
        let mut identity =
            identity.write(true).create_new(true).mode(0o600).open(folder.join("identity")).expect("new");
        let text = key.to_openssh(LineEnding::LF).expect("encoded");
        io::Write::write_all(&mut identity, text.as_bytes()).expect("written");
        let host_key = key.public_key().to_openssh().expect("encoded");
        let text = format!(
            "[listen]
grpc = \"127.0.0.1:0\"
hardserver = []
admin = \"127.0.0.1:0\"
[runtime]
shards = 1
drain_timeout = \"5m\"
[limits]
hold = \"5m\"
default_timeout = \"5m\"
[[machine]]
name = \"hsm\"
address = \"{address}\"
identity = \"identity\"
host_key = \"{host_key}\"
[[world]]
name = \"w\"
machines = [\"hsm\"]
"
        );
        std::fs::write(folder.join("seeway.toml"), &text).expect("written");
        Config::read(&text, &folder.join("seeway.toml"), []).unwrap_or_else(|problems| panic!("{problems}"))
    }

    async fn status(health: &mut HealthClient<Channel>, service: &str) -> ServingStatus {
        let checked = health.check(HealthCheckRequest { service: service.into() }).await;
        checked.unwrap_or_else(|error| panic!("{service}: {error}")).into_inner().status()
    }

    /// The answer to a request that does not ask for the connection's end.
    async fn get(admin: SocketAddr, page: &str) -> String {
        let asked = async {
            let mut stream = TcpStream::connect(admin).await?;
            stream.write_all(format!("GET {page} HTTP/1.1\r\nHost: gateway\r\n\r\n").as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.map(|_| answer)
        };
        let answer = tokio::time::timeout(BOUND, asked).await;
        answer.unwrap_or_else(|_| panic!("{page} has no end")).unwrap_or_else(|error| panic!("{page}: {error}"))
    }

    async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let reached = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(BOUND, reached).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
    }

    #[tokio::test]
    async fn a_gateway_that_drains_says_so_everywhere_until_it_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        // Takes connections and never says a word.
        let machine = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let config = config(folder.path(), machine.local_addr().expect("bound"));
        let gateway = Gateway::start(Arc::new(config)).await.unwrap_or_else(|error| panic!("{error}"));
        let Addresses { grpc: Some(grpc), admin: Some(admin), .. } = *gateway.addresses() else {
            panic!("{:?}", gateway.addresses())
        };
        let channel = Endpoint::from_shared(format!("http://{grpc}")).expect("an address");
        let channel = channel.connect().await.unwrap_or_else(|error| panic!("{error}"));
        let mut health = HealthClient::new(channel.clone());
        let names = ["", "seeway.v1.SeeJobService", "world/w"];

        // As a shard says it.
        let control = gateway.control().clone();
        let board = control.board();
        board.world_ready(WorldId(0), true);
        for name in names {
            until(name, async || status(&mut health, name).await == ServingStatus::Serving).await;
        }
        let mut jobs = SeeJobServiceClient::new(channel);
        let job = tokio::spawn(async move {
            let job = SubmitRequest { world: "w".into(), job: "job".into(), ..Default::default() };
            jobs.submit(job).await
        });
        until("the job is in hand", async || get(admin, "/metrics").await.contains("\nseeway_jobs 1\n")).await;

        let drained = tokio::spawn(gateway.drain());
        for name in names {
            until(name, async || status(&mut health, name).await == ServingStatus::NotServing).await;
        }
        // A tunnel that comes back meanwhile changes nothing.
        board.world_ready(WorldId(0), true);
        let page = get(admin, "/metrics").await;
        assert!(page.contains("\nseeway_jobs 1\n"), "the shard answers while it drains:\n{page}");
        assert!(page.contains("\nseeway_queue_seconds_count{world=\"w\"} 0\n"), "{page}");
        assert!(get(admin, "/readyz").await.starts_with("HTTP/1.1 503 "));
        for name in names {
            assert_eq!(status(&mut health, name).await, ServingStatus::NotServing, "{name}");
        }
        assert!(!drained.is_finished(), "a job is still in hand");

        job.abort();
        let drained = tokio::time::timeout(BOUND, drained).await.expect("nothing is in hand any more");
        drained.expect("no panic").unwrap_or_else(|error| panic!("{error}"));
    }

    #[tokio::test]
    async fn worlds_that_come_and_go_are_seen_everywhere_or_nowhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let machine = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let first = config(folder.path(), machine.local_addr().expect("bound"));
        let file = folder.path().join("seeway.toml");
        let text = std::fs::read_to_string(&file).expect("written by config()");
        let gateway = Gateway::start_from(Arc::new(first), Some(file.clone())).await;
        let gateway = gateway.unwrap_or_else(|error| panic!("{error}"));
        let Addresses { grpc: Some(grpc), admin: Some(admin), .. } = *gateway.addresses() else {
            panic!("{:?}", gateway.addresses())
        };
        let channel = Endpoint::from_shared(format!("http://{grpc}")).expect("an address");
        let channel = channel.connect().await.unwrap_or_else(|error| panic!("{error}"));
        let mut health = HealthClient::new(channel.clone());
        assert_eq!(status(&mut health, "world/w").await, ServingStatus::NotServing);

        std::fs::write(&file, text.replace("name = \"w\"", "name = \"v\"")).expect("written");
        let reloaded = gateway.control().reload().await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((reloaded.worlds_added, reloaded.worlds_removed), (vec!["v".to_owned()], vec!["w".to_owned()]));
        let gone = health.check(HealthCheckRequest { service: "world/w".into() }).await.expect_err("gone");
        assert_eq!(gone.code(), tonic::Code::NotFound);
        assert_eq!(status(&mut health, "world/v").await, ServingStatus::NotServing);
        let board = gateway.control().board();
        // As a shard says it of the world that is new, and of the one that is gone.
        board.world_ready(WorldId(1), true);
        board.world_ready(WorldId(0), true);
        until("v is ready", async || status(&mut health, "world/v").await == ServingStatus::Serving).await;
        let page = get(admin, "/readyz").await;
        assert!(page.contains("world v: ready") && !page.contains("world w"), "{page}");
        let page = get(admin, "/metrics").await;
        assert!(page.contains("{world=\"v\"") && !page.contains("world=\"w\""), "{page}");
        assert!(health.check(HealthCheckRequest { service: "world/w".into() }).await.is_err(), "it stays gone");

        let drained = gateway.control().set_draining(None, true).await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((drained.is_draining, drained.jobs), (true, 0));
        for name in ["", "seeway.v1.SeeJobService", "world/v"] {
            assert_eq!(status(&mut health, name).await, ServingStatus::NotServing, "{name}, when the change is done");
        }
        gateway.control().set_draining(None, false).await.unwrap_or_else(|error| panic!("{error}"));
        for name in ["", "seeway.v1.SeeJobService", "world/v"] {
            assert_eq!(status(&mut health, name).await, ServingStatus::Serving, "{name}, when the change is done");
        }

        std::fs::write(&file, text).expect("written");
        gateway.control().reload().await.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(status(&mut health, "world/w").await, ServingStatus::Serving, "as its shard has said");
        let control = gateway.control().clone();
        gateway.drain().await.unwrap_or_else(|error| panic!("{error}"));
        assert!(matches!(control.reload().await, Err(admin::ReloadError::Stopping)));
        assert!(matches!(control.set_draining(None, false).await, Err(admin::DrainError::Stopping)));
        // Every shard has ended, and none of what they counted is lost.
        let page = control.metrics().await;
        assert!(page.contains("\nseeway_shards 1\n") && page.contains("seeway_jobs_total{world=\"w\""), "{page}");
    }

    #[tokio::test]
    async fn the_shards_are_asked_as_long_as_somebody_looks_and_no_longer() {
        let folder = tempfile::tempdir().expect("a folder");
        let machine = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let config = config(folder.path(), machine.local_addr().expect("bound"));
        let gateway = Gateway::start(Arc::new(config)).await.unwrap_or_else(|error| panic!("{error}"));
        let admin = gateway.addresses().admin.expect("on");
        let is_looked_at = || gateway.control().is_looked_at();
        assert!(get(admin, "/metrics").await.contains("seeway_build_info"));
        assert!(!is_looked_at(), "nobody looks every second");
        let mut stream = TcpStream::connect(admin).await.expect("accepted");
        let asks = format!("GET /api/events HTTP/1.1\r\nHost: {admin}\r\n\r\n");
        stream.write_all(asks.as_bytes()).await.expect("sent");
        let mut heard = Vec::new();
        while String::from_utf8_lossy(&heard).matches("event: state").count() < 3 {
            let read = tokio::time::timeout(BOUND, stream.read_buf(&mut heard)).await.expect("each second");
            assert!(read.expect("it goes on") > 0, "{}", String::from_utf8_lossy(&heard));
        }
        assert!(is_looked_at());
        drop(stream);
        until("nobody is asked any more", async || !is_looked_at()).await;
        // And whoever comes then hears what is so then.
        let mut stream = TcpStream::connect(admin).await.expect("accepted");
        stream.write_all(asks.replace("events", "state").as_bytes()).await.expect("sent");
        let mut state = String::new();
        stream.read_to_string(&mut state).await.expect("an answer");
        assert!(state.contains("\"interval\":0.0,"), "{state}");
        assert!(is_looked_at());
    }

    #[tokio::test]
    async fn connections_that_ask_nothing_do_not_keep_an_operator_waiting() {
        let folder = tempfile::tempdir().expect("a folder");
        let machine = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let config = config(folder.path(), machine.local_addr().expect("bound"));
        let gateway = Gateway::start(Arc::new(config)).await.unwrap_or_else(|error| panic!("{error}"));
        let admin = gateway.addresses().admin.expect("on");
        assert!(get(admin, "/healthz").await.ends_with("\r\n\r\nok\n"), "and its connection has ended");

        let mut idle = Vec::new();
        for _ in 0..admin::MAX_CONNECTIONS {
            idle.push(TcpStream::connect(admin).await.expect("accepted"));
        }
        // The connections before it are accepted before it.
        let mut past = TcpStream::connect(admin).await.expect("the system accepts it");
        let end = tokio::time::timeout(BOUND, past.read(&mut [0])).await.expect("closed at once");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        // Those that ask nothing are closed as well, soon.
        for connection in &mut idle {
            let end = tokio::time::timeout(BOUND, connection.read_to_end(&mut Vec::new())).await;
            assert!(end.is_ok(), "an idle connection is still open");
        }
        until("there is room", async || get(admin, "/healthz").await.starts_with("HTTP/1.1 200 ")).await;
    }
}
