//! Where a hardserver listens.

use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The vendor's hardserver's own socket.
const DEFAULT_SOCKET: &str = "/opt/nfast/sockets/nserver";

/// A hardserver's socket: `unix:/path` or `tcp:host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// A Unix socket's path.
    Unix(PathBuf),
    /// A name or address, as `host:port`; an IPv6 address in brackets.
    Tcp(String),
}

/// An address that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is no hardserver address: {why}; it is unix:/PATH, tcp:HOST:PORT or tcp:[IPV6]:PORT")]
pub struct AddressError {
    given: String,
    why: &'static str,
}

impl Address {
    /// Where the environment points, as for the vendor's own clients: the socket `NFAST_SERVER`, else the port
    /// `NFAST_SERVER_PORT` on this host, else `/opt/nfast/sockets/nserver`.
    pub fn from_env() -> Result<Self, AddressError> {
        Self::from_variables(
            std::env::var_os("NFAST_SERVER").as_deref(),
            std::env::var_os("NFAST_SERVER_PORT").as_deref(),
        )
    }

    fn from_variables(socket: Option<&OsStr>, port: Option<&OsStr>) -> Result<Self, AddressError> {
        let is_set = |value: &&OsStr| !value.is_empty();
        if let Some(socket) = socket.filter(is_set) {
            return Ok(Self::Unix(socket.into()));
        }
        let Some(port) = port.filter(is_set) else {
            return Ok(Self::Unix(DEFAULT_SOCKET.into()));
        };
        let given = port.to_string_lossy();
        let address = format!("127.0.0.1:{given}");
        check_host_and_port(&address)
            .map_err(|why| AddressError { given: format!("NFAST_SERVER_PORT={given}"), why })?;
        Ok(Self::Tcp(address))
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(given: &str) -> Result<Self, AddressError> {
        let bad = |why| AddressError { given: given.to_owned(), why };
        if let Some(path) = given.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(bad("the path is missing"));
            }
            return Ok(Self::Unix(path.into()));
        }
        let address = given.strip_prefix("tcp:").ok_or(bad("it begins with neither unix: nor tcp:"))?;
        check_host_and_port(address).map_err(bad)?;
        Ok(Self::Tcp(address.to_owned()))
    }
}

fn check_host_and_port(address: &str) -> Result<(), &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("the port is missing")?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.unwrap_or(host).is_empty() {
        return Err("the host is missing");
    }
    if host.contains(':') && bare.is_none() {
        return Err("an IPv6 address stands in brackets");
    }
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(()),
        _ => Err("the port is not between 1 and 65535"),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_and_print_the_same() {
        for given in
            ["unix:/run/seeway/nserver", "unix:relative", "tcp:localhost:9000", "tcp:127.0.0.1:1", "tcp:[::1]:9000"]
        {
            assert_eq!(given.parse::<Address>().expect(given).to_string(), given);
        }
        for (given, why) in [
            ("/run/nserver", "neither unix: nor tcp:"),
            ("unix:", "the path is missing"),
            ("tcp:localhost", "the port is missing"),
            ("tcp::9000", "the host is missing"),
            ("tcp:[]:9000", "the host is missing"),
            ("tcp:::1:9000", "in brackets"),
            ("tcp:localhost:0", "between 1 and 65535"),
            ("tcp:localhost:seejobs", "between 1 and 65535"),
        ] {
            let error = given.parse::<Address>().expect_err(given).to_string();
            assert!(error.contains(why) && error.contains(given), "{error}");
        }
    }

    #[test]
    fn the_environment_points_to_a_socket_before_a_port() {
        let from = |socket: Option<&str>, port: Option<&str>| {
            Address::from_variables(socket.map(OsStr::new), port.map(OsStr::new)).map(|address| address.to_string())
        };
        assert_eq!(from(Some("/tmp/n"), Some("9000")).expect("a socket"), "unix:/tmp/n");
        assert_eq!(from(None, Some("9004")).expect("a port"), "tcp:127.0.0.1:9004");
        assert_eq!(from(Some(""), Some("")).expect("as if unset"), "unix:/opt/nfast/sockets/nserver");
        assert_eq!(from(None, None).expect("the default"), "unix:/opt/nfast/sockets/nserver");
        assert!(from(None, Some("many")).expect_err("no port").to_string().contains("NFAST_SERVER_PORT=many"));
    }
}
