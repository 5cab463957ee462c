//! Loads against servers of which it is known what they do.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use seeway_bench::{
    Load, Pace, Sizes, Target, Until, Way,
    load::{Machine, Unwatched, WRONG_REPLY},
};
use seeway_machine::{
    apps::App,
    hsm::{Hsm, HsmConfig, MachinePort},
};
use seeway_proto::{
    wiped::WipedBuffer,
    wire::{Command as Wire, Direction, Frame, Framer, Limits, Profile, decode_command, reply_job, reply_no_op},
};
use tempfile::TempDir;

/// What a server does to a job, by its number from 0 on its connection: waits so long, and answers with these bytes.
type Behaviour = fn(u64, &[u8]) -> (Duration, Vec<u8>);

/// A server of the wire on a Unix socket, with a thread for each connection, that answers in order.
struct Server {
    folder: TempDir,
    connections: Arc<AtomicU64>,
}

impl Server {
    fn start(behaviour: Behaviour) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("socket")).expect("a socket");
        let connections = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming() {
                counted.fetch_add(1, Ordering::Relaxed);
                let stream = stream.expect("a connection");
                thread::spawn(move || serve(stream, behaviour));
            }
        });
        Self { folder, connections }
    }

    fn way(&self) -> Way {
        Way::Wire(self.target())
    }

    fn target(&self) -> Target {
        Target::Unix(self.folder.path().join("socket"))
    }
}

fn serve(mut stream: UnixStream, behaviour: Behaviour) {
    let profile = Profile::open_1();
    let mut framer = Framer::new(Direction::Commands, Limits::default());
    let (mut input, mut buffer, mut jobs) = (Vec::new(), vec![0; 65_536], 0);
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        input.extend_from_slice(&buffer[..count]);
        let mut rest = &input[..];
        while let Some(frame) = framer.next(&mut rest).expect("whole messages") {
            let Frame::Body(body) = frame else { panic!("a message is too long") };
            let mut out = WipedBuffer::new();
            match decode_command(&profile, body).expect("a command") {
                Wire::NoOp { tag } => reply_no_op(&profile, &mut out, tag),
                Wire::SeeJob { tag, job, .. } => {
                    let (wait, reply) = behaviour(jobs, job.0);
                    jobs += 1;
                    thread::sleep(wait);
                    reply_job(&profile, &mut out, tag, &reply);
                }
                Wire::GetPublishedObject { .. } => panic!("nobody asked for a world"),
            }
            if stream.write_all(out.filled()).is_err() {
                return;
            }
        }
        let consumed = input.len() - rest.len();
        input.drain(..consumed);
    }
}

fn echo(_: u64, job: &[u8]) -> (Duration, Vec<u8>) {
    (Duration::ZERO, job.to_vec())
}

/// How long a server stalls, once.
const STALL: Duration = Duration::from_millis(400);

fn stalls_once(number: u64, job: &[u8]) -> (Duration, Vec<u8>) {
    (if number == 50 { STALL } else { Duration::ZERO }, job.to_vec())
}

fn jobs(way: Way, jobs: u64) -> Load {
    Load { warm_up: Duration::ZERO, until: Until::Jobs(jobs), ..Load::new(way, None) }
}

#[test]
fn every_job_is_sent_once_and_each_caller_has_its_connection() {
    let server = Server::start(echo);
    let load = Load { callers: 7, in_flight: 3, ..jobs(server.way(), 1_000) };
    let report = load.run(&mut Unwatched).expect("it runs");
    assert_eq!((report.jobs, report.jobs_in_all, report.failed()), (1_000, 1_000, 0), "{report}");
    assert_eq!(server.connections.load(Ordering::Relaxed), 7);
}

#[test]
fn a_reply_that_is_not_the_jobs_is_found_out() {
    let server = Server::start(|number, job| {
        let mut reply = job.to_vec();
        reply[8] ^= u8::from(number == 5);
        (Duration::ZERO, reply)
    });
    let load = jobs(server.way(), 100);
    let report = load.run(&mut Unwatched).expect("it runs");
    assert_eq!(report.failures.get(WRONG_REPLY), Some(&1), "{report}");
    let report = Load { verify_echo: false, ..load }.run(&mut Unwatched).expect("it runs");
    assert_eq!(report.failed(), 0, "any reply was to be taken: {report}");
}

#[test]
fn mixed_and_large_jobs_come_back_whole() {
    let server = Server::start(echo);
    let sizes: Sizes = "0:1,5:1,256:5,262100:1".parse().expect("sizes");
    let load = Load { callers: 3, in_flight: 8, sizes, ..jobs(server.way(), 600) };
    let report = load.run(&mut Unwatched).expect("it runs");
    assert_eq!((report.jobs, report.failed()), (600, 0), "{report}");
}

/// Two loads of the same 250 jobs at a server that stalls once. In the closed loop one job is slow, and the others, which would have
/// been sent meanwhile, are not: it omits what the stall would have done to them. The open loop counts each of them.
#[test]
fn an_open_loop_does_not_hide_a_stall() {
    let server = Server::start(stalls_once);
    let closed = jobs(server.way(), 250);
    let open = Load { pace: Pace::Open { per_second: 500.0 }, ..closed.clone() };
    let report = closed.run(&mut Unwatched).expect("it runs");
    let stalled = micros(STALL);
    assert!(report.max_us >= stalled, "one job met the stall: {report:?}");
    assert!(report.p90_us < stalled, "and few others did: {report:?}");
    let report = open.run(&mut Unwatched).expect("it runs");
    assert_eq!(report.jobs, 250);
    assert!(report.max_us >= stalled, "{report:?}");
    // 200 of the 250 jobs were due within the 400 ms after the stall's beginning, and half of those waited for at least half of it.
    let waited = report.percentiles.iter().find(|(_, us)| *us >= stalled / 2.0).expect("the slowest did");
    assert!(waited.0 <= 0.75, "{report:?}");
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6 * 0.999
}

#[test]
fn who_does_not_answer_is_given_up() {
    let server = Server::start(|_, _| (Duration::from_secs(3600), Vec::new()));
    let load = Load { patience: Duration::from_millis(300), ..jobs(server.way(), 1) };
    let error = load.run(&mut Unwatched).expect_err("no answer comes");
    assert!(error.to_string().contains("answers none"), "{error}");
}

#[test]
fn threads_that_block_take_turns_with_their_answers() {
    let server = Server::start(echo);
    let until = Until::Elapsed(Duration::from_millis(200));
    let load = Load { callers: 4, until, ..jobs(Way::Blocking(server.target()), 0) };
    let report = load.run(&mut Unwatched).expect("it runs");
    assert!(report.jobs > 0 && report.failed() == 0, "{report}");
    let error = Load { in_flight: 2, ..load }.run(&mut Unwatched).expect_err("they have one job in flight");
    assert!(error.to_string().contains("one job"), "{error}");
}

/// A peer of the comparison's, killed with its guard.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        self.0.kill().expect("it is ours");
        self.0.wait().expect("it was killed");
    }
}

impl Peer {
    /// Starts it; returns it and where it listens.
    fn start(arguments: &[&str]) -> (Self, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seeway-bench"));
        let child = command.arg("peer").args(arguments).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut peer = Self(child);
        let mut ready = String::new();
        let stdout = peer.0.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut ready).expect("it says where it is");
        let address = ready.trim().strip_prefix("ready address=").expect("an address").to_owned();
        (peer, address)
    }
}

#[test]
fn the_bare_echo_answers_what_comes_in_pieces_and_goes_on_when_a_caller_has_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("echo");
    let (_peer, _) = Peer::start(&["bare-echo", "--listen", path.to_str().expect("it is UTF-8")]);
    let sizes: Sizes = "0:1,256:5,262100:1".parse().expect("sizes");
    for _ in 0..2 {
        let load =
            Load { callers: 3, in_flight: 8, sizes: sizes.clone(), ..jobs(Way::Wire(Target::Unix(path.clone())), 600) };
        let report = load.run(&mut Unwatched).expect("it runs");
        assert_eq!((report.jobs, report.failed()), (600, 0), "{report}");
    }
}

#[test]
fn grpc_both_ways_and_both_paces() {
    let (_peer, address) = Peer::start(&["tonic-echo"]);
    for way in [Way::GrpcStream(address.clone()), Way::GrpcUnary(address)] {
        for pace in [Pace::Closed, Pace::Open { per_second: 2_000.0 }] {
            let load = Load { callers: 2, in_flight: 8, pace, ..jobs(way.clone(), 500) };
            let report = load.run(&mut Unwatched).unwrap_or_else(|error| panic!("{way}: {error}"));
            assert_eq!((report.jobs, report.failed()), (500, 0), "{way}, {pace:?}: {report}");
        }
    }
}

#[test]
fn straight_to_a_machine_with_both_paces() {
    let folder = tempfile::tempdir().expect("a folder");
    let identity: PathBuf = folder.path().join("id");
    let mut keygen = Command::new("ssh-keygen");
    let made = keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(&identity).status();
    assert!(made.expect("ssh-keygen is installed").success());
    let public = std::fs::read_to_string(identity.with_extension("pub")).expect("it made one");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let echo: App = "echo".parse().expect("an application");
    let machine = echo.start(echo.config()).expect("it starts");
    let port = MachinePort::machine(machine);
    let seejobs = format!("127.0.0.1:{}", port.port);
    let config = HsmConfig::new("127.0.0.1:0".parse().expect("an address"), vec![public], vec![port]);
    let hsm = runtime.block_on(Hsm::start(HsmConfig { user: "codesafe".to_owned(), ..config })).expect("it starts");
    let way = Way::Direct(Machine {
        user: "codesafe".to_owned(),
        server: hsm.ssh_address().to_string(),
        identity,
        host_key: hsm.host_key().to_string(),
        seejobs,
    });
    for pace in [Pace::Closed, Pace::Open { per_second: 2_000.0 }] {
        let load = Load { callers: 3, in_flight: 8, pace, ..jobs(way.clone(), 500) };
        let report = load.run(&mut Unwatched).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((report.jobs, report.failed()), (500, 0), "{pace:?}: {report}");
    }
    runtime.block_on(hsm.stop());
}
