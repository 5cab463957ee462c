//! The state machine itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use seeway_proto::mux::{Broken, Outgoing};
use seeway_proto::outcome::{NotSent, Outcome, Rejected, Unknown};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Limits, Profile, ReplyBody};

use super::budget::Lease;
use super::job::{Admitted, Job, Jobs, Place};
use super::machine::{Channel, Machine, Machines};
use super::stats::{MachineStats, WorldStats};
use super::world::World;
use super::{
    CallerId, ChannelId, Concluded, Effects, JobId, MachineId, MachineState, NewJob, Settings, SizeClass, WorldId,
};

/// How often a shard looks whether another one has returned permits that its own queue waits for.
const BUDGET_RECHECK: Duration = Duration::from_millis(2);

/// Decides for one shard which job goes where and when.
#[derive(Debug)]
pub struct Scheduler {
    profile: Arc<Profile>,
    limits: Limits,
    hold: Duration,
    max_attempts: u32,
    jobs: Jobs,
    worlds: Vec<World>,
    pub(super) machines: Machines,
    deadlines: BTreeSet<(Instant, JobId)>,
    /// Whether other shards may return permits without this one hearing of it.
    has_shared_budgets: bool,
    is_draining: bool,
}

impl Scheduler {
    /// A scheduler with no channels, callers or jobs.
    pub fn new(now: Instant, settings: Settings) -> Self {
        let has_shared_budgets = settings.machines.iter().any(|machine| machine.in_flight.is_shared());
        let machines = settings
            .machines
            .into_iter()
            .enumerate()
            .map(|(index, machine)| Machine {
                worlds: (0..settings.worlds.len())
                    .map(WorldId)
                    .filter(|world| settings.worlds[world.0].machines.contains(&MachineId(index)))
                    .collect(),
                turn: 0,
                channels: Vec::new(),
                in_flight: Lease::new(machine.in_flight),
                stats: MachineStats::default(),
            })
            .collect();
        Self {
            profile: settings.profile,
            limits: settings.limits,
            hold: settings.hold,
            max_attempts: settings.retry.max_attempts,
            jobs: Jobs::default(),
            worlds: settings.worlds.into_iter().map(|world| World::new(now, world.machines, world.queue)).collect(),
            machines: Machines {
                all: machines,
                channels: slotmap::SlotMap::default(),
                channel_buffer: settings.channel_buffer,
            },
            deadlines: BTreeSet::new(),
            has_shared_budgets,
            is_draining: false,
        }
    }

    /// A caller has come.
    pub fn caller_joined(&mut self) -> CallerId {
        self.jobs.add_caller()
    }

    /// A caller has gone: its unsent jobs are dropped, its sent ones run on and their replies are dropped.
    pub fn caller_left(&mut self, now: Instant, caller: CallerId, effects: &mut impl Effects) {
        for job in self.jobs.of(caller) {
            self.detach(job);
            self.forget(job);
        }
        self.jobs.remove_caller(caller);
        self.settle_all(now, effects);
    }

    /// Takes a job in. Its outcome may be told at once, during this call; then there is no [`JobId`].
    ///
    /// # Panics
    /// If the caller has not joined or the world is not configured.
    pub fn submit(
        &mut self,
        now: Instant,
        caller: CallerId,
        new: NewJob<'_>,
        effects: &mut impl Effects,
    ) -> Option<JobId> {
        assert!(self.jobs.has_caller(caller), "jobs come from callers that have joined");
        if let Some(outcome) = self.refusal(now, &new) {
            self.refuse(caller, &new, outcome, effects);
            return None;
        }
        let world = &mut self.worlds[new.world.0];
        let channel = if world.queue.is_empty() { self.machines.choose(&world.machines) } else { None };
        if channel.is_none() && !world.room.try_use() {
            self.refuse(caller, &new, Outcome::NotSent(NotSent::QueueFull), effects);
            return None;
        }
        let id = self.jobs.insert(Admitted {
            caller,
            ticket: new.ticket,
            world: new.world,
            at: now,
            deadline: new.deadline,
            idempotent: new.idempotent,
            place: Place::Withdrawn,
        });
        self.deadlines.insert((new.deadline, id));
        match channel {
            Some(channel) => self.stage(now, id, channel, new.bytes, effects),
            None => self.enqueue(id, WipedBuffer::from(new.bytes), true),
        }
        Some(id)
    }

    /// A caller no longer wants one of its jobs: it gets no outcome. Does nothing where it has ended already.
    pub fn cancel(&mut self, now: Instant, job: JobId, effects: &mut impl Effects) {
        if self.jobs.get(job).is_some() {
            self.detach(job);
            self.forget(job);
            self.settle_all(now, effects);
        }
    }

    /// A channel to a machine is up: the machine has answered on it.
    pub fn channel_opened(
        &mut self,
        now: Instant,
        machine: MachineId,
        _class: SizeClass,
        effects: &mut impl Effects,
    ) -> ChannelId {
        let budget = self.machines.all[machine.0].in_flight.limit();
        let mux = Outgoing::new(self.profile.clone(), self.limits, budget);
        let channel = self.machines.channels.insert(Channel { machine, mux });
        self.machines.all[machine.0].channels.push(channel);
        self.update_readiness(now, machine, effects);
        self.dispatch(now, machine, effects);
        channel
    }

    /// A channel is gone: no reply can come any more. What had not left goes elsewhere; what had has an unknown outcome.
    pub fn channel_closed(&mut self, now: Instant, channel: ChannelId, effects: &mut impl Effects) {
        let Some(Channel { machine, mux }) = self.machines.channels.remove(channel) else {
            return;
        };
        self.machines.all[machine.0].channels.retain(|other| *other != channel);
        self.machines.settle(machine);
        self.update_readiness(now, machine, effects);
        let (mut unsent, mut sent) = (Vec::new(), Vec::new());
        mux.close(|job, bytes| unsent.push((job, WipedBuffer::from(bytes))), |job| sent.push(job));
        for (id, bytes) in unsent {
            if let Some(job) = self.jobs.get_mut(id) {
                job.attempts -= 1;
                self.requeue(id, bytes);
            }
        }
        for id in sent {
            self.retry_or_conclude(now, id, Outcome::Unknown(Unknown::TunnelLost), effects);
        }
        self.dispatch_all(now, effects);
        self.expire_held(now, effects);
    }

    /// Everything that is staged on a channel, for writing; `None` where nothing is. From now on these jobs may have run.
    pub fn take_output(&mut self, now: Instant, channel: ChannelId, effects: &mut impl Effects) -> Option<Bytes> {
        let Channel { machine, mux } = self.machines.channels.get_mut(channel)?;
        let machine = *machine;
        let output = mux.take_output();
        if output.is_some() {
            // The channel has room for bytes again.
            self.dispatch(now, machine, effects);
        }
        output
    }

    /// Bytes have come from a channel. Whole replies are taken off the front of `input`. An error means that the channel is
    /// broken: the shard closes it and calls [`channel_closed`](Self::channel_closed).
    pub fn receive(
        &mut self,
        now: Instant,
        channel: ChannelId,
        input: &mut &[u8],
        effects: &mut impl Effects,
    ) -> Result<(), Broken> {
        let Some(machine) = self.machines.channels.get(channel).map(|channel| channel.machine) else {
            *input = &[];
            return Ok(());
        };
        let result = loop {
            let mux = &mut self.machines.channels[channel].mux;
            let late_before = mux.late_replies();
            let received = mux.receive(input);
            self.machines.all[machine.0].stats.late_replies += mux.late_replies() - late_before;
            let answer = match received {
                Ok(Some(answer)) => answer,
                Ok(None) => break Ok(()),
                Err(broken) => break Err(broken),
            };
            let outcome = match answer.reply {
                ReplyBody::Job(bytes) => Outcome::Replied(bytes),
                ReplyBody::Error { status, info } => Outcome::of_machine_error(&self.profile, status, info),
                ReplyBody::NoOp | ReplyBody::Object(_) => unreachable!("only jobs are staged, and the mux knows it"),
            };
            self.retry_or_conclude(now, answer.token, outcome, effects);
        };
        self.machines.settle(machine);
        self.dispatch(now, machine, effects);
        result
    }

    /// How many bytes the message at the front of `input` lacks: the least that the next read needs room for.
    pub fn missing(&self, channel: ChannelId, input: &[u8]) -> usize {
        self.machines.channels.get(channel).map_or(1, |channel| channel.mux.missing(input))
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called, if nothing else happens before.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let waiting = self.worlds.iter().filter_map(|world| {
            let (_, first) = world.queue.first_key_value()?;
            let admitted = self.jobs.get(*first)?.admitted;
            let recheck = self.has_shared_budgets.then(|| now + BUDGET_RECHECK);
            world.hold_ends(admitted, self.hold).or(recheck)
        });
        waiting.chain(deadline).min()
    }

    /// Ends what is due.
    pub fn handle_timeout(&mut self, now: Instant, effects: &mut impl Effects) {
        let due: Vec<JobId> =
            self.deadlines.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, job)| *job).collect();
        for id in due {
            let outcome =
                if self.detach(id) { Outcome::Unknown(Unknown::TooLate) } else { Outcome::NotSent(NotSent::TooLate) };
            self.conclude(now, id, outcome, effects);
        }
        self.expire_held(now, effects);
        self.settle_all(now, effects);
    }

    /// The configuration has changed. Worlds and machines keep their places; new ones stand at the end.
    pub fn reconfigure(&mut self, now: Instant, settings: Settings, effects: &mut impl Effects) {
        let _ = (now, settings, effects, &self.limits);
    }

    /// From now on no job is taken in; those in hand run on.
    pub fn begin_drain(&mut self) {
        self.is_draining = true;
    }

    /// Jobs are taken in again.
    pub fn end_drain(&mut self) {
        self.is_draining = false;
    }

    /// From now on a machine gets no job; those that have not left go elsewhere, those that have run on.
    pub fn begin_machine_drain(&mut self, now: Instant, machine: MachineId, effects: &mut impl Effects) {
        let _ = (now, machine, effects, &self.limits);
    }

    /// A machine that was drained gets jobs again.
    pub fn end_machine_drain(&mut self, now: Instant, machine: MachineId, effects: &mut impl Effects) {
        let _ = (now, machine, effects, &self.limits);
    }

    /// From now on a channel gets no job; those that have not left it go elsewhere, those that have run on. Its end comes
    /// with [`channel_closed`](Self::channel_closed), best when [`is_channel_idle`](Self::is_channel_idle).
    pub fn drain_channel(&mut self, now: Instant, channel: ChannelId, effects: &mut impl Effects) {
        let _ = (now, channel, effects, &self.limits);
    }

    /// Whether every job that a channel was sent has been answered. True of a channel that is closed.
    pub fn is_channel_idle(&self, channel: ChannelId) -> bool {
        self.machines.channels.get(channel).is_none_or(|channel| channel.mux.in_flight() == 0)
    }

    /// Whether a caller may hand over one more job. Where not, [`Effects::caller_has_room`] tells when. A job that is handed
    /// over all the same is refused: the caller's quota is full.
    ///
    /// # Panics
    /// If the caller has not joined.
    pub fn has_room(&mut self, caller: CallerId) -> bool {
        assert!(self.jobs.has_caller(caller), "jobs come from callers that have joined");
        true
    }

    /// Whether a machine takes jobs, and why not.
    pub fn machine_state(&self, machine: MachineId) -> MachineState {
        if self.channels(machine) == 0 { MachineState::Down } else { MachineState::Ready }
    }

    /// Bytes of the jobs that wait in a world's queue.
    pub fn queued_bytes(&self, world: WorldId) -> usize {
        let _ = world;
        0
    }

    /// Whether no job is taken in any more.
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Ends every job that has not left; those that have are waited for no longer than their channels last.
    pub fn abort_unsent(&mut self, now: Instant, effects: &mut impl Effects) {
        for world in 0..self.worlds.len() {
            while let Some((_, &id)) = self.worlds[world].queue.first_key_value() {
                self.detach(id);
                self.conclude(now, id, Outcome::NotSent(NotSent::NowhereToGo), effects);
            }
        }
    }

    /// Whether no job is in hand.
    pub fn is_idle(&self) -> bool {
        self.jobs.len() == 0
    }

    /// Jobs in hand: queued, or sent and wanted.
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Callers that have joined and not left.
    pub fn callers(&self) -> usize {
        self.jobs.callers()
    }

    /// How many worlds are configured.
    pub fn worlds(&self) -> usize {
        self.worlds.len()
    }

    /// Jobs that wait in a world's queue.
    pub fn queued(&self, world: WorldId) -> usize {
        self.worlds[world.0].queue.len()
    }

    /// Tags that are taken on a machine's channels: jobs sent and unanswered, wanted or not.
    pub fn in_flight(&self, machine: MachineId) -> usize {
        self.machines.all[machine.0].in_flight.used()
    }

    /// A machine's channels that are up.
    pub fn channels(&self, machine: MachineId) -> usize {
        self.machines.all[machine.0].channels.len()
    }

    /// Whether a world has a machine that is up.
    pub fn is_ready(&self, world: WorldId) -> bool {
        self.worlds[world.0].is_ready()
    }

    /// Of a world's machines those that are up, the one with the least in flight first.
    pub fn ready_machines(&self, world: WorldId) -> Vec<MachineId> {
        let mut ready: Vec<_> =
            self.worlds[world.0].machines.iter().copied().filter(|machine| self.channels(*machine) > 0).collect();
        ready.sort_by_key(|machine| self.in_flight(*machine));
        ready
    }

    /// What was counted for a world.
    pub fn world_stats(&self, world: WorldId) -> &WorldStats {
        &self.worlds[world.0].stats
    }

    /// What was counted for a machine.
    pub fn machine_stats(&self, machine: MachineId) -> &MachineStats {
        &self.machines.all[machine.0].stats
    }

    fn refusal(&self, now: Instant, new: &NewJob<'_>) -> Option<Outcome<'static>> {
        let world = &self.worlds[new.world.0];
        if new.bytes.len() > self.limits.max_job_bytes as usize {
            Some(Outcome::Rejected(Rejected::JobTooLarge))
        } else if new.deadline <= now {
            Some(Outcome::NotSent(NotSent::TooLate))
        } else if self.is_draining || (!world.is_ready() && self.hold.is_zero()) {
            Some(Outcome::NotSent(NotSent::NowhereToGo))
        } else {
            None
        }
    }

    fn refuse(&mut self, caller: CallerId, new: &NewJob<'_>, outcome: Outcome<'_>, effects: &mut impl Effects) {
        self.worlds[new.world.0].stats.count(outcome.kind());
        effects.concluded(Concluded {
            caller,
            ticket: new.ticket,
            world: new.world,
            machine: None,
            queue_time: Duration::ZERO,
            machine_time: Duration::ZERO,
            outcome,
        });
    }

    fn enqueue(&mut self, id: JobId, bytes: WipedBuffer, has_permit: bool) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.place = Place::Queued { bytes, has_permit };
            self.worlds[job.world.0].queue.insert(job.order, id);
        }
    }

    /// Queues a job that was on a channel. It has been admitted, so it is not refused where the queue is full meanwhile.
    fn requeue(&mut self, id: JobId, bytes: WipedBuffer) {
        if let Some(job) = self.jobs.get(id) {
            let has_permit = self.worlds[job.world.0].room.try_use();
            self.enqueue(id, bytes, has_permit);
        }
    }

    /// Takes a job off its queue; returns its bytes. Nothing where it is in none.
    fn dequeue(&mut self, id: JobId) -> Option<WipedBuffer> {
        let job = self.jobs.get_mut(id)?;
        let Place::Queued { bytes, has_permit } = &mut job.place else { return None };
        let (bytes, has_permit) = (std::mem::take(bytes), *has_permit);
        job.place = Place::Withdrawn;
        let world = &mut self.worlds[job.world.0];
        world.queue.remove(&job.order);
        world.room.release(usize::from(has_permit));
        Some(bytes)
    }

    /// Puts a job on a channel that was chosen for it.
    fn stage(&mut self, now: Instant, id: JobId, channel: ChannelId, bytes: &[u8], effects: &mut impl Effects) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let Channel { machine, mux } = &mut self.machines.channels[channel];
        let was_empty = mux.staged_len() == 0;
        let tag = mux.stage_job(0, bytes, id).expect("the channel was chosen because it has room");
        job.attempts += 1;
        let copy = (job.idempotent && job.attempts < self.max_attempts).then(|| WipedBuffer::from(bytes));
        job.place = Place::OnChannel { machine: *machine, channel, tag, staged: now, copy };
        if was_empty {
            effects.output_staged(channel);
        }
    }

    /// Sends what waits for a machine, as far as it has room. Where several worlds have jobs waiting for it, they take turns.
    fn dispatch(&mut self, now: Instant, machine: MachineId, effects: &mut impl Effects) {
        let worlds = self.machines.all[machine.0].worlds.len();
        let mut passed = 0;
        while passed < worlds {
            let Machine { worlds, turn, .. } = &self.machines.all[machine.0];
            let world = &self.worlds[worlds[turn % worlds.len()].0];
            if let Some((_, &id)) = world.queue.first_key_value() {
                // Nothing has room, so it is this world's turn the next time as well.
                let Some(channel) = self.machines.choose(&world.machines) else { return };
                let bytes = self.dequeue(id).unwrap_or_default();
                self.stage(now, id, channel, bytes.filled(), effects);
                passed = 0;
            } else {
                passed += 1;
            }
            let turn = &mut self.machines.all[machine.0].turn;
            *turn = turn.wrapping_add(1);
        }
    }

    fn dispatch_all(&mut self, now: Instant, effects: &mut impl Effects) {
        for machine in 0..self.machines.all.len() {
            self.dispatch(now, MachineId(machine), effects);
        }
    }

    /// Takes a job off its queue or channel, so that it can end; returns whether it has left. One that has keeps its tag
    /// until the reply comes.
    fn detach(&mut self, id: JobId) -> bool {
        if self.dequeue(id).is_some() {
            return false;
        }
        let Some(job) = self.jobs.get_mut(id) else { return false };
        let Place::OnChannel { channel, tag, .. } = job.place else { return false };
        let Some(Channel { mux, .. }) = self.machines.channels.get_mut(channel) else { return true };
        if mux.withdraw(tag).is_some() {
            job.place = Place::Withdrawn;
            return false;
        }
        mux.abandon(tag);
        true
    }

    /// Ends a job that is detached without telling anybody.
    fn forget(&mut self, id: JobId) -> Option<Job> {
        let job = self.jobs.remove(id)?;
        self.deadlines.remove(&(job.deadline, id));
        Some(job)
    }

    /// Ends a job that is detached, or, where its outcome is unknown and it may be sent again, queues it again.
    fn retry_or_conclude(&mut self, now: Instant, id: JobId, outcome: Outcome<'_>, effects: &mut impl Effects) {
        if let Outcome::Unknown(reason) = outcome
            && let Some(job) = self.jobs.get_mut(id)
            && job.deadline > now
            && let Place::OnChannel { copy, .. } = &mut job.place
            && let Some(bytes) = copy.take()
        {
            job.earlier = Some(reason);
            self.worlds[job.world.0].stats.retries += 1;
            self.requeue(id, bytes);
            return;
        }
        self.conclude(now, id, outcome, effects);
    }

    fn conclude(&mut self, now: Instant, id: JobId, outcome: Outcome<'_>, effects: &mut impl Effects) {
        let Some(job) = self.forget(id) else { return };
        let outcome = job.honest(outcome);
        let (left_queue, machine) = match job.place {
            Place::Queued { .. } | Place::Withdrawn => (now, None),
            Place::OnChannel { staged, machine, .. } => (staged, Some(machine)),
        };
        let queue_time = left_queue.saturating_duration_since(job.admitted);
        let machine_time = now.saturating_duration_since(left_queue);
        let stats = &mut self.worlds[job.world.0].stats;
        stats.count(outcome.kind());
        stats.queue_time.record(queue_time);
        if let (Some(machine), Outcome::Replied(_) | Outcome::MachineStatus { .. }) = (machine, &outcome) {
            self.machines.all[machine.0].stats.machine_time.record(machine_time);
        }
        effects.concluded(Concluded {
            caller: job.caller,
            ticket: job.ticket,
            world: job.world,
            machine,
            queue_time,
            machine_time,
            outcome,
        });
    }

    /// Ends the jobs that have waited long enough for a machine to come up.
    fn expire_held(&mut self, now: Instant, effects: &mut impl Effects) {
        for world in 0..self.worlds.len() {
            while let Some((_, &id)) = self.worlds[world].queue.first_key_value() {
                let admitted = self.jobs.get(id).expect("queued jobs are in hand").admitted;
                if self.worlds[world].hold_ends(admitted, self.hold).is_none_or(|end| end > now) {
                    break;
                }
                self.detach(id);
                self.conclude(now, id, Outcome::NotSent(NotSent::NowhereToGo), effects);
            }
        }
    }

    /// Releases what withdrawn jobs held, and uses it for others.
    fn settle_all(&mut self, now: Instant, effects: &mut impl Effects) {
        for machine in 0..self.machines.all.len() {
            self.machines.settle(MachineId(machine));
        }
        self.dispatch_all(now, effects);
    }

    fn update_readiness(&mut self, now: Instant, machine: MachineId, effects: &mut impl Effects) {
        for index in 0..self.machines.all[machine.0].worlds.len() {
            let id = self.machines.all[machine.0].worlds[index];
            let is_up = self.worlds[id.0].machines.iter().any(|machine| self.channels(*machine) > 0);
            let world = &mut self.worlds[id.0];
            if is_up != world.is_ready() {
                world.down_since = (!is_up).then_some(now);
                effects.world_ready(id, is_up);
            }
        }
    }
}
