//! The keys of the tests: the gateway's own, made by `seeway keygen`, and host keys for SSH servers.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::machine;

/// A key pair that the gateway logs in with.
pub struct Identity {
    folder: TempDir,
    private: PathBuf,
    public: String,
}

impl Identity {
    /// Has `seeway keygen` make one.
    pub fn generate() -> Self {
        let folder = TempDir::new().expect("the temporary folder can be written");
        let place = folder.path().join("identity");
        run(machine::seeway().arg("keygen").arg(&place));
        let private = place.join("id_ed25519");
        let public = read(&place.join("id_ed25519.pub"));
        Self { folder, private, public }
    }

    /// Has `seeway keygen` make one whose private key lies in another one's folder: a gateway that runs reads new keys from the
    /// folders that it knows.
    pub fn generate_beside(other: &Self) -> Self {
        let made = Self::generate();
        let private = other.private.with_file_name("id_other");
        fs::copy(&made.private, &private).expect("the temporary folder can be written");
        Self { private, ..made }
    }

    /// The private key's file.
    pub fn private(&self) -> &Path {
        &self.private
    }

    /// The public line, `ssh-ed25519 AAAA… comment`.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// A file with the public line, as an SSH server takes it.
    pub fn authorized_keys(&self) -> PathBuf {
        let path = self.folder.path().join("authorized_keys");
        fs::write(&path, format!("{}\n", self.public)).expect("the temporary folder can be written");
        path
    }
}

/// Makes an Ed25519 host key at `path` with OpenSSH's tool; gives its public line without the comment.
pub fn host_key(path: &Path) -> String {
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(path));
    key_alone(&read(&path.with_extension("pub")))
}

/// `ssh-ed25519 AAAA…` of a public line, without its comment.
pub fn key_alone(line: &str) -> String {
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// Runs a command to its end. Panics with what it printed unless it succeeds; gives its standard output.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("can't run {}: {error}; tests/run installs what is missing", command.get_program().to_string_lossy())
    });
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{stdout}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}

fn read(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("can't read {}: {error}", path.display()));
    text.trim().to_owned()
}
