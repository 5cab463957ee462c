//! The checked configuration: what `seeway.toml` says once every default is filled in and every problem is ruled out.
//!
//! Built by [`Config::load`](super::Config::load) only, so whoever holds one need not doubt it: names are unique, worlds name
//! machines that are there, identities are keys that nobody else can read.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use seeway_client::tunnel::{Algorithms, Endpoint, HostKey, Identity, Options};
use seeway_proto::wire::{self, Profile};

use super::process::Process;
use super::tls::Tls;
use super::token::Token;
use crate::access::Rules;
use crate::audit;
use crate::schedule::Affinity;
use crate::trace;

/// One `seeway.toml`, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[listen]`: where callers and operators come in.
    pub listen: Listen,
    /// `[tls]`: TLS at the front ends, where it is on.
    pub tls: Option<Tls>,
    /// `[management_tls]`: TLS at `listen.management`, where it is on.
    pub management_tls: Option<Tls>,
    /// `[[permission]]`: who may do what.
    pub permissions: Rules,
    /// `[[machine]]`, in the file's order; at least one. [`World::machines`] holds positions in this list.
    pub machines: Vec<Machine>,
    /// `[[world]]`, in the file's order; at least one.
    pub worlds: Vec<World>,
    /// `[runtime]`: threads and their end.
    pub runtime: Runtime,
    /// `[limits]`: how much of everything.
    pub limits: Limits,
    /// `[ssh]`: how tunnels are made, watched and made again.
    pub ssh: Ssh,
    /// `[retry]`: how often an idempotent job is tried.
    pub retry: Retry,
    /// `[balance]`: how jobs are spread over machines.
    pub balance: Balance,
    /// `[circuit]`: when a machine gets no more jobs because it fails them.
    pub circuit: Circuit,
    /// `[wire]`: the numbers of the SEEJob wire.
    pub wire: Wire,
    /// `[audit]`: what is recorded of jobs and operators; `None`: nothing.
    pub audit: Option<audit::Settings>,
    /// `[trace]`: where spans go; `None`: there are none.
    pub trace: Option<trace::Settings>,
    /// `[token]`: whose tokens are taken; `None`: nobody's.
    pub token: Option<Token>,
    /// `[process]`: what the process takes away from itself.
    pub process: Process,
    /// Every file that the configuration names, without its own.
    pub files: Vec<PathBuf>,
}

impl Config {
    /// The worlds that take jobs: those that are not retired.
    pub fn live_worlds(&self) -> impl Iterator<Item = &World> {
        self.worlds.iter().filter(|world| !world.is_retired)
    }

    /// The machines that jobs go to: those that are not retired.
    pub fn live_machines(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter().filter(|machine| !machine.is_retired)
    }

    /// What the wire's messages are held to.
    pub fn wire_limits(&self) -> wire::Limits {
        wire::Limits { max_job_bytes: self.limits.max_job_bytes }
    }
}

/// Where the gateway of a configuration is, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// `listen.handover`.
    pub handover: Option<PathBuf>,
    /// Whether `process.user` names a user.
    pub has_user: bool,
    /// Whether a machine is logged in to with what a service manager hands over.
    pub has_credentials: bool,
}

/// `[listen]`: where callers and operators come in. Addresses where no TLS is spoken are loopback ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// `listen.grpc`: where gRPC callers connect; `None`: the gRPC front end is off. Port 0 lets the system choose.
    pub grpc: Option<SocketAddr>,
    /// `listen.hardserver`: where legacy callers connect; empty: the hardserver front end is off.
    pub hardserver: Vec<HardserverAddress>,
    /// `listen.upstream_hardserver`: where commands go that Seeway does not serve; `None`: they get UnknownCommand.
    pub upstream_hardserver: Option<HardserverAddress>,
    /// `listen.admin`: `/metrics`, `/healthz`, `/readyz`; `None`: off.
    pub admin: Option<SocketAddr>,
    /// `listen.management`: where changes come in, a Unix socket or TLS; `None`: at `admin`.
    pub management: Option<HardserverAddress>,
    /// `listen.handover`: the Unix socket where another gateway asks to take over; `None`: nobody can.
    pub handover: Option<PathBuf>,
    /// `listen.socket_mode`: the permission bits of every Unix socket, 0 to 0o777.
    pub socket_mode: u32,
    /// `listen.socket_group`: the numeric group that owns every Unix socket; `None`: the process's own.
    pub socket_group: Option<u32>,
}

/// One address of `listen.hardserver`, `listen.upstream_hardserver` (never TLS) or `listen.management` (never plain TCP).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HardserverAddress {
    /// `unix:/path`: a Unix stream socket; at most 107 bytes, its directory was there when the file was checked.
    Unix(PathBuf),
    /// `tcp:host:port`: a loopback address; port 0 lets the system choose.
    Tcp(SocketAddr),
    /// `tls:host:port`: any address; port 0 lets the system choose.
    Tls(SocketAddr),
}

impl fmt::Display for HardserverAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Tls(address) => write!(f, "tls:{address}"),
        }
    }
}

/// What stands in the place of a machine's name where there is none; no machine is called so.
pub const NO_MACHINE: &str = "none";

/// `[[machine]]`: one CodeSafe machine and the SSH server that it is reached through.
#[derive(Clone, Debug)]
pub struct Machine {
    /// `machine.name`: unique; in logs, metrics and outcomes.
    pub name: String,
    /// `machine.address`: its SSH server.
    pub address: Endpoint,
    /// `machine.user`: the login at the SSH server.
    pub user: String,
    /// `machine.identity`, `identity_passphrase`, `certificate` and `agent`: what to log in with. Its private key was read from a
    /// file that nobody else could read, or is in an ssh-agent.
    pub identity: Identity,
    /// `machine.host_key`, `machine.known_hosts` or `machine.host_ca`: the host keys that its SSH server may show, and no others.
    pub host_key: HostKey,
    /// `machine.seejobs_host`: where the machine's SEEJobs port is, as the SSH server sees it.
    pub seejobs_host: String,
    /// `machine.seejobs_port`: the machine's SEEJobs port.
    pub seejobs_port: u16,
    /// `machine.tunnels`: SSH connections, for each shard; at least 1.
    pub tunnels: usize,
    /// `machine.channels`: SEEJob streams on each tunnel; at least 1.
    pub channels: usize,
    /// `machine.bulk_channels`: SEEJob streams on a tunnel of their own, for large jobs only.
    pub bulk_channels: usize,
    /// `machine.max_in_flight`: jobs sent and unanswered, over all its channels; 1 to 65 536.
    pub max_in_flight: usize,
    /// The file that was read last has it no more: it keeps its position, finishes what it has, and takes nothing. Never true
    /// of what a gateway starts with.
    pub is_retired: bool,
}

impl Machine {
    /// What a tunnel to it needs to know.
    pub fn tunnel_options(&self, ssh: &Ssh) -> Options {
        Options {
            server: self.address.clone(),
            user: self.user.clone(),
            identity: self.identity.clone(),
            host_key: self.host_key.clone(),
            algorithms: ssh.algorithms,
            connect_timeout: ssh.connect_timeout,
            keepalive_idle: ssh.keepalive_idle,
            keepalive: ssh.keepalive,
            broken_after: ssh.broken_after,
            rekey_bytes: ssh.rekey_bytes,
            rekey_after: ssh.rekey_after,
            gives_way: false,
        }
    }
}

/// `[[world]]`: one application, on one or more machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// `world.name`: unique; what gRPC callers name.
    pub name: String,
    /// `world.published_as`: unique; what `GetPublishedObject` finds.
    pub published_as: String,
    /// `world.machines`: positions in [`Config::machines`]; at least one, none twice.
    pub machines: Vec<usize>,
    /// `world.idempotent`: whether legacy callers' jobs may be sent again after an unknown outcome.
    pub idempotent: bool,
    /// `world.affinity`: what becomes of a job whose key's machine is down.
    pub affinity: Affinity,
    /// The file that was read last has it no more: it keeps its position, and takes no job. Never true of what a gateway
    /// starts with.
    pub is_retired: bool,
}

/// `[runtime]`: threads and their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// `runtime.shards`: threads of the data plane, `"auto"` already resolved for this computer; at least 1.
    pub shards: usize,
    /// `runtime.drain_timeout`: how long a drain waits for jobs that are still out; zero does not wait.
    pub drain_timeout: Duration,
    /// `runtime.handover_timeout`: how long what can not move is served after another gateway has taken over.
    pub handover_timeout: Duration,
}

/// `[limits]`: how much of everything. None is zero, except [`Limits::hold`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// `limits.max_job_bytes`: the largest job or reply.
    pub max_job_bytes: u32,
    /// `limits.queue`: jobs waiting, for each world.
    pub queue: usize,
    /// `limits.queue_bytes`: bytes of the jobs waiting, for each world; a job of `max_job_bytes` fits.
    pub queue_bytes: usize,
    /// `limits.hold`: how long jobs wait for a world with no machine up; zero fails them at once.
    pub hold: Duration,
    /// `limits.default_timeout`: the deadline of jobs whose caller set none.
    pub default_timeout: Duration,
    /// `limits.callers`: connections at the front ends.
    pub callers: usize,
    /// `limits.peer_callers`: those of one address or one Unix user.
    pub peer_callers: usize,
    /// `limits.caller_jobs`: jobs that one legacy connection or gRPC stream may have outstanding.
    pub caller_jobs: usize,
    /// `limits.caller_queued`: jobs of one caller that may wait.
    pub caller_queued: usize,
    /// `limits.caller_in_flight`: jobs of one caller that may be sent and unanswered.
    pub caller_in_flight: usize,
    /// `limits.caller_bytes`: bytes of one caller's jobs in hand; a job of `max_job_bytes` fits.
    pub caller_bytes: usize,
    /// `limits.caller_buffer_bytes`: replies waiting to be read by one caller, in bytes; a reply of `max_job_bytes` fits.
    pub caller_buffer_bytes: usize,
    /// `limits.connection_buffer_bytes`: unfinished messages of one gRPC connection's calls, in bytes.
    pub connection_buffer_bytes: usize,
    /// `limits.channel_buffer_bytes`: jobs waiting to be written to one channel, in bytes; a job of `max_job_bytes` fits.
    pub channel_buffer_bytes: usize,
    /// `limits.message_timeout`: how long a message may take to come.
    pub message_timeout: Duration,
    /// `limits.pipes`: `Pipe` calls open at once.
    pub pipes: usize,
    /// `limits.bulk_above`: jobs of more bytes go over bulk channels.
    pub bulk_above: usize,
}

/// `[ssh]`: how tunnels are made, watched and made again. No duration is zero where it does not say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// `ssh.connect_timeout`: TCP, SSH, login and channels together.
    pub connect_timeout: Duration,
    /// `ssh.connect_retry`: the back-off's first wait.
    pub connect_retry: Duration,
    /// `ssh.retry_max`: the back-off's ceiling; at least `connect_retry`.
    pub retry_max: Duration,
    /// `ssh.refused_retry`: how soon a tunnel is tried again whose host key or login was refused.
    pub refused_retry: Duration,
    /// `ssh.keepalive_idle`: silence before the first keepalive.
    pub keepalive_idle: Duration,
    /// `ssh.keepalive`: between one keepalive and the next.
    pub keepalive: Duration,
    /// `ssh.broken_after`: silence after which a tunnel counts as broken; at least `keepalive_idle` and `keepalive` together.
    pub broken_after: Duration,
    /// `ssh.max_age`: how old a tunnel may become; zero: any age.
    pub max_age: Duration,
    /// `ssh.connect_pace`: the least time between two connects to one server; may be zero.
    pub connect_pace: Duration,
    /// `ssh.rekey_bytes`: bytes in either direction after which new keys are agreed on.
    pub rekey_bytes: u64,
    /// `ssh.rekey_after`: time after which new keys are agreed on.
    pub rekey_after: Duration,
    /// `ssh.algorithms`: what tunnels may be made with.
    pub algorithms: Algorithms,
}

/// `[retry]`: how often an idempotent job is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// `retry.max_attempts`: how often one idempotent job is sent in all; 1 never sends again.
    pub max_attempts: u32,
    /// `retry.budget_percent`: retries for each hundred jobs that are sent, at most.
    pub budget_percent: u32,
    /// `retry.reserve`: retries besides.
    pub reserve: u32,
}

/// `[balance]`: how jobs are spread over machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// `balance.slow_start`: how long a machine that comes back takes load step by step; zero: it does not.
    pub slow_start: Duration,
}

/// `[circuit]`: when a machine gets no more jobs because it fails them. No duration is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Circuit {
    /// `circuit.failures`: failures in a row after which a machine is ejected; 0: never, for any reason.
    pub failures: u32,
    /// `circuit.silent_after`: how long a machine that has jobs may answer none.
    pub silent_after: Duration,
    /// `circuit.probe_after`: how long the first ejection in a row lasts.
    pub probe_after: Duration,
    /// `circuit.probe_max`: how long the longest lasts; at least `probe_after`.
    pub probe_max: Duration,
}

/// `[wire]`: the numbers of the SEEJob wire.
#[derive(Clone, Debug)]
pub struct Wire {
    /// `wire.profile`: the built-in `open-1`, or what the named file says.
    pub profile: Arc<Profile>,
}
