//! Everything that is measured, on loopback: an OpenSSH server with a configuration and keys of its own, a machine behind it, the
//! gateway, and the other ways to the same machine.

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use seeway_proto::wire::Profile;
use serde::Serialize;
use tempfile::TempDir;

use super::process::Process;
use crate::{Target, Way, load};

const SSHD: &str = "/usr/sbin/sshd";
/// Where OpenSSH's server insists on a folder when it runs as root.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";
/// Times that something is started when somebody else took its port first.
const TRIES: usize = 5;

/// The world that jobs are for.
pub(crate) const WORLD: &str = "echo";

/// The kind of socket that callers reach tunnels and the gateway by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Socket {
    /// A Unix socket, as a hardserver has it; `ssh -L` can have one, too.
    #[default]
    Unix,
    /// TCP on loopback.
    Tcp,
}

/// What all ways share.
pub(crate) struct Scene {
    pub(crate) folder: TempDir,
    program: PathBuf,
    pub(crate) sshd: Process,
    pub(crate) machine: Process,
    server: SocketAddr,
    user: String,
    host_key: String,
    seejobs: SocketAddr,
    pub(crate) socket: Socket,
}

impl Scene {
    /// Starts the SSH server and the machine. Tunnels and the gateway will be reached over this kind of socket.
    pub(crate) fn start(program: PathBuf, socket: Socket) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("seeway-bench-").context("no temporary folder can be made")?;
        super::process::end_with_signals(folder.path().to_owned())?;
        run(Command::new(&program).arg("keygen").arg(folder.path().join("identity")))?;
        let host_key_file = folder.path().join("host_key");
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&host_key_file))?;
        let public = fs::read_to_string(host_key_file.with_extension("pub"))?;
        let host_key = public.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        let user = run(Command::new("id").arg("-un"))?.trim().to_owned();
        let (sshd, server) = start_sshd(folder.path(), &host_key_file)?;
        fs::write(folder.path().join("known_hosts"), format!("[{}]:{} {host_key}\n", server.ip(), server.port()))?;
        let mut emulate = Command::new(&program);
        emulate.args(["emulate", "--app", "echo", "--seejobs", "127.0.0.1:0"]);
        let mut machine = Process::start("machine", folder.path(), &mut emulate)?;
        let ready = machine.line("ready ")?.0;
        let seejobs = field(&ready, "seejobs")?.parse()?;
        Ok(Self { folder, program, sshd, machine, server, user, host_key, seejobs, socket })
    }

    /// The machine's own port.
    pub(crate) fn floor(&self) -> Way {
        Way::Wire(Target::Tcp(self.seejobs.to_string()))
    }

    fn identity(&self) -> PathBuf {
        self.folder.path().join("identity/id_ed25519")
    }

    /// `ssh -L` with these further options, and `session` run on the other side; with none, `-N`.
    pub(crate) fn ssh(&self, name: &str, options: &[&str], session: Option<&str>) -> anyhow::Result<(Process, Way)> {
        let mut failed = None;
        for _ in 0..TRIES {
            let (local, target) = self.local(name)?;
            let mut command = Command::new("ssh");
            command.args(["-F", "/dev/null", "-T", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]);
            command.args(["-o", "StrictHostKeyChecking=yes", "-o", "ExitOnForwardFailure=yes"]);
            command.arg("-o").arg(format!("UserKnownHostsFile={}", self.folder.path().join("known_hosts").display()));
            command.arg("-i").arg(self.identity()).arg("-l").arg(&self.user).args(options);
            command.arg("-L").arg(format!("{local}:{}", self.seejobs));
            command.args(session.is_none().then_some("-N"));
            command.arg("-p").arg(self.server.port().to_string()).arg(self.server.ip().to_string()).args(session);
            let mut process = Process::start(name, self.folder.path(), &mut command)?;
            match process.until(|| load::answers(&target, None, &Profile::open_1()).ok()) {
                Ok(()) => return Ok((process, Way::Wire(target))),
                // Somebody else may have taken the port.
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| anyhow!("{name} was not tried")))
    }

    /// Where a tunnel listens: as `ssh -L` takes it, and as a target.
    fn local(&self, name: &str) -> anyhow::Result<(String, Target)> {
        match self.socket {
            Socket::Tcp => {
                let address = free_port()?.to_string();
                Ok((address.clone(), Target::Tcp(address)))
            }
            Socket::Unix => {
                let path = self.folder.path().join(format!("{}.socket", super::process::plain(name)));
                Ok((path.display().to_string(), Target::Unix(path)))
            }
        }
    }

    /// A peer that this program is itself, and the address that it says it listens on.
    pub(crate) fn peer(&self, name: &str, arguments: &[String]) -> anyhow::Result<(Process, String)> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("peer").args(arguments);
        let mut process = Process::start(name, self.folder.path(), &mut command)?;
        let ready = process.line("ready ")?.0;
        Ok((process, field(&ready, "address")?.to_owned()))
    }

    /// russh with a channel for each connection.
    pub(crate) fn russh(&self) -> anyhow::Result<(Process, Way)> {
        let (local, target) = self.local("russh")?;
        let arguments = [
            "russh-forward".to_owned(),
            format!("--listen={local}"),
            format!("--server={}", self.server),
            format!("--user={}", self.user),
            format!("--identity={}", self.identity().display()),
            format!("--host-key={}", self.host_key),
            format!("--to={}", self.seejobs),
        ];
        let (process, _) = self.peer("russh", &arguments)?;
        Ok((process, Way::Wire(target)))
    }

    /// A server that answers by itself, on the kind of socket that callers reach the gateway by.
    pub(crate) fn bare_echo(&self) -> anyhow::Result<(Process, Way)> {
        let (local, target) = self.local("echo")?;
        let (process, _) = self.peer("echo", &["bare-echo".to_owned(), format!("--listen={local}")])?;
        Ok((process, Way::Wire(target)))
    }

    /// A gateway in front of the machine, with these further lines in its machine's section.
    pub(crate) fn gateway(&self, name: &str, machine: &str) -> anyhow::Result<Gateway> {
        let place = self.folder.path().join(name.replace(' ', "-"));
        fs::create_dir_all(&place)?;
        let socket = place.join("nserver");
        let text = format!(
            "[listen]\ngrpc = \"127.0.0.1:0\"\nhardserver = [\"unix:{}\", \"tcp:127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\n\
             [[machine]]\nname = \"hsm\"\naddress = \"{}\"\nuser = {:?}\nidentity = \"{}\"\nhost_key = \"{}\"\n\
             seejobs_host = \"{}\"\nseejobs_port = {}\n{machine}\n\n[[world]]\nname = {WORLD:?}\nmachines = [\"hsm\"]\n\n\
             [limits]\ncallers = {CALLERS}\n",
            socket.display(),
            self.server,
            self.user,
            self.identity().display(),
            self.host_key,
            self.seejobs.ip(),
            self.seejobs.port(),
        );
        let config = place.join("seeway.toml");
        fs::write(&config, text)?;
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--config").arg(&config);
        let mut process = Process::start(name, &place, &mut command)?;
        let (ready, started_in) = process.line("ready ")?;
        let tcp = field(&ready, "hardserver")?.split(',').find(|target| target.starts_with("tcp:"));
        let tcp: Target =
            tcp.context("the gateway has no TCP port")?.parse().map_err(|error: String| anyhow!(error))?;
        process.until(|| load::answers(&tcp, Some(WORLD), &Profile::open_1()).ok())?;
        let grpc = field(&ready, "grpc")?.to_owned();
        let unix = Target::Unix(socket);
        let legacy = match self.socket {
            Socket::Unix => unix.clone(),
            Socket::Tcp => tcp.clone(),
        };
        Ok(Gateway { process, legacy, unix, tcp, grpc, started_in })
    }
}

/// Room for the idle ones and the busy ones beside them.
const CALLERS: usize = 12_000;

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    /// Its legacy listener on the kind of socket that is compared.
    pub(crate) legacy: Target,
    pub(crate) unix: Target,
    pub(crate) tcp: Target,
    pub(crate) grpc: String,
    /// From its start to its ready line.
    pub(crate) started_in: Duration,
}

fn start_sshd(folder: &Path, host_key: &Path) -> anyhow::Result<(Process, SocketAddr)> {
    if rustix::process::geteuid().is_root() {
        fs::create_dir_all(PRIVILEGE_SEPARATION)?;
    }
    let authorized = folder.join("identity/id_ed25519.pub");
    for _ in 0..TRIES {
        let address = free_port()?;
        let config = folder.join("sshd_config");
        let text = format!(
            "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n\
             AllowTcpForwarding local\nMaxStartups 100\n",
            host_key.display(),
            authorized.display()
        );
        fs::write(&config, text)?;
        let mut process = Process::start("sshd", folder, Command::new(SSHD).args(["-D", "-e", "-f"]).arg(&config))
            .context("is openssh-server installed?")?;
        if process.until(|| TcpStream::connect(address).ok()).is_ok() {
            return Ok((process, address));
        }
    }
    bail!("sshd does not start")
}

/// A port that nobody listens on now.
fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{} does not start", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The value of `key` in a line of `key=value` words.
fn field<'a>(ready: &'a str, key: &str) -> anyhow::Result<&'a str> {
    let found = ready.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    found.ok_or_else(|| anyhow!("the ready line {ready:?} lacks {key}="))
}
