//! The jobs in hand, and what each caller has of them.

use std::time::Instant;

use seeway_proto::bug::{self, Bug};
use seeway_proto::mux::Tag;
use seeway_proto::outcome::{NotSent, Outcome, Unknown};
use seeway_proto::wiped::WipedBuffer;
use slotmap::SlotMap;

use super::fair::InLine;
use super::group::GroupId;
use super::{CallerId, CallerQuota, ChannelId, JobId, MachineId, Priority, WorldId};

/// A job that has been admitted and has no outcome yet.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) caller: CallerId,
    /// The caller's own name for it.
    pub(super) ticket: u64,
    pub(super) world: WorldId,
    /// Its place in the order of admission; a job that comes back to the queue comes back to its place.
    pub(super) order: u64,
    pub(super) admitted: Instant,
    pub(super) deadline: Instant,
    pub(super) idempotent: bool,
    pub(super) priority: Priority,
    /// The jobs that it keeps its order among, where it has an affinity key.
    pub(super) group: Option<GroupId>,
    /// Its bytes.
    pub(super) size: usize,
    /// How often it has been staged on a channel and not withdrawn.
    pub(super) attempts: u32,
    /// Whether it has been counted towards its world's retry budget.
    pub(super) has_earned: bool,
    /// Why it was sent again, if it was: then an earlier attempt may have run, whatever becomes of this one.
    pub(super) earlier: Option<Unknown>,
    /// Where it was last staged, and when, unless it was withdrawn from there.
    pub(super) staged: Option<(MachineId, Instant)>,
    pub(super) place: Place,
    /// The next and the previous job of the same caller.
    next: Option<JobId>,
    previous: Option<JobId>,
}

impl Job {
    /// What its caller is to be told: what became of the last attempt, unless an earlier one may have run and that would
    /// deny it.
    pub(super) fn honest<'a>(&self, outcome: Outcome<'a>) -> Outcome<'a> {
        let earlier = self.earlier.filter(|_| !bug::is_on(Bug::EarlierAttemptForgotten));
        match (earlier, outcome) {
            (Some(_), Outcome::NotSent(NotSent::TooLate)) => Outcome::Unknown(Unknown::TooLate),
            // A status that says that nothing ran says so of the last attempt only.
            (Some(earlier), Outcome::NotSent(_) | Outcome::MachineStatus { may_have_run: false, .. }) => {
                Outcome::Unknown(earlier)
            }
            (_, outcome) => outcome,
        }
    }
}

/// Where a job is, and with it its bytes.
#[derive(Debug)]
pub(super) enum Place {
    /// In its world's queue.
    Queued {
        bytes: WipedBuffer,
        /// `None` while another one of its group is before it.
        line: Option<InLine>,
    },
    /// On a channel. Whether it has left is for the channel's mux to say.
    OnChannel {
        channel: ChannelId,
        tag: Tag,
        /// Kept only for a job that may be sent again.
        copy: Option<WipedBuffer>,
    },
    /// In neither: it is being moved, or about to end.
    Nowhere,
}

#[derive(Debug, Default)]
pub(super) struct Caller {
    first: Option<JobId>,
    pub(super) jobs: usize,
    pub(super) queued: usize,
    pub(super) in_flight: usize,
    /// Of its jobs in hand.
    pub(super) bytes: usize,
    /// Whether its flows are off the rings, because it has as much in flight as it may.
    pub(super) is_parked: bool,
    /// Whether it was told that it has no room, and wants to hear when it has.
    pub(super) waits_for_room: bool,
}

impl Caller {
    /// Whether it may hand over one more job of up to `size` bytes that has to wait.
    pub(super) fn has_room(&self, quota: &CallerQuota, size: usize) -> bool {
        self.queued < quota.queued && self.has_room_for_bytes(quota, size)
    }

    /// Whether it may hand over one more job of up to `size` bytes. One that has nothing in hand always may.
    pub(super) fn has_room_for_bytes(&self, quota: &CallerQuota, size: usize) -> bool {
        self.jobs == 0 || self.bytes + size <= quota.bytes
    }
}

/// All jobs in hand, each linked to its caller's others, so that a caller that goes away costs what it has in hand and no
/// more.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    table: SlotMap<JobId, Job>,
    callers: SlotMap<CallerId, Caller>,
    orders: u64,
}

/// What is known of a job when it is admitted.
pub(super) struct Admitted {
    pub(super) caller: CallerId,
    pub(super) ticket: u64,
    pub(super) world: WorldId,
    pub(super) at: Instant,
    pub(super) deadline: Instant,
    pub(super) idempotent: bool,
    pub(super) priority: Priority,
    pub(super) group: Option<GroupId>,
    pub(super) size: usize,
}

impl Jobs {
    pub(super) fn add_caller(&mut self) -> CallerId {
        self.callers.insert(Caller::default())
    }

    pub(super) fn has_caller(&self, caller: CallerId) -> bool {
        self.callers.contains_key(caller)
    }

    /// What a caller has in hand.
    pub(super) fn caller(&mut self, caller: CallerId) -> &mut Caller {
        &mut self.callers[caller]
    }

    pub(super) fn caller_ids(&self) -> Vec<CallerId> {
        self.callers.keys().collect()
    }

    /// A caller's jobs, the last admitted first.
    pub(super) fn of(&self, caller: CallerId) -> Vec<JobId> {
        let first = self.callers.get(caller).and_then(|caller| caller.first);
        std::iter::successors(first, |id| self.table[*id].next).collect()
    }

    /// Forgets a caller; it must have no jobs left.
    pub(super) fn remove_caller(&mut self, caller: CallerId) {
        let removed = self.callers.remove(caller);
        debug_assert!(removed.is_none_or(|caller| caller.jobs == 0), "a caller's jobs go before it");
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn callers(&self) -> usize {
        self.callers.len()
    }

    pub(super) fn callers_waiting(&self) -> usize {
        self.callers.values().filter(|caller| caller.waits_for_room).count()
    }

    pub(super) fn get(&self, id: JobId) -> Option<&Job> {
        self.table.get(id)
    }

    pub(super) fn get_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.table.get_mut(id)
    }

    pub(super) fn insert(&mut self, new: &Admitted) -> JobId {
        let caller = &mut self.callers[new.caller];
        let next = caller.first;
        let id = self.table.insert(Job {
            caller: new.caller,
            ticket: new.ticket,
            world: new.world,
            order: self.orders,
            admitted: new.at,
            deadline: new.deadline,
            idempotent: new.idempotent,
            priority: new.priority,
            group: new.group,
            size: new.size,
            attempts: 0,
            has_earned: false,
            earlier: None,
            staged: None,
            place: Place::Nowhere,
            next,
            previous: None,
        });
        self.orders += 1;
        caller.first = Some(id);
        caller.jobs += 1;
        caller.bytes += new.size;
        if let Some(next) = next {
            self.table[next].previous = Some(id);
        }
        id
    }

    /// Forgets a job; returns whose it was, and its group.
    pub(super) fn remove(&mut self, id: JobId) -> Option<(CallerId, Option<GroupId>)> {
        let job = self.table.get(id)?;
        let (of, group, next, previous) = (job.caller, job.group, job.next, job.previous);
        let caller = &mut self.callers[of];
        caller.jobs -= 1;
        if !bug::is_on(Bug::CallerBytesKept) {
            caller.bytes -= job.size;
        }
        match previous {
            Some(previous) => self.table[previous].next = next,
            None => caller.first = next,
        }
        if let Some(next) = next {
            self.table[next].previous = previous;
        }
        self.table.remove(id);
        Some((of, group))
    }
}
