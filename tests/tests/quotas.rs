//! What one caller may have: at each quota, one past it, and what that means on each way in. Nothing that was sent is lost.

use bytes::Bytes;
use rustix::process::Signal;
use seeway_bench::grpc::{GrpcCaller, connect};
use seeway_bench::wire::WireCaller;
use seeway_proto::v1::SubmitRequest;
use seeway_proto::v1::stream_response::Result as JobResult;
use seeway_proto::wire::ReplyBody;
use seeway_tests::gateway::Metrics;
use seeway_tests::{Config, Gateway, Identity, Machine, turn::Turn, wait};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

const JOBS: u64 = 12;

/// A machine whose jobs take 200 ms each, any number at once, and a configuration of one world `w` on it.
fn stage(of_machine: &str, limits: &[&str]) -> ((Machine, Identity), Config) {
    let identity = Identity::generate();
    let machine = Machine::start_with_ssh("slow:200", &identity, "127.0.0.1:0");
    let config = Config::new().machine("hsm", machine.door(), machine.seejobs(), &identity, of_machine);
    let config = limits.iter().fold(config.world("w", &["hsm"], ""), |config, line| config.line("limits", line));
    ((machine, identity), config)
}

fn address(gateway: &Gateway) -> String {
    gateway.grpc().to_string().trim_start_matches("grpc://").to_owned()
}

/// The largest values that some metrics had while callers were at work.
struct Peak {
    jobs: f64,
    queued: f64,
    queue_bytes: f64,
    in_flight: f64,
    paused: f64,
}

impl Peak {
    fn new() -> Self {
        Self { jobs: 0.0, queued: 0.0, queue_bytes: 0.0, in_flight: 0.0, paused: 0.0 }
    }

    fn see(&mut self, metrics: &Metrics) {
        let Self { jobs, queued, queue_bytes, in_flight, paused } = self;
        for (peak, name) in [
            (jobs, "seeway_jobs"),
            (queued, "seeway_jobs_queued"),
            (queue_bytes, "seeway_queue_bytes"),
            (in_flight, "seeway_jobs_in_flight"),
            (paused, "seeway_callers_paused"),
        ] {
            *peak = peak.max(metrics.sum(name));
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Legacy,
    Stream,
}

/// Sends `JOBS` jobs of `size` bytes at once and takes their replies: each exactly once.
async fn all_come_back(gateway: &Gateway, way: Way, size: usize) {
    let job = |number: u64| seeway_tests::callers::payload(1, number, size);
    let mut answered = std::collections::BTreeSet::new();
    match way {
        Way::Legacy => {
            let mut caller = WireCaller::connect(&gateway.unix(), 100).await.expect("accepted");
            let world = caller.open_world("w", 0).await.unwrap_or_else(|error| panic!("{error}"));
            for number in 0..JOBS {
                caller.stage(world, &job(number), number).expect("room");
            }
            while answered.len() < usize::try_from(JOBS).expect("few") {
                let on_answer = |number, reply: ReplyBody<'_>| {
                    let ReplyBody::Job(bytes) = reply else { panic!("job {number}: {reply:?}") };
                    assert_eq!(bytes.0, job(number));
                    assert!(answered.insert(number), "job {number} was answered twice");
                };
                caller.exchange(on_answer).await.unwrap_or_else(|error| panic!("{error}"));
            }
        }
        Way::Stream => {
            let mut caller =
                GrpcCaller::connect(&address(gateway), 100).await.unwrap_or_else(|error| panic!("{error}"));
            for number in 0..JOBS {
                caller.send(number, "w", job(number).into()).await.unwrap_or_else(|error| panic!("{error}"));
            }
            for _ in 0..JOBS {
                let answer = caller.next().await.unwrap_or_else(|error| panic!("{error}"));
                let Some(JobResult::Reply(reply)) = &answer.result else { panic!("{answer:?}") };
                assert_eq!(reply.reply, job(answer.id));
                assert!(answered.insert(answer.id), "job {} was answered twice", answer.id);
            }
        }
    }
}

/// The most that was in hand while one caller had all its jobs answered, and another one's job came between.
async fn peak_of(gateway: &Gateway, way: Way, size: usize) -> Peak {
    let mut peak = Peak::new();
    {
        let mut jobs = std::pin::pin!(all_come_back(gateway, way, size));
        while tokio::time::timeout(std::time::Duration::from_millis(5), &mut jobs).await.is_err() {
            peak.see(&gateway.metrics());
        }
    }
    wait::until_async("nothing waits any more", wait::BOUND, || {
        let metrics = gateway.metrics();
        let left =
            metrics.sum("seeway_callers_paused") + metrics.sum("seeway_queue_bytes") + metrics.sum("seeway_jobs");
        async move { (left < 0.5).then_some(()) }
    })
    .await;
    peak
}

#[tokio::test]
async fn a_callers_queued_jobs() {
    let _turn = Turn::beside_others();
    let (_machine, config) = stage("max_in_flight = 2", &["caller_queued = 3"]);
    let gateway = Gateway::ready(&config);
    for way in [Way::Legacy, Way::Stream] {
        let peak = peak_of(&gateway, way, 8).await;
        assert!((peak.queued - 3.0).abs() < 0.5, "{way:?}: up to {} jobs waited; the quota is 3", peak.queued);
        assert!(peak.jobs < 5.5, "{way:?}: up to {} jobs in hand; two may be in flight", peak.jobs);
        assert!((peak.paused - 1.0).abs() < 0.5, "{way:?}: {} callers were not read from", peak.paused);
    }
    let metrics = gateway.metrics();
    assert!(metrics.sum_where("seeway_jobs_total", "outcome=\"not_sent").abs() < 0.5, "none was refused");
    assert!((metrics.sum_where("seeway_limit", "\"caller_queued\"") - 3.0).abs() < 0.5);
}

#[tokio::test]
async fn a_callers_jobs_in_flight_leave_the_rest_to_others() {
    let _turn = Turn::beside_others();
    let (_machine, config) = stage("max_in_flight = 100", &["caller_in_flight = 2"]);
    let gateway = Gateway::ready(&config);
    for way in [Way::Legacy, Way::Stream] {
        let peak = peak_of(&gateway, way, 8).await;
        assert!((peak.in_flight - 2.0).abs() < 0.5, "{way:?}: up to {} in flight; the quota is 2", peak.in_flight);
    }
    // Three callers have three quotas.
    let mut callers = JoinSet::new();
    let gateway = std::sync::Arc::new(gateway);
    for way in [Way::Legacy, Way::Stream, Way::Legacy] {
        let gateway = gateway.clone();
        callers.spawn(async move { all_come_back(&gateway, way, 8).await });
    }
    let mut peak = Peak::new();
    while !callers.is_empty() {
        peak.see(&gateway.metrics());
        let ended = tokio::time::timeout(std::time::Duration::from_millis(5), callers.join_next()).await;
        if let Ok(Some(ended)) = ended {
            ended.expect("no panic");
        }
    }
    assert!((peak.in_flight - 6.0).abs() < 0.5, "up to {} in flight of three callers", peak.in_flight);
}

#[tokio::test]
async fn a_callers_bytes() {
    const SIZE: usize = 10_000;
    let _turn = Turn::beside_others();
    let limits = ["max_job_bytes = 10000", "caller_bytes = 30000"];
    let (_machine, config) = stage("", &limits);
    let gateway = Gateway::ready(&config);
    for way in [Way::Legacy, Way::Stream] {
        let peak = peak_of(&gateway, way, SIZE).await;
        assert!((peak.jobs - 3.0).abs() < 0.5, "{way:?}: up to {} jobs of a third of the quota each", peak.jobs);
        assert!((peak.paused - 1.0).abs() < 0.5, "{way:?}: {} callers were not read from", peak.paused);
    }
    let metrics = gateway.metrics();
    assert!(metrics.sum_where("seeway_jobs_total", "outcome=\"not_sent").abs() < 0.5, "none was refused");
}

/// Begins calls at once on one connection.
async fn begin_calls(gateway: &Gateway, count: usize, size: usize) -> JoinSet<Result<(), Status>> {
    let client = connect(&address(gateway)).await.unwrap_or_else(|error| panic!("{error}"));
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let mut client = client.clone();
        let job = Bytes::from(vec![7; size]);
        let request = SubmitRequest { world: "w".into(), job, ..Default::default() };
        calls.spawn(async move { client.submit(request).await.map(drop) });
    }
    calls
}

/// Calls at once on one connection: how many had a reply, and what the others were told.
async fn unary(gateway: &Gateway, count: usize, size: usize) -> (usize, Vec<Status>) {
    let ended = begin_calls(gateway, count, size).await.join_all().await;
    let refused: Vec<Status> = ended.into_iter().filter_map(Result::err).collect();
    (count - refused.len(), refused)
}

/// The same, where one is past a quota. The machine is halted until that one has ended: a job that ended before would
/// leave room for it.
async fn unary_one_past(gateway: &Gateway, machine: &mut Machine, count: usize, size: usize) -> (usize, Vec<Status>) {
    machine.signal(Signal::STOP);
    let mut calls = begin_calls(gateway, count, size).await;
    let first = tokio::time::timeout(wait::BOUND, calls.join_next()).await.expect("one is refused");
    machine.signal(Signal::CONT);
    let mut ended = vec![first.expect("there are calls").expect("no panic")];
    ended.extend(calls.join_all().await);
    let refused: Vec<Status> = ended.into_iter().filter_map(Result::err).collect();
    (count - refused.len(), refused)
}

fn assert_quota(refused: &[Status]) {
    for status in refused {
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        let details = status.get_error_details();
        let info = details.error_info().expect("an ErrorInfo");
        assert_eq!((info.reason.as_str(), info.metadata["may_have_run"].as_str()), ("CLIENT_QUOTA", "false"));
        assert!(details.retry_info().is_some_and(|retry| retry.retry_delay.is_some()), "it says when to try again");
    }
}

#[tokio::test]
async fn unary_calls_past_a_quota_are_told_when_to_try_again() {
    let _turn = Turn::beside_others();
    let limits = ["caller_queued = 3", "max_job_bytes = 10000", "caller_bytes = 60000"];
    let ((mut machine, _identity), config) = stage("max_in_flight = 2", &limits);
    let gateway = Gateway::ready(&config);

    let (replied, refused) = unary(&gateway, 5, 8).await;
    assert_eq!((replied, refused.len()), (5, 0), "two in flight and three that wait: {refused:?}");
    let (replied, refused) = unary_one_past(&gateway, &mut machine, 6, 8).await;
    assert_eq!((replied, refused.len()), (5, 1), "one past it: {refused:?}");
    assert_quota(&refused);

    let ((mut machine, _identity), config) = stage("", &["max_job_bytes = 10000", "caller_bytes = 30000"]);
    let gateway = Gateway::ready(&config);
    let (replied, refused) = unary(&gateway, 3, 10_000).await;
    assert_eq!((replied, refused.len()), (3, 0), "as many bytes as there may be: {refused:?}");
    let (replied, refused) = unary_one_past(&gateway, &mut machine, 4, 10_000).await;
    assert_eq!((replied, refused.len()), (3, 1), "one past it: {refused:?}");
    assert_quota(&refused);

    // Two connections are two callers.
    let ((one, _), (other, _)) = tokio::join!(unary(&gateway, 3, 10_000), unary(&gateway, 3, 10_000));
    assert_eq!((one, other), (3, 3));
}

#[tokio::test]
async fn a_caller_that_is_not_read_from_holds_nobody_up_and_may_leave() {
    let _turn = Turn::beside_others();
    let (_machine, config) = stage("max_in_flight = 4", &["caller_queued = 1", "caller_in_flight = 1"]);
    let gateway = Gateway::ready(&config);
    let mut greedy = WireCaller::connect(&gateway.tcp4(), 1_000).await.expect("accepted");
    let world = greedy.open_world("w", 0).await.unwrap_or_else(|error| panic!("{error}"));
    for number in 0..500 {
        greedy.stage(world, &[7; 1000], number).expect("room");
    }
    let sent = greedy.exchange(|_, reply| assert!(matches!(reply, ReplyBody::Job(_)), "{reply:?}")).await;
    sent.unwrap_or_else(|error| panic!("{error}"));
    let paused = || (gateway.metrics().sum_where("seeway_callers_paused", "hardserver") > 0.5).then_some(());
    wait::until("the greedy caller is not read from", wait::BOUND, paused);
    // 500 jobs, one at a time, would take 100 s.
    let others = tokio::time::timeout(wait::BOUND, unary(&gateway, 1, 8));
    let (replied, refused) = others.await.expect("the other caller has its own quota");
    assert_eq!(replied, 1, "{refused:?}");
    drop(greedy);
    // Not a blocking wait: the other caller's connection ends on this thread.
    let is_idle = || {
        let is_idle = gateway.metrics().is_idle();
        async move { is_idle.then_some(()) }
    };
    wait::until_async("the gateway is idle", wait::BOUND, is_idle).await;
}
