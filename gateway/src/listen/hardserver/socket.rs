//! A socket that carries the SEEJob wire, to a legacy caller or to a hardserver, and how it is read.

use std::cell::RefCell;
use std::io;

use seeway_proto::wiped::WipedBuffer;
use tokio::io::{Interest, Ready};
use tokio::net::{TcpStream, UnixStream};
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
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
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
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }

    /// Waits until there is something to read, and says whether that is the end.
    pub(super) async fn ready_to_read(&self) -> io::Result<Ready> {
        match self {
            Self::Tcp(stream) => stream.ready(Interest::READABLE).await,
            Self::Unix(stream) => stream.ready(Interest::READABLE).await,
        }
    }

    fn try_read(&self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(into),
            Self::Unix(stream) => stream.try_read(into),
        }
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    pub(super) fn peer(&self) -> String {
        match self {
            Self::Tcp(stream) => stream.peer_addr().map_or_else(|_| "a TCP peer".into(), |peer| peer.to_string()),
            Self::Unix(stream) => {
                stream.peer_cred().map_or_else(|_| "a Unix peer".into(), |peer| format!("uid {}", peer.uid()))
            }
        }
    }

    /// Reads once, and has `decode` take what it can of everything that was read and not taken yet; it returns how many
    /// bytes it left. Those are kept in `partial`, of which at least `missing` bytes more are wanted. `gone` is the error
    /// where the peer has closed its end.
    pub(super) fn take_in<E: From<io::Error>>(
        &self,
        partial: &mut WipedBuffer,
        missing: usize,
        gone: E,
        decode: impl FnOnce(&[u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        if partial.is_empty() {
            SHARED_READ_BUFFER.with_borrow_mut(|shared| {
                let count = self.try_read(shared)?;
                let read = &mut shared[..count];
                let result = if count == 0 { Err(gone) } else { decode(read) };
                let result = result.map(|rest| partial.extend(&read[count - rest..]));
                read.zeroize();
                result
            })
        } else {
            let count = self.try_read(partial.unfilled(missing.max(READ_BYTES / 4)))?;
            if count == 0 {
                return Err(gone);
            }
            partial.commit(count);
            decode_partial(partial, decode)
        }
    }
}

/// Has `decode` take what it can of `partial`; it returns how many bytes it left.
pub(super) fn decode_partial<E>(
    partial: &mut WipedBuffer,
    decode: impl FnOnce(&[u8]) -> Result<usize, E>,
) -> Result<(), E> {
    let rest = decode(partial.filled())?;
    partial.consume(partial.len() - rest);
    if partial.is_empty() && partial.capacity() > KEPT_BYTES {
        *partial = WipedBuffer::new();
    }
    Ok(())
}
