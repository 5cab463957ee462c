//! Tokens of callers without certificates: OAuth 2.0 access tokens and `OpenID` Connect ID tokens, which are signed JWTs.
//!
//! [`Verifier`] decides alone, of a token's bytes, the provider's keys and the time; it asks nobody. [`Tokens`] is what a running
//! gateway has: a verifier whose keys are kept fresh, and the tokens that were accepted lately. The gRPC front end calls
//! [`Tokens::identify`] once for each call that has an `authorization` header.
//!
//! Nothing of a token is trusted before its signature holds. The algorithm is one that fits the key's type, whatever the token
//! says; keys and addresses that a token brings along (`jwk`, `jku`, `x5c`, `x5u`) are never looked at.
//!
//! Signatures are checked by aws-lc-rs and not through the crate `jsonwebtoken`: that one skips claims of the wrong type in
//! some releases (an `exp` that is a string), keeps the last of two claims of one name, ignores `crit`, and would still leave the
//! choice of keys to this module.

mod cache;
mod claims;
mod fetch;
mod json;
mod keys;
mod source;
mod tokens;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

pub use claims::TokenSettings;
pub use fetch::FetchError;
pub(crate) use fetch::{SYSTEM_ROOTS, is_loopback};
pub use keys::{Keys, KeysError};
pub use source::{KeySource, SourceError};
pub use tokens::{TokenCounts, Tokens};

use super::Identity;
use json::JsonError;
use keys::Algorithm;

/// The longest token that is looked at, in bytes. Providers' have one or two kB.
pub const TOKEN_LIMIT: usize = 16 * 1024;

/// The longest `kid`, identity or group, in bytes.
const NAME_LIMIT: usize = 256;

/// Says whose a token is, or why it is nobody's.
#[derive(Debug)]
pub struct Verifier {
    settings: TokenSettings,
    keys: Arc<Keys>,
}

/// A token that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Whose it is.
    pub identity: Identity,
    /// From when on it is not accepted any more, in seconds since 1970; the leeway is counted in.
    pub expires: u64,
}

/// Why a token is refused. Says which rule, and never what the token holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The configuration has no `[token]`.
    #[error("this gateway takes no tokens; come with a client certificate, or have [token] configured")]
    NotTaken,
    /// The header has no token in it.
    #[error("the authorization header holds no bearer token; send `authorization: Bearer TOKEN`")]
    NotBearer,
    /// It is longer than [`TOKEN_LIMIT`].
    #[error("the token has {0} bytes, above the limit of {TOKEN_LIMIT}; have the provider put fewer groups into it")]
    TooLong(usize),
    /// It is not what RFC 7519 calls a signed JWT.
    #[error("the token is not a signed JWT: {0}; send it as the provider issued it")]
    Malformed(&'static str),
    /// Its algorithm is none of those that are taken.
    #[error(
        "the token's algorithm is not taken; have the provider sign with RS256, PS256, ES256, EdDSA or one of their larger kin"
    )]
    Algorithm,
    /// It is of a type that is not for calling.
    #[error("the token's type is not taken; send an access token (`at+jwt`) or a plain JWT")]
    Type,
    /// It has extensions that must be understood.
    #[error("the token has critical extensions (`crit`), and none is understood; have the provider leave them out")]
    Critical,
    /// None of the provider's keys fits its algorithm and key id.
    #[error(
        "no key of the provider's fits the token; where the provider has just changed its keys, try again in half a minute"
    )]
    UnknownKey,
    /// The signature is not one of the provider's.
    #[error("the token's signature is wrong; get a new one from the provider that this gateway trusts")]
    Signature,
    /// A claim that has to be there is not.
    #[error("the token has no claim `{0}`; have the provider add it")]
    Missing(String),
    /// A claim is not of the kind that it has to be, or too long.
    #[error("the token's claim `{0}` is not what it has to be; the configuration's reference says what that is")]
    Claim(String),
    /// It was issued by another one.
    #[error("the token's `iss` is not token.issuer; get one from the provider that this gateway trusts")]
    Issuer,
    /// It is for others.
    #[error("the token's `aud` has not token.audience in it; ask the provider for one for this gateway")]
    Audience,
    /// It was good until lately.
    #[error("the token has expired; get a new one")]
    Expired,
    /// It will be good some day.
    #[error("the token is not valid yet (`nbf`); wait, or compare this computer's clock with the provider's")]
    NotYet,
    /// It says that it is from the future.
    #[error("the token was issued in the future (`iat`); compare this computer's clock with the provider's")]
    Future,
    /// The provider's keys have never been read.
    #[error("the provider's keys have not been read yet; try again in a moment, and see the gateway's log")]
    NoKeys,
    /// The provider's keys were read too long ago.
    #[error("the provider's keys are older than token.stale; see the gateway's log for why they can not be read")]
    StaleKeys,
}

impl TokenError {
    /// Whether it is the gateway that can't judge, and the token may be good: the caller may try again later.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::NoKeys | Self::StaleKeys)
    }
}

impl Verifier {
    /// One that goes by these settings and accepts what these keys signed.
    pub fn new(settings: TokenSettings, keys: impl Into<Arc<Keys>>) -> Self {
        Self { settings, keys: keys.into() }
    }

    /// The provider's keys.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Whose the token is. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// The first rule that the token breaks.
    pub fn verify(&self, token: &str, now: u64) -> Result<Verified, TokenError> {
        if token.len() > TOKEN_LIMIT {
            return Err(TokenError::TooLong(token.len()));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed("it has no three parts"))?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed("it has no three parts"))?;
        if payload.contains('.') {
            return Err(TokenError::Malformed("it has more than three parts"));
        }
        let header = object(&decoded(header)?)?;
        let (algorithm, kid) = read_header(&header)?;
        self.keys.check(algorithm, kid, signed.as_bytes(), &decoded(signature)?)?;
        // From here on the provider has said it, and not just anybody.
        self.settings.read(&object(&decoded(payload)?)?, now)
    }
}

/// A token's algorithm and the id of its key.
fn read_header(header: &Map<String, Value>) -> Result<(Algorithm, Option<&str>), TokenError> {
    if header.contains_key("crit") {
        return Err(TokenError::Critical);
    }
    match header.get("typ") {
        None => {}
        Some(Value::String(kind)) if is_type(kind) => {}
        Some(_) => return Err(TokenError::Type),
    }
    let algorithm = match header.get("alg") {
        Some(Value::String(name)) => Algorithm::named(name).ok_or(TokenError::Algorithm)?,
        _ => return Err(TokenError::Malformed("its header has no `alg`")),
    };
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if (1..=NAME_LIMIT).contains(&kid.len()) => Some(kid.as_str()),
        Some(_) => return Err(TokenError::Malformed("its `kid` is no text of a key id's length")),
    };
    Ok((algorithm, kid))
}

/// A media type may be written with `application/` before it, and in any case (RFC 7515, 4.1.9).
fn is_type(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    ["jwt", "at+jwt"].contains(&kind.strip_prefix("application/").unwrap_or(&kind))
}

/// Exactly what RFC 7515 calls base64url: no padding, no blanks, no bits left over, so that one token has one spelling.
fn decoded(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed("a part of it is not base64url"))
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, TokenError> {
    json::object(bytes).map_err(|error| {
        TokenError::Malformed(match error {
            JsonError::NotAnObject => "a part of it is not a JSON object",
            JsonError::Twice => "a part of it has a name twice",
            JsonError::TooDeep => "a part of it is nested too deeply",
        })
    })
}
