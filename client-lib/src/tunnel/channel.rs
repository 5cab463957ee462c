//! One SSH channel: an ordered stream of bytes each way, to a port that the SSH server can reach.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use russh::client::Msg;
use russh::{ChannelId, ChannelWriteHalf};
use seeway_proto::wiped::WipedBuffer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use super::error::Lost;
use super::inbox::{Ends, Inbox};
use super::pace::Pace;
use super::shared::Shared;

/// How long the other side has to close a channel that has ended, before it is closed on it.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// How much of one `poll_write` is taken at most.
const STREAM_WRITE_SIZE: usize = 64 * 1024;

/// An open channel. Dropping it, or both of its halves, closes it.
///
/// A tunnel reads for all its channels at once, so a channel that is not read from holds up the others once 8 MiB are
/// unread. Give a reader that you do not control a tunnel of its own.
#[derive(Debug)]
pub struct Channel {
    read: ReadHalf,
    write: WriteHalf,
}

impl Channel {
    /// With a `pace`, what is written goes out in turns.
    pub(super) fn new(channel: russh::Channel<Msg>, shared: Arc<Shared>, runtime: Handle, pace: Option<Pace>) -> Self {
        // The library's own queue of what was received is dropped here: data goes through the inbox.
        let (_, half) = channel.split();
        let inbox = shared.inbox(half.id());
        let ends = inbox.ends();
        let read = ReadHalf { inbox: Arc::clone(&inbox) };
        let (half, is_mid_write, eof_sent) = (Some(half), false, false);
        Self { read, write: WriteHalf { half, inbox, ends, shared, runtime, pace, is_mid_write, eof_sent } }
    }

    /// Its two directions, to be used by different tasks.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        (self.read, self.write)
    }

    /// The channel as a stream, for whoever wants `AsyncRead` and `AsyncWrite`.
    pub fn into_stream(self) -> ChannelStream {
        ChannelStream { read: self.read, unread: WipedBuffer::new(), write: Writer::Idle(Box::new(self.write)) }
    }
}

/// The direction from the machine.
#[derive(Debug)]
pub struct ReadHalf {
    inbox: Arc<Inbox>,
}

impl ReadHalf {
    /// All that has come since the last call, in order; `None` once nothing more will come. Cancelling loses nothing. The
    /// bytes are wiped when the last clone is dropped.
    pub async fn read(&mut self) -> Option<Bytes> {
        let mut bytes = WipedBuffer::new();
        self.read_into(&mut bytes).await.then(|| bytes.freeze())
    }

    /// As [`read`](Self::read), into a buffer that is used again: appends to `buffer`, and where that is empty and has not grown for
    /// a large message just swaps it. False once nothing more will come.
    pub async fn read_into(&mut self, buffer: &mut WipedBuffer) -> bool {
        std::future::poll_fn(|cx| self.poll_read_into(cx, buffer)).await
    }

    /// As [`read_into`](Self::read_into), for a caller that polls.
    pub fn poll_read_into(&mut self, cx: &mut Context<'_>, buffer: &mut WipedBuffer) -> Poll<bool> {
        self.inbox.poll_take(cx, buffer)
    }

    /// Why the channel is lost; `None` as long as it stands, even after the machine has ended this direction.
    pub fn lost(&self) -> Option<Lost> {
        self.inbox.lost()
    }
}

impl Drop for ReadHalf {
    fn drop(&mut self) {
        self.inbox.abandon();
    }
}

/// The direction to the machine.
#[derive(Debug)]
pub struct WriteHalf {
    /// `None` only while it is being dropped.
    half: Option<ChannelWriteHalf<Msg>>,
    inbox: Arc<Inbox>,
    ends: watch::Receiver<Ends>,
    shared: Arc<Shared>,
    runtime: Handle,
    /// Where the tunnel gives way.
    pace: Option<Pace>,
    /// A write was begun and has not ended.
    is_mid_write: bool,
    eof_sent: bool,
}

impl WriteHalf {
    /// Hands `bytes` to the SSH library, as the channel's window allows. Has an end even when the tunnel dies meanwhile.
    ///
    /// Cancelling it may leave a part of `bytes` written, so every later write is then refused.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Lost> {
        if self.is_mid_write {
            return Err(self.lost_because("a write was cancelled half-way"));
        }
        if let Some(lost) = &self.ends.borrow().lost {
            return Err(lost.clone());
        }
        let half = self.half.as_ref().expect("it is there until the drop");
        self.is_mid_write = true;
        let sent = tokio::select! {
            biased;
            sent = send(half, self.pace.as_mut(), bytes) => sent,
            // The library waits for a window that a lost tunnel, or a closed channel, never opens.
            ends = self.ends.wait_for(|ends| ends.lost.is_some()) => {
                let lost = ends.expect("the inbox, and its sender, is in self").lost.clone();
                return Err(lost.expect("that is what was waited for"));
            }
        };
        self.is_mid_write = false;
        sent.map_err(|_| self.lost_because("the SSH connection ended"))
    }

    /// Tells the machine that nothing more will be written.
    pub async fn eof(&mut self) -> Result<(), Lost> {
        if let Some(lost) = &self.ends.borrow().lost {
            return Err(lost.clone());
        }
        if !self.eof_sent {
            self.eof_sent = true;
            let half = self.half.as_ref().expect("it is there until the drop");
            half.eof().await.map_err(|_| self.lost_because("the SSH connection ended"))?;
        }
        Ok(())
    }

    /// Why the channel is lost; `None` as long as it stands.
    pub fn lost(&self) -> Option<Lost> {
        self.inbox.lost()
    }

    /// Waits until the channel is lost: closed by the other side, or the tunnel is.
    pub async fn closed(&mut self) -> Lost {
        let ends = self.ends.wait_for(|ends| ends.lost.is_some()).await.expect("the inbox, and its sender, is in self");
        ends.lost.clone().expect("that is what was waited for")
    }

    /// The reason of the tunnel or of the channel where there is one: it says more.
    fn lost_because(&self, why: &str) -> Lost {
        let known = self.inbox.lost().or_else(|| self.shared.lost());
        known.unwrap_or_else(|| Lost { what: "channel", server: Arc::clone(&self.shared.server), why: why.into() })
    }
}

/// Hands `bytes` to the SSH library, in turns where the tunnel gives way.
async fn send(half: &ChannelWriteHalf<Msg>, pace: Option<&mut Pace>, mut bytes: Bytes) -> Result<(), russh::Error> {
    let Some(pace) = pace else { return half.data_bytes(bytes).await };
    while !bytes.is_empty() {
        let turn = bytes.split_to(pace.left().min(bytes.len()));
        let count = turn.len();
        half.data_bytes(turn).await?;
        pace.sent(count).await?;
    }
    Ok(())
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        if let Some(half) = self.half.take()
            && self.ends.borrow().lost.is_none()
        {
            let end = end(half, self.ends.clone(), Arc::clone(&self.shared), self.eof_sent);
            self.runtime.spawn(end);
        }
    }
}

/// Ends a channel that nobody writes to any more: end of file, and, when nobody reads either, close.
///
/// The other side gets a moment to close first. The SSH library forgets a channel completely only when the peer's close
/// comes before its own; else it keeps some memory of it for as long as the tunnel lives.
async fn end(half: ChannelWriteHalf<Msg>, mut ends: watch::Receiver<Ends>, shared: Arc<Shared>, eof_sent: bool) {
    let id: ChannelId = half.id();
    let ended_by_peer = async {
        if !eof_sent && half.eof().await.is_err() {
            return;
        }
        let _ = ends.wait_for(|ends| ends.lost.is_some() || ends.is_abandoned).await;
        let _ = timeout(CLOSE_GRACE, ends.wait_for(|ends| ends.lost.is_some())).await;
    };
    tokio::select! {
        biased;
        _ = shared.closed() => return,
        () = ended_by_peer => {}
    }
    // Still in the table where the peer has not closed.
    if shared.forget_inbox(id).is_some() {
        tokio::select! {
            biased;
            _ = shared.closed() => {}
            _ = half.close() => {}
        }
    }
}

/// A [`Channel`] as one stream. Dropping it closes the channel.
pub struct ChannelStream {
    read: ReadHalf,
    unread: WipedBuffer,
    write: Writer,
}

type Write = Pin<Box<dyn Future<Output = (Box<WriteHalf>, Result<(), Lost>)> + Send>>;

enum Writer {
    Idle(Box<WriteHalf>),
    Busy(Write),
    Failed(Lost),
}

impl ChannelStream {
    /// Appends all that has come to `into`. `Ready(Ok(false))` is the end of a channel that was closed; one whose tunnel is
    /// lost ends with an error.
    pub(crate) fn poll_take(&mut self, cx: &mut Context<'_>, into: &mut WipedBuffer) -> Poll<io::Result<bool>> {
        if !self.unread.is_empty() {
            into.extend(self.unread.filled());
            self.unread.clear();
            return Poll::Ready(Ok(true));
        }
        let more = ready!(self.read.poll_read_into(cx, into));
        Poll::Ready(match self.read.lost() {
            Some(lost) if !more && lost.what == "tunnel" => Err(io::Error::new(io::ErrorKind::ConnectionReset, lost)),
            _ => Ok(more),
        })
    }

    /// Waits for the write under way; `Ready` when another may begin.
    pub(crate) fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Writer::Busy(write) = &mut self.write {
            let (half, result) = ready!(write.as_mut().poll(cx));
            self.write = match result {
                Ok(()) => Writer::Idle(half),
                Err(lost) => Writer::Failed(lost),
            };
        }
        Poll::Ready(match &self.write {
            Writer::Failed(lost) => Err(io::Error::new(io::ErrorKind::BrokenPipe, lost.clone())),
            Writer::Idle(_) | Writer::Busy(_) => Ok(()),
        })
    }

    /// Begins to write `bytes`; only when idle.
    pub(crate) fn begin_write(&mut self, bytes: Bytes) {
        self.begin(|mut half| {
            Box::pin(async move {
                let result = half.write(bytes).await;
                (half, result)
            })
        });
    }

    fn begin(&mut self, write: impl FnOnce(Box<WriteHalf>) -> Write) {
        let placeholder = Writer::Busy(Box::pin(std::future::pending()));
        self.write = match std::mem::replace(&mut self.write, placeholder) {
            Writer::Idle(half) => Writer::Busy(write(half)),
            other => other,
        };
    }
}

impl AsyncRead for ChannelStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, wanted: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.unread.is_empty() {
            let mut unread = std::mem::take(&mut this.unread);
            let taken = this.poll_take(cx, &mut unread);
            this.unread = unread;
            if !ready!(taken)? {
                return Poll::Ready(Ok(()));
            }
        }
        let count = this.unread.len().min(wanted.remaining());
        wanted.put_slice(&this.unread.filled()[..count]);
        this.unread.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ChannelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_idle(cx))?;
        let count = bytes.len().min(STREAM_WRITE_SIZE);
        self.begin_write(WipedBuffer::from(&bytes[..count]).freeze());
        // What is taken counts as written; if it fails, the next call says so.
        Poll::Ready(match self.poll_idle(cx) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(count),
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_idle(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_idle(cx))?;
        if matches!(&self.write, Writer::Idle(half) if !half.eof_sent) {
            self.begin(|mut half| {
                Box::pin(async move {
                    let result = half.eof().await;
                    (half, result)
                })
            });
        }
        self.poll_idle(cx)
    }
}
