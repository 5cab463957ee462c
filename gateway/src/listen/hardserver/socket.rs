//! The socket to the hardserver behind this gateway, and how it is read.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use seeway_proto::wiped::WipedBuffer;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpStream, UnixStream, tcp, unix};
use zeroize::Zeroize;

/// What one read takes at most: enough for a few hundred small jobs, small enough to stay in a core's cache.
const READ_BYTES: usize = 64 * 1024;

/// A buffer that grew beyond this for a large message is given back when it is empty.
pub(super) const KEPT_BYTES: usize = 64 * 1024;

thread_local! {
    /// What the shard's connections read into. Empty and zero between two reads.
    static SHARED_READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
}

/// A socket of either kind.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What comes from a socket.
pub(super) enum Reader {
    Tcp(tcp::OwnedReadHalf),
    Unix(unix::OwnedReadHalf),
}

/// What goes to a socket.
pub(super) enum Writer {
    Tcp(tcp::OwnedWriteHalf),
    Unix(unix::OwnedWriteHalf),
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl Socket {
    /// Its two directions.
    pub(super) fn split(self) -> (Reader, Writer) {
        match self {
            Self::Tcp(stream) => {
                let (reader, writer) = stream.into_split();
                (Reader::Tcp(reader), Writer::Tcp(writer))
            }
            Self::Unix(stream) => {
                let (reader, writer) = stream.into_split();
                (Reader::Unix(reader), Writer::Unix(writer))
            }
        }
    }
}

impl Writer {
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }
}

impl Reader {
    /// Reads once. Unlike `try_read`, this does not ask the system a second time where it had less than there is room for.
    fn poll_read(&mut self, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut into = ReadBuf::new(into);
        ready!(match self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, &mut into),
            Self::Unix(stream) => Pin::new(stream).poll_read(context, &mut into),
        })?;
        Poll::Ready(Ok(into.filled().len()))
    }

    /// Waits for something to read, reads once, and has `decode` take what it can of everything that was read and not taken
    /// yet; it returns how many bytes it left, and what it has to say. Those are kept in `partial`, of which at least `missing`
    /// bytes more are wanted. `gone` is the error where the peer has closed its end.
    ///
    /// Nothing is read where the future is dropped before it is ready.
    pub(super) async fn take_in<T, E: From<io::Error>>(
        &mut self,
        partial: &mut WipedBuffer,
        missing: usize,
        gone: E,
        decode: impl FnOnce(&[u8]) -> Result<(usize, T), E>,
    ) -> Result<T, E> {
        if !partial.is_empty() {
            let room = partial.unfilled(missing.max(READ_BYTES / 4));
            let room_for_one = room.len().min(READ_BYTES);
            let room = &mut room[..room_for_one];
            let count = std::future::poll_fn(|context| self.poll_read(context, room)).await?;
            if count == 0 {
                return Err(gone);
            }
            partial.commit(count);
            return decode_partial(partial, decode, drop);
        }
        let mut once = Some((gone, decode));
        std::future::poll_fn(|context| {
            SHARED_READ_BUFFER.with_borrow_mut(|shared| {
                let count = ready!(self.poll_read(context, shared))?;
                let read = &mut shared[..count];
                let (gone, decode) = once.take().expect("a future that was ready is not polled again");
                let result = if count == 0 { Err(gone) } else { decode(read) };
                let result = result.map(|(rest, said)| {
                    partial.extend(&read[count - rest..]);
                    said
                });
                read.zeroize();
                Poll::Ready(result)
            })
        })
        .await
    }
}

/// Has `decode` take what it can of `partial`; it returns how many bytes it left, and what it has to say. A buffer that a large
/// message has left empty goes to `release`.
pub(super) fn decode_partial<T, E>(
    partial: &mut WipedBuffer,
    decode: impl FnOnce(&[u8]) -> Result<(usize, T), E>,
    release: impl FnOnce(WipedBuffer),
) -> Result<T, E> {
    let (rest, said) = decode(partial.filled())?;
    partial.consume(partial.len() - rest);
    if partial.is_empty() && partial.capacity() > KEPT_BYTES {
        release(std::mem::take(partial));
    }
    Ok(said)
}
