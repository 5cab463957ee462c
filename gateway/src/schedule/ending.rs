//! How jobs end: each with one outcome, or forgotten where nobody wants one.

use std::time::{Duration, Instant};

use seeway_proto::bug::{self, Bug};
use seeway_proto::outcome::{NotSent, Outcome};
use seeway_proto::wire::ReplyBody;

use super::group::GroupId;
use super::job::Place;
use super::scheduler::Scheduler;
use super::{Abandoned, Attempt, CallerId, Concluded, Effects, JobId, MachineId, NewJob};

impl Scheduler {
    /// A job has been answered with an error, or with more than the limit allows: then its machine is well.
    pub(super) fn answered_otherwise(
        &mut self,
        now: Instant,
        machine: MachineId,
        job: JobId,
        reply: ReplyBody<'_>,
        is_too_large: bool,
        effects: &mut impl Effects,
    ) {
        let ReplyBody::Error { status, info } = reply else { unreachable!("the mux knows what was asked") };
        let outcome = Outcome::of_machine_error(&self.profile, status, info);
        if !is_too_large {
            self.job_answered(now, machine, job, &outcome, effects);
        }
        self.retry_or_conclude(now, job, outcome, effects);
    }

    /// Ends a job that is not to be taken in, for a reason of the scheduler's or of whoever would hand it over: counted and told like
    /// any other.
    #[cold]
    pub fn refuse(&mut self, caller: CallerId, new: &NewJob<'_>, outcome: Outcome<'_>, effects: &mut impl Effects) {
        let world = &self.worlds[new.world.0];
        if world.waiting.is_empty() {
            self.machines.want_no_permits(&world.machines);
        }
        let front_end = self.jobs.caller(caller).front_end;
        self.tally.of(new.world, front_end).refused(outcome.kind());
        effects.concluded(Concluded {
            caller,
            ticket: new.ticket,
            world: new.world,
            machine: None,
            size: new.bytes.len(),
            queue_time: Duration::ZERO,
            machine_time: Duration::ZERO,
            outcome,
        });
    }

    /// Ends a job that is detached, whose caller wants no outcome.
    #[cold]
    pub(super) fn abandon(&mut self, id: JobId, effects: &mut impl Effects) {
        let Some((job, of_caller)) = self.jobs.remove(id, &mut self.spare) else { return };
        if of_caller.waits_for_room {
            self.roomy.push(job.caller);
        }
        let machine = job.staged.map(|(machine, _)| machine);
        let tally = machine.map_or(&mut self.tally, |machine| &mut self.machines.all[machine.0].tally);
        tally.of(job.world, of_caller.front_end).abandoned(job.size);
        let abandoned = Abandoned {
            caller: job.caller,
            ticket: job.ticket,
            world: job.world,
            machine,
            size: job.size,
            sent: job.staged.map(|(_, at)| at),
            // What was withdrawn is staged nowhere.
            may_have_run: job.staged.is_some() || job.earlier.is_some(),
        };
        let group = job.group;
        self.forgotten(group);
        effects.abandoned(abandoned);
    }

    /// A job has been taken out of the table.
    #[inline]
    fn forgotten(&mut self, group: Option<GroupId>) {
        self.deadlines.job_ended(|id| self.jobs.get(id).is_some());
        if let Some(group) = group {
            self.groups.job_ended(group);
        }
    }

    /// Ends a job that has been answered or whose channel is gone; or, where its outcome is unknown and it may be sent again,
    /// queues it again.
    pub(super) fn retry_or_conclude(
        &mut self,
        now: Instant,
        id: JobId,
        outcome: Outcome<'_>,
        effects: &mut impl Effects,
    ) {
        if let Outcome::Unknown(reason) = outcome
            && let Some(bytes) = self.off_channel(id)
        {
            if let Some(job) = self.jobs.get_mut(id)
                && (job.deadline > now || bug::is_on(Bug::RetryPastDeadline))
            {
                let world = &mut self.worlds[job.world.0];
                if world.retries.spend(&self.retry) {
                    world.counts.retries += 1;
                    job.earlier = Some(reason);
                    if let Some((machine, sent)) = job.staged {
                        let (caller, ticket) = (job.caller, job.ticket);
                        effects.sent_again(Attempt { caller, ticket, machine, sent, lost: now, reason });
                    }
                    self.requeue(now, id, bytes, effects);
                    return;
                }
                world.counts.retries_refused += 1;
            }
            self.spare.put_back(bytes);
        }
        self.conclude(now, id, outcome, effects);
    }

    /// Ends a job that waits nowhere, and tells its caller.
    pub(super) fn conclude(&mut self, now: Instant, id: JobId, outcome: Outcome<'_>, effects: &mut impl Effects) {
        self.conclude_here(now, id, outcome, effects);
    }

    /// The same where most jobs end, so that what is known there is not asked again. Returns the machine where its reply is why
    /// that is trusted again: whoever has the reply sees to that.
    #[inline(always)]
    pub(super) fn conclude_here(
        &mut self,
        now: Instant,
        id: JobId,
        outcome: Outcome<'_>,
        effects: &mut impl Effects,
    ) -> Option<MachineId> {
        let (job, of_caller) = self.jobs.remove(id, &mut self.spare)?;
        debug_assert!(!matches!(job.place, Place::Queued { .. }), "a job that waits is detached first");
        let is_there = matches!(job.place, Place::OnChannel { .. });
        debug_assert!(is_there || !matches!(outcome, Outcome::Replied(_)), "a reply comes to where its job is");
        let is_on_channel = matches!(outcome, Outcome::Replied(_)) || is_there;
        of_caller.in_flight -= usize::from(is_on_channel);
        let may_have_more = of_caller.waits_for_room || of_caller.is_parked;
        // A reply is a reply, whatever became of earlier attempts.
        let outcome = if let Outcome::Replied(_) = outcome { outcome } else { job.honest(outcome) };
        let (left_queue, machine_id, mut machine) = match job.staged {
            Some((id, at)) => (at, Some(id), Some(&mut self.machines.all[id.0])),
            None => (now, None, None),
        };
        let machine_time = self.stopwatch.between(left_queue, now);
        let counts = match &mut machine {
            Some(machine) => machine.tally.of(job.world, of_caller.front_end),
            None => self.tally.of(job.world, of_caller.front_end),
        };
        counts.ended(&outcome, job.size);
        let is_answered = matches!(outcome, Outcome::Replied(_) | Outcome::MachineStatus { .. });
        // Most jobs do not wait, and are answered: one time is all of theirs.
        let queue_time = if is_answered && left_queue == job.admitted {
            counts.answered_at_once(machine_time);
            Duration::ZERO
        } else {
            if is_answered && let Some(machine) = &mut machine {
                machine.stats.machine_time.record_in(machine_time);
            }
            let queue_time = left_queue.saturating_duration_since(job.admitted);
            self.worlds[job.world.0].counts.waited(of_caller.front_end, queue_time, machine_time);
            queue_time
        };
        let mut recovered = None;
        if let Some(machine) = machine {
            if is_on_channel {
                machine.circuit.released(id);
            }
            if let Outcome::Replied(_) = outcome {
                machine.reply_time.record(now, machine_time.seconds);
                if machine.circuit.succeeded(left_queue) {
                    recovered = machine_id;
                }
            }
        }
        let concluded = Concluded {
            caller: job.caller,
            ticket: job.ticket,
            world: job.world,
            machine: machine_id,
            size: job.size,
            queue_time,
            machine_time: machine_time.duration,
            outcome,
        };
        let group = if job.group.is_some() { job.group } else { None };
        if may_have_more {
            self.has_one_less(concluded.caller);
        }
        self.forgotten(group);
        if bug::is_on(Bug::DuplicateOutcome) {
            effects.concluded(concluded);
        }
        effects.concluded(concluded);
        recovered
    }

    /// A caller that waits for room, or may have no more in flight, has a job less.
    #[cold]
    fn has_one_less(&mut self, caller: CallerId) {
        self.room_made(caller);
        self.park_if_needed(caller);
    }

    /// Ends the jobs that have waited long enough for a machine to come up.
    pub(super) fn expire_held(&mut self, now: Instant, effects: &mut impl Effects) {
        if bug::is_on(Bug::HeldNeverExpires) {
            return;
        }
        for world in 0..self.worlds.len() {
            while let Some((_, &id)) = self.worlds[world].waiting.first() {
                let admitted = self.jobs.get(id).expect("queued jobs are in hand").admitted;
                if self.worlds[world].hold_ends(admitted, self.hold).is_none_or(|end| end > now) {
                    break;
                }
                self.detach(now, id, effects);
                self.conclude(now, id, Outcome::NotSent(NotSent::NowhereToGo), effects);
            }
        }
    }
}
