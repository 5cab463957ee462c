//! `seeway check`: says every problem in a configuration file; with `--connect`, tries each machine that it names.

mod access;
mod algorithms;
mod connect;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::table::write_table;
use super::{Failure, block_on, write_json};
use crate::config::{self, Config};
use connect::Trial;

/// Say every problem in a configuration file; with --connect, try its machines
///
/// Each problem is a line: FILE:LINE:COLUMN: key: what is wrong; what to do. The exit status is then 1.
///
/// With --connect, also tries each machine, all at once: TCP, SSH, host key, login, port, NoOp; and says which of them failed and why.
/// Nothing but a NoOp is sent to a machine, so it can be done beside a gateway that is at work.
#[allow(clippy::doc_markdown)] // These texts are help on a terminal.
#[allow(clippy::struct_excessive_bools)] // Each is a switch.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seeway check --config /etc/seeway/seeway.toml
  seeway check --config seeway.toml --connect
  seeway check --config seeway.toml --as certificate:spiffe://bank.example/payments
  seeway check --config seeway.toml --json | jq '.problems[].line'
  seeway check --algorithms")]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE", required_unless_present_any = ["reference", "algorithms"])]
    config: Option<PathBuf>,
    /// Try each machine
    #[arg(long)]
    connect: bool,
    /// Say what somebody may do, and which [[permission]] says so: user:NAME, certificate:NAME, token:NAME or anonymous
    #[arg(long = "as", value_name = "WHO", conflicts_with = "connect")]
    who: Option<String>,
    /// A group that they are in, besides those that this computer knows of a user; may be given many times
    #[arg(long = "group", value_name = "NAME", requires = "who")]
    groups: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Print what each policy of ssh.algorithms allows, in Markdown; or, with --json, as one JSON object
    #[arg(long)]
    algorithms: bool,
    /// Print the reference of the configuration file, in Markdown
    #[arg(long, hide = true)]
    reference: bool,
}

/// Checks, and prints what it found.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    if args.algorithms {
        if args.json {
            return write_json(out, &algorithms::json());
        }
        write!(out, "{}", algorithms::page())?;
        return Ok(());
    }
    let Some(file) = args.config.as_ref().filter(|_| !args.reference) else {
        write!(out, "{}", config::reference())?;
        return Ok(());
    };
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(problems) => {
            if args.json {
                write_json(out, &json!({ "file": file, "problems": problems.to_json() }))?;
            } else {
                writeln!(out, "{problems}")?;
                writeln!(out, "{}", counted(problems.list.len(), "problem"))?;
            }
            return Err(Failure::Said);
        }
    };
    if let Some(who) = &args.who {
        let identity = access::identity(who, &args.groups)?;
        if args.json {
            let mut found = access::to_json(&config, &identity);
            found["file"] = json!(file);
            return write_json(out, &found);
        }
        return access::write(out, &config, &identity);
    }
    let trials = if args.connect { block_on(connect::try_all(&config))? } else { Vec::new() };
    if args.json {
        let mut found = config_json(&config);
        found["file"] = json!(file);
        found["problems"] = json!([]);
        if args.connect {
            found["connect"] = trials.iter().map(Trial::to_json).collect();
        }
        write_json(out, &found)?;
    } else {
        write_summary(out, &config)?;
        if args.connect {
            writeln!(out)?;
            connect::write_trials(out, &trials)?;
        }
    }
    if trials.iter().all(Trial::passed) { Ok(()) } else { Err(Failure::Said) }
}

/// `1 problem`, `2 problems`.
pub(super) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn config_json(config: &Config) -> Value {
    let machines: Vec<Value> = config
        .machines
        .iter()
        .enumerate()
        .map(|(position, machine)| {
            json!({
                "name": machine.name,
                "address": machine.address.to_string(),
                "user": machine.user,
                "identity": machine.identity.path(),
                "identity_key": machine.identity.fingerprint(),
                "agent": machine.identity.agent(),
                "certificate": machine.identity.certificate_text(),
                "certificate_valid_before": seconds(machine.identity.valid_before()),
                "host_keys": machine.host_key.fingerprints(),
                "seejobs_host": machine.seejobs_host,
                "seejobs_port": machine.seejobs_port,
                "worlds": worlds_of(config, position),
            })
        })
        .collect();
    let worlds: Vec<Value> = config
        .worlds
        .iter()
        .map(|world| {
            json!({
                "name": world.name,
                "published_as": world.published_as,
                "machines": machines_of(config, &world.machines),
                "idempotent": world.idempotent,
            })
        })
        .collect();
    json!({ "machines": machines, "worlds": worlds, "algorithms": config.ssh.algorithms.name() })
}

/// Seconds since 1970.
fn seconds(time: Option<SystemTime>) -> Option<u64> {
    time?.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn worlds_of(config: &Config, machine: usize) -> Vec<&str> {
    let its_own = config.worlds.iter().filter(|world| world.machines.contains(&machine));
    its_own.map(|world| world.name.as_str()).collect()
}

fn machines_of<'c>(config: &'c Config, positions: &[usize]) -> Vec<&'c str> {
    positions.iter().map(|position| config.machines[*position].name.as_str()).collect()
}

fn write_summary(out: &mut dyn Write, config: &Config) -> Result<(), Failure> {
    let machines: Vec<_> = config
        .machines
        .iter()
        .enumerate()
        .map(|(position, machine)| {
            let worlds = worlds_of(config, position).join(", ");
            [
                machine.name.clone(),
                machine.address.to_string(),
                machine.user.clone(),
                machine.host_key.fingerprints().join(", "),
                if worlds.is_empty() { "(none)".to_owned() } else { worlds },
            ]
        })
        .collect();
    write_table(out, ["machine", "address", "user", "host key", "worlds"], &machines)?;
    writeln!(out)?;
    let worlds: Vec<_> = config
        .worlds
        .iter()
        .map(|world| {
            [
                world.name.clone(),
                world.published_as.clone(),
                if world.idempotent { "yes" } else { "no" }.to_owned(),
                machines_of(config, &world.machines).join(", "),
            ]
        })
        .collect();
    write_table(out, ["world", "published as", "idempotent", "machines"], &worlds)?;
    writeln!(out)?;
    let listeners: Vec<String> = [
        config.listen.grpc.map(|address| format!("grpc={address}")),
        (!config.listen.hardserver.is_empty()).then(|| {
            let addresses: Vec<String> = config.listen.hardserver.iter().map(ToString::to_string).collect();
            format!("hardserver={}", addresses.join(","))
        }),
        config.listen.admin.map(|address| format!("admin={address}")),
        config.listen.management.as_ref().map(|address| format!("management={address}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    for (name, text) in
        config.machines.iter().filter_map(|machine| Some((&machine.name, machine.identity.certificate_text()?)))
    {
        writeln!(out, "{name}: logs in with the {text}")?;
    }
    writeln!(
        out,
        "listens on {}; {}; wire profile {}",
        if listeners.is_empty() { "nothing".to_owned() } else { listeners.join(" ") },
        counted(config.runtime.shards, "shard"),
        config.wire.profile.name,
    )?;
    writeln!(out, "no problems")?;
    Ok(())
}
