//! Which servers a tunnel accepts: those that show a pinned host key, or one with a certificate of a trusted authority; and no
//! other.

mod certificate;
mod known_hosts;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, Certificate, PublicKey, PublicKeyOrCertificate};

use super::algorithms::{Algorithms, objection};
use super::fingerprint;
use super::key_error::HostKeyError;
use super::options::Endpoint;

/// The host keys to accept, and the authorities that may vouch for others: at least one of the two.
#[derive(Clone, PartialEq, Eq)]
pub struct HostKey {
    pinned: Vec<PublicKey>,
    authorities: Vec<PublicKey>,
    revoked: Vec<PublicKey>,
}

/// What is to be thought of a key that a server has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    Mismatch,
    Revoked,
    /// It may be the right one, and is not good enough, for this reason.
    NotTaken(String),
}

impl HostKey {
    /// Pins one key, given as `ssh-ed25519 AAAA…` with or without a comment.
    pub fn from_line(line: &str) -> Result<Self, HostKeyError> {
        Ok(Self { pinned: vec![key_of_line(line)?], authorities: Vec::new(), revoked: Vec::new() })
    }

    /// Trusts every server that shows a certificate for its name by this authority, whose key is given as `ssh-ed25519 AAAA…` with
    /// or without a comment.
    pub fn from_authority(line: &str) -> Result<Self, HostKeyError> {
        Ok(Self { pinned: Vec::new(), authorities: vec![key_of_line(line)?], revoked: Vec::new() })
    }

    /// Pins the keys that an OpenSSH `known_hosts` file has for `server`: plain, hashed and wildcard entries, those of
    /// other ports as `[host]:port`. Trusts the authorities whose `@cert-authority` lines are about it. Keys marked `@revoked`,
    /// authorities' too, are never accepted; keys that no policy takes are passed over where there are others.
    pub fn from_known_hosts(path: impl AsRef<Path>, server: &Endpoint) -> Result<Self, HostKeyError> {
        known_hosts::read(path.as_ref(), server)
    }

    /// Type and SHA-256 fingerprint of each pinned key, and, after `@cert-authority`, of each authority's.
    pub fn fingerprints(&self) -> Vec<String> {
        let pinned = self.pinned.iter().map(|key| fingerprint(key.key_data()));
        let authorities = self.authorities.iter().map(|key| format!("@cert-authority {}", fingerprint(key.key_data())));
        pinned.chain(authorities).collect()
    }

    /// What is to be thought of what `server` has shown, `now` being seconds since 1970.
    pub(super) fn judge(&self, shown: &PublicKeyOrCertificate, server: &Endpoint, now: u64) -> Verdict {
        let certificate = shown.certificate();
        let key = shown.public_key();
        let is_among = |keys: &[PublicKey], key: &KeyData| keys.iter().any(|one| one.key_data() == key);
        let authority = certificate.map(Certificate::signature_key);
        if is_among(&self.revoked, key.key_data()) || authority.is_some_and(|key| is_among(&self.revoked, key)) {
            return Verdict::Revoked;
        }
        if let Some(why) = objection(key.key_data()) {
            return Verdict::NotTaken(format!("{why}; have the server show another one"));
        }
        // A pinned key needs nobody to vouch for it. That the server has its private half is proven, certificate or not.
        if is_among(&self.pinned, key.key_data()) {
            return Verdict::Accepted;
        }
        match certificate {
            Some(certificate) if is_among(&self.authorities, certificate.signature_key()) => {
                certificate::check(certificate, server, now).map_or(Verdict::Accepted, Verdict::NotTaken)
            }
            _ => Verdict::Mismatch,
        }
    }

    /// Host key algorithms in the order to ask for them: first those of the pinned keys, so that a server with several
    /// keys shows one of these; then the others, so that a server without one still shows what it has, and the error can
    /// name it. SHA-1 signatures are not asked for.
    pub(super) fn algorithms(&self, policy: Algorithms) -> Vec<Algorithm> {
        let (mut first, others): (Vec<_>, Vec<_>) = policy
            .signatures()
            .into_iter()
            .partition(|algorithm| self.pinned.iter().any(|key| has_type(key, algorithm)));
        first.extend(others);
        first
    }

    /// Algorithms of keys for which certificates are asked for, ahead of plain keys: none where nobody's would be believed.
    pub(super) fn certificate_algorithms(&self, policy: Algorithms) -> Vec<Algorithm> {
        if self.authorities.is_empty() { Vec::new() } else { policy.signatures() }
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostKey").field(&self.fingerprints()).finish()
    }
}

/// How messages name what a server has shown.
pub(super) fn describe(shown: &PublicKeyOrCertificate) -> String {
    let key = fingerprint(shown.public_key().key_data());
    match shown.certificate() {
        None => key,
        Some(certificate) => {
            let authority = fingerprint(certificate.signature_key());
            format!("{key} with the certificate {:?} of the authority {authority}", certificate.key_id())
        }
    }
}

fn key_of_line(line: &str) -> Result<PublicKey, HostKeyError> {
    let key = PublicKey::from_openssh(line.trim()).map_err(|error| HostKeyError::NotAKey { why: error.to_string() })?;
    match objection(key.key_data()) {
        Some(why) => Err(HostKeyError::NotTaken { key: fingerprint(key.key_data()), why }),
        None => Ok(key),
    }
}

/// An RSA key has one type and signs with several algorithms.
fn has_type(key: &PublicKey, algorithm: &Algorithm) -> bool {
    match algorithm {
        Algorithm::Rsa { .. } => matches!(key.algorithm(), Algorithm::Rsa { .. }),
        other => key.algorithm() == *other,
    }
}
