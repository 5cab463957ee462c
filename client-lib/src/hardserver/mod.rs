//! Jobs to a hardserver's socket: the vendor's hardserver's way of speaking, which a Seeway gateway speaks too.
//!
//! A world is found by the name it is published under, and jobs go to the handle that this gives.

mod address;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::timeout;

pub use address::{Address, AddressError};

use crate::job::{JobError, Reply};
use crate::stream::{Connection, IoTransport, Options};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long finding a world may take.
const FIND_TIMEOUT: Duration = Duration::from_secs(10);

/// There is no connection to a hardserver.
#[derive(Debug, thiserror::Error)]
#[error(
    "no connection to the hardserver at {address}: {error}; check the address, and that the hardserver or gateway runs"
)]
pub struct ConnectError {
    /// Where it should be.
    pub address: Address,
    /// Why there is none.
    pub error: io::Error,
}

/// A connection to a hardserver. Cheap to clone; it is closed when the last handle is dropped, its worlds' included.
#[derive(Clone, Debug)]
pub struct Hardserver {
    connection: Connection,
}

impl Hardserver {
    /// Connects.
    pub async fn connect(address: &Address, options: Options) -> Result<Self, ConnectError> {
        let failed = |error| ConnectError { address: address.clone(), error };
        let name = address.to_string();
        let connection = match address {
            #[cfg(unix)]
            Address::Unix(path) => {
                let stream = in_time(UnixStream::connect(path)).await.map_err(failed)?;
                Connection::open(IoTransport(stream), name, options)
            }
            #[cfg(not(unix))]
            Address::Unix(_) => return Err(failed(io::ErrorKind::Unsupported.into())),
            Address::Tcp(host_and_port) => {
                let stream = in_time(TcpStream::connect(host_and_port)).await.map_err(failed)?;
                // Jobs are coalesced where it costs nothing; Nagle would only delay them.
                stream.set_nodelay(true).map_err(failed)?;
                Connection::open(IoTransport(stream), name, options)
            }
        };
        Ok(Self { connection })
    }

    /// The world that is published under `name`.
    pub async fn world(&self, name: &str) -> Result<World, JobError> {
        let found = self.connection.published_object(name, FIND_TIMEOUT).await;
        let handle = found.map_err(JobError::before_any_job)?;
        Ok(World { connection: self.connection.clone(), handle, name: name.into() })
    }

    /// Asks the hardserver for a sign of life.
    pub async fn no_op(&self, timeout: Duration) -> Result<(), JobError> {
        self.connection.no_op(timeout).await
    }

    /// The stream of commands below.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}

async fn in_time<T>(connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A world that a hardserver has found for this connection.
#[derive(Clone, Debug)]
pub struct World {
    connection: Connection,
    handle: u32,
    name: Arc<str>,
}

impl World {
    /// The name it is published under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its handle; it means nothing on another connection.
    pub fn handle(&self) -> u32 {
        self.handle
    }

    /// Sends a job and waits for its reply, however long that takes.
    pub async fn submit(&self, job: &[u8]) -> Result<Reply, JobError> {
        self.connection.submit(self.handle, job).await
    }

    /// Sends a job and waits for its reply for `timeout`. A job that has left by then may still run.
    pub async fn submit_within(&self, job: &[u8], timeout: Duration) -> Result<Reply, JobError> {
        self.connection.submit_within(self.handle, job, timeout).await
    }
}
