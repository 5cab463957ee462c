//! A whole gateway in this process: its shards, its listeners, its admin port. The control plane, for `serve`, `demo` and
//! whoever embeds it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::access::token::Tokens;
use crate::access::{Access, Users};
use crate::admin::{self, Board, Control};
use crate::audit::{Audit, AuditError};
use crate::config::{Config, HardserverAddress, Tls, TlsFileError};
use crate::harden::HardenError;
use crate::listen::accept::{self, Acceptor, BindError, Listener, Refused, SocketAccess};
use crate::listen::grpc::{Common, Health, Pipes};
use crate::listen::tls::{Terminator, TlsCounts};
use crate::places::Places;
use crate::shard::{self, Budgets, ShardHandle};
use crate::upstream;

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
}

/// A gateway that takes jobs until it is drained. Must be used on the runtime that it was started on.
pub struct Gateway {
    control: Arc<Control>,
    shards: Arc<[ShardHandle]>,
    addresses: Addresses,
    acceptors: JoinSet<Result<(), shard::ShardEnded>>,
    /// Whoever tells the health service which worlds are ready.
    teller: JoinSet<()>,
    admin: JoinSet<()>,
}

impl Gateway {
    /// Binds every listener, starts the shards, and begins to take jobs. Tunnels are made meanwhile.
    pub async fn start(config: Arc<Config>) -> Result<Self, GatewayError> {
        Self::start_from(config, None).await
    }

    /// Starts one whose configuration was read from `file`, which a reload reads again.
    pub async fn start_from(config: Arc<Config>, file: Option<PathBuf>) -> Result<Self, GatewayError> {
        Self::start_confined(config, file, || Ok(())).await
    }

    /// Starts one and calls `confine` when every listener is bound and no thread was started yet.
    pub async fn start_confined(
        config: Arc<Config>,
        file: Option<PathBuf>,
        confine: impl FnOnce() -> Result<(), HardenError>,
    ) -> Result<Self, GatewayError> {
        let now = Instant::now();
        let terminators = Terminators::new(&config)?;
        let Bound { listeners, addresses, admin: admin_listeners } = bind(&config, &terminators).await?;
        confine()?;
        let audit = Audit::start(&config)?;
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
                shard::spawn(index, config, budgets, access, board.clone(), common.clone(), recorder)
            })
            .collect::<io::Result<_>>()
            .map_err(GatewayError::Shard)?;

        let refused = Arc::new(Refused::recorded_in(audit.clone()));
        let callers = Places::new(config.limits.callers, config.limits.peer_callers);
        let mut acceptors = JoinSet::new();
        let (shards_too, limit, users) = (shards.clone(), callers.clone(), Users::default());
        let acceptor = Acceptor { shards: shards_too, limit, refused: refused.clone(), users: users.clone() };
        for listener in listeners {
            acceptors.spawn(acceptor.clone().accept(listener));
        }
        let parts = admin::Parts {
            file,
            shards: shards.clone(),
            board: board.clone(),
            health: health.clone(),
            callers,
            pipes,
            refused,
            audit,
            terminators: terminators.clone(),
            tokens: tokens.clone(),
        };
        let control = Arc::new(Control::new(parts, config, budgets));
        let mut admin = JoinSet::new();
        for listener in admin_listeners {
            admin.spawn(admin::serve(listener, control.clone(), users.clone()));
        }
        let mut teller = JoinSet::new();
        teller.spawn(tokens.keep_fresh());
        for terminator in terminators.all() {
            teller.spawn(async move { terminator.watch().await });
        }
        teller.spawn(async move { board.keep_telling(&health).await });
        Ok(Self { control, shards, addresses, acceptors, teller, admin })
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
        let Self { control, shards, mut acceptors, mut teller, mut admin, .. } = self;
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
        teller.shutdown().await;
        admin.shutdown().await;
        if let Some(audit) = control.audit().cloned() {
            // After the last job has ended, so that each has its record.
            let _ = tokio::task::spawn_blocking(move || audit.end()).await;
        }
        result
    }
}

/// What every listener is bound to.
struct Bound {
    listeners: Vec<Listener>,
    addresses: Addresses,
    admin: Vec<admin::Listener>,
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

async fn bind(config: &Config, terminators: &Terminators) -> Result<Bound, BindError> {
    let access = SocketAccess { mode: config.listen.socket_mode, group: config.listen.socket_group };
    let mut listeners = Vec::new();
    let mut addresses = Addresses { grpc: None, hardserver: Vec::new(), admin: None, management: None };
    if let Some(address) = config.listen.grpc {
        let (listener, address) = accept::bind_tcp(address).await?;
        listeners.push(Listener::Grpc(listener, terminators.grpc.clone()));
        addresses.grpc = Some(address);
    }
    for address in &config.listen.hardserver {
        let (listener, address) = accept::bind_hardserver(address, access, terminators.hardserver.as_ref()).await?;
        listeners.push(listener);
        addresses.hardserver.push(address);
    }
    let mut admin = Vec::new();
    if let Some(address) = config.listen.admin {
        let (listener, address) = accept::bind_tcp(address).await?;
        admin.push(admin::Listener::Plain { listener, takes_changes: config.listen.management.is_none() });
        addresses.admin = Some(address);
    }
    match (&config.listen.management, &terminators.management) {
        (Some(HardserverAddress::Unix(path)), _) => {
            admin.push(admin::Listener::Unix(accept::bind_unix(path, access)?));
            addresses.management = Some(HardserverAddress::Unix(path.clone()));
        }
        (Some(HardserverAddress::Tls(address)), Some(terminator)) => {
            let (listener, address) = accept::bind_tcp(*address).await?;
            admin.push(admin::Listener::Tls(listener, terminator.clone()));
            addresses.management = Some(HardserverAddress::Tls(address));
        }
        // The configuration has neither without the other, and no plain TCP here.
        (Some(HardserverAddress::Tls(_) | HardserverAddress::Tcp(_)) | None, _) => {}
    }
    Ok(Bound { listeners, addresses, admin })
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
