//! How a [`Gateway`] takes another one's place, and how it leaves its own to another. What is said between the two is in
//! [`handover`](crate::handover).

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{Gateway, GatewayError, failed};
use crate::handover::{Counts, MessageError, Offer, Yours};

/// Connections from another gateway that may wait to be served here.
const ARRIVALS: usize = 64;

/// How long gRPC callers that were told to connect anew may still begin calls here: they hear of it within a round trip.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// How often one looks whether everything has moved. It is done once in a gateway's life.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

impl Gateway {
    /// Accepts callers and operators at the listeners that another gateway had, and takes its legacy connections in as they come.
    pub fn open_after(&mut self, yours: Option<Yours>) {
        let counts = self.control.handovers().clone();
        Counts::add(&counts.taken_over);
        self.open();
        let Some(yours) = yours else { return };
        let (sender, mut arrived) = mpsc::channel(ARRIVALS);
        let acceptor = self.acceptor.clone();
        self.keepers.spawn(async move {
            let taking = tokio::task::spawn_blocking(move || yours.take(&sender));
            while let Some(arrived) = arrived.recv().await {
                Counts::add(&counts.callers);
                if acceptor.take_over(arrived).await.is_err() {
                    return;
                }
            }
            if let Ok(Err(error)) = taking.await {
                tracing::warn!(%error, "the gateway that was taken over from has not given all of its callers");
            }
        });
    }

    /// Waits for another gateway that can take over.
    ///
    /// # Errors
    /// What must not happen: a shard that ends.
    pub async fn what_next(&mut self) -> Result<Offer, GatewayError> {
        let Self { offers, acceptors, .. } = self;
        tokio::select! {
            error = failed(acceptors) => Err(error),
            Some(offer) = offers.recv() => Ok(offer),
        }
    }

    /// Gives everything to another gateway that can move, and returns when what can't has ended, or `runtime.handover_timeout` is over;
    /// then this one is to be [drained](Self::drain).
    ///
    /// # Errors
    /// The other one has ended before anything was given: this one goes on as it was.
    pub async fn hand_over(&mut self, mut offer: Offer) -> Result<(), MessageError> {
        let running = offer.running.clone();
        // It takes a moment, and nobody is to be accepted by neither.
        let offer = tokio::task::spawn_blocking(move || offer.accept().map(|()| offer)).await;
        let offer = offer.unwrap_or(Err(MessageError::Closed)).inspect_err(|error| {
            Counts::add(&self.control.handovers().failed);
            tracing::warn!(%error, "the gateway that was to take over did not; this one goes on");
        })?;
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
        let giving = tokio::task::spawn_blocking(move || offer.give(to_give));
        for shard in self.shards.iter() {
            // One that has ended has no callers.
            let _ = shard.hand_over(leaving.clone()).await;
        }
        let timeout = self.control.config().runtime.handover_timeout;
        let left = self.until_moved(timeout).await;
        let _ = leaving.send(None);
        drop(leaving);
        match giving.await.unwrap_or(Err(MessageError::Closed)) {
            Ok(callers) if left == 0 => tracing::info!(callers, "everything has been handed over"),
            Ok(callers) => tracing::warn!(callers, left, ?timeout, "what can not move is served no longer"),
            Err(error) => tracing::warn!(%error, "the gateway that takes over has not said that it is well"),
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
}
