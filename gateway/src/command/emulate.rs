//! `seeway emulate`: an emulated HSM with one machine, for trying things where there is no HSM.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use seeway_machine::apps::App;
use seeway_machine::hsm::{Hsm, HsmConfig, MachinePort};
use seeway_machine::runtime::{Machine, SeejobsListener};

use super::serve::Signals;
use super::{Failure, block_on, keygen};

/// Where the machine listens where nobody says.
const DEFAULT_SEEJOBS: &str = "127.0.0.1:8888";

/// Run an emulated HSM, for trying things where there is none
#[allow(clippy::doc_markdown)] // These texts are help on a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Prints, when it takes jobs:
  host_key = \"ssh-ed25519 AAAA…\"                       (with --ssh; for a machine's `host_key` in seeway.toml)
  identity = \"seeway-hsm/client/id_ed25519\"            (with --ssh and without --authorized-keys)
  known_hosts = \"seeway-hsm/known_hosts\"               (with --ssh; instead of host_key, where the files are shared)
  ready seejobs=127.0.0.1:8888 ssh=127.0.0.1:2222

Applications: echo, sign, counter, slow:MS (such as slow:50), faulty:P (such as faulty:0.01).

Examples:
  seeway emulate --app sign                                       behind a real sshd: plain TCP on 127.0.0.1:8888
  seeway emulate --app echo --ssh 127.0.0.1:2222                  behind an SSH server of its own
  seeway emulate --app counter --seejobs '[::1]:0' --journal ran  a line in `ran` for each job that ran")]
pub struct Args {
    /// What runs inside the machine
    #[arg(long, value_name = "NAME")]
    pub app: App,
    /// Take SEEJobs on this loopback address, over plain TCP [default: 127.0.0.1:8888, unless --ssh is given]
    #[arg(long, value_name = "ADDR")]
    pub seejobs: Option<SocketAddr>,
    /// Put an SSH server in front, on this address
    #[arg(long, value_name = "ADDR")]
    pub ssh: Option<SocketAddr>,
    /// Append a line to this file for each job that ran, before it runs
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// The public keys that may log in, as in OpenSSH's authorized_keys; without it an identity is made in --state
    #[arg(long, value_name = "FILE", requires = "ssh")]
    pub authorized_keys: Option<PathBuf>,
    /// The user that may log in
    #[arg(long, value_name = "NAME", default_value = "codesafe", requires = "ssh")]
    pub user: String,
    /// The folder that keeps the host key, made at the first start; known_hosts in it is for gateways that see the folder
    #[arg(long, value_name = "DIR", default_value = "seeway-hsm", requires = "ssh")]
    pub state: PathBuf,
}

/// Runs the emulated HSM until SIGTERM or SIGINT.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    block_on(emulate(args, out))?
}

async fn emulate(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut config = args.app.config();
    config.journal.clone_from(&args.journal);
    let machine = args.app.start(config).map_err(failed)?;
    let listener = listen(args, &machine).await?;
    let hsm = match args.ssh {
        Some(address) => Some(start_hsm(args, address, &machine, listener.as_ref(), out).await?),
        None => None,
    };
    let addresses = [
        listener.as_ref().map(|listener| format!(" seejobs={}", listener.address())),
        hsm.as_ref().map(|hsm| format!(" ssh={}", hsm.ssh_address())),
    ];
    writeln!(out, "ready{}", addresses.into_iter().flatten().collect::<String>())?;
    out.flush()?;
    signals.stop().await;
    if let Some(hsm) = hsm {
        hsm.stop().await;
    }
    if let Some(listener) = listener {
        listener.stop().await;
    }
    Ok(())
}

async fn listen(args: &Args, machine: &Machine) -> Result<Option<SeejobsListener>, Failure> {
    let address = match (args.seejobs, args.ssh) {
        (Some(address), _) => address,
        (None, None) => DEFAULT_SEEJOBS.parse().expect("a constant that is tested"),
        (None, Some(_)) => return Ok(None),
    };
    if !address.ip().is_loopback() {
        return Err(Failure::Misused(format!(
            "--seejobs {address}: the SEEJobs port asks nobody who they are, so it listens on loopback only; put an SSH \
             server in front (--ssh)"
        )));
    }
    SeejobsListener::start(machine.clone(), address).await.map(Some).map_err(failed)
}

async fn start_hsm(
    args: &Args,
    address: SocketAddr,
    machine: &Machine,
    listener: Option<&SeejobsListener>,
    out: &mut dyn Write,
) -> Result<Hsm, Failure> {
    let authorized_keys = match &args.authorized_keys {
        Some(file) => read_lines(file)?,
        None => read_lines(&own_identity(args, out)?)?,
    };
    // Under the number that it listens on, and under the usual one.
    let mut ports = vec![MachinePort::machine(machine.clone())];
    if let Some(listener) = listener
        && listener.address().port() != ports[0].port
    {
        ports.push(MachinePort::tcp(listener.address()));
    }
    let hsm = Hsm::start(HsmConfig {
        state_directory: Some(args.state.clone()),
        user: args.user.clone(),
        ..HsmConfig::new(address, authorized_keys, ports)
    })
    .await
    .map_err(failed)?;
    writeln!(out, "host_key = \"{}\"", hsm.host_key())?;
    let known_hosts = args.state.join("known_hosts");
    write_known_hosts(&known_hosts, hsm.host_key())?;
    writeln!(out, "known_hosts = \"{}\"", known_hosts.display())?;
    Ok(hsm)
}

/// Writes down the host key for gateways that share the folder, as containers do. Under any name: what the HSM is called where they
/// are, only they know. Whole or not at all, since they may read at any time.
fn write_known_hosts(file: &Path, host_key: &str) -> Result<(), Failure> {
    let unfinished = file.with_extension("new");
    let line = format!("* {host_key}\n");
    std::fs::write(&unfinished, line)
        .and_then(|()| std::fs::rename(&unfinished, file))
        .map_err(|error| Failure::Failed(format!("{} can not be written: {error}", file.display())))
}

/// An identity for whoever tries the HSM, made at the first start; returns the file of its public half.
fn own_identity(args: &Args, out: &mut dyn Write) -> Result<PathBuf, Failure> {
    let folder = args.state.join("client");
    let (private, public) = keygen::paths(&folder);
    if !private.exists() {
        keygen::make(&folder, "seeway emulate")?;
    }
    writeln!(out, "identity = \"{}\"", private.display())?;
    Ok(public)
}

fn read_lines(file: &Path) -> Result<Vec<String>, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::Failed(format!("{} can not be read: {error}; name a file that this user may read", file.display()))
    })?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn failed(error: impl std::error::Error) -> Failure {
    Failure::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_known_hosts_says_is_the_host_key_under_any_name() {
        use seeway_client::tunnel::HostKey;

        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("known_hosts");
        let keys = [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGxbZqq7o4oYDIvUbl3Uyo3UoHvg5jVOzzTXzZHTFunU",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFpycUZkJivMLOT/7DnPNTb48XW/e2Wzrh8KovEblHOs",
        ];
        for key in keys {
            write_known_hosts(&file, key).expect("written");
            for server in ["hsm-a:2222", "hsm-b.example:22", "127.0.0.1:4022"] {
                let server = server.parse().expect("an address");
                assert!(HostKey::from_known_hosts(&file, &server).is_ok(), "{server}");
            }
            assert_eq!(std::fs::read_to_string(&file).expect("there"), format!("* {key}\n"));
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 1, "nothing unfinished stays behind");
    }

    #[test]
    fn the_default_address_is_one() {
        let address: SocketAddr = DEFAULT_SEEJOBS.parse().expect("an address");
        assert!(address.ip().is_loopback());
    }
}
