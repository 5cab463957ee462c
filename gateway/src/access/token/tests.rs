//! Tokens that are good, and each way in which one is not.

mod provider;
mod running;
mod vectors;

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::access::Means;
use provider::{Kind, Signer, encoded, jwks};

pub(super) const NOW: u64 = 1_800_000_000;

pub(super) fn settings() -> TokenSettings {
    TokenSettings {
        issuer: "https://login.example".to_owned(),
        audience: "seeway".to_owned(),
        name_claim: "sub".to_owned(),
        groups_claim: "groups".to_owned(),
        leeway: Duration::from_secs(30),
    }
}

fn keys(signers: &[&Signer]) -> Keys {
    Keys::from_jwks(&jwks(signers), 3072).expect("a key set")
}

fn verifier(signers: &[&Signer]) -> Verifier {
    Verifier::new(settings(), keys(signers))
}

/// Claims of a good token.
pub(super) fn claims() -> Value {
    json!({
        "iss": "https://login.example", "aud": "seeway", "sub": "payments", "exp": NOW + 600, "nbf": NOW - 5, "iat": NOW - 5,
        "groups": ["signers", "night shift"],
    })
}

/// The good claims with some replaced; `null` takes one away.
fn with(changes: Value) -> Value {
    let mut claims = claims();
    let all = claims.as_object_mut().expect("an object");
    let Value::Object(changes) = changes else { panic!("an object") };
    for (name, value) in changes {
        if value.is_null() { drop(all.remove(&name)) } else { drop(all.insert(name, value)) }
    }
    claims
}

fn name_of(result: Result<Verified, TokenError>) -> Result<String, TokenError> {
    result.map(|verified| verified.identity.name().to_owned())
}

#[test]
fn every_algorithm_of_every_key_type_is_taken() {
    let signers: Vec<Signer> = Kind::ALL.into_iter().map(|kind| Signer::new(kind, Some(kind.name()))).collect();
    let verifier = verifier(&signers.iter().collect::<Vec<_>>());
    assert_eq!(verifier.keys().len(), 4);
    let mut count = 0;
    for signer in &signers {
        for algorithm in signer.kind.algorithms() {
            let token = signer.token(&json!({"alg": algorithm, "kid": signer.kid, "typ": "JWT"}), &claims());
            let verified = verifier.verify(&token, NOW).unwrap_or_else(|error| panic!("{algorithm}: {error}"));
            assert_eq!(verified.expires, NOW + 630);
            assert_eq!(verified.identity.name(), "payments");
            assert_eq!(verified.identity.groups(), ["signers", "night shift"]);
            assert_eq!(verified.identity.means(), Means::Token);
            count += 1;
        }
    }
    assert_eq!(count, 10);
}

#[test]
fn an_algorithm_of_another_key_type_is_never_tried() {
    let all = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA", "Ed25519"];
    for kind in Kind::ALL {
        let signer = Signer::new(kind, Some("k"));
        let verifier = verifier(&[&signer]);
        for algorithm in all.iter().filter(|algorithm| !kind.algorithms().contains(algorithm)) {
            let token = signer.token_as(kind.algorithms()[0], &json!({"alg": algorithm, "kid": "k"}), &claims());
            assert_eq!(name_of(verifier.verify(&token, NOW)), Err(TokenError::UnknownKey), "{algorithm}");
        }
    }
}

#[test]
fn unsigned_tokens_and_shared_secrets_are_never_taken() {
    let signer = Signer::new(Kind::P256, None);
    let verifier = verifier(&[&signer]);
    for algorithm in ["none", "None", "NONE", "HS256", "HS384", "HS512", "ES512", "ES256K", "es256", "RSA1_5", ""] {
        let signed = format!("{}.{}", encoded(json!({"alg": algorithm})), encoded(claims()));
        for token in [format!("{signed}."), format!("{signed}.{}", "A".repeat(43))] {
            assert_eq!(name_of(verifier.verify(&token, NOW)), Err(TokenError::Algorithm), "{algorithm}");
        }
    }
    // An HMAC with the public key as its secret, which a careless verifier accepts.
    let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &jwks(&[&signer]));
    let signed = format!("{}.{}", encoded(json!({"alg": "HS256"})), encoded(claims()));
    let tag = URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&secret, signed.as_bytes()));
    assert_eq!(name_of(verifier.verify(&format!("{signed}.{tag}"), NOW)), Err(TokenError::Algorithm));
    // Without a signature, under an algorithm that is taken.
    let signed = format!("{}.{}.", encoded(json!({"alg": "ES256"})), encoded(claims()));
    assert_eq!(name_of(verifier.verify(&signed, NOW)), Err(TokenError::Signature));
}

#[test]
fn a_token_names_its_key_or_all_that_fit_are_tried() {
    let (one, other, stranger) =
        (Signer::new(Kind::P256, Some("one")), Signer::new(Kind::P256, Some("other")), Signer::new(Kind::P256, None));
    let nameless = Signer::new(Kind::P256, None);
    let named = verifier(&[&one, &other]);
    let check = |verifier: &Verifier, signer: &Signer, header: Value| {
        name_of(verifier.verify(&signer.token(&header, &claims()), NOW))
    };
    assert_eq!(check(&named, &other, json!({"alg": "ES256", "kid": "other"})), Ok("payments".into()));
    assert_eq!(check(&named, &other, json!({"alg": "ES256"})), Ok("payments".into()));
    assert_eq!(check(&named, &other, json!({"alg": "ES256", "kid": "one"})), Err(TokenError::Signature));
    assert_eq!(check(&named, &stranger, json!({"alg": "ES256"})), Err(TokenError::Signature));
    assert_eq!(check(&named, &other, json!({"alg": "ES256", "kid": "new"})), Err(TokenError::UnknownKey));
    // A provider that gives its keys no ids.
    let mixed = verifier(&[&one, &nameless]);
    assert_eq!(check(&mixed, &nameless, json!({"alg": "ES256", "kid": "new"})), Ok("payments".into()));
    assert_eq!(check(&mixed, &one, json!({"alg": "ES256", "kid": "new"})), Err(TokenError::UnknownKey));
    // Keys that a token brings along are not looked at.
    let own: Value = serde_json::from_slice(&jwks(&[&stranger])).expect("JSON");
    let header = json!({"alg": "ES256", "jwk": own["keys"][0], "jku": "https://evil.example/", "x5c": ["AA"]});
    assert_eq!(check(&named, &stranger, header), Err(TokenError::Signature));
    for kid in [json!(1), json!(""), json!("k".repeat(257)), json!(null), json!(["one"])] {
        let refused = check(&named, &one, json!({"alg": "ES256", "kid": kid}));
        assert!(matches!(refused, Err(TokenError::Malformed(_))), "{refused:?}");
    }
}

#[test]
fn the_sixteenth_key_is_tried_and_the_seventeenth_is_not() {
    let signers: Vec<Signer> = (0..17).map(|_| Signer::new(Kind::P256, None)).collect();
    let verifier = verifier(&signers.iter().collect::<Vec<_>>());
    let check = |signer: &Signer| name_of(verifier.verify(&signer.token(&json!({"alg": "ES256"}), &claims()), NOW));
    assert_eq!(check(&signers[15]), Ok("payments".into()));
    assert_eq!(check(&signers[16]), Err(TokenError::Signature));
}

#[test]
fn every_rule_of_the_header_refuses() {
    let signer = Signer::new(Kind::Ed25519, Some("k"));
    let verifier = verifier(&[&signer]);
    let check = |header: Value| name_of(verifier.verify(&signer.token(&header, &claims()), NOW));
    for kind in ["JWT", "jwt", "at+jwt", "AT+JWT", "application/at+jwt", "application/jwt"] {
        assert_eq!(check(json!({"alg": "EdDSA", "typ": kind})), Ok("payments".into()), "{kind}");
    }
    for kind in [json!("logout+jwt"), json!("dpop+jwt"), json!("JWE"), json!(""), json!(1), json!(null)] {
        assert_eq!(check(json!({"alg": "EdDSA", "typ": kind})), Err(TokenError::Type), "{kind}");
    }
    for critical in [json!(["b64"]), json!([]), json!(null)] {
        assert_eq!(check(json!({"alg": "EdDSA", "crit": critical})), Err(TokenError::Critical), "{critical}");
    }
    for header in [json!({}), json!({"alg": 1}), json!({"alg": ["EdDSA"]})] {
        assert_eq!(check(header), Err(TokenError::Malformed("its header has no `alg`")));
    }
}

#[test]
fn every_rule_of_the_claims_refuses() {
    let signer = Signer::new(Kind::Ed25519, None);
    let verifier = verifier(&[&signer]);
    let check = |changes: Value| name_of(verifier.verify(&signer.token(&json!({"alg": "EdDSA"}), &with(changes)), NOW));
    let claim = |name: &str| Err(TokenError::Claim(name.into()));
    let missing = |name: &str| Err(TokenError::Missing(name.into()));
    let good = || Ok("payments".to_owned());

    for (issuer, wanted) in [
        (json!("https://login.example/"), Err(TokenError::Issuer)),
        (json!("https://login.exampl"), Err(TokenError::Issuer)),
        (json!(["https://login.example"]), Err(TokenError::Issuer)),
        (json!(null), missing("iss")),
    ] {
        assert_eq!(check(json!({"iss": issuer})), wanted);
    }
    for (audience, wanted) in [
        (json!(["other", "seeway"]), good()),
        (json!("seeway2"), Err(TokenError::Audience)),
        (json!([]), Err(TokenError::Audience)),
        (json!(["other"]), Err(TokenError::Audience)),
        (json!(["seeway", 1]), Err(TokenError::Audience)),
        (json!({"seeway": true}), Err(TokenError::Audience)),
        (json!(null), missing("aud")),
    ] {
        assert_eq!(check(json!({"aud": audience})), wanted);
    }
    for (expires, wanted) in [
        (json!(NOW - 29), good()),
        (json!(NOW - 30), Err(TokenError::Expired)),
        (json!(1_799_999_970.5), Err(TokenError::Expired)),
        (json!(0), Err(TokenError::Expired)),
        (json!((NOW + 600).to_string()), claim("exp")),
        (json!(-1), claim("exp")),
        (json!(1e300), claim("exp")),
        (json!(true), claim("exp")),
        (json!(null), missing("exp")),
    ] {
        assert_eq!(check(json!({"exp": expires})), wanted, "{expires}");
    }
    for (name, early) in [("nbf", TokenError::NotYet), ("iat", TokenError::Future)] {
        for (date, wanted) in [
            (json!(NOW + 30), good()),
            (json!(NOW + 31), Err(early)),
            (json!("soon"), claim(name)),
            (json!(null), good()),
        ] {
            assert_eq!(check(json!({name: date})), wanted, "{name} {date}");
        }
    }
    for (subject, wanted) in [
        (json!("n".repeat(256)), Ok("n".repeat(256))),
        (json!("n".repeat(257)), claim("sub")),
        (json!(""), claim("sub")),
        (json!("a\nb"), claim("sub")),
        (json!(7), claim("sub")),
        (json!(null), missing("sub")),
    ] {
        assert_eq!(check(json!({"sub": subject})), wanted);
    }
}

#[test]
fn groups_are_a_list_or_words_and_nothing_else() {
    let signer = Signer::new(Kind::Ed25519, None);
    let verifier = verifier(&[&signer]);
    let check = |groups: Value| {
        let token = signer.token(&json!({"alg": "EdDSA"}), &with(json!({"groups": groups})));
        verifier.verify(&token, NOW).map(|verified| verified.identity.groups().to_vec())
    };
    let wrong = || Err(TokenError::Claim("groups".into()));
    assert_eq!(check(json!(null)), Ok(vec![]));
    assert_eq!(check(json!("")), Ok(vec![]));
    assert_eq!(check(json!("a  b")), Ok(vec!["a".into(), "b".into()]));
    assert_eq!(check(json!(["a b"])), Ok(vec!["a b".into()]));
    assert_eq!(check(json!(vec!["g"; 256])).map(|groups| groups.len()), Ok(256));
    assert_eq!(check(json!(vec!["g"; 257])), wrong());
    for groups in [json!([1]), json!([""]), json!(["a\u{7}"]), json!(["g".repeat(257)]), json!({"a": 1}), json!(1)] {
        assert_eq!(check(groups), wrong());
    }
}

#[test]
fn other_claims_may_hold_name_and_groups() {
    let signer = Signer::new(Kind::Ed25519, None);
    let named = TokenSettings { name_claim: "client_id".into(), groups_claim: "scope".into(), ..settings() };
    let verifier = Verifier::new(named, keys(&[&signer]));
    let token = |changes: Value| signer.token(&json!({"alg": "EdDSA"}), &with(changes));
    let verified = verifier.verify(&token(json!({"client_id": "batch", "scope": "submit pipe"})), NOW).expect("good");
    assert_eq!((verified.identity.name(), verified.identity.groups().len()), ("batch", 2));
    assert_eq!(name_of(verifier.verify(&token(json!({})), NOW)), Err(TokenError::Missing("client_id".into())));
}

#[test]
fn what_is_no_token_is_refused_before_its_signature() {
    let signer = Signer::new(Kind::Ed25519, None);
    let verifier = verifier(&[&signer]);
    let header = json!({"alg": "EdDSA"});
    let good = signer.token(&header, &claims());
    for token in [
        "",
        ".",
        "..",
        "a.b",
        "!.a.b",
        &format!("{good}.x"),
        &format!("{good}="),
        &format!("{good}\n"),
        &good.replace('.', " ."),
    ] {
        assert!(matches!(verifier.verify(token, NOW), Err(TokenError::Malformed(_))), "{token}");
    }
    let raw = |header: &str, claims: &str| {
        signer.signed(&format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims)))
    };
    let plain = claims().to_string();
    let malformed = |error| Err(TokenError::Malformed(error));
    for (token, wanted) in [
        (raw(r#"{"alg":"EdDSA","alg":"EdDSA"}"#, &plain), malformed("a part of it has a name twice")),
        (
            raw(r#"{"alg":"EdDSA"}"#, &plain.replacen('{', r#"{"sub":"root","#, 1)),
            malformed("a part of it has a name twice"),
        ),
        (
            raw(r#"{"alg":"EdDSA"}"#, &plain.replacen('{', r#"{"x":[[[[[[[[[]]]]]]]]],"#, 1)),
            malformed("a part of it is nested too deeply"),
        ),
        (raw(r#""EdDSA""#, &plain), malformed("a part of it is not a JSON object")),
        (raw(r#"{"alg":"EdDSA"}"#, "[]"), malformed("a part of it is not a JSON object")),
    ] {
        assert_eq!(name_of(verifier.verify(&token, NOW)), wanted);
    }
}

#[test]
fn a_token_of_16_kib_is_read_and_a_longer_one_is_not() {
    let signer = Signer::new(Kind::Ed25519, None);
    let verifier = verifier(&[&signer]);
    let of = |filling: usize| signer.token(&json!({"alg": "EdDSA"}), &with(json!({"x": "x".repeat(filling)})));
    let filling = (1..TOKEN_LIMIT).rev().find(|filling| of(*filling).len() <= TOKEN_LIMIT).expect("some fits");
    assert!(of(filling).len() > TOKEN_LIMIT - 4);
    assert_eq!(name_of(verifier.verify(&of(filling), NOW)), Ok("payments".into()));
    let longer = of(filling + 3);
    assert_eq!(name_of(verifier.verify(&longer, NOW)), Err(TokenError::TooLong(longer.len())));
}

#[test]
fn no_error_repeats_the_token_or_what_it_holds() {
    let signer = Signer::new(Kind::Ed25519, Some("k"));
    let verifier = verifier(&[&signer]);
    let marker = "PLANTED";
    for changes in [
        json!({"iss": marker}),
        json!({"aud": marker}),
        json!({"exp": marker}),
        json!({"groups": {marker: 1}}),
        json!({"sub": format!("{marker}\n")}),
    ] {
        let error = verifier.verify(&signer.token(&json!({"alg": "EdDSA"}), &with(changes)), NOW).expect_err("refused");
        assert!(!format!("{error} {error:?}").contains(marker), "{error:?}");
    }
    for header in
        [json!({"alg": marker}), json!({"alg": "EdDSA", "kid": marker}), json!({"alg": "EdDSA", "typ": marker})]
    {
        let error = verifier.verify(&signer.token(&header, &claims()), NOW).expect_err("refused");
        assert!(!format!("{error} {error:?}").contains(marker), "{error:?}");
    }
}

#[test]
fn no_single_bit_of_a_good_token_can_be_changed() {
    for kind in [Kind::Ed25519, Kind::P256] {
        let signer = Signer::new(kind, None);
        let verifier = verifier(&[&signer]);
        let good = signer.token(&json!({"alg": kind.algorithms()[0]}), &claims());
        verifier.verify(&good, NOW).expect("good");
        for position in 0..good.len() {
            for bit in 0..7 {
                let mut bytes = good.clone().into_bytes();
                bytes[position] ^= 1 << bit;
                let changed = String::from_utf8(bytes).expect("seven bits are text");
                assert!(verifier.verify(&changed, NOW).is_err(), "bit {bit} of byte {position}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_change_of_a_good_token_is_a_good_token(position in any::<prop::sample::Index>(), byte in 0_u8..128, change in 0..3) {
        thread_local! {
            static GOOD: (Verifier, String) = {
                let signer = Signer::new(Kind::P384, None);
                (verifier(&[&signer]), signer.token(&json!({"alg": "ES384"}), &claims()))
            };
        }
        GOOD.with(|(verifier, good)| {
            let mut bytes = good.clone().into_bytes();
            let position = position.index(bytes.len());
            match change {
                0 => bytes[position] = byte,
                1 => bytes.insert(position, byte),
                _ => drop(bytes.remove(position)),
            }
            let changed = String::from_utf8(bytes).expect("text");
            if changed != *good {
                prop_assert!(verifier.verify(&changed, NOW).is_err(), "{changed}");
            }
            Ok(())
        })?;
    }

    #[test]
    fn no_text_makes_a_verifier_panic(text in "[A-Za-z0-9_.=\\-]{0,200}|.{0,100}") {
        let signer = Signer::new(Kind::Ed25519, None);
        prop_assert!(verifier(&[&signer]).verify(&text, NOW).is_err());
    }
}
