//! `seeway reload`: has a gateway that runs read its configuration again.

use std::io::Write;

use serde_json::Value;

use super::operator::{Answer, At, clean};
use super::{Failure, write_json};

/// Have the gateway read its configuration again
///
/// Worlds, machines, keys and limits change, and jobs in hand notice nothing. A file with a problem changes nothing at all: every
/// problem is printed, and the exit status is 1. So is every key that only a restart can change.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seeway reload
  seeway reload --admin 127.0.0.1:9464 --json | jq -r '.problems[] | \"\\(.line): \\(.key): \\(.what)\"'")]
pub struct Args {
    #[command(flatten)]
    at: At,
}

/// Reloads, and prints what has changed.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let Answer { is_done, body } = args.at.post("/reload", None)?;
    if args.at.json {
        write_json(out, &body)?;
        return if is_done { Ok(()) } else { Err(Failure::Said) };
    }
    if !is_done {
        return Err(Failure::Failed(format!("nothing has changed:\n{}", body["message"].as_str().unwrap_or_default())));
    }
    writeln!(out, "reloaded")?;
    for what in ["machines", "worlds"] {
        for how in ["added", "removed"] {
            let names = body[what][how].as_array().into_iter().flatten().filter_map(Value::as_str);
            let names: Vec<_> = names.map(clean).collect();
            if !names.is_empty() {
                writeln!(out, "{what} {how}: {}", names.join(", "))?;
            }
        }
    }
    Ok(())
}
