//! What an operator can have done to a gateway that runs: reload, drain, resume. Each change is the same message to all shards.
//!
//! Called by the admin port and, for SIGHUP and SIGTERM, by `serve` through [`Gateway`](crate::gateway::Gateway).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Mutex;

use super::events::Streams;
use super::process::ProcessFigures;
use super::sampler::Sampler;
use super::seen::{Seen, happening, seconds};
use super::state::{self, Happening};
use super::{Board, ProcessFiles, metrics};
use crate::access::token::Tokens;
use crate::audit::{Actor, Audit, Event, Refusals};
use crate::config::{Config, Problems};
use crate::gateway::Terminators;
use crate::handover::{self, Drains, Running};
use crate::listen::accept::Refused;
use crate::listen::grpc::{Health, Pipes};
use crate::places::Places;
use crate::schedule::MachineId;
use crate::shard::{Budgets, KEPT, Look, ShardEnded, ShardHandle};
use crate::trace::Tracing;

/// The control plane of one gateway.
pub struct Control {
    parts: Parts,
    /// The configuration that the shards go by.
    config: RwLock<Arc<Config>>,
    /// Held while something is changed: one change follows the other.
    changing: Mutex<Changing>,
    reloads: Reloads,
    /// Of operators, and of whoever would be one.
    refusals: std::sync::Mutex<Refusals>,
    /// For whoever looks.
    sampler: Sampler,
    streams: Streams,
    started: (SystemTime, Instant),
}

/// What there is to control.
pub struct Parts {
    /// The file that a reload reads; without one there is no reload.
    pub file: Option<PathBuf>,
    /// The shards.
    pub shards: Arc<[ShardHandle]>,
    /// Which worlds are ready.
    pub board: Arc<Board>,
    /// What gRPC callers are told of that.
    pub health: Health,
    /// How many connections there may be.
    pub callers: Arc<Places>,
    /// How many pipes there may be.
    pub pipes: Arc<Pipes>,
    /// How many connections were closed at once.
    pub refused: Arc<Refused>,
    /// Where TLS is spoken.
    pub terminators: Terminators,
    /// Whose tokens are taken.
    pub tokens: Tokens,
    /// Where what is done is recorded.
    pub audit: Option<Arc<Audit>>,
    /// How takings-over went.
    pub handovers: Arc<handover::Counts>,
    /// What the system says of this process, where it does.
    pub process: Option<ProcessFiles>,
    /// Where spans are made.
    pub tracing: Option<Arc<Tracing>>,
}

struct Changing {
    budgets: Budgets,
    drained: BTreeSet<MachineId>,
    is_stopping: bool,
}

/// How reloads ended.
#[derive(Default)]
pub(super) struct Reloads {
    ok: AtomicU64,
    refused: AtomicU64,
    /// Seconds since 1970 when the configuration that is in force was loaded.
    loaded: AtomicU64,
}

/// How often reloads ended how, and when the last good one was.
pub(super) struct ReloadCounts {
    pub(super) ok: u64,
    pub(super) refused: u64,
    pub(super) loaded: u64,
}

/// Why a configuration was not reloaded. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file has problems, or keys that only a restart can change.
    #[error("{0}")]
    Problems(Problems),
    /// The gateway was started without a file.
    #[error("this gateway was started without a configuration file; start it with `seeway serve --config FILE`")]
    NoFile,
    /// The gateway is about to end.
    #[error("the gateway is stopping, or another one takes its place; try again with the one that is there then")]
    Stopping,
    /// A shard has ended, and the gateway with it.
    #[error(transparent)]
    Ended(#[from] ShardEnded),
}

/// Why nothing is drained or resumed.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The configuration has no such machine.
    #[error("there is no machine `{0}` in the configuration; /metrics names them all")]
    NoSuchMachine(String),
    /// The gateway is about to end.
    #[error("the gateway is stopping, or another one takes its place; try again with the one that is there then")]
    Stopping,
    /// A shard has ended, and the gateway with it.
    #[error(transparent)]
    Ended(#[from] ShardEnded),
}

/// What a reload has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Machines that were not there before.
    pub machines_added: Vec<String>,
    /// Machines that are there no more.
    pub machines_removed: Vec<String>,
    /// Worlds that were not there before.
    pub worlds_added: Vec<String>,
    /// Worlds that are there no more.
    pub worlds_removed: Vec<String>,
}

/// Whether the gateway, or one machine, is drained, and what it still has to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Draining {
    /// Whether it takes no new jobs.
    pub is_draining: bool,
    /// The gateway's jobs in hand; a machine's jobs that are sent and unanswered.
    pub jobs: usize,
}

impl Control {
    /// The control plane of a gateway that has just started with this configuration.
    pub fn new(parts: Parts, config: Arc<Config>, budgets: Budgets) -> Self {
        let reloads = Reloads::default();
        reloads.loaded.store(now(), Ordering::Relaxed);
        let changing = Changing { budgets, drained: BTreeSet::new(), is_stopping: false };
        Self {
            parts,
            config: RwLock::new(config),
            changing: Mutex::new(changing),
            reloads,
            refusals: std::sync::Mutex::default(),
            sampler: Sampler::new(),
            streams: Streams::default(),
            started: (SystemTime::now(), Instant::now()),
        }
    }

    /// Who looks at the shards for everybody.
    pub(super) fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// Whether the shards are asked each second.
    #[cfg(test)]
    pub(crate) fn is_looked_at(&self) -> bool {
        self.sampler.is_running()
    }

    /// How many listen to events.
    pub(super) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Asks each shard how it is, for the sampler alone: what callers did since the last look is counted until the next, by whomever. One
    /// that has ended is as it was at its end.
    pub(super) async fn see(&self) -> Seen {
        let mut looks = Vec::new();
        for shard in self.parts.shards.iter() {
            let ended = |report| Look { report, callers: Vec::new(), machines: Vec::new() };
            match shard.look().await {
                Some(look) => looks.push(look),
                None => looks.extend(shard.report().await.map(ended)),
            }
        }
        Seen { config: self.config(), looks }
    }

    /// The last that has happened to a machine, on all shards, the oldest first.
    ///
    /// # Errors
    /// There is no such machine.
    pub(super) async fn history(&self, machine: &str) -> Result<Vec<Happening>, DrainError> {
        let machine = self.machine(machine)?;
        let mut all = Vec::new();
        for (index, shard) in self.parts.shards.iter().enumerate() {
            let of_shard = shard.history(machine).await.unwrap_or_default();
            // What happens on all shards at once is told once.
            let told = of_shard.iter().filter(|happened| index == 0 || !happened.what.is_wish());
            all.extend(told.map(|happened| happening(happened, index)));
        }
        all.sort_by(|one, other| one.time.total_cmp(&other.time));
        let surplus = all.len().saturating_sub(KEPT);
        all.drain(..surplus);
        Ok(all)
    }

    /// The callers' places and the pipes' that are taken, and how many there are.
    pub(super) fn places(&self) -> ((usize, usize), (usize, usize)) {
        let Parts { callers, pipes, .. } = &self.parts;
        ((callers.taken(), callers.limit()), (pipes.open(), pipes.limit()))
    }

    /// The places for handshakes that are taken, and how many there are, by each listener that speaks TLS.
    pub(super) fn handshakes(&self) -> impl Iterator<Item = (usize, usize)> {
        self.parts.terminators.all().map(|terminator| terminator.handshakes())
    }

    /// The process that this gateway is.
    pub(super) fn process_state(&self) -> state::Process {
        let (since, at) = self.started;
        let uptime = at.elapsed().as_millis();
        let figures = self.process();
        state::Process {
            cpu_seconds: figures.map(|figures| figures.cpu_seconds),
            resident_bytes: figures.map(|figures| figures.resident_bytes),
            threads: figures.map(|figures| figures.threads),
            open_files: figures.map(|figures| figures.open_descriptors),
            max_open_files: figures.and_then(|figures| figures.most_descriptors),
            pid: std::process::id(),
            started: seconds(since),
            // Milliseconds of any uptime are far below 2^52.
            #[allow(clippy::cast_precision_loss)]
            uptime: uptime as f64 / 1000.0,
        }
    }

    /// Which worlds are ready.
    pub fn board(&self) -> &Arc<Board> {
        &self.parts.board
    }

    /// The configuration that is in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The text that Prometheus reads.
    pub async fn metrics(&self) -> String {
        let mut reports = Vec::new();
        for shard in self.parts.shards.iter() {
            reports.extend(shard.report().await);
        }
        let tls = self.parts.terminators.counts();
        metrics::render(&metrics::Seen {
            tls: &tls,
            tokens: self.parts.tokens.counts(),
            handovers: &self.parts.handovers,
            config: &self.config(),
            reports: &reports,
            pipes: self.parts.pipes.open(),
            callers: self.parts.callers.taken(),
            fullest_peer: self.parts.callers.fullest_peer(),
            handshakes_used: self.parts.terminators.used(),
            process: self.process(),
            callers_refused: self.parts.refused.count(),
            is_draining: self.parts.board.is_draining(),
            reloads: &self.reloads.counts(),
            audit: self.parts.audit.as_ref().map(|audit| audit.status()),
            spans: self.parts.tracing.as_ref().map(|tracing| tracing.counts()).unwrap_or_default(),
        })
    }

    /// How takings-over went.
    pub fn handovers(&self) -> &Arc<handover::Counts> {
        &self.parts.handovers
    }

    /// Whether every shard answers within `timeout`.
    pub async fn shards_answer(&self, timeout: Duration) -> bool {
        let answers = async {
            for shard in self.parts.shards.iter() {
                if !shard.answers().await {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(timeout, answers).await.unwrap_or(false)
    }

    /// Pipes that are open.
    pub fn open_pipes(&self) -> usize {
        self.parts.pipes.open()
    }

    fn process(&self) -> Option<ProcessFigures> {
        let read = self.parts.process.as_ref()?.read();
        read.inspect_err(|error| tracing::debug!(%error, "the system does not say how this process is")).ok()
    }

    /// The audit log, where there is one.
    pub fn audit(&self) -> Option<&Arc<Audit>> {
        self.parts.audit.as_ref()
    }

    /// The traces, where there are any.
    pub fn tracing(&self) -> Option<&Arc<Tracing>> {
        self.parts.tracing.as_ref()
    }

    /// Records that an operator had something changed, or asked for it in vain: `None` where it was a signal.
    pub fn record(
        &self,
        change: &'static str,
        machine: Option<&str>,
        by: Option<&Arc<Actor>>,
        result: Result<(), String>,
    ) {
        let Some(audit) = &self.parts.audit else { return };
        let mut event = Event::new(change);
        event = match by {
            Some(actor) => event.by(actor),
            None => event.text("by", "signal"),
        };
        if let Some(machine) = machine {
            event = event.text("machine", machine);
        }
        audit.event(match result {
            Ok(()) => event.text("result", "ok"),
            Err(why) => event.text("result", "refused").text("why", &why),
        });
    }

    /// A change was asked for by somebody who may not, and not made. Told one by one up to a rate, and beyond that in sum: whoever may do
    /// nothing must not be able to fill a disk.
    pub fn refused(&self, path: &str, by: &Arc<Actor>, why: &str) {
        let told = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).tell();
        let (Some(requests), why) = (told, why.trim_end()) else { return };
        tracing::warn!(who = %by.identity(), path, why, requests, "a change was asked for by somebody who may not");
        if let Some(audit) = &self.parts.audit {
            let event = Event::new("admin_refused").by(by).text("result", "refused");
            audit.event(event.text("why", &format!("{path}: {why}")).number("requests", requests));
        }
    }

    /// Reads the configuration file again and has everything go by it; or changes nothing, and says why. Jobs in hand notice
    /// nothing.
    ///
    /// # Errors
    /// The file has problems or changes what can't change, or the gateway is stopping.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        if let Some(audit) = &self.parts.audit {
            // Whatever becomes of the file: who rotates logs asks for it like this.
            audit.reopen();
        }
        let result = self.try_reload().await;
        match &result {
            Ok(reloaded) => {
                self.reloads.ok.fetch_add(1, Ordering::Relaxed);
                self.reloads.loaded.store(now(), Ordering::Relaxed);
                let Reloaded { machines_added, machines_removed, worlds_added, worlds_removed } = reloaded;
                tracing::info!(?machines_added, ?machines_removed, ?worlds_added, ?worlds_removed, "reloaded");
            }
            Err(error) => {
                self.reloads.refused.fetch_add(1, Ordering::Relaxed);
                // A line for each problem, as `seeway check` has it.
                for problem in error.to_string().lines() {
                    tracing::error!(problem, "the configuration was not reloaded, and nothing has changed");
                }
            }
        }
        result
    }

    async fn try_reload(&self) -> Result<Reloaded, ReloadError> {
        let mut changing = self.changing.lock().await;
        if changing.is_stopping {
            return Err(ReloadError::Stopping);
        }
        let file = self.parts.file.clone().ok_or(ReloadError::NoFile)?;
        let running = self.config();
        let before = running.clone();
        // Files may be on slow disks, and connections are accepted meanwhile.
        let read = tokio::task::spawn_blocking(move || running.load_again(&file)).await;
        let new = read.map_err(|_| ShardEnded)?.map_err(ReloadError::Problems)?;
        let new = Arc::new(new);

        self.parts.callers.set_limits(new.limits.callers, new.limits.peer_callers);
        self.parts.pipes.set_limit(new.limits.pipes);
        self.parts.terminators.reload(&new);
        self.parts.tokens.reconfigure(new.token.clone());
        self.parts.board.reconfigure(&new);
        if let Some(audit) = &self.parts.audit {
            audit.reconfigure(&new);
        }
        if let Some(tracing) = &self.parts.tracing {
            tracing.reconfigure(&new);
        }
        changing.budgets = changing.budgets.reconfigured(&new);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = new.clone();
        for shard in self.parts.shards.iter() {
            shard.reload(new.clone(), changing.budgets.clone()).await?;
        }
        // A machine that comes back some day takes jobs, whatever an operator wanted of the one that is gone.
        let retired: Vec<MachineId> =
            changing.drained.iter().copied().filter(|machine| new.machines[machine.0].is_retired).collect();
        for machine in retired {
            self.set_machine(&mut changing, machine, false).await?;
        }
        self.parts.board.tell(&self.parts.health).await;
        crate::upstream::warn_of_ends(&new);
        Ok(Reloaded::between(&before, &new))
    }

    /// Has the gateway, or one machine, take no new jobs, or take them again. Doing it twice does nothing more.
    ///
    /// # Errors
    /// There is no such machine, or the gateway is stopping.
    pub async fn set_draining(&self, machine: Option<&str>, is_draining: bool) -> Result<Draining, DrainError> {
        let mut changing = self.changing.lock().await;
        if changing.is_stopping {
            return Err(DrainError::Stopping);
        }
        let jobs = if let Some(name) = machine {
            let machine = self.machine(name)?;
            tracing::info!(machine = name, "{}", if is_draining { "draining a machine" } else { "resuming a machine" });
            self.set_machine(&mut changing, machine, is_draining).await?
        } else {
            tracing::info!("{}", if is_draining { "draining, until told to resume" } else { "resuming" });
            // First it is said, so that nobody is sent here whose job is then refused.
            if is_draining {
                self.parts.board.set_draining(true);
                self.parts.board.tell(&self.parts.health).await;
            }
            let mut jobs = 0;
            for shard in self.parts.shards.iter() {
                jobs += shard.set_draining(is_draining).await?;
            }
            if !is_draining {
                self.parts.board.set_draining(false);
                self.parts.board.tell(&self.parts.health).await;
            }
            jobs
        };
        Ok(Draining { is_draining, jobs })
    }

    /// Whether the gateway, or one machine, is drained.
    ///
    /// # Errors
    /// There is no such machine.
    pub async fn draining(&self, machine: Option<&str>) -> Result<Draining, DrainError> {
        let mut reports = Vec::new();
        for shard in self.parts.shards.iter() {
            reports.extend(shard.report().await);
        }
        let Some(name) = machine else {
            let jobs = reports.iter().map(|report| report.jobs).sum();
            return Ok(Draining { is_draining: self.parts.board.is_draining(), jobs });
        };
        let machine = self.machine(name)?;
        let of_machine = reports.iter().filter_map(|report| report.machines.get(machine.0));
        let jobs = of_machine.map(|machine| machine.in_flight).sum();
        let is_draining = self.changing.lock().await.drained.contains(&machine);
        Ok(Draining { is_draining, jobs })
    }

    /// What operators have taken out of work, and not put back. Blocks.
    pub fn drains(&self) -> Drains {
        self.drains_of(&self.changing.blocking_lock())
    }

    fn drains_of(&self, changing: &Changing) -> Drains {
        let config = self.config();
        let machines = changing.drained.iter().map(|machine| config.machines[machine.0].name.clone()).collect();
        Drains { gateway: self.parts.board.is_draining(), machines }
    }

    /// Has out of work what is so at the gateway that this one takes over from, and nothing else.
    pub async fn adopt_drains(&self, wanted: &Drains) {
        let now = self.drains_of(&*self.changing.lock().await);
        let config = self.config();
        for name in &wanted.machines {
            if !config.live_machines().any(|machine| machine.name == *name) {
                tracing::warn!(
                    machine = name,
                    "the gateway before has a machine drained that this configuration does not have"
                );
            }
        }
        for name in config.live_machines().map(|machine| &machine.name) {
            let is_wanted = wanted.machines.contains(name);
            if is_wanted != now.machines.contains(name) {
                self.adopt(Some(name), is_wanted).await;
            }
        }
        if wanted.gateway != now.gateway {
            self.adopt(None, wanted.gateway).await;
        }
    }

    async fn adopt(&self, machine: Option<&str>, is_draining: bool) {
        if let Err(error) = self.set_draining(machine, is_draining).await {
            tracing::error!(machine, is_draining, %error, "the change of the gateway before could not be made here");
            return;
        }
        let Some(audit) = &self.parts.audit else { return };
        let event = Event::new(if is_draining { "drain" } else { "resume" }).text("by", "upgrade");
        let event = machine.into_iter().fold(event, |event, machine| event.text("machine", machine));
        audit.event(event.text("result", "ok"));
    }

    /// The gateway is to end: from now on nothing else is changed, and everybody is told.
    pub async fn begin_stop(&self) {
        self.changing.lock().await.is_stopping = true;
        self.parts.board.set_draining(true);
        self.parts.board.tell(&self.parts.health).await;
    }

    /// Another gateway is about to take over: from now on nothing is changed here, and callers go on. Returns what is out of work.
    pub async fn begin_handover(&self) -> Drains {
        let mut changing = self.changing.lock().await;
        changing.is_stopping = true;
        self.drains_of(&changing)
    }

    /// It does not after all.
    pub async fn withdraw_handover(&self) {
        self.changing.lock().await.is_stopping = false;
    }

    /// It accepts callers now.
    pub fn handed_over(&self, to: &Running) {
        if let Some(audit) = &self.parts.audit {
            let event = Event::new("handed_over").number("to_pid", to.pid.into());
            audit.event(event.text("to_version", &to.version).text("result", "ok"));
        }
    }

    /// That one has ended before this one: everything is as before.
    pub async fn end_handover(&self) {
        self.changing.lock().await.is_stopping = false;
        self.parts.handovers.is_watched_elsewhere.store(false, Ordering::Relaxed);
        if let Some(audit) = &self.parts.audit {
            audit.event(Event::new("taken_back").text("result", "ok"));
        }
    }

    async fn set_machine(
        &self,
        changing: &mut Changing,
        machine: MachineId,
        is_draining: bool,
    ) -> Result<usize, ShardEnded> {
        if is_draining {
            changing.drained.insert(machine);
        } else {
            changing.drained.remove(&machine);
        }
        let mut jobs = 0;
        for shard in self.parts.shards.iter() {
            jobs += shard.set_machine_draining(machine, is_draining).await?;
        }
        Ok(jobs)
    }

    fn machine(&self, name: &str) -> Result<MachineId, DrainError> {
        let config = self.config();
        let found = config.machines.iter().position(|machine| machine.name == name && !machine.is_retired);
        found.map(MachineId).ok_or_else(|| DrainError::NoSuchMachine(name.to_owned()))
    }
}

impl Reloads {
    fn counts(&self) -> ReloadCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ReloadCounts { ok: read(&self.ok), refused: read(&self.refused), loaded: read(&self.loaded) }
    }
}

impl Reloaded {
    fn between(before: &Config, now: &Config) -> Self {
        let machines =
            |config: &Config| config.live_machines().map(|machine| machine.name.clone()).collect::<BTreeSet<_>>();
        let worlds = |config: &Config| config.live_worlds().map(|world| world.name.clone()).collect::<BTreeSet<_>>();
        let less = |one: &BTreeSet<String>, other: &BTreeSet<String>| one.difference(other).cloned().collect();
        Self {
            machines_added: less(&machines(now), &machines(before)),
            machines_removed: less(&machines(before), &machines(now)),
            worlds_added: less(&worlds(now), &worlds(before)),
            worlds_removed: less(&worlds(before), &worlds(now)),
        }
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
