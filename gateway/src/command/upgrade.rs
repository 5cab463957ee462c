//! `seeway upgrade`: this program takes the place of the gateway that runs.

use std::io::{BufRead as _, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::Failure;
use super::logging::Format;
use crate::config::{Config, Whereabouts};
use crate::credentials;
use crate::handover::{MessageError, Running, STEP_TIMEOUT, ask_for_credentials, ask_to_reload, ask_who};

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
    /// Where the running gateway was started from this very file, have it reload its configuration instead, and say what came of it
    ///
    /// Where that can't be asked, because there is no listen.handover or it can't be read, the process that MAINPID names gets SIGHUP.
    #[arg(long)]
    if_replaced: bool,
}

/// Upgrades, or reloads.
pub fn run(args: &Args, log_format: Format, out: &mut dyn Write) -> Result<(), Failure> {
    let file = args.config.display();
    // No more of it: what a service manager starts for a reload may not be able to read its secrets.
    let Whereabouts { handover, has_user, has_credentials } = match Config::whereabouts(&args.config) {
        Ok(found) => found,
        Err(problems) => {
            // So that the running gateway refuses it in its log and its metrics as well.
            if args.if_replaced && hang_up_main(out)? {
                return Err(failed(format!("{problems}; the running gateway goes on as it was")));
            }
            return Err(failed(problems.to_string()));
        }
    };
    let Some(path) = &handover else {
        if args.if_replaced && hang_up_main(out)? {
            return Ok(());
        }
        return Err(failed(format!(
            "{file}: listen.handover is not set, so that nobody can take over; write listen.handover = \"unix:/path\" and restart the gateway once"
        )));
    };
    let at = path.display();
    let unheard = |error: MessageError| {
        failed(format!("unix:{at}: {error}; is a gateway of this configuration running there, and are you its user?"))
    };
    let nobody = || {
        failed(format!("no gateway answers at unix:{at} (listen.handover); start one: seeway serve --config {file}"))
    };
    let running = ask_who(path, STEP_TIMEOUT).map_err(unheard)?.ok_or_else(nobody)?;
    let this = Running::this().map_err(|error| failed(format!("/proc/self/exe: {error}; mount /proc")))?;
    if args.if_replaced && running.binary == this.binary {
        let Running { version, pid, .. } = &running;
        return match ask_to_reload(path).map_err(unheard)?.ok_or_else(nobody)? {
            Ok(()) => Ok(writeln!(out, "version {version} runs already, as process {pid}: it has reloaded {file}")?),
            Err(problems) => Err(failed(format!("{problems}; version {version} (process {pid}) goes on as it was"))),
        };
    }
    is_its_user(has_user, &running)?;
    let program =
        std::env::current_exe().map_err(|error| failed(format!("this program's file is not known: {error}")))?;
    let mut command = Command::new(program);
    command.args(["--log-format", log_format.name(), "serve", "--take-over", "--config"]).arg(&args.config);
    let lent = if has_credentials { lent_credentials(path)? } else { None };
    if let Some(folder) = &lent {
        let name = credentials::inherited(folder);
        let name = name.map_err(|error| failed(format!("the credentials can not be passed on: {error}")))?;
        command.env(credentials::DIRECTORY, name);
    }
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
        // Where the secrets can't be read here, that says nothing of the file.
        if args.if_replaced && lent.is_none() && Config::load(&args.config).is_err() {
            // So that the running gateway refuses it in its log and its metrics as well. What comes of that is said there.
            let _ = ask_to_reload(path);
        }
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

fn failed(why: String) -> Failure {
    Failure::Failed(why)
}

/// Sends SIGHUP to the main process of the unit whose reload this is, as systemd names it; false where this is none's.
fn hang_up_main(out: &mut dyn Write) -> Result<bool, Failure> {
    let main = std::env::var("MAINPID").ok().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
    let Some(main) = main else { return Ok(false) };
    let pid = main.as_raw_nonzero();
    kill_process(main, Signal::HUP)
        .map_err(|error| failed(format!("process {pid} can not be told to reload: {error}; run this as its user")))?;
    writeln!(out, "process {pid} reloads; its log says what comes of that")?;
    Ok(true)
}

/// The folder of the running gateway's credentials, where this process can look into none itself.
fn lent_credentials(path: &Path) -> Result<Option<OwnedFd>, Failure> {
    if credentials::is_readable() {
        return Ok(None);
    }
    match ask_for_credentials(path) {
        Ok(Some(folder)) if !credentials::is_trusted(&folder) => Err(failed(
            "the running gateway lends a folder of credentials that others can write to: restart it instead (systemctl restart seeway)"
                .into(),
        )),
        Ok(lent) => Ok(lent),
        Err(error) => {
            tracing::warn!(%error, "the running gateway does not say where its credentials are");
            Ok(None)
        }
    }
}

/// A gateway that root starts is root's, which the one that runs need not be.
fn is_its_user(has_user: bool, running: &Running) -> Result<(), Failure> {
    let owner = std::fs::metadata(Path::new("/proc").join(running.pid.to_string())).map(|process| process.uid()).ok();
    let is_right = !geteuid().is_root() || has_user || owner == Some(0);
    if is_right {
        return Ok(());
    }
    let who = owner.map_or_else(|| "another user's".to_owned(), |owner| format!("user {owner}'s"));
    Err(failed(format!(
        "the running gateway (process {}) is {who}, and one that root starts would be root's; run this as that user: runuser -u seeway -- \
         seeway upgrade …, or: systemctl reload seeway",
        running.pid
    )))
}
