//! How jobs move: into the queue, onto a channel, back, and off both.

use std::collections::BTreeSet;
use std::time::Instant;

use seeway_proto::bug::{self, Bug};
use seeway_proto::outcome::{NotSent, Outcome};
use seeway_proto::wiped::WipedBuffer;

use super::chance::rendezvous_weight;
use super::fair::LaneId;
use super::group::GroupId;
use super::job::{Entry, Place};
use super::scheduler::Scheduler;
use super::world::World;
use super::{Affinity, CallerId, ChannelId, Effects, JobId, MachineId, NewJob, SizeClass, WorldId};

/// Where a job's affinity key sends it.
enum Home {
    Machine(MachineId),
    /// Its machine is not up, and another one is not wanted.
    Lost,
}

/// A job that is to be put on a channel.
#[derive(Clone, Copy)]
pub(super) enum ToStage<'a> {
    /// Whose it is, what it is, and what it keeps its order among.
    New(CallerId, &'a NewJob<'a>, Option<GroupId>),
    /// One that was admitted before.
    InHand(JobId),
}

impl Scheduler {
    #[inline]
    pub(super) fn class_of(&self, size: usize) -> SizeClass {
        if size > self.bulk_above { SizeClass::Bulk } else { SizeClass::Small }
    }

    /// The lane of a job; `None` where its machine is not up and another one is not wanted.
    #[inline]
    pub(super) fn lane_of(&self, world: WorldId, group: Option<GroupId>, size: usize) -> Option<LaneId> {
        let class = self.class_of(size);
        let Some(group) = group else { return Some(LaneId { machine: None, class }) };
        match self.home(world, group.key) {
            Home::Machine(machine) => Some(LaneId { machine: Some(machine), class }),
            Home::Lost => None,
        }
    }

    /// The machine of an affinity key: the one that the key weighs most with, as long as it can be used. With none that can,
    /// its jobs wait for it like all others.
    fn home(&self, world: WorldId, key: u64) -> Home {
        let World { machines, affinity, .. } = &self.worlds[world.0];
        let weight = |machine: &MachineId| rendezvous_weight(key, self.machines.all[machine.0].name_hash);
        let usable = |machine: &&MachineId| self.machines.is_usable(**machine, machines);
        let first = *machines.iter().max_by_key(|machine| weight(machine)).expect("a world has a machine");
        if usable(&&first) {
            return Home::Machine(first);
        }
        let affinity = if bug::is_on(Bug::StrictMovesOn) { &Affinity::Prefer } else { affinity };
        match (affinity, machines.iter().filter(usable).max_by_key(|machine| weight(machine))) {
            (_, None) => Home::Machine(first),
            (Affinity::Prefer, Some(next)) => Home::Machine(*next),
            (Affinity::Strict, Some(_)) => Home::Lost,
        }
    }

    /// Queues a job that has taken its place in the queue.
    pub(super) fn enqueue(&mut self, now: Instant, id: JobId, bytes: WipedBuffer, effects: &mut impl Effects) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        job.place = Place::Queued { line: None };
        let (world, caller, order, size, group) = (job.world, job.caller, job.order, job.size, job.group);
        self.jobs.keep(id, bytes);
        self.waiting += 1;
        self.worlds[world.0].waiting.insert(order, id);
        self.worlds[world.0].waiting_bytes += size;
        self.jobs.caller(caller).queued += 1;
        match group {
            None => self.line_up(id, LaneId { machine: None, class: self.class_of(size) }),
            Some(group) => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.waiting.insert(order, id);
                }
                self.advance(now, group, effects);
            }
        }
    }

    /// Queues a job that was on a channel. It has been admitted, so it is not refused where the queue is full meanwhile; others
    /// are, until there is room for them beside it.
    pub(super) fn requeue(&mut self, now: Instant, id: JobId, bytes: WipedBuffer, effects: &mut impl Effects) {
        if let Some(job) = self.jobs.get(id) {
            self.worlds[job.world.0].take_place_again(job.size);
            // The machine that it comes from may not be one of its world's any more.
            self.has_come_back = true;
            self.enqueue(now, id, bytes, effects);
        }
    }

    /// Takes a job off its queue, so that it can end; returns its bytes. Nothing where it is in none.
    fn dequeue(&mut self, now: Instant, id: JobId, effects: &mut impl Effects) -> Option<WipedBuffer> {
        let bytes = self.unqueue(id)?;
        if let Some(group) = self.jobs.get(id).and_then(|job| job.group) {
            self.advance(now, group, effects);
        }
        Some(bytes)
    }

    /// Takes a job off its queue and leaves its group where it is.
    pub(super) fn unqueue(&mut self, id: JobId) -> Option<WipedBuffer> {
        self.leave_line(id);
        let job = self.jobs.get_mut(id)?;
        let Place::Queued { .. } = job.place else { return None };
        job.place = Place::Nowhere;
        let (caller, order, size, group) = (job.caller, job.order, job.size, job.group);
        let world = &mut self.worlds[job.world.0];
        self.waiting -= 1;
        world.waiting.remove(order);
        world.waiting_bytes -= size;
        world.release_place(size);
        if world.waiting.is_empty() {
            self.machines.want_no_permits(&world.machines);
        }
        self.jobs.caller(caller).queued -= 1;
        self.room_made(caller);
        if let Some(group) = group.and_then(|group| self.groups.get_mut(group)) {
            group.waiting.remove(order);
        }
        self.jobs.take_bytes(id)
    }

    /// Puts a job into its world's fair queue.
    fn line_up(&mut self, id: JobId, lane: LaneId) {
        let Some(job) = self.jobs.get(id) else { return };
        let (world, owner, order, size) = (job.world, (job.caller, job.priority), job.order, job.size);
        let is_parked = self.jobs.caller(owner.0).is_parked;
        let at = self.worlds[world.0].queue.insert(owner, is_parked, lane, order, id, size);
        if let Some(Place::Queued { line }) = self.jobs.get_mut(id).map(|job| &mut job.place) {
            *line = Some(at);
        }
    }

    /// Takes a job out of its world's fair queue, if it is there; it still waits.
    fn leave_line(&mut self, id: JobId) {
        let Some(job) = self.jobs.get_mut(id) else { return };
        let Place::Queued { line } = &mut job.place else { return };
        let Some(at) = line.take() else { return };
        self.worlds[job.world.0].queue.remove(at, job.order);
        if let Some(group) = job.group.and_then(|group| self.groups.get_mut(group)) {
            group.in_line = None;
        }
    }

    /// Notes that the fair queue has given a job out; returns its group.
    fn left_line(&mut self, id: JobId) -> Option<GroupId> {
        let job = self.jobs.get_mut(id)?;
        if let Place::Queued { line } = &mut job.place {
            *line = None;
        }
        let group = job.group?;
        self.groups.get_mut(group)?.in_line = None;
        Some(group)
    }

    /// Puts the first waiting job of a group in line, if nothing keeps it from being sent.
    pub(super) fn advance(&mut self, now: Instant, id: GroupId, effects: &mut impl Effects) {
        loop {
            let Some(group) = self.groups.get(id) else { return };
            let Some(&first) = group.waiting.first().map(|(_, first)| first) else { return };
            if group.in_line == Some(first) {
                return;
            }
            if let Some(other) = group.in_line {
                // One that was submitted earlier has come back.
                self.leave_line(other);
            }
            let size = self.jobs.get(first).map_or(0, |job| job.size);
            let Some(lane) = self.lane_of(id.world, Some(id), size) else {
                self.unqueue(first);
                self.conclude(now, first, Outcome::NotSent(NotSent::NowhereToGo), effects);
                continue;
            };
            if let Some(channel) = self.must_follow(id)
                && !self.machines.may_follow(channel, lane)
            {
                self.follow(id, channel);
                return;
            }
            self.line_up(first, lane);
            if let Some(group) = self.groups.get_mut(id) {
                group.in_line = Some(first);
            }
            return;
        }
    }

    /// The channel on which jobs of a group are staged and have not left.
    pub(super) fn must_follow(&self, id: GroupId) -> Option<ChannelId> {
        if bug::is_on(Bug::OrderIgnored) {
            return None;
        }
        let (channel, batch, count) = self.groups.get(id)?.staged?;
        (count > 0 && self.machines.channels.get(channel)?.mux.batches() == batch).then_some(channel)
    }

    /// A group goes on when this channel has been written.
    fn follow(&mut self, id: GroupId, channel: ChannelId) {
        if let Some(group) = self.groups.get_mut(id)
            && group.follows != Some(channel)
        {
            group.follows = Some(channel);
            self.machines.channels[channel].followers.insert(id);
        }
    }

    /// A channel has been written, or is gone: the groups that waited for it go on.
    pub(super) fn release_followers(
        &mut self,
        now: Instant,
        channel: ChannelId,
        followers: BTreeSet<GroupId>,
        effects: &mut impl Effects,
    ) {
        for id in followers {
            if let Some(group) = self.groups.get_mut(id)
                && group.follows == Some(channel)
            {
                group.follows = None;
            }
            self.advance(now, id, effects);
        }
    }

    /// Asks again where the first jobs of groups go. Called when a machine of the world came, went or changed.
    pub(super) fn retarget(&mut self, now: Instant, world: WorldId, effects: &mut impl Effects) {
        for id in self.worlds[world.0].queue.jobs_for_machines() {
            let Some(job) = self.jobs.get(id) else { continue };
            let Place::Queued { line: Some(at) } = job.place else { continue };
            let World { machines, .. } = &self.worlds[world.0];
            if let (Some(group), Some(machine)) = (job.group, at.lane.machine)
                && !(machines.contains(&machine) && self.machines.is_usable(machine, machines))
            {
                self.leave_line(id);
                self.advance(now, group, effects);
            }
        }
    }

    /// Puts a job on a channel that was chosen for it.
    #[inline(always)]
    pub(super) fn stage(
        &mut self,
        now: Instant,
        which: ToStage<'_>,
        channel: ChannelId,
        bytes: &[u8],
        effects: &mut impl Effects,
    ) -> Option<JobId> {
        let class = self.class_of(bytes.len());
        let entry = match which {
            ToStage::New(caller, new, group) => self.jobs.insert(now, caller, new, group),
            ToStage::InHand(id) => self.jobs.entry(id)?,
        };
        let Entry { id, job, bytes: kept, caller: of_caller } = entry;
        let at = self.machines.channels.get_mut(channel).expect("a channel that is up was chosen");
        let (machine_id, is_borrowed) = (at.machine, class == SizeClass::Bulk && at.class == SizeClass::Small);
        let machine = &mut self.machines.all[machine_id.0];
        let was_empty = at.mux.staged_len() == 0;
        if was_empty {
            at.begin_batch(now);
            machine.filling = channel;
        }
        let batch = at.mux.batches();
        let tag = at.mux.stage_job(0, bytes, Some(id)).expect("the channel was chosen because it has room");
        if !machine.circuit.is_closed() {
            machine.circuit.staged(now, id, &self.circuit);
            self.next_timeout.forget();
        }
        if machine.silent_until.is_none() {
            machine.silent_until = Some(now + self.circuit.silent_after);
            self.next_timeout.forget();
        }
        if !std::mem::replace(&mut job.has_earned, true) {
            self.worlds[job.world.0].retries.earn();
        }
        job.attempts += 1;
        let is_idempotent = job.idempotent || bug::is_on(Bug::RetryOfNonIdempotent);
        let may_be_repeated = job.attempts < self.retry.max_attempts || bug::is_on(Bug::RetryBeyondAttempts);
        job.place = Place::OnChannel { channel, tag };
        job.staged = Some((machine_id, now));
        if is_idempotent && may_be_repeated {
            *kept = Some(self.spare.copy_of(bytes));
        }
        of_caller.in_flight += 1;
        let is_at_limit = of_caller.in_flight >= self.quota.in_flight;
        let caller = job.caller;
        if let Some(group) = job.group.and_then(|group| self.groups.get_mut(group)) {
            let others = match group.staged {
                Some((other, of_batch, count)) if (other, of_batch) == (channel, batch) => count,
                _ => 0,
            };
            group.staged = Some((channel, batch, others + 1));
        }
        if is_at_limit {
            self.park_if_needed(caller);
        }
        if was_empty {
            effects.output_staged(channel);
        }
        if is_borrowed {
            effects.bulk_wanted(machine_id);
        }
        Some(id)
    }

    /// Notes that a job of a group is staged no more, not having left.
    fn unstage(&mut self, id: JobId) {
        let group = self.jobs.get(id).and_then(|job| job.group);
        if let Some(group) = group.and_then(|group| self.groups.get_mut(group))
            && let Some((.., count)) = &mut group.staged
        {
            *count = count.saturating_sub(1);
        }
    }

    /// Notes that a job is on a channel no more; returns the copy that was kept of it.
    pub(super) fn off_channel(&mut self, id: JobId) -> Option<WipedBuffer> {
        let Entry { job, bytes, caller, .. } = self.jobs.entry(id)?;
        let Place::OnChannel { .. } = job.place else { return None };
        job.place = Place::Nowhere;
        if let Some((machine, _)) = job.staged {
            self.machines.all[machine.0].circuit.released(id);
        }
        caller.in_flight -= 1;
        let copy = bytes.take();
        if caller.is_parked {
            let caller = job.caller;
            self.park_if_needed(caller);
        }
        copy
    }

    /// A job comes back from a channel that it had not left by.
    pub(super) fn come_back(&mut self, now: Instant, id: JobId, bytes: WipedBuffer, effects: &mut impl Effects) {
        if let Some(copy) = self.off_channel(id) {
            self.spare.put_back(copy);
        }
        if let Some(job) = self.jobs.get_mut(id) {
            job.attempts -= 1;
            job.staged = None;
            self.requeue(now, id, bytes, effects);
        }
    }

    /// Takes a job off its queue or channel, so that it can end; returns whether it has left. One that has keeps its tag
    /// until the reply comes.
    pub(super) fn detach(&mut self, now: Instant, id: JobId, effects: &mut impl Effects) -> bool {
        if self.dequeue(now, id, effects).is_some() {
            return false;
        }
        let Some(job) = self.jobs.get_mut(id) else { return false };
        let Place::OnChannel { channel, tag } = job.place else { return false };
        let mux = self.machines.channels.get_mut(channel).map(|channel| &mut channel.mux);
        let has_left = mux.is_none_or(|mux| {
            let withdrawn = mux.withdraw(tag).is_some();
            if !withdrawn {
                mux.abandon(tag);
            }
            !withdrawn
        });
        // First: it may be what tries its machine's circuit, which goes by where it was staged.
        if let Some(copy) = self.off_channel(id) {
            self.spare.put_back(copy);
        }
        if !has_left {
            self.unstage(id);
            if let Some(job) = self.jobs.get_mut(id) {
                job.staged = None;
                // The next of its group may have waited for it to leave.
                if let Some(group) = job.group {
                    self.advance(now, group, effects);
                }
            }
        }
        has_left
    }

    /// Everything that is staged on a channel and has not left comes back.
    pub(super) fn withdraw_all(&mut self, now: Instant, id: ChannelId, effects: &mut impl Effects) {
        let Some(channel) = self.machines.channels.get_mut(id) else { return };
        let (machine, followers) = (channel.machine, std::mem::take(&mut channel.followers));
        let mut unsent = Vec::new();
        let probes = &mut channel.probes;
        channel.mux.withdraw_all(|job, bytes| match job {
            Some(job) => unsent.push((job, WipedBuffer::from(bytes))),
            None => *probes -= 1,
        });
        self.machines.settle(now, machine);
        for (job, _) in &unsent {
            self.unstage(*job);
        }
        for (job, bytes) in unsent {
            self.come_back(now, job, bytes, effects);
        }
        self.release_followers(now, id, followers, effects);
    }

    /// Sends what waits for a machine, as far as it has room. Where several worlds have jobs waiting for it, they take turns.
    pub(super) fn dispatch(&mut self, now: Instant, machine: MachineId, effects: &mut impl Effects) {
        if self.has_come_back {
            self.dispatch_all(now, effects);
        } else {
            self.dispatch_to(now, machine, effects);
        }
    }

    pub(super) fn dispatch_all(&mut self, now: Instant, effects: &mut impl Effects) {
        loop {
            self.has_come_back = false;
            for machine in 0..self.machines.all.len() {
                self.dispatch_to(now, MachineId(machine), effects);
            }
            if !self.has_come_back {
                return;
            }
        }
    }

    fn dispatch_to(&mut self, now: Instant, machine: MachineId, effects: &mut impl Effects) {
        let mut passed = 0;
        while passed < self.machines.all[machine.0].worlds.len() {
            let machine = &mut self.machines.all[machine.0];
            let world = machine.worlds[machine.turn % machine.worlds.len()];
            machine.turn = machine.turn.wrapping_add(1);
            passed = if self.send_next(now, world, effects) { 0 } else { passed + 1 };
        }
    }

    /// Sends as many of a world's jobs as there is room for.
    pub(super) fn dispatch_world(&mut self, now: Instant, world: WorldId, effects: &mut impl Effects) {
        while self.send_next(now, world, effects) {}
    }

    /// Sends a world's next job; returns whether there was one that could be sent.
    fn send_next(&mut self, now: Instant, world: WorldId, effects: &mut impl Effects) -> bool {
        let mut tried = None;
        loop {
            let World { machines, queue, .. } = &mut self.worlds[world.0];
            let Some(lane) = queue.lane_after(tried) else { return false };
            tried = Some(lane);
            let Some(channel) = self.machines.choose(now, machines, lane.1) else { continue };
            queue.catch_up(lane);
            let Some((id, at)) = queue.next(lane.1) else {
                self.machines.give_back(channel);
                continue;
            };
            let is_sent = self.send(now, id, lane.1, channel, effects);
            self.worlds[world.0].queue.settle(at);
            if is_sent {
                return true;
            }
            tried = None;
        }
    }

    /// Sends a job that the fair queue has given out, by a channel whose machine's permit is taken; not where it has to go
    /// after another one of its group. Then it goes on when that has left.
    fn send(
        &mut self,
        now: Instant,
        id: JobId,
        lane: LaneId,
        mut channel: ChannelId,
        effects: &mut impl Effects,
    ) -> bool {
        let group = self.left_line(id);
        if let Some(group) = group
            && let Some(staged_on) = self.must_follow(group)
        {
            if !self.machines.may_follow(staged_on, lane) {
                self.machines.give_back(channel);
                self.follow(group, staged_on);
                return false;
            }
            // Of the same machine, whose permit was taken.
            channel = staged_on;
        }
        let Some(bytes) = self.unqueue(id) else {
            self.machines.give_back(channel);
            return false;
        };
        self.stage(now, ToStage::InHand(id), channel, bytes.filled(), effects);
        self.spare.put_back(bytes);
        if let Some(group) = group {
            self.advance(now, group, effects);
        }
        true
    }
}
