//! A shard's end of the traces: which of its jobs are sampled, and what is known of those until they end.
//!
//! Called by the shard's [`Front`](crate::shard::Front), under the shard's lock. A job that is not sampled costs a number that is counted
//! down, and a look into a table while others are sampled.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use foldhash::HashMap;
use seeway_proto::outcome::{Outcome, OutcomeKind};
use slotmap::SecondaryMap;

use super::Shared;
use super::context::Context;
use super::sampler::{Random, Sampler};
use super::span::{Ids, Lost, Nanos, Span};
use crate::access::Identity;
use crate::audit::Actor;
use crate::schedule::{Abandoned, Attempt, CallerId, Concluded};

/// One shard's tracer.
pub struct Tracer {
    shared: Arc<Shared>,
    sampler: Sampler,
    random: Random,
    callers: SecondaryMap<CallerId, Caller>,
    /// Sampled jobs that have no outcome yet, by caller and ticket; at most as many as spans may wait.
    in_hand: HashMap<(CallerId, u64), InHand>,
    /// The spans of this call of the shard.
    ended: Vec<Span>,
}

/// A caller as its spans have it.
struct Caller {
    actor: Arc<Actor>,
    /// The trace that all its jobs belong to: that of a gRPC stream's call.
    of_all: Option<Context>,
    /// The trace that its next job belongs to: that of a unary call.
    of_next: Option<Context>,
}

/// A sampled job.
struct InHand {
    ids: Ids,
    actor: Arc<Actor>,
    /// When it was admitted, by both clocks: what comes later is counted from there, so that a clock that is set changes no duration.
    admitted: Instant,
    start: Nanos,
    earlier: Vec<Lost>,
}

impl Tracer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let mut random = Random::new();
        let sampler = Sampler::new(shared.ratio(), &mut random);
        let (callers, in_hand, ended) = (SecondaryMap::new(), HashMap::default(), Vec::new());
        Self { shared, sampler, random, callers, in_hand, ended }
    }

    /// A caller has come.
    pub fn joined(&mut self, caller: CallerId, actor: Arc<Actor>) {
        self.callers.insert(caller, Caller { actor, of_all: None, of_next: None });
    }

    /// A caller has come over the connection that another one is, and is this one.
    pub fn joined_over(&mut self, caller: CallerId, connection: CallerId, identity: &Identity) {
        let Some(actor) = self.callers.get(connection).map(|connection| &connection.actor) else { return };
        self.joined(caller, of(actor, Some(identity)));
    }

    /// A caller has gone, and all its jobs have ended.
    pub fn left(&mut self, caller: CallerId) {
        self.callers.remove(caller);
    }

    /// All jobs of a caller belong to this trace.
    pub fn all_belong_to(&mut self, caller: CallerId, context: Context) {
        if let Some(caller) = self.callers.get_mut(caller) {
            caller.of_all = Some(context);
        }
    }

    /// The job that a caller hands over next belongs to this trace.
    pub fn next_belongs_to(&mut self, caller: CallerId, context: Context) {
        if let Some(caller) = self.callers.get_mut(caller) {
            caller.of_next = Some(context);
        }
    }

    /// A job is handed to the scheduler; with whose it is, where that may not be who connected. Whether it is sampled is decided here:
    /// as its caller has it, or by chance where its caller says nothing.
    #[inline]
    pub fn submitted(&mut self, now: Instant, caller: CallerId, ticket: u64, identity: Option<&Identity>) {
        let Some(known) = self.callers.get_mut(caller) else { return };
        let parent = known.of_next.take();
        let parent = parent.as_ref().or(known.of_all.as_ref());
        let is_sampled = match parent {
            Some(parent) => parent.is_sampled,
            None => self.sampler.takes(self.shared.ratio(), &mut self.random),
        };
        if !is_sampled {
            return;
        }
        if self.in_hand.len() >= self.shared.queue.limit() {
            self.shared.queue.dropped(1);
            return;
        }
        let ids = match parent {
            Some(Context { trace, parent, state, .. }) => {
                Ids { trace: *trace, span: self.random.bytes(), parent: Some(*parent), state: state.clone() }
            }
            None => Ids { trace: self.random.bytes(), span: self.random.bytes(), parent: None, state: None },
        };
        let (actor, earlier) = (of(&known.actor, identity), Vec::new());
        let job = InHand { ids, actor, admitted: now, start: nanos_since_1970(), earlier };
        self.in_hand.insert((caller, ticket), job);
    }

    /// A job is about to be sent again, since nobody knows what became of it.
    pub fn sent_again(&mut self, attempt: &Attempt) {
        if let Some(job) = self.in_hand.get_mut(&(attempt.caller, attempt.ticket)) {
            job.earlier.push(Lost {
                machine: attempt.machine.0,
                sent: job.at(attempt.sent),
                lost: job.at(attempt.lost),
                reason: Outcome::Unknown(attempt.reason).reason(),
            });
        }
    }

    /// A job has ended.
    #[inline]
    pub fn concluded(&mut self, concluded: &Concluded<'_>) {
        if !self.in_hand.is_empty()
            && let Some(job) = self.in_hand.remove(&(concluded.caller, concluded.ticket))
        {
            self.end(job, concluded);
        }
    }

    fn end(&mut self, job: InHand, concluded: &Concluded<'_>) {
        let outcome = concluded.outcome;
        let left_queue = job.start + nanos(concluded.queue_time);
        let kind = outcome.kind();
        self.ended.push(Span {
            start: job.start,
            end: left_queue + nanos(concluded.machine_time),
            sent: concluded.machine.map(|machine| (machine.0, left_queue)),
            ids: job.ids,
            actor: job.actor,
            earlier: job.earlier,
            world: concluded.world.0,
            job_bytes: concluded.size,
            reply_bytes: if let Outcome::Replied(reply) = outcome { reply.0.len() } else { 0 },
            outcome: kind.label(),
            reason: outcome.reason(),
            machine_status: if let Outcome::MachineStatus { status, .. } = outcome { Some(status) } else { None },
            may_have_run: outcome.may_have_run(),
            is_replied: matches!(kind, OutcomeKind::Replied | OutcomeKind::MachineStatus),
            is_failure: kind != OutcomeKind::Replied,
        });
    }

    /// A job has ended that nobody waits for any more.
    pub fn abandoned(&mut self, abandoned: &Abandoned) {
        let Some(job) = self.in_hand.remove(&(abandoned.caller, abandoned.ticket)) else { return };
        self.ended.push(Span {
            end: job.at(Instant::now()),
            sent: abandoned.machine.zip(abandoned.sent).map(|(machine, at)| (machine.0, job.at(at))),
            start: job.start,
            ids: job.ids,
            actor: job.actor,
            earlier: job.earlier,
            world: abandoned.world.0,
            job_bytes: abandoned.size,
            reply_bytes: 0,
            outcome: "abandoned",
            reason: "ABANDONED",
            machine_status: None,
            may_have_run: abandoned.may_have_run,
            is_replied: false,
            is_failure: false,
        });
    }

    /// Hands over what this call of the shard has ended.
    #[inline]
    pub fn hand_over(&mut self) {
        if !self.ended.is_empty() {
            self.shared.queue.push(&mut self.ended);
        }
    }
}

impl InHand {
    /// A later moment, by the system's clock.
    fn at(&self, moment: Instant) -> Nanos {
        self.start + nanos(moment.saturating_duration_since(self.admitted))
    }
}

/// Whoever a job is by, where that may not be who connected.
fn of(actor: &Arc<Actor>, identity: Option<&Identity>) -> Arc<Actor> {
    match identity {
        Some(identity) if identity != actor.identity() => Arc::new(actor.with_identity(identity.clone())),
        _ => actor.clone(),
    }
}

fn nanos(duration: Duration) -> Nanos {
    // Below 2^64 for five hundred years.
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

fn nanos_since_1970() -> Nanos {
    nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
