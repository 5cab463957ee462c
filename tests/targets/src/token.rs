//! Signed tokens and key sets: nobody gets in by a token that was not signed by the one key there is, or that says something else than the
//! configuration asks for.
//!
//! The first byte says what the rest is: a token, a token's header and payload on two lines, which are signed here first, or a key set.

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use seeway::access::Means;
use seeway::access::token::{Keys, TOKEN_LIMIT, TokenSettings, Verified, Verifier};
use serde_json::{Value, json};

use crate::seeds::{Seeds, seed};

const ISSUER: &str = "https://login.bank.example";
const AUDIENCE: &str = "seeway";
const NOW: u64 = 1_800_000_000;
const LEEWAY: u64 = 60;

/// The provider's key: always the same, so that a signed seed stays good.
static SIGNER: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 bytes"));

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let settings = TokenSettings {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        name_claim: "sub".to_owned(),
        groups_claim: "groups".to_owned(),
        leeway: Duration::from_secs(LEEWAY),
    };
    Verifier::new(settings, Keys::from_jwks(&key_set(), 2048).expect("a key set"))
});

/// Reads a token or a key set.
pub fn run(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    if mode % 3 == 2 {
        return keys(rest);
    }
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let token = if mode % 3 == 0 {
        text.to_owned()
    } else {
        let (header, payload) = text.split_once('\n').unwrap_or((text, ""));
        signed(header, payload)
    };
    match VERIFIER.verify(&token, NOW) {
        Ok(verified) => is_entitled(&token, &verified),
        Err(error) => {
            let error = error.to_string();
            // What is encoded, and too long to be a word of the error's own.
            let is_encoded = |part: &str| {
                part.len() >= 20 && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            };
            let shows = |part: &str| is_encoded(part) && error.contains(part);
            assert!(!token.split('.').any(shows), "a token's content is shown");
        }
    }
    // After the last date that is one; a token may well say that it lasts for centuries.
    let later = VERIFIER.verify(&token, 300_000_000_000);
    assert!(later.is_err(), "a token is good for ever");
}

/// Looks at a token that was accepted by other means than those that accepted it.
fn is_entitled(token: &str, verified: &Verified) {
    assert!(token.len() <= TOKEN_LIMIT);
    let parts: Vec<&str> = token.split('.').collect();
    assert_eq!(parts.len(), 3);
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("base64url");
    let message = &token[..parts[0].len() + 1 + parts[1].len()];
    let key = UnparsedPublicKey::new(&ED25519, SIGNER.public_key().as_ref());
    assert!(key.verify(message.as_bytes(), &decoded(parts[2])).is_ok(), "it is not signed");
    let header: Value = serde_json::from_slice(&decoded(parts[0])).expect("JSON");
    assert!(header["alg"] == "EdDSA" || header["alg"] == "Ed25519");
    assert!(header.get("crit").is_none());
    let claims: Value = serde_json::from_slice(&decoded(parts[1])).expect("JSON");
    assert_eq!(claims["iss"], ISSUER);
    let is_for_us = claims["aud"] == AUDIENCE
        || claims["aud"].as_array().is_some_and(|list| list.iter().any(|audience| audience == AUDIENCE));
    assert!(is_for_us, "it is for others");
    let date = |name: &str| claims[name].as_f64();
    let (now, leeway) = (Duration::from_secs(NOW).as_secs_f64(), Duration::from_secs(LEEWAY).as_secs_f64());
    assert!(date("exp").is_some_and(|expires| expires + leeway > now), "it has expired");
    assert!(["nbf", "iat"].iter().all(|name| date(name).is_none_or(|date| date < now + leeway + 1.0)));
    assert!(verified.expires > NOW);
    let name = verified.identity.name();
    assert_eq!(claims["sub"], name);
    assert!(!name.is_empty() && !name.chars().any(char::is_control));
    assert_eq!(verified.identity.means(), Means::Token);
}

fn keys(document: &[u8]) {
    match Keys::from_jwks(document, 2048) {
        Ok(keys) => {
            assert!(!keys.is_empty() && keys.len() <= 64 && keys.len() + keys.notes().len() <= 64);
            // None of them is ours, unless the set has ours in it.
            let _ = format!("{keys:?}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn signed(header: &str, payload: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = SIGNER.sign(message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn key_set() -> Vec<u8> {
    let x = URL_SAFE_NO_PAD.encode(SIGNER.public_key());
    json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": "one", "x": x}]}).to_string().into_bytes()
}

/// Good tokens, tokens with something wrong with each, and key sets.
pub fn seeds() -> Seeds {
    let header = json!({"alg": "EdDSA", "typ": "at+jwt", "kid": "one"}).to_string();
    let claims = json!({
        "iss": ISSUER, "aud": [AUDIENCE, "other"], "sub": "pay-1", "groups": ["staff", "hsm"],
        "exp": NOW + 600, "nbf": NOW - 600, "iat": NOW - 600
    });
    let good = signed(&header, &claims.to_string());
    let with = |name: &str, value: Value| {
        let mut changed = claims.clone();
        changed[name] = value;
        [&[1], header.as_bytes(), b"\n", changed.to_string().as_bytes()].concat()
    };
    let as_is = |token: &str| [&[0], token.as_bytes()].concat();
    let unsigned =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let sets = json!({"keys": [
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "short"},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(SIGNER.public_key()), "alg": "EdDSA"}
    ]});
    vec![
        seed("good", as_is(&good)),
        seed("unsigned", as_is(&unsigned)),
        seed("cut", as_is(&good[..good.len() - 9])),
        seed("payload", with("sub", json!("pay-2"))),
        seed("expired", with("exp", json!(NOW - 600))),
        seed("expires-in-words", with("exp", json!("tomorrow"))),
        seed("expires-never", with("exp", json!(1e300))),
        seed("of-another", with("iss", json!("https://elsewhere.example"))),
        seed("for-others", with("aud", json!(["other", 7]))),
        seed("groups-as-text", with("groups", json!("staff hsm"))),
        seed("name-of-two-lines", with("sub", json!("pay\nadmin"))),
        seed("claim-twice", [&[1], header.as_bytes(), b"\n{\"iss\":\"x\",\"iss\":\"y\"}"].concat()),
        seed("critical", [&[1][..], b"{\"alg\":\"EdDSA\",\"crit\":[\"b64\"]}\n{}"].concat()),
        seed("deep", [&[1][..], b"{\"alg\":\"EdDSA\"}\n{\"a\":[[[[[[[[[[1]]]]]]]]]]}"].concat()),
        seed("key-set", [&[2], &key_set()[..]].concat()),
        seed("key-set-of-all-kinds", [&[2], sets.to_string().as_bytes()].concat()),
    ]
}
