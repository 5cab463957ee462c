//! What a front's callers may do: which worlds they see, whether a job of theirs may go to the scheduler, and their quotas.

use std::sync::Arc;
use std::time::Instant;

use seeway_proto::outcome::{NotSent, Outcome, Rejected};
use tokio::sync::oneshot;

use super::{Front, Port};
use crate::access::{Identity, Standing, Submit};
use crate::config::Config;
use crate::schedule::{CallerId, NewJob, WorldId};

/// A pipe that is open, by whoever may open it.
pub(super) struct OpenPipe {
    whose: Identity,
    world: WorldId,
    /// Sent to where it is read; closed when the pipe is.
    withdrawn: oneshot::Sender<()>,
}

impl Port {
    /// What whoever made a unary call may do, where that is not who connected.
    pub(super) fn standing_of_call(&self, ticket: u64) -> Option<&Arc<Standing>> {
        match self {
            Self::Calls(calls) => calls.get(&ticket)?.standing.as_ref(),
            Self::Legacy(_) | Self::Stream(_) => None,
        }
    }
}

impl Front {
    /// What somebody may do.
    pub fn standing(&mut self, now: Instant, identity: &Identity) -> Arc<Standing> {
        self.standings.of(now, identity)
    }

    /// What a caller may do.
    ///
    /// # Panics
    /// If the caller is none.
    pub fn standing_of(&self, caller: CallerId) -> &Arc<Standing> {
        self.standing_of.get(caller).expect("a caller has a standing from its beginning to its end")
    }

    /// Whether a job may go to the scheduler. One that may is counted against its caller's quota until it ends; what becomes of one
    /// that may not is the outcome. To be asked for each job, once: [`State::submit`](crate::shard::State::submit) does.
    ///
    /// # Errors
    /// The caller may not submit to the world, or its quota is used up.
    #[inline]
    pub(in crate::shard) fn admit(
        &mut self,
        now: Instant,
        caller: CallerId,
        job: &NewJob<'_>,
    ) -> Result<(), Outcome<'static>> {
        if self.standings.has_rules() { self.admit_by_rule(now, caller, job) } else { Ok(()) }
    }

    fn admit_by_rule(&mut self, now: Instant, caller: CallerId, job: &NewJob<'_>) -> Result<(), Outcome<'static>> {
        let of_call = self.ports.get(caller).and_then(|port| port.standing_of_call(job.ticket));
        let standing = of_call.unwrap_or_else(|| self.standing_of(caller));
        match standing.submit(job.world) {
            Submit::Free => Ok(()),
            Submit::Counted(quota) if quota.take(self.standings.clock(now), job.bytes.len()) => {
                self.counted.insert((caller, job.ticket), quota.clone());
                Ok(())
            }
            Submit::Counted(_) => Err(Outcome::NotSent(NotSent::CallerQuota)),
            // Who may only open pipes knows that the world is there.
            Submit::Denied if standing.may_see(job.world) => Err(Outcome::Rejected(Rejected::AccessDenied)),
            Submit::Denied => Err(Outcome::Rejected(Rejected::NoSuchWorld)),
        }
    }

    /// A job has ended: its place in its caller's quota is free.
    #[inline]
    pub(super) fn uncount(&mut self, caller: CallerId, ticket: u64) {
        if !self.counted.is_empty()
            && let Some(quota) = self.counted.remove(&(caller, ticket))
        {
            quota.give_back();
        }
    }

    /// The world of this name, as far as somebody may see it.
    pub fn world(&self, standing: &Standing, name: &str) -> Option<WorldId> {
        self.worlds_by_name.get(name).copied().filter(|world| standing.may_see(*world))
    }

    /// The world that is published under this name, as far as a caller may see it.
    pub fn published_world(&self, caller: CallerId, name: &str) -> Option<WorldId> {
        let world = self.worlds_by_publication.get(name).copied();
        world.filter(|world| self.standing_of(caller).may_see(*world))
    }

    /// Callers may do what the rules of another configuration allow, also those that are connected.
    pub(super) fn rules_changed(&mut self, now: Instant, config: Arc<Config>) {
        self.standings.reconfigure(config);
        let of_calls = self.ports.values_mut().filter_map(|port| match port {
            Port::Calls(calls) => Some(calls.values_mut().filter_map(|call| call.standing.as_mut())),
            Port::Legacy(_) | Port::Stream(_) => None,
        });
        for standing in self.standing_of.values_mut().chain(of_calls.flatten()) {
            *standing = self.standings.of(now, standing.identity());
        }
        let (standings, pipes) = (&mut self.standings, &mut self.pipes);
        for pipe in pipes.extract_if(.., |pipe| !standings.of(now, &pipe.whose).may_pipe(pipe.world)) {
            // One that is closed has nobody to tell.
            let _ = pipe.withdrawn.send(());
        }
    }

    /// A pipe to a world has been opened by somebody, and is open as long as what is returned. That resolves when other rules do not
    /// allow it any more.
    pub fn add_pipe(&mut self, identity: &Identity, world: WorldId) -> oneshot::Receiver<()> {
        // There are at most `limits.pipes`, and opening one takes a tunnel.
        self.pipes.retain(|pipe| !pipe.withdrawn.is_closed());
        let (withdrawn, told) = oneshot::channel();
        self.pipes.push(OpenPipe { whose: identity.clone(), world, withdrawn });
        told
    }
}
