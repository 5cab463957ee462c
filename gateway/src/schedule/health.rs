//! What the scheduler makes of how its machines do: readiness, ejection, probes, slow start.

use std::time::Instant;

use seeway_proto::outcome::{Outcome, Unknown};

use super::pace::{Next, SlowStart};
use super::scheduler::Scheduler;
use super::{ChannelId, Effects, JobId, MachineId, WorldId};

impl Scheduler {
    /// A machine came, went or changed: who waits may have somewhere else to go.
    pub(super) fn machines_changed(&mut self, now: Instant, effects: &mut impl Effects) {
        for world in 0..self.worlds.len() {
            self.update_readiness(now, WorldId(world), effects);
            self.retarget(now, WorldId(world), effects);
        }
        self.dispatch_all(now, effects);
    }

    fn update_readiness(&mut self, now: Instant, id: WorldId, effects: &mut impl Effects) {
        let world = &mut self.worlds[id.0];
        let is_up = world.machines.iter().any(|machine| self.machines.is_up(*machine));
        if is_up != world.down_since.is_none() {
            world.down_since = (!is_up).then_some(now);
        }
        // One that is retired takes no more, and what it has taken runs on.
        let is_ready = is_up && !world.is_retired;
        if is_ready != std::mem::replace(&mut world.is_ready, is_ready) {
            effects.world_ready(id, is_ready);
        }
    }

    /// A machine that comes back takes load step by step, where others can take the rest.
    pub(super) fn begin_slow_start(&mut self, now: Instant, id: MachineId) {
        let machine = &self.machines.all[id.0];
        let has_others = !machine.worlds.is_empty() && self.machines.can_spare(id, &self.worlds);
        let limit = machine.in_flight.share();
        let start = SlowStart::new(now, self.slow_start, limit);
        self.machines.all[id.0].slow_start = Some(start).filter(|start| has_others && !start.is_over(now, limit));
    }

    /// So many replies have come from a machine, those that nobody waits for any more among them.
    pub(super) fn machine_answered(&mut self, now: Instant, id: MachineId, replies: usize) {
        if replies == 0 {
            return;
        }
        let machine = &mut self.machines.all[id.0];
        machine.last_answer = Some(now);
        machine.silent_until = None;
        if let Some(start) = &mut machine.slow_start {
            start.step(replies);
            if start.is_over(now, machine.in_flight.share()) {
                machine.slow_start = None;
            }
        }
    }

    /// A machine has answered a job, but not with a reply.
    pub(super) fn job_answered(
        &mut self,
        now: Instant,
        id: MachineId,
        job: JobId,
        outcome: &Outcome<'_>,
        effects: &mut impl Effects,
    ) {
        let Some((_, staged)) = self.jobs.get(job).and_then(|job| job.staged) else { return };
        // One that refuses whatever it is sent does so quickly, and must not get more for it.
        let has_refused = matches!(outcome, Outcome::MachineStatus { may_have_run: false, .. });
        if has_refused || matches!(outcome, Outcome::Unknown(Unknown::MachineFailed)) {
            self.machine_failed(now, id, job, effects);
            return;
        }
        let machine = &mut self.machines.all[id.0];
        machine.reply_time.record(now, self.stopwatch.between(staged, now).seconds);
        if machine.circuit.succeeded(staged) {
            self.machine_recovered(now, id, effects);
        }
    }

    /// A machine that was ejected is trusted again.
    #[cold]
    pub(super) fn machine_recovered(&mut self, now: Instant, id: MachineId, effects: &mut impl Effects) {
        self.begin_slow_start(now, id);
        effects.machine_trusted(id);
        self.machines_changed(now, effects);
    }

    /// A machine has not answered a job, which left at `staged`, by its deadline.
    pub(super) fn job_timed_out(
        &mut self,
        now: Instant,
        id: MachineId,
        job: JobId,
        staged: Instant,
        effects: &mut impl Effects,
    ) {
        let machine = &mut self.machines.all[id.0];
        let waited = now.saturating_duration_since(staged);
        let patience = machine.reply_time.patience();
        machine.reply_time.record_at_least(now, waited);
        // Nothing has come from there since it was sent, and by now something should have: it is not this job that is slow,
        // nor this caller that is hasty.
        if waited >= patience && machine.last_answer.is_none_or(|last| last < staged) {
            self.machine_failed(now, id, job, effects);
        }
    }

    /// A machine has failed a job, or lost it.
    pub(super) fn machine_failed(&mut self, now: Instant, id: MachineId, job: JobId, effects: &mut impl Effects) {
        if self.machines.all[id.0].circuit.failed(&self.circuit, job) {
            self.eject(now, id, effects);
        }
    }

    /// Ejects a machine, unless it is the last one of a world.
    pub(super) fn eject(&mut self, now: Instant, id: MachineId, effects: &mut impl Effects) {
        if !self.machines.can_spare(id, &self.worlds) {
            return;
        }
        let machine = &mut self.machines.all[id.0];
        machine.circuit.eject(now, &self.circuit);
        machine.stats.ejections += 1;
        machine.slow_start = None;
        effects.machine_ejected(id);
        self.withdraw_from(now, id, effects);
        self.machines_changed(now, effects);
    }

    /// What is staged for a machine and has not left goes elsewhere.
    pub(super) fn withdraw_from(&mut self, now: Instant, id: MachineId, effects: &mut impl Effects) {
        for channel in self.machines.all[id.0].channels.clone() {
            self.withdraw_all(now, channel, effects);
        }
    }

    /// A machine has answered a NoOp: it is there.
    pub(super) fn probe_answered(&mut self, now: Instant, channel: ChannelId, effects: &mut impl Effects) {
        let channel = &mut self.machines.channels[channel];
        channel.probes -= 1;
        let machine = channel.machine;
        self.machines.all[machine.0].circuit.answered();
        self.machines_changed(now, effects);
    }

    /// When a machine is to be looked after.
    #[inline]
    pub(super) fn machines_timeout(&self) -> Next {
        let mut next = Next::default();
        for machine in &self.machines.all {
            if !machine.circuit.is_closed() {
                next.or_at(machine.circuit.timeout().filter(|_| !machine.channels.is_empty()));
            } else if self.circuit.failures > 0 {
                next.or_at(machine.silent_until);
            }
            next.or_at(machine.slow_start.map(|start| start.ends()));
        }
        next
    }

    /// Looks after the machines for which it is time.
    pub(super) fn handle_machines_timeout(&mut self, now: Instant, effects: &mut impl Effects) {
        for index in 0..self.machines.all.len() {
            let id = MachineId(index);
            let machine = &mut self.machines.all[index];
            let limit = machine.in_flight.share();
            machine.slow_start = machine.slow_start.filter(|start| !start.is_over(now, limit));
            let is_silent = machine.silent_until.is_some_and(|until| until <= now);
            if is_silent && machine.circuit.is_closed() {
                // Where it can't be spared, that is looked at again after as long.
                machine.silent_until = Some(now + self.circuit.silent_after);
                if self.circuit.failures > 0 {
                    self.eject(now, id, effects);
                }
            }
            let machine = &self.machines.all[index];
            if !machine.channels.is_empty() && machine.circuit.timeout().is_some_and(|at| at <= now) {
                self.probe(now, id, effects);
            }
        }
    }

    /// Asks an ejected machine whether it is there; one that was asked and has not answered stays ejected.
    fn probe(&mut self, now: Instant, id: MachineId, effects: &mut impl Effects) {
        let machine = &mut self.machines.all[id.0];
        if machine.circuit.is_probing() {
            machine.circuit.eject(now, &self.circuit);
            // What was to try it may not have left yet.
            self.withdraw_from(now, id, effects);
            self.machines_changed(now, effects);
            return;
        }
        machine.circuit.asked(now, &self.circuit);
        let is_asked = machine.channels.iter().any(|channel| self.machines.channels[*channel].probes > 0);
        if is_asked {
            // What was asked before is still to be answered.
            return;
        }
        for &channel in &machine.channels {
            let at = &mut self.machines.channels[channel];
            let was_empty = at.mux.staged_len() == 0;
            if at.mux.stage_no_op(None).is_ok() {
                at.probes += 1;
                if was_empty {
                    effects.output_staged(channel);
                }
                return;
            }
        }
    }
}
