//! Tokens as a running gateway takes them: the verifier with the keys that were read last, and who keeps them fresh.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::cache::{self, Cache};
use super::{KeySource, Keys, SourceError, TokenError, Verified, Verifier};

use crate::config::Token;
use crate::seldom::{Seldom, Tell};

/// How long is waited for what.
#[derive(Clone, Copy, Debug)]
struct Paces {
    /// How soon after one fetch a token with an unknown key may cause the next.
    unknown_key: Duration,
    /// How often a file is looked at.
    file: Duration,
    /// The first wait after a failure; each next one is twice as long.
    first_retry: Duration,
    /// The longest one.
    longest_retry: Duration,
}

/// Those of a gateway; tests have shorter ones.
const PACES: Paces = Paces {
    unknown_key: Duration::from_secs(30),
    file: Duration::from_secs(2),
    first_retry: Duration::from_secs(1),
    longest_retry: Duration::from_secs(60),
};

/// Whose tokens are. A cheap clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Tokens {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Locked for as long as it takes to clone or swap the pointer.
    state: RwLock<Arc<State>>,
    /// A token had a key that is not known.
    unknown_key: Notify,
    /// The configuration is another one.
    reconfigured: Notify,
    counts: Counts,
    paces: Paces,
}

/// What tokens are judged by, until keys or configuration change.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // There is one of it.
enum State {
    /// The configuration has no `[token]`.
    Off,
    /// There are no keys yet.
    Waiting {
        token: Token,
        /// Since when they are wanted.
        since: Instant,
    },
    /// There are.
    On {
        token: Token,
        verifier: Verifier,
        /// When the keys were read.
        read: Instant,
        /// Goes with the keys, so that none outlives the key that it was signed with.
        cache: RwLock<Cache>,
    },
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
    reads: AtomicU64,
    failed_reads: AtomicU64,
}

/// What became of tokens and of reading keys since the gateway began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenCounts {
    /// Tokens that were good, found in the cache or not.
    pub accepted: u64,
    /// Tokens that were refused.
    pub refused: u64,
    /// How often keys were read.
    pub reads: u64,
    /// How often they could not be read.
    pub failed_reads: u64,
    /// How many keys there are.
    pub keys: usize,
    /// How old they are, or for how long they have been waited for where there are none; `None` where none are wanted.
    pub age: Option<Duration>,
}

impl Tokens {
    /// Takes tokens as the configuration's `[token]` has it; none where it has none. There are no keys before
    /// [`keep_fresh`](Self::keep_fresh) has read them.
    pub fn new(token: Option<Token>) -> Self {
        Self::with_paces(token, PACES)
    }

    fn with_paces(token: Option<Token>, paces: Paces) -> Self {
        let state = RwLock::new(Arc::new(State::new(token)));
        let (unknown_key, reconfigured, counts) = (Notify::new(), Notify::new(), Counts::default());
        Self { shared: Arc::new(Shared { state, unknown_key, reconfigured, counts, paces }) }
    }

    /// Those of a gateway that can't wait for anything.
    #[cfg(test)]
    pub(super) fn hasty(token: Option<Token>) -> Self {
        let soon = Duration::from_millis(20);
        Self::with_paces(token, Paces { unknown_key: soon, file: soon, first_retry: soon, longest_retry: soon })
    }

    /// Goes by another configuration from now on, after a reload. Keys from the same place are kept until they are read anew,
    /// which is at once; where they are still waited for, that goes on.
    pub fn reconfigure(&self, token: Option<Token>) {
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        *state = match (&**state, token) {
            (State::On { token: old, .. }, Some(new)) if *old == new => state.clone(),
            (State::On { token: old, verifier, read, .. }, Some(new)) if old.has_keys_of(&new) => {
                let verifier = Verifier::new(new.settings.clone(), verifier.keys().clone());
                Arc::new(State::On { token: new, verifier, read: *read, cache: RwLock::default() })
            }
            (State::Waiting { token: old, since }, Some(new)) if old.has_keys_of(&new) => {
                Arc::new(State::Waiting { token: new, since: *since })
            }
            (_, new) => Arc::new(State::new(new)),
        };
        drop(state);
        self.shared.reconfigured.notify_one();
    }

    /// Whether the configuration has tokens taken.
    pub fn is_on(&self) -> bool {
        !matches!(*self.state(), State::Off)
    }

    /// Who sends this `authorization` header, and until when that counts. Waits for nothing.
    ///
    /// # Errors
    /// Why it is nobody.
    pub fn identify(&self, authorization: &str) -> Result<Verified, TokenError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let identified = self.identify_at(authorization, now);
        let counts = &self.shared.counts;
        let count = if identified.is_ok() { &counts.accepted } else { &counts.refused };
        count.fetch_add(1, Ordering::Relaxed);
        identified
    }

    fn identify_at(&self, authorization: &str, now: u64) -> Result<Verified, TokenError> {
        let state = self.state();
        let (token, verifier, read, cache) = match &*state {
            State::Off => return Err(TokenError::NotTaken),
            State::Waiting { .. } => return Err(TokenError::NoKeys),
            State::On { token, verifier, read, cache } => (token, verifier, read, cache),
        };
        let bearer = bearer(authorization).ok_or(TokenError::NotBearer)?;
        if bearer.len() > super::TOKEN_LIMIT {
            return Err(TokenError::TooLong(bearer.len()));
        }
        if read.elapsed() > token.stale {
            return Err(TokenError::StaleKeys);
        }
        let fingerprint = cache::fingerprint(bearer);
        if let Some(found) = cache.read().unwrap_or_else(PoisonError::into_inner).find(&fingerprint, now) {
            return Ok(found.clone());
        }
        match verifier.verify(bearer, now) {
            Ok(verified) => {
                cache.write().unwrap_or_else(PoisonError::into_inner).put(fingerprint, verified.clone());
                Ok(verified)
            }
            Err(error) => {
                if error == TokenError::UnknownKey {
                    self.shared.unknown_key.notify_one();
                }
                Err(error)
            }
        }
    }

    /// What became of tokens and of reading keys.
    pub fn counts(&self) -> TokenCounts {
        let Counts { accepted, refused, reads, failed_reads } = &self.shared.counts;
        let (keys, age) = match &*self.state() {
            State::On { verifier, read, .. } => (verifier.keys().len(), Some(read.elapsed())),
            State::Waiting { since, .. } => (0, Some(since.elapsed())),
            State::Off => (0, None),
        };
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        TokenCounts {
            accepted: read(accepted),
            refused: read(refused),
            reads: read(reads),
            failed_reads: read(failed_reads),
            keys,
            age,
        }
    }

    /// Reads the keys, and reads them again: at `token.refresh`, when their file has changed, when a token has an unknown key,
    /// when the configuration has changed. Runs on the control plane for as long as the gateway does.
    pub async fn keep_fresh(self) {
        let Paces { unknown_key, file, first_retry, longest_retry } = self.shared.paces;
        let mut retry = first_retry;
        loop {
            let Some(token) = self.token() else {
                self.shared.reconfigured.notified().await;
                continue;
            };
            // Looked at before it is read: what changes in between is read once more.
            let stamp = token.keys.stamp().await;
            let began = Instant::now();
            let result = token.keys.read(token.ca.as_deref(), token.rsa_min_bits).await;
            let wait = if result.is_ok() {
                retry = first_retry;
                token.refresh
            } else {
                let wait = retry.min(token.refresh);
                retry = (retry * 2).min(longest_retry);
                wait
            };
            self.take_in(&token, result);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = until_changed(&token.keys, stamp, file) => {}
                () = self.until_unknown_key(began + unknown_key) => {}
                () = self.shared.reconfigured.notified() => retry = first_retry,
            }
        }
    }

    /// Waits until a token had an unknown key, at least until `earliest`: nobody's tokens can have the provider asked more often.
    async fn until_unknown_key(&self, earliest: Instant) {
        tokio::time::sleep_until(earliest).await;
        self.shared.unknown_key.notified().await;
    }

    /// Has tokens judged by what was read; or by what was read last, where nothing was.
    fn take_in(&self, token: &Token, result: Result<Keys, SourceError>) {
        let counts = &self.shared.counts;
        let mut state = self.shared.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.token() != Some(token) {
            // The configuration has changed meanwhile; this is not what it wants to know.
            return;
        }
        let source = &token.keys;
        match result {
            Ok(keys) => {
                counts.reads.fetch_add(1, Ordering::Relaxed);
                let is_first = matches!(**state, State::Waiting { .. });
                let (count, notes) = (keys.len(), keys.notes().join("; "));
                if is_first && !notes.is_empty() {
                    tracing::warn!(%source, keys = count, "some of the token keys can not be used: {notes}");
                } else if is_first {
                    tracing::info!(%source, keys = count, "the token keys were read");
                } else {
                    tracing::debug!(%source, keys = count, "the token keys were read again");
                }
                let verifier = Verifier::new(token.settings.clone(), keys);
                let (read, cache) = (Instant::now(), RwLock::default());
                *state = Arc::new(State::On { token: token.clone(), verifier, read, cache });
            }
            Err(error) => {
                static NOT_READ: Seldom = Seldom::new("the token keys could not be read");
                counts.failed_reads.fetch_add(1, Ordering::Relaxed);
                let Some(Tell { untold }) = NOT_READ.tell("") else { return };
                match &**state {
                    State::On { read, .. } => {
                        let age = read.elapsed();
                        tracing::warn!(%source, %error, ?age, untold, stale = ?token.stale, "the token keys could not be read; the last ones stay in use until they are stale");
                    }
                    State::Off | State::Waiting { .. } => {
                        tracing::warn!(%source, %error, untold, "the token keys could not be read; all tokens are refused until they are");
                    }
                }
            }
        }
    }

    fn state(&self) -> Arc<State> {
        self.shared.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn token(&self) -> Option<Token> {
        self.state().token().cloned()
    }
}

impl State {
    fn new(token: Option<Token>) -> Self {
        token.map_or(Self::Off, |token| Self::Waiting { token, since: Instant::now() })
    }

    fn token(&self) -> Option<&Token> {
        match self {
            Self::Off => None,
            Self::Waiting { token, .. } | Self::On { token, .. } => Some(token),
        }
    }
}

/// The token of an `authorization` header. The scheme's name may be in any case (RFC 9110, 11.1).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    let token = token.trim_matches(' ');
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Waits until a file is another one than it was; for ever where keys come from an address.
async fn until_changed(keys: &KeySource, stamp: Option<super::source::Stamp>, pace: Duration) {
    if matches!(keys, KeySource::Url(_)) {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(pace).await;
        // One that is gone for a moment is about to be replaced.
        let now = keys.stamp().await;
        if now.is_some() && now != stamp {
            return;
        }
    }
}
