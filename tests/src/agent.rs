//! A real ssh-agent, on a socket of its own.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{keys, process::Process, wait};

/// The running agent.
pub struct Agent {
    process: Process,
    socket: PathBuf,
    _folder: TempDir,
}

impl Agent {
    /// Starts one that has no keys.
    pub fn start() -> Self {
        let folder = TempDir::new().expect("the temporary folder can be written");
        let socket = folder.path().join("agent");
        Self { process: launch(&socket), socket, _folder: folder }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Has OpenSSH's tool tell it something: `-q FILE` adds a key, `-D` takes all away.
    pub fn tell<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> String {
        keys::run(Command::new("ssh-add").args(arguments).env("SSH_AUTH_SOCK", &self.socket))
    }

    /// Adds the key in a file.
    pub fn add(&self, key: &Path) {
        self.tell(&[Path::new("-q"), key]);
    }

    /// Kills it; its keys are gone.
    pub fn kill(&mut self) {
        self.process.kill();
        // It would have done so itself, had it been asked to end.
        let _ = std::fs::remove_file(&self.socket);
    }

    /// Starts it again on the same socket, without keys.
    pub fn start_again(&mut self) {
        self.process = launch(&self.socket);
    }
}

fn launch(socket: &Path) -> Process {
    let process = Process::start("ssh-agent", Command::new("ssh-agent").arg("-D").arg("-a").arg(socket));
    wait::until("the agent listens", wait::BOUND, || UnixStream::connect(socket).ok());
    process
}
