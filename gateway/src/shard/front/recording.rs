//! What of a front's doings goes into the audit log: who its callers are, what was refused, and whether anything may be sent at all.
//!
//! Jobs' ends are recorded where the scheduler tells them, in [`Effects`](crate::schedule::Effects). Without an audit log each of these is
//! one branch.

use std::sync::Arc;
use std::time::Duration;

use seeway_proto::outcome::{NotSent, Outcome, Rejected};

use super::Front;
use crate::audit::{Actor, Event, Recorder};
use crate::schedule::{CallerId, Concluded, NewJob};

impl Front {
    /// What happens from now on is recorded.
    pub(in crate::shard) fn record_with(&mut self, recorder: Recorder) {
        self.recorder = Some(Box::new(recorder));
    }

    /// Says who a caller is. To be called when it has joined; `actor` is, where that is recorded.
    pub fn introduce(&mut self, caller: CallerId, actor: impl FnOnce() -> Actor) {
        if let Some(recorder) = &mut self.recorder {
            recorder.joined(caller, Arc::new(actor()));
        }
    }

    /// A caller is the same one as another caller, such as a gRPC stream and its connection.
    pub fn introduce_as(&mut self, caller: CallerId, other: CallerId) {
        if let Some(recorder) = &mut self.recorder {
            recorder.joined_as(caller, other);
        }
    }

    /// A caller has gone, and all its jobs have ended.
    pub(in crate::shard) fn forget(&mut self, caller: CallerId) {
        if let Some(recorder) = &mut self.recorder {
            recorder.left(caller);
        }
    }

    /// `count` commands of a legacy caller were refused that never reached the scheduler, and told so.
    pub fn rejected_legacy(&mut self, caller: CallerId, reason: &'static str, count: u64) {
        self.rejected += count;
        if let Some(recorder) = &mut self.recorder {
            recorder.refused(Some(caller), None, reason, count);
        }
    }

    /// Records something else than a job or a refusal.
    pub fn record(&mut self, caller: Option<CallerId>, event: impl FnOnce() -> Event) {
        if let Some(recorder) = &mut self.recorder {
            recorder.event(caller, event());
        }
    }

    /// A request named a world that is none to this caller, and is no job.
    pub fn record_unknown_world(&mut self, caller: CallerId, world: &str) {
        if let Some(recorder) = &mut self.recorder {
            recorder.refused(Some(caller), Some(world), Outcome::Rejected(Rejected::NoSuchWorld).reason(), 1);
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
        recorder.submitted(caller, job.ticket, job.bytes);
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
