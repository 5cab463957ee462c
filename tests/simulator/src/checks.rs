//! What is checked after each call of the scheduler and after each step.

use std::time::Duration;

use seeway::schedule::{Affinity, MachineId, MachineState, WorldId};
use seeway_proto::outcome::NotSent;

use crate::callers::Side;
use crate::ledger::{NAMED_FROM, Number, Stage};
use crate::notes::{Said, Told};
use crate::promise::Promise;
use crate::setup::Setup;
use crate::simulation::{Simulation, Task};
use crate::upstream::{LinkKey, Sent};

/// A call of the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Submit(Number),
    Other,
}

/// What was counted after the call before. What is above a limit that was lowered may stay there, and must not grow.
#[derive(Debug, Default)]
pub(crate) struct Before {
    in_flight: Vec<usize>,
    queued: Vec<(usize, usize)>,
    /// By world: jobs that may have come back to its queue since it was last empty. They were counted when they came first,
    /// and are not counted again where it is full meanwhile.
    came_back: Vec<usize>,
    /// What makes jobs come back when it changes.
    places: Vec<u64>,
}

/// The largest limits that were ever configured: what was allowed once may still be on its way.
#[derive(Debug, Default)]
pub(crate) struct Most {
    pub(crate) channel_buffer: usize,
    caller_in_flight: usize,
    retry_reserve: u64,
    retry_percent: u64,
    hold: Duration,
}

impl Most {
    pub(crate) fn raise(&mut self, setup: &Setup) {
        self.channel_buffer = self.channel_buffer.max(setup.channel_buffer);
        self.caller_in_flight = self.caller_in_flight.max(setup.quota.in_flight);
        self.retry_reserve = self.retry_reserve.max(setup.retry.reserve.into());
        self.retry_percent = self.retry_percent.max(setup.retry.budget_percent.into());
        self.hold = self.hold.max(setup.hold);
    }
}

impl Simulation {
    /// Acts on what the scheduler said during a call, and checks what is to hold after it.
    pub(crate) fn digest(&mut self, call: Call) {
        while let Some(told) = self.notes.told.pop_front() {
            self.tell_caller(&told);
        }
        for channel in std::mem::take(&mut self.notes.staged) {
            match self.link_keys.get(&channel).copied() {
                Some(key) => {
                    let since = (self.now, self.epoch);
                    if let Some(link) = self.link(key) {
                        link.staged_since = since;
                    }
                    self.soon(Task::Pump(key));
                }
                None => self.fail(Promise::Contract, "something is staged on a channel that is closed"),
            }
        }
        for id in std::mem::take(&mut self.notes.rooms) {
            let Some(key) = self.caller_keys.get(&id).copied() else {
                self.fail(Promise::Contract, "a caller that has gone is told that it has room");
                continue;
            };
            self.soon(Task::Resume(key));
            self.wake_reader(key);
        }
        if let Some(world) = self.notes.stammered.pop() {
            self.fail(Promise::Contract, format!("world {} is said to be what it was already", world.0));
        }
        self.check_limits(call);
    }

    fn tell_caller(&mut self, told: &Told) {
        let Told { caller, ticket, machine, ref said, .. } = *told;
        let outcome = said.outcome();
        let Some(number) = self.tickets.remove(&(caller, ticket)) else {
            let what = format!("ticket {ticket}, which is not in hand, is told `{}`", outcome.kind());
            self.fail(Promise::OneOutcome, what);
            return;
        };
        self.note(|| match machine {
            Some(machine) => format!("job {number}: {} (machine {})", outcome.kind(), machine.0),
            None => format!("job {number}: {}", outcome.kind()),
        });
        self.check_refusal(number, told);
        let result = self.ledger.concluded(
            self.now,
            number,
            outcome,
            self.setup.max_job_bytes,
            self.setup.worlds[told.world.0].is_retired,
        );
        self.broken(result);
        let Some(key) = self.caller_keys.get(&caller).copied() else { return };
        let profile = self.profile.clone();
        if let Some(legacy) = self.legacy(key) {
            let tag = u32::try_from(ticket).expect("a legacy caller's ticket is its tag");
            match outcome {
                seeway_proto::outcome::Outcome::Replied(reply) => legacy.incoming.answer_job(tag, reply.0),
                _ => legacy.incoming.answer_error(tag, outcome.status(&profile), outcome.errorinfo()),
            }
            self.look_at_answers(key);
            self.wake_reader(key);
        }
    }

    /// Whether a job that was refused for want of room found none.
    fn check_refusal(&mut self, number: Number, told: &Told) {
        let world = told.world.0;
        let size = self.ledger.job(number).size;
        match told.said {
            Said::NotSent(NotSent::QueueFull) => {
                let (jobs, bytes) = self.before.queued.get(world).copied().unwrap_or_default();
                let setup = &self.setup.worlds[world];
                if jobs < setup.queue && bytes + size <= setup.queue_bytes {
                    let what =
                        format!("job {number} is told that the queue is full: {jobs} jobs and {bytes} bytes are in it");
                    self.fail(Promise::Contract, what);
                }
            }
            Said::NotSent(NotSent::CallerQuota) => {
                let caller = self.ledger.job(number).caller;
                let others = self.ledger.in_hand.iter().filter(|other| **other != number);
                let others = others.map(|number| self.ledger.job(*number)).filter(|job| job.caller == caller);
                let (waiting, jobs, bytes) = others.fold((0, 0, 0), |(waiting, jobs, bytes), job| {
                    (waiting + usize::from(!job.is_out), jobs + 1, bytes + job.size)
                });
                let is_full = jobs > 0 && bytes + size > self.setup.quota.bytes;
                if waiting < self.setup.quota.queued && !is_full {
                    let what =
                        format!("job {number} is told that its caller's quota is full: {jobs} jobs, {bytes} bytes");
                    self.fail(Promise::Contract, what);
                }
            }
            _ => {}
        }
    }

    fn check_limits(&mut self, call: Call) {
        for machine in 0..self.setup.machines.len() {
            let used = self.scheduler.in_flight(MachineId(machine));
            let before = self.before.in_flight.get(machine).copied().unwrap_or(0);
            let limit = self.setup.machines[machine].max_in_flight;
            if used > limit && used > before {
                self.fail(Promise::Limits, format!("machine {machine} has {used} jobs in flight, {limit} are allowed"));
            }
            let truly = self.truly_in_flight(machine);
            if used > 0 && self.scheduler.channels(MachineId(machine)) == 0 {
                self.fail(
                    Promise::Quiet,
                    format!("machine {machine} has no channel, and {used} jobs in flight are counted"),
                );
            }
            if truly > used {
                let what = format!("machine {machine} has {truly} unanswered jobs and {used} are counted");
                self.fail(Promise::Limits, what);
            }
        }
        self.before.in_flight =
            (0..self.setup.machines.len()).map(|place| self.scheduler.in_flight(MachineId(place))).collect();
        let queued: Vec<_> = (0..self.setup.worlds.len())
            .map(|place| (self.scheduler.queued(WorldId(place)), self.scheduler.queued_bytes(WorldId(place))))
            .collect();
        self.count_those_who_came_back(&queued);
        if let Call::Submit(number) = call {
            for (place, &(jobs, bytes)) in queued.iter().enumerate() {
                let world = &self.setup.worlds[place];
                let came_back = self.before.came_back[place];
                let (queue, queue_bytes) = (world.queue + came_back, world.queue_bytes);
                let before = self.before.queued.get(place).copied().unwrap_or_default();
                if jobs > queue && jobs > before.0 {
                    self.fail(Promise::Limits, format!("{jobs} jobs wait for world {place}, {queue} are allowed"));
                }
                if came_back == 0 && bytes > queue_bytes && bytes > before.1 {
                    let what = format!("{bytes} bytes wait for world {place}, {queue_bytes} are allowed");
                    self.fail(Promise::Limits, what);
                }
            }
            self.check_caller_quota(number);
        }
        self.before.queued = queued;
    }

    /// Jobs come back when a channel is closed or drained, when a machine's state changes, and to be sent again.
    fn count_those_who_came_back(&mut self, queued: &[(usize, usize)]) {
        let machines =
            (0..self.setup.machines.len()).map(|place| self.scheduler.machine_state(MachineId(place)) as u64);
        let links = self.links.values().map(|link| link.key.life << 1 | u64::from(link.is_draining));
        let places: Vec<u64> = machines.chain(links).chain([self.epoch, self.drained.len() as u64]).collect();
        let is_moved = places != self.before.places;
        self.before.places = places;
        self.before.came_back.resize(queued.len(), 0);
        let just_came_back = std::mem::take(&mut self.ledger.just_came_back);
        let nameless = std::mem::take(&mut self.ledger.nameless_came_back);
        for (place, (jobs, _)) in queued.iter().enumerate() {
            let in_hand = self.ledger.in_hand.iter().filter(|number| self.ledger.job(**number).world == place);
            let came_back = if is_moved {
                // Any of those that do not wait may have been where they no longer are.
                in_hand.count()
            } else {
                let again = just_came_back.iter().filter(|number| self.ledger.in_hand.contains(number));
                again.filter(|number| self.ledger.job(**number).world == place).count() + nameless
            };
            self.before.came_back[place] = if *jobs == 0 { 0 } else { self.before.came_back[place] + came_back };
        }
    }

    fn truly_in_flight(&self, machine: usize) -> usize {
        let links = self.links.range((machine, 0)..(machine + 1, 0));
        links.map(|(_, link)| link.outstanding.values().filter(|sent| **sent != Sent::Probe).count()).sum()
    }

    /// Whether a caller whose job has just been admitted has no more than it may have.
    fn check_caller_quota(&mut self, number: Number) {
        if self.ledger.job(number).stage != Stage::InHand {
            return;
        }
        if self.is_draining {
            self.fail(Promise::Drain, format!("job {number} is admitted while the gateway drains"));
        }
        let caller = self.ledger.job(number).caller;
        let theirs =
            self.ledger.in_hand.iter().map(|number| self.ledger.job(*number)).filter(|job| job.caller == caller);
        let (jobs, bytes) = theirs.fold((0, 0), |(jobs, bytes), job| (jobs + 1, bytes + job.size));
        // Where no channel is up, all that a caller has in hand waits. What has come back to a queue was counted before.
        let may_be_sent = if self.links.is_empty() { 0 } else { self.most.caller_in_flight };
        let allowed = self.setup.quota.queued.saturating_add(may_be_sent);
        let is_none_back = self.before.came_back.iter().all(|count| *count == 0);
        if jobs > 1 && jobs > allowed && is_none_back {
            self.fail(
                Promise::Limits,
                format!("caller {} has {jobs} jobs in hand, {allowed} are allowed", caller.slot),
            );
        }
        let allowed = self.setup.quota.bytes;
        if jobs > 1 && bytes > allowed {
            self.fail(
                Promise::Limits,
                format!("caller {} has {bytes} bytes in hand, {allowed} are allowed", caller.slot),
            );
        }
    }

    /// Whether a job may be handed to the network here and now.
    pub(crate) fn check_job_leaves(&mut self, key: LinkKey, number: Option<Number>) {
        let is_draining = self.link(key).is_some_and(|link| link.is_draining);
        if is_draining {
            self.fail(
                Promise::Drain,
                format!("a job leaves over channel {} of machine {}, which drains", key.place, key.machine),
            );
        }
        if self.drained.contains(&key.machine) || self.setup.machines[key.machine].is_retired {
            self.fail(Promise::Drain, format!("a job is sent to machine {}, which drains", key.machine));
        }
        let Some(number) = number else { return };
        let job = self.ledger.job(number).clone();
        let world = &self.setup.worlds[job.world];
        if !world.machines.contains(&key.machine) {
            let what = format!(
                "job {number} of world {} is sent to machine {}, which does not run it",
                job.world, key.machine
            );
            self.fail(Promise::Affinity, what);
            return;
        }
        if self.scheduler.machine_state(MachineId(key.machine)) == MachineState::Ejected {
            // It may have been staged when there was no other, or none in its world.
            let (staged_since, epoch) = self.links[&(key.machine, key.place)].staged_since;
            let was_ready = |place: &&usize| {
                epoch == self.epoch && self.ready_since.get(*place).is_some_and(|since| *since < staged_since)
            };
            if let Some(other) = world.machines.iter().find(was_ready) {
                let what = format!("a job is sent to machine {}, which is ejected; {other} is ready", key.machine);
                self.fail(Promise::Ejection, what);
                return;
            }
        }
        if job.key != 0 && job.epoch == self.epoch && world.affinity == Affinity::Strict {
            let at = *self.strict.entry((self.epoch, job.world, job.key)).or_insert(key.machine);
            if at != key.machine {
                let what =
                    format!("job {number} with key {} goes to machine {}, others went to {at}", job.key, key.machine);
                self.fail(Promise::Affinity, what);
            }
        }
        let outstanding = self.links.values().flat_map(|link| link.outstanding.values());
        let theirs = outstanding.filter_map(|sent| sent.number()).filter(|number| {
            let other = self.ledger.job(*number);
            other.caller == job.caller && other.stage == Stage::InHand
        });
        let (theirs, allowed) = (theirs.count(), self.most.caller_in_flight);
        if theirs > allowed {
            let what = format!("caller {} has {theirs} jobs in flight, {allowed} are allowed", job.caller.slot);
            self.fail(Promise::Limits, what);
        }
        let (sent, again) = self.ledger.sent.get(&job.world).copied().unwrap_or_default();
        let sent = sent + self.ledger.nameless_left();
        // Jobs that are staged count as sent before they have left.
        let staged = 2 * self.setup.machines.iter().map(|machine| machine.max_in_flight as u64).sum::<u64>();
        let allowed = self.most.retry_reserve + self.most.retry_percent * (sent + staged) / 100 + 1;
        if again > allowed {
            let what = format!("{again} retries of {sent} jobs of world {}, {allowed} are allowed", job.world);
            self.fail(Promise::RetryBudget, what);
        }
        self.shares_served(number);
    }

    /// What holds after each step.
    pub(crate) fn check_after_step(&mut self) {
        if self.scheduler.jobs() != self.ledger.in_hand.len() {
            let what = format!(
                "the scheduler has {} jobs in hand, its callers {}",
                self.scheduler.jobs(),
                self.ledger.in_hand.len()
            );
            self.fail(Promise::Quiet, what);
        }
        let callers = self.callers.iter().flatten().count();
        if self.scheduler.callers() != callers {
            self.fail(
                Promise::Quiet,
                format!("the scheduler has {} callers, there are {callers}", self.scheduler.callers()),
            );
        }
        for world in 0..self.setup.worlds.len() {
            self.check_hold(world);
        }
        for machine in 0..self.setup.machines.len() {
            if self.scheduler.machine_state(MachineId(machine)) == MachineState::Ready {
                self.ready_since.entry(machine).or_insert(self.now);
            } else {
                self.ready_since.remove(&machine);
            }
        }
    }

    /// With no machine up, nothing waits longer than `hold`.
    fn check_hold(&mut self, world: usize) {
        let machines = &self.setup.worlds[world].machines;
        let is_up = machines.iter().any(|machine| self.scheduler.channels(MachineId(*machine)) > 0);
        let said = self.notes.ready.get(&WorldId(world)).copied().unwrap_or(false);
        if self.scheduler.is_ready(WorldId(world)) != said {
            self.fail(
                Promise::Contract,
                format!("world {world} is said to be ready: {said}, and is not what it is said"),
            );
        }
        let now = self.now;
        self.down_since.resize(self.setup.worlds.len(), None);
        let since = &mut self.down_since[world];
        *since = if is_up { None } else { Some(since.unwrap_or(now)) };
        let Some(since) = *since else { return };
        let waits = self.ledger.in_hand.iter().find(|number| {
            let job = self.ledger.job(**number);
            let submitted = job.submitted.map_or(since, |submitted| submitted.max(since));
            job.world == world
                && job.size >= NAMED_FROM
                && !job.is_out
                && job.came_back.is_none_or(|came_back| came_back <= since)
                && submitted + self.most.hold < self.now
        });
        // The timer comes within the step that is due, unless the clock has jumped.
        if let Some(number) = waits.copied()
            && self.scheduler.poll_timeout(self.now).is_none_or(|next| next > self.now)
        {
            self.fail(
                Promise::Liveness,
                format!("job {number} waits for world {world}, which is down, longer than `hold`"),
            );
        }
    }

    /// Whether anything is left when everybody has gone and all is quiet.
    pub(crate) fn check_quiet(&mut self, are_channels_open: bool) {
        if !self.scheduler.is_idle() || self.scheduler.jobs() > 0 {
            self.fail(Promise::Quiet, format!("{} jobs are left in the scheduler", self.scheduler.jobs()));
        }
        if self.scheduler.callers() > 0 {
            self.fail(Promise::Quiet, format!("{} callers are left in the scheduler", self.scheduler.callers()));
        }
        for world in 0..self.setup.worlds.len() {
            let left = (self.scheduler.queued(WorldId(world)), self.scheduler.queued_bytes(WorldId(world)));
            if left != (0, 0) {
                self.fail(Promise::Quiet, format!("{left:?} jobs and bytes are left in the queue of world {world}"));
            }
        }
        for machine in 0..self.setup.machines.len() {
            let (left, truly) = (self.scheduler.in_flight(MachineId(machine)), self.truly_in_flight(machine));
            if left != truly {
                let what = format!("machine {machine} is said to have {left} jobs in flight and has {truly}");
                self.fail(Promise::Quiet, what);
            }
        }
        if !are_channels_open && let Some(next) = self.scheduler.poll_timeout(self.now) {
            let what = format!("the scheduler wants to be called in {:?}", next.saturating_duration_since(self.now));
            self.fail(Promise::Quiet, what);
        }
        let result = self.ledger.nameless_are_honest();
        self.broken(result);
    }

    /// Whether anybody still waits for something.
    pub(crate) fn check_nobody_waits(&mut self) {
        let waiting = self.callers.iter().flatten().find_map(|caller| match &caller.side {
            Side::Legacy(legacy) => legacy
                .questions
                .values()
                .flatten()
                .next()
                .map(|question| format!("caller {} has no answer to {question:?}", caller.key.slot)),
            Side::Stream(stream) => stream
                .waiting
                .front()
                .map(|number| format!("caller {} waits for room for job {number}", caller.key.slot)),
            Side::Unary => None,
        });
        if let Some(waiting) = waiting {
            self.fail(Promise::Liveness, format!("{waiting}, and nothing happens any more"));
        }
    }
}
