//! Straight to a machine: one tunnel to its SSH server, and a channel for each caller.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use seeway_client::{
    stream::{self, Pipelined},
    tunnel::{ChannelStream, Endpoint, HostKey, Identity, Options, Tunnel},
};
use seeway_proto::wire::{Profile, ReplyBody};
use tokio::{
    runtime::Runtime,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
};

use super::{
    Load, Machine, Pace, WRONG_REPLY,
    clock::{Clock, Nanos, Timetable},
    jobs::Jobs,
    pacer,
    tally::Tally,
    watch::Watch,
};
use crate::CallerError;

type Channel = Pipelined<ChannelStream, (u64, Nanos)>;

/// The tunnel and its channels.
pub(crate) struct DirectCallers {
    runtime: Runtime,
    target: String,
    channels: Vec<Channel>,
    _tunnel: Tunnel,
}

impl DirectCallers {
    pub(crate) fn connect(load: &Load, machine: &Machine) -> Result<Self, CallerError> {
        let target = load.way.to_string();
        let failed = |error: &dyn std::fmt::Display| CallerError::Connection {
            target: target.clone(),
            source: std::io::Error::other(error.to_string()),
        };
        let endpoint = |text: &str| text.parse::<Endpoint>().map_err(|error| failed(&error));
        let (server, seejobs) = (endpoint(&machine.server)?, endpoint(&machine.seejobs)?);
        let identity = Identity::load(&machine.identity).map_err(|error| failed(&error))?;
        let host_key = HostKey::from_line(&machine.host_key).map_err(|error| failed(&error))?;
        let options = Options::new(server, machine.user.clone(), identity, host_key);
        let runtime = super::runtime()?;
        let connected = runtime.block_on(async {
            let tunnel = Tunnel::connect(&options).await?;
            let stream = stream::Options { max_in_flight: load.in_flight, ..stream::Options::default() };
            let mut channels = Vec::with_capacity(load.callers);
            for _ in 0..load.callers {
                let channel = tunnel.open(&seejobs.host, seejobs.port).await?;
                channels.push(Pipelined::new(channel.into_stream(), &stream));
            }
            Ok::<_, seeway_client::tunnel::TunnelError>((tunnel, channels))
        });
        let (tunnel, channels) = connected.map_err(|error| failed(&error))?;
        Ok(Self { runtime, target, channels, _tunnel: tunnel })
    }

    pub(crate) fn run(&mut self, load: &Load, watch: &mut dyn Watch) -> Result<Tally, CallerError> {
        let clock = load.clock();
        let shared = Arc::new(Shared {
            target: self.target.clone(),
            verify_echo: load.verify_echo,
            clock,
            profile: Profile::open_1(),
            state: Mutex::new(State {
                jobs: Jobs::new(&load.sizes, &Profile::open_1()),
                tally: Tally::new(clock, self.channels.len()),
                left: load.jobs(),
            }),
        });
        let returned = Arc::new(Mutex::new(Vec::new()));
        let channels = std::mem::take(&mut self.channels);
        let ended = self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            let mut due = Vec::new();
            for (index, mut channel) in channels.into_iter().enumerate() {
                let (sender, receiver) = unbounded_channel();
                due.push(sender);
                let feed = matches!(load.pace, Pace::Open { .. }).then_some(receiver);
                let (shared, returned) = (Arc::clone(&shared), Arc::clone(&returned));
                tasks.spawn(async move {
                    shared.work(&mut channel, index, feed).await?;
                    returned.lock().unwrap_or_else(PoisonError::into_inner).push(channel);
                    Ok(())
                });
            }
            if let Pace::Open { per_second } = load.pace {
                pacer::start(Timetable::new(per_second, clock.ends), clock, load.jobs(), due);
            }
            super::until_joined(tasks, load, watch, &shared.target, || shared.state().tally.count(), clock).await
        });
        ended?;
        self.channels = std::mem::take(&mut *returned.lock().unwrap_or_else(PoisonError::into_inner));
        let shared = Arc::into_inner(shared).expect("the tasks have ended");
        Ok(shared.state.into_inner().unwrap_or_else(PoisonError::into_inner).tally)
    }
}

/// What the callers share. They run on one thread: the lock is never waited for.
struct Shared {
    target: String,
    verify_echo: bool,
    clock: Clock,
    profile: Arc<Profile>,
    state: Mutex<State>,
}

struct State {
    jobs: Jobs,
    tally: Tally,
    left: Option<u64>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One caller, until the load's end.
    async fn work(
        &self,
        channel: &mut Channel,
        index: usize,
        mut feed: Option<UnboundedReceiver<Nanos>>,
    ) -> Result<(), CallerError> {
        let caller = index as u64;
        let mut number = 0;
        let mut due = VecDeque::new();
        let mut is_over = false;
        loop {
            while channel.has_room() {
                let next = if feed.is_some() { due.pop_front() } else { self.next() };
                let Some(sent) = next else {
                    is_over |= feed.is_none();
                    break;
                };
                let staged = channel.stage_job(0, self.state().jobs.job(caller, number), (number, sent));
                staged.map_err(|_| ()).expect("there is room");
                number += 1;
            }
            let is_idle = channel.in_flight() == 0;
            if is_idle && is_over && due.is_empty() {
                return Ok(());
            }
            let turn = channel.turn(|(number, sent), reply| self.answered(index, number, sent, reply));
            let turned = match &mut feed {
                None => turn.await,
                Some(receiver) => tokio::select! {
                    biased;
                    more = receiver.recv(), if !is_over => {
                        match more {
                            Some(intended) => due.push_back(intended),
                            None => is_over = true,
                        }
                        continue;
                    }
                    turned = turn, if !is_idle => turned,
                },
            };
            turned.map_err(|end| CallerError::Connection {
                target: self.target.clone(),
                source: std::io::Error::other(end.to_string()),
            })?;
        }
    }

    /// When the next job of a closed loop is sent: now, unless the load is at its end.
    fn next(&self) -> Option<Nanos> {
        let now = self.clock.now();
        match &mut self.state().left {
            Some(0) => None,
            Some(left) => {
                *left -= 1;
                Some(now)
            }
            None => self.clock.is_open(now).then_some(now),
        }
    }

    fn answered(&self, caller: usize, number: u64, sent: Nanos, reply: ReplyBody<'_>) {
        let now = self.clock.now();
        let mut state = self.state();
        let State { jobs, tally, .. } = &mut *state;
        tally.answered(caller, sent, now);
        match reply {
            ReplyBody::Job(bytes) if !self.verify_echo || bytes.0 == jobs.job(caller as u64, number) => {}
            ReplyBody::Job(_) => tally.failed(WRONG_REPLY),
            ReplyBody::Error { status, .. } => tally.failed(self.profile.statuses.name(status).unwrap_or("a status")),
            ReplyBody::NoOp | ReplyBody::Object(_) => tally.failed("not a job's reply"),
        }
    }
}
