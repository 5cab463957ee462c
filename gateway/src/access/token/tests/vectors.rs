//! The RFCs' own examples, and what a key set may hold.

use serde_json::json;

use super::*;

const RSA_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

fn check(key: &Value, token: &str) -> Result<(), TokenError> {
    let keys = Keys::from_jwks(json!({"keys": [key]}).to_string().as_bytes(), 2048).expect("a key");
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    let (header, _) = signed.split_once('.').expect("three parts");
    let header = object(&decoded(header)?)?;
    let (algorithm, kid) = read_header(&header)?;
    keys.check(algorithm, kid, signed.as_bytes(), &decoded(signature)?)
}

#[test]
fn the_examples_of_rfc_7515_and_rfc_8037_hold() {
    // RFC 7515, A.2: RS256.
    let rsa = json!({"kty": "RSA", "n": RSA_N, "e": "AQAB"});
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    assert_eq!(check(&rsa, &format!("eyJhbGciOiJSUzI1NiJ9.{JOE}.{signature}")), Ok(()));
    // RFC 7515, A.3: ES256.
    let ec = json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"});
    let signature = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let token = format!("eyJhbGciOiJFUzI1NiJ9.{JOE}.{signature}");
    assert_eq!(check(&ec, &token), Ok(()));
    assert_eq!(check(&ec, &token.replace("joe", "jim").replace("DtEh", "DtEi")), Err(TokenError::Signature));
    // RFC 8037, A.4: Ed25519.
    let okp = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(check(&okp, token), Ok(()));
}

#[test]
fn rfc_7519s_unsecured_token_is_refused() {
    let signer = Signer::new(Kind::P256, None);
    // RFC 7519, 6.1.
    let token = format!("eyJhbGciOiJub25lIn0.{JOE}.");
    assert_eq!(name_of(verifier(&[&signer]).verify(&token, 0)), Err(TokenError::Algorithm));
}

#[allow(clippy::needless_pass_by_value)] // Written where it is called.
fn keys_of(keys: Value, bits: usize) -> Result<Keys, KeysError> {
    Keys::from_jwks(json!({"keys": keys}).to_string().as_bytes(), bits)
}

#[test]
fn rsa_keys_below_the_minimum_are_passed_over_and_said_so() {
    let small = json!({"kty": "RSA", "n": RSA_N, "e": "AQAB"});
    assert_eq!(keys_of(json!([small]), 2048).expect("of 2048 bits").len(), 1);
    let error = keys_of(json!([small]), 3072).expect_err("too small");
    assert!(
        error.to_string().contains("its key 1 is an RSA key of 2048 bits, and token.rsa_min_bits is 3072"),
        "{error}"
    );
    let keys = keys_of(json!([Signer::new(Kind::P256, None).jwk(), small]), 3072).expect("one");
    assert_eq!((keys.len(), keys.notes().len()), (1, 1));
    // An exponent with which every message signs itself, and ones that no key has.
    for e in ["AQ", "Ag", "AQABAQ", "AQABAAAB", "AAAAAAAAAQ", ""] {
        let result = keys_of(json!([{"kty": "RSA", "n": RSA_N, "e": e}]), 2048);
        assert_eq!(result.is_ok(), e == "AQABAQ", "{e}: {result:?}");
    }
    let long = URL_SAFE_NO_PAD.encode([0xff; 1025]);
    assert!(keys_of(json!([{"kty": "RSA", "n": long, "e": "AQAB"}]), 2048).is_err());
}

#[test]
fn keys_for_other_things_are_passed_over() {
    let good = Signer::new(Kind::P256, Some("good")).jwk();
    let but = |name: &str, value: Value| {
        let mut key = good.clone();
        key[name] = value;
        key
    };
    for (key, is_taken) in [
        (but("use", json!("sig")), true),
        (but("use", json!("enc")), false),
        (but("key_ops", json!(["verify"])), true),
        (but("key_ops", json!(["encrypt"])), false),
        (but("key_ops", json!("verify")), false),
        (but("alg", json!("ES256")), true),
        (but("alg", json!("ES384")), false),
        (but("alg", json!("ECDH-ES")), false),
        (but("crv", json!("P-521")), false),
        (but("crv", json!("P-384")), false),
        (but("kty", json!("oct")), false),
        (but("x", json!("AAAA")), false),
        (but("x", good["y"].clone()), false),
        (but("y", json!("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU=")), false),
        (but("kid", json!(1)), false),
        (but("d", json!("c2VjcmV0")), false),
        (json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}), false),
        (json!({"kty": "OKP", "crv": "X25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}), false),
        (json!({}), false),
    ] {
        let result = keys_of(json!([key]), 3072);
        assert_eq!(result.is_ok(), is_taken, "{key}: {result:?}");
        assert!(!format!("{result:?}").contains("c2VjcmV0"));
    }
    let leaked = keys_of(json!([but("d", json!("c2VjcmV0"))]), 3072).expect_err("a private key").to_string();
    assert!(leaked.contains("must never be published"), "{leaked}");
}

#[test]
fn a_key_set_has_at_most_64_keys_and_1_mib() {
    let key = Signer::new(Kind::Ed25519, None).jwk();
    assert_eq!(keys_of(json!(vec![key.clone(); 64]), 3072).map(|keys| keys.len()), Ok(64));
    assert!(matches!(keys_of(json!(vec![key.clone(); 65]), 3072), Err(KeysError::TooMany(65))));
    let mut document = json!({"keys": [key]}).to_string().into_bytes();
    document.resize(1 << 20, b' ');
    assert_eq!(Keys::from_jwks(&document, 3072).map(|keys| keys.len()), Ok(1));
    document.push(b' ');
    assert!(matches!(Keys::from_jwks(&document, 3072), Err(KeysError::TooLarge)));
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[1]}"#, r#"{"keys":[],"keys":[]}"#, "<html>"] {
        assert!(matches!(Keys::from_jwks(text.as_bytes(), 3072), Err(KeysError::NotAKeySet)), "{text}");
    }
    assert_eq!(keys_of(json!([]), 3072).map(|_| ()), Err(KeysError::NoneUsable(vec![])));
}
