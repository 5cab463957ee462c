//! A call's messages, as they come: HTTP/2 frames in, whole messages out, read where they stand.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use hyper::body::Body as _;
use seeway_proto::grpc::{BadHead, BadMessage, has_message, next_message};
use seeway_proto::wiped::WipedBuffer;
use tonic::body::Body;
use tonic::{Code, Status};

/// The messages of one call.
pub(super) struct Messages {
    body: Body,
    /// Came and not taken yet.
    ahead: WipedBuffer,
    /// The largest message.
    limit: usize,
    /// What `ahead` counts for among what the whole connection holds.
    held: usize,
    holding: Arc<Holding>,
    /// How much the whole connection may hold.
    most_held: usize,
}

/// How many bytes a connection holds of messages that are not taken yet, over all of its calls: there may be as many unfinished ones
/// as it has streams.
#[derive(Debug, Default)]
pub(super) struct Holding(AtomicUsize);

impl Holding {
    /// How many bytes there are.
    fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Messages {
    pub(super) fn new(body: Body, limit: usize, holding: Arc<Holding>, most_held: usize) -> Self {
        Self { body, ahead: WipedBuffer::new(), limit, held: 0, holding, most_held }
    }

    /// Counts what `ahead` holds now.
    fn count(&mut self) {
        let now = self.ahead.len();
        if now > self.held {
            self.holding.0.fetch_add(now - self.held, Ordering::Relaxed);
        } else {
            self.holding.0.fetch_sub(self.held - now, Ordering::Relaxed);
        }
        self.held = now;
    }

    /// Whether there is something to take.
    pub(super) fn has_next(&self) -> bool {
        has_message(self.ahead.filled(), self.limit)
    }

    /// How many bytes came and were not taken.
    pub(super) fn ahead(&self) -> usize {
        self.ahead.len()
    }

    /// Whether the connection holds as much as it may. One call at a time may hold a message whatever the limit is, or none could.
    pub(super) fn is_full(&self) -> bool {
        let all = self.holding.bytes();
        all > self.held && all >= self.most_held
    }

    /// Has `take` look at the messages that are there, one after the other, until it says that it wants no more.
    pub(super) fn take(&mut self, mut take: impl FnMut(&[u8]) -> Result<bool, BadMessage>) -> Result<(), Status> {
        let mut rest = self.ahead.filled();
        let result = loop {
            let before = rest;
            match next_message(&mut rest, self.limit) {
                Ok(None) => break Ok(()),
                Err(bad) => break Err(bad_head(bad)),
                Ok(Some(message)) => match take(message) {
                    Ok(true) => {}
                    Ok(false) => {
                        rest = before;
                        break Ok(());
                    }
                    Err(bad) => break Err(Status::internal(bad.to_string())),
                },
            }
        };
        let taken = self.ahead.len() - rest.len();
        self.ahead.consume(taken);
        self.count();
        result
    }

    /// Waits for more bytes; false where the caller has sent its last.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Status>> {
        // What is whole can be handed over, which makes room; what is not would wait for others like it.
        if self.is_full() && !self.has_next() {
            return Poll::Ready(Err(self.holds_too_much()));
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    self.ahead.extend(&bytes);
                    self.count();
                    return Poll::Ready(Ok(true));
                }
            }
            // A caller that gives its call up has nothing more to say, and that is no failure.
            Some(Err(status)) if status.code() != Code::Cancelled => return Poll::Ready(Err(status)),
            Some(Err(_)) | None => {}
        }
        if !self.ahead.is_empty() && !self.has_next() {
            return Poll::Ready(Err(Status::internal("the call ends within a message")));
        }
        Poll::Ready(Ok(false))
    }

    /// Waits for a call's only message, which can be taken then, and for the end of the call's requests.
    pub(super) async fn only(&mut self) -> Result<(), Status> {
        while !self.has_next() {
            if !self.more().await? {
                return Err(Status::internal("the call has no message"));
            }
        }
        while !self.body.is_end_stream() {
            let length = self.ahead.len();
            if !self.more().await? {
                break;
            }
            // Nothing comes after the only message.
            self.ahead.truncate(length);
        }
        Ok(())
    }

    fn holds_too_much(&self) -> Status {
        let most = self.most_held;
        Status::resource_exhausted(format!(
            "this connection's unfinished messages have more than {most} bytes (limits.connection_buffer_bytes); send fewer large \
             jobs at once over one connection"
        ))
    }

    async fn more(&mut self) -> Result<bool, Status> {
        std::future::poll_fn(|cx| self.poll_more(cx)).await
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.holding.0.fetch_sub(self.held, Ordering::Relaxed);
    }
}

fn bad_head(bad: BadHead) -> Status {
    match bad {
        BadHead::TooLong { .. } => Status::out_of_range(bad.to_string()),
        BadHead::Compressed(_) => Status::internal(bad.to_string()),
    }
}
