use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::private::RsaKeypair;
use russh::keys::{Certificate, HashAlg, PrivateKey};

use super::super::utc;
use super::known_hosts::matches_glob;
use super::*;

impl HostKey {
    /// What it thinks of a bare key.
    fn thinks_of(&self, key: &PublicKey) -> Verdict {
        self.judge(&key.clone().into(), &server("hsm-a.example:22"), utc::now())
    }
}

fn new_key() -> PublicKey {
    let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).expect("a key");
    key.public_key().clone()
}

fn line(key: &PublicKey) -> String {
    key.to_openssh().expect("encoded")
}

fn server(address: &str) -> Endpoint {
    address.parse().expect("an address")
}

struct File(tempfile::NamedTempFile);

impl File {
    fn new(text: &str) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        Self(file)
    }

    fn keys(&self, address: &str) -> Result<HostKey, HostKeyError> {
        HostKey::from_known_hosts(self.0.path(), &server(address))
    }
}

#[test]
fn a_line_pins_its_key_and_no_other() {
    let (pinned, other) = (new_key(), new_key());
    for given in [line(&pinned), format!("{} the host's own\n", line(&pinned))] {
        let host_key = HostKey::from_line(&given).expect("a key");
        assert_eq!(host_key.thinks_of(&pinned), Verdict::Accepted);
        assert_eq!(host_key.thinks_of(&other), Verdict::Mismatch);
    }
    assert!(HostKey::from_line("ssh-ed25519").expect_err("no key").to_string().contains("ssh-ed25519 AAAA"));
    assert!(HostKey::from_line("").is_err());
}

#[test]
fn known_hosts_of_every_form_are_found() {
    let keys: Vec<_> = (0..6).map(|_| new_key()).collect();
    let file = File::new(&format!(
        "# a comment\n\
         \n\
         hsm-a.example,192.0.2.1 {}\n\
         [hsm-b.example]:2222 {}  a comment\n\
         [2001:db8::1]:2222,2001:db8::1\t{}\n\
         *.farm.example,!bad.farm.example {}\n\
         hsm-a.example {}\n\
         other.example ssh-unheard-of AAAA\n\
         HSM-C.example {}\n",
        line(&keys[0]),
        line(&keys[1]),
        line(&keys[2]),
        line(&keys[3]),
        line(&keys[4]),
        line(&keys[5]),
    ));
    for (address, expected) in [
        ("hsm-a.example:22", &keys[0]),
        ("hsm-a.example:22", &keys[4]),
        ("192.0.2.1:22", &keys[0]),
        ("hsm-b.example:2222", &keys[1]),
        ("[2001:db8::1]:2222", &keys[2]),
        ("[2001:db8::1]:22", &keys[2]),
        ("good.farm.example:22", &keys[3]),
        ("hsm-c.example:22", &keys[5]),
    ] {
        assert_eq!(file.keys(address).expect(address).thinks_of(expected), Verdict::Accepted, "{address}");
    }
    for address in ["hsm-a.example:2222", "hsm-b.example:22", "bad.farm.example:22", "example:22"] {
        let error = file.keys(address).expect_err(address);
        assert!(matches!(error, HostKeyError::NotListed { .. }), "{error}");
        assert!(error.to_string().contains(address), "{error}");
    }
    assert!(matches!(file.keys("other.example:22"), Err(HostKeyError::BadLine { line: 8, .. })));
    let missing = HostKey::from_known_hosts("/nonexistent/known_hosts", &server("hsm-a.example:22"));
    assert!(matches!(missing, Err(HostKeyError::Unreadable { .. })));
}

#[test]
fn hashed_names_match_what_ssh_keygen_makes_of_them() {
    // Made by `ssh-keygen -H` of lines for hsm-a.example and [hsm-b.example]:2222.
    let pinned = new_key();
    let file = File::new(&format!(
        "|1|Hj7yx+MiBI0Z1GNTs50QOzwnnXE=|rJkA7CZdMwAhu/k5Fnp3PRBSE6o= {key}\n\
         |1|MeZ/orVPExs8Ng5GK5CAieVmk40=|DcqZq9sUYwlx4y4yrxZGoF/Eo+U= {key}\n",
        key = line(&pinned),
    ));
    assert_eq!(file.keys("hsm-a.example:22").expect("listed").thinks_of(&pinned), Verdict::Accepted);
    assert_eq!(file.keys("hsm-b.example:2222").expect("listed").thinks_of(&pinned), Verdict::Accepted);
    assert!(file.keys("hsm-b.example:22").is_err());
}

#[test]
fn a_revoked_key_is_never_accepted() {
    let (good, bad) = (new_key(), new_key());
    let file = File::new(&format!(
        "hsm-a.example {}\nhsm-a.example {}\n@revoked * {}\n@cert-authority *.example {}\n",
        line(&good),
        line(&bad),
        line(&bad),
        line(&new_key()),
    ));
    let host_key = file.keys("hsm-a.example:22").expect("listed");
    assert_eq!(host_key.thinks_of(&good), Verdict::Accepted);
    assert_eq!(host_key.thinks_of(&bad), Verdict::Revoked);
    assert_eq!(host_key.fingerprints().len(), 3, "two keys and an authority");
}

#[test]
fn the_pinned_type_is_asked_for_first() {
    let rsa = PrivateKey::from(RsaKeypair::random(&mut russh::keys::key::safe_rng(), 3072).expect("a key"));
    let algorithms = HostKey::from_line(&line(rsa.public_key())).expect("a key").algorithms(Algorithms::Modern);
    assert!(matches!(algorithms[0], Algorithm::Rsa { hash: Some(HashAlg::Sha512) }));
    assert!(matches!(algorithms[1], Algorithm::Rsa { hash: Some(HashAlg::Sha256) }));
    assert_eq!(algorithms.len(), 6);
    assert_eq!(
        HostKey::from_line(&line(&new_key())).expect("a key").algorithms(Algorithms::Modern)[0],
        Algorithm::Ed25519
    );
}

#[test]
fn globs_match_as_in_openssh() {
    for (pattern, name, expected) in [
        ("*", "anything", true),
        ("*.example", "a.b.example", true),
        ("*.example", "example", false),
        ("hsm-?", "hsm-a", true),
        ("hsm-?", "hsm-", false),
        ("h*m*a", "hsm-m-aa", true),
        ("[*]:2222", "[hsm]:2222", true),
        ("", "", true),
        ("", "a", false),
    ] {
        assert_eq!(matches_glob(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
    }
}

#[test]
fn short_keys_are_passed_over_where_there_are_others_and_never_pinned_alone() {
    let short = PrivateKey::from(RsaKeypair::random(&mut russh::keys::key::safe_rng(), 2048).expect("a key"));
    let (short, good) = (short.public_key().clone(), new_key());
    for error in [HostKey::from_line(&line(&short)), HostKey::from_authority(&line(&short))] {
        assert!(error.expect_err("refused").to_string().contains("2048 bits"));
    }
    let alone = File::new(&format!("hsm-a.example {}\n", line(&short)));
    assert!(matches!(alone.keys("hsm-a.example:22"), Err(HostKeyError::NotTaken { .. })));
    let both = File::new(&format!("hsm-a.example {}\nhsm-a.example {}\n", line(&short), line(&good)));
    let host_key = both.keys("hsm-a.example:22").expect("one is good");
    assert_eq!(host_key.thinks_of(&good), Verdict::Accepted);
    assert!(matches!(host_key.thinks_of(&short), Verdict::NotTaken(why) if why.contains("2048 bits")));
}

/// A host certificate and those who made it.
struct Vouched {
    authority: PrivateKey,
    host: PrivateKey,
    now: u64,
}

impl Vouched {
    fn new() -> Self {
        let key = || PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).expect("a key");
        Self { authority: key(), host: key(), now: 1_000_000 }
    }

    fn trusting(&self) -> HostKey {
        HostKey::from_authority(&line(self.authority.public_key())).expect("an authority")
    }

    /// Valid for a minute around now, for hsm-a.example, if `change` does not make it another one.
    fn certificate(&self, change: impl FnOnce(&mut Builder)) -> Certificate {
        self.signed((self.now - 30, self.now + 30), |builder| {
            builder.cert_type(CertType::Host).expect("set");
            builder.valid_principal("hsm-a.example").expect("set");
            change(builder);
        })
    }

    fn signed(&self, valid: (u64, u64), change: impl FnOnce(&mut Builder)) -> Certificate {
        let key = self.host.public_key().clone();
        let rng = &mut russh::keys::key::safe_rng();
        let mut builder = Builder::new_with_random_nonce(rng, key, valid.0, valid.1).expect("a builder");
        builder.key_id("hsm-a").expect("set");
        change(&mut builder);
        builder.sign(&self.authority).expect("signed")
    }

    fn why(&self, certificate: Certificate, address: &str) -> Option<String> {
        match self.trusting().judge(&certificate.into(), &server(address), self.now) {
            Verdict::Accepted => None,
            Verdict::NotTaken(why) => Some(why),
            other => Some(format!("{other:?}")),
        }
    }
}

#[test]
fn a_host_with_a_certificate_of_the_authority_is_accepted_under_its_names() {
    let vouched = Vouched::new();
    let patterns = |builder: &mut Builder| {
        builder.valid_principal("*.farm.example").expect("set");
        builder.valid_principal("[hsm-b.example]:2222").expect("set");
        builder.valid_principal("2001:db8::1").expect("set");
    };
    for (address, is_accepted) in [
        ("hsm-a.example:22", true),
        ("HSM-A.example:22", true),
        ("hsm-a.example:2222", true),
        ("one.farm.example:22", true),
        ("[2001:db8::1]:22", true),
        ("hsm-b.example:2222", true),
        ("hsm-b.example:22", false),
        ("farm.example:22", false),
        ("a.example:22", false),
        ("hsm-a.example.evil:22", false),
    ] {
        let why = vouched.why(vouched.certificate(patterns), address);
        assert_eq!(why.is_none(), is_accepted, "{address}: {why:?}");
        assert!(why.is_none_or(|why| why.contains("hsm-a.example") && why.contains("-n ")));
    }
    let host_key = vouched.trusting();
    assert_eq!(host_key.certificate_algorithms(Algorithms::Modern).len(), 6);
    assert!(
        HostKey::from_line(&line(&new_key())).expect("a key").certificate_algorithms(Algorithms::Modern).is_empty()
    );
    assert_eq!(host_key.thinks_of(vouched.host.public_key()), Verdict::Mismatch, "without its certificate");
    assert!(host_key.fingerprints()[0].starts_with("@cert-authority ssh-ed25519 SHA256:"));
}

#[test]
fn a_host_certificate_that_will_not_do_says_why() {
    let vouched = Vouched::new();
    let address = "hsm-a.example:22";
    let option = |builder: &mut Builder| {
        builder.critical_option("force-command", "x").expect("set");
    };
    let said = vouched.why(vouched.certificate(option), address).expect("refused");
    assert!(said.contains("force-command"), "{said}");

    let with_name = |builder: &mut Builder| {
        builder.valid_principal("hsm-a.example").expect("set");
    };
    let of_user = vouched.signed((0, u64::MAX), |builder| {
        builder.cert_type(CertType::User).expect("set");
        with_name(builder);
    });
    assert!(vouched.why(of_user, address).expect("refused").contains("for users"));

    let for_all = vouched.signed((0, u64::MAX), |builder| {
        builder.cert_type(CertType::Host).expect("set");
        builder.all_principals_valid().expect("set");
    });
    assert!(vouched.why(for_all, address).expect("refused").contains("for []"), "for all hosts is for none");

    for (valid, why) in [
        ((vouched.now, vouched.now + 1), None),
        ((vouched.now + 1, vouched.now + 2), Some("only from")),
        ((vouched.now - 2, vouched.now), Some("expired")),
        ((0, u64::MAX), None),
    ] {
        let certificate = vouched.signed(valid, |builder| {
            builder.cert_type(CertType::Host).expect("set");
            with_name(builder);
        });
        let said = vouched.why(certificate, address);
        assert_eq!(said.is_some(), why.is_some(), "{valid:?}: {said:?}");
        assert!(said.is_none_or(|said| said.contains(why.expect("the same"))));
    }

    // One of another authority, and one that was changed after it was signed.
    let stranger = Vouched::new();
    assert_eq!(vouched.why(stranger.certificate(|_| {}), address), Some("Mismatch".to_owned()));
    let mut bytes = vouched.certificate(|_| {}).to_bytes().expect("encoded");
    let at = bytes.windows(5).position(|window| window == b"hsm-a").expect("its id");
    bytes[at + 4] = b'b';
    let said = vouched.why(Certificate::from_bytes(&bytes).expect("it parses"), address).expect("refused");
    assert!(said.contains("someone has changed it"), "{said}");
}

#[test]
fn a_certificate_that_was_signed_with_sha_1_is_refused() {
    // Made by `ssh-keygen -t ssh-rsa -s` with a key of 3072 bits.
    let authority = include_str!("sha1_authority.pub");
    let certificate: Certificate = include_str!("sha1_host-cert.pub").trim().parse().expect("a certificate");
    let host_key = HostKey::from_authority(authority).expect("an authority");
    let verdict = host_key.judge(&certificate.into(), &server("hsm-a.example:22"), utc::now());
    assert!(matches!(&verdict, Verdict::NotTaken(why) if why.contains("signed with ssh-rsa")), "{verdict:?}");
}

#[test]
fn what_is_revoked_is_not_accepted_and_who_is_revoked_vouches_for_nobody() {
    let vouched = Vouched::new();
    let (authority, host) = (line(vouched.authority.public_key()), line(vouched.host.public_key()));
    let trust = format!("@cert-authority *.example {authority}\n");
    for (further, expected) in [
        (String::new(), Verdict::Accepted),
        (format!("@revoked * {host}\n"), Verdict::Revoked),
        (format!("@revoked hsm-a.example {authority}\n"), Verdict::Revoked),
        (format!("@revoked hsm-b.example {authority}\n"), Verdict::Accepted),
        (format!("hsm-a.example {host}\n@revoked * {authority}\n"), Verdict::Revoked),
    ] {
        for address in ["hsm-a.example:22", "hsm-a.example:2222"] {
            let host_key = File::new(&format!("{trust}{further}")).keys(address).expect("an authority");
            let shown = vouched.certificate(|_| {}).into();
            assert_eq!(host_key.judge(&shown, &server(address), vouched.now), expected, "{address} {further}");
        }
    }
    let other = File::new(&trust).keys("hsm-a.elsewhere:22").expect_err("about another one");
    assert!(matches!(other, HostKeyError::NotListed { .. }), "{other}");
}

#[test]
fn a_pinned_key_needs_nobody_to_vouch_for_it() {
    let (vouched, stranger) = (Vouched::new(), Vouched::new());
    let host_key = HostKey::from_line(&line(vouched.host.public_key())).expect("a key");
    let certificate = vouched.certificate(|_| {});
    assert_eq!(host_key.judge(&certificate.into(), &server("other:22"), vouched.now), Verdict::Accepted);
    let certificate = stranger.certificate(|_| {});
    assert_eq!(host_key.judge(&certificate.into(), &server("other:22"), vouched.now), Verdict::Mismatch);
}
