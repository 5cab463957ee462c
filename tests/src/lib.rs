//! What the integration tests stand on: real processes, started and stopped, each with ports and a folder of its own.
//!
//! Every server is a guard: it waits until it is ready, keeps what it prints, shows the end of that when its test
//! fails, and ends with the guard. Nothing is simulated here; a part of the machine that is missing (OpenSSH, dropbear,
//! the binary itself) fails the test with a sentence that says what to install or to build.
#![forbid(unsafe_code)]

pub mod agent;
pub mod audit;
pub mod authority;
pub mod balancer;
pub mod callers;
pub mod chaos;
pub mod collector;
pub mod config;
pub mod dropbear;
pub mod gateway;
pub mod hardserver;
pub mod hostile;
pub mod journal;
pub mod keys;
pub mod load;
pub mod machine;
pub mod network;
pub mod ports;
pub mod process;
pub mod prometheus;
pub mod provider;
pub mod python;
pub mod repository;
pub mod sshd;
pub mod tunnel;
pub mod turn;
pub mod wait;
pub mod within;

pub use agent::Agent;
pub use config::Config;
pub use dropbear::Dropbear;
pub use gateway::Gateway;
pub use hardserver::Hardserver;
pub use keys::Identity;
pub use machine::Machine;
pub use sshd::Sshd;

use std::net::SocketAddr;

/// An SSH server as a gateway's configuration names it.
#[derive(Debug, Clone)]
pub struct Door {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whom to log in as.
    pub user: String,
    /// Its public host key, `ssh-ed25519 AAAA…`.
    pub host_key: String,
}
