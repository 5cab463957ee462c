//! `seeway doctor`: looks for what people get wrong around a gateway, and says the fix for each.
//!
//! Each check is a small function that gives findings; the modules hold those that belong together. It changes nothing, and can
//! be run beside a gateway that is at work, best as the user that the gateway runs as.

mod certificates;
mod files;
mod finding;
mod machines;
mod places;
mod running;
mod system;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;

use super::{Failure, block_on, write_json};
use crate::config::{Config, Problems};
use finding::{Finding, to_json, write_findings};

/// Look for what is wrong around a gateway, and say the fix
///
/// Checks the configuration, its files and their folders, users and groups, the clock and dates of certificates, limits of the
/// system, swap space, the kernel's sandbox, the gateway that runs, addresses to listen at, and the way to each machine: name, TCP, SSH and its algorithms,
/// host key, login, port, NoOp, and whether full packets get through.
///
/// Run it as the user that the gateway runs as: it sees what that user sees. Nothing is changed; a machine gets NoOps and nothing else.
#[allow(clippy::doc_markdown)] // These texts are help on a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit status: 0 nothing has failed (there may be warnings), 1 something has.

Examples:
  runuser -u seeway -- seeway doctor --config /etc/seeway/seeway.toml
  seeway doctor --config seeway.toml --offline
  seeway doctor --config seeway.toml --json | jq -r '.findings[] | select(.result == \"failed\") | .fix'")]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Leave the machines alone
    #[arg(long)]
    offline: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Looks at everything, and prints what it found.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let mut findings = Vec::new();
    match Config::load(&args.config) {
        Ok(config) => {
            findings.push(Finding::ok("configuration", args.config.display(), "has no problems"));
            findings.extend(files::of_config(&args.config));
            findings.extend(files::all(&config));
            findings.push(system::user(&config));
            let (running, finding) = running::gateway(&config);
            findings.push(finding);
            findings.extend(system::all(&config, running.as_ref()));
            findings.push(system::clock(std::iter::once(&args.config).chain(&config.files)));
            findings.extend(certificates::all(&config));
            findings.extend(places::all(&config));
            findings.extend(running::hardserver(&config));
            if !args.offline {
                findings.extend(block_on(machines::all(&config))?);
            }
        }
        Err(problems) => {
            findings.extend(of_problems(&problems));
            findings.extend(files::of_config(&args.config));
            findings.push(system::clock(std::iter::once(&args.config)));
            let what = "the rest was not looked at";
            findings.push(Finding::warning(
                "configuration",
                args.config.display(),
                what,
                "mend the configuration, then run this again",
            ));
        }
    }
    if args.json {
        write_json(out, &to_json(&args.config, &findings))?;
    } else {
        write_findings(out, &findings)?;
    }
    if findings.iter().any(Finding::has_failed) { Err(Failure::Said) } else { Ok(()) }
}

/// A finding for each problem of the configuration.
fn of_problems(problems: &Problems) -> Vec<Finding> {
    let of = |problem: &crate::config::Problem| {
        let key = if problem.key.is_empty() { problems.file.display().to_string() } else { problem.key.clone() };
        Finding::failed("configuration", key, &problem.what, &problem.fix)
    };
    problems.list.iter().map(of).collect()
}
