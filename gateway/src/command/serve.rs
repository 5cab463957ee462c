//! `seeway serve`: the gateway, until SIGTERM or SIGINT. SIGHUP reloads it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, block_on};
use crate::config::Config;
use crate::gateway::{Addresses, Gateway};
use crate::harden;

/// How long the ready line waits for the worlds' machines. A gateway whose machines are down takes jobs all the same, and
/// holds them.
const MACHINES_HEAD_START: Duration = Duration::from_secs(3);

/// Run the gateway
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Prints one line when it takes jobs:
  ready grpc=127.0.0.1:50051 hardserver=unix:/run/seeway/nserver,tcp:127.0.0.1:9000 admin=127.0.0.1:9464

SIGTERM and SIGINT drain it: jobs in hand are finished, at most for runtime.drain_timeout, and it ends with 0.
SIGHUP reloads the configuration: worlds, machines, keys and limits change, and jobs in hand notice nothing. A file with a problem
changes nothing; the log says why. `seeway reload` does the same and prints what came of it.

Examples:
  seeway serve --config /etc/seeway/seeway.toml
  kill -HUP $(pidof seeway)
  SEEWAY_LISTEN__GRPC=127.0.0.1:7000 SEEWAY_LOG=debug seeway serve --config seeway.toml")]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Runs the gateway.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let hardened = |error: harden::HardenError| Failure::Failed(error.to_string());
    harden::begin().map_err(hardened)?;
    let config = Config::load(&args.config).map_err(|problems| Failure::Failed(problems.to_string()))?;
    harden::lock_memory(&config.process).map_err(hardened)?;
    block_on(serve(config, &args.config, out))?
}

async fn serve(config: Config, file: &Path, out: &mut dyn Write) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let failed = |error: crate::gateway::GatewayError| Failure::Failed(error.to_string());
    let config = Arc::new(config);
    let confine = || harden::confine(&config, file).map(drop);
    let gateway = Gateway::start_confined(config.clone(), Some(file.to_owned()), confine);
    let mut gateway = gateway.await.map_err(failed)?;
    let must_stop = tokio::select! {
        ready = gateway.worlds_ready(MACHINES_HEAD_START) => {
            if !ready {
                tracing::warn!("not every world has a machine that is up; jobs for the others are held meanwhile");
            }
            false
        }
        // A signal to reload is kept until there is something to reload.
        () = signals.stop() => true,
    };
    writeln!(out, "{}", ready_line(gateway.addresses()))?;
    out.flush()?;
    if !must_stop {
        until_stopped(&mut gateway, &mut signals).await?;
    }
    tokio::select! {
        drained = gateway.drain() => drained.map_err(failed),
        () = signals.stop() => Err(Failure::Failed("told to stop twice: ended without finishing the jobs in hand".into())),
    }
}

/// Reloads as often as it is told to, until it is told to stop.
async fn until_stopped(gateway: &mut Gateway, signals: &mut Signals) -> Result<(), Failure> {
    loop {
        tokio::select! {
            wanted = signals.next() => match wanted {
                Wanted::Stop => return Ok(()),
                Wanted::Reload => {
                    let control = gateway.control().clone();
                    // It says itself what came of it, and a signal to stop is heard meanwhile.
                    tokio::spawn(async move {
                        let reloaded = control.reload().await;
                        control.record("reload", None, None, reloaded.map(|_| ()).map_err(|error| error.to_string()));
                    });
                }
            },
            error = gateway.failed() => return Err(Failure::Failed(error.to_string())),
        }
    }
}

fn ready_line(addresses: &Addresses) -> String {
    let list = |addresses: Vec<String>| if addresses.is_empty() { "off".to_owned() } else { addresses.join(",") };
    let management = addresses.management.iter().map(|management| format!(" management={management}"));
    format!(
        "ready grpc={} hardserver={} admin={}{}",
        list(addresses.grpc.iter().map(ToString::to_string).collect()),
        list(addresses.hardserver.iter().map(ToString::to_string).collect()),
        list(addresses.admin.iter().map(ToString::to_string).collect()),
        management.collect::<String>(),
    )
}

/// The signals that a running command knows. SIGHUP, which a terminal that is closed sends too, ends none.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::Failed(format!(
                    "signals can not be received: {error}; let the process have more open files (LimitNOFILE=)"
                ))
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Returns when the command is to stop. What is to be reloaded is kept for [`next`](Self::next).
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// What the next signal asks for.
    async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.terminate.recv() => Wanted::Stop,
            _ = self.interrupt.recv() => Wanted::Stop,
            _ = self.hang_up.recv() => Wanted::Reload,
        }
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Stop,
    Reload,
}
