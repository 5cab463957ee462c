//! A real `haproxy` with the configuration that `deploy/` has for it, in front of gateways.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{Gateway, authority::Authority, authority::Certified, ports, process::Process, wait};

/// The names that the configuration has for the gateways, in order.
pub const SERVERS: [&str; 3] = ["seeway-a", "seeway-b", "seeway-c"];

/// A running `haproxy`.
pub struct Haproxy {
    _process: Process,
    port: u16,
    folder: TempDir,
}

impl Haproxy {
    /// Starts one with `deploy/haproxy/FILE` in front of three gateways, and waits until it has found each of them fit. It shows callers
    /// `front`, and the gateways `to_gateways`.
    pub fn start(
        file: &str,
        gateways: &[Gateway],
        authority: &Authority,
        front: &Certified,
        to_gateways: &Certified,
    ) -> Self {
        let folder = TempDir::new().expect("the temporary folder can be written");
        let port = ports::free(Ipv4Addr::LOCALHOST.into());
        let site = Site { folder: folder.path(), port, gateways, authority };
        let both = |name: &str, certified: &Certified| {
            let read = |path: &Path| fs::read_to_string(path).expect("it was made");
            let path = folder.path().join(name);
            fs::write(&path, read(&certified.certificate) + &read(&certified.key)).expect("written");
            path
        };
        let text = site.filled_in(file, &both("front.pem", front), &both("balancer.pem", to_gateways));
        let config = folder.path().join("haproxy.cfg");
        fs::write(&config, text).expect("the temporary folder can be written");
        let process = Process::start("haproxy", Command::new(program()).arg("-f").arg(&config));
        let haproxy = Self { _process: process, port, folder };
        wait::until("haproxy listens", wait::BOUND, || UnixStream::connect(haproxy.socket()).ok());
        for server in SERVERS {
            haproxy.until_state(server, "UP");
        }
        wait::until("haproxy takes callers", wait::BOUND, || TcpStream::connect(("127.0.0.1", port)).ok());
        haproxy
    }

    /// Where callers connect, as `localhost:PORT`.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// Says something on its admin socket, and gives the answer.
    pub fn say(&self, words: &str) -> String {
        let mut socket = UnixStream::connect(self.socket()).expect("haproxy runs");
        writeln!(socket, "{words}").expect("haproxy listens");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("haproxy answers");
        answer
    }

    /// What it says of a gateway: `UP`, `DOWN`, `DRAIN`, and steps from one to the next.
    pub fn state(&self, server: &str) -> String {
        let table = self.say("show stat");
        let column = |line: &str, at: usize| line.split(',').nth(at).map(str::to_owned);
        let heading = table.lines().next().expect("a table");
        let status = heading.split(',').position(|name| name == "status").expect("a column of that name");
        let row = table.lines().find(|line| column(line, 1).as_deref() == Some(server));
        row.and_then(|row| column(row, status)).unwrap_or_else(|| panic!("{server} is not in {table}"))
    }

    /// Waits until it says this of a gateway.
    pub fn until_state(&self, server: &str, wanted: &str) {
        wait::until(&format!("haproxy has {server} {wanted}"), wait::BOUND, || {
            (self.state(server) == wanted).then_some(())
        });
    }
}

/// What is here in the place of what the file names.
struct Site<'a> {
    folder: &'a Path,
    port: u16,
    gateways: &'a [Gateway],
    authority: &'a Authority,
}

impl Site<'_> {
    fn filled_in(&self, file: &str, front: &Path, balancer: &Path) -> String {
        let path = crate::repository::root().join("deploy/haproxy").join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let folder = self.folder.display();
        let mut pairs = vec![
            ("bind :50051".to_owned(), format!("bind 127.0.0.1:{}", self.port)),
            ("/run/haproxy/admin.sock".to_owned(), format!("{folder}/admin.sock")),
            ("/etc/haproxy/seeway/ca.pem".to_owned(), self.authority.certificate().display().to_string()),
            ("/etc/haproxy/seeway/balancer.pem".to_owned(), balancer.display().to_string()),
            ("/dev/log local0".to_owned(), "stdout format raw local0".to_owned()),
            // Whoever runs the tests is not that user, and may open fewer files.
            ("    user haproxy\n    group haproxy\n".to_owned(), String::new()),
            ("maxconn 10000".to_owned(), "maxconn 500".to_owned()),
        ];
        if text.contains("front.pem") {
            pairs.push(("/etc/haproxy/seeway/front.pem".to_owned(), front.display().to_string()));
        }
        for (server, gateway) in SERVERS.iter().zip(self.gateways) {
            let address = gateway.grpc().to_string().replace("grpc://", "");
            pairs.push((format!("{server}.example:50051"), address));
            pairs.push((format!("verifyhost {server}.example"), "verifyhost localhost".to_owned()));
        }
        pairs.into_iter().fold(text, |text, (theirs, ours)| {
            assert!(text.contains(&theirs), "{file} has no {theirs:?}");
            text.replace(&theirs, &ours)
        })
    }
}

fn program() -> PathBuf {
    let path = PathBuf::from("/usr/sbin/haproxy");
    assert!(
        path.exists(),
        "{} is missing: install Debian's package haproxy, or run tests/run, which does",
        path.display()
    );
    path
}
