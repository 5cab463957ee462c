//! What can go wrong with a tunnel, precise enough to act on.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The network, the SSH server or the machine may come back: retry with back-off.
    Transient,
    /// A person has to change something (a key, a user, a configuration): do not retry in a loop. Repeating a login that
    /// was refused locks accounts, and repeating a host key mismatch offers the login to whoever stands in between.
    Permanent,
}

/// Why there is no tunnel, or no channel in it. Every variant names the SSH server, as `host:port`.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The server's name has no address.
    #[error("the name of {server} can not be resolved: {error}; check the address, and the name service of this host")]
    Resolve {
        /// The SSH server.
        server: String,
        /// What the name service says.
        error: io::Error,
    },
    /// No TCP connection, at any of the server's addresses.
    #[error("no TCP connection to {server}: {}; {}", AttemptList(.attempts), advice(.attempts))]
    Connect {
        /// The SSH server.
        server: String,
        /// Each address that was tried, in order.
        attempts: Vec<Attempt>,
    },
    /// Something answers there, but it is no SSH server.
    #[error("{server} is no SSH server: it began with {greeting:?}; check the port")]
    NotSsh {
        /// The SSH server that was meant.
        server: String,
        /// The beginning of what it said, its control characters escaped.
        greeting: String,
    },
    /// The SSH handshake failed before the login.
    #[error("the SSH handshake with {server} failed: {why}; see the server's own log")]
    Handshake {
        /// The SSH server.
        server: String,
        /// What went wrong.
        why: String,
    },
    /// The server showed another host key than the pinned one.
    #[error(
        "{server} showed the host key {got}, but pinned is {}. Either someone impersonates the machine, or it was \
         reinstalled. Nothing was sent to it. Ask its administrator for its host key; if it really is a new one, put \
         that into the configuration",
        .expected.join(" or ")
    )]
    HostKeyMismatch {
        /// The SSH server.
        server: String,
        /// Type and SHA-256 fingerprint of each pinned key.
        expected: Vec<String>,
        /// Type and SHA-256 fingerprint of the key that was shown.
        got: String,
    },
    /// The host key that the server showed is marked as revoked.
    #[error(
        "{server} showed the host key {got}, which the known_hosts file marks as revoked. Nothing was sent to it; ask its administrator for its new key"
    )]
    HostKeyRevoked {
        /// The SSH server.
        server: String,
        /// Type and SHA-256 fingerprint of the key that was shown.
        got: String,
    },
    /// The host key or certificate that the server showed is not good enough, though it may be the right one.
    #[error(
        "{server} showed the host key {got}, which is not accepted: {why}. Nothing was sent to it; have the server show a key or certificate that is"
    )]
    HostKeyNotTaken {
        /// The SSH server.
        server: String,
        /// Type and SHA-256 fingerprint of the key that was shown, and the certificate that came with it.
        got: String,
        /// Why, and what to do.
        why: String,
    },
    /// The server has nothing of a kind that the policy for algorithms allows.
    #[error(
        "{server} offers no {kind} that the policy \"{policy}\" allows: it has {offered}; allowed are {allowed}. Allow one of these \
         in the server's configuration"
    )]
    NoCommonAlgorithm {
        /// The SSH server.
        server: String,
        /// The policy's name.
        policy: &'static str,
        /// What they could not agree on.
        kind: &'static str,
        /// What the server has, its control characters escaped.
        offered: String,
        /// What the policy allows.
        allowed: String,
    },
    /// What we would log in with has become useless since it was read.
    #[error("no login at {server}: {why}; put a new one in its place, and reload")]
    IdentityOutdated {
        /// The SSH server.
        server: String,
        /// What is wrong with it.
        why: String,
    },
    /// The ssh-agent that has the key did not sign with it.
    #[error("no login at {server}: the ssh-agent at {} {why}", .socket.display())]
    Agent {
        /// The SSH server.
        server: String,
        /// The agent's socket.
        socket: PathBuf,
        /// What it did, and what to do.
        why: String,
    },
    /// The server does not let this user in with this key.
    #[error(
        "{server} refused the login of user {user:?} with the key {key}; it offers: {offered}. Check the user, and {}",
        if *.has_certificate {
            "that the server trusts the certificate's authority (OpenSSH: TrustedUserCAKeys) and that the user is among the \
             certificate's principals"
        } else {
            "that the key's public half is among the user's authorized keys"
        }
    )]
    LoginRefused {
        /// The SSH server.
        server: String,
        /// The user.
        user: String,
        /// Type and SHA-256 fingerprint of the key that was offered, and its certificate.
        key: String,
        /// Whether a certificate was offered with it.
        has_certificate: bool,
        /// The methods the server offers instead, or what it said when it hung up.
        offered: String,
    },
    /// The server did not open the channel.
    #[error("{server} did not open a channel to {host} port {port}: {reason}")]
    ChannelRefused {
        /// The SSH server.
        server: String,
        /// The channel's target, as the server sees it.
        host: String,
        /// The channel's target.
        port: u16,
        /// Why.
        reason: ChannelRefusal,
    },
    /// Something took too long.
    #[error("{what} of {server} took longer than {limit:?}")]
    TimedOut {
        /// The SSH server.
        server: String,
        /// What took so long.
        what: &'static str,
        /// The limit that passed.
        limit: Duration,
    },
    /// There was a tunnel, and it is lost.
    #[error(transparent)]
    Lost(#[from] Lost),
}

impl TunnelError {
    /// Whether trying again can help.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::HostKeyMismatch { .. }
            | Self::HostKeyRevoked { .. }
            | Self::HostKeyNotTaken { .. }
            | Self::NoCommonAlgorithm { .. }
            | Self::IdentityOutdated { .. }
            | Self::LoginRefused { .. } => ErrorKind::Permanent,
            Self::ChannelRefused { reason, .. } => match reason {
                ChannelRefusal::Prohibited | ChannelRefusal::NotSupported => ErrorKind::Permanent,
                ChannelRefusal::ConnectFailed | ChannelRefusal::ResourceShortage | ChannelRefusal::Other(_) => {
                    ErrorKind::Transient
                }
            },
            Self::Resolve { .. }
            | Self::Connect { .. }
            | Self::NotSsh { .. }
            | Self::Handshake { .. }
            | Self::Agent { .. }
            | Self::TimedOut { .. }
            | Self::Lost(_) => ErrorKind::Transient,
        }
    }

    /// Whether a person has to change something before it can work.
    pub fn is_permanent(&self) -> bool {
        self.kind() == ErrorKind::Permanent
    }
}

/// A try to connect to one address.
#[derive(Debug)]
pub struct Attempt {
    /// Where to.
    pub address: SocketAddr,
    /// What came of it.
    pub error: io::Error,
}

struct AttemptList<'a>(&'a [Attempt]);

impl fmt::Display for AttemptList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Attempt { address, error }) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let what = match error.kind() {
                io::ErrorKind::ConnectionRefused => "refused",
                io::ErrorKind::TimedOut => "no answer in time",
                io::ErrorKind::HostUnreachable => "host unreachable",
                io::ErrorKind::NetworkUnreachable => "network unreachable",
                _ => {
                    write!(f, "{separator}{address}: {error}")?;
                    continue;
                }
            };
            write!(f, "{separator}{address}: {what}")?;
        }
        Ok(())
    }
}

fn advice(attempts: &[Attempt]) -> &'static str {
    match attempts.last().map(|attempt| attempt.error.kind()) {
        Some(io::ErrorKind::ConnectionRefused) => "check the port, and that the SSH server runs",
        Some(io::ErrorKind::TimedOut) => "check the address, and the firewalls on the way",
        _ => "check the address, and the route to it",
    }
}

/// Why a server did not open a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelRefusal {
    /// The server's policy forbids this target.
    Prohibited,
    /// The server could not connect to the target.
    ConnectFailed,
    /// The server does not know this kind of channel.
    NotSupported,
    /// The server has no room for one more channel.
    ResourceShortage,
    /// Another reason, in the server's words.
    Other(String),
}

impl fmt::Display for ChannelRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prohibited => {
                "its policy prohibits that; allow the target there (OpenSSH: AllowTcpForwarding, PermitOpen)"
            }
            Self::ConnectFailed => "it could not connect there; check the port, and that the machine runs",
            Self::NotSupported => "it does not forward ports (direct-tcpip) at all",
            Self::ResourceShortage => "it has no room for one more channel",
            Self::Other(reason) => return write!(f, "{reason:?}"),
        })
    }
}

/// A tunnel or a channel is lost; what was written to it may or may not have arrived.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {what} to {server} is lost: {why}")]
pub struct Lost {
    pub(super) what: &'static str,
    pub(super) server: Arc<str>,
    pub(super) why: Arc<str>,
}

impl Lost {
    /// The SSH server, as `host:port`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What happened.
    pub fn why(&self) -> &str {
        &self.why
    }
}

/// An address that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no address: {why}; it is NAME:PORT, IPV4:PORT or [IPV6]:PORT")]
pub struct EndpointError {
    pub(super) given: String,
    pub(super) why: &'static str,
}
