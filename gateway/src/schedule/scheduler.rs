//! The state machine itself: what the shard tells it, and what it makes of that.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seeway_proto::bug::{self, Bug};
use seeway_proto::mux::{Broken, Outgoing};
use seeway_proto::outcome::{NotSent, Outcome, Rejected, Unknown};
use seeway_proto::wiped::{Batch, Spares, WipedBuffer};
use seeway_proto::wire::{Limits, Profile, ReplyBody};

use super::chance::stable_hash;
use super::deadlines::Deadlines;
use super::dispatch::ToStage;
use super::group::{GroupId, Groups};
use super::job::{Jobs, Place};
use super::machine::{Channel, Machine, Machines};
use super::pace::{Kept, Next, Stopwatch};
use super::spare::{SpareBuffers, large_buffers};
use super::tally::Tally;
use super::world::World;
use super::{
    CallerId, CallerQuota, ChannelId, CircuitSettings, Effects, FrontEnd, JobId, MachineId, NewJob, RetrySettings,
    Settings, SizeClass, WorldId,
};

/// How often a shard looks whether another one has returned permits that its own queue waits for.
const BUDGET_RECHECK: Duration = Duration::from_millis(2);

/// Decides for one shard which job goes where and when.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) profile: Arc<Profile>,
    limits: Limits,
    pub(super) hold: Duration,
    pub(super) bulk_above: usize,
    pub(super) quota: CallerQuota,
    pub(super) retry: RetrySettings,
    pub(super) circuit: CircuitSettings,
    pub(super) slow_start: Duration,
    pub(super) jobs: Jobs,
    pub(super) groups: Groups,
    pub(super) worlds: Vec<World>,
    pub(super) machines: Machines,
    /// The jobs that no machine had.
    pub(super) tally: Tally,
    pub(super) deadlines: Deadlines,
    pub(super) spare: SpareBuffers,
    large_buffers: Spares,
    pub(super) stopwatch: Stopwatch,
    /// Callers that wait for room and may have some now.
    pub(super) roomy: Vec<CallerId>,
    /// Jobs that wait, of all worlds.
    pub(super) waiting: usize,
    /// Forgotten by whatever may change it; what [`submit`](Self::submit) does to a job that needs not wait rarely does.
    pub(super) next_timeout: Kept,
    /// Whether jobs that were not in line, of any world, have come to be since jobs were last dispatched to all machines.
    pub(super) has_come_back: bool,
    /// Whether other shards may return permits without this one hearing of it.
    has_shared_budgets: bool,
    is_draining: bool,
}

impl Scheduler {
    /// A scheduler with no channels, callers or jobs.
    pub fn new(now: Instant, settings: Settings) -> Self {
        let mut scheduler = Self {
            profile: settings.profile.clone(),
            limits: settings.limits,
            hold: settings.hold,
            bulk_above: settings.bulk_above,
            quota: settings.caller,
            retry: settings.retry,
            circuit: settings.circuit,
            slow_start: settings.slow_start,
            jobs: Jobs::default(),
            groups: Groups::default(),
            worlds: Vec::new(),
            machines: Machines::new(settings.channel_buffer, settings.circuit.silent_after, settings.seed),
            tally: Tally::default(),
            deadlines: Deadlines::default(),
            spare: SpareBuffers::default(),
            large_buffers: large_buffers(),
            stopwatch: Stopwatch::new(now),
            roomy: Vec::new(),
            waiting: 0,
            next_timeout: Kept::default(),
            has_come_back: false,
            has_shared_budgets: false,
            is_draining: false,
        };
        scheduler.configure(now, settings);
        scheduler
    }

    /// Takes over what the configuration says, for places that are there and for new ones.
    fn configure(&mut self, now: Instant, settings: Settings) {
        self.hold = settings.hold;
        self.bulk_above = settings.bulk_above;
        self.quota = settings.caller;
        for world in &mut self.worlds {
            world.retries.settle(&self.retry);
        }
        self.retry = settings.retry;
        self.circuit = settings.circuit;
        self.slow_start = settings.slow_start;
        self.machines.channel_buffer = settings.channel_buffer;
        self.machines.set_silent_after(settings.circuit.silent_after);
        self.has_shared_budgets = settings.machines.iter().any(|machine| machine.in_flight.is_shared());
        for (place, machine) in settings.machines.into_iter().enumerate() {
            match self.machines.all.get_mut(place) {
                Some(known) => known.is_retired = machine.is_retired,
                None => self.machines.all.push(Machine::new(machine)),
            }
        }
        for (place, world) in settings.worlds.into_iter().enumerate() {
            match self.worlds.get_mut(place) {
                Some(known) => {
                    known.machines = world.machines;
                    known.affinity = world.affinity;
                    known.is_retired = world.is_retired;
                }
                None => self.worlds.push(World::new(now, world, &self.retry)),
            }
        }
        self.tally.make_room(self.worlds.len());
        for (place, machine) in self.machines.all.iter_mut().enumerate() {
            let worlds = self.worlds.iter().enumerate();
            let worlds = worlds.filter(|(_, world)| world.machines.contains(&MachineId(place)));
            machine.tally.make_room(self.worlds.len());
            machine.worlds = worlds.map(|(place, _)| WorldId(place)).collect();
        }
    }

    /// The configuration has changed. Worlds and machines keep their places, and with them their budgets, whose limits are
    /// changed by whoever owns them; new ones stand at the end.
    pub fn reconfigure(&mut self, now: Instant, settings: Settings, effects: &mut impl Effects) {
        self.next_timeout.forget();
        let before: Vec<_> = self.machines.all.iter().map(|machine| machine.worlds.clone()).collect();
        self.configure(now, settings);
        for caller in self.jobs.caller_ids() {
            self.park_if_needed(caller);
            self.room_made(caller);
        }
        for (machine, worlds) in before.into_iter().enumerate() {
            let Machine { is_retired, worlds: now_served, .. } = &self.machines.all[machine];
            // What has not left is sent by what is configured now.
            let is_forgotten = bug::is_on(Bug::LostWorldsServed);
            if *is_retired || !is_forgotten && worlds.iter().any(|world| !now_served.contains(world)) {
                self.withdraw_from(now, MachineId(machine), effects);
            }
        }
        self.machines_changed(now, effects);
        self.expire_held(now, effects);
        self.tell_room(effects);
    }

    /// A caller has come in by a front end.
    pub fn caller_joined(&mut self, front_end: FrontEnd) -> CallerId {
        self.jobs.add_caller(front_end)
    }

    /// A caller has gone: its unsent jobs are dropped, its sent ones run on and their replies are dropped.
    pub fn caller_left(&mut self, now: Instant, caller: CallerId, effects: &mut impl Effects) {
        self.next_timeout.forget();
        // The last first, so that no job moves up that goes next.
        for job in self.jobs.of(caller) {
            // Its groups go with it: no other job of theirs is to move up, or to be told that it can't.
            let is_queued = self.unqueue(job).is_some();
            if !is_queued && !bug::is_on(Bug::CancelledStillSent) {
                self.detach(now, job, effects);
            }
            self.abandon(job, effects);
        }
        self.jobs.remove_caller(caller);
        self.settle_all(now, effects);
    }

    /// Whether a caller may hand over one more job, of any size. Where not, [`Effects::caller_has_room`] tells when. A job
    /// that is handed over all the same may be refused: the caller's quota is full.
    ///
    /// # Panics
    /// If the caller has not joined.
    #[inline]
    pub fn has_room(&mut self, caller: CallerId) -> bool {
        self.room(caller) > 0
    }

    /// The same, and for how many more jobs, whatever becomes of them: one at least, and some where there is much room.
    ///
    /// # Panics
    /// If the caller has not joined.
    #[inline]
    pub fn room(&mut self, caller: CallerId) -> usize {
        let caller = self.jobs.caller(caller);
        let room = caller.room(&self.quota, self.limits.max_job_bytes as usize);
        caller.waits_for_room = room == 0;
        room
    }

    /// Takes a job in. Its outcome may be told at once, during this call; then there is no [`JobId`].
    ///
    /// # Panics
    /// If the caller has not joined or the world is not configured.
    #[inline]
    pub fn submit(
        &mut self,
        now: Instant,
        caller: CallerId,
        new: NewJob<'_>,
        effects: &mut impl Effects,
    ) -> Option<JobId> {
        assert!(self.jobs.has_caller(caller), "jobs come from callers that have joined");
        if let Some(outcome) = self.refusal(now, caller, &new) {
            self.refuse(caller, &new, outcome, effects);
            return None;
        }
        if new.affinity_key.is_empty() {
            self.admit(now, caller, &new, None, effects)
        } else {
            self.admit_to_group(now, caller, &new, effects)
        }
    }

    fn admit_to_group(
        &mut self,
        now: Instant,
        caller: CallerId,
        new: &NewJob<'_>,
        effects: &mut impl Effects,
    ) -> Option<JobId> {
        let group = GroupId { world: new.world, caller, key: stable_hash(new.affinity_key) };
        self.admit(now, caller, new, Some(group), effects)
    }

    /// Takes in a job that nothing speaks against, unless nobody has room for it.
    #[inline(always)]
    fn admit(
        &mut self,
        now: Instant,
        caller: CallerId,
        new: &NewJob<'_>,
        group: Option<GroupId>,
        effects: &mut impl Effects,
    ) -> Option<JobId> {
        let channel = match self.channel_at_once(now, caller, new, group) {
            Ok(channel) => channel,
            Err(outcome) => {
                self.refuse(caller, new, outcome, effects);
                return None;
            }
        };
        if let Some(group) = group {
            self.groups.job_admitted(group);
        }
        let Some(channel) = channel else { return self.wait_in_queue(now, caller, new, group, effects) };
        let id = self.stage(now, ToStage::New(caller, new, group), channel, new.bytes, effects)?;
        if self.deadlines.insert(new.deadline, id) {
            self.next_timeout.forget();
        }
        Some(id)
    }

    /// Queues a new job, which has taken its place in the queue.
    fn wait_in_queue(
        &mut self,
        now: Instant,
        caller: CallerId,
        new: &NewJob<'_>,
        group: Option<GroupId>,
        effects: &mut impl Effects,
    ) -> Option<JobId> {
        self.next_timeout.forget();
        let id = self.jobs.insert(now, caller, new, group).id;
        self.deadlines.insert(new.deadline, id);
        let copy = self.spare.copy_of(new.bytes);
        self.enqueue(now, id, copy, effects);
        self.dispatch_world(now, new.world, effects);
        self.tell_room(effects);
        self.jobs.get(id).map(|_| id)
    }

    /// The channel that a new job can go to at once; `None` where it has to wait, having taken its place in the queue.
    #[inline(always)]
    fn channel_at_once(
        &mut self,
        now: Instant,
        caller: CallerId,
        new: &NewJob<'_>,
        group: Option<GroupId>,
    ) -> Result<Option<ChannelId>, Outcome<'static>> {
        let lane = self.lane_of(new.world, group, new.bytes.len());
        let lane = lane.ok_or(Outcome::NotSent(NotSent::NowhereToGo))?;
        let is_first = group.and_then(|group| self.groups.get(group)).is_none_or(|group| group.waiting.is_empty());
        let world = &mut self.worlds[new.world.0];
        if is_first
            && !self.jobs.caller(caller).is_parked
            && world.queue.is_empty()
            && let Some(channel) = self.machines.choose(now, &world.machines, lane)
        {
            match group.and_then(|group| self.must_follow(group)) {
                Some(other) if self.machines.may_follow(other, lane) => return Ok(Some(other)),
                Some(_) => self.machines.give_back(channel),
                None => return Ok(Some(channel)),
            }
        }
        if !self.jobs.caller(caller).has_room(&self.quota, new.bytes.len()) {
            return Err(Outcome::NotSent(NotSent::CallerQuota));
        }
        if !self.worlds[new.world.0].take_place(new.bytes.len()) {
            return Err(Outcome::NotSent(NotSent::QueueFull));
        }
        Ok(None)
    }

    /// A caller no longer wants one of its jobs: it gets no outcome. Does nothing where it has ended already.
    pub fn cancel(&mut self, now: Instant, job: JobId, effects: &mut impl Effects) {
        self.next_timeout.forget();
        if self.jobs.get(job).is_some() {
            self.detach(now, job, effects);
            if !bug::is_on(Bug::LeakOnCancel) {
                self.abandon(job, effects);
            }
            self.settle_all(now, effects);
        }
    }

    /// A channel to a machine is up: the machine has answered on it.
    pub fn channel_opened(
        &mut self,
        now: Instant,
        machine: MachineId,
        class: SizeClass,
        effects: &mut impl Effects,
    ) -> ChannelId {
        self.next_timeout.forget();
        // The machine's own limit holds over all of its channels.
        let mut mux = Outgoing::new(self.profile.clone(), self.limits, usize::MAX);
        if class == SizeClass::Bulk {
            mux = mux.with_spares(self.large_buffers.clone());
        }
        let was_up = self.machines.is_up(machine);
        let (is_draining, followers) = (false, BTreeSet::new());
        let channel = Channel { machine, class, mux, probes: 0, is_draining, fills_until: now, followers };
        let channel = self.machines.channels.insert(channel);
        self.machines.all[machine.0].channels.push(channel);
        self.machines.all[machine.0].circuit.answered();
        if !was_up {
            self.begin_slow_start(now, machine);
        }
        self.machines_changed(now, effects);
        self.tell_room(effects);
        channel
    }

    /// A channel is gone: no reply can come any more. What had not left goes elsewhere; what had has an unknown outcome.
    pub fn channel_closed(&mut self, now: Instant, channel: ChannelId, effects: &mut impl Effects) {
        self.next_timeout.forget();
        let Some(Channel { machine, mux, followers, .. }) = self.machines.channels.remove(channel) else {
            return;
        };
        self.machines.all[machine.0].channels.retain(|other| *other != channel);
        self.machines.settle(now, machine);
        let (mut unsent, mut sent) = (Vec::new(), Vec::new());
        mux.close(|job, bytes| unsent.extend(job.map(|job| (job, WipedBuffer::from(bytes)))), |job| sent.extend(job));
        if !self.machines.is_up(machine) {
            self.machines.all[machine.0].circuit.lost(now, &self.circuit);
        }
        // First: an ejection sends what waits, which must not overtake what has come back.
        for (id, bytes) in unsent {
            self.come_back(now, id, bytes, effects);
        }
        // However many jobs were on it, one thing has gone wrong.
        let circuit = &self.machines.all[machine.0].circuit;
        let failed = sent.iter().find(|job| circuit.is_tried_by(**job)).or(sent.first());
        if let Some(failed) = failed {
            self.machine_failed(now, machine, *failed, effects);
        }
        for id in sent {
            self.retry_or_conclude(now, id, Outcome::Unknown(Unknown::TunnelLost), effects);
        }
        self.release_followers(now, channel, followers, effects);
        self.machines_changed(now, effects);
        self.expire_held(now, effects);
        self.tell_room(effects);
    }

    /// From now on a channel gets no job; those that have not left it go elsewhere, those that have run on. Its end comes
    /// with [`channel_closed`](Self::channel_closed), best when it [has no wanted jobs](Self::has_wanted_jobs) any more.
    pub fn drain_channel(&mut self, now: Instant, channel: ChannelId, effects: &mut impl Effects) {
        self.next_timeout.forget();
        if let Some(draining) = self.machines.channels.get_mut(channel) {
            draining.is_draining = true;
            self.withdraw_all(now, channel, effects);
            self.machines_changed(now, effects);
            self.expire_held(now, effects);
            self.tell_room(effects);
        }
    }

    /// Whether somebody still waits for the outcome of a job on a channel. A job whose deadline has passed or whose caller has gone
    /// holds its tag, and keeps nobody waiting. False of a channel that is closed.
    pub fn has_wanted_jobs(&self, channel: ChannelId) -> bool {
        self.machines.channels.get(channel).is_some_and(|channel| channel.mux.wanted().any(Option::is_some))
    }

    /// Everything that is staged on a channel, for writing; `None` where nothing is. From now on these jobs may have run.
    pub fn take_output(&mut self, now: Instant, channel: ChannelId, effects: &mut impl Effects) -> Option<Batch> {
        let Channel { machine, mux, followers, .. } = self.machines.channels.get_mut(channel)?;
        let machine = *machine;
        let output = mux.take_output();
        if output.is_some() {
            self.next_timeout.forget();
            let followers = std::mem::take(followers);
            if followers.is_empty() {
                // The channel has room for bytes again.
                self.dispatch(now, machine, effects);
            } else {
                self.release_followers(now, channel, followers, effects);
                self.dispatch_all(now, effects);
            }
            self.tell_room(effects);
        }
        output
    }

    /// The buffers that large jobs and replies pass through, for whoever handles them before and after this does.
    pub fn large_buffers(&self) -> &Spares {
        &self.large_buffers
    }

    /// How many bytes are staged on a channel; none on one that is closed.
    pub fn staged_len(&self, channel: ChannelId) -> usize {
        self.machines.channels.get(channel).map_or(0, |channel| channel.mux.staged_len())
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
        self.next_timeout.forget();
        let Some(machine) = self.machines.channels.get(channel).map(|channel| channel.machine) else {
            *input = &[];
            return Ok(());
        };
        let late_before = self.machines.channels[channel].mux.late_replies();
        let mut answers = 0;
        let result = loop {
            let at = self.machines.channels.get_mut(channel).expect("a reply closes no channel");
            let answer = match at.mux.receive(input) {
                Ok(Some(answer)) => answer,
                Ok(None) => break Ok(()),
                Err(broken) => break Err(broken),
            };
            answers += 1;
            let Some(job) = answer.token else {
                self.probe_answered(now, channel, effects);
                continue;
            };
            if let ReplyBody::Job(bytes) = answer.reply {
                let recovered = self.conclude_here(now, job, Outcome::Replied(bytes), effects);
                if recovered.is_some() {
                    self.machine_recovered(now, machine, effects);
                }
            } else {
                self.answered_otherwise(now, machine, job, answer.reply, answer.is_too_large, effects);
            }
        };
        let late = self.machines.channels[channel].mux.late_replies() - late_before;
        self.machines.all[machine.0].stats.late_replies += late;
        self.machine_answered(now, machine, answers + usize::try_from(late).unwrap_or(usize::MAX));
        self.machines.settle(now, machine);
        self.dispatch(now, machine, effects);
        self.tell_room(effects);
        result
    }

    /// How many bytes the message at the front of `input` lacks: the least that the next read needs room for.
    pub fn missing(&self, channel: ChannelId, input: &[u8]) -> usize {
        self.machines.channels.get(channel).map_or(1, |channel| channel.mux.missing(input))
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called, if nothing else happens before.
    #[inline]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let next = self.next_timeout.get().unwrap_or_else(|| self.find_timeout());
        debug_assert_eq!(next, self.find_timeout(), "whatever changes it has it forgotten");
        if self.waiting > 0 { next.or(self.waiting_timeout(now)).at() } else { next.at() }
    }

    /// When something is due, apart from what waits.
    fn find_timeout(&self) -> Next {
        let mut next = self.machines_timeout();
        next.or_at(self.deadlines.next());
        self.next_timeout.keep(next);
        next
    }

    /// When a job that waits may have waited long enough, or have somewhere to go.
    fn waiting_timeout(&self, now: Instant) -> Next {
        let mut next = Next::default();
        for world in &self.worlds {
            if let Some((_, first)) = world.waiting.first()
                && let Some(job) = self.jobs.get(*first)
            {
                let recheck = self.has_shared_budgets.then(|| now + BUDGET_RECHECK);
                next.or_at(world.hold_ends(job.admitted, self.hold).or(recheck));
            }
        }
        next
    }

    /// Ends what is due.
    pub fn handle_timeout(&mut self, now: Instant, effects: &mut impl Effects) {
        self.next_timeout.forget();
        while let Some(id) = self.deadlines.take_passed(now) {
            let Some(job) = self.jobs.get(id) else { continue };
            if bug::is_on(Bug::DeadlineIgnoredInQueue) && matches!(job.place, Place::Queued { .. }) {
                continue;
            }
            let staged = job.staged;
            // Asked first: what is detached tries no machine any more.
            let was_trial = staged.is_some_and(|(machine, _)| self.machines.all[machine.0].circuit.is_tried_by(id));
            let outcome = if self.detach(now, id, effects) {
                match staged {
                    Some((machine, _)) if was_trial => self.eject(now, machine, effects),
                    Some((machine, at)) => self.job_timed_out(now, machine, id, at, effects),
                    None => {}
                }
                if bug::is_on(Bug::NotSentAfterItLeft) {
                    Outcome::NotSent(NotSent::TooLate)
                } else {
                    Outcome::Unknown(Unknown::TooLate)
                }
            } else {
                Outcome::NotSent(NotSent::TooLate)
            };
            self.conclude(now, id, outcome, effects);
        }
        self.expire_held(now, effects);
        self.handle_machines_timeout(now, effects);
        self.settle_all(now, effects);
    }

    /// From now on no job is taken in; those in hand run on.
    pub fn begin_drain(&mut self) {
        self.is_draining = true;
    }

    /// Jobs are taken in again.
    pub fn end_drain(&mut self) {
        self.is_draining = false;
    }

    /// Whether no job is taken in any more.
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// From now on a machine gets no job; those that have not left go elsewhere, those that have run on.
    pub fn begin_machine_drain(&mut self, now: Instant, machine: MachineId, effects: &mut impl Effects) {
        self.next_timeout.forget();
        self.machines.all[machine.0].is_draining = true;
        self.withdraw_from(now, machine, effects);
        self.machines_changed(now, effects);
        self.expire_held(now, effects);
        self.tell_room(effects);
    }

    /// A machine that was drained gets jobs again.
    pub fn end_machine_drain(&mut self, now: Instant, machine: MachineId, effects: &mut impl Effects) {
        self.next_timeout.forget();
        if std::mem::take(&mut self.machines.all[machine.0].is_draining) {
            self.begin_slow_start(now, machine);
            self.machines_changed(now, effects);
            self.tell_room(effects);
        }
    }

    /// Ends every job that waits; those on channels are waited for no longer than their channels last.
    pub fn abort_unsent(&mut self, now: Instant, effects: &mut impl Effects) {
        self.next_timeout.forget();
        for world in 0..self.worlds.len() {
            while let Some(&id) = self.worlds[world].waiting.last() {
                self.detach(now, id, effects);
                self.conclude(now, id, Outcome::NotSent(NotSent::NowhereToGo), effects);
            }
        }
        self.tell_room(effects);
    }

    /// Deadlines that are watched.
    pub(super) fn deadlines(&self) -> usize {
        self.deadlines.len()
    }

    #[inline]
    fn refusal(&mut self, now: Instant, caller: CallerId, new: &NewJob<'_>) -> Option<Outcome<'static>> {
        let world = &self.worlds[new.world.0];
        if world.is_retired {
            Some(Outcome::Rejected(Rejected::NoSuchWorld))
        } else if new.bytes.len() > self.limits.max_job_bytes as usize {
            Some(Outcome::Rejected(Rejected::JobTooLarge))
        } else if new.deadline <= now {
            Some(Outcome::NotSent(NotSent::TooLate))
        } else if self.is_draining || (world.down_since.is_some() && self.hold.is_zero()) {
            Some(Outcome::NotSent(NotSent::NowhereToGo))
        } else if !self.jobs.caller(caller).has_room_for_bytes(&self.quota, new.bytes.len()) {
            Some(Outcome::NotSent(NotSent::CallerQuota))
        } else {
            None
        }
    }

    /// Releases what withdrawn jobs held, and uses it for others.
    fn settle_all(&mut self, now: Instant, effects: &mut impl Effects) {
        for machine in 0..self.machines.all.len() {
            self.machines.settle(now, MachineId(machine));
        }
        self.dispatch_all(now, effects);
        self.tell_room(effects);
    }

    /// Takes a caller's flows off the rings when it has as much in flight as it may, and puts them back when it has less.
    #[inline]
    pub(super) fn park_if_needed(&mut self, caller: CallerId) {
        let of_caller = self.jobs.caller(caller);
        let is_parked = of_caller.in_flight >= self.quota.in_flight && !bug::is_on(Bug::CallerInFlightIgnored);
        if is_parked != of_caller.is_parked {
            self.park(caller, is_parked);
        }
    }

    #[cold]
    fn park(&mut self, caller: CallerId, is_parked: bool) {
        self.jobs.caller(caller).is_parked = is_parked;
        self.has_come_back |= !is_parked;
        for world in &mut self.worlds {
            world.queue.park(caller, is_parked);
        }
    }

    /// Notes that a caller may have room again.
    pub(super) fn room_made(&mut self, caller: CallerId) {
        if self.jobs.caller(caller).waits_for_room {
            self.roomy.push(caller);
        }
    }

    /// Tells the callers that wait for room and have it.
    fn tell_room(&mut self, effects: &mut impl Effects) {
        while let Some(id) = self.roomy.pop() {
            if self.jobs.has_caller(id) {
                let caller = self.jobs.caller(id);
                let has_room = caller.has_room(&self.quota, self.limits.max_job_bytes as usize);
                if has_room && !bug::is_on(Bug::RoomNeverTold) && std::mem::take(&mut caller.waits_for_room) {
                    effects.caller_has_room(id);
                }
            }
        }
    }
}
