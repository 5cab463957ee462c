//! Reads addresses: a listener's own, and a machine's.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use seeway_client::tunnel::Endpoint;

use super::kind::Wrong;
use super::value::HardserverAddress;

/// The longest path of a Unix socket, in bytes (`sun_path` without its closing zero).
const SOCKET_PATH_LIMIT: usize = 107;

/// Reads a listener's TCP address, port 0 allowed: a loopback one, unless TLS is spoken there.
pub(super) fn listener(text: &str, has_tls: bool) -> Result<SocketAddr, Wrong> {
    const EXAMPLE: &str = "write an address and a port, such as \"127.0.0.1:50051\" or \"[::1]:50051\"";
    let (host, port) = split(text).map_err(|what| Wrong::new(what, EXAMPLE))?;
    let port: u16 = port
        .parse()
        .map_err(|_| Wrong::new(format!("has the port `{port}`"), "write a port from 1 to 65535, or 0 for any"))?;
    let host = if host == "localhost" { "127.0.0.1" } else { host };
    let address = host.parse().map(|ip| SocketAddr::new(ip, port)).map_err(|_| {
        Wrong::new(format!("`{host}` is not an IP address"), "a listener takes localhost or an IP address, not a name")
    })?;
    if !has_tls && !address.ip().is_loopback() {
        return Err(Wrong::new(
            format!(
                "{address} is not a loopback address, and what comes in there is neither encrypted nor authenticated"
            ),
            "listen on 127.0.0.1 or [::1], or with TLS: give [tls] a certificate (`seeway keygen DIR --tls` makes one)",
        ));
    }
    Ok(address)
}

/// Reads `listen.admin`. Changes are made there by whoever reaches it, unless `listen.management` takes them.
pub(super) fn admin(text: &str, has_management: bool) -> Result<SocketAddr, Wrong> {
    let address = listener(text, true)?;
    if address.ip().is_loopback() || has_management {
        return Ok(address);
    }
    Err(Wrong::new(
        format!("{address} is not a loopback address, and whoever reaches it could drain the gateway"),
        "listen on 127.0.0.1 or [::1], or set listen.management, for changes: then this is for reading only",
    ))
}

/// Reads one of `listen.hardserver`; a relative path is taken from `base`.
pub(super) fn hardserver(text: &str, base: &Path) -> Result<HardserverAddress, Wrong> {
    let address = match text.strip_prefix("tls:") {
        Some(address) => HardserverAddress::Tls(listener(address, true)?),
        None => hardserver_elsewhere(text, base)?,
    };
    let HardserverAddress::Unix(path) = &address else {
        return Ok(address);
    };
    // The parent of a name without a directory is the empty path, which is no directory to anyone.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.is_dir() {
        return Err(Wrong::new(
            format!("the directory {} of the socket is not there", directory.display()),
            "make it, or choose another path",
        ));
    }
    if path.symlink_metadata().is_ok_and(|metadata| !is_socket(&metadata)) {
        return Err(Wrong::new(
            format!("{} is there and is not a socket", path.display()),
            "move it away, or choose another path",
        ));
    }
    Ok(address)
}

/// Reads `listen.management`: a Unix socket, or an address where TLS is spoken.
pub(super) fn management(text: &str, base: &Path) -> Result<HardserverAddress, Wrong> {
    match hardserver(text, base)? {
        HardserverAddress::Tcp(_) => Err(Wrong::new(
            "is plain TCP, where nobody can show who they are",
            "write \"unix:/path\", or \"tls:127.0.0.1:9465\" and [management_tls]",
        )),
        address => Ok(address),
    }
}

/// Reads `listen.handover`: a Unix socket, through which open files can be passed.
pub(super) fn handover(text: &str, base: &Path) -> Result<PathBuf, Wrong> {
    match hardserver(text, base)? {
        HardserverAddress::Unix(path) => Ok(path),
        HardserverAddress::Tcp(_) | HardserverAddress::Tls(_) => {
            Err(Wrong::new("is no Unix socket, and nothing else can pass sockets on", "write \"unix:/path\""))
        }
    }
}

/// Reads `listen.upstream_hardserver`: what is there, if anything is there yet, is not looked at, since the hardserver may
/// start later than Seeway.
pub(super) fn upstream_hardserver(text: &str, base: &Path) -> Result<HardserverAddress, Wrong> {
    let address = hardserver_elsewhere(text, base)?;
    if matches!(address, HardserverAddress::Tcp(tcp) if tcp.port() == 0) {
        return Err(Wrong::new("has the port 0", "write the port that the hardserver listens on"));
    }
    Ok(address)
}

/// What an address means, however it is written: where two mean the same, so does whoever listens or connects there.
///
/// A socket's path is followed through symbolic links, of its directories and of its own, as far as they are there; a socket that is
/// not there yet may still be named by a link.
pub(super) fn meaning(address: &HardserverAddress) -> HardserverAddress {
    match address {
        HardserverAddress::Unix(path) => HardserverAddress::Unix(followed(path)),
        // What is spoken there makes no other address of it.
        HardserverAddress::Tcp(tcp) | HardserverAddress::Tls(tcp) => {
            HardserverAddress::Tcp(SocketAddr::new(tcp.ip().to_canonical(), tcp.port()))
        }
    }
}

/// Whether what connects to `upstream` comes to the listener. A listener on port 0 is no one's before the system has chosen, and one
/// on every address of its family is everyone's.
pub(super) fn leads_to(upstream: &HardserverAddress, listener: &HardserverAddress) -> bool {
    match (meaning(upstream), meaning(listener)) {
        (HardserverAddress::Tcp(upstream), HardserverAddress::Tcp(listener)) => {
            // One on [::] takes IPv4 as well, unless the system says otherwise.
            let is_everyones = listener.ip().is_unspecified() && (listener.is_ipv6() || upstream.is_ipv4());
            upstream.port() == listener.port() && (upstream.ip() == listener.ip() || is_everyones)
        }
        (upstream, listener) => upstream == listener,
    }
}

/// As many symbolic links as a path is followed through at most; those that lead to themselves have no end.
const LINKS_LIMIT: usize = 16;

fn followed(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..LINKS_LIMIT {
        let (Some(name), Some(directory)) = (path.file_name(), path.parent()) else { break };
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let in_directory = directory.canonicalize().map(|directory| directory.join(name));
        path = in_directory.unwrap_or_else(|_| path.components().collect());
        match (path.read_link(), path.parent()) {
            (Ok(target), Some(directory)) => path = directory.join(target),
            _ => break,
        }
    }
    path
}

fn hardserver_elsewhere(text: &str, base: &Path) -> Result<HardserverAddress, Wrong> {
    if let Some(address) = text.strip_prefix("tcp:") {
        return listener(address, false).map(HardserverAddress::Tcp);
    }
    let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) else {
        return Err(Wrong::new(
            format!("`{text}` is neither a Unix socket nor a TCP address"),
            "write \"unix:/path\" or \"tcp:127.0.0.1:9000\"",
        ));
    };
    let path = base.join(path);
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_LIMIT {
        return Err(Wrong::new(
            format!("the socket's path has {length} bytes, and the system takes {SOCKET_PATH_LIMIT}"),
            "choose a shorter path",
        ));
    }
    Ok(HardserverAddress::Unix(path))
}

fn is_socket(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    metadata.file_type().is_socket()
}

/// Reads a machine's address: a name or an IP address, and a port above 0.
pub(super) fn machine(text: &str) -> Result<Endpoint, Wrong> {
    const EXAMPLE: &str = "write a host and a port, such as \"hsm-a.example:22\" or \"[2001:db8::1]:22\"";
    if let Some((user, address)) = text.split_once('@') {
        return Err(Wrong::new("names a login too", format!("write user = \"{user}\" and address = \"{address}\"")));
    }
    let (host, port) = split(text).map_err(|what| Wrong::new(what, EXAMPLE))?;
    let port = port
        .parse()
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| Wrong::new(format!("has the port `{port}`"), "write a port from 1 to 65535"))?;
    if !is_host(host) {
        return Err(Wrong::new(format!("`{host}` is neither a host's name nor an IP address"), EXAMPLE));
    }
    Ok(Endpoint { host: host.to_owned(), port })
}

/// Splits `host:port`; the brackets of an IPv6 address are taken off.
fn split(text: &str) -> Result<(&str, &str), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or_else(|| format!("`{text}` has a [ without a ]"))?;
        let address = host.split_once('%').map_or(host, |(address, _)| address);
        if address.parse::<Ipv6Addr>().is_err() {
            return Err(format!("`{host}` in brackets is not an IPv6 address"));
        }
        let port = port.strip_prefix(':').ok_or_else(|| format!("`{text}` has no port"))?;
        return Ok((host, port));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("`{text}` has no port"))?;
    if host.contains(':') {
        return Err(format!("`{text}` is an IPv6 address without brackets"));
    }
    if host.is_empty() {
        return Err(format!("`{text}` has no host"));
    }
    Ok((host, port))
}

/// Whether a text is a host's name or an IP address (an IPv6 address's zone included).
pub(super) fn is_host(text: &str) -> bool {
    if text.contains(':') {
        let address = text.split_once('%').map_or(text, |(address, _)| address);
        return address.parse::<Ipv6Addr>().is_ok();
    }
    if text.chars().all(|letter| letter.is_ascii_digit() || letter == '.') {
        return text.parse::<Ipv4Addr>().is_ok();
    }
    text.len() <= 253
        && text.strip_suffix('.').unwrap_or(text).split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_a_loopback_address_or_localhost() {
        for (text, address) in [
            ("127.0.0.1:50051", "127.0.0.1:50051"),
            ("localhost:0", "127.0.0.1:0"),
            ("[::1]:9464", "[::1]:9464"),
            ("127.8.0.1:1", "127.8.0.1:1"),
        ] {
            assert_eq!(listener(text, false), Ok(address.parse().expect("an address")), "{text}");
        }
        for (text, what) in [
            ("0.0.0.0:50051", "not a loopback address"),
            ("[::]:50051", "not a loopback address"),
            ("192.0.2.1:1", "neither encrypted nor authenticated"),
            ("127.0.0.1", "no port"),
            ("127.0.0.1:65536", "`65536`"),
            ("127.0.0.1:", "port ``"),
            ("::1:1", "without brackets"),
            ("[::1:1", "without a ]"),
            ("[::1]", "no port"),
            ("gateway.example:1", "not an IP address"),
            (":1", "no host"),
        ] {
            let error = listener(text, false).expect_err(text);
            assert!(error.what.contains(what), "{text}: {}", error.what);
        }
    }

    #[test]
    fn the_admin_port_is_reached_from_elsewhere_only_where_nothing_is_changed_there() {
        for text in ["127.0.0.1:9464", "[::1]:9464", "localhost:9464"] {
            assert!(admin(text, false).is_ok() && admin(text, true).is_ok(), "{text}");
        }
        let error = admin("0.0.0.0:9464", false).expect_err("changes are made there");
        assert!(error.fix.contains("listen.management"), "{}", error.fix);
        assert_eq!(admin("0.0.0.0:9464", true), Ok(SocketAddr::from(([0, 0, 0, 0], 9464))));
    }

    #[test]
    fn a_machine_has_a_host_and_a_port_above_zero() {
        for (text, host, port) in [
            ("hsm-a.example:22", "hsm-a.example", 22),
            ("hsm_a:65535", "hsm_a", 65_535),
            ("192.0.2.7:22", "192.0.2.7", 22),
            ("[2001:db8::1]:2222", "2001:db8::1", 2222),
            ("[fe80::1%eth0]:22", "fe80::1%eth0", 22),
        ] {
            let address = machine(text).expect(text);
            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "hsm-a",
            "hsm-a:",
            "hsm-a:0",
            "hsm-a:65536",
            "hsm-a:x",
            ":22",
            "2001:db8::1",
            "[hsm-a]:22",
            "[::1]22",
            "192.0.2:22",
            "999.0.0.1:22",
            "hsm a:22",
            "a..b:22",
            "codesafe@hsm-a:22",
            "-:/:22",
            "",
        ] {
            let error = machine(text).expect_err(text);
            assert!(!error.fix.is_empty());
        }
        assert_eq!(
            machine("codesafe@hsm-a:22").expect_err("a login").fix,
            "write user = \"codesafe\" and address = \"hsm-a:22\""
        );
    }

    #[test]
    fn a_unix_socket_needs_a_short_path_in_a_directory_that_is_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let base = directory.path();
        assert_eq!(hardserver("unix:s", base), Ok(HardserverAddress::Unix(base.join("s"))));
        assert_eq!(hardserver("unix:s", Path::new("")), Ok(HardserverAddress::Unix("s".into())));
        let long = format!("unix:{}", "x".repeat(108));
        assert!(hardserver(&long, base).expect_err("long").what.contains("107"));
        assert!(hardserver("unix:no/s", base).expect_err("no directory").what.contains("is not there"));
        std::fs::write(base.join("file"), "").expect("written");
        assert!(hardserver("unix:file", base).expect_err("a file").what.contains("not a socket"));
        for text in ["unix:", "/run/s", "udp:127.0.0.1:1", ""] {
            assert!(hardserver(text, base).expect_err(text).fix.contains("unix:/path"));
        }
        assert!(hardserver("tcp:0.0.0.0:9000", base).expect_err("not loopback").what.contains("loopback"));
    }

    #[test]
    fn a_hardserver_that_is_seeway_itself_is_known_however_it_is_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let base = directory.path();
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, base.join(name)).expect("made");
        std::fs::create_dir(base.join("run")).expect("made");
        link("run", "also-run");
        link("run/s", "to-s");
        link("to-s", "to-to-s");
        link("round", "round");
        let leads = |upstream: &str, listener: &str| {
            let read = |text| hardserver_elsewhere(text, base).expect(text);
            leads_to(&read(upstream), &read(listener))
        };
        // Whether the socket is there already or not.
        for is_bound in [false, true] {
            let _socket = is_bound.then(|| std::os::unix::net::UnixListener::bind(base.join("run/s")).expect("bound"));
            for upstream in ["run/s", "run/./s", "run/../run//s", "also-run/s", "to-s", "to-to-s"] {
                assert!(leads(&format!("unix:{upstream}"), "unix:run/s"), "{upstream}, bound: {is_bound}");
                assert!(leads(&format!("unix:{upstream}"), "unix:also-run/s"), "{upstream}, bound: {is_bound}");
            }
            for upstream in ["s", "run/t", "round", "no/s", "no/../run/s"] {
                assert!(!leads(&format!("unix:{upstream}"), "unix:run/s"), "{upstream}, bound: {is_bound}");
            }
        }
        assert!(leads("unix:no/s", "unix:no//s"), "without anything there");
        assert!(leads("tcp:localhost:9000", "tcp:127.0.0.1:9000"));
        assert!(leads("tcp:[::1]:9000", "tcp:[0:0::1]:9000"));
        for upstream in ["tcp:127.0.0.1:9001", "tcp:127.0.0.2:9000", "tcp:[::1]:9000", "unix:s"] {
            assert!(!leads(upstream, "tcp:127.0.0.1:9000"), "{upstream}");
        }
        assert!(!leads("tcp:127.0.0.1:9000", "tcp:127.0.0.1:0"), "the system chooses a free port");
        // No listener may have such an address yet.
        let tcp = |address: &str| HardserverAddress::Tcp(address.parse().expect(address));
        for (upstream, listener, is_same) in [
            ("127.0.0.1:9000", "0.0.0.0:9000", true),
            ("127.0.0.1:9000", "[::]:9000", true),
            ("[::1]:9000", "[::]:9000", true),
            ("[::ffff:127.0.0.1]:9000", "127.0.0.1:9000", true),
            ("[::1]:9000", "0.0.0.0:9000", false),
            ("127.0.0.1:9001", "0.0.0.0:9000", false),
        ] {
            assert_eq!(leads_to(&tcp(upstream), &tcp(listener)), is_same, "{upstream} {listener}");
        }
    }

    #[test]
    fn the_hardserver_behind_this_one_may_start_later() {
        let base = Path::new("/nowhere");
        let unix = HardserverAddress::Unix("/nowhere/no/s".into());
        assert_eq!(upstream_hardserver("unix:no/s", base), Ok(unix));
        let tcp = HardserverAddress::Tcp("127.0.0.1:9000".parse().expect("an address"));
        assert_eq!(upstream_hardserver("tcp:localhost:9000", base), Ok(tcp));
        assert!(upstream_hardserver("tcp:127.0.0.1:0", base).expect_err("no port").what.contains("port 0"));
        assert!(upstream_hardserver(&format!("unix:{}", "x".repeat(108)), base).is_err());
        assert!(upstream_hardserver("tcp:192.0.2.1:9000", base).is_err());
        assert!(upstream_hardserver("/run/s", base).is_err());
    }
}
