//! Where a job goes: TO, as `seeway job` and others take it.

use std::fmt;
use std::str::FromStr;

use seeway_client::hardserver::{Address, AddressError};
use seeway_client::tunnel::Endpoint;

/// One of the four ways to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `grpc://host:port`: a gateway.
    Grpc(Endpoint),
    /// `grpcs://host:port`: a gateway, over TLS.
    Grpcs(Endpoint),
    /// `unix:/path` or `tcp:host:port`: a hardserver's socket, or a gateway's.
    Hardserver(Address),
    /// `ssh://user@host:port`: straight to a machine.
    Ssh {
        /// The login.
        user: String,
        /// The SSH server.
        server: Endpoint,
    },
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let endpoint = |text: &str| text.trim_end_matches('/').parse::<Endpoint>().map_err(|error| error.to_string());
        if let Some(address) = text.strip_prefix("grpc://") {
            return endpoint(address).map(Self::Grpc);
        }
        if let Some(address) = text.strip_prefix("grpcs://") {
            return endpoint(address).map(Self::Grpcs);
        }
        if let Some(address) = text.strip_prefix("ssh://") {
            let (user, address) = address
                .split_once('@')
                .filter(|(user, _)| !user.is_empty())
                .ok_or_else(|| format!("`{text}` names no login; write ssh://user@host:port"))?;
            if user.contains(':') {
                return Err("a password is never used; log in with --identity".to_owned());
            }
            let address = address.trim_end_matches('/');
            // An IPv6 address ends with its bracket, and has colons before it.
            let has_port = address.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
            let server = if has_port { endpoint(address)? } else { endpoint(&format!("{address}:22"))? };
            return Ok(Self::Ssh { user: user.to_owned(), server });
        }
        if text.starts_with("unix:") || text.starts_with("tcp:") {
            return text.parse().map(Self::Hardserver).map_err(|error: AddressError| error.to_string());
        }
        Err(format!(
            "`{text}` is no way to a machine; write grpc://host:port, grpcs://host:port, unix:/path, tcp:host:port or ssh://user@host:port"
        ))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Grpc(endpoint) => write!(f, "grpc://{endpoint}"),
            Self::Grpcs(endpoint) => write!(f, "grpcs://{endpoint}"),
            Self::Hardserver(address) => write!(f, "{address}"),
            Self::Ssh { user, server } => write!(f, "ssh://{user}@{server}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_ways_are_read_and_written() {
        for (text, written) in [
            ("grpc://127.0.0.1:50051", "grpc://127.0.0.1:50051"),
            ("grpc://[::1]:50051/", "grpc://[::1]:50051"),
            ("grpcs://gateway.example:50051", "grpcs://gateway.example:50051"),
            ("unix:/run/seeway/nserver", "unix:/run/seeway/nserver"),
            ("tcp:localhost:9000", "tcp:localhost:9000"),
            ("tcp:[::1]:9000", "tcp:[::1]:9000"),
            ("ssh://codesafe@hsm-a.example:2222", "ssh://codesafe@hsm-a.example:2222"),
            ("ssh://codesafe@hsm-a.example", "ssh://codesafe@hsm-a.example:22"),
            ("ssh://codesafe@[2001:db8::1]", "ssh://codesafe@[2001:db8::1]:22"),
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.to_string(), written);
        }
    }

    #[test]
    fn what_is_no_way_is_told_the_four() {
        for text in [
            "",
            "127.0.0.1:50051",
            "http://127.0.0.1:1",
            "unix:",
            "tcp:",
            "tcp:host",
            "grpc://",
            "ssh://host:22",
            "ssh://@host:22",
        ] {
            let error = text.parse::<Target>().expect_err(text);
            assert!(!error.is_empty());
        }
        assert!("host".parse::<Target>().expect_err("no way").contains("ssh://user@host:port"));
        assert!("ssh://me:secret@host:22".parse::<Target>().expect_err("a password").contains("--identity"));
        assert!(!"ssh://me:secret@host:22".parse::<Target>().expect_err("a password").contains("secret"));
    }
}
