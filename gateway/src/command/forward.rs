//! `seeway forward`: a local port onto a machine's port, for programs that speak something else than SEEJobs.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::serve::Signals;
use super::{Failure, block_on};
use crate::config::Config;
use crate::forward::Forwarder;
use crate::seldom::{Seldom, Tell};

/// Bytes that are carried at once, each way.
const CARRIED_BYTES: usize = 64 * 1024;

/// Open a local port onto a machine's port
#[allow(clippy::doc_markdown)] // These texts are help on a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Prints `ready forward=ADDR:PORT world=NAME` when it listens, and runs until SIGTERM or SIGINT. Each connection goes to the
machine of the world that is up and has the least to do, over an SSH tunnel of its own.

Examples:
  seeway forward --config seeway.toml --world signer 127.0.0.1:7000           onto the machine's SEEJobs port
  seeway forward --config seeway.toml --world signer 127.0.0.1:7000 --port 80 onto another port inside it
  seeway forward --config seeway.toml --world signer '[::1]'                  on a free local port")]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The world to whose machines the port leads
    #[arg(long, value_name = "NAME")]
    pub world: String,
    /// The local loopback address; without a port the system chooses one
    #[arg(value_name = "LOCAL_ADDR[:PORT]")]
    pub local: Local,
    /// The port inside the machine [default: its seejobs_port]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
}

/// A loopback address with or without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local(SocketAddr);

impl FromStr for Local {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        let given = if let Some(port) = given.strip_prefix("localhost:") {
            format!("127.0.0.1:{port}")
        } else if given == "localhost" {
            "127.0.0.1".to_owned()
        } else {
            given.to_owned()
        };
        let bare = given.trim_start_matches('[').trim_end_matches(']');
        let address = given
            .parse::<SocketAddr>()
            .or_else(|_| bare.parse::<IpAddr>().map(|address| SocketAddr::new(address, 0)))
            .map_err(|_| "write an address such as 127.0.0.1, 127.0.0.1:7000 or [::1]:7000".to_owned())?;
        if address.ip().is_loopback() {
            Ok(Self(address))
        } else {
            Err("a forwarded port asks nobody who they are, so it listens on loopback only".to_owned())
        }
    }
}

/// Forwards until SIGTERM or SIGINT.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let config = Config::load(&args.config).map_err(|problems| Failure::Failed(problems.to_string()))?;
    block_on(forward(args, config, out))?
}

async fn forward(args: &Args, config: Config, out: &mut dyn Write) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let Local(address) = args.local;
    let cannot = |error| {
        Failure::Failed(format!("can not listen on {address}: {error}; stop who listens there, or choose another port"))
    };
    let listener = TcpListener::bind(address).await.map_err(cannot)?;
    let bound = listener.local_addr().map_err(cannot)?;
    let pipes = config.limits.pipes;
    let Some(forwarder) = Forwarder::start(config, &args.world) else {
        return Err(Failure::Misused(format!(
            "{}: no world is named `{}`; see which there are with: seeway check",
            args.config.display(),
            args.world
        )));
    };
    let forwarder = Arc::new(forwarder);
    writeln!(out, "ready forward={bound} world={}", args.world)?;
    out.flush()?;
    tokio::select! {
        () = accept(listener, forwarder, args.port, pipes) => Ok(()),
        () = signals.stop() => Ok(()),
    }
}

async fn accept(listener: TcpListener, forwarder: Arc<Forwarder>, port: Option<u16>, pipes: usize) {
    let permits = Arc::new(Semaphore::new(pipes));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((local, peer)) => {
                let forwarder = forwarder.clone();
                tokio::spawn(async move {
                    if let Err(error) = carry(local, &forwarder, port).await {
                        static ENDED: Seldom = Seldom::new("a forwarded connection has ended");
                        if let Some(Tell { untold }) = ENDED.tell("") {
                            tracing::warn!(%peer, %error, untold, "a forwarded connection has ended");
                        }
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                static NOT_ACCEPTED: Seldom = Seldom::new("a connection could not be accepted");
                if let Some(Tell { untold }) = NOT_ACCEPTED.tell("") {
                    tracing::warn!(%error, untold, "a connection could not be accepted");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn carry(mut local: TcpStream, forwarder: &Forwarder, port: Option<u16>) -> anyhow::Result<()> {
    local.set_nodelay(true)?;
    let (_tunnel, channel) = forwarder.open(port).await?;
    let mut channel = channel.into_stream();
    copy_bidirectional_with_sizes(&mut local, &mut channel, CARRIED_BYTES, CARRIED_BYTES).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_with_and_without_a_port_and_none_that_others_reach() {
        for (given, address) in [
            ("127.0.0.1", "127.0.0.1:0"),
            ("127.0.0.1:7000", "127.0.0.1:7000"),
            ("::1", "[::1]:0"),
            ("[::1]", "[::1]:0"),
            ("[::1]:7000", "[::1]:7000"),
            ("localhost:7000", "127.0.0.1:7000"),
        ] {
            assert_eq!(given.parse(), Ok(Local(address.parse().expect("an address"))), "{given}");
        }
        assert!("0.0.0.0:7000".parse::<Local>().expect_err("not loopback").contains("loopback"));
        assert!("7000".parse::<Local>().is_err());
    }
}
