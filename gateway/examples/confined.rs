//! Confines itself as `seeway serve` does, and says of many things that a gateway has no use for whether it still can do them:
//! `confined CONFIG OTHER-FILE [TCP-PORT]`. For the test `confinement`, and for whoever wants to see what a kernel makes of it.

// The I/O-free parts deny these again; see `clippy.toml`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::Display;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::ptrace;
use nix::unistd::{Pid, Uid, setuid};
use rustix::net::{AddressFamily, SocketType, ipproto, listen, socket};
use rustix::process::{getppid, test_kill_process};
use seeway::config::Config;
use seeway::harden;

fn main() {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let config_file = arguments.next().expect("a configuration");
    let other_file = arguments.next().expect("another file");
    let port = arguments.next().map(|port| port.display().to_string().parse().expect("a port"));
    harden::begin().unwrap_or_else(|error| panic!("{error}"));
    let config = Config::load(&config_file).unwrap_or_else(|problems| panic!("{problems}"));
    match harden::lock_memory(&config.process) {
        Ok(()) => println!("locked {}", locked()),
        Err(error) => return println!("refused {error}"),
    }
    match harden::confine(&config, &config_file) {
        Ok(confined) => println!("confined {confined}"),
        Err(error) => return println!("refused {error}"),
    }
    attempt_all("first", &config_file, &other_file, port);
    let (config_file, other_file) = (config_file.clone(), other_file.clone());
    std::thread::spawn(move || attempt_all("second", &config_file, &other_file, port)).join().expect("a thread");
    // Where it can, this is another program from here on.
    said("first", "execve", Err::<(), _>(Command::new("/bin/true").exec()));
}

/// How much memory is locked, in kB.
fn locked() -> String {
    let status = fs::read_to_string("/proc/self/status").expect("there");
    let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
    line.unwrap_or("0").trim().trim_end_matches(" kB").to_owned()
}

fn said<T, E: Into<std::io::Error> + Display>(thread: &str, what: &str, result: Result<T, E>) {
    match result {
        Ok(_) => println!("{thread} {what} done"),
        Err(error) => println!("{thread} {what} {:?}", error.into().kind()),
    }
}

fn attempt_all(thread: &str, config_file: &Path, other_file: &Path, port: Option<u16>) {
    let beside = config_file.with_file_name(format!("made-by-{thread}"));
    said(thread, "read-configuration", fs::read(config_file));
    said(thread, "read-other", fs::read(other_file));
    said(thread, "read-shadow", fs::read("/etc/shadow"));
    said(thread, "list-root", fs::read_dir("/"));
    said(thread, "write-beside", File::create(beside));
    said(thread, "resolve-name", ("localhost", 1).to_socket_addrs());
    said(thread, "listen", TcpListener::bind("127.0.0.1:0"));
    let unbound = socket(AddressFamily::INET, SocketType::STREAM, None);
    said(thread, "listen-unbound", unbound.and_then(|unbound| listen(&unbound, 1)));
    said(thread, "multipath-socket", socket(AddressFamily::INET, SocketType::STREAM, Some(ipproto::MPTCP)));
    let mode = fs::metadata(config_file).map(|file| file.permissions());
    said(thread, "set-mode", mode.and_then(|mode| fs::set_permissions(config_file, mode)));
    if let Some(port) = port {
        said(thread, "connect", TcpStream::connect(("127.0.0.1", port)));
    }
    said(thread, "start-program", Command::new("/bin/true").status());
    said(thread, "ptrace", ptrace::cont(Pid::this(), None));
    said(thread, "mount", mount(None::<&str>, "/mnt", Some("tmpfs"), MsFlags::empty(), None::<&str>));
    said(thread, "unshare", unshare(CloneFlags::CLONE_FS));
    said(thread, "signal-parent", test_kill_process(getppid().expect("a parent")));
    said(thread, "become-other", setuid(Uid::current()));
    said(thread, "packet-socket", socket(AddressFamily::PACKET, SocketType::DGRAM, None));
}
