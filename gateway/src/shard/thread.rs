//! A shard's thread: starts what runs on it, takes what the control plane hands it, and ends it.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::{Budgets, Happening, History, Look, Recording, Report, Shard, State, What};
use crate::access::{Access, Identity};
use crate::audit::{Actor, ListenerKind};
use crate::config::Config;
use crate::handover::{Carried, Leaving};
use crate::listen::stream::{Stream, Tls};
use crate::listen::{grpc, hardserver};
use crate::places::{Peer, Place, Places};
use crate::schedule::{MachineId, MachineState, WorldId};
use crate::seldom::{Seldom, Tell};
use crate::upstream;

/// Told when a world gains its first channel on a shard or loses its last. Called under the shard's lock: must not block.
pub trait WorldChange: Send + Sync {
    /// The world can take jobs on this shard, or no longer can.
    fn world_ready(&self, world: WorldId, ready: bool);
}

/// A connection that was accepted.
pub struct Accepted {
    /// The way that it came.
    pub way: Way,
    /// Who is at its other end.
    pub identity: Identity,
    /// What a legacy connection brings along that another gateway had.
    pub carried: Option<Carried>,
}

/// The front end that a connection came to, and its socket.
pub enum Way {
    /// A connection to the hardserver front end, over TCP.
    LegacyTcp(StdTcpStream),
    /// A connection to the hardserver front end, over a Unix socket.
    LegacyUnix(StdUnixStream),
    /// A connection to the hardserver front end, over TLS.
    LegacyTls(Box<Tls>),
    /// A connection to the gRPC front end.
    Grpc(StdTcpStream),
    /// A connection to the gRPC front end, over TLS.
    GrpcTls(Box<Tls>),
}

impl Way {
    fn listener(&self) -> ListenerKind {
        match self {
            Self::LegacyTcp(_) => ListenerKind::HardserverTcp,
            Self::LegacyUnix(_) => ListenerKind::HardserverUnix,
            Self::LegacyTls(_) => ListenerKind::HardserverTls,
            Self::Grpc(_) | Self::GrpcTls(_) => ListenerKind::Grpc,
        }
    }

    /// The other end: its address, or its process.
    fn from(&self) -> Option<String> {
        match self {
            Self::LegacyTcp(stream) | Self::Grpc(stream) => Some(stream.peer_addr().ok()?.to_string()),
            Self::LegacyTls(stream) | Self::GrpcTls(stream) => Some(stream.peer()?.to_string()),
            #[cfg(any(target_os = "linux", target_os = "android"))]
            Self::LegacyUnix(stream) => {
                let peer = rustix::net::sockopt::socket_peercred(stream).ok()?;
                Some(format!("pid {} uid {}", peer.pid.as_raw_nonzero(), peer.uid.as_raw()))
            }
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            Self::LegacyUnix(_) => None,
        }
    }
}

/// What the control plane hands to a shard.
pub enum Handed {
    /// A connection, and its place among the callers.
    Caller(Accepted, CallerCount),
    /// Somebody wants to see the numbers.
    Report(oneshot::Sender<Report>),
    /// Somebody looks at everything, every second.
    Look(oneshot::Sender<Look>),
    /// Somebody wants to know what has happened to a machine.
    History(MachineId, oneshot::Sender<Vec<Happening>>),
    /// The configuration has changed: [`Shard::reconfigure`], and the pools follow.
    Reload(Arc<Config>, Budgets, oneshot::Sender<()>),
    /// Take no more jobs from now on and go on living, or take jobs again. Answered with the jobs in hand.
    SetDraining(bool, oneshot::Sender<usize>),
    /// Send no more jobs to a machine, or send it jobs again. Answered with the jobs that it has in flight.
    SetMachineDraining(MachineId, bool, oneshot::Sender<usize>),
    /// Another gateway takes the callers: legacy connections go there as soon as nothing of them is outstanding, and gRPC callers are told
    /// to connect anew. Everything goes on meanwhile.
    HandOver(mpsc::UnboundedSender<Option<Leaving>>),
    /// The other gateway has ended: callers stay here, as before. Answered when no other leaves.
    Stay(oneshot::Sender<()>),
    /// Answered at once.
    Answer(oneshot::Sender<()>),
    /// Answered with what there is after [`HandOver`](Self::HandOver) that has to end here: callers and jobs.
    Remaining(oneshot::Sender<usize>),
    /// Hang until the sender is dropped.
    #[cfg(test)]
    Hang(std::sync::mpsc::Receiver<()>),
    /// Take no more jobs; finish those in hand, at most until the configured time-out; then end. Answered at the end.
    Drain(oneshot::Sender<()>),
}

/// How many messages may wait for a shard. The acceptor waits where there are more.
const INBOX: usize = 1024;

/// The control plane's end of a shard.
pub struct ShardHandle {
    inbox: mpsc::Sender<Handed>,
    callers: Arc<AtomicUsize>,
    /// What it had counted when its drain was over.
    last_report: Arc<OnceLock<Report>>,
}

impl ShardHandle {
    /// Hands something over. An error means that the shard has ended.
    pub async fn hand(&self, handed: Handed) -> Result<(), ShardEnded> {
        self.inbox.send(handed).await.map_err(|_| ShardEnded)
    }

    /// Connections on this shard, and on their way to it.
    pub fn callers(&self) -> usize {
        self.callers.load(Ordering::Relaxed)
    }

    /// Takes a place for one more connection, on this shard and among all callers; `None` where all are taken, or all that its peer may
    /// have.
    pub fn reserve(&self, places: &Arc<Places>, peer: Peer) -> Option<CallerCount> {
        let place = places.take(peer)?;
        self.callers.fetch_add(1, Ordering::Relaxed);
        Some(CallerCount { of_shard: self.callers.clone(), _place: place })
    }

    /// A place for a connection that was let in elsewhere.
    pub fn reserve_in_any_case(&self, places: &Arc<Places>, peer: Peer) -> CallerCount {
        self.callers.fetch_add(1, Ordering::Relaxed);
        CallerCount { of_shard: self.callers.clone(), _place: places.take_in_any_case(peer) }
    }

    /// The shard's numbers; the last ones where it was drained and has ended, so that no count ever falls. `None` where it has
    /// ended unasked.
    pub async fn report(&self) -> Option<Report> {
        let answer = self.ask(Handed::Report).await.ok();
        answer.or_else(|| self.last_report.get().cloned())
    }

    /// The shard at this moment; `None` where it drains to its end, or has ended.
    pub async fn look(&self) -> Option<Look> {
        self.ask(Handed::Look).await.ok()
    }

    /// What has happened to a machine on this shard, the oldest first; `None` where the shard drains to its end, or has ended.
    pub async fn history(&self, machine: MachineId) -> Option<Vec<Happening>> {
        self.ask(|wanted| Handed::History(machine, wanted)).await.ok()
    }

    /// Hands the shard an aligned configuration and the reconfigured budgets; returns when it goes by them.
    pub async fn reload(&self, config: Arc<Config>, budgets: Budgets) -> Result<(), ShardEnded> {
        self.ask(|done| Handed::Reload(config, budgets, done)).await
    }

    /// Has the shard refuse new jobs, or take them again; returns how many are in hand.
    pub async fn set_draining(&self, is_draining: bool) -> Result<usize, ShardEnded> {
        self.ask(|done| Handed::SetDraining(is_draining, done)).await
    }

    /// Has the shard send no more jobs to a machine, or send them again; returns how many the machine has in flight.
    pub async fn set_machine_draining(&self, machine: MachineId, is_draining: bool) -> Result<usize, ShardEnded> {
        self.ask(|done| Handed::SetMachineDraining(machine, is_draining, done)).await
    }

    /// Has legacy connections sent to `leaving` as soon as they can move, and gRPC callers told to go.
    pub async fn hand_over(&self, leaving: mpsc::UnboundedSender<Option<Leaving>>) -> Result<(), ShardEnded> {
        self.hand(Handed::HandOver(leaving)).await
    }

    /// Has callers stay that were about to go; returns when no other leaves.
    pub async fn stay(&self) -> Result<(), ShardEnded> {
        self.ask(Handed::Stay).await
    }

    /// How many callers and jobs there are that have to end here.
    pub async fn remaining(&self) -> Result<usize, ShardEnded> {
        self.ask(Handed::Remaining).await
    }

    /// Whether it still takes what it is handed, or has ended as it was asked to. Costs it nothing.
    pub async fn answers(&self) -> bool {
        self.ask(Handed::Answer).await.is_ok() || self.last_report.get().is_some()
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Handed) -> Result<T, ShardEnded> {
        let (sender, receiver) = oneshot::channel();
        self.hand(question(sender)).await?;
        receiver.await.map_err(|_| ShardEnded)
    }

    /// A shard that takes nothing out of its inbox but what the test does.
    #[cfg(test)]
    pub(crate) fn stalled() -> (Self, mpsc::Receiver<Handed>) {
        let (inbox, messages) = mpsc::channel(INBOX);
        (Self { inbox, callers: Arc::default(), last_report: Arc::default() }, messages)
    }

    /// Drains the shard. It ends, and so does its thread.
    pub async fn drain(&self) -> Result<(), ShardEnded> {
        self.ask(Handed::Drain).await
    }
}

/// The shard's thread has ended before it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("a shard has ended unasked; the log says why")]
pub struct ShardEnded;

/// One connection, counted from accept to close, wherever it is dropped between the two.
#[derive(Debug)]
pub struct CallerCount {
    of_shard: Arc<AtomicUsize>,
    _place: Place,
}

impl Drop for CallerCount {
    fn drop(&mut self) {
        self.of_shard.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts a shard on a thread of its own.
pub fn spawn(
    index: usize,
    config: Arc<Config>,
    budgets: Budgets,
    access: Arc<Access>,
    world_changes: Arc<dyn WorldChange>,
    common: grpc::Common,
    recording: Option<Recording>,
) -> io::Result<ShardHandle> {
    let (inbox, messages) = mpsc::channel(INBOX);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let poller = {
        let _runtime = runtime.enter();
        hardserver::Poller::new()?
    };
    let last_report = Arc::new(OnceLock::new());
    let last = last_report.clone();
    std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
        runtime.block_on(async move {
            let shard = Shard::new(config, &budgets, access, world_changes).recorded_by(recording);
            run(shard, poller, messages, common, &last).await;
        });
        // Whatever still runs is dropped with the runtime, and not waited for.
        runtime.shutdown_background();
    })?;
    Ok(ShardHandle { inbox, callers: Arc::default(), last_report })
}

async fn run(
    shard: Shard,
    poller: hardserver::Poller,
    mut inbox: mpsc::Receiver<Handed>,
    common: grpc::Common,
    last_report: &OnceLock<Report>,
) {
    let timer = shard.clone();
    tokio::spawn(async move { timer.run_timer().await });
    let mut keepers = upstream::start(&shard);
    let mut grpc = grpc::Server::start(&shard, common.clone());
    // Those that have told their callers to go, and were not left after all. One for each upgrade that failed so late.
    let mut before = Vec::new();
    let legacy = hardserver::Callers::start(&shard, poller);
    while let Some(handed) = inbox.recv().await {
        match handed {
            Handed::Caller(accepted, count) => {
                if let Err(error) = serve(&legacy, &grpc, accepted, count).await {
                    static LOST: Seldom = Seldom::new("a connection was lost before it was served");
                    if let Some(Tell { untold }) = LOST.tell("") {
                        tracing::warn!(%error, untold, "a connection was lost before it was served");
                    }
                }
            }
            Handed::Report(wanted) => report(&shard, wanted),
            Handed::Look(wanted) => look(&shard, wanted),
            Handed::History(machine, wanted) => history(&shard, machine, wanted),
            Handed::Reload(config, budgets, done) => {
                shard.reconfigure(&config, &budgets);
                keepers.reconfigure(&shard);
                // Who asked may have gone, here and below.
                let _ = done.send(());
            }
            Handed::SetDraining(is_draining, done) => {
                let _ = done.send(set_draining(&shard, is_draining));
            }
            Handed::SetMachineDraining(machine, is_draining, done) => {
                let _ = done.send(set_machine_draining(&shard, machine, is_draining));
            }
            Handed::HandOver(leaving) => {
                legacy.leave(leaving);
                grpc.send_away().await;
            }
            Handed::Stay(done) => {
                legacy.stay();
                if grpc.is_sent_away() {
                    // The one before finishes with the callers that it has told to go.
                    let new = grpc::Server::start(&shard, common.clone());
                    before.push(std::mem::replace(&mut grpc, new));
                }
                let _ = done.send(());
            }
            Handed::Answer(wanted) => _ = wanted.send(()),
            Handed::Remaining(wanted) => {
                let _ = wanted.send(remaining(&shard));
            }
            #[cfg(test)]
            Handed::Hang(until) => _ = until.recv(),
            Handed::Drain(done) => {
                before.push(grpc);
                answer_while(&shard, &mut inbox, drain(&shard, keepers, before)).await;
                // Before the inbox goes, so that whoever finds it gone finds this.
                let _ = last_report.set(shard.with(|state, _| state.report()));
                // Who asked may have gone.
                let _ = done.send(());
                return;
            }
        }
    }
}

/// Has a connection served until its caller goes away.
async fn serve(
    legacy: &hardserver::Callers,
    grpc: &grpc::Server,
    accepted: Accepted,
    count: CallerCount,
) -> io::Result<()> {
    let Accepted { way, identity, carried } = accepted;
    let actor = Arc::new(Actor::new(identity, way.listener(), way.from().as_deref()));
    match way {
        Way::LegacyTcp(stream) => {
            legacy.adopt(hardserver::Socket::Tcp(prepared(stream)?), &actor, Some(count), carried)
        }
        Way::LegacyUnix(stream) => {
            stream.set_nonblocking(true)?;
            legacy.adopt(hardserver::Socket::Unix(stream), &actor, Some(count), carried)
        }
        Way::LegacyTls(mut stream) => {
            stream.arrive()?;
            legacy.adopt(hardserver::unsealed(*stream, count)?, &actor, None, None)
        }
        Way::Grpc(stream) => {
            grpc.serve(Stream::Plain(TcpStream::from_std(prepared(stream)?)?), actor, count).await;
            Ok(())
        }
        Way::GrpcTls(mut stream) => {
            stream.arrive()?;
            grpc.serve(Stream::Tls(stream), actor, count).await;
            Ok(())
        }
    }
}

fn report(shard: &Shard, wanted: oneshot::Sender<Report>) {
    // Who asked may have gone.
    let _ = wanted.send(shard.with(|state, _| state.report()));
}

fn remaining(shard: &Shard) -> usize {
    shard.with(|state, _| state.front.remaining() + state.scheduler.jobs())
}

fn look(shard: &Shard, wanted: oneshot::Sender<Look>) {
    let _ = wanted.send(shard.with(State::look));
}

fn history(shard: &Shard, machine: MachineId, wanted: oneshot::Sender<Vec<Happening>>) {
    let last = |history: &History| history.last().cloned().collect();
    let _ = wanted.send(shard.with(|state, _| state.front.history(machine).map(last).unwrap_or_default()));
}

/// Waits for the end of a drain. An operator can watch it meanwhile; connections that were accepted before it are closed.
async fn answer_while(shard: &Shard, inbox: &mut mpsc::Receiver<Handed>, draining: impl Future<Output = ()>) {
    let mut draining = pin!(draining);
    loop {
        tokio::select! {
            () = &mut draining => return,
            Some(handed) = inbox.recv() => match handed {
                Handed::Report(wanted) => report(shard, wanted),
                Handed::Answer(wanted) => _ = wanted.send(()),
                Handed::Remaining(wanted) => _ = wanted.send(remaining(shard)),
                Handed::Look(wanted) => look(shard, wanted),
                Handed::History(machine, wanted) => history(shard, machine, wanted),
                // Other wishes are not answered any more: whoever has one sees the shard end.
                Handed::Caller(..)
                | Handed::Reload(..)
                | Handed::SetDraining(..)
                | Handed::SetMachineDraining(..)
                | Handed::HandOver(_)
                | Handed::Stay(_)
                | Handed::Drain(_) => {}
                #[cfg(test)]
                Handed::Hang(_) => {}
            },
        }
    }
}

fn set_draining(shard: &Shard, is_draining: bool) -> usize {
    shard.with(|state, _| {
        if is_draining {
            state.scheduler.begin_drain();
        } else {
            state.scheduler.end_drain();
        }
        // Streams with nothing in hand end, so that their callers go elsewhere.
        state.front.wake_streams();
        state.scheduler.jobs()
    })
}

fn set_machine_draining(shard: &Shard, machine: MachineId, is_draining: bool) -> usize {
    shard.with(|state, now| {
        let was_draining = state.scheduler.machine_state(machine) == MachineState::Draining;
        if is_draining != was_draining {
            state.front.happened(machine, if is_draining { What::Drained } else { What::Resumed }, "");
        }
        if is_draining {
            state.scheduler.begin_machine_drain(now, machine, &mut state.front);
        } else {
            state.scheduler.end_machine_drain(now, machine, &mut state.front);
        }
        state.scheduler.in_flight(machine)
    })
}

/// How long callers get to read what they were answered, once no job is in hand any more.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// How often a drain looks whether it is done. It runs once in a shard's life, so that it may look instead of being told.
const DRAIN_CHECK: Duration = Duration::from_millis(10);

async fn drain(shard: &Shard, keepers: upstream::Keepers, grpc: Vec<grpc::Server>) {
    set_draining(shard, true);
    let timeout = shard.config().runtime.drain_timeout;
    if !until(timeout, || shard.with(|state, _| state.scheduler.is_idle())).await {
        let (unsent, left) = shard.with(|state, now| {
            let before = state.scheduler.jobs();
            state.scheduler.abort_unsent(now, &mut state.front);
            (before - state.scheduler.jobs(), state.scheduler.jobs())
        });
        tracing::warn!(
            unsent,
            jobs = left,
            timeout = ?timeout,
            "the drain's time is up: jobs that wait are not sent, those that are still out get `outcome unknown`"
        );
    }
    // Closing the channels gives every job that is still out its outcome.
    keepers.stop().await;
    shard.with(|state, now| {
        state.scheduler.abort_unsent(now, &mut state.front);
        state.front.wake_streams();
    });
    until(LAST_ANSWERS, || shard.with(|state, _| state.scheduler.is_idle() && state.front.is_flushed())).await;
    let end = Instant::now() + LAST_ANSWERS;
    for server in grpc {
        server.stop(end.saturating_duration_since(Instant::now())).await;
    }
}

/// Waits for a condition, at most for `timeout`; returns whether it holds.
async fn until(timeout: Duration, holds: impl Fn() -> bool) -> bool {
    let end = Instant::now() + timeout;
    while !holds() {
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(DRAIN_CHECK).await;
    }
    true
}

/// A TCP caller that has been silent for this long is probed. One whose machine or network died says nothing ever again, and
/// would keep its place among the callers.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);

/// How long after a probe without an answer the next one goes out.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// As many probes without an answer mean that the caller has gone.
const KEEPALIVE_PROBES: u32 = 4;

/// How long bytes for a TCP caller may stay without its acknowledgement, or its window closed: probes begin only when nothing
/// is on its way, and TCP's own retries take a quarter of an hour. So it is also how long a caller may stop reading once
/// the buffers of both systems are full.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(90);

/// A caller's connection with the options that it is to have.
pub fn prepared(stream: StdTcpStream) -> io::Result<StdTcpStream> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let probes = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&probes.with_retries(KEEPALIVE_PROBES))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tcp_caller_that_vanishes_is_noticed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let _caller = StdTcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let adopted = prepared(listener.accept().expect("a connection").0).expect("adopted");
        let socket = SockRef::from(&adopted);
        assert!(socket.keepalive().expect("known"));
        assert_eq!(socket.tcp_keepalive_time().expect("known"), KEEPALIVE_IDLE);
        assert_eq!(socket.tcp_keepalive_interval().expect("known"), KEEPALIVE_INTERVAL);
        assert_eq!(socket.tcp_keepalive_retries().expect("known"), KEEPALIVE_PROBES);
        #[cfg(target_os = "linux")]
        assert_eq!(socket.tcp_user_timeout().expect("known"), Some(UNACKNOWLEDGED));
    }
}
