//! Addresses that the gateway listens at: whether they are free, and if not who has them.
//!
//! A TCP address is tried by binding it for a moment, a Unix socket by connecting to it. Beside a gateway that runs, it is that one who
//! has them, which is as it should be.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::finding::Finding;
use crate::config::{Config, HardserverAddress};

const CHECK: &str = "listener";

/// The name of our own process, as the kernel has it.
const OURSELVES: &str = "seeway";

/// Each address, with its key.
pub(super) fn all(config: &Config) -> Vec<Finding> {
    let listen = &config.listen;
    let tcp = |key, address: Option<SocketAddr>| address.map(|address| (key, HardserverAddress::Tcp(address)));
    let mut places: Vec<(&str, HardserverAddress)> = Vec::new();
    places.extend(tcp("listen.grpc", listen.grpc));
    places.extend(listen.hardserver.iter().map(|address| ("listen.hardserver", address.clone())));
    places.extend(tcp("listen.admin", listen.admin));
    places.extend(listen.management.iter().map(|address| ("listen.management", address.clone())));
    places.into_iter().map(|(key, address)| one(key, &address)).collect()
}

fn one(key: &str, address: &HardserverAddress) -> Finding {
    let about = format!("{key} {address}");
    match address {
        HardserverAddress::Tcp(tcp) | HardserverAddress::Tls(tcp) => of_tcp(about, *tcp),
        HardserverAddress::Unix(path) => of_socket(about, path),
    }
}

fn of_tcp(about: String, address: SocketAddr) -> Finding {
    let Err(error) = TcpListener::bind(address) else { return Finding::ok(CHECK, about, "is free") };
    match error.kind() {
        io::ErrorKind::AddrInUse => taken(about, listener_of(address)),
        io::ErrorKind::PermissionDenied => Finding::failed(
            CHECK,
            about,
            format!("this user may not listen there: {error}"),
            "choose a port above 1023, or give the unit AmbientCapabilities=CAP_NET_BIND_SERVICE",
        ),
        io::ErrorKind::AddrNotAvailable => Finding::failed(
            CHECK,
            about,
            "this computer does not have that address",
            "write one that `ip address` shows, or 0.0.0.0 with TLS",
        ),
        _ => Finding::failed(CHECK, about, format!("can not be listened on: {error}"), "choose another address"),
    }
}

fn of_socket(about: String, path: &Path) -> Finding {
    match UnixStream::connect(path) {
        Ok(stream) => {
            let peer = rustix::net::sockopt::socket_peercred(&stream).ok();
            taken(about, peer.map(|peer| peer.pid.as_raw_nonzero().get()))
        }
        // What nobody listens at any more, the gateway replaces.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Finding::ok(CHECK, about, "is free")
        }
        Err(error) => Finding::warning(
            CHECK,
            about,
            format!("may or may not be in use: {error}"),
            "run this as the gateway's user, or as a member of the socket's group",
        ),
    }
}

/// Somebody has it: a gateway, or somebody else.
fn taken(about: String, pid: Option<i32>) -> Finding {
    let name = pid.and_then(name_of);
    match (pid, name.as_deref()) {
        (Some(pid), Some(OURSELVES)) => Finding::ok(CHECK, about, format!("a gateway has it (process {pid})")),
        (Some(pid), Some(name)) => Finding::failed(
            CHECK,
            about,
            format!("`{name}` (process {pid}) has it"),
            "stop that program, or choose another address",
        ),
        _ => Finding::warning(
            CHECK,
            about,
            "is in use, and this user can not see by whom",
            "see who with: ss -ltnp; where it is a gateway that runs, all is well, else choose another address",
        ),
    }
}

fn name_of(pid: i32) -> Option<String> {
    Some(std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().escape_debug().to_string())
}

/// The process that listens at an address, or at its port on every address; `None` where the system does not let us see.
fn listener_of(address: SocketAddr) -> Option<i32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, address.port()))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid: &i32| {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors
            .filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok())
            .any(|target| target.to_str().is_some_and(|target| inodes.iter().any(|inode| inode == target)))
    })
}

/// The inodes of the sockets that listen at a port, in the form of `/proc/net/tcp`.
fn listening(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    let of_line = |line: &str| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        let is_it = cells.get(1)?.ends_with(&port) && *cells.get(3)? == LISTEN;
        if is_it { cells.get(9)?.parse().ok() } else { None }
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("bound");
        let ourselves = i32::try_from(std::process::id()).expect("small");
        assert_eq!(listener_of(address), Some(ourselves));
        let found = of_tcp("x".to_owned(), address);
        assert!(found.has_failed() && found.what.contains(&format!("(process {ourselves})")), "{found:?}");
        drop(listener);
        assert!(!of_tcp("x".to_owned(), address).has_failed());
    }
}
