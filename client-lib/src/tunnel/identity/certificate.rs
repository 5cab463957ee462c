//! The OpenSSH certificate that goes with an identity: what is asked of it before a server sees it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use russh::keys::Certificate;
use russh::keys::ssh_key::certificate::CertType;
use russh::keys::ssh_key::public::KeyData;

use super::super::algorithms::objection;
use super::super::fingerprint;
use super::super::key_error::IdentityError;
use super::super::utc;

/// The largest certificate file that is read. It also bounds how deep certificates can be put into each other, for which the
/// parser has no limit.
const MAX_FILE: u64 = 16 * 1024;

/// Without it OpenSSH's server opens no channel to a machine.
const FORWARDING: &str = "permit-port-forwarding";

/// A certificate that never ends has this as its end.
const FOREVER: u64 = u64::MAX;

/// Reads a certificate for `key`, and says what makes it useless.
pub(super) fn read(path: &Path, key: &KeyData, now: u64) -> Result<Certificate, IdentityError> {
    let what = "certificate";
    let unreadable = |error| IdentityError::Unreadable { what, path: path.to_owned(), error };
    let mut text = String::new();
    // A pipe would wait for somebody to write to it.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("it is no file")));
    }
    let file = File::open(path).map_err(unreadable)?;
    let length = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if length as u64 > MAX_FILE {
        return Err(unreadable(io::Error::other(format!("it has more than {MAX_FILE} bytes"))));
    }
    let unusable = |why: String| IdentityError::Certificate { path: path.to_owned(), why };
    let certificate = Certificate::from_openssh(text.trim()).map_err(|error| {
        unusable(format!("it does not parse ({error}); it is a line like `ssh-ed25519-cert-v01@openssh.com AAAA…`"))
    })?;
    match check(&certificate, key).or_else(|| validity(&certificate, now)) {
        Some(why) => Err(unusable(why)),
        None => Ok(certificate),
    }
}

/// What makes it useless for logging in with `key`, whenever that is.
fn check(certificate: &Certificate, key: &KeyData) -> Option<String> {
    if certificate.cert_type() != CertType::User {
        return Some(
            "it is a certificate for a host, not for a user (ssh-keygen -s makes one of those without -h)".into(),
        );
    }
    if certificate.public_key() != key {
        let of = fingerprint(certificate.public_key());
        return Some(format!("it is for another key, {of}"));
    }
    if let Some(why) = objection(certificate.signature_key()) {
        return Some(format!("its authority's key is not taken: {why}"));
    }
    if !certificate.extensions().contains_key(FORWARDING) {
        return Some(format!(
            "it lacks the extension {FORWARDING}, without which no channel to a machine is opened \
             (ssh-keygen -s … -O {FORWARDING})"
        ));
    }
    None
}

/// What is wrong with the time.
pub(super) fn validity(certificate: &Certificate, now: u64) -> Option<String> {
    let (from, to) = (certificate.valid_after(), certificate.valid_before());
    if now < from {
        Some(format!("it is valid only from {} on, and it is {} here", utc::text(from), utc::text(now)))
    } else if now >= to {
        Some(format!("it has expired, on {}; have its authority sign another one", utc::text(to)))
    } else {
        None
    }
}

/// When it expires, in seconds since 1970; `None`: never.
pub(super) fn expires(certificate: &Certificate) -> Option<u64> {
    Some(certificate.valid_before()).filter(|end| *end != FOREVER)
}

/// How messages name it.
pub(super) fn describe(certificate: &Certificate) -> String {
    let authority = fingerprint(certificate.signature_key());
    let end = expires(certificate).map_or_else(|| "for ever".to_owned(), |end| format!("until {}", utc::text(end)));
    let (id, serial) = (certificate.key_id().escape_debug(), certificate.serial());
    format!("certificate \"{id}\" (serial {serial}) of the authority {authority}, valid {end}")
}
