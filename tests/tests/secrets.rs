//! What a job carries is between its caller and its machine.

use seeway_bench::Target;
use seeway_tests::{
    Config, Gateway, Identity, Machine, Sshd,
    callers::{self, Told},
    turn::Turn,
    wait,
};

const SECRET: &[u8] = b"SECRET-of-the-job";
/// The secret as text, as numbers, and as digits.
const FORMS: [&str; 4] = ["SECRET-of", "83, 69, 67, 82, 69, 84", "53454352", "53, 45, 43, 52"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_of_a_job_reaches_the_log_or_the_metrics() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let (echo, faulty) = (Machine::start("echo"), Machine::start("faulty:1"));
    let config = Config::new()
        .machine("echo", sshd.door(), echo.seejobs(), &identity, "")
        .machine("faulty", sshd.door(), faulty.seejobs(), &identity, "")
        .world("echo", &["echo"], "")
        .world("faulty", &["faulty"], "");
    let gateway = Gateway::start_logging(&config, Some("trace"));
    gateway.until_up(config.machines());
    for way in [gateway.unix(), gateway.grpc()] {
        for world in ["echo", "faulty"] {
            assert_eq!(outcomes(&way, world, SECRET.to_vec()).await, 1);
            // One that is refused for its size.
            assert_eq!(outcomes(&way, world, SECRET.repeat(20_000)).await, 1);
        }
    }
    gateway.until_idle(wait::BOUND);
    let (_, metrics) = gateway.get("/metrics");
    let log = gateway.log();
    assert!(log.contains("tunnel up"), "the gateway does not log what this test reads:\n{log}");
    for (place, text) in [("the log", &log), ("the metrics", &metrics)] {
        let found: Vec<_> = text.lines().filter(|line| FORMS.iter().any(|form| line.contains(form))).collect();
        assert!(found.is_empty(), "{place} shows what is in a job: {found:?}");
    }
}

/// How many outcomes one job has.
async fn outcomes(way: &Target, world: &str, job: Vec<u8>) -> usize {
    let mut job = Some(job);
    let mut outcomes = 0;
    let on_answer = |_, _: Told<'_>| outcomes += 1;
    let ended = callers::run(way, world, 1, || Some((1, job.take()?)), on_answer).await;
    ended.unwrap_or_else(|error| panic!("{error}"));
    outcomes
}
