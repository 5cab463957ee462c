//! What the tests of upgrades have in common: a gateway that can be taken over from, and the wire as a caller says it that knows no
//! library.

use std::{
    io::{Read, Write as _},
    os::unix::net::UnixStream,
    process::Command,
    time::Duration,
};

use seeway_bench::Target;
use seeway_tests::{Config, Gateway, Identity, Machine, Sshd, machine::seeway, process::Process, wait};

pub const BOUND: Duration = wait::BOUND;

/// A world `echo` on a machine that journals, and a gateway that can be taken over from.
pub struct Estate {
    _identity: Identity,
    pub sshd: Sshd,
    pub machine: Machine,
    pub config: Config,
}

impl Estate {
    pub fn new(app: &str) -> Self {
        Self::with_timeout(app, "60s")
    }

    /// One whose gateways go on for no longer than this with what can not move.
    pub fn with_timeout(app: &str, handover_timeout: &str) -> Self {
        let identity = Identity::generate();
        let sshd = Sshd::start(&identity);
        let machine = Machine::start(app);
        let config = Config::of_one(&sshd, &machine, &identity, "echo")
            .line("listen", "handover = \"unix:handover\"")
            .line("runtime", &format!("handover_timeout = \"{handover_timeout}\""));
        Self { _identity: identity, sshd, machine, config }
    }
}

/// A gateway that is to take the place of this one.
pub fn next_of(gateway: &Gateway) -> Command {
    let mut command = seeway();
    command.args(["serve", "--take-over", "--config"]).arg(gateway.config_file());
    command
}

/// Waits until a gateway that was taken over from has ended as it should.
pub fn succeeded(mut old: Process) {
    let status = old.exit(BOUND);
    assert_eq!(status.code(), Some(0), "{}", old.log());
    assert!(old.log().contains("everything has been handed over"), "{}", old.log());
}

/// Sends one job in the way that a person does, to the Unix socket.
pub fn send(gateway: &Gateway, what: &str) {
    send_to(&gateway.unix(), what);
}

/// The same, to any of its listeners.
pub fn send_to(target: &Target, what: &str) {
    let job = seeway().args(["job", &target.to_string(), "--world", "echo", "--data", what]).output();
    let job = job.expect("it runs");
    assert_eq!(job.stdout, what.as_bytes(), "{target}: {}", String::from_utf8_lossy(&job.stderr));
}

/// Stops the last gateway: it ends as it should, and leaves no file of a socket.
pub fn stopped(mut gateway: Gateway) {
    gateway.terminate();
    assert_eq!(gateway.exit(BOUND).code(), Some(0), "{}", gateway.log());
    for name in ["nserver", "handover"] {
        assert!(!gateway.folder().join(name).exists(), "the last one removes {name}");
    }
}

/// A legacy connection that has a handle for the world.
pub fn caller(gateway: &Gateway) -> (UnixStream, u32) {
    let Target::Unix(path) = gateway.unix() else { panic!("a Unix socket") };
    let mut stream = UnixStream::connect(&path).expect("it listens");
    stream.set_read_timeout(Some(BOUND)).expect("set");
    stream.write_all(&open_world(1, b"echo")).expect("sent");
    let handle = object(&mut stream, 1);
    (stream, handle)
}

/// Sends one job on a connection that has a handle, and has its reply.
pub fn is_served(stream: &mut UnixStream, tag: u32, handle: u32) {
    stream.write_all(&see_job(tag, handle, b"still")).expect("sent");
    assert_eq!(reply(stream, tag), b"still", "who was there is served");
}

// --- the wire, as a caller that knows no library says it

fn word(number: usize) -> [u8; 4] {
    u32::try_from(number).expect("small").to_le_bytes()
}

fn command(tag: u32, command: usize, arguments: &[u8]) -> Vec<u8> {
    let body = [&tag.to_le_bytes()[..], &word(command), &word(0), arguments].concat();
    [&word(body.len())[..], &body].concat()
}

fn block(bytes: &[u8]) -> Vec<u8> {
    let padding = bytes.len().next_multiple_of(4) - bytes.len();
    [&word(bytes.len())[..], bytes, &[0; 3][..padding]].concat()
}

pub fn open_world(tag: u32, name: &[u8]) -> Vec<u8> {
    command(tag, 3, &block(name))
}

pub fn see_job(tag: u32, handle: u32, job: &[u8]) -> Vec<u8> {
    command(tag, 2, &[&handle.to_le_bytes()[..], &block(job)].concat())
}

/// Status and what follows the flags of the next reply, which has to be to `tag`.
fn answer(from: &mut impl Read, tag: u32) -> (u32, Vec<u8>) {
    let mut length = [0; 4];
    from.read_exact(&mut length).expect("an answer");
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    from.read_exact(&mut body).expect("the rest of it");
    assert_eq!(body[..4], tag.to_le_bytes());
    (u32::from_le_bytes(body[8..12].try_into().expect("four")), body[16..].to_vec())
}

pub fn object(from: &mut impl Read, tag: u32) -> u32 {
    let (status, rest) = answer(from, tag);
    assert_eq!(status, 0);
    u32::from_le_bytes(rest.try_into().expect("a word"))
}

pub fn reply(from: &mut impl Read, tag: u32) -> Vec<u8> {
    let (status, rest) = answer(from, tag);
    assert_eq!(status, 0);
    let length = u32::from_le_bytes(rest[..4].try_into().expect("four")) as usize;
    rest[4..4 + length].to_vec()
}

pub fn status(from: &mut impl Read, tag: u32) -> u32 {
    answer(from, tag).0
}
