//! A socket that takes what is written even where the peer does not read.
//!
//! russh does not read from a connection while a write to it is held up. Two such ends that both have much to send wait
//! for each other for ever, once the buffers between them are full: a gateway that sends many large jobs and a machine that
//! echoes them get there. So the HSM's side of a connection never holds russh up. What the socket does not take is kept
//! here, and sent when it can be. That is no more than the windows that the peer granted to its channels.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use seeway_proto::wiped::WipedBuffer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The most bytes that are kept, for peers that grant windows without measure; with so many, a write is held up after all.
const MAX_UNSENT: usize = 64 * 1024 * 1024;

/// A socket whose unsent bytes are sent whenever it is read from, which russh always waits to do.
pub(super) struct Unblocked {
    stream: TcpStream,
    unsent: WipedBuffer,
}

impl Unblocked {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, unsent: WipedBuffer::new() }
    }

    /// Sends what was kept; ready once nothing is.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, self.unsent.filled()))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.consume(sent);
        }
        // A burst is not to hold its memory for as long as the connection lasts.
        if self.unsent.capacity() > 0 {
            self.unsent = WipedBuffer::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Unblocked {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Unblocked {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.poll_send(cx)?.is_ready()
            && let Poll::Ready(sent) = Pin::new(&mut self.stream).poll_write(cx, buf)
        {
            return Poll::Ready(sent);
        }
        // Either poll has left word to be woken when the socket takes more.
        if self.unsent.len() >= MAX_UNSENT {
            return Poll::Pending;
        }
        self.unsent.extend(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is kept is on its way as far as it can be, and the socket itself keeps nothing back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Unblocked, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has an address");
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        (Unblocked::new(ours.expect("connects")), theirs.expect("accepts").0)
    }

    /// Bytes that follow from their place.
    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from(at % 251).expect("below 251")).collect()
    }

    #[tokio::test]
    async fn what_the_peer_does_not_take_is_kept_and_sent_in_order_while_reading() {
        let (mut ours, mut theirs) = pair().await;
        let sent = bytes(32 * 1024 * 1024);
        ours.write_all(&sent).await.expect("is taken, though nobody reads");
        assert!(!ours.unsent.is_empty(), "so much fits into no socket");
        let receiving = tokio::spawn(async move {
            let mut received = vec![0; 32 * 1024 * 1024];
            theirs.read_exact(&mut received).await.expect("all of it comes");
            theirs.write_all(b"all").await.expect("is taken");
            received
        });
        let mut answer = [0; 3];
        ours.read_exact(&mut answer).await.expect("it is sent while this is waited for");
        assert!(receiving.await.expect("receives") == sent);
        assert_eq!(ours.unsent.capacity(), 0);
    }

    #[tokio::test]
    async fn only_so_much_is_kept() {
        let (mut ours, _theirs) = pair().await;
        let piece = bytes(1024 * 1024);
        let mut taken = 0;
        while let Ok(write) = tokio::time::timeout(Duration::from_millis(100), ours.write(&piece)).await {
            taken += write.expect("the socket is fine");
            assert!(taken < 2 * MAX_UNSENT, "the limit holds");
        }
        assert!(ours.unsent.len() >= MAX_UNSENT && ours.unsent.len() < MAX_UNSENT + piece.len());
    }

    #[tokio::test]
    async fn closing_sends_what_was_kept() {
        let (mut ours, mut theirs) = pair().await;
        let sent = bytes(16 * 1024 * 1024);
        ours.write_all(&sent).await.expect("is taken");
        let receiving = tokio::spawn(async move {
            let mut received = Vec::new();
            theirs.read_to_end(&mut received).await.expect("all of it comes");
            received
        });
        ours.shutdown().await.expect("closes");
        assert!(receiving.await.expect("receives") == sent);
    }
}
