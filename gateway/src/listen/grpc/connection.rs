//! A gRPC caller's connection, and the caller that it is to the scheduler.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use seeway_proto::wiped::WipedBuffer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

use super::limits::{PipePlace, Pipes};
use super::messages::Holding;
use crate::access::Identity;
use crate::audit::Actor;
use crate::listen::stream::Stream;
use crate::schedule::{CallerId, FrontEnd};
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
    /// Until it has said that it speaks HTTP/2.
    opening: Option<Opening>,
    _count: CallerCount,
}

/// What every HTTP/2 connection begins with: the preface, and the head of a SETTINGS frame. The HTTP/2 library waits for it for ever;
/// after that it asks for signs of life.
const BEGINNING: usize = 24 + 9;

/// A connection that has not said that it speaks HTTP/2.
struct Opening {
    /// Bytes that are missing.
    missing: usize,
    until: Pin<Box<Sleep>>,
}

/// The caller behind a connection's unary calls. It leaves when the connection and its last call are gone.
pub(super) struct Caller {
    shard: Shard,
    id: CallerId,
    /// Who connected. A call may be somebody else's, who is named by a token.
    actor: Arc<Actor>,
    holding: Arc<Holding>,
    next_ticket: AtomicU64,
    /// Pipes whose first message has not come.
    opening_pipes: Arc<Pipes>,
}

/// Pipes of one connection that have not said where they go: the beginning of each one's first message is in memory.
const OPENING: usize = 16;

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

    /// A place for one more pipe that has not said where it goes.
    pub(super) fn open_pipe(&self) -> Option<PipePlace> {
        self.opening_pipes.clone().take()
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
            let id = state.scheduler.caller_joined(FrontEnd::Grpc);
            state.front.add_calls(now, id, actor.identity());
            state.front.introduce(id, &actor);
            id
        });
        let until = Box::pin(tokio::time::sleep(shard.config().limits.message_timeout));
        let opening = Some(Opening { missing: BEGINNING, until });
        let (shard, holding, next_ticket) = (shard.clone(), Arc::default(), AtomicU64::new(0));
        let opening_pipes = Pipes::new(OPENING);
        let caller = Arc::new(Caller { shard, id, actor, holding, next_ticket, opening_pipes });
        Self { stream, head: WipedBuffer::new(), caller, opening, _count: count }
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
        let Self { stream, opening, caller, .. } = &mut *self;
        let before = into.filled().len();
        let polled = Pin::new(stream).poll_read(cx, into);
        if let Some(begun) = opening {
            begun.missing = begun.missing.saturating_sub(into.filled().len() - before);
            if begun.missing == 0 {
                *opening = None;
            } else if begun.until.as_mut().poll(cx).is_ready() {
                caller.shard.with(|state, _| state.front.late.grpc += 1);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        polled
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
