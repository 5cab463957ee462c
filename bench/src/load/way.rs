//! The ways to a machine that a load knows.

use std::{fmt, path::PathBuf};

use crate::Target;

/// One way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// The SEEJob wire to a hardserver's or a machine's socket, all connections from one thread.
    Wire(Target),
    /// The same, each connection from a thread of its own that waits for each answer: as most users of SEEJobs work.
    Blocking(Target),
    /// gRPC, one bidirectional stream on each connection to `host:port`.
    GrpcStream(String),
    /// gRPC, a call for each job.
    GrpcUnary(String),
    /// A tunnel of the caller's own to a machine's SSH server, with a channel for each caller.
    Direct(Machine),
}

/// What it takes to get to a machine directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// The login.
    pub user: String,
    /// The SSH server, `host:port`.
    pub server: String,
    /// The private key's file.
    pub identity: PathBuf,
    /// The server's public key, `ssh-ed25519 AAAA…`.
    pub host_key: String,
    /// The machine's SEEJobs port, `host:port` as the SSH server sees it.
    pub seejobs: String,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wire(target) => write!(f, "{target}"),
            Self::Blocking(target) => write!(f, "{target}, a thread for each caller"),
            Self::GrpcStream(address) => write!(f, "grpc://{address}, streams"),
            Self::GrpcUnary(address) => write!(f, "grpc://{address}, unary"),
            Self::Direct(machine) => write!(f, "ssh://{}@{}", machine.user, machine.server),
        }
    }
}
