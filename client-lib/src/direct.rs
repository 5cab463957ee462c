//! Jobs straight to one machine: a [tunnel] to its SSH server, and one channel to its SEEJobs port.

use std::time::Duration;

use crate::job::{JobError, Reply};
use crate::stream::{self, Connection};
use crate::tunnel::{self, Tunnel, TunnelError};

/// The SEEJobs port inside a machine, unless it is configured otherwise.
pub const SEEJOBS_PORT: u16 = 8888;

/// Towards a machine there is only one world on the stream.
const WORLD: u32 = 0;

/// What [`Direct::connect`] needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// How to get to the machine's SSH server.
    pub tunnel: tunnel::Options,
    /// The machine's address as its SSH server sees it; `127.0.0.1`.
    pub seejobs_host: String,
    /// The machine's SEEJobs port; 8888.
    pub seejobs_port: u16,
    /// The wire, its limits, and how many jobs may be unanswered.
    pub stream: stream::Options,
}

impl Options {
    /// Options for a machine at the usual port.
    pub fn new(tunnel: tunnel::Options) -> Self {
        Self {
            tunnel,
            seejobs_host: "127.0.0.1".to_owned(),
            seejobs_port: SEEJOBS_PORT,
            stream: stream::Options::default(),
        }
    }
}

/// One machine. Dropping it cuts the connection; jobs that it has run on.
#[derive(Debug)]
pub struct Direct {
    connection: Connection,
    tunnel: Tunnel,
}

impl Direct {
    /// Connects, and opens the channel.
    pub async fn connect(options: &Options) -> Result<Self, TunnelError> {
        let tunnel = Tunnel::connect(&options.tunnel).await?;
        let channel = tunnel.open(&options.seejobs_host, options.seejobs_port).await?;
        let connection = Connection::open(channel.into_stream(), tunnel.server(), options.stream.clone());
        Ok(Self { connection, tunnel })
    }

    /// Sends a job and waits for its reply, however long that takes.
    pub async fn submit(&self, job: &[u8]) -> Result<Reply, JobError> {
        self.connection.submit(WORLD, job).await
    }

    /// Sends a job and waits for its reply for `timeout`. A job that has left by then may still run.
    pub async fn submit_within(&self, job: &[u8], timeout: Duration) -> Result<Reply, JobError> {
        self.connection.submit_within(WORLD, job, timeout).await
    }

    /// Asks the machine for a sign of life.
    pub async fn no_op(&self, timeout: Duration) -> Result<(), JobError> {
        self.connection.no_op(timeout).await
    }

    /// The tunnel, for more channels.
    pub fn tunnel(&self) -> &Tunnel {
        &self.tunnel
    }

    /// Says goodbye.
    pub async fn close(self) {
        drop(self.connection);
        self.tunnel.close().await;
    }
}
