//! The load itself: callers in closed loops or at a fixed rate, for a time or for a number of jobs.

mod blocking;
mod clock;
mod direct;
mod grpc;
mod jobs;
mod pacer;
mod tally;
mod watch;
mod way;
mod wire;

use std::time::Duration;

pub use jobs::Sizes;
pub use watch::{Bar, Unwatched, Watch};
pub use way::{Machine, Way};

use crate::{CallerError, Report};
pub(crate) use clock::Clock;
pub(crate) use tally::Seen;
#[cfg(test)]
pub(crate) use tally::Tally;

/// When a load ends. Jobs in flight are waited for.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After this time, the warm-up not included.
    Elapsed(Duration),
    /// After this many jobs, all callers together, those of the warm-up included.
    Jobs(u64),
}

/// What makes a caller send its next job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// The answer to an earlier one.
    Closed,
    /// The time has come: jobs are sent at a fixed rate, in turn by each caller, however long the answers take. Latencies run from
    /// the time at which a job should have been sent. Where a caller has all its jobs in flight the next ones wait.
    Open {
        /// Jobs each second, all callers together.
        per_second: f64,
    },
}

/// What to send, where, and how hard.
#[derive(Debug, Clone)]
pub struct Load {
    /// How the jobs go.
    pub way: Way,
    /// The world that they are for; `None` for a machine's own port, where `worldid` is 0.
    pub world: Option<String>,
    /// Connections; with [`Way::Direct`], channels.
    pub callers: usize,
    /// Jobs that each caller keeps in flight; in an open loop, the most that it may have there.
    pub in_flight: usize,
    /// What makes a caller send its next job.
    pub pace: Pace,
    /// Bytes of the jobs.
    pub sizes: Sizes,
    /// For how long jobs are sent before any is measured.
    pub warm_up: Duration,
    /// When to end.
    pub until: Until,
    /// Whether each reply must be its job's bytes, as the application `echo` sends them. The first 16 bytes of a job are its
    /// caller and number, so that a reply that was meant for another job is found out where jobs are at least that long.
    pub verify_echo: bool,
    /// The load fails when jobs are outstanding and none is answered for this long.
    pub patience: Duration,
}

/// What is counted under this name came back as another job's bytes, or as none that were ever sent.
pub const WRONG_REPLY: &str = "wrong reply";

/// How long no answer may come, unless somebody says otherwise.
pub const PATIENCE: Duration = Duration::from_secs(30);

impl Load {
    /// One caller with one job of 256 bytes in flight, for a second after a quarter of one.
    pub fn new(way: Way, world: Option<&str>) -> Self {
        Self {
            way,
            world: world.map(str::to_owned),
            callers: 1,
            in_flight: 1,
            pace: Pace::Closed,
            sizes: Sizes::fixed(256),
            warm_up: Duration::from_millis(250),
            until: Until::Elapsed(Duration::from_secs(1)),
            verify_echo: true,
            patience: PATIENCE,
        }
    }

    /// Connects the callers and runs the load, on this thread. Fails when a caller can not connect or loses its connection.
    pub fn run(&self, watch: &mut dyn Watch) -> Result<Report, CallerError> {
        self.connect()?.run(self, watch)
    }

    /// Connects the callers; each of them has been answered once.
    pub fn connect(&self) -> Result<Callers, CallerError> {
        Ok(Callers(match &self.way {
            Way::Wire(target) => Kind::Wire(wire::WireCallers::connect(self, target)?),
            Way::Blocking(target) => Kind::Blocking(blocking::BlockingCallers::connect(self, target)?),
            Way::GrpcStream(address) => Kind::Grpc(grpc::GrpcCallers::connect(self, address, grpc::Call::Stream)?),
            Way::GrpcUnary(address) => Kind::Grpc(grpc::GrpcCallers::connect(self, address, grpc::Call::Unary)?),
            Way::Direct(machine) => Kind::Direct(direct::DirectCallers::connect(self, machine)?),
        }))
    }

    fn clock(&self) -> Clock {
        match self.until {
            Until::Elapsed(time) => Clock::start(self.warm_up, Some(time)),
            Until::Jobs(_) => Clock::start(self.warm_up, None),
        }
    }

    fn jobs(&self) -> Option<u64> {
        match self.until {
            Until::Elapsed(_) => None,
            Until::Jobs(jobs) => Some(jobs),
        }
    }
}

/// The callers of a load, connected. They stay so until they are dropped.
pub struct Callers(Kind);

enum Kind {
    Wire(wire::WireCallers),
    Blocking(blocking::BlockingCallers),
    Grpc(grpc::GrpcCallers),
    Direct(direct::DirectCallers),
}

impl Callers {
    /// Runs a load on them that differs from the one they were made for in its times, pace and sizes only. May be called again.
    pub fn run(&mut self, load: &Load, watch: &mut dyn Watch) -> Result<Report, CallerError> {
        let tally = match &mut self.0 {
            Kind::Wire(callers) => callers.run(load, watch)?,
            Kind::Blocking(callers) => callers.run(load, watch)?,
            Kind::Grpc(callers) => callers.run(load, watch)?,
            Kind::Direct(callers) => callers.run(load, watch)?,
        };
        Ok(Report::new(load, tally.seen()))
    }
}

/// The runtime of callers that are tasks: this thread.
fn runtime() -> Result<tokio::runtime::Runtime, CallerError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|source| CallerError::Connection { target: "the runtime".to_owned(), source })
}

/// Waits for the tasks of a load, and tells how far they are.
async fn until_joined(
    mut tasks: tokio::task::JoinSet<Result<(), CallerError>>,
    load: &Load,
    watch: &mut dyn Watch,
    target: &str,
    answered: impl Fn() -> u64,
    clock: Clock,
) -> Result<(), CallerError> {
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let (mut seen, mut heard) = (0, tokio::time::Instant::now());
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => return Ok(()),
                Some(ended) => ended.expect("a caller neither panics nor is cancelled")?,
            },
            now = tick.tick() => {
                let count = answered();
                if count != seen {
                    (seen, heard) = (count, now);
                } else if now.duration_since(heard) > load.patience {
                    return Err(CallerError::Silent { target: target.to_owned(), outstanding: 1 });
                }
                watch.progress(count, Duration::from_nanos(clock.now()));
            }
        }
    }
}

/// Connects to a wire's target and waits for an answer: from the world's name, or from a NoOp.
pub(crate) fn answers(
    target: &crate::Target,
    world: Option<&str>,
    profile: &seeway_proto::wire::Profile,
) -> Result<(), CallerError> {
    wire::connect_blocking(target, world, profile).map(drop)
}
