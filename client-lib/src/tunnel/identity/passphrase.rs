//! Passphrases of private keys, read from files.

use std::fmt;
use std::io;

use zeroize::{Zeroize as _, Zeroizing};

use super::super::key_error::IdentityError;
use super::secret_file::SecretFile;

/// The longest passphrase, and its file's longest first line, in bytes.
const MAX_PASSPHRASE: usize = 1024;

/// The largest file that is read: what stands below the first line is nobody's business here.
const MAX_FILE: usize = 4096;

/// A passphrase. Never printed, and wiped when it is dropped.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Reads the first line of a file, without its newline. A file that others can read is refused.
    pub fn read(file: &SecretFile) -> Result<Self, IdentityError> {
        let what = "passphrase file";
        let mut line = file.read(what, MAX_FILE)?;
        let end = line.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(line.len());
        // A shorter vector's bytes beyond its end would be wiped too, being capacity; sooner is better.
        line[end..].zeroize();
        line.truncate(end);
        let unusable = |why: String| {
            let error = io::Error::new(io::ErrorKind::InvalidData, why);
            Err(IdentityError::Unreadable { what, path: file.path().to_owned(), error })
        };
        match line.len() {
            0 => unusable("its first line is empty".to_owned()),
            1..=MAX_PASSPHRASE => Ok(Self(line)),
            _ => unusable(format!("its first line has more than {MAX_PASSPHRASE} bytes")),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}
