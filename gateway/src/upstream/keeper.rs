//! The keeper of one tunnel's place in a pool: connects, watches, connects again, and replaces a tunnel that has come of age, or
//! was made with another configuration, by one that is up before it drains.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use seeway_client::tunnel::{Tunnel, TunnelError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::aside::Aside;
use super::life::Event;
use super::pacer;
use super::serving::{Recorded, Serving};
use crate::config::Config;
use crate::schedule::{MachineId, SizeClass};
use crate::seldom::{Seldom, Tell};
use crate::shard::{Shard, What};

/// What a keeper and those that it keeps are told.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    /// How things are to be.
    pub(super) config: Arc<Config>,
    /// Which configuration tunnels are to be made with; one that was made with another is replaced.
    pub(super) version: u64,
    /// How often the configuration was read again. Whoever waits tries again at once.
    pub(super) reloads: u64,
    /// Whether, and how, the place is to end.
    pub(super) end: Option<End>,
}

/// How a place in a pool ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its tunnel finishes the jobs that it has.
    Retire,
    /// At once.
    Stop,
}

/// Returns when the configuration has been read again since it was read `before` times.
pub(super) async fn reloaded(orders: &mut watch::Receiver<Orders>, before: u64) {
    if orders.wait_for(|orders| orders.reloads != before).await.is_err() {
        // Whoever gave orders is gone: there will be none.
        std::future::pending::<()>().await;
    }
}

/// Keeps one place in a pool until it is told to end.
pub(super) async fn keep(
    shard: Shard,
    machine: MachineId,
    class: SizeClass,
    aside: Aside,
    orders: watch::Receiver<Orders>,
) {
    let mut stop = orders.clone();
    let needed = shard.with(|state, _| state.front.wants_bulk(machine));
    let (standing, successor, attempt, leaving) = (None, None, None, JoinSet::new());
    let mut place = Place { shard, machine, class, aside, needed, orders, standing, successor, attempt, leaving };
    // A sender that is gone has stopped too.
    let stopped = async { drop(stop.wait_for(|orders| orders.end == Some(End::Stop)).await) };
    tokio::select! {
        () = place.keep() => {}
        () = stopped => place.stop().await,
    }
}

/// A connect, as often as it takes.
type Attempt = Pin<Box<dyn Future<Output = (Recorded, Tunnel)> + Send>>;

struct Place {
    shard: Shard,
    machine: MachineId,
    /// The jobs that its tunnels carry.
    class: SizeClass,
    /// Where those for large jobs run.
    aside: Aside,
    /// Whether large jobs have come for the machine. One that gets none has no use for their tunnel.
    needed: watch::Receiver<bool>,
    orders: watch::Receiver<Orders>,
    /// The tunnel that is up.
    standing: Option<Serving>,
    /// The one that is to take its place, as soon as it can.
    successor: Option<Serving>,
    attempt: Option<Attempt>,
    /// Tunnels that drain, or have been lost and deliver what they had.
    leaving: JoinSet<()>,
}

/// What has happened at a place.
enum Happened {
    Ordered,
    Needed,
    Made(Recorded, Box<Tunnel>),
    Lost,
    SuccessorLost,
    Replaceable,
    Due,
}

impl Place {
    /// Ends when the place is retired.
    async fn keep(&mut self) {
        loop {
            let orders = self.orders.borrow_and_update().clone();
            if orders.end.is_some() {
                break;
            }
            let ssh = &orders.config.ssh;
            let due = self.standing.as_ref().map(|standing| {
                let is_outdated = standing.version() != orders.version;
                if is_outdated { Some(Instant::now()) } else { standing.due(ssh.max_age) }
            });
            let is_needed = self.class == SizeClass::Small || *self.needed.borrow();
            let is_wanted = is_needed && due.is_none_or(|due| due.is_some_and(|due| due <= Instant::now()));
            if is_wanted && self.attempt.is_none() && self.successor.is_none() {
                self.begin(Recorded::begin(&self.shard, self.machine, self.orders.clone()), None);
            }
            let is_waiting = self.attempt.is_none() && self.successor.is_none();
            let happened = {
                let Self { standing, successor, attempt, leaving, orders, needed, .. } = &mut *self;
                tokio::select! {
                    // Orders first: a tunnel that has just been made with an outdated configuration is not begun.
                    biased;
                    changed = orders.changed() => if changed.is_ok() { Happened::Ordered } else { break },
                    // Its sender lives as long as the shard.
                    _ = needed.wait_for(|is_needed| *is_needed), if !is_needed => Happened::Needed,
                    () = option(standing.as_ref().map(Serving::lost)) => Happened::Lost,
                    () = option(successor.as_ref().map(Serving::lost)) => Happened::SuccessorLost,
                    (life, tunnel) = option(attempt.as_mut()) => Happened::Made(life, Box::new(tunnel)),
                    () = option(replaceable(standing.as_ref(), successor.as_ref(), ssh.connect_timeout)) => {
                        Happened::Replaceable
                    }
                    () = option(due.flatten().filter(|_| is_waiting).map(sleep_until)) => Happened::Due,
                    Some(_) = leaving.join_next() => continue,
                }
            };
            self.take_in(happened, orders.version);
        }
        // What is only being made is not wanted any more.
        self.attempt = None;
        for serving in self.standing.take().into_iter().chain(self.successor.take()) {
            self.leaving.spawn(serving.drain());
        }
        while self.leaving.join_next().await.is_some() {}
    }

    fn take_in(&mut self, happened: Happened, version: u64) {
        match happened {
            Happened::Ordered => {
                let new_version = self.orders.borrow().version;
                if new_version != version {
                    self.attempt = None;
                }
                if self.successor.as_ref().is_some_and(|successor| successor.version() != new_version)
                    && let Some(outdated) = self.successor.take()
                {
                    self.leaving.spawn(outdated.drain());
                }
            }
            Happened::Made(life, tunnel) => {
                self.attempt = None;
                let serving = Serving::start(life, *tunnel, self.class, self.orders.clone());
                if self.standing.is_none() {
                    self.standing = Some(serving);
                } else {
                    self.successor = Some(serving);
                }
            }
            Happened::Lost => {
                if let Some(lost) = self.standing.take() {
                    let (life, wait, rest) = lost.end();
                    self.leaving.spawn(rest);
                    self.standing = self.successor.take();
                    if self.standing.is_none() && self.attempt.is_none() {
                        self.begin(life, wait);
                    }
                }
            }
            Happened::SuccessorLost => {
                if let Some(lost) = self.successor.take() {
                    let (life, wait, rest) = lost.end();
                    self.leaving.spawn(rest);
                    self.begin(life, wait);
                }
            }
            Happened::Replaceable => {
                let relieved = std::mem::replace(&mut self.standing, self.successor.take());
                if let Some(relieved) = relieved {
                    self.leaving.spawn(relieved.drain());
                }
            }
            Happened::Needed | Happened::Due => {}
        }
    }

    /// Begins to connect, after `wait`.
    fn begin(&mut self, life: Recorded, wait: Option<Duration>) {
        let aside = (self.class == SizeClass::Bulk).then(|| self.aside.clone());
        let connecting = connect(self.shard.clone(), self.machine, aside, self.orders.clone(), life, wait);
        self.attempt = Some(Box::pin(connecting));
    }

    /// Closes what there is, and waits for it.
    async fn stop(mut self) {
        self.attempt = None;
        self.leaving.shutdown().await;
        for serving in self.standing.take().into_iter().chain(self.successor.take()) {
            serving.close().await;
        }
    }
}

/// Waits until the successor can take the place of the one that stands; `None` where there is none.
fn replaceable<'a>(
    standing: Option<&'a Serving>,
    successor: Option<&'a Serving>,
    in_time: Duration,
) -> Option<impl Future<Output = ()> + use<'a>> {
    let (standing, successor) = (standing?, successor?);
    Some(successor.can_replace(standing, in_time))
}

/// What a future gives; never anything where there is none.
async fn option<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// Connects, again and again, until there is a tunnel; one for large jobs, aside.
async fn connect(
    shard: Shard,
    id: MachineId,
    aside: Option<Aside>,
    mut orders: watch::Receiver<Orders>,
    mut life: Recorded,
    mut wait: Option<Duration>,
) -> (Recorded, Tunnel) {
    let mut reloads = orders.borrow().reloads;
    loop {
        if let Some(wait) = wait {
            let event = tokio::select! {
                () = sleep(wait) => Event::Waited,
                () = reloaded(&mut orders, reloads) => Event::Reloaded,
            };
            life.on(event);
        }
        let Orders { config, reloads: so_far, .. } = orders.borrow().clone();
        reloads = so_far;
        let machine = &config.machines[id.0];
        pacer::turn(&machine.address, config.ssh.connect_pace).await;
        let mut options = machine.tunnel_options(&config.ssh);
        options.gives_way = aside.is_some();
        let made = match &aside {
            Some(aside) => aside.run(async move { Tunnel::connect(&options).await }).await,
            None => Tunnel::connect(&options).await,
        };
        match made {
            Ok(tunnel) => return (life, tunnel),
            Err(error) => wait = failed(&shard, id, &machine.name, &mut life, &error),
        }
    }
}

fn failed(shard: &Shard, id: MachineId, machine: &str, life: &mut Recorded, error: &TunnelError) -> Option<Duration> {
    let is_refused = error.is_permanent();
    shard.with(|state, _| {
        state.pools[id.0].failed(is_refused);
        state.front.happened(id, if is_refused { What::Refused } else { What::ConnectFailed }, error);
    });
    let wait = life.on(if is_refused { Event::Refused } else { Event::Failed });
    let retry_in = wait.unwrap_or_default();
    if is_refused {
        static REFUSED: Seldom = Seldom::new("the machine's SSH server refused: no tunnel");
        if let Some(Tell { untold }) = REFUSED.tell(machine) {
            tracing::error!(
                machine,
                %error,
                ?retry_in,
                untold,
                "the machine's SSH server refused, or is not the one that is pinned: no tunnel until that is mended"
            );
        }
    } else {
        static NONE: Seldom = Seldom::new("no tunnel");
        if let Some(Tell { untold }) = NONE.tell(machine) {
            tracing::warn!(machine, %error, ?retry_in, untold, "no tunnel");
        }
    }
    wait
}
