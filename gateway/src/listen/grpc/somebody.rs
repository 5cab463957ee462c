//! Whose a call is: whoever connected, or whoever a token says.

use std::sync::Arc;
use std::time::Instant;

use http::{Extensions, HeaderMap};
use tonic::Status;

use super::connection::Caller;
use crate::access::{Identity, Means, Standing};
use crate::shard::{Shard, State};

/// Whose a call is.
pub(super) struct Somebody {
    caller: Arc<Caller>,
    /// Who sent a token with the call; `None` where whoever connected counts.
    of_call: Option<Identity>,
}

impl Somebody {
    /// Finds out whose a call is. Fails where nothing says who it is, and such callers may do nothing: they have forgotten to say it.
    pub(super) fn of(shard: &Shard, _headers: &HeaderMap, extensions: &Extensions) -> Result<Self, Status> {
        let somebody = Self { caller: caller(extensions)?.clone(), of_call: None };
        let is_nobody = somebody.identity().means() == Means::Anonymous
            && shard.with(|state, now| somebody.standing(state, now).is_nobody());
        if is_nobody {
            let caller = somebody.caller.id();
            shard.with(|state, _| state.front.record_refusal(caller, None, "UNAUTHENTICATED"));
            return Err(Status::unauthenticated("show who you are: by a client certificate"));
        }
        Ok(somebody)
    }

    /// The connection that the call came over.
    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Who it is.
    pub(super) fn identity(&self) -> &Identity {
        self.of_call.as_ref().unwrap_or_else(|| self.caller.identity())
    }

    /// Whether that was said by the call, not by the connection.
    pub(super) fn is_of_call(&self) -> bool {
        self.of_call.is_some()
    }

    /// What it may do.
    pub(super) fn standing(&self, state: &mut State, now: Instant) -> Arc<Standing> {
        match &self.of_call {
            Some(identity) => state.front.standing(now, identity),
            None => state.front.standing_of(self.caller.id()).clone(),
        }
    }
}

/// The connection that a call came over.
pub(super) fn caller(extensions: &Extensions) -> Result<&Arc<Caller>, Status> {
    extensions.get::<Arc<Caller>>().ok_or_else(|| Status::internal("the connection has no caller"))
}
