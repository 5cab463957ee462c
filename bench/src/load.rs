//! The load itself: callers in closed loops, for a time or for a number of jobs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use seeway_proto::{
    v1::stream_response,
    wire::{Profile, ReplyBody},
};
use tokio::task::JoinSet;

use crate::{CallerError, Report, Target, grpc::GrpcCaller, report::Tally, wire::WireCaller};

/// When a load ends. Jobs in flight are waited for.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After this many jobs, all callers together.
    Jobs(u64),
}

/// What to send, where, and how hard.
#[derive(Debug, Clone)]
pub struct Load {
    /// Where the jobs go.
    pub target: Target,
    /// The world that they are for; `None` for a machine's own port, where `worldid` is 0.
    pub world: Option<String>,
    /// Connections, each a closed loop.
    pub callers: usize,
    /// Jobs that each caller keeps in flight.
    pub in_flight: usize,
    /// Bytes of each job.
    pub size: usize,
    /// When to end.
    pub until: Until,
    /// Whether each reply must be its job's bytes, as the application `echo` sends them. The first 16 bytes of a job are its
    /// caller and number, so that a reply that was meant for another job is found out where jobs are at least that long.
    pub verify_echo: bool,
}

/// What is counted under this name came back as another job's bytes, or as none that were ever sent.
pub const WRONG_REPLY: &str = "wrong reply";

impl Load {
    /// Runs it on the current runtime. Fails when a caller can not connect or loses its connection.
    pub async fn run(self) -> Result<Report, CallerError> {
        let load = Arc::new(self);
        let issued = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let mut callers = JoinSet::new();
        for number in 0..load.callers {
            let jobs = Jobs::new(number, Arc::clone(&load), Arc::clone(&issued), started);
            callers.spawn(async move {
                match &jobs.load.target {
                    Target::Grpc(address) => grpc_loop(address.clone(), jobs).await,
                    Target::Unix(_) | Target::Tcp(_) => wire_loop(jobs).await,
                }
            });
        }
        let mut sum = Tally::new();
        while let Some(ended) = callers.join_next().await {
            sum.add(ended.expect("a caller neither panics nor is cancelled")?);
        }
        Ok(sum.report(load.target.to_string(), load.callers, load.in_flight, load.size, started.elapsed()))
    }
}

/// One caller's jobs: it makes them, knows when there are no more, and compares replies with them.
struct Jobs {
    load: Arc<Load>,
    issued: Arc<AtomicU64>,
    started: Instant,
    next: u64,
    /// The job's bytes but for its number.
    template: Vec<u8>,
    tally: Tally,
}

/// A job that is under way.
struct Pending {
    number: u64,
    sent: Instant,
}

const HEADER: usize = 16;

impl Jobs {
    fn new(caller: usize, load: Arc<Load>, issued: Arc<AtomicU64>, started: Instant) -> Self {
        let mut template: Vec<u8> = (0u8..=250).cycle().take(load.size).collect();
        let caller = (caller as u64).to_le_bytes();
        let named = load.size.min(caller.len());
        template[..named].copy_from_slice(&caller[..named]);
        Self { load, issued, started, next: 0, template, tally: Tally::new() }
    }

    /// The next job, unless the load is at its end.
    fn next(&mut self) -> Option<Pending> {
        let more = match self.load.until {
            Until::Elapsed(time) => self.started.elapsed() < time,
            Until::Jobs(jobs) => self.issued.fetch_add(1, Ordering::Relaxed) < jobs,
        };
        more.then(|| {
            self.next += 1;
            Pending { number: self.next, sent: Instant::now() }
        })
    }

    /// The bytes of job `number`.
    fn bytes(&mut self, number: u64) -> &[u8] {
        if let Some(place) = self.template.get_mut(HEADER / 2..HEADER) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        &self.template
    }

    fn replied(&mut self, job: &Pending, reply: &[u8]) {
        self.tally.answered(job.sent.elapsed());
        if self.load.verify_echo && reply != self.bytes(job.number) {
            self.tally.failed(WRONG_REPLY.to_owned());
        }
    }

    fn failed(&mut self, job: &Pending, reason: String) {
        self.tally.answered(job.sent.elapsed());
        self.tally.failed(reason);
    }
}

async fn wire_loop(mut jobs: Jobs) -> Result<Tally, CallerError> {
    let profile = Profile::open_1();
    let mut caller = WireCaller::connect(&jobs.load.target, jobs.load.in_flight).await?;
    let world = match jobs.load.world.clone() {
        Some(name) => caller.open_world(&name, Pending { number: 0, sent: Instant::now() }).await?,
        None => 0,
    };
    loop {
        while caller.in_flight() < jobs.load.in_flight
            && let Some(job) = jobs.next()
        {
            let bytes = jobs.bytes(job.number);
            if caller.stage(world, bytes, job).is_err() {
                break;
            }
        }
        if caller.in_flight() == 0 {
            return Ok(jobs.tally);
        }
        caller
            .exchange(|job, reply| match reply {
                ReplyBody::Job(bytes) => jobs.replied(&job, bytes.0),
                ReplyBody::Error { status, .. } => {
                    let name = profile.statuses.name(status);
                    jobs.failed(&job, name.map_or_else(|| format!("status {status:#x}"), str::to_owned));
                }
                ReplyBody::NoOp | ReplyBody::Object(_) => jobs.failed(&job, "not a job's reply".to_owned()),
            })
            .await?;
    }
}

async fn grpc_loop(address: String, mut jobs: Jobs) -> Result<Tally, CallerError> {
    let mut caller = GrpcCaller::connect(&address, jobs.load.in_flight).await?;
    let world = jobs.load.world.clone().unwrap_or_default();
    let mut pending: Vec<Option<Pending>> = std::iter::repeat_with(|| None).take(jobs.load.in_flight).collect();
    let mut free: Vec<usize> = (0..jobs.load.in_flight).collect();
    loop {
        while let Some(place) = free.pop() {
            let Some(job) = jobs.next() else {
                free.push(place);
                break;
            };
            let bytes = Bytes::copy_from_slice(jobs.bytes(job.number));
            pending[place] = Some(job);
            caller.send(place as u64, &world, bytes).await?;
        }
        if free.len() == pending.len() {
            return Ok(jobs.tally);
        }
        let answer = caller.next().await?;
        let place = usize::try_from(answer.id).unwrap_or(usize::MAX);
        let Some(job) = pending.get_mut(place).and_then(Option::take) else {
            let what = format!("an answer came to id {}, which is not outstanding", answer.id);
            return Err(CallerError::Protocol { target: format!("grpc://{address}"), what });
        };
        free.push(place);
        match answer.result {
            Some(stream_response::Result::Reply(reply)) => jobs.replied(&job, &reply.reply),
            Some(stream_response::Result::Failure(failure)) => jobs.failed(&job, failure.reason),
            None => jobs.failed(&job, "an answer without a result".to_owned()),
        }
    }
}
