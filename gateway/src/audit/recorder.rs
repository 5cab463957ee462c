//! A shard's end of the audit log: who its callers are, and the records of one call of the shard.
//!
//! Called by the shard's [`Front`](crate::shard::Front), under the shard's lock. A job costs a record written into a buffer that is
//! there already; the call's records are handed over at its end, all at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use foldhash::HashMap;
use seeway_proto::outcome::Outcome;
use slotmap::SecondaryMap;

use super::buffer::Buffer;
use super::chain::sha256;
use super::record::{Actor, Event, JobRecord, Micros, Record, now};
use crate::access::Identity;
use crate::schedule::{Abandoned, CallerId, Concluded};

/// One shard's recorder.
pub struct Recorder {
    buffer: Arc<Buffer>,
    slot: usize,
    /// The records of this call of the shard.
    batch: Vec<Record>,
    /// When they are made; looked at once for each call.
    at: Micros,
    callers: SecondaryMap<CallerId, Caller>,
    refusals: Refusals,
}

/// How many refusals are told one by one. The others are told in sum.
#[derive(Debug, Default)]
pub struct Refusals {
    /// When as many as [`MOST_REFUSALS`] in a row may be told again.
    used_until: Micros,
    /// Requests that were refused and are in no record yet.
    untold: u64,
}

/// So many refusals in a row have a record each, on each shard.
const MOST_REFUSALS: u64 = 100;

/// After those, one in this time has.
const REFUSAL_EVERY: Micros = 100_000;

impl Refusals {
    /// There is one more: of how many a record is to tell now; `None` where this one is told later, with the next.
    pub fn tell(&mut self) -> Option<u64> {
        self.untold += 1;
        self.take(now()).then(|| std::mem::take(&mut self.untold))
    }

    /// Whether there may be one more record of a refusal now.
    fn take(&mut self, now: Micros) -> bool {
        let used = self.used_until.max(now) + REFUSAL_EVERY;
        let is_room = used <= now + MOST_REFUSALS * REFUSAL_EVERY;
        if is_room {
            self.used_until = used;
        }
        is_room
    }
}

/// A caller as its records have it.
struct Caller {
    actor: Arc<Actor>,
    number: u64,
    /// By ticket: what is to be remembered of jobs in hand. Most have nothing.
    notes: HashMap<u64, Note>,
    /// Who sent a token with a call the last time.
    of_call: Option<Arc<Actor>>,
}

/// What a job's record has that is not known at its end.
#[derive(Default)]
struct Note {
    /// The SHA-256 of the job, where that is asked for.
    digest: Option<[u8; 32]>,
    /// Whose it is, where that is not who connected.
    actor: Option<Arc<Actor>>,
}

impl Recorder {
    pub(super) fn new(buffer: Arc<Buffer>, slot: usize) -> Self {
        Self { buffer, slot, batch: Vec::new(), at: 0, callers: SecondaryMap::new(), refusals: Refusals::default() }
    }

    /// A caller has come.
    pub fn joined(&mut self, caller: CallerId, actor: Arc<Actor>) {
        let number = self.buffer.next_caller.fetch_add(1, Ordering::Relaxed);
        self.callers.insert(caller, Caller { actor, number, notes: HashMap::default(), of_call: None });
    }

    /// A caller has gone, and all its jobs have ended.
    pub fn left(&mut self, caller: CallerId) {
        self.callers.remove(caller);
    }

    /// Whether new jobs must be refused, because nobody could record them.
    #[inline]
    pub fn refuses_jobs(&self) -> bool {
        self.buffer.refuses_jobs()
    }

    /// A job was refused for that reason.
    pub fn refused_a_job(&self) {
        self.buffer.counts.jobs_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A job is handed to the scheduler; with whose it is, where that may not be who connected.
    #[inline]
    pub fn submitted(&mut self, caller: CallerId, ticket: u64, job: &[u8], identity: Option<&Identity>) {
        if self.buffer.job_digest || identity.is_some() {
            self.note(caller, ticket, job, identity);
        }
    }

    fn note(&mut self, caller: CallerId, ticket: u64, job: &[u8], identity: Option<&Identity>) {
        let Some(caller) = self.callers.get_mut(caller) else { return };
        let digest = self.buffer.job_digest.then(|| sha256(job));
        let actor = identity.filter(|identity| *identity != caller.actor.identity()).map(|identity| {
            // A caller that sends one token with all its calls is made once.
            let last = caller.of_call.take().filter(|last| last.identity() == identity);
            let actor = last.unwrap_or_else(|| Arc::new(caller.actor.with_identity(identity.clone())));
            caller.of_call.insert(actor).clone()
        });
        caller.notes.insert(ticket, Note { digest, actor });
    }

    /// A job has ended.
    pub fn concluded(&mut self, concluded: &Concluded<'_>) {
        let outcome = concluded.outcome;
        let at = self.now();
        let Some(caller) = self.callers.get_mut(concluded.caller) else { return };
        let Note { digest, actor } = caller.take_note(concluded.ticket);
        self.batch.push(Record::Job(JobRecord {
            at,
            actor: actor.unwrap_or_else(|| caller.actor.clone()),
            caller: caller.number,
            ticket: concluded.ticket,
            world: concluded.world.0,
            machine: concluded.machine.map(|machine| machine.0),
            job_bytes: concluded.size,
            reply_bytes: if let Outcome::Replied(reply) = outcome { reply.0.len() } else { 0 },
            outcome: outcome.kind().label(),
            reason: outcome.reason(),
            status: if let Outcome::MachineStatus { status, .. } = outcome { Some(status) } else { None },
            may_have_run: outcome.may_have_run(),
            queue_micros: micros(concluded.queue_time),
            machine_micros: micros(concluded.machine_time),
            digest,
        }));
    }

    /// A job has ended that nobody waits for any more.
    pub fn abandoned(&mut self, abandoned: &Abandoned) {
        let at = self.now();
        let Some(caller) = self.callers.get_mut(abandoned.caller) else { return };
        let Note { digest, actor } = caller.take_note(abandoned.ticket);
        self.batch.push(Record::Job(JobRecord {
            at,
            actor: actor.unwrap_or_else(|| caller.actor.clone()),
            caller: caller.number,
            ticket: abandoned.ticket,
            world: abandoned.world.0,
            machine: abandoned.machine.map(|machine| machine.0),
            job_bytes: abandoned.size,
            reply_bytes: 0,
            outcome: "abandoned",
            reason: "ABANDONED",
            status: None,
            may_have_run: abandoned.may_have_run,
            queue_micros: 0,
            machine_micros: 0,
            digest,
        }));
    }

    /// Requests were refused that never became jobs: `count` of them, for what they named as their world. Where they were somebody
    /// else's than who connected, by a token, `identity` says whose.
    pub fn refused(
        &mut self,
        caller: CallerId,
        identity: Option<&Identity>,
        world: Option<&str>,
        reason: &'static str,
        count: u64,
    ) {
        let at = self.now();
        if !self.refusals.take(at) {
            // Whoever may do nothing must not be able to fill the disk.
            self.refusals.untold += count;
            return;
        }
        let mut event = Event::new("refused").text("reason", reason).number("requests", count);
        if let Some(world) = world {
            event = event.text("world", world);
        }
        event = event.flag("may_have_run", false);
        match identity {
            Some(identity) => self.event_of(caller, identity, event),
            None => self.event(Some(caller), event),
        }
    }

    /// Something else was done over a connection, by this one.
    pub fn event_of(&mut self, connection: CallerId, identity: &Identity, event: Event) {
        let actor = self.callers.get(connection).map(|connection| connection.actor.clone());
        let event = match actor {
            Some(actor) if actor.identity() == identity => event.by(&actor),
            Some(actor) => event.by(&Arc::new(actor.with_identity(identity.clone()))),
            None => event,
        };
        self.batch.push(Record::Event(event.into()));
    }

    /// Something else has happened, by a caller's doing where it is known.
    pub fn event(&mut self, caller: Option<CallerId>, event: Event) {
        let actor = caller.and_then(|caller| self.callers.get(caller)).map(|caller| caller.actor.clone());
        let event = if let Some(actor) = actor { event.by(&actor) } else { event };
        self.batch.push(Record::Event(event.into()));
    }

    /// Hands over what this call of the shard has recorded.
    #[inline]
    pub fn hand_over(&mut self) {
        if self.refusals.untold > 0 {
            self.tell_refusals();
        }
        if !self.batch.is_empty() {
            self.at = 0;
            self.buffer.push(self.slot, &mut self.batch);
        }
    }

    #[cold]
    fn tell_refusals(&mut self) {
        let at = self.now();
        if self.refusals.take(at) {
            let requests = std::mem::take(&mut self.refusals.untold);
            let event = Event::new("refused").text("reason", "TOO_MANY_TO_TELL").number("requests", requests);
            self.event(None, event.flag("may_have_run", false));
        } else {
            // The time is looked at again in the next call.
            self.at = 0;
        }
    }

    fn now(&mut self) -> Micros {
        if self.at == 0 {
            self.at = now();
        }
        self.at
    }
}

impl Caller {
    fn take_note(&mut self, ticket: u64) -> Note {
        if self.notes.is_empty() { Note::default() } else { self.notes.remove(&ticket).unwrap_or_default() }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_a_record_each_up_to_a_limit_and_one_past_it_has_none() {
        let mut refusals = Refusals::default();
        let begin = 1_000_000_000;
        assert_eq!((0..1000).filter(|_| refusals.take(begin)).count() as u64, MOST_REFUSALS);
        assert!(!refusals.take(begin + REFUSAL_EVERY - 1));
        assert!(refusals.take(begin + REFUSAL_EVERY));
        assert!(!refusals.take(begin + REFUSAL_EVERY));
        let later = begin + 10 * MOST_REFUSALS * REFUSAL_EVERY;
        assert_eq!((0..1000).filter(|_| refusals.take(later)).count() as u64, MOST_REFUSALS);
    }
}
