//! The gateway as an operator meets it: the demonstration, the drain, what it refuses to start with, and a port forwarded by hand.

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use seeway_bench::{Target, wire::WireCaller};
use seeway_proto::wire::ReplyBody;
use seeway_tests::{
    Config, Door, Gateway, Identity, Machine, Sshd, machine::seeway, process::Process, turn::Turn, wait,
};
use tempfile::TempDir;

#[test]
fn the_demonstration_ends_well() {
    let _turn = Turn::alone();
    let mut demo = Process::start("the demonstration", seeway().args(["demo", "--once"]));
    let status = demo.exit(Duration::from_secs(60));
    let said = demo.log();
    assert_eq!(status.code(), Some(0), "{said}");
    for word in ["p50", "p99.9", "gRPC", "signature", "hsm-b killed", "hsm-b revived", "outcome unknown", "sent again"]
    {
        assert!(said.contains(word), "the demonstration's tables lack {word:?}:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_jobs_in_flight_finish() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let mut machine = Machine::start("slow:1500");
    let config = Config::of_one(&sshd, &machine, &identity, "slow");
    let mut gateway = Gateway::ready(&config);
    let mut caller = Caller::connect(&gateway.unix()).await;
    // No job ends before the drain refuses others, however long that takes.
    machine.signal(Signal::STOP);
    for _ in 0..EARLY {
        caller.stage();
    }
    let all_in_flight = |_: &Caller| gateway.metrics().sum("seeway_jobs_in_flight") > f64::from(EARLY) - 0.5;
    caller.exchange_until("all jobs are in flight", all_in_flight).await;

    gateway.terminate();
    // The signal takes a moment to be heard. A job is either taken, and then finished, or refused; and once one is refused, all are.
    while caller.refused().count() < 3 {
        caller.stage();
        caller.exchange_for(Duration::from_millis(20)).await;
    }
    let all_refused = |caller: &Caller| {
        let first = caller.refused().min().expect("three are refused");
        (first..=caller.staged).all(|number| caller.answers.contains_key(&number))
    };
    caller.exchange_until("all after the first that is refused are answered", all_refused).await;
    machine.signal(Signal::CONT);
    caller.exchange_until_answered().await;
    let first_refused = caller.refused().min().expect("three are refused");
    assert!(first_refused > u64::from(EARLY), "job {first_refused} was in flight before the drain, and was refused");
    for (number, answer) in &caller.answers {
        if *number < first_refused {
            assert_eq!(*answer, Ok(format!("job {number}").into_bytes()), "job {number} was taken");
        } else {
            assert_eq!(
                *answer,
                Err(NOT_AVAILABLE),
                "job {number} came after {first_refused}, which was refused, and certainly did not run"
            );
        }
    }
    drop(caller);
    assert_eq!(gateway.exit(wait::BOUND).code(), Some(0), "a drain is a good end");
    assert!(!gateway.folder().join("nserver").exists(), "the socket's file is left behind");
}

/// A signal that comes while the gateway still waits for its machines, before it has said that it is ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_told_to_stop_before_it_is_ready_does_so_at_once() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    // Takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let machine = Machine::start_with_ssh("echo", &identity, "127.0.0.1:0");
    let door = Door { address: silent.local_addr().expect("it was just bound"), ..machine.door().clone() };
    let config = Config::new()
        .machine("hsm", &door, machine.seejobs(), &identity, "")
        .world("slow", &["hsm"], "")
        .line("limits", "hold = \"1h\"")
        .line("limits", "default_timeout = \"1h\"")
        .line("runtime", "drain_timeout = \"200ms\"");
    for _ in 0..TRIES {
        let (took, said) = told_to_stop_before_it_is_ready(&config).await;
        // One that took longer may rightly have waited for its machines: other work has delayed the signal.
        if took < HEAD_START {
            let has_waited = said.contains("not every world has a machine");
            assert!(!has_waited, "it did not wait for its machines first:\n{said}");
            return;
        }
    }
    panic!("the gateway was told to stop {TRIES} times and has never done so within {HEAD_START:?} of its start");
}

/// For how long a gateway that listens waits for its machines before it says that it is ready.
const HEAD_START: Duration = Duration::from_secs(3);
const TRIES: usize = 10;

/// Starts a gateway whose machine is never up, hands it a job and tells it to stop. How long after its start it gave
/// that job up, and what it has logged.
async fn told_to_stop_before_it_is_ready(config: &Config) -> (Duration, String) {
    let folder = TempDir::new().expect("the temporary folder can be written");
    let (file, socket) = (folder.path().join("seeway.toml"), folder.path().join("nserver"));
    fs::write(&file, config.text(&socket.to_string_lossy())).expect("the temporary folder can be written");
    let started = Instant::now();
    let mut gateway = Process::start("the gateway", seeway().arg("serve").arg("--config").arg(&file));
    wait::until("the gateway listens", wait::BOUND, || UnixStream::connect(&socket).ok());
    let mut caller = Caller::connect(&Target::Unix(socket.clone())).await;
    let held = caller.stage();
    // What comes on one connection is served in its order: when this is answered the job is in hand.
    caller.wire.open_world("slow", 0).await.unwrap_or_else(|error| panic!("{error}"));

    gateway.signal(Signal::TERM);
    caller.exchange_until_answered().await;
    let took = started.elapsed();
    assert_eq!(caller.answers.get(&held), Some(&Err(NOT_AVAILABLE)), "it was in hand, and has certainly not run");
    assert_eq!(gateway.exit(wait::BOUND).code(), Some(0), "{}", gateway.log());
    let said = gateway.log();
    assert!(said.contains(" ready grpc="), "whoever waits for that line hears it:\n{said}");
    assert!(!socket.exists(), "the socket's file is left behind");
    (took, said)
}

const EARLY: u32 = 40;
/// The status of the SEEJob wire for a job that had nowhere to go.
const NOT_AVAILABLE: u32 = 8;

/// A legacy caller who remembers every answer.
struct Caller {
    wire: WireCaller<u64>,
    world: u32,
    staged: u64,
    answers: HashMap<u64, Result<Vec<u8>, u32>>,
}

impl Caller {
    async fn connect(way: &Target) -> Self {
        let mut wire = WireCaller::connect(way, 1_000).await.unwrap_or_else(|error| panic!("{error}"));
        let world = wire.open_world("slow", 0).await.unwrap_or_else(|error| panic!("{error}"));
        Self { wire, world, staged: 0, answers: HashMap::new() }
    }

    /// Stages the next job; gives its number.
    fn stage(&mut self) -> u64 {
        self.staged += 1;
        let staged = self.wire.stage(self.world, format!("job {}", self.staged).as_bytes(), self.staged);
        staged.expect("there is room");
        self.staged
    }

    /// The numbers of those that were answered and have no reply.
    fn refused(&self) -> impl Iterator<Item = u64> {
        self.answers.iter().filter(|(_, answer)| answer.is_err()).map(|(number, _)| *number)
    }

    /// Sends what is staged and takes what comes, at least one answer.
    async fn exchange(&mut self) {
        let exchanged = self.wire.exchange(|number, reply| {
            let answer = match reply {
                ReplyBody::Job(bytes) => Ok(bytes.0.to_vec()),
                ReplyBody::Error { status, .. } => Err(status),
                ReplyBody::NoOp | ReplyBody::Object(_) => panic!("job {number} was answered as if it were none"),
            };
            assert!(self.answers.insert(number, answer).is_none(), "job {number} has two answers");
        });
        exchanged.await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// The same, for so long at most.
    async fn exchange_for(&mut self, time: Duration) {
        // In vain or not: what was staged has been sent.
        let _ = tokio::time::timeout(time, self.exchange()).await;
    }

    async fn exchange_until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        let started = Instant::now();
        while !reached(self) {
            assert!(started.elapsed() < wait::BOUND, "waited in vain until {what}");
            self.exchange_for(Duration::from_millis(20)).await;
        }
    }

    async fn exchange_until_answered(&mut self) {
        while (self.answers.len() as u64) < self.staged {
            let exchanged = tokio::time::timeout(wait::BOUND, self.exchange()).await;
            assert!(
                exchanged.is_ok(),
                "{} of {} jobs have no answer",
                self.staged - self.answers.len() as u64,
                self.staged
            );
        }
    }
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let machine = Machine::start("echo");
    let config = Config::of_one(&sshd, &machine, &identity, "echo");
    fs::set_permissions(identity.private(), fs::Permissions::from_mode(0o644)).expect("the file is ours");
    let folder = TempDir::new().expect("the temporary folder can be written");
    let said = refuses_to_start(&config.text(&folder.path().join("nserver").to_string_lossy()));
    let cure = format!("chmod 600 {}", identity.private().display());
    assert!(said.contains("0644") && said.contains(&cure), "the key file and the cure are not named:\n{said}");
}

#[test]
fn plain_listeners_stay_on_loopback() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let machine = Machine::start("echo");
    let config = Config::of_one(&sshd, &machine, &identity, "echo");
    let folder = TempDir::new().expect("the temporary folder can be written");
    let text = config.text(&folder.path().join("nserver").to_string_lossy());
    for (from, to) in [
        ("grpc = \"127.0.0.1:0\"", "grpc = \"0.0.0.0:0\""),
        ("grpc = \"127.0.0.1:0\"", "grpc = \"[::]:0\""),
        ("tcp:127.0.0.1:0", "tcp:192.0.2.7:9000"),
    ] {
        assert!(text.contains(from), "the test is wrong about the file");
        let said = refuses_to_start(&text.replace(from, to));
        assert!(said.contains("loopback"), "{to} is refused without a reason:\n{said}");
    }
}

/// What `seeway serve` says of a file that it must not start with.
fn refuses_to_start(text: &str) -> String {
    let folder = TempDir::new().expect("the temporary folder can be written");
    let file = folder.path().join("seeway.toml");
    fs::write(&file, text).expect("the temporary folder can be written");
    let mut process = Process::start("the gateway", seeway().arg("serve").arg("--config").arg(&file));
    let status = process.exit(wait::BOUND);
    assert_eq!(status.code(), Some(1), "{}", process.log());
    process.log()
}

#[test]
fn the_socket_is_for_owner_and_group() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let machine = Machine::start_with_ssh("echo", &identity, "127.0.0.1:0");
    let config =
        Config::new().machine("hsm", machine.door(), machine.seejobs(), &identity, "").world("echo", &["hsm"], "");
    let gateway = Gateway::start(&config);
    assert_eq!(mode(&gateway.folder().join("nserver")), 0o660);
    drop(gateway);
    let gateway = Gateway::start(&config.line("listen", "socket_mode = \"0600\""));
    assert_eq!(mode(&gateway.folder().join("nserver")), 0o600);
}

fn mode(path: &Path) -> u32 {
    let metadata = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    metadata.permissions().mode() & 0o777
}

#[test]
fn a_local_port_leads_to_a_port_of_the_machine() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let machine = Machine::start("echo");
    let inside = reversing_service();
    let config = Config::of_one(&sshd, &machine, &identity, "pipe");
    carries_both_ways(&config, &["--port", &inside.port().to_string()]);
}

#[test]
fn a_local_port_leads_to_a_machine_that_speaks_no_seejobs() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let config =
        Config::new().machine("hsm", sshd.door(), reversing_service(), &identity, "").world("pipe", &["hsm"], "");
    carries_both_ways(&config, &[]);
}

/// A service inside a machine that speaks no SEEJobs: it sends back what it gets, reversed, once all of it has come.
fn reversing_service() -> SocketAddr {
    let inside = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let address = inside.local_addr().expect("it was just bound");
    std::thread::spawn(move || {
        for stream in inside.incoming() {
            let mut stream = stream.expect("loopback connections can be accepted");
            std::thread::spawn(move || {
                let mut received = Vec::new();
                // Whoever asked may have gone, at any moment.
                if stream.read_to_end(&mut received).is_ok() {
                    received.reverse();
                    let _ = stream.write_all(&received);
                }
            });
        }
    });
    address
}

/// Runs `seeway forward` for the world `pipe` and sends several amounts through it, to the reversing service.
fn carries_both_ways(config: &Config, further: &[&str]) {
    let folder = TempDir::new().expect("the temporary folder can be written");
    let file = folder.path().join("seeway.toml");
    let text = config.text(&folder.path().join("nserver").to_string_lossy());
    fs::write(&file, text).expect("the temporary folder can be written");
    let mut command = seeway();
    command.arg("forward").arg("--config").arg(&file).args(["--world", "pipe", "127.0.0.1:0"]).args(further);
    let mut forward = Process::start("the forwarder", &mut command);
    let ready = forward.line("ready forward=");
    let local: SocketAddr = ready.split(' ').next().and_then(|local| local.parse().ok()).expect("an address");
    for size in [0, 1, 3_000_000] {
        let sent: Vec<u8> = (0u8..=255).cycle().take(size).collect();
        let expected: Vec<u8> = sent.iter().rev().copied().collect();
        let mut stream = TcpStream::connect(local).expect("the forwarder listens");
        let mut writer = stream.try_clone().expect("a socket can be cloned");
        let writing = std::thread::spawn(move || {
            writer.write_all(&sent).expect("the forwarder reads");
            writer.shutdown(Shutdown::Write).expect("the socket is open");
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("the forwarder closes in an orderly way");
        writing.join().expect("the writer does not panic");
        assert!(received == expected, "{size} bytes came back as {}, or not as they were", received.len());
    }
}
