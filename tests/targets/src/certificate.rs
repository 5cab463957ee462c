//! Whom a client certificate names, for any bytes. A TLS library has checked a signature over them before; here nothing is relied on.

use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use seeway::access::Means;
use seeway::access::certificate::{NAME_LIMIT, NoName, identity};

use crate::seeds::{Seeds, seed};

/// Reads a certificate.
pub fn run(bytes: &[u8]) {
    let found = identity(bytes);
    assert_eq!(identity(bytes), found, "the same bytes name the same one");
    match found {
        Ok(identity) => {
            let name = identity.name();
            assert!(!name.is_empty() && name.len() <= NAME_LIMIT && !name.chars().any(char::is_control));
            assert_eq!((identity.means(), identity.groups()), (Means::Certificate, &[][..]));
            // One name counts: that of a workload, wherever it stands.
            let count = bytes.windows(9).filter(|window| *window == b"spiffe://").count();
            assert!(count > 0 || !name.starts_with("spiffe://"), "a SPIFFE ID that does not stand there");
        }
        Err(error) => assert!(matches!(error, NoName::Unreadable | NoName::Ambiguous | NoName::Missing | NoName::Bad)),
    }
    // What is cut names nobody.
    if let Some((_, cut)) = bytes.split_last() {
        let _ = identity(&bytes[..cut.len().min(bytes.len() - 1)]);
    }
}

fn certificate(common_name: Option<&str>, alternatives: Vec<SanType>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = common_name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.subject_alt_names = alternatives;
    let key = KeyPair::generate().expect("a key");
    params.self_signed(&key).expect("signed").der().to_vec()
}

fn ia5(text: &str) -> Ia5String {
    text.try_into().expect("plain")
}

/// Certificates with each kind of name.
pub fn seeds() -> Seeds {
    let spiffe = || SanType::URI(ia5("spiffe://bank.example/pay"));
    let dns = || SanType::DnsName(ia5("pay.bank.example"));
    let all = vec![
        SanType::IpAddress([10, 0, 0, 1].into()),
        SanType::Rfc822Name(ia5("pay@bank.example")),
        dns(),
        SanType::URI(ia5("urn:uuid:1")),
    ];
    let whole = certificate(Some("pay"), vec![dns(), spiffe()]);
    vec![
        seed("spiffe", &whole),
        seed("all-kinds", certificate(Some("pay"), all)),
        seed("common-name", certificate(Some("pay"), vec![])),
        seed("common-name-of-two-lines", certificate(Some("pay\nadmin"), vec![])),
        seed("nameless", certificate(None, vec![])),
        seed("two-workloads", certificate(None, vec![spiffe(), spiffe()])),
        seed("longest-name", certificate(None, vec![SanType::URI(ia5(&"u".repeat(NAME_LIMIT)))])),
        seed("too-long-a-name", certificate(None, vec![SanType::URI(ia5(&"u".repeat(NAME_LIMIT + 1)))])),
        seed("cut", &whole[..whole.len() / 2]),
    ]
}
