//! Which host keys a tunnel accepts: pinned ones, and no other.

use std::fmt;
use std::path::Path;

use aws_lc_rs::hmac;
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKey};

use super::error::HostKeyError;
use super::identity::fingerprint;
use super::options::Endpoint;

/// The port for which a `known_hosts` file has bare names.
const SSH_PORT: u16 = 22;

/// The host keys to accept: at least one.
#[derive(Clone, PartialEq, Eq)]
pub struct HostKey {
    pinned: Vec<PublicKey>,
    revoked: Vec<PublicKey>,
}

/// What is to be thought of a key that a server has shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    Mismatch,
    Revoked,
}

impl HostKey {
    /// Pins one key, given as `ssh-ed25519 AAAA…` with or without a comment.
    pub fn from_line(line: &str) -> Result<Self, HostKeyError> {
        let key =
            PublicKey::from_openssh(line.trim()).map_err(|error| HostKeyError::NotAKey { why: error.to_string() })?;
        Ok(Self { pinned: vec![key], revoked: Vec::new() })
    }

    /// Pins the keys that an OpenSSH `known_hosts` file has for `server`: plain, hashed and wildcard entries, those of
    /// other ports as `[host]:port`. Keys marked `@revoked` are never accepted; certificate authorities are passed over.
    pub fn from_known_hosts(path: impl AsRef<Path>, server: &Endpoint) -> Result<Self, HostKeyError> {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).map_err(|error| HostKeyError::Unreadable { path: path.to_owned(), error })?;
        let host = server.host.to_lowercase();
        let looked_for = if server.port == SSH_PORT { host } else { format!("[{host}]:{}", server.port) };
        let mut found = Self { pinned: Vec::new(), revoked: Vec::new() };
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            // A line about another host may hold a key of a type that nobody here knows, so hosts are looked at first.
            let mut words = line.split_whitespace().peekable();
            words.next_if(|word| word.starts_with('@'));
            let Some(Ok(hosts)) = words.next().map(str::parse::<HostPatterns>) else { continue };
            if !is_about(&hosts, &looked_for) {
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let entry: Entry =
                words.join(" ").parse().map_err(|error: russh::keys::ssh_key::Error| HostKeyError::BadLine {
                    path: path.to_owned(),
                    line: index + 1,
                    server: server.to_string(),
                    why: error.to_string(),
                })?;
            match entry.marker() {
                None => found.pinned.push(entry.public_key().clone()),
                Some(Marker::Revoked) => found.revoked.push(entry.public_key().clone()),
                Some(Marker::CertAuthority) => {}
            }
        }
        if found.pinned.is_empty() {
            return Err(HostKeyError::NotListed { path: path.to_owned(), server: server.to_string(), looked_for });
        }
        Ok(found)
    }

    /// Type and SHA-256 fingerprint of each pinned key.
    pub fn fingerprints(&self) -> Vec<String> {
        self.pinned.iter().map(fingerprint).collect()
    }

    pub(super) fn judge(&self, shown: &PublicKey) -> Verdict {
        let is_shown = |key: &PublicKey| key.key_data() == shown.key_data();
        if self.revoked.iter().any(is_shown) {
            Verdict::Revoked
        } else if self.pinned.iter().any(is_shown) {
            Verdict::Accepted
        } else {
            Verdict::Mismatch
        }
    }

    /// Host key algorithms in the order to ask for them: first those of the pinned keys, so that a server with several
    /// keys shows one of these; then the others, so that a server without one still shows what it has, and the error can
    /// name it. SHA-1 signatures are not asked for.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        let (mut first, others): (Vec<_>, Vec<_>) = known_algorithms()
            .into_iter()
            .partition(|algorithm| self.pinned.iter().any(|key| has_type(key, algorithm)));
        first.extend(others);
        first
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostKey").field(&self.fingerprints()).finish()
    }
}

fn known_algorithms() -> [Algorithm; 6] {
    [
        Algorithm::Ed25519,
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
        Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    ]
}

/// An RSA key has one type and signs with several algorithms.
fn has_type(key: &PublicKey, algorithm: &Algorithm) -> bool {
    match algorithm {
        Algorithm::Rsa { .. } => matches!(key.algorithm(), Algorithm::Rsa { .. }),
        other => key.algorithm() == *other,
    }
}

fn is_about(hosts: &HostPatterns, looked_for: &str) -> bool {
    match hosts {
        HostPatterns::HashedName { salt, hash } => {
            // The file format's own choice; it hides names, it protects no key.
            let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
            hmac::verify(&key, looked_for.as_bytes(), hash).is_ok()
        }
        HostPatterns::Patterns(patterns) => {
            let mut matched = false;
            for pattern in patterns {
                let pattern = pattern.to_lowercase();
                match pattern.strip_prefix('!') {
                    Some(excluded) if matches_glob(excluded.as_bytes(), looked_for.as_bytes()) => return false,
                    Some(_) => {}
                    None => matched |= matches_glob(pattern.as_bytes(), looked_for.as_bytes()),
                }
            }
            matched
        }
    }
}

/// `*` stands for any characters, `?` for one. Without backtracking over more than the last star, so that no pattern takes
/// longer than pattern times name.
fn matches_glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at_pattern, mut at_name) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while at_name < name.len() {
        match pattern.get(at_pattern) {
            Some(b'*') => {
                last_star = Some((at_pattern, at_name));
                at_pattern += 1;
            }
            Some(&wanted) if wanted == b'?' || wanted == name[at_name] => {
                at_pattern += 1;
                at_name += 1;
            }
            _ => match last_star {
                // The star takes one more character.
                Some((star, taken)) => {
                    last_star = Some((star, taken + 1));
                    at_pattern = star + 1;
                    at_name = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at_pattern..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use russh::keys::PrivateKey;

    use super::*;

    fn new_key() -> PublicKey {
        let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).expect("a key");
        key.public_key().clone()
    }

    fn line(key: &PublicKey) -> String {
        key.to_openssh().expect("encoded")
    }

    fn server(address: &str) -> Endpoint {
        address.parse().expect("an address")
    }

    struct File(tempfile::NamedTempFile);

    impl File {
        fn new(text: &str) -> Self {
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), text).expect("written");
            Self(file)
        }

        fn keys(&self, address: &str) -> Result<HostKey, HostKeyError> {
            HostKey::from_known_hosts(self.0.path(), &server(address))
        }
    }

    #[test]
    fn a_line_pins_its_key_and_no_other() {
        let (pinned, other) = (new_key(), new_key());
        for given in [line(&pinned), format!("{} the host's own\n", line(&pinned))] {
            let host_key = HostKey::from_line(&given).expect("a key");
            assert_eq!(host_key.judge(&pinned), Verdict::Accepted);
            assert_eq!(host_key.judge(&other), Verdict::Mismatch);
        }
        assert!(HostKey::from_line("ssh-ed25519").expect_err("no key").to_string().contains("ssh-ed25519 AAAA"));
        assert!(HostKey::from_line("").is_err());
    }

    #[test]
    fn known_hosts_of_every_form_are_found() {
        let keys: Vec<_> = (0..6).map(|_| new_key()).collect();
        let file = File::new(&format!(
            "# a comment\n\
             \n\
             hsm-a.example,192.0.2.1 {}\n\
             [hsm-b.example]:2222 {}  a comment\n\
             [2001:db8::1]:2222,2001:db8::1\t{}\n\
             *.farm.example,!bad.farm.example {}\n\
             hsm-a.example {}\n\
             other.example ssh-unheard-of AAAA\n\
             HSM-C.example {}\n",
            line(&keys[0]),
            line(&keys[1]),
            line(&keys[2]),
            line(&keys[3]),
            line(&keys[4]),
            line(&keys[5]),
        ));
        for (address, expected) in [
            ("hsm-a.example:22", &keys[0]),
            ("hsm-a.example:22", &keys[4]),
            ("192.0.2.1:22", &keys[0]),
            ("hsm-b.example:2222", &keys[1]),
            ("[2001:db8::1]:2222", &keys[2]),
            ("[2001:db8::1]:22", &keys[2]),
            ("good.farm.example:22", &keys[3]),
            ("hsm-c.example:22", &keys[5]),
        ] {
            assert_eq!(file.keys(address).expect(address).judge(expected), Verdict::Accepted, "{address}");
        }
        for address in ["hsm-a.example:2222", "hsm-b.example:22", "bad.farm.example:22", "example:22"] {
            let error = file.keys(address).expect_err(address);
            assert!(matches!(error, HostKeyError::NotListed { .. }), "{error}");
            assert!(error.to_string().contains(address), "{error}");
        }
        assert!(matches!(file.keys("other.example:22"), Err(HostKeyError::BadLine { line: 8, .. })));
        let missing = HostKey::from_known_hosts("/nonexistent/known_hosts", &server("hsm-a.example:22"));
        assert!(matches!(missing, Err(HostKeyError::Unreadable { .. })));
    }

    #[test]
    fn hashed_names_match_what_ssh_keygen_makes_of_them() {
        // Made by `ssh-keygen -H` of lines for hsm-a.example and [hsm-b.example]:2222.
        let pinned = new_key();
        let file = File::new(&format!(
            "|1|Hj7yx+MiBI0Z1GNTs50QOzwnnXE=|rJkA7CZdMwAhu/k5Fnp3PRBSE6o= {key}\n\
             |1|MeZ/orVPExs8Ng5GK5CAieVmk40=|DcqZq9sUYwlx4y4yrxZGoF/Eo+U= {key}\n",
            key = line(&pinned),
        ));
        assert_eq!(file.keys("hsm-a.example:22").expect("listed").judge(&pinned), Verdict::Accepted);
        assert_eq!(file.keys("hsm-b.example:2222").expect("listed").judge(&pinned), Verdict::Accepted);
        assert!(file.keys("hsm-b.example:22").is_err());
    }

    #[test]
    fn a_revoked_key_is_never_accepted() {
        let (good, bad) = (new_key(), new_key());
        let file = File::new(&format!(
            "hsm-a.example {}\nhsm-a.example {}\n@revoked * {}\n@cert-authority *.example {}\n",
            line(&good),
            line(&bad),
            line(&bad),
            line(&new_key()),
        ));
        let host_key = file.keys("hsm-a.example:22").expect("listed");
        assert_eq!(host_key.judge(&good), Verdict::Accepted);
        assert_eq!(host_key.judge(&bad), Verdict::Revoked);
        assert_eq!(host_key.fingerprints().len(), 2);
    }

    #[test]
    fn the_pinned_type_is_asked_for_first() {
        let rsa = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Rsa { hash: None }).expect("a key");
        let algorithms = HostKey::from_line(&line(rsa.public_key())).expect("a key").algorithms();
        assert!(matches!(algorithms[0], Algorithm::Rsa { hash: Some(HashAlg::Sha512) }));
        assert!(matches!(algorithms[1], Algorithm::Rsa { hash: Some(HashAlg::Sha256) }));
        assert_eq!(algorithms.len(), 6);
        assert_eq!(HostKey::from_line(&line(&new_key())).expect("a key").algorithms()[0], Algorithm::Ed25519);
    }

    #[test]
    fn globs_match_as_in_openssh() {
        for (pattern, name, expected) in [
            ("*", "anything", true),
            ("*.example", "a.b.example", true),
            ("*.example", "example", false),
            ("hsm-?", "hsm-a", true),
            ("hsm-?", "hsm-", false),
            ("h*m*a", "hsm-m-aa", true),
            ("[*]:2222", "[hsm]:2222", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches_glob(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
