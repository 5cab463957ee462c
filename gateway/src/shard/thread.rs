//! A shard's thread: starts what runs on it, takes what the control plane hands it, and ends it.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::{Report, Shard};
use crate::config::Config;
use crate::listen::{grpc, hardserver};
use crate::schedule::{Budget, WorldId};
use crate::upstream;

/// Told when a world gains its first channel on a shard or loses its last. Called under the shard's lock: must not block.
pub trait WorldChange: Send + Sync {
    /// The world can take jobs on this shard, or no longer can.
    fn world_ready(&self, world: WorldId, ready: bool);
}

/// What the control plane hands to a shard.
pub enum Handed {
    /// A connection to the hardserver front end, over TCP.
    LegacyTcp(StdTcpStream),
    /// A connection to the hardserver front end, over a Unix socket.
    LegacyUnix(StdUnixStream),
    /// A connection to the gRPC front end.
    Grpc(StdTcpStream),
    /// Somebody wants to see the numbers.
    Report(oneshot::Sender<Report>),
    /// Take no more jobs; finish those in hand, at most until the configured time-out; then end. Answered at the end.
    Drain(oneshot::Sender<()>),
}

/// How many messages may wait for a shard. The acceptor waits where there are more.
const INBOX: usize = 1024;

/// The control plane's end of a shard.
pub struct ShardHandle {
    inbox: mpsc::Sender<Handed>,
    callers: Arc<AtomicUsize>,
}

impl ShardHandle {
    /// Hands something over. An error means that the shard has ended.
    pub async fn hand(&self, handed: Handed) -> Result<(), ShardEnded> {
        self.inbox.send(handed).await.map_err(|_| ShardEnded)
    }

    /// Connections on this shard.
    pub fn callers(&self) -> usize {
        self.callers.load(Ordering::Relaxed)
    }

    /// The shard's numbers; `None` where it has ended.
    pub async fn report(&self) -> Option<Report> {
        let (sender, receiver) = oneshot::channel();
        self.hand(Handed::Report(sender)).await.ok()?;
        receiver.await.ok()
    }

    /// Drains the shard. It ends, and so does its thread.
    pub async fn drain(&self) -> Result<(), ShardEnded> {
        let (sender, receiver) = oneshot::channel();
        self.hand(Handed::Drain(sender)).await?;
        receiver.await.map_err(|_| ShardEnded)
    }
}

/// The shard's thread has ended before it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("a shard has ended unasked; the log says why")]
pub struct ShardEnded;

/// One connection on a shard, counted from accept to close.
#[derive(Debug)]
pub struct CallerCount(Arc<AtomicUsize>);

impl CallerCount {
    fn new(callers: &Arc<AtomicUsize>) -> Self {
        callers.fetch_add(1, Ordering::Relaxed);
        Self(callers.clone())
    }
}

impl Drop for CallerCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts a shard on a thread of its own.
pub fn spawn(
    index: usize,
    config: Arc<Config>,
    budgets: Vec<Arc<Budget>>,
    world_changes: Arc<dyn WorldChange>,
    common: grpc::Common,
) -> io::Result<ShardHandle> {
    let (inbox, messages) = mpsc::channel(INBOX);
    let callers = Arc::new(AtomicUsize::new(0));
    let counted = callers.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
        runtime.block_on(async move {
            let shard = Shard::new(config, &budgets, world_changes);
            run(shard, messages, counted, common).await;
        });
        // Whatever still runs is dropped with the runtime, and not waited for.
        runtime.shutdown_background();
    })?;
    Ok(ShardHandle { inbox, callers })
}

async fn run(shard: Shard, mut inbox: mpsc::Receiver<Handed>, callers: Arc<AtomicUsize>, common: grpc::Common) {
    let timer = shard.clone();
    tokio::spawn(async move { timer.run_timer().await });
    let keepers = upstream::start(&shard);
    let grpc = grpc::Server::start(&shard, common);
    while let Some(handed) = inbox.recv().await {
        match handed {
            Handed::LegacyTcp(stream) => match adopt_tcp(stream) {
                Ok(stream) => hardserver::start(&shard, stream.into(), CallerCount::new(&callers)),
                Err(error) => tracing::warn!(%error, "a legacy connection was lost before it was served"),
            },
            Handed::LegacyUnix(stream) => match adopt_unix(stream) {
                Ok(stream) => hardserver::start(&shard, stream.into(), CallerCount::new(&callers)),
                Err(error) => tracing::warn!(%error, "a legacy connection was lost before it was served"),
            },
            Handed::Grpc(stream) => match adopt_tcp(stream) {
                Ok(stream) => grpc.serve(stream, CallerCount::new(&callers)).await,
                Err(error) => tracing::warn!(%error, "a gRPC connection was lost before it was served"),
            },
            Handed::Report(wanted) => {
                // Who asked may have gone.
                let _ = wanted.send(shard.with(|state, _| state.report()));
            }
            Handed::Drain(done) => {
                drain(&shard, keepers, grpc).await;
                let _ = done.send(());
                return;
            }
        }
    }
}

/// How long callers get to read what they were answered, once no job is in hand any more.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// How often a drain looks whether it is done. It runs once in a shard's life, so that it may look instead of being told.
const DRAIN_CHECK: Duration = Duration::from_millis(10);

async fn drain(shard: &Shard, keepers: upstream::Keepers, grpc: grpc::Server) {
    shard.with(|state, _| {
        state.scheduler.begin_drain();
        state.front.wake_streams();
    });
    let timeout = shard.config().runtime.drain_timeout;
    if !until(timeout, || shard.with(|state, _| state.scheduler.is_idle())).await {
        let left = shard.with(|state, now| {
            state.scheduler.abort_unsent(now, &mut state.front);
            state.scheduler.jobs()
        });
        tracing::warn!(
            jobs = left,
            timeout = ?timeout,
            "the drain's time is up: jobs that are still out get `outcome unknown`"
        );
    }
    // Closing the channels gives every job that is still out its outcome.
    keepers.stop().await;
    shard.with(|state, now| {
        state.scheduler.abort_unsent(now, &mut state.front);
        state.front.wake_streams();
    });
    until(LAST_ANSWERS, || shard.with(|state, _| state.scheduler.is_idle() && state.front.is_flushed())).await;
    grpc.stop(LAST_ANSWERS).await;
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

fn adopt_tcp(stream: StdTcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    TcpStream::from_std(stream)
}

fn adopt_unix(stream: StdUnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
