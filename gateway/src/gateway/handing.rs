//! How a [`Gateway`] takes another one's place, and how it leaves its own to another. What is said between the two is in
//! [`handover`](crate::handover).

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

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
    /// It takes no more, or too slowly.
    Stuck,
}

/// What became of a gateway that another one was to take over from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandedOver {
    /// It goes on.
    No,
    /// It is to be [drained](Gateway::drain).
    Yes,
    /// The same, and the other one has not said that whoever watches over the two watches it.
    Unwatched,
}

impl Gateway {
    /// Accepts callers and operators at the listeners that another gateway had, and takes its legacy connections in as they come. The names
    /// of its Unix sockets are this one's when it has ended.
    ///
    /// # Errors
    /// It has not left its place after all: this one is to be drained.
    pub async fn open_after(&mut self, yours: Option<Yours>) -> Result<(), GatewayError> {
        let counts = self.control.handovers().clone();
        let Some(yours) = yours else {
            Counts::add(&counts.taken_over);
            self.open();
            return Ok(());
        };
        let aside = self.unopened.as_mut().and_then(|unopened| unopened.aside.take());
        if let Some(lost) = self.files.lost() {
            // Its name first: the other one looks when it hears no more.
            drop(aside);
            yours.hang_up();
            return Err(GatewayError::NotLeft(format!(
                "unix:{} is gone, or is another's, so that nobody could connect there: restart the running gateway",
                lost.display()
            )));
        }
        // Before a job can be sent.
        self.control.adopt_drains(yours.drains()).await;
        // Before anybody can ask to take over from this one.
        counts.takes_over_from.store(yours.pid(), Ordering::Relaxed);
        self.accept();
        let asked = yours.clone();
        let is_there = tokio::task::spawn_blocking(move || asked.opened()).await.unwrap_or(Ok(false));
        let is_there = match (is_there, self.files.lost()) {
            (Ok(is_there), None) => is_there,
            (is_there, lost) => {
                drop(aside);
                yours.hang_up();
                let stopped = || match lost {
                    Some(lost) => {
                        format!("the running gateway was stopped meanwhile, and unix:{} is gone", lost.display())
                    }
                    None => String::new(),
                };
                return Err(GatewayError::NotLeft(is_there.err().map_or_else(stopped, |error| error.to_string())));
            }
        };
        if let Some(aside) = aside {
            aside.keep();
        }
        Counts::add(&counts.taken_over);
        if !is_there {
            tracing::warn!("the gateway that was taken over from has ended before it gave its callers");
            counts.takes_over_from.store(0, Ordering::Relaxed);
            self.files.claim();
            return Ok(());
        }
        let (sender, mut arrived) = mpsc::channel(ARRIVALS);
        let (running, ended) = oneshot::channel::<()>();
        self.predecessor = Some(Predecessor { yours: yours.clone(), ended });
        let (acceptor, files) = (self.acceptor.clone(), self.files.clone());
        self.keepers.spawn(async move {
            let taking = {
                let counts = counts.clone();
                tokio::task::spawn_blocking(move || yours.take(&sender, &counts))
            };
            // Side by side: a user's name may take a while to be looked up.
            let mut serving = JoinSet::new();
            loop {
                tokio::select! {
                    next = arrived.recv(), if serving.len() < ARRIVALS => {
                        let Some(next) = next else { break };
                        Counts::add(&counts.callers);
                        let acceptor = acceptor.clone();
                        serving.spawn(async move { acceptor.take_over(next).await });
                    }
                    Some(served) = serving.join_next() => if let Ok(Err(_)) = served {
                        // The shards have ended: whoever still comes has nobody to go to.
                        break;
                    },
                }
            }
            drop(arrived);
            while serving.join_next().await.is_some() {}
            if let Ok(Err(error)) = taking.await {
                tracing::warn!(%error, "the gateway that was taken over from has not given all of its callers");
            }
            files.claim();
            drop(running);
        });
        Ok(())
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
    /// or the other one is told to stop; then this one is to be [drained](Self::drain). Where the other one has ended this one goes on.
    ///
    /// # Errors
    /// This gateway can not go on in the place of one that has ended.
    pub async fn hand_over(&mut self, offer: Offer) -> Result<HandedOver, GatewayError> {
        let (running, drains) = (offer.running.clone(), self.control.begin_handover().await);
        // It takes a moment, and nobody is to be accepted by neither.
        let accepted =
            tokio::task::spawn_blocking(move || offer.accept(drains)).await.unwrap_or(Err(MessageError::Closed));
        let successor = match accepted {
            Ok(successor) => successor,
            Err(error) => {
                self.control.withdraw_handover().await;
                Counts::add(&self.control.handovers().failed);
                tracing::warn!(%error, "the gateway that was to take over did not; this one goes on");
                return Ok(HandedOver::No);
            }
        };
        let settled_by = tokio::time::Instant::now() + SETTLE_TIMEOUT;
        tracing::info!(pid = running.pid, version = running.version, "another gateway takes over");
        self.control.handed_over(&running);
        self.stop_accepting.send_replace(true);
        self.admin.shutdown().await;
        // Those that are on their way in come in first.
        while let Some(ended) = self.acceptors.join_next().await {
            if !matches!(ended, Ok(Ok(()))) {
                tracing::error!("connections that were being accepted are lost");
            }
        }
        let (tell, mut heard) = mpsc::channel(1);
        let listener = successor.clone();
        tokio::task::spawn_blocking(move || listener.listen(&tell));
        let timeout = self.control.config().runtime.handover_timeout;
        let (mut over, given) = self.give(&successor, &mut heard, Instant::now() + timeout).await;
        let mut is_watched = true;
        if let Over::Given(_) = over {
            // Whoever watches over the two must know the new one before this one ends.
            match self.until_settled(&mut heard, settled_by).await {
                Ok(is_settled) => is_watched = is_settled,
                Err(sooner) => {
                    if let Over::Lost = sooner {
                        self.stay().await;
                    }
                    over = sooner;
                }
            }
        }
        if let Over::Lost = over {
            successor.hang_up();
            self.take_back(&successor, given).await?;
            return Ok(HandedOver::No);
        }
        let callers = given.as_ref().map(|given| given.callers);
        match (over, given.and_then(|given| given.error)) {
            (Over::Stopping, _) => {
                tracing::info!("the gateway that takes over is told to stop, and this one with it");
            }
            (Over::Given(0), None) => tracing::info!(callers, "everything has been handed over"),
            (Over::Given(left), None) => {
                tracing::warn!(callers, left, ?timeout, "what can not move is served no longer");
            }
            (_, error) => {
                let error = error.map(|error| error.to_string());
                tracing::warn!(callers, error, "the gateway that takes over has not taken all callers");
            }
        }
        self.successor = Some(successor);
        Ok(if is_watched { HandedOver::Yes } else { HandedOver::Unwatched })
    }

    /// Gives each legacy connection at its first quiet moment, until nothing is left here, or `end`, or the new gateway says or does something
    /// else. Where it takes no more, or has ended, no other connection leaves; what was not given is in what is returned, if giving has not
    /// failed itself.
    async fn give(
        &self,
        successor: &Successor,
        heard: &mut mpsc::Receiver<Heard>,
        end: Instant,
    ) -> (Over, Option<Given>) {
        let (leaving, to_give) = mpsc::unbounded_channel();
        let giver = successor.clone();
        let mut giving = tokio::task::spawn_blocking(move || giver.give(to_give));
        for shard in self.shards.iter() {
            // One that has ended has no callers.
            let _ = shard.hand_over(leaving.clone()).await;
        }
        let mut given = None;
        let mut over = tokio::select! {
            left = self.until_moved(end) => Over::Given(left),
            over = self.until_over(heard) => over,
            // Before there is nothing more to give.
            stuck = &mut giving => {
                given = Some(stuck.ok());
                Over::Stuck
            }
        };
        if let Over::Given(_) = over {
            // What has left the shards may still be on its way.
            let _ = leaving.send(None);
            tokio::select! {
                ended = &mut giving => {
                    let ended = ended.ok();
                    if ended.as_ref().is_none_or(|given| given.error.is_some()) {
                        over = Over::Stuck;
                    }
                    given = Some(ended);
                }
                sooner = self.until_over(heard) => over = sooner,
            }
        }
        if let Over::Stuck = over {
            tracing::warn!(
                "the gateway that takes over takes no more callers: those that are here stay until this one ends"
            );
            self.stay().await;
            if let Some(given) = given.as_mut().and_then(Option::as_mut) {
                self.serve_again(given).await;
            }
            over = tokio::select! {
                left = self.until_moved(end) => Over::Given(left),
                over = self.until_over(heard) => over,
            };
        }
        if let Over::Lost = over {
            // Before the connections that wait to be given are taken back: no other is to come after them.
            self.stay().await;
        }
        let _ = leaving.send(None);
        drop(leaving);
        let given = match given {
            Some(given) => given,
            None => giving.await.ok(),
        };
        (over, given)
    }

    /// No connection leaves any more.
    async fn stay(&self) {
        for shard in self.shards.iter() {
            // One that has ended has no callers.
            let _ = shard.stay().await;
        }
    }

    /// Serves connections that were to leave and did not.
    async fn serve_again(&self, given: &mut Given) {
        let Given { unsent, rest, .. } = given;
        let rest = std::iter::from_fn(|| rest.try_recv().ok()).flatten();
        for Leaving { socket, carried, count } in unsent.take().into_iter().chain(rest) {
            // It takes another place.
            drop(count);
            if let Err(error) = self.acceptor.take_over(Arrived { socket, carried }).await {
                tracing::error!(%error, "a connection is lost");
            }
        }
    }

    /// Accepts callers again, and goes on with those that the new gateway did not get any more.
    async fn take_back(&mut self, successor: &Successor, given: Option<Given>) -> Result<(), GatewayError> {
        Counts::add(&self.control.handovers().failed);
        let config = self.control.config();
        let inherited = successor.inherited().map_err(GatewayError::Retake)?;
        // What the new one has set of modes stays: this process can set none any more.
        let Bound { listeners, admin, handover, files, .. } =
            bind(&config, inherited, &self.terminators, false).await?;
        let (sender, asked) = mpsc::channel(1);
        let handover = handover.map(|(held, socket)| {
            let giver = Giver::new(held, self.control.clone(), self.watchdog);
            giver.map(|giver| (giver, socket, sender)).map_err(GatewayError::Binary)
        });
        (self.asked, self.files) = (asked, files);
        self.unopened = Some(Unopened { listeners, admin, handover: handover.transpose()?, aside: None });
        if let (Some(audit), Some(aside)) = (self.control.audit().cloned(), successor.audit_aside().cloned()) {
            let _ = tokio::task::spawn_blocking(move || audit.back_from(aside)).await;
        }
        self.control.end_handover().await;
        self.stop_accepting.send_replace(false);
        self.open();
        tracing::error!("the gateway that takes over has ended; this one goes on in its place");
        if let Some(lost) = self.files.lost() {
            tracing::error!(path = %lost.display(), "a socket's file is gone, so that nobody new can connect there: restart this gateway");
        }
        if let Some(mut given) = given {
            self.serve_again(&mut given).await;
        }
        Ok(())
    }

    /// Waits until nothing is left, at most until `end`; returns how much is.
    async fn until_moved(&self, end: Instant) -> usize {
        // Whoever is told to connect anew may have a call on its way that is served here.
        tokio::time::sleep(LAST_CALLS.min(end.saturating_duration_since(Instant::now()))).await;
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

    /// Waits until the new gateway is watched over; returns whether it is at this time.
    ///
    /// # Errors
    /// What comes instead.
    async fn until_settled(&self, heard: &mut mpsc::Receiver<Heard>, end: tokio::time::Instant) -> Result<bool, Over> {
        while !self.control.handovers().is_watched_elsewhere.load(Ordering::Relaxed) {
            match tokio::time::timeout_at(end, heard.recv()).await {
                Ok(Some(Heard::Settled)) => self.is_watched_elsewhere(),
                Ok(Some(Heard::Stopping)) => return Err(Over::Stopping),
                Ok(None) => return Err(Over::Lost),
                Err(_) => {
                    tracing::warn!("the gateway that takes over has not said that it is watched over");
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn is_watched_elsewhere(&self) {
        self.control.handovers().is_watched_elsewhere.store(true, Ordering::Relaxed);
    }
}
