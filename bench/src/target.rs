//! Where a load goes: a hardserver socket, a SEEJobs port or a gRPC front end, as `seeway job` writes them.

use std::{fmt, path::PathBuf, str::FromStr};

/// One way in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The SEEJob wire on a Unix socket.
    Unix(PathBuf),
    /// The SEEJob wire on a TCP port, `host:port`.
    Tcp(String),
    /// The gRPC front end, `host:port`.
    Grpc(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Grpc(address) => write!(f, "grpc://{address}"),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let (address, target): (&str, fn(String) -> Self) = match text {
            _ if text.starts_with("tcp:") => (&text["tcp:".len()..], Self::Tcp),
            _ if text.starts_with("grpc://") => (&text["grpc://".len()..], Self::Grpc),
            _ => return Err(format!("{text:?} is none of unix:PATH, tcp:HOST:PORT, grpc://HOST:PORT")),
        };
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        match port {
            Some(_) => Ok(target(address.to_owned())),
            None => Err(format!("{text:?} lacks a port: write it as HOST:PORT")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() {
        for text in ["unix:/run/seeway/nserver", "tcp:127.0.0.1:9000", "tcp:[::1]:9000", "grpc://localhost:50051"] {
            assert_eq!(text.parse::<Target>().expect("a target").to_string(), text);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        assert!("tcp:localhost".parse::<Target>().expect_err("no port").contains("port"));
        assert!("http://x:1".parse::<Target>().expect_err("no such way").contains("unix:PATH"));
    }
}
