//! Makes the [`State`] of what the shards have counted: rates and percentiles are the difference to what they had counted before.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use seeway_proto::outcome::OutcomeKind;
use serde_json::{Map, Value, json};

use super::control::Control;
use super::percentiles::{Counts, Percentiles, Window, percentiles};
use super::seen::{Reports as _, Seen, readiness, seconds};
use super::state::{Caller, Callers, Jobs, Limit, Machine, Outcome, Process, State, World};
use crate::schedule::{Histogram, MachineState};
use crate::shard::{BUSIEST, Look, MachineReport, PoolCounts, Report};

/// What was counted before, by the positions of worlds and machines.
#[derive(Default)]
pub(super) struct Rates {
    sampled: Option<Instant>,
    /// Since the look before, in seconds; 0 for the first.
    interval: f64,
    worlds: Vec<WorldRates>,
    machines: Vec<MachineRates>,
}

#[derive(Default)]
struct WorldRates {
    /// Since the start, now and before.
    outcomes: [[u64; OutcomeKind::ALL.len()]; 2],
    time: Window,
    queue: Window,
}

#[derive(Default)]
struct MachineRates {
    time: Window,
    /// Keepalives are seconds apart.
    keepalives: Window<KEEPALIVE_LOOKS>,
}

/// Over how many looks keepalives are seen.
const KEEPALIVE_LOOKS: usize = 300;

impl WorldRates {
    /// How many ended like this since the look before.
    fn since(&self, kind: OutcomeKind) -> u64 {
        let [now, before] = self.outcomes.map(|outcomes| outcomes[kind as usize]);
        now.saturating_sub(before)
    }

    /// How many ended without an answer of a machine.
    fn failed(&self) -> u64 {
        let is_answered = |kind: &OutcomeKind| matches!(kind, OutcomeKind::Replied | OutcomeKind::MachineStatus);
        OutcomeKind::ALL.into_iter().filter(|kind| !is_answered(kind)).map(|kind| self.since(kind)).sum()
    }

    fn all(&self) -> u64 {
        OutcomeKind::ALL.into_iter().map(|kind| self.since(kind)).sum()
    }
}

/// What of a state is kept for plots: numbers only, in the order that `docs/console.md` has. Where nobody had looked before, nobody knows
/// the rates: they are null, since a 0 would look like an outage.
pub(super) fn point(state: &State) -> Value {
    let rate = |rate: f64| (state.interval > 0.0).then_some(rate);
    let of = |percentiles: &Option<Percentiles>| match percentiles {
        Some(percentiles) => [json!(percentiles.p50), json!(percentiles.p99), json!(percentiles.p999)],
        None => [Value::Null, Value::Null, Value::Null],
    };
    let jobs = &state.jobs;
    let [p50, p99, p999] = of(&jobs.seconds);
    let worlds = state.worlds.iter().map(|world| {
        let [p50, p99, p999] = of(&world.seconds);
        (world.name.clone(), json!([rate(world.jobs_per_second), world.queued, p50, p99, p999]))
    });
    let machines = state.machines.iter().map(|machine| {
        let [p50, p99, p999] = of(&machine.machine_seconds);
        (machine.name.clone(), json!([rate(machine.jobs_per_second), machine.in_flight, p50, p99, p999]))
    });
    json!({
        "time": state.time,
        "all": [rate(jobs.per_second), jobs.in_flight, jobs.queued, p50, p99, p999],
        "worlds": worlds.collect::<Map<_, _>>(),
        "machines": machines.collect::<Map<_, _>>(),
    })
}

impl Rates {
    /// The state as it is now.
    pub(super) fn state(&mut self, control: &Control, seen: &Seen) -> State {
        self.take(seen);
        let worlds: Vec<_> = seen.worlds().map(|index| self.world(seen, index)).collect();
        let readiness =
            readiness(control.board(), |name| worlds.iter().find(|world| world.name == name)?.reason.clone());
        let process = control.process_state();
        let machines: Vec<_> = seen.machines().map(|index| self.machine(seen, index)).collect();
        let sum = |of: fn(&Report) -> usize| seen.looks.iter().map(|look| of(&look.report)).sum();
        let times = sum_of(self.worlds.iter().map(|world| world.time.counted()));
        let machine_times = sum_of(self.machines.iter().map(|machine| machine.time.counted()));
        State {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: seconds(SystemTime::now()),
            interval: rounded(self.interval, 1e3),
            ready: readiness.ready,
            reasons: readiness.reasons,
            draining: control.board().is_draining(),
            shards: seen.looks.len(),
            jobs: Jobs {
                in_hand: sum(|report| report.jobs),
                queued: worlds.iter().map(|world| world.queued).sum(),
                in_flight: machines.iter().map(|machine| machine.in_flight).sum(),
                per_second: rounded(worlds.iter().map(|world| world.jobs_per_second).sum(), 10.0),
                failed_per_second: rounded(worlds.iter().map(|world| world.failed_per_second).sum(), 10.0),
                seconds: percentiles(&times).map(short),
                machine_seconds: percentiles(&machine_times).map(short),
            },
            callers: Callers {
                hardserver: sum(|report| report.legacy_callers),
                grpc: sum(|report| report.grpc_callers),
                hardserver_paused: sum(|report| report.legacy_paused),
                grpc_paused: sum(|report| report.grpc_paused),
                busiest: self.busiest(seen),
            },
            limits: limits(control, &process, seen, &worlds, &machines),
            process,
            worlds,
            machines,
        }
    }

    /// Remembers what is counted now.
    fn take(&mut self, seen: &Seen) {
        let now = Instant::now();
        let before = self.sampled.replace(now);
        self.interval = before.map_or(0.0, |before| (now - before).as_secs_f64());
        self.worlds.resize_with(seen.config.worlds.len(), WorldRates::default);
        self.machines.resize_with(seen.config.machines.len(), MachineRates::default);
        for (index, rates) in self.worlds.iter_mut().enumerate() {
            let count = |kind| seen.of_world(index).map(|world| world.stats.outcomes(kind)).sum();
            let outcomes = OutcomeKind::ALL.map(count);
            let last = if before.is_some() { rates.outcomes[0] } else { outcomes };
            rates.outcomes = [outcomes, last];
            rates.time.push(merged(seen.of_world(index).flat_map(|world| &world.stats.time)));
            rates.queue.push(merged(seen.of_world(index).map(|world| &world.stats.queue_time)));
        }
        for (index, rates) in self.machines.iter_mut().enumerate() {
            rates.time.push(merged(seen.of_machine(index).map(|machine| &machine.machine_time)));
            rates.keepalives.push(merged(seen.of_machine(index).map(|machine| &machine.keepalives)));
        }
    }

    /// So many since the look before, as a rate.
    #[allow(clippy::cast_precision_loss)] // Far below 2^52.
    fn rate(&self, count: u64) -> f64 {
        if self.interval > 0.0 { rounded(count as f64 / self.interval, 10.0) } else { 0.0 }
    }

    fn world(&self, seen: &Seen, index: usize) -> World {
        let (world, rates) = (&seen.config.worlds[index], &self.worlds[index]);
        let ready = seen.of_world(index).any(|report| report.is_ready);
        let outcome = |kind: OutcomeKind| {
            let total = rates.outcomes[0][kind as usize];
            let outcome = Outcome { total, per_second: self.rate(rates.since(kind)) };
            (total > 0).then(|| (kind.label().to_owned(), outcome))
        };
        World {
            name: world.name.clone(),
            ready,
            reason: (!ready).then(|| seen.why_not_ready(index)),
            machines: world.machines.iter().map(|machine| seen.config.machines[*machine].name.clone()).collect(),
            queued: seen.of_world(index).map(|report| report.queued).sum(),
            queue_bytes: seen.of_world(index).map(|report| report.queued_bytes).sum(),
            jobs_per_second: self.rate(rates.all()),
            failed_per_second: self.rate(rates.failed()),
            outcomes: OutcomeKind::ALL.into_iter().filter_map(outcome).collect(),
            retries: seen.of_world(index).map(|report| report.stats.retries).sum(),
            retries_refused: seen.of_world(index).map(|report| report.stats.retries_refused).sum(),
            job_bytes: seen.of_world(index).map(|report| report.stats.job_bytes).sum(),
            reply_bytes: seen.of_world(index).map(|report| report.stats.reply_bytes).sum(),
            seconds: percentiles(&rates.time.counted()).map(short),
            queue_seconds: percentiles(&rates.queue.counted()).map(short),
        }
    }

    fn machine(&self, seen: &Seen, index: usize) -> Machine {
        let (machine, rates) = (&seen.config.machines[index], &self.machines[index]);
        let sum = |of: fn(&MachineReport) -> usize| seen.of_machine(index).map(of).sum();
        let counted = |of: fn(&PoolCounts) -> u64| seen.of_machine(index).map(|report| of(&report.pool)).sum();
        let worlds = seen.config.live_worlds().filter(|world| world.machines.contains(&index));
        let state = seen.state(index);
        Machine {
            name: machine.name.clone(),
            address: machine.address.to_string(),
            worlds: worlds.map(|world| world.name.clone()).collect(),
            state: state.label().to_owned(),
            states: seen.states(index),
            draining: state == MachineState::Draining,
            trouble: seen.trouble(index),
            happenings: seen.happenings(index),
            in_flight: sum(|report| report.in_flight),
            max_in_flight: machine.max_in_flight,
            channels: sum(|report| report.channels),
            tunnels: seen.tunnels(index),
            tunnels_made: counted(|pool| pool.made),
            connects_failed: counted(|pool| pool.failed_connects),
            tunnels_refused: counted(|pool| pool.refused),
            channels_prohibited: counted(|pool| pool.prohibited),
            rekeys: counted(|pool| pool.rekeys),
            ejections: seen.of_machine(index).map(|report| report.ejections).sum(),
            late_replies: seen.of_machine(index).map(|report| report.late_replies).sum(),
            jobs_per_second: self.rate(rates.time.last()),
            machine_seconds: percentiles(&rates.time.counted()).map(short),
            keepalive_seconds: percentiles(&rates.keepalives.counted()).map(short),
        }
    }

    fn busiest(&self, seen: &Seen) -> Vec<Caller> {
        let of_shard = |look: &Look| look.callers.clone();
        let mut callers: Vec<_> = seen.looks.iter().flat_map(of_shard).collect();
        callers.sort_by(|one, other| {
            other.jobs_per_second.total_cmp(&one.jobs_per_second).then(other.jobs.cmp(&one.jobs))
        });
        callers.truncate(BUSIEST);
        // What a shard has counted before the first look is of no known time.
        let rate = |rate: f64| if self.interval > 0.0 { rounded(rate, 10.0) } else { 0.0 };
        let caller = |caller: crate::shard::CallerLook| Caller {
            who: caller.actor.identity().name().to_owned(),
            by: caller.actor.by().to_owned(),
            listener: caller.actor.listener().to_owned(),
            from: caller.actor.from().map(str::to_owned),
            jobs: caller.jobs,
            queued: caller.queued,
            bytes: caller.bytes,
            jobs_per_second: rate(caller.jobs_per_second),
        };
        callers.into_iter().map(caller).collect()
    }
}

/// What is limited, and how near it is: where a limit is for each world or machine, of the fullest.
fn limits(control: &Control, process: &Process, seen: &Seen, worlds: &[World], machines: &[Machine]) -> Vec<Limit> {
    let limits = &seen.config.limits;
    let mut all: BTreeMap<&str, Limit> = BTreeMap::new();
    let mut near = |limit: &'static str, of: Option<&str>, used: usize, max: usize| {
        // Counts are far below 2^52.
        #[allow(clippy::cast_precision_loss)]
        let ratio = if max == 0 { 0.0 } else { rounded(used as f64 / max as f64, 1e4) };
        let entry = Limit { limit: limit.to_owned(), of: of.map(str::to_owned), used, max, ratio };
        // Of two that are as good as empty the one that is less so.
        if all.get(limit).is_none_or(|fullest| (fullest.ratio, fullest.used) < (ratio, used)) {
            all.insert(limit, entry);
        }
    };
    let (callers, pipes) = control.places();
    near("callers", None, callers.0, callers.1);
    near("pipes", None, pipes.0, pipes.1);
    for (taken, most) in control.handshakes() {
        near("handshakes", None, taken, most);
    }
    if let (Some(open), Some(most)) = (process.open_files, process.max_open_files) {
        near("open_files", None, whole(open), whole(most));
    }
    for world in worlds {
        near("queue", Some(&world.name), world.queued, limits.queue);
        near("queue_bytes", Some(&world.name), world.queue_bytes, limits.queue_bytes);
    }
    for machine in machines {
        near("max_in_flight", Some(&machine.name), machine.in_flight, machine.max_in_flight);
    }
    all.into_values().collect()
}

/// A count of the system's.
fn whole(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn sum_of(all: impl Iterator<Item = Counts>) -> Counts {
    all.fold([0; Histogram::BUCKETS], |sum, counts| std::array::from_fn(|bucket| sum[bucket] + counts[bucket]))
}

/// What all shards have counted.
fn merged<'a>(shards: impl Iterator<Item = &'a Histogram>) -> Counts {
    let mut all = Histogram::default();
    shards.for_each(|shard| all.merge(shard));
    *all.counts()
}

/// Percentiles to the microsecond.
fn short(percentiles: Percentiles) -> Percentiles {
    let Percentiles { p50, p99, p999, jobs } = percentiles;
    Percentiles { p50: rounded(p50, 1e6), p99: rounded(p99, 1e6), p999: rounded(p999, 1e6), jobs }
}

/// A number that is shown to people, to so many parts of one.
fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}
