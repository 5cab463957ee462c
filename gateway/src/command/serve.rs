//! `seeway serve`: the gateway, until SIGTERM or SIGINT.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, block_on};
use crate::config::Config;
use crate::gateway::{Addresses, Gateway};

/// How long the ready line waits for the worlds' machines. A gateway whose machines are down takes jobs all the same, and
/// holds them.
const MACHINES_HEAD_START: Duration = Duration::from_secs(3);

/// Run the gateway
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Prints one line when it takes jobs:
  ready grpc=127.0.0.1:50051 hardserver=unix:/run/seeway/nserver,tcp:127.0.0.1:9000 admin=127.0.0.1:9464

SIGTERM and SIGINT drain it: jobs in hand are finished, at most for runtime.drain_timeout, and it ends with 0.

Examples:
  seeway serve --config /etc/seeway/seeway.toml
  SEEWAY_LISTEN__GRPC=127.0.0.1:7000 SEEWAY_LOG=debug seeway serve --config seeway.toml")]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Runs the gateway.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let config = Config::load(&args.config).map_err(|problems| Failure::Failed(problems.to_string()))?;
    block_on(serve(config, out))?
}

async fn serve(config: Config, out: &mut dyn Write) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let failed = |error: crate::gateway::GatewayError| Failure::Failed(error.to_string());
    let mut gateway = Gateway::start(Arc::new(config)).await.map_err(failed)?;
    tokio::select! {
        ready = gateway.worlds_ready(MACHINES_HEAD_START) => {
            if !ready {
                tracing::warn!("not every world has a machine that is up; jobs for the others are held meanwhile");
            }
        }
        () = signals.stop() => {}
    }
    writeln!(out, "{}", ready_line(gateway.addresses()))?;
    out.flush()?;
    tokio::select! {
        () = signals.stop() => {}
        error = gateway.failed() => return Err(failed(error)),
    }
    tokio::select! {
        drained = gateway.drain() => drained.map_err(failed),
        () = signals.stop() => Err(Failure::Failed("told to stop twice: ended without finishing the jobs in hand".into())),
    }
}

fn ready_line(addresses: &Addresses) -> String {
    let list = |addresses: Vec<String>| if addresses.is_empty() { "off".to_owned() } else { addresses.join(",") };
    format!(
        "ready grpc={} hardserver={} admin={}",
        list(addresses.grpc.iter().map(ToString::to_string).collect()),
        list(addresses.hardserver.iter().map(ToString::to_string).collect()),
        list(addresses.admin.iter().map(ToString::to_string).collect()),
    )
}

/// The signals that a running command knows.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::Failed(format!("signals can not be received: {error}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Returns when the command is to stop.
    pub(super) async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    tracing::warn!("SIGHUP: this version can not reload; restart it to read the configuration again");
                }
            }
        }
    }
}
