//! Tries machines as `serve` would reach them: TCP, SSH, host key, login, the SEEJobs port, a NoOp; and says which step failed.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seeway_client::tunnel::{Channel, Tunnel, TunnelError};
use seeway_proto::mux::Outgoing;
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Limits, Profile, ReplyBody};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::super::Failure;
use super::super::table::write_table;
use crate::config::{Config, Machine, duration_text};

/// Machines that are tried at the same time.
const AT_ONCE: usize = 64;

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

const STAGES: [Stage; 6] = [Stage::Tcp, Stage::Ssh, Stage::HostKey, Stage::Login, Stage::Port, Stage::NoOp];

impl Stage {
    fn name(self) -> &'static str {
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
pub(super) struct Trial {
    machine: String,
    address: String,
    /// The step that failed, and why and what to do.
    failed: Option<(Stage, String)>,
    took: Duration,
}

impl Trial {
    pub(super) fn passed(&self) -> bool {
        self.failed.is_none()
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "machine": self.machine,
            "address": self.address,
            "ok": self.passed(),
            "failed_stage": self.failed.as_ref().map(|(stage, _)| stage.name()),
            "why": self.failed.as_ref().map(|(_, why)| why),
            "milliseconds": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// What a stage's cell says: `ok`, `FAILED`, or `-` for one that was not come to.
    fn cell(&self, stage: Stage) -> &'static str {
        match &self.failed {
            Some((failed, _)) if stage > *failed => "-",
            Some((failed, _)) if stage == *failed => "FAILED",
            _ => "ok",
        }
    }
}

/// Tries every machine, all at once; in the configuration's order.
pub(super) async fn try_all(config: &Config) -> Vec<Trial> {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let config = Arc::new(config.clone());
    let tasks: Vec<_> = (0..config.machines.len())
        .map(|position| {
            let (room, config) = (Arc::clone(&room), Arc::clone(&config));
            tokio::spawn(async move {
                let _place = room.acquire().await.expect("the semaphore is never closed");
                try_one(&config, &config.machines[position]).await
            })
        })
        .collect();
    let mut trials = Vec::with_capacity(tasks.len());
    for task in tasks {
        trials.push(task.await.expect("a trial does not panic, and nobody cancels it"));
    }
    trials
}

async fn try_one(config: &Config, machine: &Machine) -> Trial {
    let begun = Instant::now();
    let failed = reach(config, machine).await.err();
    Trial { machine: machine.name.clone(), address: machine.address.to_string(), failed, took: begun.elapsed() }
}

async fn reach(config: &Config, machine: &Machine) -> Result<(), (Stage, String)> {
    let tunnel =
        Tunnel::connect(&machine.tunnel_options(&config.ssh)).await.map_err(|error| (stage_of(&error), why(&error)))?;
    let answered = match tunnel.open(&machine.seejobs_host, machine.seejobs_port).await {
        Ok(channel) => {
            let limit = config.ssh.connect_timeout;
            let answer = no_op(channel, config.wire.profile.clone(), config.wire_limits());
            timeout(limit, answer)
                .await
                .unwrap_or_else(|_| Err(format!("it did not answer a NoOp within {}", duration_text(limit))))
                .map_err(|why| (Stage::NoOp, not_see_jobs(machine, &why)))
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

/// Sends a NoOp and waits for its answer; the error is the second half of a sentence.
async fn no_op(channel: Channel, profile: Arc<Profile>, limits: Limits) -> Result<(), String> {
    let (mut read, mut write) = channel.split();
    let mut stream = Outgoing::new(profile.clone(), limits, 1);
    stream.stage_no_op(()).expect("nothing else is in flight");
    let message = stream.take_output().expect("the NoOp has just been staged");
    write.write(message.into()).await.map_err(|lost| format!("the stream broke: {lost}"))?;
    let mut input = WipedBuffer::new();
    loop {
        let mut rest = input.filled();
        let answer = stream.receive(&mut rest).map_err(|broken| format!("it does not speak SEEJobs: {broken}"))?;
        match answer.map(|answer| answer.reply) {
            Some(ReplyBody::NoOp) => return Ok(()),
            Some(ReplyBody::Error { status, .. }) => {
                let name = profile.statuses.name(status).unwrap_or("a status of its own");
                return Err(format!("it answered a NoOp with {name} ({status})"));
            }
            Some(_) => return Err("it answered a NoOp with something else".to_owned()),
            None => {}
        }
        let taken = input.len() - rest.len();
        input.consume(taken);
        if !read.read_into(&mut input).await {
            return Err("it closed the stream without answering a NoOp".to_owned());
        }
    }
}

/// Writes a table of machines and steps, and below it what is wrong with each machine that failed.
pub(super) fn write_trials(out: &mut dyn Write, trials: &[Trial]) -> Result<(), Failure> {
    let rows: Vec<_> = trials
        .iter()
        .map(|trial| {
            let [tcp, ssh, host_key, login, port, no_op] = STAGES.map(|stage| trial.cell(stage).to_owned());
            let took = format!("{} ms", trial.took.as_millis());
            [trial.machine.clone(), trial.address.clone(), tcp, ssh, host_key, login, port, no_op, took]
        })
        .collect();
    let [tcp, ssh, host_key, login, port, no_op] = STAGES.map(Stage::name);
    write_table(out, ["machine", "address", tcp, ssh, host_key, login, port, no_op, "took"], &rows)?;
    writeln!(out)?;
    for trial in trials {
        if let Some((stage, why)) = &trial.failed {
            writeln!(out, "{}: {} failed: {why}", trial.machine, stage.name())?;
        }
    }
    let passed = trials.iter().filter(|trial| trial.passed()).count();
    writeln!(out, "{passed} of {} reached", super::counted(trials.len(), "machine"))?;
    Ok(())
}
