//! The jobs in hand, and what each caller has of them.

use std::time::Instant;

use seeway_proto::bug::{self, Bug};
use seeway_proto::mux::Tag;
use seeway_proto::outcome::{NotSent, Outcome, Unknown};
use seeway_proto::wiped::WipedBuffer;
use slotmap::SlotMap;

use super::fair::InLine;
use super::group::GroupId;
use super::spare::SpareBuffers;
use super::table::{NOWHERE, Table};
use super::{CallerId, CallerLoad, CallerQuota, ChannelId, FrontEnd, JobId, MachineId, NewJob, Priority, WorldId};

/// A job that has been admitted and has no outcome yet. Its bytes are elsewhere: [`Jobs::keep`].
#[derive(Clone, Copy, Debug)]
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
    /// Where the next and the previous job of the same caller are.
    next: u32,
    previous: u32,
}

impl Job {
    /// What stands in a place that no job has had yet.
    pub(super) fn none(now: Instant) -> Self {
        Self {
            caller: CallerId::default(),
            ticket: 0,
            world: WorldId(0),
            order: 0,
            admitted: now,
            deadline: now,
            idempotent: false,
            priority: Priority::Normal,
            group: None,
            size: 0,
            attempts: 0,
            has_earned: false,
            earlier: None,
            staged: None,
            place: Place::Nowhere,
            next: NOWHERE,
            previous: NOWHERE,
        }
    }

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

/// Where a job is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// In its world's queue. Its bytes are kept.
    Queued {
        /// `None` while another one of its group is before it.
        line: Option<InLine>,
    },
    /// On a channel. Whether it has left is for the channel's mux to say. Its bytes are kept only where it may be sent again.
    OnChannel { channel: ChannelId, tag: Tag },
    /// In neither: it is being moved, or about to end.
    Nowhere,
}

#[derive(Debug)]
pub(super) struct Caller {
    /// Where it came in.
    pub(super) front_end: FrontEnd,
    /// Where its last job is, from which the others are found.
    first: u32,
    pub(super) jobs: usize,
    /// Jobs that were admitted since somebody last looked.
    pub(super) admitted: u64,
    pub(super) queued: usize,
    pub(super) in_flight: usize,
    /// Of its jobs in hand.
    pub(super) bytes: usize,
    /// Whether its flows are off the rings, because it has as much in flight as it may.
    pub(super) is_parked: bool,
    /// Whether it was told that it has no room, and wants to hear when it has.
    pub(super) waits_for_room: bool,
}

/// Room for so many jobs is seen at once: to look for each of them costs more.
const ENOUGH: usize = 16;

impl Caller {
    fn new(front_end: FrontEnd) -> Self {
        let (is_parked, waits_for_room) = (false, false);
        let (first, admitted) = (NOWHERE, 0);
        Self { front_end, first, jobs: 0, admitted, queued: 0, in_flight: 0, bytes: 0, is_parked, waits_for_room }
    }

    /// Whether it may hand over one more job of up to `size` bytes that has to wait.
    #[inline]
    pub(super) fn has_room(&self, quota: &CallerQuota, size: usize) -> bool {
        self.queued < quota.queued && self.has_room_for_bytes(quota, size)
    }

    /// For how many more jobs of up to `size` bytes it has room, whatever becomes of them; not looked at beyond [`ENOUGH`].
    #[inline]
    pub(super) fn room(&self, quota: &CallerQuota, size: usize) -> usize {
        let has_enough = self.queued + ENOUGH <= quota.queued && self.bytes + size * ENOUGH <= quota.bytes;
        if has_enough { ENOUGH } else { usize::from(self.has_room(quota, size)) }
    }

    /// Whether it may hand over one more job of up to `size` bytes. One that has nothing in hand always may.
    #[inline]
    pub(super) fn has_room_for_bytes(&self, quota: &CallerQuota, size: usize) -> bool {
        self.jobs == 0 || self.bytes + size <= quota.bytes
    }
}

/// A job with all that belongs to it.
pub(super) struct Entry<'a> {
    pub(super) id: JobId,
    pub(super) job: &'a mut Job,
    /// Its bytes, where they are kept.
    pub(super) bytes: &'a mut Option<WipedBuffer>,
    /// What its caller has in hand.
    pub(super) caller: &'a mut Caller,
}

/// All jobs in hand, each linked to its caller's others, so that a caller that goes away costs what it has in hand and no
/// more.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    table: Table,
    callers: SlotMap<CallerId, Caller>,
    orders: u64,
}

impl Jobs {
    pub(super) fn add_caller(&mut self, front_end: FrontEnd) -> CallerId {
        self.callers.insert(Caller::new(front_end))
    }

    #[inline]
    pub(super) fn has_caller(&self, caller: CallerId) -> bool {
        self.callers.contains_key(caller)
    }

    /// What a caller has in hand.
    #[inline]
    pub(super) fn caller(&mut self, caller: CallerId) -> &mut Caller {
        &mut self.callers[caller]
    }

    pub(super) fn caller_ids(&self) -> Vec<CallerId> {
        self.callers.keys().collect()
    }

    /// A caller's jobs, the last admitted first.
    pub(super) fn of(&self, caller: CallerId) -> Vec<JobId> {
        let first = self.callers.get(caller).map_or(NOWHERE, |caller| caller.first);
        let first = self.table.key_at(first);
        std::iter::successors(first, |id| self.table.key_at(self.table.get(*id)?.next)).collect()
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

    /// What each caller has in hand, and how much it has handed over since the last time.
    pub(super) fn loads(&mut self) -> Vec<CallerLoad> {
        let load = |(caller, of): (CallerId, &mut Caller)| CallerLoad {
            caller,
            jobs: of.jobs,
            queued: of.queued,
            bytes: of.bytes,
            admitted: std::mem::take(&mut of.admitted),
        };
        self.callers.iter_mut().map(load).collect()
    }

    pub(super) fn callers_waiting(&self) -> usize {
        self.callers.values().filter(|caller| caller.waits_for_room).count()
    }

    #[inline]
    pub(super) fn get(&self, id: JobId) -> Option<&Job> {
        self.table.get(id)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.table.get_mut(id)
    }

    /// A job with all that belongs to it.
    #[inline]
    pub(super) fn entry(&mut self, id: JobId) -> Option<Entry<'_>> {
        let (job, bytes) = self.table.get_with_bytes(id)?;
        let caller = &mut self.callers[job.caller];
        Some(Entry { id, job, bytes, caller })
    }

    /// Keeps a job's bytes.
    pub(super) fn keep(&mut self, id: JobId, bytes: WipedBuffer) {
        self.table.keep(id, bytes);
    }

    /// Takes a job's bytes, where they are kept.
    pub(super) fn take_bytes(&mut self, id: JobId) -> Option<WipedBuffer> {
        self.table.take_bytes(id)
    }

    #[inline(always)]
    pub(super) fn insert(&mut self, now: Instant, of: CallerId, new: &NewJob<'_>, group: Option<GroupId>) -> Entry<'_> {
        let caller = &mut self.callers[of];
        let next = caller.first;
        let place = self.table.vacant(now);
        if let Some(next) = self.table.at(next) {
            next.previous = place;
        }
        caller.first = place;
        caller.jobs += 1;
        caller.admitted += 1;
        caller.bytes += new.bytes.len();
        let job = Job {
            caller: of,
            ticket: new.ticket,
            world: new.world,
            order: self.orders,
            admitted: now,
            deadline: new.deadline,
            idempotent: new.idempotent,
            priority: new.priority,
            group,
            size: new.bytes.len(),
            attempts: 0,
            has_earned: false,
            earlier: None,
            staged: None,
            place: Place::Nowhere,
            next,
            previous: NOWHERE,
        };
        self.orders += 1;
        let (id, job, bytes) = self.table.fill(place, job);
        Entry { id, job, bytes, caller }
    }

    /// Forgets a job; returns what it was, and what its caller has left. `spare` gets the buffer of its bytes, where they were kept.
    #[inline(always)]
    pub(super) fn remove(&mut self, id: JobId, spare: &mut SpareBuffers) -> Option<(&Job, &mut Caller)> {
        let &Job { caller, size, next, previous, .. } = self.table.remove(id, spare)?;
        let caller = self.callers.get_mut(caller).expect("a caller's jobs go before it");
        caller.jobs -= 1;
        if !bug::is_on(Bug::CallerBytesKept) {
            caller.bytes -= size;
        }
        match self.table.at(previous) {
            Some(previous) => previous.next = next,
            None => caller.first = next,
        }
        if let Some(next) = self.table.at(next) {
            next.previous = previous;
        }
        let job = self.table.at(Table::place_of(id))?;
        Some((job, caller))
    }
}
