//! `[token]`.

use super::*;
use crate::access::token::KeySource;

const KEY_SET: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fn token(lines: &str) -> String {
    format!("{}[token]\n{lines}", good())
}

#[test]
fn tokens_are_taken_where_there_are_keys_and_names() {
    let site = Site::new();
    assert_eq!(site.read(&good()).expect("no problems").token, None);
    site.write("keys.json", KEY_SET, 0o644);
    let text = token("jwks = \"keys.json\"\nissuer = \"https://login.example\"\naudience = \"seeway\"\n");
    let found = site.read(&text).expect("no problems").token.expect("tokens are taken");
    assert_eq!(found.keys, KeySource::File(site.path("keys.json")));
    assert_eq!((found.settings.issuer.as_str(), found.settings.audience.as_str()), ("https://login.example", "seeway"));
    assert_eq!((found.settings.name_claim.as_str(), found.settings.groups_claim.as_str()), ("sub", "groups"));
    assert_eq!((found.settings.leeway, found.rsa_min_bits), (Duration::from_secs(30), 3072));
    assert_eq!((found.refresh, found.stale), (Duration::from_secs(300), Duration::from_secs(86_400)));
    let text = token("jwks = \"https://login.example/keys\"\nissuer = \"i\"\naudience = \"a\"\nleeway = \"5m\"\n");
    let found = site.read(&text).expect("no problems").token.expect("tokens are taken");
    assert_eq!(found.keys.to_string(), "https://login.example/keys");
}

#[test]
fn what_is_wrong_with_a_token_table_is_said() {
    let site = Site::new();
    site.write("keys.json", KEY_SET, 0o644);
    site.write("none.json", r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#, 0o644);
    let names = "issuer = \"i\"\naudience = \"a\"\n";
    for (lines, begins, contains) in [
        ("audience = \"a\"\n".to_owned(), "22: token.jwks: ", "audience is there, and jwks is not"),
        ("jwks = \"keys.json\"\nissuer = \"i\"\n".to_owned(), "22: token.audience: ", "is missing"),
        ("jwks = \"keys.json\"\naudience = \"a\"\n".to_owned(), "22: token.issuer: ", "is missing"),
        (format!("jwks = \"gone.json\"\n{names}"), "22: token.jwks: ", "is not there"),
        (format!("jwks = \"none.json\"\n{names}"), "22: token.jwks: ", "no key that can be used"),
        (format!("jwks = \"http://login.example/\"\n{names}"), "22: token.jwks: ", "not encrypted"),
        (format!("jwks = \"keys.json\"\n{names}leeway = \"301s\"\n"), "25: token.leeway: ", "longer than 5m"),
        (
            format!("jwks = \"keys.json\"\n{names}refresh = \"2h\"\nstale = \"1h\"\n"),
            "26: token.stale: ",
            "shorter than refresh",
        ),
        (format!("jwks = \"keys.json\"\n{names}rsa_min_bits = 1024\n"), "25: token.rsa_min_bits: ", "below 2048"),
        (format!("jwks = \"keys.json\"\n{names}ca = \"gone.pem\"\n"), "25: token.ca: ", "is not there"),
        (format!("jwks = \"keys.json\"\n{names}name_claim = \"\"\n"), "25: token.name_claim: ", "no claim's name"),
        ("jwks = \"keys.json\"\nissuer = \"\"\naudience = \"a\"\n".to_owned(), "23: token.issuer: ", "is empty"),
    ] {
        let problem = site.problem(&token(&lines));
        assert!(problem.starts_with(begins) && problem.contains(contains), "{lines}\n{problem}");
        assert!(!problem.contains("c2VjcmV0"), "{problem}");
    }
}
