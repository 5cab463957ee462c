//! What is not Seeway's goes to the hardserver behind it: one connection there for each legacy caller, so that what the
//! hardserver gives to a caller stays that caller's own.
//!
//! The connection is opened with the first command for it, and closed with the caller. A task has both of its directions. What has
//! to be remembered of commands is in the caller's [`LegacyPort`].

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Direction, Frame, FrameError, Framer, OpaqueReply};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::AbortHandle;

use super::socket::{Reader, Socket, Writer, decode_partial};
use crate::config::HardserverAddress;
use crate::schedule::CallerId;
use crate::seldom::{Seldom, Tell};
use crate::shard::{LegacyPort, PassageWakes, Shard, StrayReply};

/// How long a connect may take. It is to the same host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a hardserver that takes no more commands has for its last replies.
const LAST_REPLIES: Duration = Duration::from_secs(1);

/// Where a caller's commands are passed on to.
pub(super) struct Passing {
    address: HardserverAddress,
    pub(super) wakes: Arc<PassageWakes>,
}

impl Passing {
    pub(super) fn to(address: HardserverAddress) -> Self {
        Self { address, wakes: Arc::default() }
    }
}

/// Why there is no connection to the hardserver any more.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("it can not be reached: {0}")]
    NotReached(io::Error),
    #[error("it closed the connection")]
    Closed,
    #[error("{0}")]
    Failed(#[from] io::Error),
    #[error(transparent)]
    Unframed(#[from] FrameError),
    #[error(transparent)]
    Stray(#[from] StrayReply),
}

impl Passing {
    /// Starts what carries the caller's commands to the hardserver and the replies back. It is to be aborted before the caller's port
    /// is removed.
    pub(super) fn start(self, shard: &Shard, caller: CallerId, peer: String) -> AbortHandle {
        let carrier = Carrier { shard: shard.clone(), caller, peer, passing: self };
        tokio::spawn(async move { carrier.run().await }).abort_handle()
    }
}

/// What goes between one caller and the hardserver.
struct Carrier {
    shard: Shard,
    caller: CallerId,
    /// Who the caller is, for the log.
    peer: String,
    passing: Passing,
}

impl Carrier {
    async fn run(&self) -> Infallible {
        let passing = &self.passing;
        let mut was_reached = true;
        loop {
            passing.wakes.staged.notified().await;
            if self.with_port(|port| port.staged().is_empty()) {
                continue;
            }
            let lost = match connect(&passing.address).await {
                Ok(socket) => {
                    self.with_port(LegacyPort::hardserver_connected);
                    self.carry(passing, socket).await
                }
                Err(error) => Lost::NotReached(error),
            };
            self.shard.with(|state, _| {
                let passed = state.front.legacy(self.caller).hardserver_lost(&self.shard.config().wire.profile);
                state.front.passed += passed;
                state.front.answered(self.caller);
            });
            // A caller that asks again and again does not fill the log.
            if was_reached || !matches!(lost, Lost::NotReached(_)) {
                static LOST: Seldom = Seldom::new("a caller has lost the hardserver");
                let (peer, hardserver) = (&*self.peer, &passing.address);
                if let Some(Tell { untold }) = LOST.tell("") {
                    tracing::warn!(peer, %hardserver, error = %lost, untold, "a caller has lost the hardserver");
                }
            }
            was_reached = !matches!(lost, Lost::NotReached(_));
        }
    }

    async fn carry(&self, passing: &Passing, socket: Socket) -> Lost {
        let (reader, writer) = socket.split();
        let mut replies = pin!(self.carry_replies(passing, reader));
        let error = tokio::select! {
            Err(lost) = &mut replies => return lost,
            Err(error) = self.carry_commands(passing, &writer) => error,
        };
        // What it had answered before it went can still be read.
        match tokio::time::timeout(LAST_REPLIES, replies).await {
            Ok(Err(lost)) => lost,
            Err(_) => error.into(),
        }
    }

    async fn carry_commands(&self, passing: &Passing, writer: &Writer) -> io::Result<Infallible> {
        loop {
            let written = self.with_port(|port| {
                if port.staged().is_empty() {
                    return None;
                }
                let written = writer.try_write(port.staged());
                if let Ok(count) = written {
                    port.wrote(count);
                }
                Some(written)
            });
            match written {
                None => passing.wakes.staged.notified().await,
                Some(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Some(Ok(_)) => {}
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => writer.writable().await?,
                Some(Err(error)) => return Err(error),
            }
        }
    }

    async fn carry_replies(&self, passing: &Passing, mut reader: Reader) -> Result<Infallible, Lost> {
        let mut framer = Framer::new(Direction::Replies, self.shard.config().wire_limits());
        let mut partial = WipedBuffer::new();
        loop {
            let missing = framer.missing(partial.filled());
            reader.take_in(&mut partial, missing, Lost::Closed, |bytes| self.pass_back(&mut framer, bytes)).await?;
            // A caller that does not read its answers is not brought more of them.
            while self.with_port(|port| self.is_full(port)) {
                passing.wakes.room.notified().await;
                decode_partial(&mut partial, |bytes| self.pass_back(&mut framer, bytes), drop)?;
            }
        }
    }

    /// Hands every whole reply in `bytes` to the caller, as far as there is room; returns how many bytes are left.
    fn pass_back(&self, framer: &mut Framer, bytes: &[u8]) -> Result<(usize, ()), Lost> {
        self.shard.with(|state, _| {
            let mut rest = bytes;
            let mut replied = 0;
            let port = state.front.legacy(self.caller);
            let ended = loop {
                if self.is_full(port) {
                    break Ok(());
                }
                let before = rest;
                let passed = match framer.next(&mut rest) {
                    Ok(None) => break Ok(()),
                    Ok(Some(Frame::Body(body))) => {
                        port.passed_back(OpaqueReply::new(body), &before[..before.len() - rest.len()])
                    }
                    Ok(Some(Frame::TooLong { tag, .. })) => {
                        port.passed_back_too_large(&self.shard.config().wire.profile, tag)
                    }
                    Err(error) => break Err(error.into()),
                };
                match passed {
                    Ok(()) => replied += 1,
                    Err(stray) => break Err(stray.into()),
                }
            };
            state.front.answered(self.caller);
            state.front.passed.replied += replied;
            ended.map(|()| (rest.len(), ()))
        })
    }

    fn is_full(&self, port: &LegacyPort) -> bool {
        port.incoming.output_len() >= self.shard.config().limits.caller_buffer_bytes
    }

    fn with_port<R>(&self, act: impl FnOnce(&mut LegacyPort) -> R) -> R {
        self.shard.with(|state, _| act(state.front.legacy(self.caller)))
    }
}

async fn connect(address: &HardserverAddress) -> io::Result<Socket> {
    let connecting = async {
        match address {
            HardserverAddress::Unix(path) => UnixStream::connect(path).await.map(Socket::from),
            HardserverAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(stream.into())
            }
            // In no configuration that was checked.
            HardserverAddress::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    };
    tokio::time::timeout(CONNECT_TIMEOUT, connecting).await?
}
