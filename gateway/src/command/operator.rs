//! How `reload`, `drain` and `resume` reach a gateway that runs: one request to its admin port.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::Failure;

/// How long connecting may take, and how long each step of the request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest answer that is read.
const ANSWER_BYTES: u64 = 4 << 20;

/// Which gateway is meant, and how it answers.
#[allow(clippy::doc_markdown)] // These texts are help on a terminal.
#[derive(Debug, clap::Args)]
pub(super) struct At {
    /// The gateway's admin port, its listen.admin
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9464", value_parser = admin_address)]
    admin: SocketAddr,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
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
    /// Asks for a change.
    pub(super) fn post(&self, path: &str, machine: Option<&str>) -> Result<Answer, Failure> {
        self.ask("POST", path, machine)
    }

    /// Asks what is so.
    pub(super) fn get(&self, path: &str, machine: Option<&str>) -> Result<Answer, Failure> {
        self.ask("GET", path, machine)
    }

    fn ask(&self, method: &str, path: &str, machine: Option<&str>) -> Result<Answer, Failure> {
        let admin = self.admin;
        let query = machine.map(|machine| format!("?machine={}", escaped(machine))).unwrap_or_default();
        let request = format!(
            "{method} {path}{query} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let exchange = || {
            let mut stream = TcpStream::connect_timeout(&admin, CONNECT_TIMEOUT)?;
            stream.set_read_timeout(Some(STEP_TIMEOUT))?;
            stream.set_write_timeout(Some(STEP_TIMEOUT))?;
            stream.write_all(request.as_bytes())?;
            let mut answer = Vec::new();
            stream.take(ANSWER_BYTES).read_to_end(&mut answer).map(|_| answer)
        };
        let answer = exchange().map_err(|error| {
            Failure::Failed(format!("no gateway answers at {admin}: {error}; name its listen.admin with --admin"))
        })?;
        read(&answer).ok_or_else(|| {
            let why = "what answers there is no gateway's admin port, or one of another version";
            Failure::Failed(format!("{admin}: {why}; name the gateway's listen.admin with --admin"))
        })
    }
}

/// `127.0.0.1:9464`, `[::1]:9464` or `localhost:9464`.
fn admin_address(given: &str) -> Result<SocketAddr, String> {
    let numeric = given.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let address = numeric.as_deref().unwrap_or(given).parse::<SocketAddr>();
    let address = address.ok().filter(|address| address.port() > 0);
    address.ok_or_else(|| "write an address and a port, such as 127.0.0.1:9464".to_owned())
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
        assert_eq!(admin_address("localhost:9464").map(|address| address.to_string()), Ok("127.0.0.1:9464".to_owned()));
        assert!(admin_address("[::1]:9464").is_ok());
        assert!(admin_address("9464").is_err() && admin_address("127.0.0.1:0").is_err());
        assert_eq!(escaped("hsm-a/1@b +&"), "hsm-a%2F1%40b%20%2B%26");
    }
}
