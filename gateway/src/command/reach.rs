//! Reaches machines as `serve` would: TCP, SSH, host key, login, the SEEJobs port, a NoOp; and says which step failed. For
//! `seeway check --connect` and `seeway doctor`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use seeway_client::tunnel::{Negotiated, ReadHalf, Tunnel, TunnelError, WriteHalf};
use seeway_proto::mux::Outgoing;
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Limits, Profile, ReplyBody};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::{Config, Machine, duration_text};

/// Machines that are tried at the same time.
const AT_ONCE: usize = 64;

/// How many times a `NoOp` is sent in one go to see whether full packets get through: their bytes fill several, and so do their answers'.
pub(super) const BURST: usize = 1024;

/// The steps from here to a machine, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// The address has a TCP connection to offer.
    Tcp,
    /// What listens there speaks SSH.
    Ssh,
    /// Its host key is a pinned one.
    HostKey,
    /// It lets the user in with the identity.
    Login,
    /// It forwards to the SEEJobs port.
    Port,
    /// What listens there answers a NoOp.
    NoOp,
}

pub(super) const STAGES: [Stage; 6] = [Stage::Tcp, Stage::Ssh, Stage::HostKey, Stage::Login, Stage::Port, Stage::NoOp];

impl Stage {
    /// Its name, as tables and JSON have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Ssh => "SSH",
            Self::HostKey => "host key",
            Self::Login => "login",
            Self::Port => "port",
            Self::NoOp => "NoOp",
        }
    }
}

/// What came of trying one machine.
#[derive(Debug)]
pub(super) struct Reached {
    /// The step that failed, and why and what to do.
    pub(super) failed: Option<(Stage, String)>,
    /// The SSH server, where the login succeeded.
    pub(super) server: Option<Server>,
    /// Whether full packets came through as well: why not. `None` where it was not tried.
    pub(super) burst: Option<Result<(), String>>,
    /// All steps together.
    pub(super) took: Duration,
}

/// What an SSH server is.
#[derive(Debug)]
pub(super) struct Server {
    /// Such as `SSH-2.0-OpenSSH_9.2p1`.
    pub(super) version: String,
    /// What the tunnel is made with.
    pub(super) negotiated: Option<Negotiated>,
}

/// How much is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// One NoOp.
    NoOp,
    /// Then [`BURST`] of them in one go.
    Burst,
}

/// Tries every machine, all at once; in the configuration's order.
pub(super) async fn all(config: &Config, depth: Depth) -> Vec<Reached> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let config = Arc::new(config.clone());
    let tasks: Vec<_> = (0..config.machines.len())
        .map(|position| {
            let (room, config) = (Arc::clone(&room), Arc::clone(&config));
            tokio::spawn(async move {
                let _place = room.acquire().await.expect("the semaphore is never closed");
                one(&config, &config.machines[position], depth).await
            })
        })
        .collect();
    let mut reached = Vec::with_capacity(tasks.len());
    for task in tasks {
        reached.push(task.await.expect("a trial does not panic, and nobody cancels it"));
    }
    reached
}

async fn one(config: &Config, machine: &Machine, depth: Depth) -> Reached {
    let begun = Instant::now();
    let mut reached = Reached { failed: None, server: None, burst: None, took: Duration::ZERO };
    reached.failed = reach(config, machine, depth, &mut reached).await.err();
    reached.took = begun.elapsed();
    reached
}

async fn reach(config: &Config, machine: &Machine, depth: Depth, reached: &mut Reached) -> Result<(), (Stage, String)> {
    let tunnel =
        Tunnel::connect(&machine.tunnel_options(&config.ssh)).await.map_err(|error| (stage_of(&error), why(&error)))?;
    reached.server = Some(Server { version: tunnel.server_version(), negotiated: tunnel.negotiated().cloned() });
    let answered = match tunnel.open(&machine.seejobs_host, machine.seejobs_port).await {
        Ok(channel) => {
            let (read, write) = channel.split();
            let mut asking = Asking::new(read, write, config.wire.profile.clone(), config.wire_limits());
            let limit = config.ssh.connect_timeout;
            let answered = asking.no_ops(1, limit).await;
            if answered.is_ok() && depth == Depth::Burst {
                reached.burst = Some(asking.no_ops(BURST, limit).await);
            }
            answered.map_err(|why| (Stage::NoOp, not_see_jobs(machine, &why)))
        }
        Err(error) => Err((Stage::Port, why(&error))),
    };
    tunnel.close().await;
    answered
}

fn not_see_jobs(machine: &Machine, why: &str) -> String {
    format!(
        "{host} port {port}, as the SSH server sees it, takes connections, but {why}; check seejobs_host and seejobs_port, \
         that the machine takes SEEJobs there, and wire.profile",
        host = machine.seejobs_host,
        port = machine.seejobs_port,
    )
}

/// What went wrong and what to do; a tunnel's own words, with the advice that they leave out.
fn why(error: &TunnelError) -> String {
    let advice = match (stage_of(error), error) {
        (Stage::Ssh, TunnelError::TimedOut { .. }) => "; check that what listens there is an SSH server",
        (_, TunnelError::TimedOut { .. }) => "; check the SSH server and the network, or raise ssh.connect_timeout",
        (_, TunnelError::Lost(_)) => "; its own log says why it ended the connection",
        _ => "",
    };
    format!("{error}{advice}")
}

/// The step that a tunnel that did not come about has failed in.
fn stage_of(error: &TunnelError) -> Stage {
    match error {
        TunnelError::Resolve { .. } | TunnelError::Connect { .. } => Stage::Tcp,
        TunnelError::TimedOut { what, .. } if what.contains("name") => Stage::Tcp,
        TunnelError::NotSsh { .. } | TunnelError::Handshake { .. } | TunnelError::NoCommonAlgorithm { .. } => {
            Stage::Ssh
        }
        TunnelError::HostKeyMismatch { .. }
        | TunnelError::HostKeyRevoked { .. }
        | TunnelError::HostKeyNotTaken { .. } => Stage::HostKey,
        TunnelError::TimedOut { what, .. } if !what.contains("login") => Stage::Ssh,
        // A connection that is lost between the handshake and the login's end was cut by a server that did not want it.
        TunnelError::LoginRefused { .. }
        | TunnelError::IdentityOutdated { .. }
        | TunnelError::Agent { .. }
        | TunnelError::TimedOut { .. }
        | TunnelError::Lost(_) => Stage::Login,
        TunnelError::ChannelRefused { .. } => Stage::Port,
    }
}

/// A channel on which a `NoOp` is sent, or many are, and the answers are waited for.
struct Asking {
    read: ReadHalf,
    write: WriteHalf,
    profile: Arc<Profile>,
    stream: Outgoing<()>,
    input: WipedBuffer,
}

impl Asking {
    fn new(read: ReadHalf, write: WriteHalf, profile: Arc<Profile>, limits: Limits) -> Self {
        let stream = Outgoing::new(profile.clone(), limits, BURST);
        Self { read, write, profile, stream, input: WipedBuffer::new() }
    }

    /// Sends so many times a `NoOp` in one go and waits for their answers; the error is the second half of a sentence.
    async fn no_ops(&mut self, count: usize, limit: Duration) -> Result<(), String> {
        let what = if count == 1 { "a NoOp".to_owned() } else { format!("{count} NoOps") };
        let late = |_| Err(format!("it did not answer {what} within {}", duration_text(limit)));
        timeout(limit, self.ask(count)).await.unwrap_or_else(late)
    }

    async fn ask(&mut self, count: usize) -> Result<(), String> {
        for _ in 0..count {
            self.stream.stage_no_op(()).expect("no more are in flight than it was made for");
        }
        let message = self.stream.take_output().expect("NoOps have just been staged");
        self.write.write(message.into()).await.map_err(|lost| format!("the stream broke: {lost}"))?;
        let mut left = count;
        loop {
            let mut rest = self.input.filled();
            while left > 0 {
                let answer =
                    self.stream.receive(&mut rest).map_err(|broken| format!("it does not speak SEEJobs: {broken}"))?;
                match answer.map(|answer| answer.reply) {
                    Some(ReplyBody::NoOp) => left -= 1,
                    Some(ReplyBody::Error { status, .. }) => {
                        let name = self.profile.statuses.name(status).unwrap_or("a status of its own");
                        return Err(format!("it answered a NoOp with {name} ({status})"));
                    }
                    Some(_) => return Err("it answered a NoOp with something else".to_owned()),
                    None => break,
                }
            }
            let taken = self.input.len() - rest.len();
            self.input.consume(taken);
            if left == 0 {
                return Ok(());
            }
            if !self.read.read_into(&mut self.input).await {
                return Err("it closed the stream without answering a NoOp".to_owned());
            }
        }
    }
}
