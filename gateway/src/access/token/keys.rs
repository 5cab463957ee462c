//! A provider's public keys, from its JSON Web Key Set (RFC 7517), and what they may sign.

use std::fmt;

use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RsaParameters,
    RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{NAME_LIMIT, TokenError, json};

/// The largest key set that is read, in bytes.
pub(super) const DOCUMENT_LIMIT: usize = 1 << 20;
/// The most keys that a set may have.
const KEYS: usize = 64;
/// The most keys that one token is tried with.
const TRIES: usize = 16;
/// The largest RSA key, in bits: what aws-lc checks signatures of.
const RSA_MOST_BITS: usize = 8192;

/// The public keys of one provider.
#[derive(Debug, Default)]
pub struct Keys {
    list: Vec<Key>,
    notes: Vec<String>,
}

/// Why a key set can not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// It is larger than 1 MiB.
    #[error("the key set is larger than 1 MiB; name the provider's JWKS document")]
    TooLarge,
    /// It is not a JSON Web Key Set.
    #[error("it is not a JSON Web Key Set, an object with a list `keys`; name the provider's JWKS document")]
    NotAKeySet,
    /// It has more than 64 keys.
    #[error("the key set has {0} keys, above the limit of {KEYS}; name a set of this provider's keys only")]
    TooMany(usize),
    /// None of its keys can be used.
    #[error("the key set has no key that can be used{}", listed(.0))]
    NoneUsable(Vec<String>),
}

fn listed(notes: &[String]) -> String {
    let notes: Vec<String> = notes.iter().map(|note| format!("; {note}")).collect();
    notes.concat()
}

/// How a token may be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

impl Algorithm {
    /// The algorithm of this name. `none` and the HMACs, whose key a verifier would share, are no algorithms here.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            // RFC 9864 gives it the name of its curve.
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::Es256 | Self::Es384 | Self::EdDsa => return None,
        })
    }
}

/// One public key.
struct Key {
    kid: Option<String>,
    /// The only algorithm that its owner uses it with, where the set says so.
    only: Option<Algorithm>,
    public: Public,
}

/// A key's type, which says what may be done with it.
enum Public {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    P256(ParsedPublicKey),
    P384(ParsedPublicKey),
    Ed25519(ParsedPublicKey),
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.public {
            Public::Rsa(_) => "RSA",
            Public::P256(_) => "P-256",
            Public::P384(_) => "P-384",
            Public::Ed25519(_) => "Ed25519",
        };
        formatter.debug_struct("Key").field("kid", &self.kid).field("kind", &kind).finish_non_exhaustive()
    }
}

impl Key {
    fn fits(&self, algorithm: Algorithm) -> bool {
        let by_type = match self.public {
            Public::Rsa(_) => algorithm.rsa().is_some(),
            Public::P256(_) => algorithm == Algorithm::Es256,
            Public::P384(_) => algorithm == Algorithm::Es384,
            Public::Ed25519(_) => algorithm == Algorithm::EdDsa,
        };
        by_type && self.only.is_none_or(|only| only == algorithm)
    }

    fn has_signed(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (&self.public, algorithm.rsa()) {
            (Public::Rsa(key), Some(parameters)) => key.verify(parameters, message, signature).is_ok(),
            (Public::P256(key) | Public::P384(key) | Public::Ed25519(key), None) => {
                key.verify_sig(message, signature).is_ok()
            }
            _ => false,
        }
    }
}

impl Keys {
    /// Reads a key set. Keys of other types and for other purposes are passed over, as RFC 7517 has it; so are RSA keys of fewer
    /// than `rsa_min_bits` bits. [`notes`](Self::notes) tells of those that were passed over for a reason that an operator may
    /// want to know.
    ///
    /// # Errors
    /// It is no key set, has too many keys, or none that can be used.
    pub fn from_jwks(document: &[u8], rsa_min_bits: usize) -> Result<Self, KeysError> {
        if document.len() > DOCUMENT_LIMIT {
            return Err(KeysError::TooLarge);
        }
        let document = json::object(document).map_err(|_| KeysError::NotAKeySet)?;
        let Some(Value::Array(list)) = document.get("keys") else { return Err(KeysError::NotAKeySet) };
        if list.len() > KEYS {
            return Err(KeysError::TooMany(list.len()));
        }
        let mut keys = Self::default();
        for (position, key) in list.iter().enumerate() {
            let Value::Object(key) = key else { return Err(KeysError::NotAKeySet) };
            match read(key, rsa_min_bits) {
                Ok(Some(key)) => keys.list.push(key),
                Ok(None) => {}
                Err(why) => keys.notes.push(format!("its key {} {why}", position + 1)),
            }
        }
        if keys.list.is_empty() {
            return Err(KeysError::NoneUsable(keys.notes));
        }
        Ok(keys)
    }

    /// How many keys can be used.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Which keys can't be used and why, by their positions from 1; without what they hold.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether one of the keys has signed the message. A token that names its key is tried with the keys of that id, or, where
    /// there are none, with those that have no id; one that names none is tried with all that fit its algorithm.
    pub(super) fn check(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), TokenError> {
        let is_known = kid.is_some_and(|kid| self.list.iter().any(|key| key.kid.as_deref() == Some(kid)));
        let is_meant = |key: &&Key| match (kid, &key.kid) {
            (None, _) => true,
            (Some(kid), Some(of_key)) => kid == of_key,
            (Some(_), None) => !is_known,
        };
        let mut error = TokenError::UnknownKey;
        for key in self.list.iter().filter(is_meant).filter(|key| key.fits(algorithm)).take(TRIES) {
            if key.has_signed(algorithm, message, signature) {
                return Ok(());
            }
            // Under an id that is not known, the right key may still be one that has not been read yet.
            if kid.is_none() || is_known {
                error = TokenError::Signature;
            }
        }
        Err(error)
    }
}

/// One key of a set; `None` where it is not for signatures that are taken here.
fn read(key: &Map<String, Value>, rsa_min_bits: usize) -> Result<Option<Key>, String> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let is_for_signatures = text("use").is_none_or(|purpose| purpose == "sig")
        && match key.get("key_ops") {
            None => true,
            Some(operations) => operations.as_array().is_some_and(|list| list.iter().any(|name| name == "verify")),
        };
    let kind = (text("kty").unwrap_or_default(), text("crv").unwrap_or_default());
    if !is_for_signatures || !matches!(kind, ("RSA", _) | ("EC", "P-256" | "P-384") | ("OKP", "Ed25519")) {
        return Ok(None);
    }
    if key.contains_key("d") {
        return Err("is a private key, which must never be published; have the provider replace it".to_owned());
    }
    let only = match key.get("alg") {
        None => None,
        Some(name) => match name.as_str().and_then(Algorithm::named) {
            Some(algorithm) => Some(algorithm),
            // It is for something else.
            None => return Ok(None),
        },
    };
    let kid = match key.get("kid") {
        None => None,
        Some(Value::String(kid)) if (1..=NAME_LIMIT).contains(&kid.len()) => Some(kid.clone()),
        Some(_) => return Err("has an id (`kid`) that is no text of an id's length".to_owned()),
    };
    let bytes = |name: &str| {
        let decoded = text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        decoded.ok_or_else(|| format!("has no `{name}` in base64url"))
    };
    let public = match kind {
        ("RSA", _) => rsa(bytes("n")?, bytes("e")?, rsa_min_bits)?,
        ("EC", "P-256") => Public::P256(point(&ECDSA_P256_SHA256_FIXED, 32, &bytes("x")?, &bytes("y")?)?),
        ("EC", _) => Public::P384(point(&ECDSA_P384_SHA384_FIXED, 48, &bytes("x")?, &bytes("y")?)?),
        _ => {
            let public = ParsedPublicKey::new(&ED25519, bytes("x")?);
            Public::Ed25519(public.map_err(|_| "is no Ed25519 key".to_owned())?)
        }
    };
    let key = Key { kid, only, public };
    if key.only.is_some_and(|only| !key.fits(only)) {
        return Err("has an `alg` that is not for its type".to_owned());
    }
    Ok(Some(key))
}

fn rsa(n: Vec<u8>, e: Vec<u8>, min_bits: usize) -> Result<Public, String> {
    let without_zeros = |bytes: Vec<u8>| bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<u8>>();
    let (n, e) = (without_zeros(n), without_zeros(e));
    let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
    if bits < min_bits {
        return Err(format!("is an RSA key of {bits} bits, and token.rsa_min_bits is {min_bits}"));
    }
    if bits > RSA_MOST_BITS {
        return Err(format!("is an RSA key of {bits} bits, above the limit of {RSA_MOST_BITS}"));
    }
    // An exponent of 1 would make every message its own signature; a long one would make each check slow.
    let is_odd = |bytes: &[u8]| bytes.last().is_some_and(|last| last % 2 == 1);
    if !is_odd(&n) || !is_odd(&e) || e.len() > 4 || e == [1] {
        return Err("is an RSA key with numbers that none has".to_owned());
    }
    let key = RsaPublicKeyComponents { n, e };
    match key.to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256) {
        Ok(_) => Ok(Public::Rsa(key)),
        Err(_) => Err("is an RSA key with numbers that none has".to_owned()),
    }
}

/// A point of a curve, from its two halves, each of the curve's size (RFC 7518, 6.2.1). Refused where it is not on the curve.
fn point(
    algorithm: &'static signature::EcdsaVerificationAlgorithm,
    size: usize,
    x: &[u8],
    y: &[u8],
) -> Result<ParsedPublicKey, String> {
    if x.len() != size || y.len() != size {
        return Err("has coordinates of another length than its curve's".to_owned());
    }
    ParsedPublicKey::new(algorithm, [&[4], x, y].concat()).map_err(|_| "is not a point of its curve".to_owned())
}
