//! What the gateway is compared with and nobody ships as a program: each is a process of its own, as the real things are.

pub mod bare_echo;
pub mod russh_forward;
pub mod tonic_echo;

use clap::Subcommand;

/// One of them. It prints `ready address=…` and runs until it is killed.
#[derive(Debug, Subcommand)]
pub enum Peer {
    /// A gRPC server that answers each job with its bytes
    TonicEcho(tonic_echo::Args),
    /// Forwards a local port through SSH, with a channel for each connection
    RusshForward(russh_forward::Args),
    /// Answers each job on a socket like the gateway's, and does nothing else
    BareEcho(bare_echo::Args),
}

impl Peer {
    /// Runs it.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::TonicEcho(args) => tonic_echo::run(args),
            Self::RusshForward(args) => russh_forward::run(args),
            Self::BareEcho(args) => bare_echo::run(args),
        }
    }
}

/// A runtime with this many threads that serve, or with one that does all.
fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    if threads <= 1 {
        return tokio::runtime::Builder::new_current_thread().enable_all().build();
    }
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}
