//! Tokens that were accepted lately, so that a caller's every call does not cost a check of the same signature.
//!
//! Found by the SHA-256 of the token, so that no token is kept. Two generations of at most half the entries each: what is new
//! goes into the young one; when that is full, it becomes the old one, and the old one is dropped. A dropped token costs one more
//! check of its signature. Only good tokens come in here, so that nobody without one can push others out.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, digest};

use super::Verified;

/// Entries, in both generations together.
pub(super) const ENTRIES: usize = 4096;

/// What a token is found by.
pub(super) type Fingerprint = [u8; 32];

/// The fingerprint of a token.
pub(super) fn fingerprint(token: &str) -> Fingerprint {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

/// Tokens that were accepted lately.
#[derive(Debug, Default)]
pub(super) struct Cache {
    young: HashMap<Fingerprint, Verified>,
    old: HashMap<Fingerprint, Verified>,
}

impl Cache {
    /// What was found out about a token, if it is still good at `now`, in seconds since 1970.
    pub(super) fn find(&self, fingerprint: &Fingerprint, now: u64) -> Option<&Verified> {
        let found = self.young.get(fingerprint).or_else(|| self.old.get(fingerprint))?;
        (now < found.expires).then_some(found)
    }

    /// Remembers a good token.
    pub(super) fn put(&mut self, fingerprint: Fingerprint, verified: Verified) {
        if self.young.len() >= ENTRIES / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(fingerprint, verified);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Identity, Means};

    #[test]
    fn it_never_grows_past_its_limit_and_keeps_the_newest() {
        let mut cache = Cache::default();
        let verified = |number: usize| Verified {
            identity: Identity::new(&number.to_string(), Vec::new(), Means::Token),
            expires: 100,
        };
        let count = 3 * ENTRIES;
        for number in 0..count {
            cache.put(fingerprint(&number.to_string()), verified(number));
            assert!(cache.len() <= ENTRIES);
        }
        for number in count - ENTRIES / 2..count {
            let found = cache.find(&fingerprint(&number.to_string()), 99);
            assert_eq!(found, Some(&verified(number)));
        }
        assert_eq!(cache.find(&fingerprint("0"), 99), None, "long gone");
        assert_eq!(cache.find(&fingerprint(&(count - 1).to_string()), 100), None, "expired");
    }
}
