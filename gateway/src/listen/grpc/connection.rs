//! A gRPC caller's connection, and the caller that it is to the scheduler.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use seeway_proto::wiped::WipedBuffer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

use super::messages::Holding;
use crate::access::Identity;
use crate::audit::Actor;
use crate::listen::stream::Stream;
use crate::schedule::CallerId;
use crate::shard::{CallerCount, Shard};

/// What is kept back of a write, to go out with the next one. The HTTP/2 library writes a large frame's beginning by itself, and
/// then the rest: that would be two calls, and would wake the caller for the first kilobyte.
const HEAD: usize = 2 * 1024;

/// A connection that tonic reads and writes.
pub(super) struct Connection {
    stream: Stream,
    /// Written and kept back until more comes or the writer flushes.
    head: WipedBuffer,
    caller: Arc<Caller>,
    _count: CallerCount,
}

/// The caller behind a connection's unary calls. It leaves when the connection and its last call are gone.
pub(super) struct Caller {
    shard: Shard,
    id: CallerId,
    /// Who connected. A call may be somebody else's, who is named by a token.
    actor: Arc<Actor>,
    holding: Arc<Holding>,
    next_ticket: AtomicU64,
}

impl Caller {
    pub(super) fn id(&self) -> CallerId {
        self.id
    }

    /// Who connected.
    pub(super) fn identity(&self) -> &Identity {
        self.actor.identity()
    }

    /// What the connection holds of messages that are not taken yet.
    pub(super) fn holding(&self) -> &Arc<Holding> {
        &self.holding
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
    pub(super) fn new(shard: &Shard, stream: Stream, actor: Arc<Actor>, count: CallerCount) -> Self {
        let id = shard.with(|state, now| {
            let id = state.scheduler.caller_joined();
            state.front.add_calls(now, id, actor.identity());
            state.front.introduce(id, &actor);
            id
        });
        let (shard, holding, next_ticket) = (shard.clone(), Arc::default(), AtomicU64::new(0));
        let caller = Arc::new(Caller { shard, id, actor, holding, next_ticket });
        Self { stream, head: WipedBuffer::new(), caller, _count: count }
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
        let Self { stream, head, .. } = &mut *self;
        if head.len() + bytes.len() <= HEAD {
            head.extend(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        // All that there is in one call: what the socket takes of `bytes` counts once it has taken the head.
        while !head.is_empty() {
            let slices = [IoSlice::new(head.filled()), IoSlice::new(bytes)];
            let count = ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices))?;
            let of_head = count.min(head.len());
            head.consume(of_head);
            match count {
                0 => return Poll::Ready(Ok(0)),
                count if count > of_head => return Poll::Ready(Ok(count - of_head)),
                _ => {}
            }
        }
        Pin::new(stream).poll_write(cx, bytes)
    }

    /// False, although the socket would take vectors: the HTTP/2 library then puts frames of up to a kilobyte one after the
    /// other into its buffer. Of those that it hands over as vectors each is a write of its own, for a small reply the dearest
    /// thing about it.
    fn is_write_vectored(&self) -> bool {
        false
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, head, .. } = &mut *self;
        while !head.is_empty() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, head.filled()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => head.consume(count),
            }
        }
        Pin::new(stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
