//! The emulated HSM, as SSH clients see it.

mod support {
    pub mod ssh;
    #[path = "mod.rs"]
    mod wire;
    pub use wire::*;
}

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use russh::keys::PrivateKey;
use russh::{ChannelOpenFailure, Disconnect};
use seeway_machine::apps::App;
use seeway_machine::hsm::{Behind, Hsm, HsmConfig, HsmError, HsmLimits, MachinePort, SEEJOBS_PORT};
use seeway_machine::runtime::{Application, Job, Machine, MachineConfig, SeejobsListener};
use support::ssh::{self, caller, identity, log_in, open, public_line};
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const LOOPBACK: &str = "127.0.0.1:0";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn start_app(app: &str) -> Machine {
    let app: App = app.parse().expect("an application");
    app.start(app.config()).expect("starts")
}

/// An HSM with one machine, and who may log in.
async fn start(app: &str) -> (Hsm, Machine, Arc<PrivateKey>) {
    start_with(app, HsmLimits::default()).await
}

async fn start_with(app: &str, limits: HsmLimits) -> (Hsm, Machine, Arc<PrivateKey>) {
    let (machine, identity) = (start_app(app), identity());
    let ports = vec![MachinePort::machine(machine.clone())];
    let config = HsmConfig { limits, ..HsmConfig::new(address(LOOPBACK), vec![public_line(&identity)], ports) };
    (Hsm::start(config).await.expect("starts"), machine, identity)
}

async fn logged_in(hsm: &Hsm, identity: &Arc<PrivateKey>) -> russh::client::Handle<ssh::Pinned> {
    let mut ssh = ssh::connect(hsm.ssh_address(), hsm.host_key()).await.expect("connects");
    assert!(log_in(&mut ssh, "codesafe", identity).await.success());
    ssh
}

/// Sizes around every limit on the way: of padding, of SSH packets, of windows, of jobs.
fn sizes() -> Vec<usize> {
    let mut sizes: Vec<usize> = (0..10).collect();
    for limit in [4096, 16_384, 32_768, 65_536, 131_072] {
        sizes.extend(limit - 30..limit + 2);
    }
    sizes.extend(262_090..=262_100);
    sizes
}

/// A job that no other is like: its number, then bytes that follow from it.
fn numbered_job(number: u32, size: usize) -> Vec<u8> {
    let mut job = number.to_le_bytes().to_vec();
    job.extend((0..size).map(|at| u8::try_from((at + number as usize) % 251).expect("below 251")));
    job.truncate(size);
    job
}

/// Sends a job of each of `sizes` while it takes the replies, and checks each.
async fn echo_all(caller: Caller<russh::ChannelStream<russh::client::Msg>>, sizes: Vec<usize>) {
    let (from_machine, mut to_machine) = tokio::io::split(caller.stream);
    let numbered: Vec<(u32, usize)> = (0..).zip(sizes).collect();
    let expected = numbered.clone();
    let sending = tokio::spawn(async move {
        for (number, size) in numbered {
            soon(to_machine.write_all(&job(number, &numbered_job(number, size)))).await.expect("is taken");
        }
        to_machine
    });
    let mut caller = Caller::new(tokio::io::join(from_machine, tokio::io::sink()));
    let mut seen = vec![false; expected.len()];
    for _ in 0..expected.len() {
        let reply = caller.receive().await;
        let (number, size) = expected[reply.tag as usize];
        assert!(!std::mem::replace(&mut seen[number as usize], true), "job {number} was answered twice");
        assert!(reply.into_job() == numbered_job(number, size), "job {number} of {size} bytes got another reply");
    }
    sending.await.expect("all was sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_every_size_come_back_over_ssh() {
    let (hsm, _machine, identity) = start("echo").await;
    let ssh = logged_in(&hsm, &identity).await;
    let all = [(); 4].map(|()| async { echo_all(caller(&ssh, SEEJOBS_PORT).await, sizes()).await });
    for channel in all {
        channel.await;
    }
    let (one, two) = (caller(&ssh, SEEJOBS_PORT).await, caller(&ssh, SEEJOBS_PORT).await);
    tokio::join!(echo_all(one, sizes()), echo_all(two, sizes()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_may_send_much_before_it_receives() {
    let (hsm, _machine, identity) = start("echo").await;
    let mut ssh = ssh::connect_generously(hsm.ssh_address(), hsm.host_key()).await.expect("connects");
    assert!(log_in(&mut ssh, "codesafe", &identity).await.success());
    let mut caller = caller(&ssh, SEEJOBS_PORT).await;
    let largest = numbered_job(7, 262_100);
    for tag in 0..200 {
        caller.send(&job(tag, &largest)).await;
    }
    let mut tags: Vec<u32> = Vec::new();
    for _ in 0..200 {
        let reply = caller.receive().await;
        tags.push(reply.tag);
        assert!(reply.into_job() == largest);
    }
    tags.sort_unstable();
    assert!(tags.into_iter().eq(0..200));
}

/// Replies with much, and counts.
struct Generous(Arc<AtomicU32>);

impl Application for Generous {
    fn run(&self, job: Job) {
        job.reply(&vec![7; 262_100]);
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Otherwise two ends of which each waits for the other to receive would wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hsm_takes_jobs_while_it_can_not_send() {
    const JOBS: u32 = 100;
    let (identity, ran) = (identity(), Arc::new(AtomicU32::new(0)));
    let counts = Arc::clone(&ran);
    let machine = Machine::start(MachineConfig::default(), move || Generous(Arc::clone(&counts))).expect("starts");
    let ports = vec![MachinePort::machine(machine)];
    let hsm = Hsm::start(HsmConfig::new(address(LOOPBACK), vec![public_line(&identity)], ports)).await.expect("starts");

    let (gate, is_open) = watch::channel(true);
    let through = relay_with_gate(hsm.ssh_address(), is_open).await;
    let mut ssh = ssh::connect_generously(through, hsm.host_key()).await.expect("connects");
    assert!(log_in(&mut ssh, "codesafe", &identity).await.success());
    let mut caller = caller(&ssh, SEEJOBS_PORT).await;

    gate.send_replace(false);
    for tag in 0..JOBS {
        caller.send(&job(tag, b"x")).await;
        until("the job runs, though no reply can be sent", || ran.load(Ordering::Relaxed) == tag + 1).await;
    }
    gate.send_replace(true);
    for _ in 0..JOBS {
        assert_eq!(caller.receive().await.into_job().len(), 262_100);
    }
}

/// A TCP port that leads to `address`, and from there to the caller only while the gate is open.
async fn relay_with_gate(address: SocketAddr, mut is_open: watch::Receiver<bool>) -> SocketAddr {
    let listener = TcpListener::bind(LOOPBACK).await.expect("binds");
    let through = listener.local_addr().expect("has an address");
    tokio::spawn(async move {
        let (caller, _) = listener.accept().await.expect("the caller comes");
        let hsm = TcpStream::connect(address).await.expect("connects");
        let ((mut from_caller, mut to_caller), (mut from_hsm, mut to_hsm)) = (caller.into_split(), hsm.into_split());
        tokio::spawn(async move { tokio::io::copy(&mut from_caller, &mut to_hsm).await });
        let mut piece = vec![0; 64 * 1024];
        while is_open.wait_for(|is_open| *is_open).await.is_ok() {
            match from_hsm.read(&mut piece).await {
                Ok(len @ 1..) => to_caller.write_all(&piece[..len]).await.expect("is taken"),
                _ => return,
            }
        }
    });
    through
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_flow_while_session_keys_change() {
    let limits = HsmLimits { rekey_after_bytes: 256 * 1024, ..HsmLimits::default() };
    let (hsm, _machine, identity) = start_with("echo", limits).await;
    let ssh = logged_in(&hsm, &identity).await;
    let sizes = (0..400).map(|number| number * 97 % 60_000).collect();
    echo_all(caller(&ssh, SEEJOBS_PORT).await, sizes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_may_lead_to_a_tcp_listener() {
    let identity = identity();
    let machine = start_app("echo");
    let listener = SeejobsListener::start(machine.clone(), address(LOOPBACK)).await.expect("listens");
    let port = listener.address().port();
    let ports = vec![MachinePort::tcp(listener.address())];
    let hsm = Hsm::start(HsmConfig::new(address("[::1]:0"), vec![public_line(&identity)], ports)).await;
    let hsm = hsm.expect("starts, on IPv6");
    let ssh = logged_in(&hsm, &identity).await;
    echo_all(caller(&ssh, port).await, sizes()).await;

    listener.stop().await;
    until("its streams are closed", || machine.streams() == 0).await;
    assert_eq!(open(&ssh, "127.0.0.1", port).await.err(), Some(ChannelOpenFailure::ConnectFailed));
}

#[tokio::test]
async fn only_the_given_user_with_a_given_key_gets_in() {
    let (hsm, machine, authorized) = start("echo").await;
    let mut took = Vec::new();
    for (user, key) in [
        ("codesafe", identity()),
        ("root", identity()),
        ("root", Arc::clone(&authorized)),
        ("", Arc::clone(&authorized)),
    ] {
        let mut ssh = ssh::connect(hsm.ssh_address(), hsm.host_key()).await.expect("connects");
        let begun = Instant::now();
        let answer = log_in(&mut ssh, user, &key).await;
        took.push(begun.elapsed());
        let russh::client::AuthResult::Failure { remaining_methods, partial_success } = answer else {
            panic!("{user} got in");
        };
        assert!(!partial_success);
        assert_eq!(remaining_methods[..], [russh::MethodKind::PublicKey], "the same for all");
    }
    assert!(took.iter().all(|took| *took >= Duration::from_millis(490)), "refusals take their time: {took:?}");

    let mut ssh = ssh::connect(hsm.ssh_address(), hsm.host_key()).await.expect("connects");
    let answer = soon(ssh.authenticate_password("codesafe", "codesafe")).await.expect("is answered");
    assert!(!answer.success());
    let mut ssh = ssh::connect(hsm.ssh_address(), hsm.host_key()).await.expect("connects");
    assert!(!soon(ssh.authenticate_none("codesafe")).await.expect("is answered").success());
    assert_eq!(machine.streams(), 0);
    logged_in(&hsm, &authorized).await;
}

#[tokio::test]
async fn nothing_is_opened_for_who_has_not_logged_in() {
    let (hsm, machine, _) =
        start_with("echo", HsmLimits { auth_timeout: Duration::from_secs(2), ..HsmLimits::default() }).await;
    let ssh = ssh::connect(hsm.ssh_address(), hsm.host_key()).await.expect("connects");
    // Unanswered until the connection is closed, because nobody logs in in time.
    let opened = soon(ssh.channel_open_direct_tcpip("127.0.0.1", u32::from(SEEJOBS_PORT), "127.0.0.1", 0)).await;
    assert!(opened.is_err());
    assert_eq!(machine.streams(), 0);
}

#[tokio::test]
async fn a_connection_has_so_many_attempts_to_log_in() {
    let (hsm, _machine, _) = start_with("echo", HsmLimits { max_auth_attempts: 2, ..HsmLimits::default() }).await;
    let mut ssh = ssh::connect(hsm.ssh_address(), hsm.host_key()).await.expect("connects");
    for _ in 0..2 {
        assert!(!log_in(&mut ssh, "codesafe", &identity()).await.success());
    }
    let key = russh::keys::PrivateKeyWithHashAlg::new(identity(), None);
    // Depending on when the client notices, it gets an error or is told that it failed.
    let third = soon(ssh.authenticate_publickey("codesafe", key)).await;
    assert!(!third.is_ok_and(|answer| answer.success()));
    until("the connection is closed", || ssh.is_closed()).await;
}

#[tokio::test]
async fn who_does_not_log_in_in_time_is_closed() {
    // Long enough for a handshake and a login on a busy machine; all three wait side by side.
    let limits = HsmLimits { auth_timeout: Duration::from_secs(2), ..HsmLimits::default() };
    let (hsm, _machine, identity) = start_with("echo", limits).await;
    let mut silent = TcpStream::connect(hsm.ssh_address()).await.expect("connects");
    let welcome = logged_in(&hsm, &identity).await;
    let anonymous = ssh::connect(hsm.ssh_address(), hsm.host_key()).await.expect("connects");
    let mut said = Vec::new();
    soon(silent.read_to_end(&mut said)).await.expect("is closed");
    assert_eq!(said, b"SSH-2.0-SeewayEmulatedHSM\r\n");
    until("it is closed", || anonymous.is_closed()).await;
    // Who has logged in stays for longer than others may take to.
    let mut caller = caller(&welcome, SEEJOBS_PORT).await;
    assert_eq!(caller.run(1, b"stays").await.into_job(), b"stays");
}

#[tokio::test]
async fn channels_lead_to_machines_and_nowhere_else() {
    let (hsm, machine, identity) = start("echo").await;
    let ssh = logged_in(&hsm, &identity).await;
    for host in ["127.0.0.1", "localhost", "LocalHost", "::1"] {
        let channel = open(&ssh, host, SEEJOBS_PORT).await.expect(host);
        assert_eq!(Caller::new(channel.into_stream()).run(1, b"x").await.into_job(), b"x");
    }
    let prohibited = Some(ChannelOpenFailure::AdministrativelyProhibited);
    for (host, port) in [
        ("127.0.0.1", SEEJOBS_PORT + 1),
        ("127.0.0.1", 22),
        ("127.0.0.1", hsm.ssh_address().port()),
        ("127.0.0.1", 0),
        ("127.0.0.2", SEEJOBS_PORT),
        ("0.0.0.0", SEEJOBS_PORT),
        ("example.com", SEEJOBS_PORT),
        ("", SEEJOBS_PORT),
    ] {
        assert_eq!(open(&ssh, host, port).await.err(), prohibited, "{host}:{port}");
    }
    // A port number that is one of the HSM's only in its lower 16 bits.
    let wrapped = soon(ssh.channel_open_direct_tcpip("127.0.0.1", 0x1_0000 + u32::from(SEEJOBS_PORT), "", 0)).await;
    assert!(matches!(wrapped, Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited))));

    let session = soon(ssh.channel_open_session()).await;
    assert!(matches!(session, Err(russh::Error::ChannelOpenFailure(ChannelOpenFailure::AdministrativelyProhibited))));
    assert!(soon(ssh.channel_open_direct_streamlocal("/run/socket")).await.is_err());
    assert!(soon(ssh.tcpip_forward("127.0.0.1", 0)).await.is_err());
    assert!(soon(ssh.streamlocal_forward("/run/socket")).await.is_err());

    until("only machines were reached", || machine.streams() == 0).await;
}

#[tokio::test]
async fn there_are_only_so_many_channels_and_connections() {
    let limits = HsmLimits { max_channels: 2, max_connections: 2, ..HsmLimits::default() };
    let (hsm, machine, identity) = start_with("echo", limits).await;
    let ssh = logged_in(&hsm, &identity).await;
    let first = caller(&ssh, SEEJOBS_PORT).await;
    let _second = caller(&ssh, SEEJOBS_PORT).await;
    let third = open(&ssh, "127.0.0.1", SEEJOBS_PORT).await;
    assert_eq!(third.err(), Some(ChannelOpenFailure::ResourceShortage));
    drop(first);
    until("its channel is closed", || machine.streams() == 1).await;
    let _third = caller(&ssh, SEEJOBS_PORT).await;

    let other = logged_in(&hsm, &identity).await;
    assert!(ssh::connect(hsm.ssh_address(), hsm.host_key()).await.is_err(), "a third connection");
    soon(other.disconnect(Disconnect::ByApplication, "", "")).await.expect("says so");
    drop(other);
    let begun = Instant::now();
    while ssh::connect(hsm.ssh_address(), hsm.host_key()).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the place of the second one is not given back");
    }
}

#[tokio::test]
async fn one_machine_of_two_is_killed_and_started_again() {
    let (steady, shaky, identity) = (start_app("echo"), start_app("slow:3600000"), identity());
    let ports =
        vec![MachinePort::machine(steady.clone()), MachinePort { port: 8889, behind: Behind::Machine(shaky.clone()) }];
    let hsm = Hsm::start(HsmConfig::new(address(LOOPBACK), vec![public_line(&identity)], ports)).await.expect("starts");
    let ssh = logged_in(&hsm, &identity).await;
    let mut to_steady = caller(&ssh, SEEJOBS_PORT).await;
    let mut to_shaky = caller(&ssh, 8889).await;
    to_shaky.send(&job(1, b"is lost")).await;
    until("it is held", || shaky.jobs() == 1).await;

    shaky.kill();
    to_shaky.closed().await;
    assert_eq!(open(&ssh, "127.0.0.1", 8889).await.err(), Some(ChannelOpenFailure::ConnectFailed));
    assert_eq!(to_steady.run(1, b"goes on").await.into_job(), b"goes on");

    shaky.restart().expect("starts again");
    let mut to_shaky = caller(&ssh, 8889).await;
    to_shaky.send(&no_op(2)).await;
    assert_eq!(to_shaky.receive().await, Reply { tag: 2, said: Said::NoOp });
}

#[tokio::test]
async fn the_host_key_is_kept_and_another_hsm_has_another() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let identity = identity();
    let start = async |state_directory: Option<&Path>| {
        let ports = vec![MachinePort::machine(start_app("echo"))];
        let config = HsmConfig::new(address(LOOPBACK), vec![public_line(&identity)], ports);
        Hsm::start(HsmConfig { state_directory: state_directory.map(Path::to_owned), ..config }).await.expect("starts")
    };
    let first = start(Some(folder.path())).await;
    let (host_key, fingerprint) = (first.host_key().to_owned(), first.host_key_fingerprint().to_owned());
    assert!(host_key.starts_with("ssh-ed25519 AAAA") && fingerprint.starts_with("SHA256:"), "{host_key} {fingerprint}");
    first.stop().await;

    let again = start(Some(folder.path())).await;
    assert_eq!((again.host_key(), again.host_key_fingerprint()), (host_key.as_str(), fingerprint.as_str()));
    let mut ssh = ssh::connect(again.ssh_address(), &host_key).await.expect("is the same host");
    assert!(log_in(&mut ssh, "codesafe", &identity).await.success());

    let other = start(None).await;
    assert_ne!(other.host_key(), host_key);
    assert!(matches!(ssh::connect(other.ssh_address(), &host_key).await, Err(russh::Error::UnknownKey)));
}

#[tokio::test]
async fn stopping_ends_connections_and_closes_the_port() {
    let (hsm, machine, identity) = start("echo").await;
    let ssh = logged_in(&hsm, &identity).await;
    let mut caller = caller(&ssh, SEEJOBS_PORT).await;
    assert_eq!(caller.run(1, b"x").await.into_job(), b"x");
    let address = hsm.ssh_address();
    soon(hsm.stop()).await;
    caller.closed().await;
    until("the client knows", || ssh.is_closed()).await;
    until("the machine has no stream", || machine.streams() == 0).await;
    assert!(TcpStream::connect(address).await.is_err());
    assert!(machine.is_up(), "the machine is its owner's to end");
}

#[tokio::test]
async fn what_is_wrong_with_a_configuration_is_said() {
    let key = public_line(&identity());
    let port = || MachinePort::machine(start_app("echo"));
    let config =
        |keys: &[&str], ports| HsmConfig::new(address(LOOPBACK), keys.iter().map(ToString::to_string).collect(), ports);
    let refused = async |config| Hsm::start(config).await.err().expect("is refused");
    assert!(matches!(refused(config(&[&key], vec![])).await, HsmError::NoMachine));
    assert!(matches!(refused(config(&[&key], vec![port(), port()])).await, HsmError::DuplicatePort(SEEJOBS_PORT)));
    assert!(matches!(refused(config(&["", "# nobody"], vec![port()])).await, HsmError::NoAuthorizedKey));
    let error = refused(config(&["# me", &key, "ssh-ed25519 nonsense"], vec![port()])).await;
    assert!(matches!(error, HsmError::AuthorizedKey { line: 3, .. }), "{error}");
    let taken = std::net::TcpListener::bind(LOOPBACK).expect("binds");
    let listen = taken.local_addr().expect("has an address");
    let error = refused(HsmConfig { listen, ..config(&[&key], vec![port()]) }).await;
    assert!(error.to_string().contains(&listen.to_string()), "{error}");
}
