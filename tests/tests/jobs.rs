//! Jobs end to end: from legacy connections and gRPC streams at once, through a real SSH server, into a machine and back.
//! Every reply is compared with its job, whose bytes name its caller and its number.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use seeway_bench::Target;
use seeway_tests::{
    Config, Door, Dropbear, Gateway, Identity, Machine, Sshd,
    callers::{self, Told},
    turn::Turn,
    wait,
};
use tokio::task::JoinSet;

const LEGACY_CALLERS: u64 = 32;
const GRPC_CALLERS: u64 = 8;
const JOBS_FOR_EACH: u64 = 2_500;
const JOBS: u64 = (LEGACY_CALLERS + GRPC_CALLERS) * JOBS_FOR_EACH;
const IN_FLIGHT: usize = 8;
const MAX_JOB: usize = 262_100;

/// What a run must end within, on two slow cores.
const BOUND: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_through_openssh() {
    let _turn = Turn::alone();
    let identity = Identity::generate();
    // Under load a connection changes its keys every few seconds; here it does so many times a second.
    let over_ipv4 = Sshd::start_with(&identity, [127, 0, 0, 1].into(), "RekeyLimit 4M");
    let over_ipv6 = Sshd::start_with(&identity, IpAddr::V6(Ipv6Addr::LOCALHOST), "");
    let (one, other) = (Machine::start("echo"), Machine::start("echo"));
    let config = behind(&identity, [(over_ipv4.door(), &one), (over_ipv6.door(), &other)]);
    jobs_come_back(config, &["hsm-0", "hsm-1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_through_dropbear() {
    let _turn = Turn::alone();
    let identity = Identity::generate();
    let over_ipv4 = Dropbear::start(&identity, [127, 0, 0, 1].into());
    let over_ipv6 = Dropbear::start(&identity, IpAddr::V6(Ipv6Addr::LOCALHOST));
    let (one, other) = (Machine::start("echo"), Machine::start("echo"));
    let config = behind(&identity, [(over_ipv4.door(), &one), (over_ipv6.door(), &other)]);
    jobs_come_back(config, &["hsm-0", "hsm-1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_through_the_emulated_hsm() {
    let _turn = Turn::alone();
    let identity = Identity::generate();
    let over_ipv4 = Machine::start_with_ssh("echo", &identity, "127.0.0.1:0");
    let over_ipv6 = Machine::start_with_ssh("echo", &identity, "[::1]:0");
    let config = behind(&identity, [(over_ipv4.door(), &over_ipv4), (over_ipv6.door(), &over_ipv6)]);
    jobs_come_back(config, &["hsm-0", "hsm-1"]).await;
}

fn behind(identity: &Identity, machines: [(&Door, &Machine); 2]) -> Config {
    let config = Config::new().world("echo", &["hsm-0", "hsm-1"], "");
    machines.into_iter().enumerate().fold(config, |config, (number, (door, machine))| {
        config.machine(&format!("hsm-{number}"), door, machine.seejobs(), identity, "")
    })
}

async fn jobs_come_back(config: Config, machines: &[&str]) {
    let gateway = Gateway::ready(&config);
    let ways = [gateway.unix(), gateway.tcp4(), gateway.tcp6()];
    let replied = Arc::new(AtomicU64::new(0));
    let mut running = JoinSet::new();
    for number in 0..LEGACY_CALLERS {
        let way = ways[usize::try_from(number).expect("a small number") % ways.len()].clone();
        running.spawn(caller(way, number, Arc::clone(&replied)));
    }
    for number in LEGACY_CALLERS..LEGACY_CALLERS + GRPC_CALLERS {
        running.spawn(caller(gateway.grpc(), number, Arc::clone(&replied)));
    }
    let all = tokio::time::timeout(BOUND, running.join_all()).await;
    assert!(all.is_ok(), "after {BOUND:?}, {} of {JOBS} jobs have an outcome", replied.load(Ordering::Relaxed));
    assert_eq!(replied.load(Ordering::Relaxed), JOBS, "each job has one reply");

    gateway.until_idle(wait::BOUND);
    let metrics = gateway.metrics();
    let counted = metrics.sum_where("seeway_jobs_total", "outcome=\"replied\"");
    #[expect(clippy::cast_precision_loss, reason = "a number of jobs far below 2^52")]
    let expected = JOBS as f64;
    assert!((counted - expected).abs() < 0.5, "the gateway counted {counted} replies of {expected}");
    for machine in machines {
        let tunnels = metrics.sum_where("seeway_tunnels", &format!("machine=\"{machine}\""));
        assert!(tunnels > 0.5, "{machine} has no tunnel after the run");
    }
}

async fn caller(way: Target, caller: u64, replied: Arc<AtomicU64>) {
    let mut numbers = 0..JOBS_FOR_EACH;
    let next = || {
        let number = numbers.next()?;
        Some((number, callers::payload(caller, number, callers::size(caller, number, MAX_JOB))))
    };
    let on_answer = |number, told: Told<'_>| {
        let size = callers::size(caller, number, MAX_JOB);
        let Told::Replied(reply) = told else { panic!("job {number} of caller {caller} ({size} bytes): {told:?}") };
        let wanted = callers::payload(caller, number, size);
        assert!(
            reply == wanted,
            "job {number} of caller {caller} ({size} bytes) came back as {} bytes that begin with {:02x?}",
            reply.len(),
            &reply[..reply.len().min(16)]
        );
        replied.fetch_add(1, Ordering::Relaxed);
    };
    let ended = callers::run(&way, "echo", IN_FLIGHT, next, on_answer).await;
    ended.unwrap_or_else(|error| panic!("caller {caller}: {error}"));
}
