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

    /// The job that a caller hands over next belongs to this trace, where it names one.
    pub fn next_belongs_to(&mut self, caller: CallerId, context: Option<Context>) {
        if let Some(caller) = self.callers.get_mut(caller) {
            caller.of_next = context;
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
                ended: job.at(attempt.lost),
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use seeway_proto::outcome::{NotSent, Unknown};
    use seeway_proto::wire::JobBytes;
    use slotmap::SlotMap;

    use super::super::queue::Queue;
    use super::*;
    use crate::access::Means;
    use crate::audit::ListenerKind;
    use crate::schedule::{MachineId, WorldId};

    fn shared(ratio: f64, queue: usize) -> Arc<Shared> {
        Arc::new(Shared { queue: Queue::new(queue), ratio: AtomicU64::new(ratio.to_bits()) })
    }

    fn caller(tracer: &mut Tracer) -> CallerId {
        let caller = SlotMap::<CallerId, ()>::with_key().insert(());
        tracer.joined(caller, Arc::new(Actor::new(Identity::anonymous(), ListenerKind::Grpc, None)));
        caller
    }

    fn concluded(caller: CallerId, ticket: u64, outcome: Outcome<'_>) -> Concluded<'_> {
        Concluded {
            caller,
            ticket,
            world: WorldId(0),
            machine: matches!(outcome, Outcome::Replied(_)).then_some(MachineId(1)),
            size: 3,
            queue_time: Duration::from_millis(4),
            machine_time: Duration::from_millis(5),
            outcome,
        }
    }

    fn context(is_sampled: bool) -> Context {
        Context { trace: [7; 16], parent: [8; 8], is_sampled, state: None }
    }

    #[test]
    fn a_span_has_the_times_that_the_scheduler_has_noted_with_those_of_earlier_attempts() {
        let shared = shared(1.0, 10);
        let mut tracer = Tracer::new(shared.clone());
        let caller = caller(&mut tracer);
        let begin = Instant::now();
        tracer.submitted(begin, caller, 1, None);
        let at = |millis| begin + Duration::from_millis(millis);
        let (machine, reason) = (MachineId(0), Unknown::TunnelLost);
        tracer.sent_again(&Attempt { caller, ticket: 1, machine, sent: at(1), lost: at(2), reason });
        tracer.concluded(&concluded(caller, 1, Outcome::Replied(JobBytes(b"reply"))));
        tracer.hand_over();
        let spans = shared.queue.take();
        let [span] = spans.as_slice() else { panic!("{spans:?}") };
        let [lost] = span.earlier.as_slice() else { panic!("{span:?}") };
        let since = |nanos: Nanos| (nanos - span.start) / 1_000_000;
        assert_eq!((lost.machine, since(lost.sent), since(lost.ended), lost.reason), (0, 1, 2, "OUTCOME_UNKNOWN"));
        let (machine, sent) = span.sent.expect("sent");
        assert_eq!((machine, since(sent), since(span.end)), (1, 4, 9));
        assert_eq!((span.job_bytes, span.reply_bytes, span.outcome), (3, 5, "replied"));
        assert!(span.may_have_run && span.is_replied && !span.is_failure);
    }

    #[test]
    fn what_a_caller_says_counts_for_its_next_job_or_for_all_and_chance_for_the_others() {
        let shared = shared(0.0, 10);
        let mut tracer = Tracer::new(shared.clone());
        let (now, caller) = (Instant::now(), caller(&mut tracer));
        let spans = |tracer: &mut Tracer, ticket| {
            tracer.submitted(now, caller, ticket, None);
            tracer.concluded(&concluded(caller, ticket, Outcome::NotSent(NotSent::TooLate)));
            tracer.hand_over();
            shared.queue.take()
        };
        assert!(spans(&mut tracer, 1).is_empty());
        tracer.next_belongs_to(caller, Some(context(true)));
        let of_next = spans(&mut tracer, 2);
        assert_eq!((of_next[0].ids.trace, of_next[0].ids.parent), ([7; 16], Some([8; 8])));
        assert!(of_next[0].sent.is_none() && of_next[0].is_failure);
        assert!(spans(&mut tracer, 3).is_empty(), "it was for one job");
        tracer.all_belong_to(caller, context(true));
        assert_eq!((spans(&mut tracer, 4).len(), spans(&mut tracer, 5).len()), (1, 1));
        shared.ratio.store(1_f64.to_bits(), std::sync::atomic::Ordering::Relaxed);
        tracer.all_belong_to(caller, context(false));
        assert!(spans(&mut tracer, 6).is_empty(), "its caller records nothing");
        tracer.left(caller);
        assert!(spans(&mut tracer, 7).is_empty(), "nobody knows whose it is");
    }

    #[test]
    fn sampled_jobs_in_hand_are_bounded_and_whose_token_it_is_counts() {
        let shared = shared(1.0, 2);
        let mut tracer = Tracer::new(shared.clone());
        let (now, caller) = (Instant::now(), caller(&mut tracer));
        let whose = Identity::new("payments", Vec::new(), Means::Token);
        for ticket in 0..5 {
            tracer.submitted(now, caller, ticket, Some(&whose));
        }
        assert_eq!((tracer.in_hand.len(), shared.queue.counts().dropped), (2, 3));
        let (machine, sent) = (Some(MachineId(1)), Some(now));
        let (world, size, may_have_run) = (WorldId(0), 3, true);
        for ticket in 0..5 {
            tracer.abandoned(&Abandoned { caller, ticket, world, machine, size, sent, may_have_run });
        }
        tracer.hand_over();
        let spans = shared.queue.take();
        assert_eq!((spans.len(), tracer.in_hand.len()), (2, 0));
        assert_eq!((spans[0].actor.identity().name(), spans[0].outcome), ("payments", "abandoned"));
        assert!(spans[0].sent == Some((1, spans[0].start)) && !spans[0].is_failure);
    }
}
