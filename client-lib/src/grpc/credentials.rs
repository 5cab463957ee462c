//! How a caller shows a gateway who it is, and knows the gateway: certificates for TLS, and a token.

use std::fmt;
use std::path::{Path, PathBuf};

use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Identity};
use zeroize::Zeroizing;

/// Why a file of credentials will not do. Nothing of what is in it is told.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file can't be read.
    #[error("{} can not be read: {error}; name a file that this user may read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// The token can't be sent in a header.
    #[error("{} holds no token; write it there as one line of plain text", .path.display())]
    NotAToken {
        /// The file.
        path: PathBuf,
    },
}

/// What a caller shows, and whom it trusts. Never printed.
#[derive(Clone, Default)]
pub struct Credentials {
    authorities: Option<Certificate>,
    identity: Option<Identity>,
    token: Option<MetadataValue<Ascii>>,
}

impl Credentials {
    /// Shows nothing, and trusts no gateway that speaks TLS.
    pub fn none() -> Self {
        Self::default()
    }

    /// Trusts gateways whose certificate comes by one of the authorities in this file, in PEM form.
    pub fn trust(mut self, authorities: &Path) -> Result<Self, CredentialsError> {
        self.authorities = Some(Certificate::from_pem(&*read(authorities)?));
        Ok(self)
    }

    /// Shows a certificate, with the private key of another file; both in PEM form.
    pub fn certificate(mut self, certificate: &Path, key: &Path) -> Result<Self, CredentialsError> {
        self.identity = Some(Identity::from_pem(&*read(certificate)?, &*read(key)?));
        Ok(self)
    }

    /// Sends the token that this file holds with each call. It is sent over TLS only.
    pub fn token(mut self, file: &Path) -> Result<Self, CredentialsError> {
        let not_a_token = || CredentialsError::NotAToken { path: file.to_owned() };
        let bytes = read(file)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| not_a_token())?.trim();
        if text.is_empty() {
            return Err(not_a_token());
        }
        let header = Zeroizing::new(format!("Bearer {text}"));
        let mut token = MetadataValue::try_from(header.as_str()).map_err(|_| not_a_token())?;
        token.set_sensitive(true);
        self.token = Some(token);
        Ok(self)
    }

    /// What TLS needs.
    pub(super) fn tls(&self) -> ClientTlsConfig {
        let mut tls = ClientTlsConfig::new();
        if let Some(authorities) = &self.authorities {
            tls = tls.ca_certificate(authorities.clone());
        }
        if let Some(identity) = &self.identity {
            tls = tls.identity(identity.clone());
        }
        tls
    }

    /// Whether there is anything that may only be shown over TLS.
    pub(super) fn needs_tls(&self) -> bool {
        self.token.is_some() || self.identity.is_some()
    }

    /// A request, with the token where there is one.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("trusts", &self.authorities.is_some())
            .field("certificate", &self.identity.is_some())
            .field("token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CredentialsError> {
    let bytes = std::fs::read(path).map_err(|error| CredentialsError::Unreadable { path: path.to_owned(), error })?;
    Ok(Zeroizing::new(bytes))
}
