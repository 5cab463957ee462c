//! A call's messages, as they come: HTTP/2 frames in, whole messages out, read where they stand.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::Body as _;
use seeway_proto::grpc::{BadHead, BadMessage, has_message, next_message};
use seeway_proto::wiped::WipedBuffer;
use tokio::time::Sleep;
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
    held: Held,
    /// How much the whole connection may hold.
    most_held: usize,
    /// How long a message may take to come.
    timeout: Duration,
    /// Set when one that has begun is waited for: most come whole.
    late: Option<Pin<Box<Sleep>>>,
    was_late: bool,
}

/// How many bytes a connection holds of messages that are not taken yet and of replies that are not read, over all of its calls: there
/// may be as many of either as it has streams.
#[derive(Debug, Default)]
pub(super) struct Holding(AtomicUsize);

/// A part of a connection's [`Holding`]; it is given back when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    holding: Arc<Holding>,
    bytes: usize,
}

impl Holding {
    /// How many bytes there are.
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Held {
    /// Nothing yet.
    pub(super) fn none(holding: Arc<Holding>) -> Self {
        Self { holding, bytes: 0 }
    }

    /// So much, from now on.
    pub(super) fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.holding.0.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            self.holding.0.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// How much.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the whole connection holds.
    pub(super) fn of_all(&self) -> usize {
        self.holding.bytes()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Messages {
    pub(super) fn new(body: Body, limit: usize, holding: Arc<Holding>, most_held: usize, timeout: Duration) -> Self {
        Self {
            body,
            ahead: WipedBuffer::new(),
            limit,
            held: Held::none(holding),
            most_held,
            timeout,
            late: None,
            was_late: false,
        }
    }

    /// Counts what `ahead` holds now.
    fn count(&mut self) {
        self.held.set(self.ahead.len());
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
        let all = self.held.of_all();
        all > self.held.bytes() && all >= self.most_held
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
        if taken > 0 {
            self.late = None;
        }
        result
    }

    /// Ready when the message that is waited for has taken too long to come.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        let timeout = self.timeout;
        let late = self.late.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        ready!(late.as_mut().poll(cx));
        self.was_late = true;
        Poll::Ready(Status::deadline_exceeded(format!(
            "the message had not come within {timeout:?} (limits.message_timeout, or the call's deadline); its job was not sent"
        )))
    }

    /// Whether the call has failed because a message took too long to come.
    pub(super) fn was_late(&self) -> bool {
        self.was_late
    }

    /// Waits for more bytes; false where the caller has sent its last.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Status>> {
        // What is whole can be handed over, which makes room; what is not would wait for others like it.
        if self.is_full() && !self.has_next() {
            return Poll::Ready(Err(self.holds_too_much()));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            if !self.ahead.is_empty() && !self.has_next() {
                return self.poll_late(cx).map(Err);
            }
            return Poll::Pending;
        };
        match frame {
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
        // A caller that reads no replies gets no more of them; one call alone may always.
        if self.is_full() {
            return Err(self.holds_too_much());
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

    /// What the whole connection holds, and may hold.
    pub(super) fn holding(&self) -> (&Arc<Holding>, usize) {
        (&self.held.holding, self.most_held)
    }

    fn holds_too_much(&self) -> Status {
        let most = self.most_held;
        Status::resource_exhausted(format!(
            "this connection's unfinished messages and unread replies have more than {most} bytes (limits.connection_buffer_bytes); \
             read replies, and send fewer large jobs at once over one connection"
        ))
    }

    /// [`poll_more`](Self::poll_more) where the caller owes more, even if none of it has come.
    async fn more(&mut self) -> Result<bool, Status> {
        std::future::poll_fn(|cx| match self.poll_more(cx) {
            Poll::Pending => self.poll_late(cx).map(Err),
            ready => ready,
        })
        .await
    }
}

fn bad_head(bad: BadHead) -> Status {
    match bad {
        BadHead::TooLong { .. } => Status::out_of_range(bad.to_string()),
        BadHead::Compressed(_) => Status::internal(bad.to_string()),
    }
}
