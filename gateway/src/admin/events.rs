//! `/api/events`: the state, each second, to whoever keeps listening. Server-sent events, so that a browser needs nothing else.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_stream::Stream as _;
use tokio_stream::wrappers::WatchStream;

use super::Control;
use super::answer::with_rights;
use super::sampler::Sample;
use super::server::Operator;

/// How many may listen at once, at all listeners together: a quarter of the connections of one, so that probes find room.
pub(super) const MAX_STREAMS: usize = 16;

/// How long a listener may take nothing before it is let go.
const UNREAD: Duration = Duration::from_secs(10);

/// How long one may listen. It comes again then, by whatever rules and certificates there are.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// What is said last to one who has listened for so long, and is not to be taken for a gateway that is gone. A browser hears of no event
/// without data.
const END: &[u8] = b"event: end\ndata: {}\n\n";

/// When a connection ends, whatever it is doing.
#[derive(Clone)]
pub(super) struct Leash(Arc<watch::Sender<Instant>>);

impl Leash {
    /// It has so long from now.
    pub(super) fn new(time: Duration) -> Self {
        Self(Arc::new(watch::Sender::new(Instant::now() + time)))
    }

    /// It has so long from now, and not what it had.
    fn renew(&self, time: Duration) {
        self.0.send_replace(Instant::now() + time);
    }

    /// Waits for the end.
    pub(super) async fn over(&self) {
        let mut end = self.0.subscribe();
        loop {
            let at = *end.borrow_and_update();
            tokio::select! {
                () = sleep_until(at) => return,
                // The sender is in `self`.
                _ = end.changed() => {}
            }
        }
    }
}

/// How many listen.
#[derive(Clone, Default)]
pub(super) struct Streams(Arc<AtomicUsize>);

/// One listener's place, given back when it is dropped.
struct Place(Streams);

impl Streams {
    fn take(&self) -> Option<Place> {
        let one_more = |count| (count < MAX_STREAMS).then_some(count + 1);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        taken.then(|| Place(self.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The events for one listener: an answer's body.
pub(super) struct Events {
    samples: WatchStream<Option<Arc<Sample>>>,
    operator: Operator,
    control: Arc<Control>,
    leash: Leash,
    until: Instant,
    /// Whether the end was said.
    has_ended: bool,
    _place: Place,
}

impl Events {
    /// For one more listener; `None` where there are as many as there may be.
    pub(super) fn begin(operator: &Operator, control: &Arc<Control>, leash: &Leash) -> Option<Self> {
        let place = control.streams().take()?;
        let samples = WatchStream::new(control.sampler().look(control));
        leash.renew(UNREAD);
        let (operator, control, leash) = (operator.clone(), control.clone(), leash.clone());
        let until = Instant::now() + MAX_AGE;
        Some(Self { samples, operator, control, leash, until, has_ended: false, _place: place })
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        loop {
            let Some(sample) = ready!(Pin::new(&mut self.samples).poll_next(context)) else {
                return Poll::Ready(None);
            };
            if Instant::now() >= self.until {
                self.has_ended = true;
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(END)))));
            }
            // The first one may still be in the making.
            let Some(sample) = sample else { continue };
            // It is asked for the next when the last has gone on its way.
            self.leash.renew(UNREAD);
            let state = with_rights(&sample.state, &self.operator, &self.control);
            let event = format!("event: state\ndata: {state}\n\n");
            return Poll::Ready(Some(Ok(Frame::data(event.into()))));
        }
    }
}
