//! What a tunnel needs to know before it connects.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::time::Duration;

use super::error::EndpointError;
use super::{Algorithms, HostKey, Identity};

/// Where an SSH server listens: `name:port`, `192.0.2.1:port` or `[2001:db8::1]:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(given: &str) -> Result<Self, EndpointError> {
        let bad = |why| EndpointError { given: given.to_owned(), why };
        let (host, port) = given.rsplit_once(':').ok_or(bad("the port is missing"))?;
        let host = if let Some(bracketed) = host.strip_prefix('[') {
            let inner = bracketed.strip_suffix(']').ok_or(bad("the bracket is not closed"))?;
            // A zone (`fe80::1%eth0`) is the resolver's business.
            let address = inner.split_once('%').map_or(inner, |(address, _zone)| address);
            address.parse::<Ipv6Addr>().map_err(|_| bad("there is no IPv6 address in the brackets"))?;
            inner
        } else if host.contains(':') {
            return Err(bad("an IPv6 address stands in brackets"));
        } else {
            host
        };
        if host.is_empty() {
            return Err(bad("the host is missing"));
        }
        if host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/' || c == '@') {
            return Err(bad("the host has a character that no name has"));
        }
        // `+22` parses as a number, and is no port.
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad("the port is no number"));
        }
        let port = port.parse().map_err(|_| bad("the port is not between 1 and 65535"))?;
        if port == 0 {
            return Err(bad("the port is not between 1 and 65535"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The most bytes after which new keys are agreed on: what RFC 4253 recommends, and the most that the SSH library takes.
pub(super) const MAX_REKEY_BYTES: u64 = 1 << 30;

/// What [`Tunnel::connect`](super::Tunnel::connect) needs to know. The defaults are the hardserver's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The SSH server. Every address of its name is tried.
    pub server: Endpoint,
    /// The user to log in as.
    pub user: String,
    /// The key to log in with.
    pub identity: Identity,
    /// The host keys to accept, and no other.
    pub host_key: HostKey,
    /// What the tunnel may be made with. [`Algorithms::Modern`].
    pub algorithms: Algorithms,
    /// How long connecting may take in all: name, TCP, handshake and login; and how long opening a channel may. 10 s.
    pub connect_timeout: Duration,
    /// How long nothing may be heard before the first keepalive is sent. 30 s.
    pub keepalive_idle: Duration,
    /// How long between keepalives, as long as nothing is heard. 10 s.
    pub keepalive: Duration,
    /// The tunnel is given up when nothing was heard for this long. 90 s.
    pub broken_after: Duration,
    /// New keys are agreed on after this many bytes in either direction; 1 GiB, and never more. The server may ask earlier.
    pub rekey_bytes: u64,
    /// New keys are agreed on after this time. 1 h. The server may ask earlier.
    pub rekey_after: Duration,
    /// Whether it is for large transfers that are to give way to whatever else the server does: it has no more on its way, each
    /// way, than keeps a fast network busy. No.
    pub gives_way: bool,
}

impl Options {
    /// Options with the default times.
    pub fn new(server: Endpoint, user: impl Into<String>, identity: Identity, host_key: HostKey) -> Self {
        Self {
            server,
            user: user.into(),
            identity,
            host_key,
            algorithms: Algorithms::default(),
            connect_timeout: Duration::from_secs(10),
            keepalive_idle: Duration::from_secs(30),
            keepalive: Duration::from_secs(10),
            broken_after: Duration::from_secs(90),
            rekey_bytes: MAX_REKEY_BYTES,
            rekey_after: Duration::from_secs(3600),
            gives_way: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_every_form_parse_and_print_the_same() {
        for (given, host, port) in [
            ("hsm-a.example:22", "hsm-a.example", 22),
            ("192.0.2.1:2222", "192.0.2.1", 2222),
            ("[2001:db8::1]:22", "2001:db8::1", 22),
            ("[::1]:65535", "::1", 65535),
            ("[fe80::1%eth0]:22", "fe80::1%eth0", 22),
        ] {
            let endpoint: Endpoint = given.parse().expect(given);
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, port));
            assert_eq!(endpoint.to_string(), given);
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (given, why) in [
            ("hsm-a.example", "the port is missing"),
            (":22", "the host is missing"),
            ("::1:22", "an IPv6 address stands in brackets"),
            ("[::1:22", "the bracket is not closed"),
            ("[hsm-a]:22", "there is no IPv6 address in the brackets"),
            ("hsm-a:ssh", "the port is no number"),
            ("hsm-a:+22", "the port is no number"),
            ("hsm-a:0", "the port is not between 1 and 65535"),
            ("hsm-a:65536", "the port is not between 1 and 65535"),
            ("hsm-a:", "the port is not between 1 and 65535"),
            ("root@hsm-a:22", "the host has a character that no name has"),
        ] {
            let error = given.parse::<Endpoint>().expect_err(given);
            assert_eq!(error.why, why, "{given}");
            assert!(error.to_string().contains(given));
        }
    }
}
