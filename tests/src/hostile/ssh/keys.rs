//! SSH's way to write things down, and to make keys of what was agreed on.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// Appends a string with its length.
pub(super) fn string(into: &mut Vec<u8>, text: &[u8]) {
    into.extend_from_slice(&u32::try_from(text.len()).expect("a length fits").to_be_bytes());
    into.extend_from_slice(text);
}

/// Takes a string off the front.
pub(super) fn take_string<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = from.split_first_chunk::<4>()?;
    let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    *from = rest;
    Some(text)
}

/// Takes a number off the front.
pub(super) fn take_u32(from: &mut &[u8]) -> Option<u32> {
    let (number, rest) = from.split_first_chunk::<4>()?;
    *from = rest;
    Some(u32::from_be_bytes(*number))
}

/// A number without a sign, written as one that has one.
pub(super) fn mpint(number: &[u8]) -> Vec<u8> {
    let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    let mut signed = Vec::new();
    if number.get(first).is_some_and(|byte| byte & 0x80 != 0) {
        signed.push(0);
    }
    signed.extend_from_slice(&number[first..]);
    let mut written = Vec::new();
    string(&mut written, &signed);
    written
}

/// An Ed25519 key as SSH names it.
pub(super) fn public_blob(key: &[u8]) -> Vec<u8> {
    let mut blob = Vec::new();
    string(&mut blob, b"ssh-ed25519");
    string(&mut blob, key);
    blob
}

/// What two ends agreed on.
pub(super) struct Agreed {
    /// The secret, as it goes into hashes.
    pub(super) secret: Vec<u8>,
    /// This exchange's hash.
    pub(super) hash: Vec<u8>,
    /// The first exchange's.
    pub(super) session: Vec<u8>,
}

impl Agreed {
    /// The key or the initial value of this letter; at most 32 bytes of it.
    pub(super) fn derive(&self, letter: u8) -> Vec<u8> {
        let mut hash = Context::new(&SHA256);
        for part in [&self.secret[..], &self.hash, &[letter], &self.session] {
            hash.update(part);
        }
        hash.finish().as_ref().to_vec()
    }
}

/// SHA-256.
pub(super) fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

/// Base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let is_padding = digit > three.len();
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(if is_padding { '=' } else { DIGITS[value as usize].into() });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_as_others_do() {
        assert_eq!(["", "f", "fo", "foo"].map(|text| base64(text.as_bytes())), ["", "Zg==", "Zm8=", "Zm9v"]);
        assert_eq!(mpint(&[0, 0x80, 1]), [0, 0, 0, 3, 0, 0x80, 1]);
        assert_eq!(mpint(&[0, 0]), [0, 0, 0, 0]);
    }
}
