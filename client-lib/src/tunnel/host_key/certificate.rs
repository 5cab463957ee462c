//! Host certificates: what has to be true of one, beyond its being of an authority that is trusted.
//!
//! As OpenSSH's client has it (`sshkey_cert_check_host`), and stricter in one thing: a certificate without principals is
//! valid for no host, not for all.

use russh::keys::Certificate;
use russh::keys::ssh_key::HashAlg;
use russh::keys::ssh_key::certificate::CertType;

use super::super::algorithms::{Algorithms, is_signature_allowed, objection};
use super::super::options::Endpoint;
use super::super::utc;
use super::known_hosts::matches_glob;

/// What is wrong with a certificate that `server` has shown, whose authority is trusted; `None`: nothing.
pub(super) fn check(certificate: &Certificate, server: &Endpoint, now: u64) -> Option<String> {
    if certificate.cert_type() != CertType::Host {
        return Some(
            "its certificate is one for users, not for hosts (ssh-keygen -s … -h makes one for hosts)".to_owned(),
        );
    }
    if let Some(why) = objection(certificate.signature_key()) {
        return Some(format!("the authority's key is not taken: {why}"));
    }
    let signed_with = certificate.signature().algorithm();
    // The widest policy: what is allowed to sign is the same in all.
    if !is_signature_allowed(Algorithms::Modern, signed_with.as_str()) {
        return Some(format!(
            "its certificate is signed with {}, which is not taken; have it signed anew with SHA-2 (ssh-keygen -t rsa-sha2-512 -s …)",
            signed_with.as_str()
        ));
    }
    let (from, to) = (certificate.valid_after(), certificate.valid_before());
    if now < from {
        return Some(format!(
            "its certificate is valid only from {} on, and it is {} here; check the clocks",
            utc::text(from),
            utc::text(now)
        ));
    }
    if now >= to {
        return Some(format!("its certificate has expired, on {}; have its authority sign another one", utc::text(to)));
    }
    // The signature, and once more authority and time.
    let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
    if certificate.validate_at(now, [&authority]).is_err() {
        return Some("its certificate's signature is wrong: someone has changed it".to_owned());
    }
    if let Some((option, _)) = certificate.critical_options().iter().next() {
        return Some(format!(
            "its certificate has the critical option {option:?}, which nobody here knows; have it signed without"
        ));
    }
    if !is_for(certificate.valid_principals(), server) {
        return Some(format!(
            "its certificate is for {:?}, not for {}; have it signed for that name (ssh-keygen -s … -h -n {})",
            certificate.valid_principals(),
            server.host,
            server.host
        ));
    }
    None
}

/// Whether a principal is the server's name as it was asked for, whatever the port; a pattern with `*` or `?` may match it. For
/// ports other than 22, `[name]:port` does too.
fn is_for(principals: &[String], server: &Endpoint) -> bool {
    let host = server.host.to_lowercase();
    let with_port = format!("[{host}]:{}", server.port);
    principals.iter().any(|principal| {
        let principal = principal.to_lowercase();
        [&host, &with_port].into_iter().any(|name| matches_glob(principal.as_bytes(), name.as_bytes()))
    })
}
