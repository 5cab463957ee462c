//! Fetches a provider's key set: one GET over HTTPS, or over HTTP from this computer itself.
//!
//! It follows no redirect and keeps no connection: a key set's address is written down by an operator, and once in minutes is
//! seldom.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::keys::DOCUMENT_LIMIT;

/// For the whole of it: name, connection, TLS, request and answer.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// The most that an answer's header may occupy, in bytes.
const HEADER_LIMIT: usize = 64 * 1024;
/// The largest file of root certificates, in bytes; systems' own have 200 kB.
const ROOTS_LIMIT: u64 = 16 << 20;

/// Where systems keep the certificates that they trust: Debian and its kin, Red Hat's, SUSE, Alpine.
pub(crate) const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why a key set was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It took longer than ten seconds.
    #[error("the provider did not answer within {} s; see that it can be reached from here", TIME_LIMIT.as_secs())]
    TimedOut,
    /// The host is not known or can not be reached.
    #[error("the provider can not be reached: {0}")]
    Connect(io::Error),
    /// An `http://` address led to another computer.
    #[error("the provider's http:// address leads to another computer; write https://")]
    NotLoopback,
    /// There are no certificates to check the provider's with.
    #[error("no root certificates could be read{0}; name a file of them with token.ca")]
    Roots(String),
    /// The provider's certificate is not trusted, or it speaks no TLS that is.
    #[error(
        "the provider could not be trusted: {0}; name the certificate of the authority that issued its own with token.ca"
    )]
    Tls(io::Error),
    /// What it answered is no HTTP.
    #[error("the provider's answer could not be read: {0}")]
    Http(hyper::Error),
    /// It answered with something else.
    #[error("the provider answered with status {}; write the address that its key set is at itself", .0.as_u16())]
    Status(StatusCode),
    /// The answer is larger than 1 MiB, or broke off.
    #[error("the provider's answer broke off, or is larger than 1 MiB; name its JWKS document")]
    Body,
}

/// Whether a host, as an address has it, is this computer.
pub(crate) fn is_loopback(host: &str) -> bool {
    let bare = bare(host);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Fetches a key set; the provider's certificate must lead to those in the file `ca`, or to one that this system trusts.
pub(super) async fn fetch(url: &Uri, ca: Option<&Path>) -> Result<Vec<u8>, FetchError> {
    tokio::time::timeout(TIME_LIMIT, get(url, ca)).await.map_err(|_| FetchError::TimedOut)?
}

async fn get(url: &Uri, ca: Option<&Path>) -> Result<Vec<u8>, FetchError> {
    let host = bare(url.host().unwrap_or_default());
    let is_plain = url.scheme_str() == Some("http");
    let port = url.port_u16().unwrap_or(if is_plain { 80 } else { 443 });
    let stream = TcpStream::connect((host, port)).await.map_err(FetchError::Connect)?;
    if is_plain {
        // A name that should be this computer's may lead elsewhere.
        let peer = stream.peer_addr().map_err(FetchError::Connect)?;
        return if peer.ip().is_loopback() { ask(stream, url).await } else { Err(FetchError::NotLoopback) };
    }
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| FetchError::Connect(io::Error::new(io::ErrorKind::InvalidInput, "no host has such a name")))?;
    let connector = TlsConnector::from(Arc::new(tls(ca).await?));
    ask(connector.connect(name, stream).await.map_err(FetchError::Tls)?, url).await
}

async fn ask(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, url: &Uri) -> Result<Vec<u8>, FetchError> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEADER_LIMIT);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(FetchError::Http)?;
    // Ends with the answer, or with this future.
    let mut connections = tokio::task::JoinSet::new();
    connections.spawn(connection);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, url.authority().map_or("", |authority| authority.as_str()))
        .header(ACCEPT, "application/jwk-set+json, application/json")
        .header(USER_AGENT, concat!("seeway/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .expect("an address's own parts make a request");
    let answer = sender.send_request(request).await.map_err(FetchError::Http)?;
    if answer.status() != StatusCode::OK {
        return Err(FetchError::Status(answer.status()));
    }
    let body = Limited::new(answer.into_body(), DOCUMENT_LIMIT).collect().await.map_err(|_| FetchError::Body)?;
    Ok(body.to_bytes().to_vec())
}

async fn tls(ca: Option<&Path>) -> Result<ClientConfig, FetchError> {
    let roots = roots(ca).await?;
    // TLS 1.2 as well: some providers behind a bank's load balancers speak no other, and what is fetched is public.
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider of cryptography has cipher suites for both versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// Read each time, so that a renewed file is noticed.
async fn roots(ca: Option<&Path>) -> Result<RootCertStore, FetchError> {
    let in_environment = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let files: Vec<PathBuf> = match (ca, in_environment) {
        (Some(file), _) => vec![file.to_owned()],
        (None, Some(file)) => vec![file],
        (None, None) => SYSTEM_ROOTS.iter().map(PathBuf::from).collect(),
    };
    let mut why = String::new();
    for file in files {
        match read_roots(&file).await {
            Ok(roots) => return Ok(roots),
            Err(error) if ca.is_some() => why = format!(" from {}: {error}", file.display()),
            Err(_) => {}
        }
    }
    Err(FetchError::Roots(why))
}

async fn read_roots(file: &Path) -> io::Result<RootCertStore> {
    if tokio::fs::metadata(file).await?.len() > ROOTS_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than 16 MiB"));
    }
    let text = tokio::fs::read(file).await?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&text).flatten());
    if roots.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it has no certificate in PEM form"));
    }
    Ok(roots)
}
