//! What can be wrong with keys: ours, and those that are to be trusted. Errors name files and fingerprints, never what is in a file.

use std::io;
use std::path::PathBuf;

/// An identity that can not be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file can not be read.
    #[error("the {what} {} can not be read: {error}; name a file that this user may read", .path.display())]
    Unreadable {
        /// What the file was to hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Others than its owner can read or write the file.
    #[error(
        "the {what} {} is open to others (mode {mode:04o}) and is not used; close it with: chmod 600 {}",
        .path.display(), .path.display()
    )]
    OpenToOthers {
        /// What the file was to hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The key needs a passphrase, and none was given.
    #[error(
        "the private key {} is encrypted, and there is nobody to ask for the passphrase; name a file that has it, or use a key \
         without one, in a file with mode 600 (remove it with: ssh-keygen -p -N '' -f {})",
        .path.display(), .path.display()
    )]
    Encrypted {
        /// The file.
        path: PathBuf,
    },
    /// A passphrase was given for a key that has none.
    #[error(
        "the private key {} is not encrypted, though a passphrase is given for it; give it that one (ssh-keygen -p -f {}), or \
         give none here",
        .path.display(), .path.display()
    )]
    NotEncrypted {
        /// The file.
        path: PathBuf,
    },
    /// The key has another passphrase.
    #[error("the private key {} is encrypted, and not with the passphrase that is given for it; the passphrase stands on the first line of its file, no blank either", .path.display())]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no private key that is understood.
    #[error(
        "{} holds no private key in OpenSSH format that is understood ({why}); Ed25519, ECDSA and RSA keys made by \
         ssh-keygen are",
        .path.display()
    )]
    NotAKey {
        /// The file.
        path: PathBuf,
        /// What the parser says; never a part of the file.
        why: String,
    },
    /// The file holds a private key where a public one is asked for.
    #[error("{} is a private key, and an agent is to have that; name the file of the public half (FILE.pub)", .path.display())]
    NotPublic {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no public key.
    #[error("{} holds no public key ({why}); it is a line like `ssh-ed25519 AAAA…`, as `ssh-add -L` prints it", .path.display())]
    NotAPublicKey {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        why: String,
    },
    /// No tunnel is made with such a key, whatever the policy.
    #[error("the key {} is not used: {why}; make another one: `seeway keygen DIR`, or ssh-keygen -t ed25519", .path.display())]
    NotTaken {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The certificate is of no use for this key.
    #[error("the certificate {} is of no use: {why}; see what it says with: ssh-keygen -L -f FILE", .path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// A host key pin that can not be used.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// The line is no public key.
    #[error(
        "the host key does not parse ({why}); it is a line like `ssh-ed25519 AAAA…`, as `ssh-keyscan` or a file \
         /etc/ssh/ssh_host_*_key.pub has it"
    )]
    NotAKey {
        /// What the parser says.
        why: String,
    },
    /// No server is trusted by such a key, whatever the policy.
    #[error("the key {key} is no host key to trust: {why}; use another key of that server's")]
    NotTaken {
        /// Type and SHA-256 fingerprint of the key.
        key: String,
        /// Why.
        why: String,
    },
    /// The `known_hosts` file can not be read.
    #[error("the known_hosts file {} can not be read: {error}; name a file that this user may read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A line about this server does not parse.
    #[error("line {line} of {} is about {server} but does not parse: {why}; correct that line", .path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The server that was looked for.
        server: String,
        /// What the parser says.
        why: String,
    },
    /// No line is about this server.
    #[error(
        "the known_hosts file {} has no host key of {server} (looked for {looked_for}); add its line, after having \
         checked the key with its administrator",
        .path.display()
    )]
    NotListed {
        /// The file.
        path: PathBuf,
        /// The server that was looked for.
        server: String,
        /// The host pattern that would have matched.
        looked_for: String,
    },
}
