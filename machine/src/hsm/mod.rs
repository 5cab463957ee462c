//! An emulated HSM: an SSH server in front of machines, as a CodeSafe 5 HSM has one, for where there is no HSM.
//!
//! It authenticates public keys, and forwards `direct-tcpip` channels to its machines' ports. It has no shell, no command,
//! no subsystem, no remote forwarding, and reaches no other port. `seeway demo`, `seeway emulate` and tests run it.
//!
//! What it does not emulate is what keeps a real one's secrets: its machines are threads of this process.

mod forward;
mod host_key;
mod server;
mod unblocked;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PublicKey, ssh_key};
use tokio::sync::Semaphore;

pub use forward::{Behind, MachinePort, SEEJOBS_PORT};
pub use host_key::HostKeyError;

use crate::accept::Acceptor;

/// How long SSH connections get to end when the HSM stops.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// What an HSM is made with.
#[derive(Clone, Debug)]
pub struct HsmConfig {
    /// Where the SSH server listens, IPv4 or IPv6. Port 0 takes any free port.
    pub listen: SocketAddr,
    /// The folder that keeps the host key; made where it is missing. `None`: a new host key at each start, for an HSM that
    /// is gone when its process is.
    pub state_directory: Option<PathBuf>,
    /// The one user that may log in. `codesafe` by default.
    pub user: String,
    /// The public keys that may log in, each a line as in OpenSSH's `.pub` files. Empty lines and comments are skipped, so
    /// that the lines of an `authorized_keys` file can be given; options before a key are not supported.
    pub authorized_keys: Vec<String>,
    /// The machines' ports.
    pub ports: Vec<MachinePort>,
    /// How much of everything there may be.
    pub limits: HsmLimits,
}

impl HsmConfig {
    /// An HSM whose host key lasts as long as it runs, for the user `codesafe`.
    pub fn new(listen: SocketAddr, authorized_keys: Vec<String>, ports: Vec<MachinePort>) -> Self {
        let user = "codesafe".to_owned();
        Self { listen, state_directory: None, user, authorized_keys, ports, limits: HsmLimits::default() }
    }
}

/// How much of everything an HSM takes.
#[derive(Clone, Debug)]
pub struct HsmLimits {
    /// SSH connections at once; those above are closed at once. 256 by default.
    pub max_connections: usize,
    /// Channels at once on one connection; those above are refused with `ResourceShortage`. 64 by default.
    pub max_channels: usize,
    /// How long a connection may take to log in. 20 s by default.
    pub auth_timeout: Duration,
    /// After how many refused attempts to log in a connection is closed. 6 by default.
    pub max_auth_attempts: usize,
    /// After how many bytes each way new session keys are negotiated, at most 1 GiB. 1 GiB by default.
    pub rekey_after_bytes: usize,
}

impl Default for HsmLimits {
    fn default() -> Self {
        Self {
            max_connections: 256,
            max_channels: 64,
            auth_timeout: Duration::from_secs(20),
            max_auth_attempts: 6,
            rekey_after_bytes: server::MAX_REKEY_BYTES,
        }
    }
}

/// Why an HSM does not start.
#[derive(Debug, thiserror::Error)]
pub enum HsmError {
    /// There is nothing behind it.
    #[error("the HSM has no machine; give it at least one port")]
    NoMachine,
    /// Two machines have one port.
    #[error("two machines of the HSM have the port {0}; give each its own")]
    DuplicatePort(u16),
    /// Nobody could log in.
    #[error("the HSM has no authorized key, so that nobody could log in; give it at least one public key")]
    NoAuthorizedKey,
    /// One of the authorized keys can not be read.
    #[error(
        "the HSM's authorized key in line {line} is none: {source}; write it as in OpenSSH's .pub files, without options"
    )]
    AuthorizedKey {
        /// Its place in the list, from 1.
        line: usize,
        /// What is wrong with it.
        source: ssh_key::Error,
    },
    /// The host key can not be made, read or trusted.
    #[error(transparent)]
    HostKey(#[from] HostKeyError),
    /// The SSH server's address can not be listened on.
    #[error("the HSM can not listen for SSH on {address}: {source}; give it a free address of this host")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// A running HSM. Dropping it ends its SSH connections; its machines live as long as somebody holds them.
pub struct Hsm {
    acceptor: Acceptor,
    host_key: String,
    fingerprint: String,
}

impl Hsm {
    /// Starts an HSM on the current tokio runtime. It takes connections when this returns.
    pub async fn start(config: HsmConfig) -> Result<Self, HsmError> {
        let mut ports = HashMap::new();
        for MachinePort { port, behind } in config.ports {
            if ports.insert(port, behind).is_some() {
                return Err(HsmError::DuplicatePort(port));
            }
        }
        if ports.is_empty() {
            return Err(HsmError::NoMachine);
        }
        let authorized_keys = parse_authorized_keys(&config.authorized_keys)?;
        let host_key = match &config.state_directory {
            Some(directory) => host_key::load_or_make(directory)?,
            None => host_key::generate()?,
        };
        let public_key = host_key.public_key().clone();

        let shared = Arc::new(server::Shared {
            ssh: Arc::new(server::ssh_config(host_key, &config.limits)),
            user: config.user,
            authorized_keys,
            ports,
            connections: Arc::new(Semaphore::new(config.limits.max_connections.min(Semaphore::MAX_PERMITS))),
            limits: config.limits,
        });
        let acceptor = Acceptor::start(config.listen, move |stream, peer, stopping| {
            server::serve_connection(Arc::clone(&shared), stream, peer, stopping)
        })
        .await
        .map_err(|source| HsmError::Listen { address: config.listen, source })?;

        Ok(Self {
            acceptor,
            host_key: host_key::line(&public_key),
            fingerprint: public_key.fingerprint(ssh_key::HashAlg::Sha256).to_string(),
        })
    }

    /// The SSH server's address.
    pub fn ssh_address(&self) -> SocketAddr {
        self.acceptor.address()
    }

    /// The host's public key as `ssh-ed25519 AAAA…`, to be pinned by those who connect.
    pub fn host_key(&self) -> &str {
        &self.host_key
    }

    /// The host key's fingerprint as OpenSSH prints it, `SHA256:…`.
    pub fn host_key_fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Takes no more connections, and ends those that there are with a word of goodbye.
    pub async fn stop(self) {
        self.acceptor.stop(STOP_GRACE).await;
    }
}

fn parse_authorized_keys(lines: &[String]) -> Result<Vec<PublicKey>, HsmError> {
    let mut keys = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key =
            PublicKey::from_openssh(line).map_err(|source| HsmError::AuthorizedKey { line: index + 1, source })?;
        keys.push(key);
    }
    if keys.is_empty() {
        return Err(HsmError::NoAuthorizedKey);
    }
    Ok(keys)
}
