//! `seeway-bench`: how many jobs per second a gateway or a machine bears, how long each takes, and how that compares with other
//! ways to the same machine.
#![forbid(unsafe_code)]

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use seeway_bench::{
    Load, Pace, Report, Sizes, Target, Until, Way,
    compare::{self, Options, Socket},
    load::{Bar, Machine, PATIENCE},
    peer::Peer,
};

/// Load for a Seeway gateway or a SEEJobs port, and a comparison with other ways to a machine.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  seeway-bench load --to unix:/run/seeway/nserver --world signer --callers 32 --in-flight 4\n  \
                  seeway-bench load --to grpc://127.0.0.1:50051 --world signer --rate 5000 --seconds 30\n  \
                  cargo run --release -p seeway-bench -- compare"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one load and prints its rate and its latencies
    Load(LoadArgs),
    /// Starts the gateway and every other way to a machine on loopback, measures them, and says whether the gateway is as fast
    /// as it has to be: exit status 1 where it is not
    Compare(CompareArgs),
    /// What the comparison compares with
    #[command(subcommand, hide = true)]
    Peer(Peer),
}

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
#[command(after_help = "Examples:
  seeway-bench load --to tcp:127.0.0.1:8888 --callers 256                              a machine's own port
  seeway-bench load --to ssh://codesafe@127.0.0.1:2222 --identity id --host-key KEY    straight to a machine
  seeway-bench load --to unix:nserver --world echo --rate 20000 --sizes 256:9,65536:1  an open loop, mixed sizes")]
struct LoadArgs {
    /// Where the jobs go: unix:PATH, tcp:HOST:PORT (hardserver or machine), grpc://HOST:PORT or ssh://USER@HOST:PORT
    #[arg(long)]
    to: String,
    /// The world, by the name under which it is published; without it jobs go straight to a machine
    #[arg(long)]
    world: Option<String>,
    /// With gRPC, a call for each job instead of a stream for each connection
    #[arg(long)]
    unary: bool,
    /// With unix: and tcp:, a thread for each connection, which waits for each answer
    #[arg(long, conflicts_with = "unary")]
    blocking: bool,
    /// With ssh://, the private key's file
    #[arg(long)]
    identity: Option<PathBuf>,
    /// With ssh://, the server's public key, `ssh-ed25519 AAAA…`
    #[arg(long)]
    host_key: Option<String>,
    /// With ssh://, the machine's port as the SSH server sees it
    #[arg(long, default_value = "127.0.0.1:8888")]
    seejobs: String,
    /// Connections; with ssh://, channels
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    callers: u16,
    /// Jobs that each connection keeps in flight; with --rate, the most that it may have there
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,
    /// Send so many jobs each second, however long the answers take; latencies run from when a job should have been sent
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Bytes of each job, or a mix: BYTES:SHARE,BYTES:SHARE,…
    #[arg(long, visible_alias = "size", default_value = "256")]
    sizes: Sizes,
    /// How long to send before anything is measured
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warm_up: f64,
    /// How long to send and measure
    #[arg(long, default_value_t = 10.0, value_parser = seconds, conflicts_with = "jobs")]
    seconds: f64,
    /// How many jobs to send instead
    #[arg(long)]
    jobs: Option<u64>,
    /// Accept any reply, for machines that do not echo
    #[arg(long)]
    any_reply: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct CompareArgs {
    /// Measure for under three minutes, with wider error bars
    #[arg(long)]
    quick: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Only these rows of the table
    #[arg(long, value_name = "ROW", num_args = 1.., value_parser = clap::value_parser!(u8).range(1..=16))]
    only: Vec<u8>,
    /// Write the report into this folder
    #[arg(long, value_name = "DIR", default_value = "target/seeway-bench-report")]
    output: PathBuf,
    /// The gateway's program; without it, the one beside this program
    #[arg(long, value_name = "FILE")]
    seeway: Option<PathBuf>,
    /// What callers reach tunnels and the gateway by
    #[arg(long, value_enum, default_value_t = Socket::Unix)]
    socket: Socket,
    /// Rounds
    #[arg(long, hide_short_help = true)]
    rounds: Option<usize>,
    /// How long each measurement takes, in seconds
    #[arg(long, hide_short_help = true, value_parser = seconds)]
    seconds: Option<f64>,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.001..=1e8).contains(&rate) { Ok(rate) } else { Err("between 0.001 and 100000000 jobs each second".into()) }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1e6).contains(&seconds) { Ok(seconds) } else { Err("between 0 and 1000000 seconds".into()) }
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Load(args) => load(&args),
        Command::Compare(args) => compare(&args),
        Command::Peer(peer) => peer.run().map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("seeway-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every job got its reply.
fn load(args: &LoadArgs) -> anyhow::Result<bool> {
    let load = Load {
        way: args.way()?,
        world: args.world.clone(),
        callers: args.callers.into(),
        in_flight: if args.blocking { 1 } else { args.in_flight.into() },
        pace: args.rate.map_or(Pace::Closed, |per_second| Pace::Open { per_second }),
        sizes: args.sizes.clone(),
        warm_up: Duration::from_secs_f64(if args.jobs.is_some() { 0.0 } else { args.warm_up }),
        until: args.jobs.map_or(Until::Elapsed(Duration::from_secs_f64(args.seconds)), Until::Jobs),
        verify_echo: !args.any_reply,
        patience: PATIENCE,
    };
    let mut bar = match load.until {
        Until::Elapsed(time) => Bar::of_time(load.warm_up + time),
        Until::Jobs(jobs) => Bar::of_jobs(jobs),
    };
    let report = load.run(&mut bar)?;
    drop(bar);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}\n{}\n{report}", report.way, Report::heading());
    }
    Ok(report.failed() == 0)
}

impl LoadArgs {
    fn way(&self) -> anyhow::Result<Way> {
        if let Some(address) = self.to.strip_prefix("ssh://") {
            let (user, server) = address.split_once('@').context("--to names no login: write ssh://user@host:port")?;
            return Ok(Way::Direct(Machine {
                user: user.to_owned(),
                server: server.to_owned(),
                identity: self.identity.clone().context("ssh:// needs --identity")?,
                host_key: self.host_key.clone().context("ssh:// needs --host-key")?,
                seejobs: self.seejobs.clone(),
            }));
        }
        Ok(match self.to.parse().map_err(anyhow::Error::msg)? {
            Target::Grpc(_) if self.blocking => bail!("--blocking is for unix: and tcp:"),
            Target::Grpc(address) if self.unary => Way::GrpcUnary(address),
            Target::Grpc(address) => Way::GrpcStream(address),
            _ if self.unary => bail!("--unary is for grpc://"),
            target if self.blocking => Way::Blocking(target),
            target => Way::Wire(target),
        })
    }
}

/// Whether every bar is passed.
fn compare(args: &CompareArgs) -> anyhow::Result<bool> {
    let compared = compare::run(&Options {
        quick: args.quick,
        only: args.only.iter().copied().collect(),
        program: args.seeway.clone(),
        socket: args.socket,
        rounds: args.rounds,
        time: args.seconds.map(Duration::from_secs_f64),
    })?;
    compared.write(&args.output)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&compared)?);
    } else {
        for bar in &compared.bars {
            println!("{bar}");
        }
        println!("the report: {}", args.output.join(compare::PAGE).display());
    }
    Ok(compared.passes())
}
