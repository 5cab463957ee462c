//! The host key: made at the first start, kept, and refused where others could have read it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::private::{Ed25519Keypair, Ed25519PrivateKey};
use russh::keys::ssh_key::{self, LineEnding};
use russh::keys::{PrivateKey, PublicKey};
use zeroize::Zeroizing;

/// The name that OpenSSH gives such a file.
const FILE_NAME: &str = "ssh_host_ed25519_key";

/// The permissions of others than the owner.
const OTHERS: u32 = 0o077;

/// Why there is no host key.
#[derive(Debug, thiserror::Error)]
pub enum HostKeyError {
    /// The file, or the folder it is to be in, can not be read or written.
    #[error("the HSM's host key {path} can not be kept: {source}; give a state directory that can be written")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Others may have read the key.
    #[error(
        "the HSM's host key {path} can be read by others (mode {mode:04o}) and is refused; \
         remove it to get a new one, or, if you know that nobody has read it, chmod 600 it"
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no key that can be used.
    #[error("the HSM's host key {path} is no Ed25519 private key without a passphrase; remove it to get a new one")]
    Unusable {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random numbers to make a key of.
    #[error("the HSM can not make a host key: {0}")]
    Randomness(#[from] getrandom::Error),
}

/// The key of `directory`; a new one at the first start.
pub(super) fn load_or_make(directory: &Path) -> Result<PrivateKey, HostKeyError> {
    let path = directory.join(FILE_NAME);
    let io_error = |source| HostKeyError::Io { path: path.clone(), source };
    match File::open(&path) {
        Ok(file) => load(&file, &path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io_error)?;
            keep(&generate()?, directory, &path).map_err(io_error)?;
            // What is there now is the key, be it this one or that of another process that was first.
            load(&File::open(&path).map_err(io_error)?, &path)
        }
        Err(error) => Err(io_error(error)),
    }
}

/// A new key.
pub(super) fn generate() -> Result<PrivateKey, HostKeyError> {
    let mut seed = Zeroizing::new([0; Ed25519PrivateKey::BYTE_SIZE]);
    getrandom::fill(seed.as_mut_slice())?;
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

/// The public key as one line, without a comment.
pub(super) fn line(key: &PublicKey) -> String {
    PublicKey::new(key.key_data().clone(), "").to_openssh().expect("an Ed25519 key has a textual form")
}

fn load(mut file: &File, path: &Path) -> Result<PrivateKey, HostKeyError> {
    let io_error = |source| HostKeyError::Io { path: path.to_owned(), source };
    let mode = file.metadata().map_err(io_error)?.mode();
    if mode & OTHERS != 0 {
        return Err(HostKeyError::OpenToOthers { path: path.to_owned(), mode: mode & 0o7777 });
    }
    let mut text = Zeroizing::new(String::new());
    file.read_to_string(&mut text).map_err(io_error)?;
    PrivateKey::from_openssh(text.as_bytes())
        .ok()
        .filter(|key| key.algorithm() == ssh_key::Algorithm::Ed25519 && !key.is_encrypted())
        .ok_or_else(|| HostKeyError::Unusable { path: path.to_owned() })
}

/// Writes `key` to `path` unless that exists. It is there whole or not at all, whenever the process is killed.
fn keep(key: &PrivateKey, directory: &Path, path: &Path) -> io::Result<()> {
    let text = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    let unfinished = directory.join(format!("{FILE_NAME}.{}.unfinished", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    // A link, because unlike a rename it leaves a key that is there already alone.
    let kept = written.and_then(|()| match fs::hard_link(&unfinished, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    let removed = fs::remove_file(&unfinished);
    kept.and(removed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("own file");
    }

    #[test]
    fn a_key_is_made_once_and_kept_for_its_owner_only() {
        let folder = folder();
        let directory = folder.path().join("new/state");
        let first = load_or_make(&directory).expect("made");
        let second = load_or_make(&directory).expect("kept");
        assert_eq!(first.public_key(), second.public_key());
        assert_ne!(first.public_key(), generate().expect("randomness").public_key());
        let entries: Vec<_> = fs::read_dir(&directory).expect("there").map(|entry| entry.expect("readable")).collect();
        assert_eq!(entries.len(), 1, "nothing unfinished is left: {entries:?}");
        assert_eq!(entries[0].metadata().expect("there").mode() & 0o777, 0o600);
        assert!(line(first.public_key()).starts_with("ssh-ed25519 AAAA"));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = folder();
        load_or_make(folder.path()).expect("made");
        let path = folder.path().join(FILE_NAME);
        for mode in [0o640, 0o604, 0o644] {
            set_mode(&path, mode);
            let error = load_or_make(folder.path()).expect_err("refused").to_string();
            assert!(error.contains(&format!("mode {mode:04o}")) && error.contains("chmod 600"), "{error}");
        }
        set_mode(&path, 0o600);
        load_or_make(folder.path()).expect("fine again");
    }

    #[test]
    fn what_is_no_key_is_not_replaced() {
        let folder = folder();
        let path = folder.path().join(FILE_NAME);
        fs::write(&path, "not a key").expect("writes");
        set_mode(&path, 0o600);
        let error = load_or_make(folder.path()).expect_err("refused").to_string();
        assert!(error.contains("remove it"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("there"), "not a key");
    }
}
