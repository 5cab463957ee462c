//! A machine's SEEJobs port, as plain TCP.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::Machine;
use crate::accept::Acceptor;

/// How long streams get to notice that the listener stops.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// A TCP port whose connections are SEEJobs streams of a machine. Dropping it closes the port and its streams.
///
/// SEEJobs carry no authentication of their own: the port is for loopback, with an SSH server in front.
pub struct SeejobsListener {
    acceptor: Acceptor,
}

/// The port can not be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "the machine `{machine}` can not listen for SEEJobs on {address}: {source}; give it a free address of this host"
)]
pub struct ListenError {
    /// The machine's name.
    pub machine: String,
    /// The address that was asked for.
    pub address: SocketAddr,
    /// What the system says.
    pub source: io::Error,
}

impl SeejobsListener {
    /// Listens on `address`, IPv4 or IPv6, for `machine`, on the current tokio runtime. Port 0 takes any free port.
    pub async fn start(machine: Machine, address: SocketAddr) -> Result<Self, ListenError> {
        let name = machine.name().to_owned();
        let acceptor = Acceptor::start(address, move |stream, peer, mut stopping| {
            let machine = machine.clone();
            async move {
                let peer = peer.to_string();
                tokio::select! {
                    () = machine.serve(stream, &peer) => {}
                    () = stopping.asked() => {}
                }
            }
        })
        .await
        .map_err(|source| ListenError { machine: name, address, source })?;
        Ok(Self { acceptor })
    }

    /// The address that is listened on.
    pub fn address(&self) -> SocketAddr {
        self.acceptor.address()
    }

    /// Closes the port and its streams.
    pub async fn stop(self) {
        self.acceptor.stop(STOP_GRACE).await;
    }
}
