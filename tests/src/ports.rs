//! Ports for servers that can't be told to listen on port 0 and say which one they got, and ports where no server is.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    os::fd::OwnedFd,
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with};

/// Below the range from which the kernel takes ports for outgoing connections, so that a server that is killed finds its
/// port free when it comes back.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A port of `ip` that nobody listens on now. Another process may take it first: start the server, and ask again when it fails.
pub fn free(ip: IpAddr) -> u16 {
    let width = u64::from(RANGE.end - RANGE.start);
    (0..1_000)
        .map(|_| {
            let random = RandomState::new().build_hasher().finish() % width;
            RANGE.start + u16::try_from(random).expect("the remainder is less than the range is wide")
        })
        .find(|port| TcpListener::bind((ip, *port)).is_ok())
        .unwrap_or_else(|| panic!("of 1000 ports tried on {ip} none is free"))
}

/// A port where nobody listens as long as this lives: connects are refused, and no other process can take it.
pub struct Nobody {
    socket: OwnedFd,
}

impl Nobody {
    /// Some port of 127.0.0.1.
    pub fn on_loopback() -> Self {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let socket = socket.unwrap_or_else(|error| panic!("there is no socket: {error}"));
        // Bound, and never told to listen.
        bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .unwrap_or_else(|error| panic!("no port of 127.0.0.1 is free: {error}"));
        Self { socket }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        let address = getsockname(&self.socket).and_then(SocketAddr::try_from);
        address.unwrap_or_else(|error| panic!("a bound socket has an address: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use std::{io::ErrorKind, net::TcpStream};

    use super::*;

    #[test]
    fn where_nobody_is_connects_are_refused_and_nobody_can_listen() {
        let nobody = Nobody::on_loopback();
        let refused = TcpStream::connect(nobody.address()).expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        let taken = TcpListener::bind(nobody.address()).expect_err("the port is held");
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    }
}
