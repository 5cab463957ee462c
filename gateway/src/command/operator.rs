//! How `reload`, `drain`, `resume`, `log` and `top` reach a gateway that runs: one request to its admin port.

mod terminal;

use std::fmt::{self, Write as _};
use std::io::{self, BufRead, BufReader, Read, Write};
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

pub(super) use terminal::{clean, clean_all};

use terminal::clean_lines;

/// How long connecting may take, and how long each step of the request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest answer that is read.
pub(super) const ANSWER_BYTES: u64 = 4 << 20;

/// The longest head of an answer that goes on.
const HEAD_BYTES: u64 = 16 << 10;

/// Which gateway is meant, and how it answers.
#[allow(clippy::doc_markdown)] // These texts are help on a terminal.
#[derive(Clone, Debug, clap::Args)]
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

/// What goes to a gateway and comes from it.
trait Connection: Read + Write + Send {}

impl<T: Read + Write + Send> Connection for T {}

/// An answer that goes on: what comes of it is read as it comes, a step of it within 15 s.
pub(super) type Stream = Box<dyn BufRead + Send>;

/// What the gateway said.
#[derive(Debug)]
pub(super) struct Answer {
    /// Whether it has done what it was asked to.
    pub(super) is_done: bool,
    /// A JSON object, with no text in it that a terminal would obey. Texts may have several lines.
    pub(super) body: Value,
}

impl Answer {
    /// What it said instead of doing what it was asked to, on one line.
    pub(super) fn refusal(&self) -> String {
        clean(self.body["message"].as_str().unwrap_or("it does not say why").trim_end())
    }
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
        let pairs: Vec<_> = query.iter().map(|(key, value)| format!("{key}={}", escaped(value))).collect();
        let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
        let host = self.host();
        let request = format!(
            "{method} {path}{query} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let answer = self.connect()?.and_then(|stream| exchange(stream, &request));
        let answer = answer.map_err(|error| self.unanswered(&error))?;
        read(&answer).ok_or_else(|| self.none())
    }

    /// Asks for an answer that goes on. `Err` with no failure in it: the gateway answers, and has no such answer for us now.
    pub(super) fn stream(&self, path: &str) -> Result<Stream, Option<Failure>> {
        // In this version of the protocol an answer ends with its connection, and is not cut into chunks before.
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.host());
        let begin = |mut stream: Box<dyn Connection>| -> io::Result<_> {
            stream.write_all(request.as_bytes())?;
            stream.flush()?;
            let mut stream = BufReader::new(stream);
            let head = head(&mut stream)?;
            Ok((stream, head))
        };
        let (stream, head) = self.connect()?.and_then(begin).map_err(|error| self.unanswered(&error))?;
        match status(&head) {
            Some(200) => Ok(Box::new(stream)),
            Some(_) => Err(None),
            None => Err(Some(self.none())),
        }
    }

    /// Where this is, as it was given.
    pub(super) fn place(&self) -> String {
        self.admin.to_string()
    }

    /// What the gateway is called in a request.
    fn host(&self) -> String {
        match &self.admin {
            Admin::Tcp(address) => address.to_string(),
            Admin::Unix(_) => "localhost".to_owned(),
            Admin::Tls(endpoint) => endpoint.to_string(),
        }
    }

    /// Connects. The outer failure is of the files that were named for it.
    fn connect(&self) -> Result<io::Result<Box<dyn Connection>>, Failure> {
        Ok(match &self.admin {
            Admin::Tcp(address) => tcp(*address).map(|stream| Box::new(stream) as _),
            Admin::Unix(path) => unix(path).map(|stream| Box::new(stream) as _),
            Admin::Tls(endpoint) => {
                let session = self.session(endpoint)?;
                let stream = (endpoint.host.as_str(), endpoint.port).to_socket_addrs().and_then(any_of);
                stream.map(|stream| Box::new(StreamOwned::new(session, stream)) as _)
            }
        })
    }

    fn unanswered(&self, error: &io::Error) -> Failure {
        let admin = &self.admin;
        Failure::Failed(format!(
            "no gateway answers at {admin}: {error}; name its listen.management or listen.admin with --admin"
        ))
    }

    fn none(&self) -> Failure {
        let why = "what answers there is no gateway's admin port, or one of another version";
        Failure::Failed(format!("{}: {why}; name the gateway's listen.admin with --admin", self.admin))
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

/// Connects to the first of a name's addresses that answers: a name may have one of IPv6 that leads nowhere.
fn any_of(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    let mut failed = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match tcp(address) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
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
pub(super) fn escaped(name: &str) -> String {
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

/// An answer's head, up to the empty line behind it.
fn head(stream: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    let mut limited = stream.take(HEAD_BYTES);
    loop {
        let before = head.len();
        limited.read_line(&mut head)?;
        match &head[before..] {
            "\r\n" => return Ok(head),
            line if line.ends_with('\n') => {}
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// The status in an answer's head.
fn status(head: &str) -> Option<u16> {
    let rest = head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 "))?;
    rest.get(..3)?.parse().ok()
}

/// Status and body of a whole answer; `None` where it is none of a gateway's.
fn read(answer: &[u8]) -> Option<Answer> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = status(head)?;
    let mut body: Value = match serde_json::from_str(body) {
        Ok(body @ Value::Object(_)) => body,
        // Said in a sentence: a request that is not allowed, or not known.
        _ if status >= 400 => serde_json::json!({ "message": body.trim() }),
        _ => return None,
    };
    clean_all(&mut body, clean_lines);
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
    fn whoever_answers_has_no_terminal_do_anything() {
        let hostile = "no\u{1b}[2J\u{9b}31m\u{202e}\nmachine hsm-a takes jobs";
        let refused = read(format!("HTTP/1.1 403 Forbidden\r\n\r\n{hostile}\n").as_bytes()).expect("an answer");
        assert_eq!(refused.refusal(), "no\u{fffd}[2J\u{fffd}31m\u{fffd} machine hsm-a takes jobs");
        let body = serde_json::json!({ "message": hostile, "problems": [{ "what": hostile }] });
        let told = read(format!("HTTP/1.1 400 Bad Request\r\n\r\n{body}").as_bytes()).expect("an answer");
        let shown = "no\u{fffd}[2J\u{fffd}31m\u{fffd}\nmachine hsm-a takes jobs";
        assert_eq!(told.body, serde_json::json!({ "message": shown, "problems": [{ "what": shown }] }));
    }

    #[test]
    fn each_address_of_a_name_is_tried() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let there = listener.local_addr().expect("bound");
        // Nobody listens at port 0.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let reached = any_of([nowhere, there].into_iter()).expect("one of them answers");
        assert_eq!(reached.peer_addr().expect("connected"), there);
        assert!(any_of([nowhere].into_iter()).is_err());
        assert_eq!(any_of(std::iter::empty()).expect_err("there is none").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn heads_are_read_up_to_what_follows_and_no_further() {
        let mut answer = &b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\nevent"[..];
        let read = head(&mut answer).expect("a head");
        assert_eq!((status(&read), answer), (Some(200), &b"event"[..]));
        let endless = vec![b'a'; 20_000];
        for cut in [&b""[..], b"HTTP/1.0 200 OK\r\n", b"HTTP/1.0 200", b"\xff\r\n\r\n", &endless] {
            assert!(head(&mut &*cut).is_err(), "{} bytes", cut.len());
        }
        assert_eq!(status("SSH-2.0-OpenSSH\r\n"), None);
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
