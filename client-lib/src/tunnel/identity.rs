//! The private key that a tunnel logs in with.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::keys::{HashAlg, PrivateKey, PublicKey};
use zeroize::Zeroizing;

use super::error::IdentityError;

/// The largest key file that is read; an RSA key of 16 384 bits has 13 kB.
const MAX_KEY_FILE: u16 = 64_000;

/// A private key, ready to log in with. Cheap to clone; the key itself is never printed, and wiped on drop.
#[derive(Clone)]
pub struct Identity {
    key: Arc<PrivateKey>,
    path: Arc<Path>,
}

impl Identity {
    /// Reads a private key in OpenSSH format (Ed25519, ECDSA or RSA) without a passphrase. A file that others than its
    /// owner can read or write is refused.
    pub fn load(path: impl Into<PathBuf>) -> Result<Self, IdentityError> {
        let path = path.into();
        let unreadable = |error| IdentityError::Unreadable { path: path.clone(), error };
        let file = File::open(&path).map_err(unreadable)?;
        // Asked of the open file, so that nobody can swap it in between.
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
            if mode & 0o077 != 0 {
                return Err(IdentityError::OpenToOthers { path, mode });
            }
        }
        // Room for all of it from the start: a buffer that grows leaves copies of the key behind.
        let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_FILE.into()));
        file.take(MAX_KEY_FILE.into()).read_to_string(&mut text).map_err(unreadable)?;
        let not_a_key = |error: russh::keys::ssh_key::Error| {
            let why = error.to_string();
            IdentityError::NotAKey { path: path.clone(), why }
        };
        let key = PrivateKey::from_openssh(text.as_bytes()).map_err(not_a_key)?;
        if key.is_encrypted() {
            return Err(IdentityError::Encrypted { path });
        }
        Ok(Self { key: Arc::new(key), path: path.into() })
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key's type and SHA-256 fingerprint, as `ssh-keygen -l` has it.
    pub fn fingerprint(&self) -> String {
        fingerprint(self.key.public_key())
    }

    /// The public half, as a line for the server's authorized keys.
    pub fn public_line(&self) -> String {
        self.key.public_key().to_openssh().expect("a key that was parsed can be printed")
    }

    pub(super) fn key(&self) -> &Arc<PrivateKey> {
        &self.key
    }
}

/// The same key, wherever it was read from.
impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.key.public_key().key_data() == other.key.public_key().key_data()
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("path", &self.path)
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

/// A key's type and SHA-256 fingerprint.
pub(super) fn fingerprint(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm().as_str(), key.fingerprint(HashAlg::Sha256))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use russh::keys::ssh_key::LineEnding;
    use russh::keys::{Algorithm, EcdsaCurve};

    use super::*;

    fn write_key(dir: &Path, name: &str, mode: u32, key: &PrivateKey) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, key.to_openssh(LineEnding::LF).expect("encoded").as_bytes()).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        path
    }

    fn new_key(algorithm: Algorithm) -> PrivateKey {
        PrivateKey::random(&mut russh::keys::key::safe_rng(), algorithm).expect("a key")
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = new_key(Algorithm::Ed25519);
        for mode in [0o644, 0o640, 0o620, 0o604] {
            let path = write_key(dir.path(), "open", mode, &key);
            let error = Identity::load(&path).expect_err("refused").to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
            assert!(error.contains(&format!("mode {mode:04o}")) && error.contains("chmod 600"), "{error}");
        }
        for mode in [0o600, 0o400] {
            let path = write_key(dir.path(), &format!("closed-{mode:o}"), mode, &key);
            assert_eq!(Identity::load(path).expect("a key").fingerprint(), fingerprint(key.public_key()));
        }
    }

    #[test]
    fn keys_of_every_kind_load() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, algorithm) in [
            ("ssh-ed25519", Algorithm::Ed25519),
            ("ecdsa-sha2-nistp256", Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }),
            ("ssh-rsa", Algorithm::Rsa { hash: None }),
        ] {
            let path = write_key(dir.path(), name, 0o600, &new_key(algorithm));
            let identity = Identity::load(path).expect(name);
            assert!(identity.public_line().starts_with(name));
            assert!(identity.fingerprint().contains("SHA256:"));
        }
    }

    #[test]
    fn an_encrypted_key_says_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = new_key(Algorithm::Ed25519).encrypt(&mut russh::keys::key::safe_rng(), "hunter2").expect("encrypted");
        let path = write_key(dir.path(), "encrypted", 0o600, &key);
        let error = Identity::load(path).expect_err("refused");
        assert!(matches!(error, IdentityError::Encrypted { .. }), "{error}");
        assert!(error.to_string().contains("passphrase"));
    }

    #[test]
    fn what_is_no_key_is_not_printed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("odd");
        std::fs::write(&path, "-----BEGIN OPENSSH PRIVATE KEY-----\nhush-hush\n-----END OPENSSH PRIVATE KEY-----\n")
            .expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        let error = Identity::load(&path).expect_err("refused");
        assert!(matches!(error, IdentityError::NotAKey { .. }));
        assert!(!format!("{error} {error:?}").contains("hush"));
        assert!(matches!(Identity::load(dir.path().join("none")), Err(IdentityError::Unreadable { .. })));
    }

    #[test]
    fn debug_shows_no_key() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = write_key(dir.path(), "key", 0o600, &new_key(Algorithm::Ed25519));
        let text = std::fs::read_to_string(&path).expect("there");
        let shown = format!("{:?}", Identity::load(path).expect("a key"));
        assert!(text.lines().filter(|line| !line.starts_with('-')).all(|line| !shown.contains(line)));
    }
}
