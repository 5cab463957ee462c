//! Whose a call is: whoever connected, or whoever a token says.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap};
use tonic::{Code, Status};

use super::connection::Caller;
use crate::access::token::{TokenError, Tokens, Verified};
use crate::access::{Identity, Means, Standing};
use crate::shard::{Shard, State};

/// Whose a call is.
pub(super) struct Somebody {
    caller: Arc<Caller>,
    /// Who sent a token with the call; `None` where whoever connected counts.
    of_call: Option<Verified>,
}

impl Somebody {
    /// Finds out whose a call is: a certificate's name counts before a token's, and a token's before none.
    ///
    /// # Errors
    /// The token is not good; or nothing says who it is, and such callers may do nothing: they have forgotten to say it.
    pub(super) fn of(
        shard: &Shard,
        tokens: &Tokens,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Self, Status> {
        let caller = caller(extensions)?.clone();
        let somebody = Self::shown(shard, tokens, headers, caller.clone());
        if somebody.as_ref().is_err_and(|status| status.code() == Code::Unauthenticated) {
            shard.with(|state, _| state.front.record_refusal(caller.id(), None, None, "UNAUTHENTICATED"));
        }
        somebody
    }

    fn shown(shard: &Shard, tokens: &Tokens, headers: &HeaderMap, caller: Arc<Caller>) -> Result<Self, Status> {
        let token = headers.get(AUTHORIZATION).filter(|_| caller.identity().means() == Means::Anonymous);
        let of_call = match token {
            // What is sent to somebody who takes none is no reason to fail: a proxy may add it.
            Some(token) if tokens.is_on() => {
                let token =
                    token.to_str().map_err(|_| Status::unauthenticated("the authorization header is no text"))?;
                Some(tokens.identify(token).map_err(|error| refused(&error))?)
            }
            _ => None,
        };
        let somebody = Self { caller, of_call };
        // Where there are no rules no call asks the shard for that.
        let is_nobody = somebody.identity().means() == Means::Anonymous
            && !shard.config().permissions.is_empty()
            && shard.with(|state, now| somebody.standing(state, now).is_nobody());
        if is_nobody {
            let how =
                if tokens.is_on() { "send a token, or show a client certificate" } else { "show a client certificate" };
            return Err(Status::unauthenticated(format!("say who you are: {how}")));
        }
        Ok(somebody)
    }

    /// When what was shown is not good any more; `None` where it does not end before the connection.
    pub(super) fn expires(&self) -> Option<Instant> {
        let expires = UNIX_EPOCH + Duration::from_secs(self.of_call.as_ref()?.expires.min(u32::MAX.into()));
        let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
        Some(Instant::now() + left)
    }

    /// The connection that the call came over.
    pub(super) fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }

    /// Who it is.
    pub(super) fn identity(&self) -> &Identity {
        self.of_call.as_ref().map_or_else(|| self.caller.identity(), |verified| &verified.identity)
    }

    /// The same, where it was said by the call, not by the connection.
    pub(super) fn of_call(&self) -> Option<&Identity> {
        self.of_call.as_ref().map(|verified| &verified.identity)
    }

    /// What it may do.
    pub(super) fn standing(&self, state: &mut State, now: Instant) -> Arc<Standing> {
        match &self.of_call {
            Some(verified) => state.front.standing(now, &verified.identity),
            None => state.front.standing_of(self.caller.id()).clone(),
        }
    }
}

/// The connection that a call came over.
fn caller(extensions: &Extensions) -> Result<&Arc<Caller>, Status> {
    extensions.get::<Arc<Caller>>().ok_or_else(|| Status::internal("the connection has no caller"))
}

/// Why a token is refused, as its caller is told.
fn refused(error: &TokenError) -> Status {
    if error.is_ours() { Status::unavailable(error.to_string()) } else { Status::unauthenticated(error.to_string()) }
}
