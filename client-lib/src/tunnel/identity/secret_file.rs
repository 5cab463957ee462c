//! Files with secrets in them: private keys and passphrases. What others can read is not used.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::super::key_error::IdentityError;

/// A file with a secret in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFile {
    path: PathBuf,
    is_credential: bool,
}

impl SecretFile {
    /// A file that nobody but its owner may read or write.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), is_credential: false }
    }

    /// A credential that systemd hands to a service, in the folder `$CREDENTIALS_DIRECTORY`, which only that service can enter.
    /// Such a file belongs to root, and an access list lets the service read it: that shows in its mode as a right of the group.
    pub fn credential(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), is_credential: true }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it, up to `limit` bytes; `what` is for errors. Wiped when it is dropped.
    pub(super) fn read(&self, what: &'static str, limit: usize) -> Result<Zeroizing<Vec<u8>>, IdentityError> {
        let unreadable = |error| IdentityError::Unreadable { what, path: self.path.clone(), error };
        let no_file = || unreadable(io::Error::other("it is no file"));
        // A pipe would wait for somebody to write to it.
        if !std::fs::metadata(&self.path).map_err(unreadable)?.is_file() {
            return Err(no_file());
        }
        let file = File::open(&self.path).map_err(unreadable)?;
        // Asked of the open file, so that nobody can swap it in between.
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(no_file());
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::{MetadataExt, PermissionsExt};
            let mode = metadata.permissions().mode() & 0o7777;
            let tolerated = if self.is_credential && metadata.uid() == 0 { 0o040 } else { 0 };
            if mode & 0o077 & !tolerated != 0 {
                return Err(IdentityError::OpenToOthers { what, path: self.path.clone(), mode });
            }
        }
        // Room for all of it from the start: a buffer that grows leaves copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
        let most = u64::try_from(limit + 1).unwrap_or(u64::MAX);
        file.take(most).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() > limit {
            return Err(unreadable(io::Error::other(format!("it has more than {limit} bytes"))));
        }
        Ok(bytes)
    }
}
