//! Reads `known_hosts` files as OpenSSH's client does.

use std::path::Path;

use aws_lc_rs::hmac;
use russh::keys::ssh_key::known_hosts::{Entry, HostPatterns, Marker};

use super::super::algorithms::objection;
use super::super::fingerprint;
use super::super::key_error::HostKeyError;
use super::super::options::Endpoint;
use super::HostKey;

/// The port for which a `known_hosts` file has bare names.
const SSH_PORT: u16 = 22;

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;

/// Reads what a file says of a server.
pub(super) fn read(path: &Path, server: &Endpoint) -> Result<HostKey, HostKeyError> {
    let unreadable = |error| HostKeyError::Unreadable { path: path.to_owned(), error };
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_FILE {
        return Err(unreadable(std::io::Error::other(format!("it has {length} bytes, above {MAX_FILE}"))));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let host = server.host.to_lowercase();
    let looked_for = if server.port == SSH_PORT { host.clone() } else { format!("[{host}]:{}", server.port) };
    let mut found = HostKey { pinned: Vec::new(), authorities: Vec::new(), revoked: Vec::new() };
    let mut passed_over = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // A line about another host may hold a key of a type that nobody here knows, so hosts are looked at first.
        let mut words = line.split_whitespace().peekable();
        let is_marked = words.next_if(|word| word.starts_with('@')).is_some();
        let Some(Ok(hosts)) = words.next().map(str::parse::<HostPatterns>) else { continue };
        // An authority, or what is revoked, is not a matter of the port (OpenSSH looks without it too).
        let is_about_it = is_about(&hosts, &looked_for) || (is_marked && is_about(&hosts, &host));
        if !is_about_it {
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
        let key = entry.public_key();
        let trusted = match entry.marker() {
            Some(Marker::Revoked) => {
                found.revoked.push(key.clone());
                continue;
            }
            Some(Marker::CertAuthority) => &mut found.authorities,
            None => &mut found.pinned,
        };
        match objection(key.key_data()) {
            // `ssh-keyscan` writes down every key of a server, also the one that it should not have.
            Some(why) => passed_over = Some(HostKeyError::NotTaken { key: fingerprint(key.key_data()), why }),
            None => trusted.push(key.clone()),
        }
    }
    if found.pinned.is_empty() && found.authorities.is_empty() {
        let server = server.to_string();
        return Err(passed_over.unwrap_or(HostKeyError::NotListed { path: path.to_owned(), server, looked_for }));
    }
    Ok(found)
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
pub(super) fn matches_glob(pattern: &[u8], name: &[u8]) -> bool {
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
