//! Where a provider's keys come from: a file, or the provider itself.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use http::Uri;
use tokio::io::AsyncReadExt as _;

use super::fetch::{self, FetchError};
use super::keys::{DOCUMENT_LIMIT, Keys, KeysError};

/// `token.jwks`: where the provider's key set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// An `https://` address, or an `http://` one of this computer.
    Url(Uri),
}

/// Why keys could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file can not be read.
    #[error("the file can not be read: {0}")]
    File(#[from] io::Error),
    /// The provider did not hand them over.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// They are no keys that can be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// What tells one state of a file from the next.
pub(super) type Stamp = (u64, u64, i64, i64);

impl KeySource {
    /// Reads `https://…`, `http://` with a loopback address, or a file's name.
    ///
    /// # Errors
    /// What is wrong with an address, and what to write.
    pub fn parse(text: &str, file: impl FnOnce(&str) -> PathBuf) -> Result<Self, (String, &'static str)> {
        if !text.contains("://") {
            return Ok(Self::File(file(text)));
        }
        let not_an_address = "write the provider's jwks_uri, such as \"https://login.example/keys\", or a file's name";
        let url: Uri = text.parse().map_err(|_| (format!("`{text}` is not an address"), not_an_address))?;
        let authority = url.authority().ok_or_else(|| (format!("`{text}` names no host"), not_an_address))?;
        if authority.as_str().contains('@') {
            return Err(("has a user or password in it".to_owned(), "write the address without them"));
        }
        if authority.host().is_empty() || authority.port_u16() == Some(0) {
            return Err((format!("`{text}` names no host"), not_an_address));
        }
        match url.scheme_str() {
            Some("https") => Ok(Self::Url(url)),
            Some("http") if fetch::is_loopback(authority.host()) => Ok(Self::Url(url)),
            Some("http") => Err((
                format!("`{text}` is not encrypted, and whoever is on the way could put in keys of its own"),
                "write https://; http:// is for this computer only, such as http://127.0.0.1:8080/keys",
            )),
            _ => Err((format!("`{text}` is neither an https address nor a file"), not_an_address)),
        }
    }

    /// Reads the keys.
    pub(super) async fn read(&self, ca: Option<&Path>, rsa_min_bits: usize) -> Result<Keys, SourceError> {
        let document = match self {
            Self::File(path) => {
                let mut document = Vec::new();
                let file = tokio::fs::File::open(path).await?;
                file.take(DOCUMENT_LIMIT as u64 + 1).read_to_end(&mut document).await?;
                document
            }
            Self::Url(url) => fetch::fetch(url, ca).await?,
        };
        Ok(Keys::from_jwks(&document, rsa_min_bits)?)
    }

    /// What changes when a file is written or replaced; `None` for an address, and for a file that can't be looked at.
    pub(super) async fn stamp(&self) -> Option<Stamp> {
        let Self::File(path) = self else { return None };
        let found = tokio::fs::metadata(path).await.ok()?;
        Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Url(url) => write!(formatter, "{url}"),
        }
    }
}
