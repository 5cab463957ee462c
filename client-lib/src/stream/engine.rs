//! Moves bytes between a transport and a mux, both ways at once.

use std::io;
use std::task::{Context, Poll};

use bytes::Bytes;
use seeway_proto::mux::Broken;
use seeway_proto::wiped::WipedBuffer;

use super::Transport;

/// How many reads are taken in before others get their turn.
const READS_PER_POLL: usize = 8;

/// Why a stream has ended.
#[derive(Debug, thiserror::Error)]
pub enum StreamEnd {
    /// The other side closed it.
    #[error("the other side closed the connection")]
    Closed,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other side does not keep to the protocol.
    #[error("the other side broke the protocol: {0}")]
    Broken(#[from] Broken),
}

/// The asking or answering mux at the end of the stream.
pub(super) trait Mux {
    /// Everything there is to send.
    fn take_output(&mut self) -> Option<Bytes>;
    /// Takes whole messages off the front of `input`.
    fn feed(&mut self, input: &mut &[u8]) -> Result<(), Broken>;
    /// How many bytes are missing from the message at the front of `input`.
    fn missing(&self, input: &[u8]) -> usize;
}

/// The transport, and what is under way in each direction.
#[derive(Debug)]
pub(super) struct Engine<S> {
    transport: S,
    sending: Bytes,
    received: WipedBuffer,
}

impl<S: Transport> Engine<S> {
    pub(super) fn new(transport: S) -> Self {
        Self { transport, sending: Bytes::new(), received: WipedBuffer::new() }
    }

    /// Sends and receives what is possible now. `Ready(Ok(()))` when something was received and it should be called again;
    /// `Pending` when the transport will wake the task.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, mux: &mut impl Mux) -> Poll<Result<(), StreamEnd>> {
        let sent = self.poll_send(cx, mux);
        // A peer that refuses more may have said why, and answered what it had: that is read before the error is believed.
        let mut has_received = false;
        for _ in 0..READS_PER_POLL {
            let wanted = mux.missing(self.received.filled());
            match self.transport.poll_receive(cx, &mut self.received, wanted) {
                Poll::Pending => {
                    return match sent {
                        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                        _ if has_received => Poll::Ready(Ok(())),
                        _ => Poll::Pending,
                    };
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Ready(Ok(false)) => return Poll::Ready(Err(StreamEnd::Closed)),
                Poll::Ready(Ok(true)) => {
                    has_received = true;
                    let mut rest = self.received.filled();
                    let held = rest.len();
                    let fed = mux.feed(&mut rest);
                    let consumed = held - rest.len();
                    self.received.consume(consumed);
                    fed?;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, mux: &mut impl Mux) -> Poll<Result<(), StreamEnd>> {
        loop {
            if self.transport.poll_send(cx, &mut self.sending)?.is_pending() {
                return Poll::Pending;
            }
            match mux.take_output() {
                Some(output) => self.sending = output,
                None => return Poll::Ready(Ok(())),
            }
        }
    }
}
