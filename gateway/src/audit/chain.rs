//! What holds the records together: each line's hash is over the hash before it and the line itself.
//!
//! A line is a JSON object whose last member is its hash, `…,"hash":"64 digits"}`. What is hashed is the hash before (32 bytes, zero
//! before a chain's first line) and the line's bytes up to the comma before `"hash"`. With a key it is HMAC-SHA-256 of the same,
//! without one SHA-256. The audit log's thread seals lines; [`super::verify`] reads them back.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::{digest, hmac};
use zeroize::Zeroizing;

use super::json::write_hex;

/// The longest line that is read, in bytes. No record comes near it: the longest has a few texts of [`MAX_TEXT`](super::MAX_TEXT) bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// The shortest key, in bytes.
pub const MIN_KEY: usize = 16;

const BEFORE_HASH: &[u8] = b",\"hash\":\"";
const AFTER_HASH: &[u8] = b"\"}";

/// The hash of a line and all lines before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = Vec::with_capacity(64);
        write_hex(&mut digits, &self.0);
        f.write_str(&String::from_utf8_lossy(&digits))
    }
}

impl FromStr for Hash {
    type Err = NoHash;

    fn from_str(text: &str) -> Result<Self, NoHash> {
        Self::read(text.as_bytes()).ok_or(NoHash)
    }
}

/// A text is no hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no hash; write its 64 digits, 0 to 9 and a to f")]
pub struct NoHash;

impl Hash {
    fn read(text: &[u8]) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let text: &[u8; 64] = text.try_into().ok()?;
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(text.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(hash))
    }
}

/// How far a chain has come: its last line's number and hash. Kept elsewhere, it shows a cut end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Head {
    /// The last line's number; the first line has 1, and 0 stands before it.
    pub sequence: u64,
    /// The last line's hash.
    pub hash: Hash,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.hash)
    }
}

/// What makes hashes that nobody makes who does not have it. Cheap to clone; wiped when it is dropped; never shown.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    /// A key of these bytes, which should be random: 32 of them are enough, and [`MIN_KEY`] the least.
    ///
    /// # Errors
    /// There are too few.
    pub fn new(bytes: &Zeroizing<Vec<u8>>) -> Result<Self, ShortKey> {
        // Whoever made the file with an editor or `openssl rand -hex 32` has a line's end in it.
        let bytes = bytes.trim_ascii_end();
        if bytes.len() < MIN_KEY {
            return Err(ShortKey(bytes.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }
}

/// A key is too short to keep anybody from guessing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key has {0} bytes, and must have {MIN_KEY}; `openssl rand -hex 32` makes a good one")]
pub struct ShortKey(usize);

/// The hash of a line that follows `before`. `body` is the line up to the comma before its own hash.
pub(super) fn hash(key: Option<&Key>, before: Hash, body: &[u8]) -> Hash {
    let mut hash = Hash::default();
    if let Some(Key(key)) = key {
        let mut context = hmac::Context::with_key(key);
        context.update(&before.0);
        context.update(body);
        hash.0.copy_from_slice(context.sign().as_ref());
    } else {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&before.0);
        context.update(body);
        hash.0.copy_from_slice(context.finish().as_ref());
    }
    hash
}

/// SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// A chain that is written.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) head: Head,
    key: Option<Key>,
}

impl Chain {
    /// A chain that goes on from `head`.
    pub(super) fn from(head: Head, key: Option<Key>) -> Self {
        Self { head, key }
    }

    /// What its hashes are, for whoever wants to verify them.
    pub(super) fn algorithm(&self) -> &'static str {
        if self.key.is_some() { "hmac-sha256" } else { "sha256" }
    }

    /// The next line's number.
    pub(super) fn next_sequence(&self) -> u64 {
        self.head.sequence + 1
    }

    /// Seals the line that was begun at `start` of `out` with [`next_sequence`](Self::next_sequence), and ends it.
    pub(super) fn seal(&mut self, out: &mut Vec<u8>, start: usize) {
        self.head =
            Head { sequence: self.head.sequence + 1, hash: hash(self.key.as_ref(), self.head.hash, &out[start..]) };
        out.extend(BEFORE_HASH);
        write_hex(out, &self.head.hash.0);
        out.extend(AFTER_HASH);
        out.push(b'\n');
    }
}

/// A line as it was read, in parts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sealed<'l> {
    pub(super) sequence: u64,
    /// What the hash is over.
    pub(super) body: &'l [u8],
    /// The hash that stands in the line.
    pub(super) hash: Hash,
}

impl<'l> Sealed<'l> {
    /// Takes a line apart, which stands without its end; `None` where it is none of ours.
    pub(super) fn read(line: &'l [u8]) -> Option<Self> {
        if line.len() > MAX_LINE {
            return None;
        }
        let digits = line.strip_prefix(b"{\"seq\":")?;
        let digits = &digits[..digits.iter().position(|byte| !byte.is_ascii_digit())?];
        if digits.is_empty() || digits.len() > 1 && digits[0] == b'0' {
            return None;
        }
        let sequence = std::str::from_utf8(digits).ok()?.parse().ok().filter(|sequence| *sequence > 0)?;
        let before = line.strip_suffix(AFTER_HASH)?;
        let (before, hash) = before.split_at_checked(before.len().checked_sub(64)?)?;
        let body = before.strip_suffix(BEFORE_HASH)?;
        Some(Self { sequence, body, hash: Hash::read(hash)? })
    }

    /// Its head, believing what it says.
    pub(super) fn head(&self) -> Head {
        Head { sequence: self.sequence, hash: self.hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_taken_apart() {
        let mut chain = Chain::from(Head::default(), None);
        let mut out = b"what stood there before\n".to_vec();
        let start = out.len();
        out.extend(b"{\"seq\":1,\"event\":\"x\"");
        chain.seal(&mut out, start);
        let line = out[start..].strip_suffix(b"\n").expect("a line");
        let sealed = Sealed::read(line).expect("ours");
        assert_eq!(sealed.head(), chain.head);
        assert_eq!(sealed.body, b"{\"seq\":1,\"event\":\"x\"");
        assert_eq!(sealed.hash, hash(None, Hash::default(), sealed.body));
        assert_eq!(sealed.hash.to_string().parse(), Ok(sealed.hash));
    }

    #[test]
    fn the_hash_is_the_standards() {
        // printf '{"seq":1' after 32 zero bytes, by sha256sum and by `openssl dgst -sha256 -mac hmac`.
        assert_eq!(hash(None, Hash::default(), b"{\"seq\":1").to_string(), SHA256);
        let key = Key::new(&Zeroizing::new(b"0123456789abcdef\n".to_vec())).expect("long enough");
        assert_eq!(hash(Some(&key), Hash::default(), b"{\"seq\":1").to_string(), HMAC);
    }

    #[test]
    fn no_key_is_shown_and_none_is_short() {
        let bytes = |count| Zeroizing::new(vec![b'k'; count]);
        assert_eq!(Key::new(&bytes(MIN_KEY - 1)).expect_err("too short"), ShortKey(MIN_KEY - 1));
        let key = Key::new(&bytes(MIN_KEY)).expect("long enough");
        assert_eq!(format!("{key:?}"), "Key(..)");
    }

    #[test]
    fn what_is_none_of_ours_is_none() {
        let hash = "0".repeat(64);
        for line in [
            String::new(),
            "{}".to_owned(),
            format!("{{\"seq\":1,\"hash\":\"{}\"}}", &hash[1..]),
            format!("{{\"seq\":0,\"x\":1,\"hash\":\"{hash}\"}}"),
            format!("{{\"seq\":01,\"x\":1,\"hash\":\"{hash}\"}}"),
            format!("{{\"seq\":,\"x\":1,\"hash\":\"{hash}\"}}"),
            format!("{{\"seq\":99999999999999999999,\"x\":1,\"hash\":\"{hash}\"}}"),
            format!("{{\"seq\":1,\"x\":1,\"hash\":\"{}\"}}", "F".repeat(64)),
            format!("{{\"seq\":1,\"x\":1,\"hash\":\"{hash}\"}} "),
            format!("{{\"seq\":1,\"x\":\"{}\",\"hash\":\"{hash}\"}}", "x".repeat(MAX_LINE)),
        ] {
            assert!(Sealed::read(line.as_bytes()).is_none(), "{}", &line[..line.len().min(100)]);
        }
    }

    const SHA256: &str = "9f186e4202fb2b3f60caaf20c0eab567a648a0bf63b6105e2794fa624c0dd11d";
    const HMAC: &str = "f002b93056be369fa0ebb735a1ee0b07ff7899ba9d8881772df962f7b5e75177";
}
