//! One thread of the data plane: its scheduler, its callers, its channels.
//!
//! A caller's connection lives on one shard from accept to close, and its jobs never leave it. Everything in a shard runs on
//! one thread, so the lock around its state is never contended; it is there because the libraries that carry the bytes
//! (russh, tonic) want to be handed things that could move between threads.
//!
//! Listeners and upstream call [`Shard::with`], once for each batch that they have read.

mod finished;
mod front;
mod handles;
mod history;
mod look;
mod passage;
mod pool;
mod report;
mod thread;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::Notify;

use crate::access::Access;
use crate::config::{self, Config};
use crate::schedule::{
    Budget, CallerId, CallerQuota, ChannelId, CircuitSettings, JobId, MachineId, MachineSettings, NewJob,
    RetrySettings, Scheduler, Settings, SizeClass, WorldSettings,
};

pub use finished::{Failure, Finished};
pub use front::{AnswerSink, Answered, Front, LegacyPort, Recording, StrayReply, Written};
pub use handles::Meaning;
pub use history::{Happening, History, KEPT, What};
pub use look::{BUSIEST, CallerLook, Look, MachineLook};
pub use passage::{PassageWakes, Passed};
pub use pool::{Pool, PoolCounts, TunnelState};
pub use report::{Late, MachineReport, Report, WorldReport};
pub use thread::{Accepted, CallerCount, Handed, ShardEnded, ShardHandle, Way, WorldChange, prepared, spawn};

/// A shard, for everything that runs on it.
#[derive(Clone)]
pub struct Shard {
    shared: Arc<Shared>,
}

/// What the shards have together: by the positions of machines and worlds in the configuration.
#[derive(Clone)]
pub struct Budgets {
    /// The jobs that each machine may have in flight.
    machines: Vec<Arc<Budget>>,
    /// The jobs that may wait for each world.
    queues: Vec<Arc<Budget>>,
    /// The bytes of the jobs that may wait for each world.
    queue_bytes: Vec<Arc<Budget>>,
}

impl Budgets {
    /// What a configuration allows.
    pub fn new(config: &Config) -> Self {
        let shards = config.runtime.shards;
        let machines = config.machines.iter().map(|machine| Budget::new(machine.max_in_flight, shards)).collect();
        let queues = config.worlds.iter().map(|_| Budget::new(config.limits.queue, shards)).collect();
        let queue_bytes = config.worlds.iter().map(|_| Budget::new(config.limits.queue_bytes, shards)).collect();
        Self { machines, queues, queue_bytes }
    }

    /// What a configuration allows that takes the place of the one that these were made for. What both have stays the same
    /// budget, of which the shards have leased parts, with the new limit.
    #[must_use]
    pub fn reconfigured(&self, config: &Config) -> Self {
        let shards = config.runtime.shards;
        let kept_or_new = |budget: Option<&Arc<Budget>>, limit: usize| match budget {
            Some(budget) => {
                budget.set_limit(limit);
                budget.clone()
            }
            None => Budget::new(limit, shards),
        };
        let of_worlds = |budgets: &[Arc<Budget>], limit| {
            (0..config.worlds.len()).map(|world| kept_or_new(budgets.get(world), limit)).collect()
        };
        let machines = config.machines.iter().enumerate();
        Self {
            machines: machines
                .map(|(index, machine)| kept_or_new(self.machines.get(index), machine.max_in_flight))
                .collect(),
            queues: of_worlds(&self.queues, config.limits.queue),
            queue_bytes: of_worlds(&self.queue_bytes, config.limits.queue_bytes),
        }
    }
}

struct Shared {
    /// Locked for as long as it takes to clone or swap the pointer. Written before the state is locked, never while it is.
    config: RwLock<Arc<Config>>,
    state: Mutex<State>,
    /// Wakes the timer when it has to go off earlier than it was set to.
    timer: Notify,
}

/// What a shard knows.
pub struct State {
    /// Decides.
    pub scheduler: Scheduler,
    /// Tells callers and channels what was decided.
    pub front: Front,
    /// The tunnels of each machine, by [`MachineId`].
    pub pools: Vec<Pool>,
    armed: Option<Instant>,
    /// When somebody last looked.
    looked: Instant,
}

impl Shard {
    /// A shard with no callers and no channels.
    pub fn new(
        config: Arc<Config>,
        budgets: &Budgets,
        access: Arc<Access>,
        world_changes: Arc<dyn WorldChange>,
    ) -> Self {
        let now = Instant::now();
        let settings = settings(&config, budgets);
        let pools = config.machines.iter().map(|_| Pool::default()).collect();
        let state = State {
            scheduler: Scheduler::new(now, settings),
            front: Front::new(now, config.clone(), access, world_changes),
            pools,
            armed: None,
            looked: now,
        };
        let config = RwLock::new(config);
        Self { shared: Arc::new(Shared { config, state: Mutex::new(state), timer: Notify::new() }) }
    }

    /// The same shard, with what happens on it recorded. To be called before anything does.
    #[must_use]
    pub fn recorded_by(self, recording: Option<Recording>) -> Self {
        self.lock().front.record_with(recording);
        self
    }

    /// The configuration as it is now. Positions of machines and worlds mean the same in each that follows.
    pub fn config(&self) -> Arc<Config> {
        self.shared.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a configuration in the place of the one that it has. It is aligned with that one
    /// ([`Config::aligned_with`]), and `budgets` are those of that one, reconfigured. Jobs in hand notice nothing, except
    /// that limits change.
    pub fn reconfigure(&self, config: &Arc<Config>, budgets: &Budgets) {
        *self.shared.config.write().unwrap_or_else(PoisonError::into_inner) = config.clone();
        self.with(|state, now| state.reconfigure(now, config, budgets));
    }

    /// Calls `act` with the shard's state and the time. Wake-ups are given while it runs, but nothing that is woken runs before it
    /// returns; what legacy callers have been answered is written when it returns.
    ///
    /// `act` must not call `with` again.
    pub fn with<R>(&self, act: impl FnOnce(&mut State, Instant) -> R) -> R {
        let now = Instant::now();
        let mut state = self.lock();
        let result = act(&mut state, now);
        state.front.write_answers();
        state.front.hand_records_over();
        let next = state.scheduler.poll_timeout(now);
        if next.is_some_and(|next| state.armed.is_none_or(|armed| next < armed)) {
            state.armed = next;
            self.shared.timer.notify_one();
        }
        result
    }

    /// Calls the scheduler whenever it is time. Runs as long as the shard.
    pub async fn run_timer(&self) {
        loop {
            let armed = self.lock().armed;
            let due = async {
                match armed {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => self.with(|state, now| {
                    state.scheduler.handle_timeout(now, &mut state.front);
                    state.armed = None;
                }),
                () = self.shared.timer.notified() => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock ends its task; the state is whole at every call of a method that could panic.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a configuration means to a shard's scheduler.
fn settings(config: &Config, budgets: &Budgets) -> Settings {
    let queues = budgets.queues.iter().zip(&budgets.queue_bytes);
    let world = |(world, (queue, queue_bytes)): (&config::World, (&Arc<Budget>, &Arc<Budget>))| WorldSettings {
        machines: world.machines.iter().copied().map(MachineId).collect(),
        queue: queue.clone(),
        queue_bytes: queue_bytes.clone(),
        affinity: world.affinity,
        is_retired: world.is_retired,
    };
    let machine = |(machine, in_flight): (&config::Machine, &Arc<Budget>)| MachineSettings {
        name: machine.name.as_str().into(),
        in_flight: in_flight.clone(),
        is_retired: machine.is_retired,
    };
    Settings {
        profile: config.wire.profile.clone(),
        limits: config.wire_limits(),
        worlds: config.worlds.iter().zip(queues).map(world).collect(),
        machines: config.machines.iter().zip(&budgets.machines).map(machine).collect(),
        hold: config.limits.hold,
        channel_buffer: config.limits.channel_buffer_bytes,
        bulk_above: config.limits.bulk_above,
        caller: CallerQuota {
            queued: config.limits.caller_queued,
            in_flight: config.limits.caller_in_flight,
            bytes: config.limits.caller_bytes,
        },
        retry: RetrySettings {
            max_attempts: config.retry.max_attempts,
            budget_percent: config.retry.budget_percent,
            reserve: config.retry.reserve,
        },
        circuit: CircuitSettings {
            failures: config.circuit.failures,
            silent_after: config.circuit.silent_after,
            probe_after: config.circuit.probe_after,
            probe_max: config.circuit.probe_max,
        },
        slow_start: config.balance.slow_start,
        // Without a source of randomness chance is the same in each run, and as good.
        seed: getrandom::u64().unwrap_or(1),
    }
}

impl State {
    fn reconfigure(&mut self, now: Instant, config: &Arc<Config>, budgets: &Budgets) {
        self.pools.resize_with(config.machines.len(), Pool::default);
        // First the names of what the scheduler then speaks about.
        self.front.reconfigure(now, config.clone());
        self.scheduler.reconfigure(now, settings(config, budgets), &mut self.front);
        for (index, _) in config.machines.iter().enumerate().filter(|(_, machine)| !machine.is_retired) {
            self.front.happened(MachineId(index), What::Reloaded, "");
        }
    }

    /// Hands a job to the scheduler, if its caller may submit it and it can be recorded. All jobs come this way.
    #[inline]
    pub fn submit(&mut self, now: Instant, caller: CallerId, job: NewJob<'_>) -> Option<JobId> {
        if !self.front.can_record(now, caller, &job) {
            return None;
        }
        match self.front.admit(now, caller, &job) {
            Ok(()) => self.scheduler.submit(now, caller, job, &mut self.front),
            Err(outcome) => {
                self.scheduler.refuse(caller, &job, outcome, &mut self.front);
                None
            }
        }
    }

    /// A caller has gone.
    pub fn caller_left(&mut self, now: Instant, caller: CallerId) {
        self.front.remove_port(caller);
        self.scheduler.caller_left(now, caller, &mut self.front);
        self.front.forget(caller);
    }

    /// A channel to a machine is up. `wake` is notified when there is something to write to it.
    pub fn channel_opened(
        &mut self,
        now: Instant,
        machine: MachineId,
        class: SizeClass,
        wake: Arc<Notify>,
    ) -> ChannelId {
        let channel = self.scheduler.channel_opened(now, machine, class, &mut self.front);
        // What was staged while it opened was staged before its writer could be told.
        wake.notify_one();
        self.front.add_channel(channel, wake);
        channel
    }

    /// A channel is gone.
    pub fn channel_closed(&mut self, now: Instant, channel: ChannelId) {
        self.front.remove_channel(channel);
        self.scheduler.channel_closed(now, channel, &mut self.front);
    }
}
