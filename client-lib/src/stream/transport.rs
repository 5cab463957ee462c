//! What a SEEJob stream runs over.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use seeway_proto::wiped::WipedBuffer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at once, at least.
const READ_SIZE: usize = 64 * 1024;

/// Both directions of a byte stream, polled by one task.
pub trait Transport {
    /// Appends what has come to `into`, which has use for `wanted` bytes at least. `Ready(Ok(false))` is the end.
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut WipedBuffer, wanted: usize) -> Poll<io::Result<bool>>;

    /// Sends `bytes`, taking from their front; `Ready` once all of them are on their way. Called again with the same
    /// bytes until then.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>>;
}

/// Any `AsyncRead` and `AsyncWrite`, such as a socket.
#[derive(Debug)]
pub struct IoTransport<S>(pub S);

impl<S: AsyncRead + AsyncWrite + Unpin> Transport for IoTransport<S> {
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut WipedBuffer, wanted: usize) -> Poll<io::Result<bool>> {
        let mut room = ReadBuf::new(into.unfilled(wanted.max(READ_SIZE)));
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut room))?;
        let count = room.filled().len();
        into.commit(count);
        Poll::Ready(Ok(count > 0))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        while !bytes.is_empty() {
            let count = ready!(Pin::new(&mut self.0).poll_write(cx, bytes))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            bytes.advance(count);
        }
        Pin::new(&mut self.0).poll_flush(cx)
    }
}

#[cfg(feature = "tunnel")]
impl Transport for crate::tunnel::ChannelStream {
    fn poll_receive(&mut self, cx: &mut Context<'_>, into: &mut WipedBuffer, _wanted: usize) -> Poll<io::Result<bool>> {
        self.poll_take(cx, into)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<()>> {
        ready!(self.poll_idle(cx))?;
        if !bytes.is_empty() {
            self.begin_write(std::mem::take(bytes));
        }
        self.poll_idle(cx)
    }
}
