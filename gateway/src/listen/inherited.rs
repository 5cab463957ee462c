//! Listening sockets that somebody else has bound: systemd, or the gateway whose place this one takes.
//!
//! [`Gateway`](crate::gateway::Gateway) asks here for each address that it is to listen at, and binds what is not here.

use std::fmt;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::net::{AddressFamily, SocketType, sockopt};
use serde::{Deserialize, Serialize};

use crate::config::HardserverAddress;

/// What a listening socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// `listen.grpc`.
    Grpc,
    /// `listen.hardserver`.
    Hardserver,
    /// `listen.admin`.
    Admin,
    /// `listen.management`.
    Management,
    /// `listen.handover`.
    Handover,
}

/// Where a socket listens, as two configurations can be compared: `tcp:ADDRESS:PORT`, with TLS or without, or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(String);

impl Name {
    /// The Unix socket's file, where it is one's.
    pub fn path(&self) -> Option<&Path> {
        self.0.strip_prefix("unix:").map(Path::new)
    }

    /// The name of a configured address. Port 0 stays 0: two gateways with the same file mean the same socket by it.
    pub fn of(address: &HardserverAddress) -> Self {
        match address {
            HardserverAddress::Unix(path) => Self(format!("unix:{}", path.display())),
            HardserverAddress::Tcp(address) | HardserverAddress::Tls(address) => Self(format!("tcp:{address}")),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A listening socket that is there already.
#[derive(Debug)]
pub struct InheritedSocket {
    /// What it is for; systemd does not say.
    pub role: Option<Role>,
    /// Where it listens.
    pub name: Name,
    /// The socket.
    pub socket: OwnedFd,
    /// Whether its file, if it has one, is somebody else's, who removes it.
    pub is_lent: bool,
}

/// Why what systemd hands over can't be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// It is no listening socket.
    #[error(
        "socket {0} that was passed by LISTEN_FDS is no listening TCP or Unix stream socket; write ListenStream= in the socket unit, \
         and Accept=no"
    )]
    Kind(usize),
    /// Nobody listens there by the configuration.
    #[error(
        "{0} was passed by LISTEN_FDS, and the configuration does not listen there; write it in [listen], or take it out of the socket unit"
    )]
    Unwanted(Name),
}

/// Those that there are.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<InheritedSocket>,
    taken_over: u64,
}

impl Inherited {
    /// What `LISTEN_FDS` says that systemd has passed to this process, as `sd_listen_fds(3)` has it.
    ///
    /// # Errors
    /// One of them is no listening socket.
    pub fn from_systemd() -> Result<Self, InheritError> {
        let mut passed = listenfd::ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let socket = tcp(&mut passed, index).or_else(|| unix(&mut passed, index));
            sockets.push(socket.ok_or(InheritError::Kind(index))?);
        }
        Ok(Self { sockets, taken_over: 0 })
    }

    /// One more.
    pub fn add(&mut self, socket: InheritedSocket) {
        self.sockets.push(socket);
    }

    /// The socket for an address, where somebody has it. It is not blocking.
    pub fn take(&mut self, role: Role, address: &HardserverAddress) -> Option<InheritedSocket> {
        let name = Name::of(address);
        let is_it = |socket: &InheritedSocket| socket.name == name && socket.role.is_none_or(|its| its == role);
        let index = self.sockets.iter().position(is_it)?;
        let socket = self.sockets.remove(index);
        rustix::io::ioctl_fionbio(&socket.socket, true).ok()?;
        self.taken_over += u64::from(socket.role.is_some());
        Some(socket)
    }

    /// How many were taken that another gateway had.
    pub fn taken_over(&self) -> u64 {
        self.taken_over
    }

    /// What is left: sockets that another gateway had and that this one does not want. Of systemd's none may be left: it would take
    /// connections that nobody serves.
    ///
    /// # Errors
    /// One is.
    pub fn left(self) -> Result<Vec<InheritedSocket>, InheritError> {
        match self.sockets.iter().find(|socket| socket.role.is_none()) {
            Some(socket) => Err(InheritError::Unwanted(socket.name.clone())),
            None => Ok(self.sockets),
        }
    }
}

fn tcp(passed: &mut listenfd::ListenFd, index: usize) -> Option<InheritedSocket> {
    let listener: TcpListener = passed.take_tcp_listener(index).ok()??;
    let name = Name::of(&HardserverAddress::Tcp(listener.local_addr().ok()?));
    listens(&listener, &[AddressFamily::INET, AddressFamily::INET6]).then(|| InheritedSocket {
        role: None,
        name,
        socket: listener.into(),
        is_lent: true,
    })
}

fn unix(passed: &mut listenfd::ListenFd, index: usize) -> Option<InheritedSocket> {
    let listener: UnixListener = passed.take_unix_listener(index).ok()??;
    let name = Name::of(&HardserverAddress::Unix(listener.local_addr().ok()?.as_pathname()?.to_owned()));
    listens(&listener, &[AddressFamily::UNIX]).then(|| InheritedSocket {
        role: None,
        name,
        socket: listener.into(),
        is_lent: true,
    })
}

fn listens(socket: &impl std::os::fd::AsFd, families: &[AddressFamily]) -> bool {
    let socket = socket.as_fd();
    sockopt::socket_acceptconn(socket).unwrap_or(false)
        && sockopt::socket_type(socket).is_ok_and(|kind| kind == SocketType::STREAM)
        && sockopt::socket_domain(socket).is_ok_and(|family| families.contains(&family))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(role: Option<Role>) -> (InheritedSocket, HardserverAddress) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = HardserverAddress::Tcp(listener.local_addr().expect("bound"));
        let name = Name::of(&address);
        (InheritedSocket { role, name, socket: listener.into(), is_lent: role.is_none() }, address)
    }

    #[test]
    fn a_socket_is_found_by_its_address_and_what_it_is_for() {
        let mut inherited = Inherited::default();
        let (from_systemd, anybodys) = socket(None);
        let (from_another, grpcs) = socket(Some(Role::Grpc));
        inherited.add(from_systemd);
        inherited.add(from_another);
        assert!(inherited.take(Role::Admin, &grpcs).is_none(), "it is for something else");
        assert!(inherited.take(Role::Admin, &HardserverAddress::Unix("/run/x".into())).is_none());
        let HardserverAddress::Tcp(address) = grpcs else { panic!("TCP") };
        assert!(inherited.take(Role::Grpc, &HardserverAddress::Tls(address)).is_some(), "TLS is spoken later");
        assert!(inherited.take(Role::Grpc, &HardserverAddress::Tls(address)).is_none(), "once");
        assert!(inherited.take(Role::Hardserver, &anybodys).is_some());
        assert!(inherited.left().expect("none of systemd's").is_empty());
    }

    #[test]
    fn what_systemd_passes_in_vain_is_said_and_what_another_gateway_does_is_closed() {
        let mut inherited = Inherited::default();
        inherited.add(socket(Some(Role::Hardserver)).0);
        assert_eq!(inherited.left().expect("this configuration listens elsewhere").len(), 1);
        let mut inherited = Inherited::default();
        let (from_systemd, address) = socket(None);
        inherited.add(from_systemd);
        let error = inherited.left().expect_err("nobody would serve it").to_string();
        assert!(error.contains(&Name::of(&address).to_string()) && error.contains("[listen]"), "{error}");
    }
}
