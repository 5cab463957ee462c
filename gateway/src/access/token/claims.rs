//! What a token says, once its signature holds: who, until when, issued by whom and for whom.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{NAME_LIMIT, TokenError, Verified};
use crate::access::{Identity, Means};

/// The most groups that one token may name.
const GROUPS: usize = 256;

/// What tokens are held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// `token.issuer`: what `iss` has to be.
    pub issuer: String,
    /// `token.audience`: what has to be in `aud`.
    pub audience: String,
    /// `token.name_claim`: the claim that the identity's name stands in.
    pub name_claim: String,
    /// `token.groups_claim`: the claim that its groups stand in, as a list or separated by blanks.
    pub groups_claim: String,
    /// `token.leeway`: how far the provider's clock and this computer's may differ.
    pub leeway: Duration,
}

impl TokenSettings {
    /// Whose the token with these claims is. `now` is in seconds since 1970.
    pub(super) fn read(&self, claims: &Map<String, Value>, now: u64) -> Result<Verified, TokenError> {
        match claims.get("iss") {
            Some(Value::String(issuer)) if *issuer == self.issuer => {}
            Some(_) => return Err(TokenError::Issuer),
            None => return Err(TokenError::Missing("iss".to_owned())),
        }
        match claims.get("aud") {
            Some(Value::String(audience)) if *audience == self.audience => {}
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => {
                if !list.iter().any(|audience| audience.as_str() == Some(&self.audience)) {
                    return Err(TokenError::Audience);
                }
            }
            Some(_) => return Err(TokenError::Audience),
            None => return Err(TokenError::Missing("aud".to_owned())),
        }
        let leeway = self.leeway.as_secs();
        let expires = date(claims, "exp")?.ok_or_else(|| TokenError::Missing("exp".to_owned()))?;
        let expires = expires.saturating_add(leeway);
        if now >= expires {
            return Err(TokenError::Expired);
        }
        let latest = now.saturating_add(leeway);
        if date(claims, "nbf")?.is_some_and(|not_before| not_before > latest) {
            return Err(TokenError::NotYet);
        }
        if date(claims, "iat")?.is_some_and(|issued| issued > latest) {
            return Err(TokenError::Future);
        }
        let name = match claims.get(&self.name_claim) {
            Some(Value::String(name)) if is_name(name) => name,
            Some(_) => return Err(TokenError::Claim(self.name_claim.clone())),
            None => return Err(TokenError::Missing(self.name_claim.clone())),
        };
        let identity = Identity::new(name, self.groups(claims)?, Means::Token);
        Ok(Verified { identity, expires })
    }

    fn groups(&self, claims: &Map<String, Value>) -> Result<Vec<String>, TokenError> {
        let wrong = || TokenError::Claim(self.groups_claim.clone());
        let groups: Vec<String> = match claims.get(&self.groups_claim) {
            None => Vec::new(),
            Some(Value::String(list)) => list.split(' ').filter(|group| !group.is_empty()).map(str::to_owned).collect(),
            Some(Value::Array(list)) => {
                list.iter().map(|group| group.as_str().map(str::to_owned)).collect::<Option<_>>().ok_or_else(wrong)?
            }
            Some(_) => return Err(wrong()),
        };
        if groups.len() > GROUPS || !groups.iter().all(|group| is_name(group)) {
            return Err(wrong());
        }
        Ok(groups)
    }
}

/// What may stand in rules, logs and the audit log as one word.
fn is_name(name: &str) -> bool {
    (1..=NAME_LIMIT).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// A claim that is a date: whole seconds since 1970, parts of a second cut off.
fn date(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, TokenError> {
    /// The year 9999 ends here. Below it, every whole number is one in floating point too.
    const LATEST: f64 = 253_402_300_800.0;
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..LATEST).contains(seconds));
    let seconds = seconds.ok_or_else(|| TokenError::Claim(name.to_owned()))?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Just compared with both ends.
    Ok(Some(seconds as u64))
}
