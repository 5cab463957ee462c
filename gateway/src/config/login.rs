//! Reads what a machine's `[[machine]]` says of logging in: the gateway's key, and how its SSH server is known.
//!
//! Called by `build`. Errors name files and keys' fingerprints, never what is in a file.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use seeway_client::tunnel::{
    Algorithms, Endpoint, HostKey, HostKeyError, Identity, IdentityError, Passphrase, SecretFile,
};

use super::base::Base;
use super::files::{self, readable, unreadable};
use super::kind::Wrong;
use crate::credentials;

/// What a file's name begins with that systemd hands to the service.
const CREDENTIAL: &str = "credential:";

/// Where OpenSSH's tools look for an agent.
const AGENT_SOCKET: &str = "SSH_AUTH_SOCK";

/// Whether a key's value names what systemd hands over.
pub(super) fn is_credential(text: &str) -> bool {
    text.starts_with(CREDENTIAL)
}

/// The file that a key names, with a secret in it.
fn secret(text: &str, base: &Base) -> Result<SecretFile, Wrong> {
    match text.strip_prefix(CREDENTIAL) {
        Some(name) => credential(name, credentials::directory().as_deref()).map(SecretFile::credential),
        None => files::path(text, base).map(SecretFile::new),
    }
}

/// The file of a credential in the folder that systemd says.
fn credential(name: &str, folder: Option<&OsStr>) -> Result<PathBuf, Wrong> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(Wrong::new(
            format!("`{CREDENTIAL}{name}` names no credential"),
            "write credential:NAME, with the NAME of LoadCredential=NAME:/path in the service's unit",
        ));
    }
    let folder = folder.filter(|folder| !folder.is_empty()).ok_or_else(|| {
        Wrong::new(
            format!(
                "`{CREDENTIAL}{name}` is a credential of systemd's, and {} is not set here",
                credentials::DIRECTORY
            ),
            "run it as a service with LoadCredential=, or for a check: systemd-run --wait --pipe -p LoadCredential=…",
        )
    })?;
    Ok(Path::new(folder).join(name))
}

/// Reads a passphrase.
pub(super) fn passphrase(text: &str, base: &Base) -> Result<Passphrase, Wrong> {
    let file = secret(text, base)?;
    readable(file.path())?;
    Passphrase::read(&file).map_err(|error| wrong(error, file.path()))
}

/// The socket of an agent. That it is there does not matter now: agents come and go.
pub(super) fn agent(text: &str, base: &Base) -> Result<PathBuf, Wrong> {
    if text != "env" {
        return files::path(text, base);
    }
    let socket = env::var_os(AGENT_SOCKET).filter(|socket| !socket.is_empty());
    socket.map(PathBuf::from).ok_or_else(|| {
        Wrong::new(format!("is \"env\", and {AGENT_SOCKET} is not set"), "set it, or write the socket's name")
    })
}

/// Reads the private key that a machine is logged in to with.
pub(super) fn identity(text: &str, base: &Base, passphrase: Option<&Passphrase>) -> Result<Identity, Wrong> {
    let file = secret(text, base)?;
    readable(file.path())?;
    Identity::open(&file, passphrase).map_err(|error| wrong(error, file.path()))
}

/// Reads the public half of the key that an agent has.
pub(super) fn of_agent(text: &str, base: &Base, socket: &Path) -> Result<Identity, Wrong> {
    let file = secret(text, base)?;
    readable(file.path())?;
    Identity::of_agent(file.path(), socket).map_err(|error| wrong(error, file.path()))
}

/// The same identity with a certificate.
pub(super) fn certified(text: &str, base: &Base, identity: &Identity) -> Result<Identity, Wrong> {
    let file = secret(text, base)?;
    readable(file.path())?;
    identity.clone().with_certificate(file.path()).map_err(|error| wrong(error, file.path()))
}

fn wrong(error: IdentityError, path: &Path) -> Wrong {
    let name = path.display();
    match error {
        IdentityError::Unreadable { error, .. }
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
        {
            unreadable(path, &error)
        }
        IdentityError::Unreadable { what, error, .. } => {
            Wrong::new(format!("the {what} {name} can not be used: {error}"), "name a file that can")
        }
        // It may well be open to others.
        IdentityError::NotAKey { .. } | IdentityError::OpenToOthers { .. } if is_public_key(path) => Wrong::new(
            format!("{name} is the public half of a key"),
            "name the file of the private key, or write agent = \"SOCKET\" where an ssh-agent has that",
        ),
        IdentityError::NotAKey { why, .. } => Wrong::new(
            format!("{name} is not a private key in OpenSSH form ({why})"),
            "name the file of a private key; `seeway keygen DIR` makes one",
        ),
        IdentityError::OpenToOthers { what, mode, .. } => Wrong::new(
            format!("the {what} {name} can be read or written by others (mode {mode:04o})"),
            format!("run: chmod 600 {name}"),
        ),
        IdentityError::Encrypted { .. } => Wrong::new(
            format!("the private key {name} has a passphrase, and nobody is there to type it"),
            "write identity_passphrase = \"FILE\", or use a key without one; `seeway keygen DIR` makes one",
        ),
        IdentityError::NotEncrypted { .. } => Wrong::new(
            format!("the private key {name} has no passphrase, though identity_passphrase gives one"),
            format!("give it that one (ssh-keygen -p -f {name}), or take identity_passphrase out"),
        ),
        IdentityError::WrongPassphrase { .. } => Wrong::new(
            format!("the private key {name} has another passphrase than the first line of identity_passphrase"),
            "correct that file; nothing but the passphrase stands on its first line, no blank either",
        ),
        IdentityError::NotPublic { .. } => Wrong::new(
            format!("{name} is a private key, and agent says that an ssh-agent has that"),
            "name the file of the public half (FILE.pub), or take agent out",
        ),
        IdentityError::NotAPublicKey { why, .. } => Wrong::new(
            format!("{name} is not a public key ({why})"),
            "write it anew: ssh-add -L prints what the agent has",
        ),
        IdentityError::NotTaken { why, .. } => Wrong::new(
            format!("the key {name} is not used: {why}"),
            "make another one: `seeway keygen DIR`, or ssh-keygen -t ed25519",
        ),
        IdentityError::Certificate { why, .. } => Wrong::new(
            format!("the certificate {name} is of no use: {why}"),
            "see what it says with: ssh-keygen -L -f FILE",
        ),
    }
}

fn is_public_key(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| HostKey::from_line(&text).is_ok())
}

/// Reads a host key as it stands in the configuration.
pub(super) fn host_key(text: &str) -> Result<HostKey, Wrong> {
    HostKey::from_line(text).map_err(|error| {
        no_key(
            text,
            &error,
            "copy the server's public key, such as \"ssh-ed25519 AAAA…\", from its /etc/ssh/ssh_host_ed25519_key.pub",
        )
    })
}

/// Reads the key of an authority for hosts.
pub(super) fn host_ca(text: &str) -> Result<HostKey, Wrong> {
    HostKey::from_authority(text).map_err(|error| {
        no_key(text, &error, "copy the authority's public key, such as \"ssh-ed25519 AAAA…\", from its file CA.pub")
    })
}

fn no_key(text: &str, error: &HostKeyError, fix: &str) -> Wrong {
    let what = match (text.trim(), error) {
        (_, HostKeyError::NotTaken { why, .. }) => return Wrong::new(format!("is not trusted: {why}"), fix),
        (text, _) if text.contains("PRIVATE KEY") => "is a private key",
        (text, _) if text.starts_with("SHA256:") || text.starts_with("MD5:") => "is a fingerprint, not a key",
        _ => "is not a public key",
    };
    Wrong::new(what, fix)
}

/// Reads the keys that a `known_hosts` file has for an address.
pub(super) fn known_hosts(path: &Path, address: &Endpoint) -> Result<HostKey, Wrong> {
    let name = path.display();
    readable(path)?;
    HostKey::from_known_hosts(path, address).map_err(|error| match &error {
        HostKeyError::Unreadable { error, .. } => unreadable(path, error),
        HostKeyError::BadLine { line, .. } => Wrong::new(
            format!("line {line} of {name} is about {address} and has no key that can be read"),
            "correct that line",
        ),
        HostKeyError::NotTaken { key, why } => Wrong::new(
            format!("{name} has for {address} only {key}, which is not trusted: {why}"),
            "add another key of that server's",
        ),
        HostKeyError::NotListed { .. } | HostKeyError::NotAKey { .. } => Wrong::new(
            format!("{name} has no host key of {address}, and no authority for it"),
            format!(
                "add it: `ssh-keyscan -p {} {}` shows it, and the server's administrator can say whether it is right",
                address.port, address.host
            ),
        ),
    })
}

/// Reads the name of a policy.
pub(super) fn algorithms(text: &str) -> Result<Algorithms, Wrong> {
    let no_policy = |_| Wrong::new(format!("`{text}` is no policy for algorithms"), "write \"modern\" or \"fips\"");
    text.parse().map_err(no_policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_a_file_in_the_folder_that_systemd_says() {
        let folder = OsStr::new("/run/credentials/seeway.service");
        let found = credential("hsm-a", Some(folder)).expect("a name");
        assert_eq!(found, Path::new("/run/credentials/seeway.service/hsm-a"));
        for name in ["", "..", ".", "../etc/shadow", "a/b", "/etc/shadow"] {
            assert!(credential(name, Some(folder)).expect_err(name).what.contains("names no credential"));
        }
        for folder in [None, Some(OsStr::new(""))] {
            let wrong = credential("hsm-a", folder).expect_err("no folder");
            assert!(wrong.what.contains("CREDENTIALS_DIRECTORY") && wrong.fix.contains("LoadCredential"));
        }
    }
}
