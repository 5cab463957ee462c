//! A real OpenSSH server with a configuration, a port, a host key and an authorized key of its own.

use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
};

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use crate::{Door, Identity, keys, ports, process::Process, wait, within::Within};

const PROGRAM: &str = "/usr/sbin/sshd";
/// Where OpenSSH's server insists on a folder when it runs as root. Its init script makes it; nothing else does.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";
/// Times that starting is tried when somebody else took the port first.
const PORTS_TRIED: usize = 5;

/// The running server. Logins are as the user who runs the tests.
pub struct Sshd {
    process: Process,
    door: Door,
    config: PathBuf,
    within: Within,
    _folder: TempDir,
}

impl Sshd {
    /// Starts one on 127.0.0.1 that lets `identity` in.
    pub fn start(identity: &Identity) -> Self {
        Self::start_with(identity, Ipv4Addr::LOCALHOST.into(), "")
    }

    /// Starts one on `ip`, with further lines of configuration.
    pub fn start_with(identity: &Identity, ip: IpAddr, further_lines: &str) -> Self {
        Self::start_on(identity, &|| SocketAddr::new(ip, ports::free(ip)), Within::default(), further_lines)
    }

    /// Starts one on `address`, within a network namespace.
    pub fn start_within(identity: &Identity, address: SocketAddr, within: Within) -> Self {
        Self::start_on(identity, &|| address, within, "")
    }

    fn start_on(identity: &Identity, choose: &dyn Fn() -> SocketAddr, within: Within, further_lines: &str) -> Self {
        assert!(
            fs::metadata(PROGRAM).is_ok(),
            "{PROGRAM} is missing: install openssh-server, or run tests/run, which does"
        );
        if geteuid().is_root() && within.user.is_none() {
            fs::create_dir_all(PRIVILEGE_SEPARATION).expect("root can make folders in /run");
        }
        let folder = TempDir::new().expect("the temporary folder can be written");
        let host_key_file = folder.path().join("host_key");
        let host_key = keys::host_key(&host_key_file);
        let config = folder.path().join("sshd_config");
        let mut tries = 0;
        let (process, address) = loop {
            let address = choose();
            let mut text = format!(
                "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\n",
                host_key_file.display(),
                identity.authorized_keys().display()
            );
            // The time for which OpenSSH refuses new logins after many unfinished ones is its own concern, not the gateway's.
            text += "PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
                     PermitRootLogin prohibit-password\nAllowTcpForwarding local\nLogLevel VERBOSE\nMaxStartups 1000\nMaxSessions 1000\n";
            writeln!(text, "{further_lines}").expect("writing to a string can't fail");
            fs::write(&config, text).expect("the temporary folder can be written");
            let mut process = launch(&config, &within);
            if ready(&mut process, address) {
                break (process, address);
            }
            tries += 1;
            assert!(tries < PORTS_TRIED && process.log().contains("Address already in use"), "sshd does not start");
        };
        let user = within.user.clone().unwrap_or_else(user);
        Self { process, door: Door { address, user, host_key }, config, within, _folder: folder }
    }

    /// How to reach it.
    pub fn door(&self) -> &Door {
        &self.door
    }

    /// Kills the server and every connection that it carries, as the kernel's out-of-memory killer would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills the server alone; the connections that it carries live on.
    pub fn kill_listener(&mut self) {
        self.process.kill_alone();
    }

    /// Halts the server alone, or lets it go on. Nobody is let in meanwhile; the connections that it carries live on.
    pub fn signal_listener(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Sends every connection that it carries a signal, but not the server.
    pub fn signal_connections(&self, signal: Signal) {
        self.process.signal_descendants(signal);
    }

    /// Halts the server and every connection that it carries, or lets them go on.
    pub fn signal_all(&mut self, signal: Signal) {
        self.process.signal(signal);
        self.process.signal_descendants(signal);
    }

    /// Starts it again, on the same port with the same keys, after [`Self::kill`].
    pub fn start_again(&mut self) {
        self.process = launch(&self.config, &self.within);
        assert!(ready(&mut self.process, self.door.address), "sshd does not start again");
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn launch(config: &std::path::Path, within: &Within) -> Process {
    Process::start("sshd", within.command(PROGRAM.as_ref()).args(["-D", "-e", "-f"]).arg(config))
}

/// Waits until the server takes connections; false when it ended instead.
pub(crate) fn ready(process: &mut Process, address: SocketAddr) -> bool {
    wait::until("the SSH server takes connections or ends", wait::BOUND, || {
        if process.try_exit().is_some() {
            return Some(false);
        }
        TcpStream::connect(address).is_ok().then_some(true)
    })
}

/// Who runs the tests: the one user that an SSH server without root's rights can log in.
pub fn user() -> String {
    keys::run(Command::new("id").arg("-un")).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_on_the_same_port() {
        let identity = Identity::generate();
        let mut sshd = Sshd::start(&identity);
        let address = sshd.door().address;
        let connection = TcpStream::connect(address).expect("it listens");
        sshd.kill();
        assert!(TcpStream::connect(address).is_err(), "sshd still listens after it was killed");
        sshd.start_again();
        assert!(TcpStream::connect(address).is_ok());
        drop(connection);
    }
}
