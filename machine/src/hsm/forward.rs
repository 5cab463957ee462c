//! What is behind an HSM's ports, and carrying a channel there.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use russh::server::{ChannelOpenHandle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::net::TcpStream;

use crate::runtime::Machine;

/// A machine's SEEJobs port, where nothing else is said.
pub const SEEJOBS_PORT: u16 = 8888;

/// How long a local port may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that are carried at once each way, to and from a local port; as much as two SSH packets bring.
const CARRIED_BYTES: usize = 64 * 1024;

/// A port of the HSM, as its SSH clients name it, and what is behind.
#[derive(Clone, Debug)]
pub struct MachinePort {
    /// The port number.
    pub port: u16,
    /// What is behind it.
    pub behind: Behind,
}

/// What is behind a port.
#[derive(Clone, Debug)]
pub enum Behind {
    /// A machine of this process. The port is a virtual one: no TCP is spoken, and nothing but the HSM reaches it.
    Machine(Machine),
    /// Whatever listens on a TCP address, mostly of this host.
    Tcp(SocketAddr),
}

impl MachinePort {
    /// A machine of this process, on the usual [`SEEJOBS_PORT`].
    pub fn machine(machine: Machine) -> Self {
        Self { port: SEEJOBS_PORT, behind: Behind::Machine(machine) }
    }

    /// A machine that listens on `address`, under the same port number.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { port: address.port(), behind: Behind::Tcp(address) }
    }
}

/// Answers a request for a channel to what is `behind` a port, and carries it until either end closes.
pub(super) async fn forward(behind: Behind, channel: Channel<Msg>, reply: ChannelOpenHandle, peer: String) {
    match behind {
        Behind::Machine(machine) if machine.is_up() => {
            reply.accept().await;
            machine.serve(channel.into_stream(), &peer).await;
        }
        Behind::Machine(machine) => {
            tracing::debug!(peer, machine = machine.name(), "a channel was refused: the machine is down");
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
        Behind::Tcp(address) => match connect(address).await {
            Ok(stream) => {
                reply.accept().await;
                carry(channel, stream, &peer).await;
            }
            Err(error) => {
                tracing::debug!(peer, %address, %error, "a channel was refused: nothing takes it");
                reply.reject(ChannelOpenFailure::ConnectFailed).await;
            }
        },
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn carry(channel: Channel<Msg>, mut stream: TcpStream, peer: &str) {
    let mut channel = channel.into_stream();
    let carried =
        tokio::io::copy_bidirectional_with_sizes(&mut channel, &mut stream, CARRIED_BYTES, CARRIED_BYTES).await;
    if let Err(error) = carried {
        tracing::debug!(peer, %error, "a channel broke");
    }
}
