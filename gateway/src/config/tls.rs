//! What a TLS listener shows and asks for: certificates, keys, authorities and lists of revoked certificates, from their files.
//!
//! Read with the configuration; again when it is reloaded, and when one of the files has changed.

use std::fmt;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use zeroize::Zeroizing;

use super::validity::{Ends, Validity};

/// `[tls]` or `[management_tls]`: one listener's side of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// `certificate`: the certificate that is shown, and those between it and its authority, in PEM.
    pub certificate: PathBuf,
    /// `key`: its private key, in PEM.
    pub key: PathBuf,
    /// `client_ca`: whose client certificates count; `None`: none are asked for.
    pub client_ca: Option<PathBuf>,
    /// `client_certificates`: whether callers without one are let in, as nobody or by token.
    pub client_certificates: ClientCertificates,
    /// `crl`: lists of certificates that are revoked.
    pub crl: Vec<PathBuf>,
    /// `expired_crl`: whether a list that is past its next update still counts, or nobody gets in by its authority.
    pub accepts_expired_crl: bool,
    /// `handshake_timeout`: how long a handshake may take.
    pub handshake_timeout: Duration,
    /// `handshakes`: how many there may be at once.
    pub handshakes: usize,
    /// `peer_handshakes`: how many of them one address may have.
    pub peer_handshakes: usize,
    /// `max_age`: how old a gRPC connection may become; zero: any age.
    pub max_age: Duration,
}

/// Whether callers must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Without one there is no connection.
    Required,
    /// Without one a caller is nobody, unless it sends a token.
    Optional,
}

/// What has been made of the files.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is shown, and agreed on.
    pub server: Arc<ServerConfig>,
    /// Who looks at callers' certificates; `None` where none are asked for.
    pub verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Until when it is of use.
    pub ends: Ends,
}

/// Why a file will not do.
#[derive(Debug, thiserror::Error)]
#[error("{what}; {fix}")]
pub struct TlsFileError {
    /// The key of the table that names the file.
    pub key: &'static str,
    /// What is wrong with which file.
    pub what: String,
    /// What to do.
    pub fix: String,
}

/// What changes when one of the files does, without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Vec<Option<(u64, u64, i64, i64)>>);

/// The largest file, in bytes. A list of revoked certificates may be long.
const FILE_LIMIT: u64 = 32 << 20;

/// What this gateway speaks TLS with: version 1.3, its three suites, and key exchanges with the hybrid post-quantum one first.
pub fn provider() -> Arc<CryptoProvider> {
    let kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
        aws_lc_rs::kx_group::SECP384R1,
    ];
    let provider = aws_lc_rs::default_provider();
    let cipher_suites =
        provider.cipher_suites.iter().copied().filter(|suite| suite.version() == &rustls::version::TLS13).collect();
    Arc::new(CryptoProvider { kx_groups, cipher_suites, ..provider })
}

impl Tls {
    /// Reads the files, for connections on which one of these protocols is spoken.
    ///
    /// # Errors
    /// The first file that will not do.
    pub fn load(&self, protocols: &[&[u8]]) -> Result<Loaded, TlsFileError> {
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| wrong("certificate", &self.certificate, &error, "report this: TLS 1.3 is built in"))?;
        let mut ends = Ends::default();
        let verifier = match &self.client_ca {
            Some(authorities) => Some(self.verifier(authorities, provider, &mut ends)?),
            None => None,
        };
        let builder = match &verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
        };
        let chain: Vec<CertificateDer<'static>> = pem("certificate", &self.certificate)?;
        ends.certificate = first_end(chain.iter().filter_map(|certificate| Validity::of_certificate(certificate)));
        let key = self.private_key()?;
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            let fix = "name the certificate's own private key, and a certificate of version 3";
            wrong("key", &self.key, &error, fix)
        })?;
        // Who comes back is looked at again: a certificate may have been revoked meanwhile.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Loaded { server: Arc::new(config), verifier, ends })
    }

    fn verifier(
        &self,
        authorities: &Path,
        provider: Arc<CryptoProvider>,
        ends: &mut Ends,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsFileError> {
        let certificates = pem::<CertificateDer<'static>>("client_ca", authorities)?;
        let lists = self.revoked()?;
        ends.client_ca = first_end(certificates.iter().filter_map(|certificate| Validity::of_certificate(certificate)));
        ends.crl = first_end(lists.iter().filter_map(|list| Validity::of_list(list)));
        let roots = Arc::new(roots(authorities, certificates)?);
        let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
        if !lists.is_empty() {
            verifier = verifier.with_crls(lists);
            if !self.accepts_expired_crl {
                verifier = verifier.enforce_revocation_expiration();
            }
        }
        if self.client_certificates == ClientCertificates::Optional {
            verifier = verifier.allow_unauthenticated();
        }
        verifier.build().map_err(|error| {
            wrong("client_ca", authorities, &error, "name a file with the authority's certificate in PEM form")
        })
    }

    /// What the files look like now.
    pub fn stamp(&self) -> Stamp {
        let files = [&self.certificate, &self.key].into_iter().chain(&self.client_ca).chain(&self.crl);
        let stamp = |path: &PathBuf| {
            // Through symbolic links: that is how a mounted secret is exchanged.
            let file = std::fs::metadata(path).ok()?;
            Some((file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
        };
        Stamp(files.map(stamp).collect())
    }

    /// The certificates in `client_ca`; none where callers are asked for none.
    pub(super) fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
        self.client_ca.as_ref().map_or_else(|| Ok(Vec::new()), |file| pem("client_ca", file))
    }

    fn revoked(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsFileError> {
        let mut lists = Vec::new();
        for file in &self.crl {
            lists.extend(pem::<CertificateRevocationListDer<'static>>("crl", file)?);
        }
        Ok(lists)
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsFileError> {
        let path = &self.key;
        is_file("key", path)?;
        let file = std::fs::File::open(path).map_err(|error| unreadable("key", path, &error))?;
        let metadata = file.metadata().map_err(|error| unreadable("key", path, &error))?;
        let mode = metadata.permissions().mode() & 0o7777;
        if is_open_to_others(mode, metadata.uid(), rustix::process::geteuid().as_raw()) {
            return Err(TlsFileError {
                key: "key",
                what: format!("the private key {} can be read or written by others (mode {mode:04o})", path.display()),
                fix: format!("run: chmod 600 {}", path.display()),
            });
        }
        let text = Zeroizing::new(read("key", path)?);
        PrivateKeyDer::from_pem_slice(&text).map_err(|_| TlsFileError {
            key: "key",
            what: format!("{} has no private key in PEM form", path.display()),
            fix: "name the file of the certificate's private key; `seeway keygen DIR --tls` makes one".to_owned(),
        })
    }
}

/// Whether others than the gateway's user can read or write a private key. Where root hands a key to a service, as Kubernetes does with a mounted secret,
/// the file stays root's, and the service reads it as a member of the file's group.
fn is_open_to_others(mode: u32, owner: u32, user: u32) -> bool {
    let tolerated = if owner == 0 && user != 0 { 0o040 } else { 0 };
    mode & 0o077 & !tolerated != 0
}

fn first_end(all: impl Iterator<Item = Validity>) -> Option<SystemTime> {
    all.map(|validity| validity.end).min()
}

fn roots(authorities: &Path, certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsFileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| {
            wrong("client_ca", authorities, &error, "name a file with the authority's certificate in PEM form")
        })?;
    }
    Ok(roots)
}

/// Everything of one kind that a file holds; at least one.
fn pem<T: PemObject>(key: &'static str, path: &Path) -> Result<Vec<T>, TlsFileError> {
    let text = read(key, path)?;
    let all: Result<Vec<T>, _> = T::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(TlsFileError {
            key,
            what: format!("{} holds nothing of the kind that is looked for, in PEM form", path.display()),
            fix: "name the right file; one in DER form is converted with `openssl x509 -inform der`".to_owned(),
        }),
        Err(error) => Err(wrong(key, path, &error, "correct that file")),
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, TlsFileError> {
    let length = is_file(key, path)?;
    if length > FILE_LIMIT {
        return Err(TlsFileError {
            key,
            what: format!("{} has {length} bytes, above the limit of {FILE_LIMIT}", path.display()),
            fix: "name the right file".to_owned(),
        });
    }
    std::fs::read(path).map_err(|error| unreadable(key, path, &error))
}

/// The length of a file. Asked before it is opened: a pipe would wait for somebody to write to it.
fn is_file(key: &'static str, path: &Path) -> Result<u64, TlsFileError> {
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(key, path, &error))?;
    if metadata.is_file() {
        return Ok(metadata.len());
    }
    let what = format!("{} is not a file", path.display());
    Err(TlsFileError { key, what, fix: "name a file".to_owned() })
}

fn unreadable(key: &'static str, path: &Path, error: &std::io::Error) -> TlsFileError {
    let fix = match error.kind() {
        std::io::ErrorKind::NotFound => {
            "make it (`seeway keygen DIR --tls` makes all that is needed), or correct its name"
        }
        std::io::ErrorKind::PermissionDenied => "give it to the user that the gateway runs as (chown)",
        _ => "name a file that can be read",
    };
    wrong(key, path, error, fix)
}

fn wrong(key: &'static str, path: &Path, error: &dyn fmt::Display, fix: &str) -> TlsFileError {
    TlsFileError { key, what: format!("{} can not be used: {error}", path.display()), fix: fix.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_owners_alone_unless_root_hands_it_to_a_group() {
        for (mode, owner, user, is_open) in [
            (0o600, 1000, 1000, false),
            (0o400, 0, 0, false),
            (0o440, 0, 65532, false),
            (0o640, 0, 65532, false),
            (0o440, 1000, 1000, true),
            (0o440, 0, 0, true),
            (0o460, 0, 65532, true),
            (0o444, 0, 65532, true),
        ] {
            assert_eq!(is_open_to_others(mode, owner, user), is_open, "{mode:04o}, of {owner}, for {user}");
        }
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("coreutils has it");
        assert!(made.success());
        let tls = Tls {
            certificate: pipe.clone(),
            key: pipe.clone(),
            client_ca: None,
            client_certificates: ClientCertificates::Required,
            crl: Vec::new(),
            accepts_expired_crl: false,
            handshake_timeout: Duration::from_secs(1),
            handshakes: 1,
            peer_handshakes: 1,
            max_age: Duration::ZERO,
        };
        let error = tls.load(&[]).expect_err("a pipe is no certificate");
        assert_eq!((error.key, error.to_string().contains("is not a file")), ("certificate", true), "{error}");
        let error = tls.private_key().expect_err("a pipe is no key");
        assert!(error.to_string().contains("is not a file"), "{error}");
        assert!(tls.load(&[]).is_err_and(|error| error.what.contains("pipe")), "and it says which");
    }
}
