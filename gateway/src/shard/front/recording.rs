//! What of a front's doings is recorded: in the audit log, who its callers are, what was refused, and whether anything may be sent at
//! all; in traces, which jobs have a span.
//!
//! Jobs' ends are recorded where the scheduler tells them, in [`Effects`](crate::schedule::Effects). Without an audit log and traces each
//! of these is one branch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use seeway_proto::outcome::{NotSent, Outcome};

use super::Front;
use crate::access::Identity;
use crate::audit::{Actor, Event, Recorder};
use crate::schedule::{Abandoned, Attempt, CallerId, Concluded, NewJob};
use crate::trace::{Context, Tracer};

/// Who records what happens on a shard: one of them at least.
pub struct Recording {
    audit: Option<Recorder>,
    tracer: Option<Tracer>,
}

impl Recording {
    /// Where there is an audit log, or traces; `None` where there is neither.
    pub fn new(audit: Option<Recorder>, tracer: Option<Tracer>) -> Option<Self> {
        (audit.is_some() || tracer.is_some()).then_some(Self { audit, tracer })
    }

    /// A caller has gone, and all its jobs have ended.
    pub(super) fn left(&mut self, caller: CallerId) {
        if let Some(audit) = &mut self.audit {
            audit.left(caller);
        }
        if let Some(tracer) = &mut self.tracer {
            tracer.left(caller);
        }
    }

    /// A job has ended.
    pub(super) fn concluded(&mut self, concluded: &Concluded<'_>) {
        if let Some(audit) = &mut self.audit {
            audit.concluded(concluded);
        }
        if let Some(tracer) = &mut self.tracer {
            tracer.concluded(concluded);
        }
    }

    /// A job has ended that nobody waits for any more.
    pub(super) fn abandoned(&mut self, abandoned: &Abandoned) {
        if let Some(audit) = &mut self.audit {
            audit.abandoned(abandoned);
        }
        if let Some(tracer) = &mut self.tracer {
            tracer.abandoned(abandoned);
        }
    }

    /// A job is sent again.
    pub(super) fn sent_again(&mut self, attempt: &Attempt) {
        if let Some(tracer) = &mut self.tracer {
            tracer.sent_again(attempt);
        }
    }
}

impl Front {
    /// What happens from now on is recorded, where there is something to record it with.
    pub(in crate::shard) fn record_with(&mut self, recording: Option<Recording>) {
        self.recording = recording.map(Box::new);
    }

    fn audit(&mut self) -> Option<&mut Recorder> {
        self.recording.as_mut()?.audit.as_mut()
    }

    fn tracer(&mut self) -> Option<&mut Tracer> {
        self.recording.as_mut()?.tracer.as_mut()
    }

    /// Says who a caller is. To be called when it has joined.
    pub fn introduce(&mut self, caller: CallerId, actor: &Arc<Actor>) {
        self.actors.insert(caller, actor.clone());
        if let Some(audit) = self.audit() {
            audit.joined(caller, actor.clone());
        }
        if let Some(tracer) = self.tracer() {
            tracer.joined(caller, actor.clone());
        }
    }

    /// A caller has come over a connection that is a caller itself, as a gRPC stream does.
    pub fn introduce_over(&mut self, caller: CallerId, connection: CallerId, identity: &Identity) {
        let Some(actor) = self.actors.get(connection) else { return };
        let is_same = actor.identity() == identity;
        let actor = if is_same { actor.clone() } else { Arc::new(actor.with_identity(identity.clone())) };
        self.introduce(caller, &actor);
    }

    /// All jobs of a caller belong to a trace, where it named one.
    pub fn trace_all(&mut self, caller: CallerId, context: Option<Context>) {
        if let (Some(context), Some(tracer)) = (context, self.tracer()) {
            tracer.all_belong_to(caller, context);
        }
    }

    /// The job that is to be submitted next belongs to a trace, where its caller named one.
    pub fn trace_next(&mut self, caller: CallerId, context: Option<Context>) {
        if let Some(tracer) = self.tracer() {
            tracer.next_belongs_to(caller, context);
        }
    }

    /// Who a caller is, and how it came; `None` where it was not introduced, or has gone.
    pub fn actor(&self, caller: CallerId) -> Option<&Arc<Actor>> {
        self.actors.get(caller)
    }

    /// `count` commands of a legacy caller were refused that never reached the scheduler, and told so.
    pub fn rejected_legacy(&mut self, caller: CallerId, reason: &'static str, count: u64) {
        self.rejected += count;
        if let Some(audit) = self.audit() {
            audit.refused(caller, None, None, reason, count);
        }
    }

    /// Records something else than a job or a refusal, which somebody does over a connection.
    pub fn record(&mut self, connection: CallerId, identity: &Identity, event: impl FnOnce() -> Event) {
        if let Some(audit) = self.audit() {
            audit.event_of(connection, identity, event());
        }
    }

    /// Something was refused to a caller that is no job and is counted elsewhere, or nowhere. `identity` is whoever a call is by, where
    /// that is not its connection's.
    pub fn record_refusal(
        &mut self,
        caller: CallerId,
        identity: Option<&Identity>,
        world: Option<&str>,
        reason: &'static str,
    ) {
        if let Some(audit) = self.audit() {
            audit.refused(caller, identity, world, reason, 1);
        }
    }

    /// Whether nothing new may be sent, because nobody could record it.
    #[inline]
    pub fn refuses_jobs(&self) -> bool {
        let audit = self.recording.as_ref().and_then(|recording| recording.audit.as_ref());
        audit.is_some_and(Recorder::refuses_jobs)
    }

    /// A job is about to be handed to the scheduler. Returns false where it was refused, because nobody could record it; its caller
    /// has been told then.
    #[inline]
    pub(in crate::shard) fn can_record(&mut self, now: Instant, caller: CallerId, job: &NewJob<'_>) -> bool {
        let Some(recording) = &mut self.recording else { return true };
        if let Some(audit) = &recording.audit
            && audit.refuses_jobs()
        {
            audit.refused_a_job();
            self.refuse_unrecorded(caller, job);
            return false;
        }
        let of_call = self.ports.get(caller).and_then(|port| port.standing_of_call(job.ticket));
        let identity = of_call.map(|standing| standing.identity());
        if let Some(audit) = &mut recording.audit {
            audit.submitted(caller, job.ticket, job.bytes, identity);
        }
        if let Some(tracer) = &mut recording.tracer {
            tracer.submitted(now, caller, job.ticket, identity);
        }
        true
    }

    #[cold]
    fn refuse_unrecorded(&mut self, caller: CallerId, job: &NewJob<'_>) {
        self.tell(&Concluded {
            caller,
            ticket: job.ticket,
            world: job.world,
            machine: None,
            size: job.bytes.len(),
            queue_time: Duration::ZERO,
            machine_time: Duration::ZERO,
            outcome: Outcome::NotSent(NotSent::NowhereToGo),
        });
    }

    /// What was recorded since the last time is handed over.
    #[inline]
    pub(in crate::shard) fn hand_records_over(&mut self) {
        let Some(recording) = &mut self.recording else { return };
        if let Some(audit) = &mut recording.audit {
            audit.hand_over();
        }
        if let Some(tracer) = &mut recording.tracer {
            tracer.hand_over();
        }
    }
}
