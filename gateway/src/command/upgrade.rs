//! `seeway upgrade`: this program takes the place of the gateway that runs.

use std::io::{BufRead as _, BufReader, Write};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::Failure;
use super::logging::Format;
use crate::config::Config;
use crate::handover::{Running, ask_who};

/// Have this program take the place of the gateway that runs, without a lost job
///
/// A new gateway is started with the same configuration. It takes the listening sockets and, one by one, the legacy connections of the
/// running one; gRPC callers are told to connect anew. Where the new one does not start, or reaches fewer worlds, the running one
/// goes on as if nothing had been. It needs `listen.handover`.
///
/// Keys that only a restart can change, such as addresses and shards, change with it, too.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seeway upgrade --config /etc/seeway/seeway.toml
  systemctl reload seeway      # which does the following; after the package was upgraded that is an upgrade
  seeway upgrade --if-replaced --config /etc/seeway/seeway.toml")]
pub struct Args {
    /// The configuration file that the running gateway has
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where the running gateway was started from this very file, have it reload its configuration instead (SIGHUP)
    #[arg(long)]
    if_replaced: bool,
}

/// Upgrades, or reloads.
pub fn run(args: &Args, log_format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let failed = |why: String| Failure::Failed(why);
    let config = Config::load(&args.config).map_err(|problems| failed(problems.to_string()))?;
    let file = args.config.display();
    let path = config.listen.handover.as_ref().ok_or_else(|| {
        failed(format!("{file}: listen.handover is not set, so that nobody can take over; write listen.handover = \"unix:/path\" and restart the gateway once"))
    })?;
    let at = path.display();
    let running = ask_who(path)
        .map_err(|error| failed(format!("unix:{at}: {error}; is a gateway of this configuration running there?")))?
        .ok_or_else(|| {
            failed(format!(
                "no gateway answers at unix:{at} (listen.handover); start one: seeway serve --config {file}"
            ))
        })?;
    let this = Running::this().map_err(|error| failed(format!("/proc/self/exe: {error}; mount /proc")))?;
    if args.if_replaced && running.binary == this.binary {
        let pid = i32::try_from(running.pid).ok().and_then(Pid::from_raw);
        let told = pid.ok_or(rustix::io::Errno::SRCH).and_then(|pid| kill_process(pid, Signal::HUP));
        told.map_err(|error| {
            failed(format!("process {} can not be told to reload: {error}; run this as its user", running.pid))
        })?;
        writeln!(
            out,
            "version {} runs already, as process {}: it reloads; its log says what comes of that",
            running.version, running.pid
        )?;
        return Ok(());
    }
    let program =
        std::env::current_exe().map_err(|error| failed(format!("this program's file is not known: {error}")))?;
    let mut command = Command::new(program);
    command.args(["--log-format", log_format.name(), "serve", "--take-over", "--config"]).arg(&args.config);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // It outlives this command, and whoever interrupts this one.
        .process_group(0)
        .spawn()
        .map_err(|error| failed(format!("the new gateway can not be started: {error}")))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    if !line.starts_with("ready ") {
        let ended = child.wait()?;
        return Err(failed(format!(
            "the new gateway did not take over ({ended}); its log above says why. Version {} goes on, as process {}",
            running.version, running.pid
        )));
    }
    writeln!(
        out,
        "version {} (process {}) has taken over from version {} (process {})",
        this.version,
        child.id(),
        running.version,
        running.pid
    )?;
    Ok(())
}
