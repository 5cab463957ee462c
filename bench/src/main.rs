//! `seeway-bench`: how many jobs per second a gateway or a machine bears, and how long each takes.

use std::{process::ExitCode, time::Duration};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use seeway_bench::{Load, Report, Target, Until};

/// Closed-loop load for a Seeway gateway or a SEEJobs port.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  seeway-bench run --to unix:/run/seeway/nserver --world signer --callers 32 --in-flight 4 --seconds 10"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one load and prints its rate and its latencies.
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// Where the jobs go: unix:PATH, tcp:HOST:PORT (hardserver or machine) or grpc://HOST:PORT
    #[arg(long)]
    to: Target,
    /// The world, by the name under which it is published; without it jobs go straight to a machine
    #[arg(long)]
    world: Option<String>,
    /// Connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    callers: u16,
    /// Jobs that each connection keeps in flight
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,
    /// Bytes of each job
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// How long to send
    #[arg(long, default_value_t = 10, conflicts_with = "jobs")]
    seconds: u64,
    /// How many jobs to send instead
    #[arg(long)]
    jobs: Option<u64>,
    /// Accept any reply, for machines that do not echo
    #[arg(long)]
    any_reply: bool,
    /// Threads of the load generator
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let Command::Run(run) = Cli::parse().command;
    match measure(&run) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("seeway-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every job got its reply.
fn measure(run: &Run) -> anyhow::Result<bool> {
    let runtime = if run.threads == 1 {
        tokio::runtime::Builder::new_current_thread().enable_all().build()
    } else {
        tokio::runtime::Builder::new_multi_thread().worker_threads(run.threads.into()).enable_all().build()
    };
    let load = Load {
        target: run.to.clone(),
        world: run.world.clone(),
        callers: run.callers.into(),
        in_flight: run.in_flight.into(),
        size: run.size,
        until: run.jobs.map_or(Until::Elapsed(Duration::from_secs(run.seconds)), Until::Jobs),
        verify_echo: !run.any_reply,
    };
    let report = runtime.context("the runtime does not start")?.block_on(load.run())?;
    if run.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{}\n{}\n{report}", report.target, Report::heading());
    }
    Ok(report.failed() == 0)
}
