//! `seeway drain` and `seeway resume`: have a gateway that runs, or one of its machines, take no new jobs; and take them again.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::operator::{Answer, At};
use super::{Failure, write_json};
use crate::config::{duration_text, parse_duration};

/// Have the gateway, or one machine, take no new jobs
///
/// Jobs in hand are finished. A machine's jobs that have not left go to the other machines of their world. The gateway goes on
/// running: `seeway resume` undoes it. Doing it twice does nothing more.
#[allow(clippy::doc_markdown)] // These texts are help on a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seeway drain --machine hsm-a --wait 2m && ssh hsm-a reboot
  seeway drain --wait 30s
  seeway drain --json | jq .jobs")]
pub struct DrainArgs {
    #[command(flatten)]
    at: At,
    /// One machine, instead of the whole gateway
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// Wait until no job is left, at most for so long; the exit status is 1 where some are
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    wait: Option<Duration>,
}

/// Have the gateway, or one machine, take jobs again after `seeway drain`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seeway resume
  seeway resume --machine hsm-a")]
pub struct ResumeArgs {
    #[command(flatten)]
    at: At,
    /// One machine, instead of the whole gateway
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
}

/// How often a drain that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Drains, and prints how many jobs are left.
pub fn drain(args: &DrainArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let machine = args.machine.as_deref();
    let mut state = done(args.at.post("/drain", machine)?)?;
    let begun = Instant::now();
    while let Some(wait) = args.wait
        && jobs(&state) > 0
    {
        if begun.elapsed() >= wait {
            say(args.at.json, machine, &state, out)?;
            let left = jobs(&state);
            return Err(Failure::Failed(format!(
                "jobs that are left after {}: {left}; wait longer (--wait), or stop it all the same: they may have run",
                duration_text(wait)
            )));
        }
        std::thread::sleep(LOOK);
        state = done(args.at.get("/drain", machine)?)?;
        if state["draining"] == false {
            return Err(Failure::Failed("somebody has resumed it meanwhile; ask who, then drain it again".to_owned()));
        }
    }
    say(args.at.json, machine, &state, out)
}

/// Resumes, and prints that.
pub fn resume(args: &ResumeArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let machine = args.machine.as_deref();
    let state = done(args.at.post("/resume", machine)?)?;
    say(args.at.json, machine, &state, out)
}

fn done(answer: Answer) -> Result<Value, Failure> {
    if answer.is_done { Ok(answer.body) } else { Err(Failure::Failed(answer.refusal())) }
}

fn jobs(state: &Value) -> u64 {
    state["jobs"].as_u64().unwrap_or_default()
}

fn say(json: bool, machine: Option<&str>, state: &Value, out: &mut dyn Write) -> Result<(), Failure> {
    if json {
        return write_json(out, state);
    }
    let what = machine.map_or_else(|| "the gateway".to_owned(), |machine| format!("machine {machine}"));
    let takes = if state["draining"] == true { "takes no new jobs" } else { "takes jobs" };
    writeln!(out, "{what} {takes}; jobs in hand: {}", jobs(state))?;
    Ok(())
}
