//! OpenSSH's own client: `ssh -N -L`, the tunnel that the gateway is compared with.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{Door, Identity, process::Process, wait};

/// `ssh` with everything it needs to log in at a door, and nothing from the user's own configuration.
pub struct Ssh {
    /// The command; further arguments go to its end.
    pub command: Command,
    known_hosts: TempDir,
}

/// Prepares `ssh` for this door.
pub fn ssh(door: &Door, identity: &Identity) -> Ssh {
    let known_hosts = TempDir::new().expect("the temporary folder can be written");
    let file = known_hosts.path().join("known_hosts");
    fs::write(&file, format!("[{}]:{} {}\n", door.address.ip(), door.address.port(), door.host_key))
        .expect("the temporary folder can be written");
    let mut command = Command::new("ssh");
    command.args([
        "-F",
        "/dev/null",
        "-o",
        "BatchMode=yes",
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "StrictHostKeyChecking=yes",
    ]);
    command.arg("-o").arg(format!("UserKnownHostsFile={}", file.display()));
    command.arg("-i").arg(identity.private()).arg("-l").arg(&door.user);
    command.arg("-p").arg(door.address.port().to_string()).arg(door.address.ip().to_string());
    Ssh { command, known_hosts }
}

/// `ssh -N -L`: a local socket that leads to a port behind the SSH server.
pub struct Tunnel {
    _process: Process,
    folder: TempDir,
}

impl Tunnel {
    /// Opens one to `port`, a port of 127.0.0.1 as the SSH server sees it.
    pub fn open(door: &Door, identity: &Identity, port: u16) -> Self {
        let Ssh { command, known_hosts: folder } = ssh(door, identity);
        let mut options = Command::new("ssh");
        options.args(["-N", "-o", "ExitOnForwardFailure=yes", "-L"]);
        options.arg(format!("{}:127.0.0.1:{port}", socket(&folder).display()));
        options.args(command.get_args());
        let mut process = Process::start("ssh -N -L", &mut options);
        wait::until("ssh has made its local socket", wait::BOUND, || {
            assert!(process.try_exit().is_none(), "ssh -N -L ended before its socket was there");
            UnixStream::connect(socket(&folder)).ok()
        });
        Self { _process: process, folder }
    }

    /// The local socket.
    pub fn socket(&self) -> PathBuf {
        socket(&self.folder)
    }
}

fn socket(folder: &TempDir) -> PathBuf {
    Path::new(folder.path()).join("tunnel")
}
