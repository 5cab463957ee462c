//! `seeway demo`: the whole thing in one process, real in every part but for the HSM.

mod fault;
mod load;
mod stage;

use std::io::Write;

use super::serve::Signals;
use super::table::write_table;
use super::{Failure, block_on};
use load::Measured;
use stage::Stage;

/// Jobs that each way in is sent where nobody says.
const DEFAULT_JOBS: u32 = 2000;

/// See jobs signed inside an emulated HSM, through every way in
///
/// Starts an emulated HSM (an SSH server, and two machines that sign), the gateway in front of it, sends jobs through both front ends,
/// verifies every signature, kills a machine and revives it while jobs flow, and prints what happened. Nothing has to be installed, nothing listens but on loopback, and nothing is
/// left behind.
#[allow(clippy::doc_markdown)] // These texts are help on a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seeway demo                  and then play with it, until Ctrl-C
  seeway demo --once           ends when the jobs are done; exit status 1 if any went wrong
  seeway demo --jobs 100000")]
pub struct Args {
    /// End when the jobs are done, instead of staying up
    #[arg(long)]
    pub once: bool,
    /// Jobs for each way in
    #[arg(long, default_value_t = DEFAULT_JOBS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub jobs: u32,
    /// Print the tables as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs the demonstration.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    block_on(demo(args, out))?
}

async fn demo(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let stage = tokio::select! {
        stage = Stage::set() => stage?,
        () = signals.stop() => return Ok(()),
    };
    if !args.json {
        stage.describe(out)?;
    }
    let acts = async {
        let keys = load::public_keys(&stage).await?;
        let measured = load::send(&stage, args.jobs, &keys).await?;
        if !args.json {
            report(&measured, out)?;
            out.flush()?;
        }
        let told = fault::play(&stage, &keys).await?;
        Ok::<_, Failure>((measured, told))
    };
    let (measured, told) = tokio::select! {
        played = acts => played?,
        () = signals.stop() => return Ok(()),
    };
    if args.json {
        super::write_json(out, &load::as_json(&measured, &told))?;
    } else {
        told.report(out)?;
    }
    if !args.once && !args.json {
        stage.invite(out)?;
        out.flush()?;
        signals.stop().await;
    }
    stage.clear().await?;
    if measured.iter().all(Measured::is_good) && told.is_good() {
        Ok(())
    } else {
        Err(Failure::Failed("some jobs went wrong; the tables say which".to_owned()))
    }
}

fn report(measured: &[Measured], out: &mut dyn Write) -> Result<(), Failure> {
    let rows: Vec<[String; 8]> = measured.iter().map(Measured::row).collect();
    writeln!(out)?;
    write_table(out, ["way in", "jobs", "verified", "failed", "jobs/s", "p50", "p99", "p99.9"], &rows)?;
    let verified: usize = measured.iter().map(|measured| measured.verified).sum();
    writeln!(out, "\n{verified} Ed25519 signatures verified, made inside the machines with keys that never left them")?;
    for example in measured.iter().flat_map(|measured| &measured.failures).take(5) {
        writeln!(out, "failed: {example}")?;
    }
    Ok(())
}
