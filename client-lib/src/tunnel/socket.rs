//! The TCP connection under a tunnel, as the SSH library sees it.
//!
//! It adds five things to a socket:
//! - **Reads are buffered.** The SSH library asks for a packet's length and then for its rest; here that is one system
//!   call for all the packets that are waiting.
//! - **A write that waits also reads.** The SSH library writes its whole output before it reads again. Where the peer does
//!   the same, two full socket buffers would hold both sides up for ever. What is read meanwhile is at most what the
//!   peer's channel windows allow.
//! - **It acknowledges before it falls quiet.** What was read and not acknowledged within 2 ms is acknowledged then, instead
//!   of by the kernel 40 ms later: a server with Nagle's algorithm may be holding back its next small packet for it.
//! - **It takes turns.** The SSH library goes on as long as there is something to read or to write. Here it stops after a large
//!   packet, so that whoever else has this thread does not wait for all that others have to say.
//! - **It knows when the peer was last heard**, and whether anybody is listening: a tunnel whose reader is held up must
//!   not take the peer for dead.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// What one read takes in at most; larger than a packet, so that several small ones come at once.
const READ_SIZE: usize = 128 * 1024;

/// How much is read ahead while a write waits. The peer's channel windows should keep it far below this.
const MAX_READ_AHEAD: usize = 64 * 1024 * 1024;

/// How much of the peer's greeting is kept: an SSH identification line has at most 255 bytes.
const MAX_GREETING: usize = 255;

/// How soon what was read is acknowledged at the latest. Long against the microseconds in which a busy tunnel writes
/// something, and the ACK with it; short against the kernel's 40 ms.
const ACKNOWLEDGE_AFTER: Duration = Duration::from_millis(2);

/// How many bytes are moved before others go first: some 15 µs of encryption, copies and system calls.
const TURN_BYTES: usize = 32 * 1024;

/// What is known of the peer's life; shared between the socket and who watches it.
#[derive(Debug)]
pub(super) struct Pulse {
    origin: Instant,
    /// Milliseconds after `origin`.
    heard: AtomicU64,
    /// Whether a read has found nothing and waits. While it is false, silence is nobody's fault.
    is_listening: AtomicBool,
    greeting: Mutex<Vec<u8>>,
}

impl Pulse {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            origin: Instant::now(),
            heard: AtomicU64::new(0),
            is_listening: AtomicBool::new(false),
            greeting: Mutex::new(Vec::new()),
        })
    }

    /// For how long nothing has been heard although somebody listened.
    pub(super) fn silence(&self) -> Duration {
        if !self.is_listening.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        self.origin.elapsed().saturating_sub(Duration::from_millis(self.heard.load(Ordering::Relaxed)))
    }

    /// The peer's first line: of an SSH server, its version.
    pub(super) fn greeting(&self) -> String {
        let greeting = self.greeting.lock().unwrap_or_else(PoisonError::into_inner);
        let line = greeting.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        String::from_utf8_lossy(line).into_owned()
    }

    fn heard_now(&self) {
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(now, Ordering::Relaxed);
    }

    /// Keeps the greeting's next bytes; false once it has all of it.
    fn keep_greeting(&self, bytes: &[u8]) -> bool {
        let mut greeting = self.greeting.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_GREETING - greeting.len();
        greeting.extend_from_slice(&bytes[..bytes.len().min(room)]);
        greeting.len() < MAX_GREETING && !greeting.contains(&b'\n')
    }
}

/// The socket that is handed to the SSH library.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    is_greeting: bool,
    /// Read and not yet taken is `start..end`.
    ahead: Vec<u8>,
    start: usize,
    end: usize,
    quiet: Quiet,
    /// How many bytes the SSH library has moved since others last went first.
    moved: usize,
    /// Whether what is read is acknowledged at once.
    acknowledges_at_once: bool,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, pulse: Arc<Pulse>) -> Self {
        let (ahead, start, end) = (vec![0; READ_SIZE], 0, 0);
        let (quiet, moved, acknowledges_at_once) = (Quiet::new(), 0, false);
        Self { stream, pulse, is_greeting: true, ahead, start, end, quiet, moved, acknowledges_at_once }
    }

    /// For a tunnel whose channels have small windows: all that the server may send is soon sent, its Nagle holds the rest of the
    /// last segment back, and our end has nothing to say before that has come.
    pub(super) fn acknowledge_at_once(&mut self) {
        self.acknowledges_at_once = true;
    }

    /// Lets others go first, once in a while: all that are ready, and those whom the system has something for.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.moved < TURN_BYTES {
            return Poll::Ready(());
        }
        self.moved = 0;
        // Ready the second time, and a new one then: so this is `Pending` once, having asked to be called again.
        pin!(tokio::task::yield_now()).poll(cx)
    }

    /// Appends what the socket has to what was read ahead. `Ready(0)` is the end of the stream.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.ahead.len() > READ_SIZE {
                // A burst that had to be read ahead does not keep its memory.
                self.ahead = vec![0; READ_SIZE];
            }
        }
        if self.end == self.ahead.len() {
            self.ahead.resize(self.end * 2, 0);
        }
        let mut unfilled = ReadBuf::new(&mut self.ahead[self.end..]);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut unfilled);
        let count = unfilled.filled().len();
        self.pulse.is_listening.store(polled.is_pending(), Ordering::Relaxed);
        if polled.is_pending() {
            self.quiet.poll(cx, &self.stream);
        }
        ready!(polled)?;
        if count > 0 {
            self.pulse.heard_now();
            if self.acknowledges_at_once {
                acknowledge(&self.stream);
            } else {
                self.quiet.heard();
            }
            if self.is_greeting {
                self.is_greeting = self.pulse.keep_greeting(&self.ahead[self.end..self.end + count]);
            }
        }
        self.end += count;
        Poll::Ready(Ok(count))
    }
}

/// Acknowledges what was read when nothing more comes.
#[derive(Debug)]
struct Quiet {
    /// When something was last read that may not be acknowledged yet.
    heard: Option<Instant>,
    /// Is pushed back when something has been read. That costs next to nothing as long as it has not gone off; to set it anew
    /// after that costs a system call.
    timer: Pin<Box<Sleep>>,
}

impl Quiet {
    fn new() -> Self {
        Self { heard: None, timer: Box::pin(tokio::time::sleep(ACKNOWLEDGE_AFTER)) }
    }

    fn heard(&mut self) {
        self.heard = Some(Instant::now());
    }

    /// Called when a read has found nothing: so the task sleeps until more comes, or until it is time to acknowledge.
    fn poll(&mut self, cx: &mut Context<'_>, stream: &TcpStream) {
        let Some(heard) = self.heard else { return };
        let due = heard + ACKNOWLEDGE_AFTER;
        if self.timer.deadline() != due {
            self.timer.as_mut().reset(due);
        }
        if self.timer.as_mut().poll(cx).is_ready() {
            self.heard = None;
            acknowledge(stream);
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn acknowledge(stream: &TcpStream) {
    // Where it fails the connection is lost, and the next read will say so.
    let _ = stream.set_quickack(true);
}

/// Where there is no quick ACK, a session channel makes the server acknowledge at once: see `connect`.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn acknowledge(_: &TcpStream) {}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, wanted: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_turn(cx));
        if self.start == self.end && ready!(self.poll_fill(cx))? == 0 {
            return Poll::Ready(Ok(()));
        }
        let waiting = &self.ahead[self.start..self.end];
        let count = waiting.len().min(wanted.remaining());
        wanted.put_slice(&waiting[..count]);
        self.start += count;
        self.moved += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_turn(cx));
        if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, bytes) {
            self.moved += written.as_ref().map_or(0, |count| *count);
            return Poll::Ready(written);
        }
        while self.end - self.start < MAX_READ_AHEAD {
            match self.poll_fill(cx) {
                Poll::Ready(Ok(count)) if count > 0 => {}
                // The end of the stream, or an error: the next read will meet it again.
                Poll::Ready(_) | Poll::Pending => break,
            }
        }
        // The socket will wake this task when it can be written to, and when there is more to read.
        Poll::Pending
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
