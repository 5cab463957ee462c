//! What of a front's doings goes into the audit log: who its callers are, what was refused, and whether anything may be sent at all.
//!
//! Jobs' ends are recorded where the scheduler tells them, in [`Effects`](crate::schedule::Effects). Without an audit log each of these is
//! one branch.

use std::sync::Arc;
use std::time::Duration;

use seeway_proto::outcome::{NotSent, Outcome};

use super::Front;
use crate::access::Identity;
use crate::audit::{Actor, Event, Recorder};
use crate::schedule::{CallerId, Concluded, NewJob};

impl Front {
    /// What happens from now on is recorded.
    pub(in crate::shard) fn record_with(&mut self, recorder: Recorder) {
        self.recorder = Some(Box::new(recorder));
    }

    /// Says who a caller is. To be called when it has joined.
    pub fn introduce(&mut self, caller: CallerId, actor: &Arc<Actor>) {
        self.actors.insert(caller, actor.clone());
        if let Some(recorder) = &mut self.recorder {
            recorder.joined(caller, actor.clone());
        }
    }

    /// A caller has come over a connection that is a caller itself, as a gRPC stream does.
    pub fn introduce_over(&mut self, caller: CallerId, connection: CallerId, identity: &Identity) {
        if let Some(actor) = self.actors.get(connection) {
            let is_same = actor.identity() == identity;
            let actor = if is_same { actor.clone() } else { Arc::new(actor.with_identity(identity.clone())) };
            self.actors.insert(caller, actor);
        }
        if let Some(recorder) = &mut self.recorder {
            recorder.joined_over(caller, connection, identity);
        }
    }

    /// Who a caller is, and how it came; `None` where it was not introduced, or has gone.
    pub fn actor(&self, caller: CallerId) -> Option<&Arc<Actor>> {
        self.actors.get(caller)
    }

    /// `count` commands of a legacy caller were refused that never reached the scheduler, and told so.
    pub fn rejected_legacy(&mut self, caller: CallerId, reason: &'static str, count: u64) {
        self.rejected += count;
        if let Some(recorder) = &mut self.recorder {
            recorder.refused(caller, None, None, reason, count);
        }
    }

    /// Records something else than a job or a refusal, which somebody does over a connection.
    pub fn record(&mut self, connection: CallerId, identity: &Identity, event: impl FnOnce() -> Event) {
        if let Some(recorder) = &mut self.recorder {
            recorder.event_of(connection, identity, event());
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
        if let Some(recorder) = &mut self.recorder {
            recorder.refused(caller, identity, world, reason, 1);
        }
    }

    /// Whether nothing new may be sent, because nobody could record it.
    #[inline]
    pub fn refuses_jobs(&self) -> bool {
        self.recorder.as_ref().is_some_and(|recorder| recorder.refuses_jobs())
    }

    /// A job is about to be handed to the scheduler. Returns false where it was refused, because nobody could record it; its caller
    /// has been told then.
    #[inline]
    pub(in crate::shard) fn can_record(&mut self, caller: CallerId, job: &NewJob<'_>) -> bool {
        let Some(recorder) = &mut self.recorder else { return true };
        if recorder.refuses_jobs() {
            recorder.refused_a_job();
            self.refuse_unrecorded(caller, job);
            return false;
        }
        let of_call = self.ports.get(caller).and_then(|port| port.standing_of_call(job.ticket));
        recorder.submitted(caller, job.ticket, job.bytes, of_call.map(|standing| standing.identity()));
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
        if let Some(recorder) = &mut self.recorder {
            recorder.hand_over();
        }
    }
}
