//! gRPC callers: a stream for each, or a call for each job. All of them on one thread.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use seeway_proto::{
    v1::{SubmitRequest, see_job_service_client::SeeJobServiceClient, stream_response},
    wire::Profile,
};
use tokio::{
    runtime::Runtime,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
};
use tonic::transport::Channel;

use super::{
    Load, Pace, WRONG_REPLY,
    clock::{Clock, Nanos, Timetable},
    jobs::Jobs,
    pacer,
    tally::Tally,
    watch::Watch,
};
use crate::{CallerError, grpc};

/// Which of the service's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Stream,
    Unary,
}

/// The connections.
pub(crate) struct GrpcCallers {
    runtime: Runtime,
    address: String,
    call: Call,
    connections: Vec<SeeJobServiceClient<Channel>>,
}

impl GrpcCallers {
    pub(crate) fn connect(load: &Load, address: &str, call: Call) -> Result<Self, CallerError> {
        let runtime = super::runtime()?;
        let mut connections = Vec::with_capacity(load.callers);
        for _ in 0..load.callers {
            connections.push(runtime.block_on(grpc::connect(address))?);
        }
        Ok(Self { runtime, address: address.to_owned(), call, connections })
    }

    pub(crate) fn run(&mut self, load: &Load, watch: &mut dyn Watch) -> Result<Tally, CallerError> {
        let clock = load.clock();
        let shared = Arc::new(Shared {
            target: format!("grpc://{}", self.address),
            world: load.world.clone().unwrap_or_default(),
            verify_echo: load.verify_echo,
            clock,
            state: Mutex::new(State {
                jobs: Jobs::new(&load.sizes, &Profile::open_1()),
                tally: Tally::new(clock, self.connections.len()),
                left: load.jobs(),
                numbers: vec![0; self.connections.len()],
            }),
        });
        let (connections, call) = (self.connections.clone(), self.call);
        let ended = self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            let mut due = Vec::new();
            for (index, client) in connections.into_iter().enumerate() {
                let (sender, receiver) = unbounded_channel();
                due.push(sender);
                let feed = match load.pace {
                    Pace::Closed => Feed::Closed,
                    Pace::Open { .. } => Feed::Open(receiver),
                };
                let (shared, in_flight) = (Arc::clone(&shared), load.in_flight);
                match call {
                    Call::Stream => tasks.spawn(stream(client, index, in_flight, feed, shared)),
                    Call::Unary => tasks.spawn(unary(client, index, in_flight, feed, shared)),
                };
            }
            if let Pace::Open { per_second } = load.pace {
                pacer::start(Timetable::new(per_second, clock.ends), clock, load.jobs(), due);
            }
            super::until_joined(tasks, load, watch, &shared.target, || shared.state().tally.count(), clock).await
        });
        ended?;
        let shared = Arc::into_inner(shared).expect("the tasks have ended");
        Ok(shared.state.into_inner().unwrap_or_else(PoisonError::into_inner).tally)
    }
}

/// What tells a caller to send.
enum Feed {
    Closed,
    Open(UnboundedReceiver<Nanos>),
}

/// What the callers share. They run on one thread: the lock is never waited for.
struct Shared {
    target: String,
    world: String,
    verify_echo: bool,
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    jobs: Jobs,
    tally: Tally,
    left: Option<u64>,
    numbers: Vec<u64>,
}

/// A job under way.
#[derive(Clone, Copy)]
struct Pending {
    number: u64,
    sent: Nanos,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job of a closed loop, unless the load is at its end.
    fn next(&self, caller: usize) -> Option<(Pending, Bytes)> {
        let now = self.clock.now();
        let mut state = self.state();
        match &mut state.left {
            Some(0) => return None,
            Some(left) => *left -= 1,
            None if !self.clock.is_open(now) => return None,
            None => {}
        }
        drop(state);
        Some(self.job(caller, now))
    }

    /// A job that is sent, or was to be, at `sent`.
    fn job(&self, caller: usize, sent: Nanos) -> (Pending, Bytes) {
        let mut state = self.state();
        let number = state.numbers[caller];
        state.numbers[caller] += 1;
        let bytes = Bytes::copy_from_slice(state.jobs.job(caller as u64, number));
        (Pending { number, sent }, bytes)
    }

    fn answered(&self, caller: usize, job: Pending, answer: Result<&[u8], &str>) {
        let now = self.clock.now();
        let mut state = self.state();
        let State { jobs, tally, .. } = &mut *state;
        tally.answered(caller, job.sent, now);
        match answer {
            Ok(reply) if !self.verify_echo || reply == jobs.job(caller as u64, job.number) => {}
            Ok(_) => tally.failed(WRONG_REPLY),
            Err(reason) => tally.failed(reason),
        }
    }
}

/// One caller with one stream.
async fn stream(
    client: SeeJobServiceClient<Channel>,
    index: usize,
    in_flight: usize,
    mut feed: Feed,
    shared: Arc<Shared>,
) -> Result<(), CallerError> {
    let mut caller = grpc::GrpcCaller::open(client, &shared.target, in_flight).await?;
    let mut pending: Vec<Option<Pending>> = vec![None; in_flight];
    let mut free: Vec<usize> = (0..in_flight).collect();
    let mut due = VecDeque::new();
    let mut is_over = false;
    let mut world = shared.world.clone();
    loop {
        while let Some(place) = free.pop() {
            let next = match &feed {
                Feed::Closed => shared.next(index),
                Feed::Open(_) => due.pop_front().map(|intended| shared.job(index, intended)),
            };
            let Some((job, bytes)) = next else {
                is_over |= matches!(feed, Feed::Closed);
                free.push(place);
                break;
            };
            pending[place] = Some(job);
            // The stream remembers the last world.
            caller.send(place as u64, &std::mem::take(&mut world), bytes).await?;
        }
        let is_idle = free.len() == in_flight;
        if is_idle && is_over && due.is_empty() {
            return Ok(());
        }
        let answer = match &mut feed {
            Feed::Closed => caller.next().await?,
            Feed::Open(receiver) => tokio::select! {
                biased;
                more = receiver.recv(), if !is_over => {
                    match more {
                        Some(intended) => due.push_back(intended),
                        None => is_over = true,
                    }
                    continue;
                }
                answer = caller.next(), if !is_idle => answer?,
            },
        };
        let place = usize::try_from(answer.id).unwrap_or(usize::MAX);
        let Some(job) = pending.get_mut(place).and_then(Option::take) else {
            let what = format!("an answer came to id {}, which is not outstanding", answer.id);
            return Err(CallerError::Protocol { target: shared.target.clone(), what });
        };
        free.push(place);
        match &answer.result {
            Some(stream_response::Result::Reply(reply)) => shared.answered(index, job, Ok(&reply.reply)),
            Some(stream_response::Result::Failure(failure)) => shared.answered(index, job, Err(&failure.reason)),
            None => shared.answered(index, job, Err("an answer without a result")),
        }
    }
}

/// One caller with `in_flight` calls at a time.
async fn unary(
    client: SeeJobServiceClient<Channel>,
    index: usize,
    in_flight: usize,
    feed: Feed,
    shared: Arc<Shared>,
) -> Result<(), CallerError> {
    let due = match feed {
        Feed::Closed => None,
        Feed::Open(receiver) => Some(Arc::new(tokio::sync::Mutex::new(receiver))),
    };
    let mut calls = JoinSet::new();
    for _ in 0..in_flight {
        let (mut client, shared, due) = (client.clone(), Arc::clone(&shared), due.clone());
        calls.spawn(async move {
            loop {
                let next = match &due {
                    None => shared.next(index),
                    Some(due) => due.lock().await.recv().await.map(|intended| shared.job(index, intended)),
                };
                let Some((job, bytes)) = next else {
                    return;
                };
                let request = SubmitRequest { world: shared.world.clone(), job: bytes, ..SubmitRequest::default() };
                match client.submit(request).await {
                    Ok(reply) => shared.answered(index, job, Ok(&reply.get_ref().reply)),
                    Err(status) => shared.answered(index, job, Err(status.code().description())),
                }
            }
        });
    }
    while let Some(ended) = calls.join_next().await {
        ended.expect("a call neither panics nor is cancelled");
    }
    Ok(())
}
