//! How a [`Gateway`] takes another one's place, and how it leaves its own to another. What is said between the two is in
//! [`handover`](crate::handover).

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::bound::{Bound, bind};
use super::{Gateway, GatewayError, Unopened, failed};
use crate::handover::{Arrived, Asked, Counts, Given, Giver, Heard, Leaving, MessageError, Offer, Successor, Yours};

/// Connections from another gateway that may wait to be served here.
const ARRIVALS: usize = 64;

/// How long gRPC callers that were told to connect anew may still begin calls here: they hear of it within a round trip.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// How often one looks whether everything has moved. It is done once in a gateway's life.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// How long the new gateway may take to say that it is watched over. The old one ends then all the same.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(15);

/// How long beyond `runtime.drain_timeout` the old gateway may take to end with this one: its callers read what they were answered.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The gateway that this one has taken over from.
pub(super) struct Predecessor {
    yours: Yours,
    /// Dropped when it has ended.
    ended: oneshot::Receiver<()>,
}

impl Predecessor {
    /// It is to stop like this one.
    pub(super) fn stop(&self) {
        // It may have ended long ago.
        let _ = self.yours.stopping();
    }

    /// Waits until it has ended, at most until a little after its own drain is over, which was to be so at `drained`: whoever watches over
    /// the two kills what is left of them when this one ends.
    pub(super) async fn ended(self, drained: Instant) {
        let Self { yours, ended } = self;
        if tokio::time::timeout_at((drained + LAST_WORDS).into(), ended).await.is_err() {
            tracing::warn!("the gateway that was taken over from has not ended in time");
        }
        yours.hang_up();
    }
}

/// Why a new gateway is given nothing more.
enum Over {
    /// There is nothing more, or no more time; so much is left.
    Given(usize),
    /// It was told to stop.
    Stopping,
    /// It has ended.
    Lost,
}

impl Gateway {
    /// Accepts callers and operators at the listeners that another gateway had, and takes its legacy connections in as they come.
    pub fn open_after(&mut self, yours: Option<Yours>) {
        let counts = self.control.handovers().clone();
        Counts::add(&counts.taken_over);
        self.open();
        let Some(yours) = yours else { return };
        if let Err(error) = yours.opened() {
            tracing::warn!(%error, "the gateway that was taken over from has ended before it gave its callers");
            return;
        }
        let (sender, mut arrived) = mpsc::channel(ARRIVALS);
        let (running, ended) = oneshot::channel::<()>();
        self.predecessor = Some(Predecessor { yours: yours.clone(), ended });
        let acceptor = self.acceptor.clone();
        self.keepers.spawn(async move {
            let taking = {
                let counts = counts.clone();
                tokio::task::spawn_blocking(move || yours.take(&sender, &counts))
            };
            while let Some(arrived) = arrived.recv().await {
                Counts::add(&counts.callers);
                if acceptor.take_over(arrived).await.is_err() {
                    break;
                }
            }
            if let Ok(Err(error)) = taking.await {
                tracing::warn!(%error, "the gateway that was taken over from has not given all of its callers");
            }
            drop(running);
        });
    }

    /// Waits for what somebody asks at `listen.handover`.
    ///
    /// # Errors
    /// What must not happen: a shard that ends.
    pub async fn what_next(&mut self) -> Result<Asked, GatewayError> {
        let Self { asked, acceptors, .. } = self;
        tokio::select! {
            error = failed(acceptors) => Err(error),
            Some(asked) = asked.recv() => Ok(asked),
        }
    }

    /// Gives everything to another gateway that can move, and returns when what can't has ended, or `runtime.handover_timeout` is over,
    /// or the other one is told to stop; then this one is to be [drained](Self::drain). False where the other one has ended: this one
    /// goes on.
    ///
    /// # Errors
    /// This gateway can not go on in the place of one that has ended.
    pub async fn hand_over(&mut self, offer: Offer) -> Result<bool, GatewayError> {
        let running = offer.running.clone();
        // It takes a moment, and nobody is to be accepted by neither.
        let accepted = tokio::task::spawn_blocking(move || offer.accept()).await.unwrap_or(Err(MessageError::Closed));
        let successor = match accepted {
            Ok(successor) => successor,
            Err(error) => {
                Counts::add(&self.control.handovers().failed);
                tracing::warn!(%error, "the gateway that was to take over did not; this one goes on");
                return Ok(false);
            }
        };
        tracing::info!(pid = running.pid, version = running.version, "another gateway takes over");
        self.control.begin_handover(&running).await;
        self.stop_accepting.send_replace(true);
        self.admin.shutdown().await;
        // Those that are on their way in come in first.
        while let Some(ended) = self.acceptors.join_next().await {
            if !matches!(ended, Ok(Ok(()))) {
                tracing::error!("connections that were being accepted are lost");
            }
        }
        let (leaving, to_give) = mpsc::unbounded_channel();
        let giver = successor.clone();
        let giving = tokio::task::spawn_blocking(move || giver.give(to_give));
        let (tell, mut heard) = mpsc::channel(1);
        let listener = successor.clone();
        tokio::task::spawn_blocking(move || listener.listen(&tell));
        for shard in self.shards.iter() {
            // One that has ended has no callers.
            let _ = shard.hand_over(leaving.clone()).await;
        }
        let timeout = self.control.config().runtime.handover_timeout;
        let over = tokio::select! {
            left = self.until_moved(timeout) => Over::Given(left),
            over = self.until_over(&mut heard) => over,
        };
        if let Over::Lost = over {
            // Before the connections that wait to be given are taken back: no other is to come after them.
            for shard in self.shards.iter() {
                let _ = shard.stay().await;
            }
        }
        let _ = leaving.send(None);
        drop(leaving);
        let given = giving.await.ok();
        if let Over::Lost = over {
            successor.hang_up();
            self.take_back(&successor, given).await?;
            return Ok(false);
        }
        match (given, over) {
            (Some(Given { callers, error: None, .. }), Over::Given(0)) => {
                tracing::info!(callers, "everything has been handed over");
            }
            (Some(Given { callers, error: None, .. }), Over::Given(left)) => {
                tracing::warn!(callers, left, ?timeout, "what can not move is served no longer");
            }
            (_, Over::Stopping) => tracing::info!("the gateway that takes over is told to stop, and this one with it"),
            (Some(Given { error: Some(error), .. }), _) => {
                tracing::warn!(%error, "the gateway that takes over has not taken all callers");
            }
            (..) => tracing::error!("whoever gave callers to the gateway that takes over has failed"),
        }
        // Whoever watches over the two must know the new one before this one ends.
        let settled = tokio::time::timeout(SETTLE_TIMEOUT, self.until_settled(&mut heard)).await;
        if settled.is_err() {
            tracing::warn!("the gateway that takes over has not said that it is watched over");
        }
        self.successor = Some(successor);
        Ok(true)
    }

    /// Accepts callers again, and goes on with those that the new gateway did not get any more.
    async fn take_back(&mut self, successor: &Successor, given: Option<Given>) -> Result<(), GatewayError> {
        Counts::add(&self.control.handovers().failed);
        tracing::error!("the gateway that takes over has ended; this one goes on in its place");
        let config = self.control.config();
        let inherited = successor.inherited().map_err(GatewayError::Retake)?;
        let Bound { listeners, admin, handover, unwanted, .. } = bind(&config, inherited, &self.terminators).await?;
        let (sender, asked) = mpsc::channel(1);
        let handover = handover.map(|(held, socket)| {
            let giver = Giver::new(held, self.control.board().clone(), self.control.handovers().clone());
            giver.map(|giver| (giver, socket, sender)).map_err(GatewayError::Binary)
        });
        self.asked = asked;
        self.unopened = Some(Unopened { listeners, admin, handover: handover.transpose()?, unwanted, aside: None });
        self.control.end_handover().await;
        self.stop_accepting.send_replace(false);
        self.open();
        let Some(Given { unsent, mut rest, .. }) = given else { return Ok(()) };
        let rest = std::iter::from_fn(|| rest.try_recv().ok()).flatten();
        for Leaving { socket, carried, count } in unsent.into_iter().chain(rest) {
            // It takes another place.
            drop(count);
            self.acceptor.take_over(Arrived { socket, carried }).await?;
        }
        Ok(())
    }

    /// Waits until nothing is left, at most for `timeout`; returns how much is.
    async fn until_moved(&self, timeout: Duration) -> usize {
        let end = Instant::now() + timeout;
        // Whoever is told to connect anew may have a call on its way that is served here.
        tokio::time::sleep(LAST_CALLS.min(timeout)).await;
        loop {
            let mut left = self.control.open_pipes();
            for shard in self.shards.iter() {
                left += shard.remaining().await.unwrap_or_default();
            }
            if left == 0 || Instant::now() >= end {
                return left;
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// Waits until the new gateway stops, or ends.
    async fn until_over(&self, heard: &mut mpsc::Receiver<Heard>) -> Over {
        loop {
            match heard.recv().await {
                Some(Heard::Settled) => self.is_watched_elsewhere(),
                Some(Heard::Stopping) => return Over::Stopping,
                None => return Over::Lost,
            }
        }
    }

    /// Waits until the new gateway is watched over, or ends.
    async fn until_settled(&self, heard: &mut mpsc::Receiver<Heard>) {
        while !self.control.handovers().is_watched_elsewhere.load(Ordering::Relaxed) {
            match heard.recv().await {
                Some(Heard::Settled) => self.is_watched_elsewhere(),
                Some(Heard::Stopping) | None => return,
            }
        }
    }

    fn is_watched_elsewhere(&self) {
        self.control.handovers().is_watched_elsewhere.store(true, Ordering::Relaxed);
    }
}
