//! A caller's TCP connection, with TLS or without.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::server::TlsStream;

/// A connection on a shard.
pub enum Stream {
    /// As it comes.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<Tls>),
}

/// An encrypted connection. Where its certificate is withdrawn, it fails.
pub struct Tls {
    stream: TlsStream<Movable>,
    certificate: ItsCertificate,
}

/// What a connection was made with.
enum ItsCertificate {
    /// None, or one that nobody can withdraw any more: its listener has gone.
    None,
    /// Good, until this resolves.
    Good(oneshot::Receiver<()>),
    Withdrawn,
}

impl Tls {
    /// One that was agreed on, by a caller whose certificate may be withdrawn.
    pub fn new(stream: TlsStream<Movable>, withdrawn: Option<oneshot::Receiver<()>>) -> Self {
        Self { stream, certificate: withdrawn.map_or(ItsCertificate::None, ItsCertificate::Good) }
    }

    /// Arrives at the runtime that this is called on.
    ///
    /// # Errors
    /// The runtime will not have its socket.
    pub fn arrive(&mut self) -> io::Result<()> {
        self.stream.get_mut().0.arrive()
    }

    /// The other end's address.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.stream.get_ref().0.peer()
    }

    /// The stream, as long as nobody has withdrawn its certificate. One task has both of its directions, and is woken then.
    fn certified(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut TlsStream<Movable>>> {
        if let ItsCertificate::Good(withdrawn) = &mut self.certificate
            && let Poll::Ready(told) = Pin::new(withdrawn).poll(cx)
        {
            self.certificate = told.map_or(ItsCertificate::None, |()| ItsCertificate::Withdrawn);
        }
        match self.certificate {
            ItsCertificate::None | ItsCertificate::Good(_) => Ok(Pin::new(&mut self.stream)),
            ItsCertificate::Withdrawn => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

impl AsyncRead for Tls {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.certified(cx)?.poll_read(cx, into)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.certified(cx)?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.certified(cx)?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.certified(cx)?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A socket that can go from one thread's runtime to another's: TLS is agreed on where it holds up no shard, and then spoken on the
/// caller's shard.
pub struct Movable(Place);

enum Place {
    Here(TcpStream),
    Between(StdTcpStream),
    /// Its runtime would not have it. Reading and writing fail.
    Lost,
}

impl Movable {
    /// A socket on the runtime that this is called on.
    pub fn new(stream: TcpStream) -> Self {
        Self(Place::Here(stream))
    }

    /// Leaves its runtime.
    pub fn leave(&mut self) -> io::Result<()> {
        if let Place::Here(stream) = std::mem::replace(&mut self.0, Place::Lost) {
            self.0 = Place::Between(stream.into_std()?);
        }
        Ok(())
    }

    /// Arrives at the runtime that this is called on.
    pub fn arrive(&mut self) -> io::Result<()> {
        if let Place::Between(stream) = std::mem::replace(&mut self.0, Place::Lost) {
            self.0 = Place::Here(TcpStream::from_std(stream)?);
        }
        Ok(())
    }

    /// The other end's address.
    pub fn peer(&self) -> Option<SocketAddr> {
        match &self.0 {
            Place::Here(stream) => stream.peer_addr().ok(),
            Place::Between(stream) => stream.peer_addr().ok(),
            Place::Lost => None,
        }
    }

    fn here(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match &mut self.0 {
            Place::Here(stream) => Ok(Pin::new(stream)),
            Place::Between(_) | Place::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Movable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_read(cx, into)
    }
}

impl AsyncWrite for Movable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.here()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.here()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_shutdown(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
