//! Notices that the other side has gone without a word, and how long it takes to answer.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use russh::client::Handle;
use tokio::time::{Instant, sleep, timeout};

use super::handler::Events;
use super::shared::{OnKeepalive, Shared};

/// How long the last question may stay unanswered, at most.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// How long silence may last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// Before the first keepalive.
    pub(super) idle: Duration,
    /// Before the next one.
    pub(super) interval: Duration,
    /// Before the tunnel is given up.
    pub(super) broken_after: Duration,
}

/// Runs for as long as the tunnel stands. Anything that the peer sends counts as a sign of life; a keepalive asks for one.
pub(super) async fn watch(shared: Arc<Shared>, handle: Arc<Handle<Events>>, times: Times) {
    tokio::select! {
        biased;
        _ = shared.closed() => {}
        () = watch_silence(&shared, &handle, times) => {
            let heard_nothing = format!("nothing heard for {:?}", times.broken_after);
            shared.cut(heard_nothing);
        }
    }
}

/// Ends when there was silence for too long.
async fn watch_silence(shared: &Arc<Shared>, handle: &Arc<Handle<Events>>, times: Times) {
    let mut asked: u32 = 0;
    let mut question = Question::default();
    let mut last_silence = Duration::ZERO;
    loop {
        let silence = shared.pulse.silence();
        if silence < last_silence {
            asked = 0;
        }
        last_silence = silence;
        let Some(left) = times.broken_after.checked_sub(silence).filter(|left| !left.is_zero()) else {
            // It may be this process that stood still, and has just come back. So there is one more question, and time to
            // read what has come meanwhile.
            let _ = timeout(times.interval, handle.send_keepalive(true)).await;
            question.wait(times.interval.min(LAST_CHANCE)).await;
            if shared.pulse.silence() >= times.broken_after {
                return;
            }
            continue;
        };
        let next_question = times.idle.saturating_add(times.interval.saturating_mul(asked));
        match next_question.checked_sub(silence) {
            Some(pause) if !pause.is_zero() => question.wait(pause.min(left)).await,
            _ => {
                asked += 1;
                if question.0.is_none() {
                    question.0 = Some(Box::pin(measure(Arc::clone(shared), Arc::clone(handle))));
                } else {
                    // Where there is no room even for a question, silence goes on being counted.
                    let _ = timeout(times.interval.min(left), handle.send_keepalive(true)).await;
                }
            }
        }
    }
}

/// The keepalive whose answer is waited for; it goes out while [`wait`](Self::wait) runs. One at most: where it stays unanswered
/// further ones are not measured.
#[derive(Default)]
struct Question(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Question {
    /// Waits so long, and takes the answer meanwhile.
    async fn wait(&mut self, pause: Duration) {
        let mut pause = pin!(sleep(pause));
        if let Some(question) = &mut self.0 {
            tokio::select! {
                biased;
                () = question => self.0 = None,
                () = &mut pause => return,
            }
        }
        pause.await;
    }
}

/// When something was last heard is known to the millisecond.
const HEARD_PRECISION: Duration = Duration::from_millis(1);

/// Sends a keepalive and tells how long its answer took to come.
async fn measure(shared: Arc<Shared>, handle: Arc<Handle<Events>>) {
    let asked = Instant::now();
    let answered = handle.send_ping().await;
    let took = asked.elapsed();
    // The library says the same where it has ended instead. Then nothing has been heard.
    let is_heard = shared.pulse.silence() <= took + HEARD_PRECISION && shared.lost().is_none();
    if let (Ok(()), true, Some(OnKeepalive(told))) = (answered, is_heard, shared.on_keepalive.get()) {
        told(took);
    }
}
