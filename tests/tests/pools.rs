//! The pools: what becomes of tunnels and channels when a machine restarts, a login is refused, a tunnel comes of age, or a hundred
//! tunnels are to be made at once.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use seeway_bench::Target;
use seeway_tests::{
    Config, Door, Gateway, Identity, Machine, Sshd,
    callers::{self, Told},
    network::Network,
    turn::Turn,
    wait,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};

/// A gauge or counter of a gateway with one machine, as a whole number.
fn number(gateway: &Gateway, name: &str, label: &str) -> u64 {
    let sum = gateway.metrics().sum_where(name, label);
    // Counts are small and never negative.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let whole = sum.round() as u64;
    whole
}

fn until(gateway: &Gateway, name: &str, label: &str, wanted: impl Fn(u64) -> bool) -> u64 {
    wait::until(&format!("{name} {label} is as wanted"), wait::BOUND, || {
        Some(number(gateway, name, label)).filter(|number| wanted(*number))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_restarts_gets_its_channels_again_on_the_same_tunnels() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let mut machine = Machine::start("echo");
    let network = Network::to(sshd.door().address).await;
    let door = Door { address: network.address(), ..sshd.door().clone() };
    let config = Config::new()
        .machine("hsm", &door, machine.seejobs(), &identity, "channels = 2\nbulk_channels = 3")
        .world("echo", &["hsm"], "")
        .line("ssh", "connect_retry = \"50ms\"\nretry_max = \"200ms\"");
    let gateway = Gateway::start(&config);
    for restart in 0..4 {
        if restart > 0 {
            machine.kill();
            until(&gateway, "seeway_channels", "", |channels| channels == 0);
            assert_eq!(number(&gateway, "seeway_tunnels", "state=\"ready\""), 2, "the tunnels stand without a machine");
            machine.start_again();
        }
        // Those for large jobs are there once one has come, on a tunnel of their own.
        let expected = if restart == 0 { 2 } else { 5 };
        until(&gateway, "seeway_channels", "", |channels| channels == expected);
        let size = |number| if number == 0 { 40_000 } else { 64 };
        let mut jobs = (0..20u64).map(|number| (number, callers::payload(restart, number, size(number))));
        let on_answer = |number, told: Told<'_>| {
            assert_eq!(
                told,
                Told::Replied(&callers::payload(restart, number, size(number))),
                "restart {restart}, job {number}"
            );
        };
        let ended = callers::run(&gateway.unix(), "echo", 4, || jobs.next(), on_answer).await;
        ended.unwrap_or_else(|error| panic!("{error}"));
        until(&gateway, "seeway_channels", "", |channels| channels == 5);
    }
    // What the operations page says: seven, and one for each channel.
    until(&gateway, "seeway_tasks", "", |tasks| tasks == 12);
    assert_eq!(number(&gateway, "seeway_tunnels_made_total", ""), 2, "{}", gateway.log());
    assert_eq!(network.connections(), 2, "they are the same TCP connections all along");
}

/// How old a tunnel may become in the test, and how many are made in it.
const MAX_AGE: Duration = Duration::from_secs(2);
const GENERATIONS: u64 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_come_of_age_under_load_and_no_job_notices() {
    let _turn = Turn::alone();
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let machine = Machine::start("echo");
    let config = Config::of_one(&sshd, &machine, &identity, "echo")
        .line("ssh", &format!("max_age = \"{}s\"", MAX_AGE.as_secs()));
    let gateway = Gateway::ready(&config);
    let started = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let replies = Arc::new(AtomicU64::new(0));
    let mut load = JoinSet::new();
    for number in 0..6 {
        let target = if number < 4 { gateway.unix() } else { gateway.grpc() };
        // One in three is for the bulk channel, on the other tunnel.
        let size = if number % 3 == 0 { 60_000 } else { 200 };
        load.spawn(work(target, number, size, stop.clone(), replies.clone()));
    }
    let grown = || async {
        // A caller that fails ends the test at once.
        assert_eq!(load.len(), 6);
        // Of the tunnel of the small jobs and of that of the large ones.
        (number(&gateway, "seeway_tunnels_made_total", "") >= 2 * GENERATIONS).then_some(())
    };
    wait::until_async("tunnels come of age", wait::BOUND * 2, grown).await;
    stop.store(true, Ordering::Relaxed);
    let handed_over: u64 = load.join_all().await.into_iter().sum();
    let elapsed = started.elapsed();

    assert_eq!(replies.load(Ordering::Relaxed), handed_over, "each job has its reply");
    let runs = machine.journal().runs();
    let twice: HashMap<_, _> = runs.iter().filter(|(_, runs)| **runs != 1).take(5).collect();
    assert!(twice.is_empty(), "jobs that ran more than once: {twice:?}");
    assert_eq!(runs.len() as u64, handed_over, "and ran once");
    let lost = gateway.log().lines().filter(|line| line.contains("tunnel lost")).count();
    assert_eq!(lost, 0, "a planned end is no loss:\n{}", gateway.log());
    let made = number(&gateway, "seeway_tunnels_made_total", "");
    println!("{handed_over} jobs over {made} tunnels in {elapsed:?}");
    // Each stands for nine tenths of its age at least, the last one for less.
    let least = MAX_AGE.mul_f64(0.9) * u32::try_from(GENERATIONS - 1).expect("few");
    assert!(elapsed >= least, "{made} tunnels in {elapsed:?}: they go too early");
    // On one page: between two pages the next one may come of age.
    wait::until("two tunnels are ready and none drains", wait::BOUND, || {
        let metrics = gateway.metrics();
        let tunnels = |state: &str| metrics.sum_where("seeway_tunnels", &format!("state=\"{state}\""));
        (tunnels("draining") < 0.5 && (tunnels("ready") - 2.0).abs() < 0.5).then_some(())
    });
}

/// Runs jobs until it is told to stop; returns how many.
async fn work(target: Target, caller: u64, size: usize, stop: Arc<AtomicBool>, replies: Arc<AtomicU64>) -> u64 {
    let mut handed_over = 0;
    let job = |number: u64| {
        let mut job = format!("caller-{caller}/{number}/").into_bytes();
        job.resize(size, b'.');
        job
    };
    let next = || {
        (!stop.load(Ordering::Relaxed)).then(|| {
            handed_over += 1;
            (handed_over, job(handed_over))
        })
    };
    let on_answer = |number, told: Told<'_>| {
        assert!(matches!(told, Told::Replied(_)), "caller {caller}, job {number}: {told:?}");
        assert!(told == Told::Replied(&job(number)), "caller {caller}, job {number}: another job's reply");
        replies.fetch_add(1, Ordering::Relaxed);
    };
    let ended = callers::run(&target, "echo", 8, next, on_answer).await;
    ended.unwrap_or_else(|error| panic!("caller {caller}: {error}"));
    handed_over
}

/// How soon what was refused is tried again in the tests: long against the back-off, which must not be used.
const REFUSED_RETRY: Duration = Duration::from_millis(400);

fn refusing(door: &Door, seejobs: SocketAddr, identity: &Identity) -> Config {
    Config::new()
        .machine("hsm", door, seejobs, identity, "channels = 1\nbulk_channels = 0")
        .world("echo", &["hsm"], "")
        .line("ssh", "connect_retry = \"1ms\"\nretry_max = \"1ms\"\nconnect_pace = \"0s\"")
        .line("ssh", &format!("refused_retry = \"{}ms\"", REFUSED_RETRY.as_millis()))
}

/// Waits for three refusals; they must be `REFUSED_RETRY` apart.
fn refused_slowly(config: &Config, metric: &str) -> Gateway {
    let started = Instant::now();
    let gateway = Gateway::start(config);
    let refused = until(&gateway, metric, "", |refused| refused >= 3);
    let most = started.elapsed().as_millis() / REFUSED_RETRY.as_millis() + 1;
    assert!(u128::from(refused) <= most, "{refused} refusals in {:?}", started.elapsed());
    gateway
}

/// Waits until the gateway has logged this, which is read a little later than what is counted.
fn until_logged(gateway: &Gateway, text: &str) {
    wait::until(&format!("the log says {text:?}"), wait::BOUND, || gateway.log().contains(text).then_some(()));
}

#[test]
fn a_refused_login_is_loud_and_is_not_hammered_at() {
    let _turn = Turn::beside_others();
    let sshd = Sshd::start(&Identity::generate());
    let stranger = Identity::generate();
    let config = refusing(sshd.door(), SocketAddr::from(([127, 0, 0, 1], 8888)), &stranger);
    let gateway = refused_slowly(&config, "seeway_tunnels_refused_total");
    until(&gateway, "seeway_tunnels", "state=\"refused\"", |refused| refused == 1);
    until_logged(&gateway, "no tunnel until that is mended");
}

#[test]
fn another_host_key_is_loud_and_is_not_hammered_at() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let (sshd, other) = (Sshd::start(&identity), Sshd::start(&identity));
    let door = Door { host_key: other.door().host_key.clone(), ..sshd.door().clone() };
    let config = refusing(&door, SocketAddr::from(([127, 0, 0, 1], 8888)), &identity);
    let gateway = refused_slowly(&config, "seeway_tunnels_refused_total");
    until(&gateway, "seeway_tunnels", "state=\"refused\"", |refused| refused == 1);
}

#[test]
fn a_forbidden_port_is_loud_and_is_not_hammered_at() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let sshd = Sshd::start_with(&identity, Ipv4Addr::LOCALHOST.into(), "PermitOpen 127.0.0.1:1");
    let config = refusing(sshd.door(), SocketAddr::from(([127, 0, 0, 1], 8888)), &identity);
    let gateway = refused_slowly(&config, "seeway_channels_prohibited_total");
    assert_eq!(number(&gateway, "seeway_tunnels_made_total", ""), 1, "the tunnel stands meanwhile");
    until_logged(&gateway, "forbids the channel");
}

const PACE: Duration = Duration::from_millis(20);
const SHARDS: usize = 2;
const TUNNELS: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connects_to_one_server_are_paced_and_servers_do_not_wait_for_each_other() {
    let _turn = Turn::alone();
    let identity = Identity::generate();
    // Its key is never seen: the servers say nothing.
    let host_key = Sshd::start(&identity).door().host_key.clone();
    let (mut servers, mut config) = (Vec::new(), Config::new());
    for name in ["a", "b"] {
        let (address, accepted) = silent_server().await;
        let door = Door { address, user: "codesafe".to_owned(), host_key: host_key.clone() };
        config = config.machine(name, &door, address, &identity, &format!("tunnels = {TUNNELS}"));
        servers.push(accepted);
    }
    let config = config
        .world("echo", &["a", "b"], "")
        .line("runtime", &format!("shards = {SHARDS}"))
        .line("ssh", &format!("connect_pace = \"{}ms\"\nconnect_timeout = \"60s\"", PACE.as_millis()));
    let _gateway = Gateway::start(&config);
    let mut spans = Vec::new();
    for (server, accepted) in servers.iter_mut().enumerate() {
        let mut times = Vec::new();
        while times.len() < SHARDS * TUNNELS {
            let next = tokio::time::timeout(wait::BOUND, accepted.recv()).await;
            times.push(next.expect("all tunnels are tried").expect("the server goes on"));
        }
        let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let closest = gaps.iter().min().expect("there are many");
        let took = times[times.len() - 1] - times[0];
        println!("server {server}: {} connects in {took:?}, the closest two {closest:?} apart", times.len());
        // The times are those at which this test accepts. The first may be late by a few paces, and so may some of the
        // others, which then come close to those behind them.
        let least = PACE * u32::try_from(times.len() - 1).expect("few");
        assert!(took + PACE * 5 >= least, "{} connects in {took:?}", times.len());
        let close = gaps.iter().filter(|gap| **gap < PACE / 2).count();
        assert!(close * 3 <= gaps.len(), "{close} of {} connects come in less than half the pace", gaps.len());
        spans.push((times[0], times[times.len() - 1]));
    }
    assert!(spans[0].0 < spans[1].1 && spans[1].0 < spans[0].1, "one server waits for the other: {spans:?}");
}

/// A server that accepts, says nothing, and tells when it was connected to.
async fn silent_server() -> (SocketAddr, mpsc::UnboundedReceiver<Instant>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback has free ports");
    let address = listener.local_addr().expect("it was just bound");
    let (told, accepted) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
            if told.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    (address, accepted)
}
