//! How much a tunnel that gives way has on its way.
//!
//! A large transfer fills every buffer that it is given: the socket's, the server's, the machine's. Each of them is then busy
//! with it for long without a pause, and what is small, in whatever tunnel, waits for a processor there. So such a tunnel has only
//! as much on its way as keeps a fast network busy. To the server: after each turn the server is asked whether it has got there (a
//! keepalive, which is answered in its place), and no more than two turns are unconfirmed. From the server: that is the channel's
//! window.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use russh::Error;
use russh::client::Handle;
use tokio::time::Instant;

use super::handler::Events;

/// What a network may carry, in bytes for each microsecond: 2 Gbit/s, more than one connection's encryption makes of a core.
const FAST: u128 = 256;

/// The least of a turn: one of the server's packets. A smaller one would cost more in questions than in bytes.
const LEAST_TURN: usize = 32 * 1024;

/// The most of a turn; a server's own window is hardly ever larger than two of them.
const MOST_TURN: usize = 4 * 1024 * 1024;

/// The least window: one of the server's packets. With two or more of them the server encrypts a large reply without a pause, and
/// a small one waits for that.
const LEAST_WINDOW: u32 = 32 * 1024;

/// What is worth having on its way to us, on a network with this round trip: within 32 KiB and `most`.
pub(super) fn window(round_trip: Duration, most: u32) -> u32 {
    u32::try_from(FAST * round_trip.as_micros()).unwrap_or(most).clamp(LEAST_WINDOW.min(most), most)
}

/// How many bytes go in a turn, of which two may be unconfirmed, where the round trip has taken `least` at the least.
fn turn(least: Option<Duration>) -> usize {
    let wanted = least.map_or(0, |least| FAST * least.as_micros() / 2);
    usize::try_from(wanted).unwrap_or(MOST_TURN).clamp(LEAST_TURN, MOST_TURN)
}

/// The server's confirmation, and how long it took.
type Confirmation = Pin<Box<dyn Future<Output = Result<Duration, Error>> + Send + Sync>>;

/// What one channel has on its way to the server.
pub(super) struct Pace {
    handle: Arc<Handle<Events>>,
    /// What is left of this turn.
    left: usize,
    /// That of the turn before.
    unconfirmed: Option<Confirmation>,
    /// The least round trip so far: what the network takes, and hardly any of the waiting that is our own doing.
    least: Option<Duration>,
}

impl Pace {
    pub(super) fn new(handle: Arc<Handle<Events>>) -> Self {
        Self { handle, left: turn(None), unconfirmed: None, least: None }
    }

    /// How many bytes may be sent before [`sent`](Self::sent) is told; never 0.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// So many bytes have been handed to the SSH library. Waits until there is a turn for more.
    pub(super) async fn sent(&mut self, count: usize) -> Result<(), Error> {
        self.left -= count;
        if self.left > 0 {
            return Ok(());
        }
        let mut asked = self.ask();
        // Polled once, so that it stands in line behind what was sent, and before what is sent next. The library's task may be on
        // another thread, and the answer there already.
        let answered = poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx))).await;
        let before = match answered {
            Poll::Pending => self.unconfirmed.replace(asked),
            Poll::Ready(took) => {
                self.learn(took?);
                self.unconfirmed.take()
            }
        };
        if let Some(before) = before {
            self.learn(before.await?);
        }
        self.left = turn(self.least);
        Ok(())
    }

    fn learn(&mut self, took: Duration) {
        self.least = Some(self.least.map_or(took, |least| least.min(took)));
    }

    fn ask(&self) -> Confirmation {
        let handle = Arc::clone(&self.handle);
        Box::pin(async move {
            let asked = Instant::now();
            handle.send_ping().await?;
            Ok(asked.elapsed())
        })
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace").field("left", &self.left).field("least", &self.least).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_grows_with_the_distance() {
        let ms = Duration::from_millis;
        for (round_trip, turns) in [
            (None, LEAST_TURN),
            (Some(Duration::from_micros(50)), LEAST_TURN),
            (Some(ms(1)), 128_000),
            (Some(ms(10)), 1_280_000),
            (Some(Duration::from_secs(1)), MOST_TURN),
            (Some(Duration::MAX), MOST_TURN),
        ] {
            assert_eq!(turn(round_trip), turns, "{round_trip:?}");
        }
        let most = 8 * 1024 * 1024;
        for (round_trip, windows) in [
            (Duration::ZERO, LEAST_WINDOW),
            (Duration::from_micros(100), LEAST_WINDOW),
            (ms(1), 256_000),
            (ms(20), 5_120_000),
            (Duration::from_secs(1), most),
            (Duration::MAX, most),
        ] {
            assert_eq!(window(round_trip, most), windows, "{round_trip:?}");
        }
    }
}
