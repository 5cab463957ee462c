//! Identities of every kind, and what is said of those that are of no use.

use std::os::unix::fs::PermissionsExt;

use russh::keys::ssh_key::certificate::{Builder, CertType};
use russh::keys::ssh_key::{LineEnding, private::RsaKeypair};
use russh::keys::{Algorithm, EcdsaCurve};

use super::*;

fn rng() -> impl ssh_key::rand_core::CryptoRng {
    russh::keys::key::safe_rng()
}

fn new_key(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::random(&mut rng(), algorithm).expect("a key")
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn write(&self, name: &str, mode: u32, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        path
    }

    fn write_key(&self, name: &str, mode: u32, key: &PrivateKey) -> PathBuf {
        self.write(name, mode, key.to_openssh(LineEnding::LF).expect("encoded").as_bytes())
    }

    fn passphrase(&self, text: &str) -> Result<Passphrase, IdentityError> {
        Passphrase::read(&SecretFile::new(self.write("passphrase", 0o600, text)))
    }

    /// A certificate for `key`, made as `change` wants it.
    fn certificate(&self, key: &PrivateKey, change: impl FnOnce(&mut Builder), valid: (u64, u64)) -> PathBuf {
        let authority = new_key(Algorithm::Ed25519);
        let mut builder =
            Builder::new_with_random_nonce(&mut rng(), key.public_key().clone(), valid.0, valid.1).expect("a builder");
        builder.key_id("gateway \"a\"\n").expect("an id");
        builder.valid_principal("codesafe").expect("a principal");
        change(&mut builder);
        let certificate = builder.sign(&authority).expect("signed");
        self.write("certificate", 0o644, certificate.to_openssh().expect("encoded"))
    }
}

fn as_good(builder: &mut Builder) {
    builder.cert_type(CertType::User).expect("set");
    builder.extension("permit-port-forwarding", "").expect("set");
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let folder = Folder::new();
    let key = new_key(Algorithm::Ed25519);
    for mode in [0o644, 0o640, 0o620, 0o604] {
        let path = folder.write_key("open", mode, &key);
        let error = Identity::load(&path).expect_err("refused").to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(error.contains(&format!("mode {mode:04o}")) && error.contains("chmod 600"), "{error}");
        let passphrase = folder.write("passphrase", mode, "secret\n");
        let error = Passphrase::read(&SecretFile::new(passphrase)).expect_err("refused").to_string();
        assert!(error.contains("passphrase file") && error.contains("chmod 600"), "{error}");
    }
    for mode in [0o600, 0o400] {
        let path = folder.write_key(&format!("closed-{mode:o}"), mode, &key);
        assert_eq!(Identity::load(path).expect("a key").fingerprint(), fingerprint(key.public_key().key_data()));
    }
}

#[test]
fn a_credential_of_the_service_manager_may_show_the_groups_right_to_read() {
    let folder = Folder::new();
    let key = new_key(Algorithm::Ed25519);
    let owned_by_root = files_belong_to_root();
    for (mode, is_taken) in [(0o400, true), (0o440, owned_by_root), (0o460, false), (0o444, false)] {
        let path = folder.write_key(&format!("credential-{mode:o}"), mode, &key);
        let taken = Identity::open(&SecretFile::credential(path), None);
        assert_eq!(taken.is_ok(), is_taken, "{mode:04o}: {taken:?}");
    }
}

/// Whether files that are made here belong to root.
fn files_belong_to_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    tempfile::tempdir().expect("a directory").path().metadata().expect("there").uid() == 0
}

#[test]
fn keys_of_every_kind_load_and_short_ones_do_not() {
    let folder = Folder::new();
    for (name, algorithm) in [
        ("ssh-ed25519", Algorithm::Ed25519),
        ("ecdsa-sha2-nistp256", Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }),
        ("ecdsa-sha2-nistp521", Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 }),
    ] {
        let path = folder.write_key(name, 0o600, &new_key(algorithm));
        let identity = Identity::load(path).expect(name);
        assert!(identity.public_line().starts_with(name));
        assert!(identity.fingerprint().contains("SHA256:"));
    }
    for (bits, is_taken) in [(2048, false), (3072, true)] {
        let key = RsaKeypair::random(&mut rng(), bits).expect("a key");
        let path = folder.write_key(&format!("rsa-{bits}"), 0o600, &key.into());
        match Identity::load(path) {
            Ok(identity) => assert!(is_taken && identity.public_line().starts_with("ssh-rsa ")),
            Err(error) => assert!(!is_taken && error.to_string().contains("2048 bits"), "{error}"),
        }
    }
}

#[test]
fn an_encrypted_key_opens_with_its_passphrase_and_no_other() {
    let folder = Folder::new();
    let key = new_key(Algorithm::Ed25519);
    let plain = folder.write_key("plain", 0o600, &key);
    let encrypted =
        folder.write_key("encrypted", 0o600, &key.encrypt(&mut rng(), "hunter2 with words").expect("encrypted"));
    let error = Identity::load(&encrypted).expect_err("refused");
    assert!(matches!(error, IdentityError::Encrypted { .. }), "{error}");
    assert!(error.to_string().contains("passphrase"));

    let file = SecretFile::new(&encrypted);
    let right = folder.passphrase("hunter2 with words\nwhat stands below is not read\n").expect("a passphrase");
    assert_eq!(format!("{right:?}"), "Passphrase(..)");
    let identity = Identity::open(&file, Some(&right)).expect("a key");
    assert_eq!(identity, Identity::load(&plain).expect("a key"));
    for wrong in ["hunter2", "hunter2 with words ", "Hunter2 with words"] {
        let error = Identity::open(&file, Some(&folder.passphrase(wrong).expect("a passphrase"))).expect_err("refused");
        assert!(matches!(error, IdentityError::WrongPassphrase { .. }), "{error}");
        assert!(!error.to_string().contains(wrong) && error.to_string().contains("encrypted"), "{error}");
    }
    let error = Identity::open(&SecretFile::new(&plain), Some(&right)).expect_err("refused");
    assert!(matches!(error, IdentityError::NotEncrypted { .. }), "{error}");
}

#[test]
fn passphrases_have_a_first_line_of_a_bounded_length() {
    let folder = Folder::new();
    for text in ["", "\nsecond line", "\r\n"] {
        assert!(folder.passphrase(text).expect_err("refused").to_string().contains("empty"), "{text:?}");
    }
    assert_eq!(folder.passphrase("word\r\n").expect("a passphrase").bytes(), b"word");
    assert_eq!(folder.passphrase("no newline").expect("a passphrase").bytes(), b"no newline");
    assert_eq!(folder.passphrase(&"x".repeat(1024)).expect("the longest").bytes().len(), 1024);
    assert!(folder.passphrase(&"x".repeat(1025)).is_err());
    assert!(folder.passphrase(&format!("x\n{}", "y".repeat(4094))).is_ok(), "the largest file");
    let error = folder.passphrase(&format!("secret\n{}", "y".repeat(4090))).expect_err("one byte more");
    assert!(error.to_string().contains("4096") && !error.to_string().contains("secret"), "{error}");
}

#[test]
fn rounds_without_end_are_refused_before_they_are_gone_through() {
    let folder = Folder::new();
    let key = new_key(Algorithm::Ed25519);
    let salt = vec![7; 16];
    let kdf = |rounds| Kdf::Bcrypt { salt: salt.clone(), rounds };
    let encrypted = key.encrypt_with(ssh_key::Cipher::Aes256Ctr, kdf(1), 5, "word").expect("encrypted");
    let text = encrypted.to_openssh(LineEnding::LF).expect("encoded");
    let word = folder.passphrase("word").expect("a passphrase");
    let path = folder.write("rounds", 0o600, text.as_bytes());
    assert!(Identity::open(&SecretFile::new(path), Some(&word)).is_ok());

    // The same key with another number in it.
    let mut bytes = encrypted.to_bytes().expect("encoded");
    let at = bytes.windows(16).position(|window| window == salt).expect("the salt") + 16;
    for rounds in [1001_u32, u32::MAX] {
        bytes[at..at + 4].copy_from_slice(&rounds.to_be_bytes());
        let changed = PrivateKey::from_bytes(&bytes).expect("it parses");
        let path = folder.write_key("rounds", 0o600, &changed);
        let error = Identity::open(&SecretFile::new(path), Some(&word)).expect_err("refused").to_string();
        assert!(error.contains(&format!("{rounds} rounds, above 1000")), "{error}");
    }
}

#[test]
fn a_key_of_an_agent_is_known_by_its_public_half() {
    let folder = Folder::new();
    let key = new_key(Algorithm::Ed25519);
    let public = folder.write("key.pub", 0o644, key.public_key().to_openssh().expect("encoded"));
    let of_agent = Identity::of_agent(&public, "/run/agent").expect("a key");
    assert_eq!(of_agent.agent(), Some(Path::new("/run/agent")));
    let of_file = Identity::load(folder.write_key("key", 0o600, &key)).expect("a key");
    assert_eq!(of_agent.fingerprint(), of_file.fingerprint());
    assert_ne!(of_agent, of_file, "other hands");
    assert_ne!(of_agent, Identity::of_agent(&public, "/run/other").expect("a key"));

    let private = folder.write_key("private", 0o600, &key);
    assert!(matches!(Identity::of_agent(private, "a"), Err(IdentityError::NotPublic { .. })));
    let odd = folder.write("odd.pub", 0o644, "ssh-ed25519 nonsense");
    assert!(matches!(Identity::of_agent(odd, "a"), Err(IdentityError::NotAPublicKey { .. })));
    assert!(matches!(Identity::of_agent("/nonexistent", "a"), Err(IdentityError::Unreadable { .. })));
}

#[test]
fn a_certificate_goes_with_its_key() {
    const FOREVER: (u64, u64) = (0, u64::MAX);
    let folder = Folder::new();
    let key = new_key(Algorithm::Ed25519);
    let identity = || Identity::load(folder.write_key("key", 0o600, &key)).expect("a key");
    let with = |change: fn(&mut Builder), valid| identity().with_certificate(folder.certificate(&key, change, valid));
    let now = utc::now();

    let good = with(as_good, FOREVER).expect("good");
    assert_eq!(good.valid_before(), None);
    let said = good.certificate_text().expect("it has one");
    assert!(said.contains(r#"gateway \"a\"\n"#) && said.contains("SHA256:") && said.contains("for ever"), "{said}");
    assert_ne!(good, identity(), "another login");
    assert_ne!(good, with(as_good, FOREVER).expect("good"), "another one of them");
    assert_eq!(good, good.clone());
    let ends = with(as_good, (now - 60, now + 60)).expect("good");
    assert_eq!(ends.valid_before(), Some(UNIX_EPOCH + Duration::from_secs(now + 60)));
    assert_eq!(ends.outdated(), None);

    let host: fn(&mut Builder) = |builder| {
        builder.cert_type(CertType::Host).expect("set");
    };
    let bare: fn(&mut Builder) = |builder| {
        builder.cert_type(CertType::User).expect("set");
    };
    for (change, valid, why) in [
        (as_good as fn(&mut Builder), (now - 60, now - 1), "has expired, on 2"),
        (as_good, (now + 60, now + 120), "valid only from"),
        (host, FOREVER, "for a host"),
        (bare, FOREVER, "permit-port-forwarding"),
    ] {
        let error = with(change, valid).expect_err(why);
        assert!(matches!(error, IdentityError::Certificate { .. }) && error.to_string().contains(why), "{error}");
    }
    let other = folder.certificate(&new_key(Algorithm::Ed25519), as_good, FOREVER);
    let error = identity().with_certificate(other).expect_err("another key's").to_string();
    assert!(error.contains("another key"), "{error}");
    let public = folder.write("key.pub", 0o644, key.public_key().to_openssh().expect("encoded"));
    assert!(identity().with_certificate(public).expect_err("a key").to_string().contains("does not parse"));
    let error =
        identity().with_certificate(folder.write("large", 0o600, vec![b'x'; 16 * 1024 + 1])).expect_err("large");
    assert!(error.to_string().contains("16384"), "{error}");
}

#[test]
fn a_certificate_ends_at_its_second() {
    let key = new_key(Algorithm::Ed25519);
    let mut builder =
        Builder::new_with_random_nonce(&mut rng(), key.public_key().clone(), 1000, 2000).expect("a builder");
    builder.valid_principal("codesafe").expect("set");
    as_good(&mut builder);
    let certificate = builder.sign(&new_key(Algorithm::Ed25519)).expect("signed");
    for (now, is_valid) in [(999, false), (1000, true), (1999, true), (2000, false)] {
        assert_eq!(certificate::validity(&certificate, now).is_none(), is_valid, "{now}");
    }
}

#[test]
fn what_is_no_key_is_not_printed() {
    let folder = Folder::new();
    let path = folder.write(
        "odd",
        0o600,
        "-----BEGIN OPENSSH PRIVATE KEY-----\nhush-hush\n-----END OPENSSH PRIVATE KEY-----\n",
    );
    let error = Identity::load(&path).expect_err("refused");
    assert!(matches!(error, IdentityError::NotAKey { .. }));
    assert!(!format!("{error} {error:?}").contains("hush"));
    assert!(matches!(Identity::load(folder.0.path().join("none")), Err(IdentityError::Unreadable { .. })));
    assert!(matches!(Identity::load(folder.0.path()), Err(IdentityError::Unreadable { .. })), "a folder");
    let pipe = folder.0.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("it is there").success());
    assert!(matches!(Identity::load(&pipe), Err(IdentityError::Unreadable { .. })), "a pipe, which nobody writes to");
}

#[test]
fn debug_shows_no_key() {
    let folder = Folder::new();
    let path = folder.write_key("key", 0o600, &new_key(Algorithm::Ed25519));
    let text = std::fs::read_to_string(&path).expect("there");
    let shown = format!("{:?}", Identity::load(path).expect("a key"));
    assert!(text.lines().filter(|line| !line.starts_with('-')).all(|line| !shown.contains(line)));
}
