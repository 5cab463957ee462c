//! A provider of tokens, as far as tests need one: keys of every type, key sets, tokens.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Rsa, Self::P256, Self::P384, Self::Ed25519];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Ed25519 => "ed25519",
        }
    }

    /// What its keys may be used with.
    pub(super) fn algorithms(self) -> &'static [&'static str] {
        match self {
            Self::Rsa => &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
            Self::P256 => &["ES256"],
            Self::P384 => &["ES384"],
            Self::Ed25519 => &["EdDSA", "Ed25519"],
        }
    }
}

enum Pair {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// One private key.
pub(super) struct Signer {
    pub(super) kind: Kind,
    pub(super) kid: Option<String>,
    pair: Pair,
}

impl Signer {
    pub(super) fn new(kind: Kind, kid: Option<&str>) -> Self {
        let ecdsa = |algorithm| Pair::Ecdsa(EcdsaKeyPair::generate(algorithm).expect("a key"));
        let pair = match kind {
            Kind::Rsa => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa3072).expect("a key")),
            Kind::P256 => ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            Kind::P384 => ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            Kind::Ed25519 => Pair::Ed25519(Ed25519KeyPair::generate().expect("a key")),
        };
        Self { kind, kid: kid.map(str::to_owned), pair }
    }

    /// Its public half as a key set has it.
    pub(super) fn jwk(&self) -> Value {
        let mut key = match &self.pair {
            Pair::Rsa(pair) => {
                // An RSAPublicKey in DER: a sequence of two integers, whose sizes are always these.
                let public = pair.public_key().as_ref();
                let (n, e) = (&public[9..9 + 384], &public[9 + 384 + 2..]);
                json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e)})
            }
            Pair::Ecdsa(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
                let curve = if self.kind == Kind::P256 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": curve, "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y)})
            }
            Pair::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(pair.public_key())})
            }
        };
        if let Some(kid) = &self.kid {
            key["kid"] = json!(kid);
        }
        key
    }

    /// A token, signed as its header says.
    pub(super) fn token(&self, header: &Value, claims: &Value) -> String {
        self.token_as(header["alg"].as_str().unwrap_or_default(), header, claims)
    }

    /// A token that is signed by `algorithm`, whatever its header says.
    pub(super) fn token_as(&self, algorithm: &str, header: &Value, claims: &Value) -> String {
        self.sign(algorithm, &format!("{}.{}", encoded(header), encoded(claims)))
    }

    /// A token of any two parts.
    pub(super) fn signed(&self, parts: &str) -> String {
        self.sign(self.kind.algorithms()[0], parts)
    }

    fn sign(&self, algorithm: &str, parts: &str) -> String {
        let random = SystemRandom::new();
        let message = parts.as_bytes();
        let signature = match &self.pair {
            Pair::Rsa(pair) => {
                let encoding: &dyn signature::RsaEncoding = match algorithm {
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    _ => &signature::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature).expect("signed");
                signature
            }
            Pair::Ecdsa(pair) => pair.sign(&random, message).expect("signed").as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        };
        format!("{parts}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A part of a token.
pub(super) fn encoded(part: impl std::borrow::Borrow<Value>) -> String {
    URL_SAFE_NO_PAD.encode(part.borrow().to_string())
}

/// The key set of these keys.
pub(super) fn jwks(signers: &[&Signer]) -> Vec<u8> {
    json!({"keys": signers.iter().map(|signer| signer.jwk()).collect::<Vec<_>>()}).to_string().into_bytes()
}
