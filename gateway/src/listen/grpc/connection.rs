//! A gRPC caller's connection, and the caller that it is to the scheduler.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::server::Connected;

use crate::schedule::CallerId;
use crate::shard::{CallerCount, Shard};

/// A connection that tonic reads and writes.
pub(super) struct Connection {
    stream: TcpStream,
    caller: Arc<Caller>,
    _count: CallerCount,
}

/// The caller behind a connection's unary calls. It leaves when the connection and its last call are gone.
pub(super) struct Caller {
    shard: Shard,
    id: CallerId,
    next_ticket: AtomicU64,
}

impl Caller {
    pub(super) fn id(&self) -> CallerId {
        self.id
    }

    /// A name for one of this caller's jobs.
    pub(super) fn ticket(&self) -> u64 {
        self.next_ticket.fetch_add(1, Ordering::Relaxed)
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let id = self.id;
        self.shard.with(|state, now| state.caller_left(now, id));
    }
}

impl Connection {
    pub(super) fn new(shard: &Shard, stream: TcpStream, count: CallerCount) -> Self {
        let id = shard.with(|state, _| {
            let id = state.scheduler.caller_joined();
            state.front.add_calls(id);
            id
        });
        let caller = Arc::new(Caller { shard: shard.clone(), id, next_ticket: AtomicU64::new(0) });
        Self { stream, caller, _count: count }
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<Caller>;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
