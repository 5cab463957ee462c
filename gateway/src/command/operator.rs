//! How `reload`, `drain`, `resume` and `log` reach a gateway that runs: one request to its admin port.

use std::fmt::{self, Write as _};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use seeway_client::tunnel::{Endpoint, EndpointError};
use serde_json::Value;
use zeroize::Zeroizing;

use super::Failure;
use super::tls_files::TlsFiles;
use crate::config::provider;

/// How long connecting may take, and how long each step of the request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest answer that is read.
const ANSWER_BYTES: u64 = 4 << 20;

/// Which gateway is meant, and how it answers.
#[allow(clippy::doc_markdown)] // These texts are help on a terminal.
#[derive(Debug, clap::Args)]
pub(super) struct At {
    /// Where the gateway takes changes, its listen.management or, where it has none, its listen.admin: ADDR:PORT, unix:/path, or
    /// tls:host:port with --ca, --certificate and --key
    #[arg(long, value_name = "WHERE", default_value = "127.0.0.1:9464")]
    admin: Admin,
    #[command(flatten)]
    tls: TlsFiles,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// Where a gateway takes changes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Admin {
    Tcp(SocketAddr),
    Unix(PathBuf),
    Tls(Endpoint),
}

impl FromStr for Admin {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        if let Some(path) = given.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        if let Some(address) = given.strip_prefix("tls:") {
            return address.parse().map(Self::Tls).map_err(|error: EndpointError| error.to_string());
        }
        let numeric = given.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address = numeric.as_deref().unwrap_or(given).parse::<SocketAddr>();
        let address = address.ok().filter(|address| address.port() > 0).map(Self::Tcp);
        address.ok_or_else(|| "write 127.0.0.1:9464, unix:/path or tls:host:port".to_owned())
    }
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tls(endpoint) => write!(f, "tls:{endpoint}"),
        }
    }
}

/// What the gateway said.
#[derive(Debug)]
pub(super) struct Answer {
    /// Whether it has done what it was asked to.
    pub(super) is_done: bool,
    /// A JSON object.
    pub(super) body: Value,
}

impl At {
    /// TLS as this operator speaks it.
    fn session(&self, endpoint: &Endpoint) -> Result<ClientConnection, Failure> {
        let failed = |what: &dyn fmt::Display| Failure::Failed(format!("{}: {what}", self.admin));
        let pem = |file: &PathBuf| {
            std::fs::read(file).map(Zeroizing::new).map_err(|error| {
                let what = format!("{} can not be read: {error}; name a file that this user may read", file.display());
                failed(&what)
            })
        };
        let ca = self
            .tls
            .ca
            .as_ref()
            .ok_or_else(|| Failure::Misused("tls:… needs the authority's certificate: --ca FILE".into()))?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem(ca)?) {
            let certificate = certificate.map_err(|error| failed(&format!("{}: {error}", ca.display())))?;
            roots.add(certificate).map_err(|error| failed(&format!("{}: {error}", ca.display())))?;
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| failed(&error))?
            .with_root_certificates(roots);
        let config = match (&self.tls.certificate, &self.tls.key) {
            (Some(certificate), Some(key)) => {
                let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem(certificate)?).collect();
                let chain = chain.map_err(|error| failed(&format!("{}: {error}", certificate.display())))?;
                let key = PrivateKeyDer::from_pem_slice(&pem(key)?)
                    .map_err(|_| failed(&format!("{} has no private key in PEM form", key.display())))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| failed(&error))?
            }
            _ => builder.with_no_client_auth(),
        };
        let name = ServerName::try_from(endpoint.host.clone()).map_err(|error| failed(&error))?;
        ClientConnection::new(Arc::new(config), name).map_err(|error| failed(&error))
    }

    /// Asks for a change.
    pub(super) fn post(&self, path: &str, machine: Option<&str>) -> Result<Answer, Failure> {
        self.ask("POST", path, &of_machine(machine))
    }

    /// Asks what is so.
    pub(super) fn get(&self, path: &str, machine: Option<&str>) -> Result<Answer, Failure> {
        self.ask("GET", path, &of_machine(machine))
    }

    /// Sends a request with these parameters.
    pub(super) fn ask(&self, method: &str, path: &str, query: &[(&str, &str)]) -> Result<Answer, Failure> {
        let admin = &self.admin;
        let pairs: Vec<_> = query.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
        let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
        let host = match admin {
            Admin::Tcp(address) => address.to_string(),
            Admin::Unix(_) => "localhost".to_owned(),
            Admin::Tls(endpoint) => endpoint.to_string(),
        };
        let request = format!(
            "{method} {path}{query} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let answer = match admin {
            Admin::Tcp(address) => tcp(*address).and_then(|stream| exchange(stream, &request)),
            Admin::Unix(path) => unix(path).and_then(|stream| exchange(stream, &request)),
            Admin::Tls(endpoint) => {
                let session = self.session(endpoint)?;
                let stream = (endpoint.host.as_str(), endpoint.port)
                    .to_socket_addrs()
                    .and_then(|mut addresses| tcp(addresses.next().ok_or(io::ErrorKind::NotFound)?));
                stream.and_then(|stream| exchange(StreamOwned::new(session, stream), &request))
            }
        };
        let answer = answer.map_err(|error| {
            Failure::Failed(format!(
                "no gateway answers at {admin}: {error}; name its listen.management or listen.admin with --admin"
            ))
        })?;
        read(&answer).ok_or_else(|| {
            let why = "what answers there is no gateway's admin port, or one of another version";
            Failure::Failed(format!("{admin}: {why}; name the gateway's listen.admin with --admin"))
        })
    }
}

fn of_machine(machine: Option<&str>) -> Vec<(&str, &str)> {
    machine.map(|machine| ("machine", machine)).into_iter().collect()
}

fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    Ok(stream)
}

fn unix(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(STEP_TIMEOUT))?;
    stream.set_write_timeout(Some(STEP_TIMEOUT))?;
    Ok(stream)
}

/// Asks, and reads the answer to the end of the connection.
fn exchange(mut stream: impl Read + Write, request: &str) -> io::Result<Vec<u8>> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.take(ANSWER_BYTES).read_to_end(&mut answer) {
        // A connection that is cut after the answer is none of TLS's own ends; whether the answer is whole is seen by what it says.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !answer.is_empty() => Ok(answer),
        read => read.map(|_| answer),
    }
}

/// A name as a query takes it.
fn escaped(name: &str) -> String {
    name.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

/// Status and body of a whole answer; `None` where it is none of a gateway's.
fn read(answer: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse::<u16>().ok()?;
    let body: Value = match serde_json::from_str(body) {
        Ok(body @ Value::Object(_)) => body,
        // Said in a sentence: a request that is not allowed, or not known.
        _ if status >= 400 => serde_json::json!({ "message": body.trim() }),
        _ => return None,
    };
    Some(Answer { is_done: status == 200, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_what_is_none() {
        let done = read(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"jobs\":3}\n").expect("an answer");
        assert!(done.is_done && done.body["jobs"] == 3);
        let refused = read(b"HTTP/1.1 403 Forbidden\r\n\r\nnot you\n").expect("an answer");
        assert!(!refused.is_done);
        assert_eq!(refused.body["message"], "not you");
        for none in [&b""[..], b"SSH-2.0-OpenSSH", b"HTTP/1.1 200 OK\r\n\r\nhello", b"HTTP/1.1 200 OK\r\n\r\n{\"jobs"] {
            assert!(read(none).is_none(), "{none:?}");
        }
    }

    #[test]
    fn addresses_and_names() {
        for (given, written) in [
            ("localhost:9464", "127.0.0.1:9464"),
            ("[::1]:9464", "[::1]:9464"),
            ("unix:/run/seeway/management", "unix:/run/seeway/management"),
            ("tls:gateway.example:9465", "tls:gateway.example:9465"),
        ] {
            assert_eq!(given.parse::<Admin>().map(|admin| admin.to_string()), Ok(written.to_owned()));
        }
        for given in ["9464", "127.0.0.1:0", "unix:", "tls:9465", "http://127.0.0.1:9464"] {
            assert!(given.parse::<Admin>().is_err(), "{given}");
        }
        assert_eq!(escaped("hsm-a/1@b +&"), "hsm-a%2F1%40b%20%2B%26");
    }
}
