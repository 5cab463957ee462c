//! Each limit of the configuration, at it and one past it, with real parts on both sides.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::Signal;
use seeway_bench::grpc::{GrpcCaller, connect};
use seeway_bench::wire::WireCaller;
use seeway_machine::hsm::{Hsm, HsmConfig, MachinePort};
use seeway_machine::runtime::{Application, Job, MachineConfig, Processors};
use seeway_proto::v1::pipe_request::Message;
use seeway_proto::v1::stream_response::Result as JobResult;
use seeway_proto::v1::{PipeOpen, PipeRequest, SubmitRequest};
use seeway_proto::wire::{Profile, ReplyBody};
use seeway_tests::{Config, Door, Gateway, Identity, Machine, turn::Turn, wait};
use tonic::Code;
use tonic_types::StatusExt;

/// A machine that runs `app` behind its own SSH server, with the identity that it lets in, and a configuration of one world
/// `w` on it.
fn stage(app: &str, of_machine: &str) -> ((Machine, Identity), Config) {
    let identity = Identity::generate();
    let machine = Machine::start_with_ssh(app, &identity, "127.0.0.1:0");
    let config = Config::new().machine("hsm", machine.door(), machine.seejobs(), &identity, of_machine);
    ((machine, identity), config.world("w", &["hsm"], ""))
}

fn address(gateway: &Gateway) -> String {
    gateway.grpc().to_string().trim_start_matches("grpc://").to_owned()
}

async fn gauge_reaches(gateway: &Gateway, name: &str, wanted: f64) {
    wait::until_async(&format!("{name} is {wanted}"), wait::BOUND, || {
        let value = gateway.metrics().sum(name);
        async move { ((value - wanted).abs() < 0.5).then_some(()) }
    })
    .await;
}

async fn job_comes_back(caller: &mut WireCaller<u64>, world: u32) {
    caller.stage(world, b"job", 1).expect("room");
    let answer = caller.exchange(|_, reply| assert!(matches!(reply, ReplyBody::Job(_)), "{reply:?}")).await;
    answer.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn callers() {
    let _turn = Turn::beside_others();
    let (_machine, config) = stage("echo", "");
    let gateway = Gateway::ready(&config.line("limits", "callers = 2"));
    let ways = [gateway.unix(), gateway.tcp4()];
    let mut inside = Vec::new();
    for way in &ways {
        let mut caller = WireCaller::connect(way, 4).await.expect("accepted");
        let world = caller.open_world("w", 0).await.unwrap_or_else(|error| panic!("{error}"));
        inside.push((caller, world));
    }
    let mut past = WireCaller::connect(&ways[0], 4).await.expect("the system accepts it");
    assert!(past.open_world("w", 0).await.is_err(), "the third connection is closed");
    assert!(gateway.metrics().sum("seeway_callers_refused_total") > 0.5);
    for (caller, world) in &mut inside {
        job_comes_back(caller, *world).await;
    }
    inside.pop();
    gauge_reaches(&gateway, "seeway_callers", 1.0).await;
    let mut next = WireCaller::connect(&ways[0], 4).await.expect("accepted");
    let world = next.open_world("w", 0).await.unwrap_or_else(|error| panic!("{error}"));
    job_comes_back(&mut next, world).await;
}

#[tokio::test]
async fn jobs_of_one_legacy_caller_wait_in_its_socket() {
    let _turn = Turn::beside_others();
    let (_machine, config) = stage("slow:300", "");
    let gateway = Gateway::ready(&config.line("limits", "caller_jobs = 4"));
    let mut caller = WireCaller::connect(&gateway.tcp4(), 100).await.expect("accepted");
    let world = caller.open_world("w", 0).await.unwrap_or_else(|error| panic!("{error}"));
    for number in 0..12 {
        caller.stage(world, b"job", number).expect("room");
    }
    let (mut answered, mut most) = (0, 0.0_f64);
    while answered < 12 {
        let exchanged = caller.exchange(|_, reply| {
            assert!(matches!(reply, ReplyBody::Job(_)), "{reply:?}");
            answered += 1;
        });
        exchanged.await.unwrap_or_else(|error| panic!("{error}"));
        most = most.max(gateway.metrics().sum("seeway_jobs"));
    }
    assert!(most > 0.5 && most < 4.5, "up to {most} jobs of one caller were in hand; its limit is 4");
}

#[tokio::test]
async fn jobs_of_one_grpc_stream_wait_in_its_window() {
    let _turn = Turn::beside_others();
    let (_machine, config) = stage("slow:300", "");
    let gateway = Gateway::ready(&config.line("limits", "caller_jobs = 4"));
    let mut caller = GrpcCaller::connect(&address(&gateway), 100).await.unwrap_or_else(|error| panic!("{error}"));
    for id in 0..12 {
        caller.send(id, "w", Bytes::from_static(b"job")).await.unwrap_or_else(|error| panic!("{error}"));
    }
    let mut most = 0.0_f64;
    for _ in 0..12 {
        let answer = caller.next().await.unwrap_or_else(|error| panic!("{error}"));
        assert!(matches!(answer.result, Some(JobResult::Reply(_))), "{answer:?}");
        most = most.max(gateway.metrics().sum("seeway_jobs"));
    }
    assert!(most > 0.5 && most < 4.5, "up to {most} jobs of one stream were in hand; its limit is 4");
}

#[tokio::test]
async fn the_queue_and_a_machines_jobs_in_flight() {
    let _turn = Turn::beside_others();
    let ((mut machine, _identity), config) = stage("slow:500", "max_in_flight = 2");
    // Of several shards one could be without a tunnel when the machine is halted.
    let gateway = Gateway::ready(&config.line("limits", "queue = 3").line("runtime", "shards = 1"));
    let client = connect(&address(&gateway)).await.unwrap_or_else(|error| panic!("{error}"));
    // A job that ended before the last one came would leave room for it.
    machine.signal(Signal::STOP);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let mut client = client.clone();
        calls.spawn(async move {
            let job = Bytes::from_static(b"job");
            client.submit(SubmitRequest { world: "w".into(), job, ..Default::default() }).await
        });
    }
    let first = tokio::time::timeout(wait::BOUND, calls.join_next()).await.expect("one is refused");
    machine.signal(Signal::CONT);
    let mut ended = vec![first.expect("there are six").expect("no panic")];
    ended.extend(calls.join_all().await);
    let refused: Vec<_> = ended.iter().filter_map(|ended| ended.as_ref().err()).collect();
    assert_eq!(refused.len(), 1, "two in flight, three in the queue, one too many: {refused:?}");
    assert_eq!(refused[0].code(), Code::ResourceExhausted);
    let details = refused[0].get_error_details();
    assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("QUEUE_FULL"));
    assert!(details.retry_info().is_some(), "it says when to try again");
}

#[tokio::test]
async fn the_largest_job_on_both_front_ends() {
    let _turn = Turn::beside_others();
    let (_machine, config) = stage("echo", "");
    let gateway = Gateway::ready(&config.line("limits", "max_job_bytes = 1000"));
    let mut client = connect(&address(&gateway)).await.unwrap_or_else(|error| panic!("{error}"));
    let submit = |len| SubmitRequest { world: "w".into(), job: vec![7; len].into(), ..Default::default() };
    let at = client.submit(submit(1000)).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(at.into_inner().reply.len(), 1000);
    for len in [1001, 300_000] {
        let past = client.submit(submit(len)).await.expect_err("too large");
        assert_eq!(past.code(), Code::OutOfRange, "{past:?}");
        let details = past.get_error_details();
        let info = details.error_info().expect("an ErrorInfo");
        assert_eq!((info.reason.as_str(), info.metadata["may_have_run"].as_str()), ("JOB_TOO_LARGE", "false"));
    }

    let mut stream = GrpcCaller::connect(&address(&gateway), 10).await.unwrap_or_else(|error| panic!("{error}"));
    for (id, len) in [(1, 1001), (2, 1000)] {
        stream.send(id, "w", vec![7; len].into()).await.unwrap_or_else(|error| panic!("{error}"));
    }
    for _ in 0..2 {
        let answer = stream.next().await.unwrap_or_else(|error| panic!("a failed job ended the stream: {error}"));
        match (answer.id, answer.result) {
            (1, Some(JobResult::Failure(failure))) => assert_eq!(failure.reason, "JOB_TOO_LARGE"),
            (2, Some(JobResult::Reply(reply))) => assert_eq!(reply.reply.len(), 1000),
            other => panic!("{other:?}"),
        }
    }

    let mut legacy = WireCaller::connect(&gateway.unix(), 10).await.expect("accepted");
    let world = legacy.open_world("w", 0).await.unwrap_or_else(|error| panic!("{error}"));
    legacy.stage(world, &[7; 1001], 1).expect("room");
    let buffer_full = Profile::open_1().statuses.buffer_full;
    let refused = |_, reply: ReplyBody<'_>| {
        assert!(matches!(reply, ReplyBody::Error { status, .. } if status == buffer_full), "{reply:?}");
    };
    legacy.exchange(refused).await.unwrap_or_else(|error| panic!("{error}"));
    job_comes_back(&mut legacy, world).await;
}

#[tokio::test]
async fn an_id_that_is_in_use_and_a_world_that_is_not_there_end_no_stream() {
    let _turn = Turn::beside_others();
    let (_machine, config) = stage("slow:300", "");
    let gateway = Gateway::ready(&config);
    let mut stream = GrpcCaller::connect(&address(&gateway), 10).await.unwrap_or_else(|error| panic!("{error}"));
    for world in ["nowhere", "w"] {
        stream.send(7, world, Bytes::from_static(b"first")).await.unwrap_or_else(|error| panic!("{error}"));
        if world == "nowhere" {
            let answer = stream.next().await.unwrap_or_else(|error| panic!("{error}"));
            let Some(JobResult::Failure(failure)) = answer.result else { panic!("{answer:?}") };
            assert_eq!((failure.reason.as_str(), failure.may_have_run), ("NO_SUCH_WORLD", false));
        }
    }
    stream.send(7, "", Bytes::from_static(b"second")).await.unwrap_or_else(|error| panic!("{error}"));
    let answer = stream.next().await.unwrap_or_else(|error| panic!("{error}"));
    let Some(JobResult::Failure(failure)) = answer.result else { panic!("{answer:?}") };
    assert_eq!(failure.reason, "MALFORMED");
    let answer = stream.next().await.unwrap_or_else(|error| panic!("{error}"));
    let Some(JobResult::Reply(reply)) = answer.result else { panic!("{answer:?}") };
    assert_eq!(&reply.reply[..], b"first");
}

#[tokio::test]
async fn pipes() {
    let _turn = Turn::beside_others();
    let (_machine, config) = stage("echo", "");
    let gateway = Gateway::ready(&config.line("limits", "pipes = 1"));
    let mut client = connect(&address(&gateway)).await.unwrap_or_else(|error| panic!("{error}"));
    let open = || PipeRequest { message: Some(Message::Open(PipeOpen { world: "w".into(), ..Default::default() })) };
    let (keep_open, requests) = tokio::sync::mpsc::channel(2);
    keep_open.send(open()).await.expect("room");
    let first = client.pipe(tokio_stream::wrappers::ReceiverStream::new(requests)).await;
    let first = first.unwrap_or_else(|status| panic!("{status}"));
    gauge_reaches(&gateway, "seeway_pipes", 1.0).await;
    let second = client.pipe(tokio_stream::iter([open()])).await.expect_err("one past the limit");
    assert_eq!(second.code(), Code::ResourceExhausted, "{second:?}");
    drop((first, keep_open));
    gauge_reaches(&gateway, "seeway_pipes", 0.0).await;
    client.pipe(tokio_stream::iter([open()])).await.unwrap_or_else(|status| panic!("{status}"));
}

/// Takes as long as a caller would notice, and counts how many jobs the machine has at once.
struct Crowded {
    now: AtomicUsize,
    most: Arc<AtomicUsize>,
}

impl Application for Crowded {
    fn run(&self, job: Job) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(100));
        // Before the reply, which lets the gateway send another.
        self.now.fetch_sub(1, Ordering::SeqCst);
        job.reply(b"done");
    }
}

/// How many there are at once is counted where they run: the gateway's own numbers are those of its shards, which are asked one
/// after the other.
#[tokio::test(flavor = "multi_thread")]
async fn two_shards_share_a_machines_limit() {
    let _turn = Turn::beside_others();
    let most = Arc::new(AtomicUsize::new(0));
    let counted = most.clone();
    let processors = Processors::Threads(NonZeroUsize::new(16).expect("16 is not 0"));
    let machine =
        seeway_machine::runtime::Machine::start(MachineConfig { processors, ..Default::default() }, move || Crowded {
            now: AtomicUsize::new(0),
            most: counted.clone(),
        });
    let port = MachinePort::machine(machine.unwrap_or_else(|error| panic!("{error}")));
    let (identity, seejobs) = (Identity::generate(), SocketAddr::from((Ipv4Addr::LOCALHOST, port.port)));
    let keys = vec![identity.public().to_owned()];
    let hsm = Hsm::start(HsmConfig::new((Ipv4Addr::LOCALHOST, 0).into(), keys, vec![port])).await;
    let hsm = hsm.unwrap_or_else(|error| panic!("{error}"));
    let door = Door { address: hsm.ssh_address(), user: "codesafe".into(), host_key: hsm.host_key().into() };
    let config = Config::new().machine("hsm", &door, seejobs, &identity, "max_in_flight = 6").world("w", &["hsm"], "");
    let gateway = Gateway::ready(&config.line("runtime", "shards = 2"));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let way = gateway.unix();
        callers.spawn(async move {
            let mut caller = WireCaller::connect(&way, 100).await.expect("accepted");
            let world = caller.open_world("w", 0).await.unwrap_or_else(|error| panic!("{error}"));
            for number in 0..20 {
                caller.stage(world, b"job", number).expect("room");
            }
            let mut answered = 0;
            while answered < 20 {
                let on_answer = |_, reply: ReplyBody<'_>| {
                    assert!(matches!(reply, ReplyBody::Job(_)), "{reply:?}");
                    answered += 1;
                };
                caller.exchange(on_answer).await.unwrap_or_else(|error| panic!("{error}"));
            }
        });
    }
    callers.join_all().await;
    let most = most.load(Ordering::SeqCst);
    assert!(
        (4..=6).contains(&most),
        "up to {most} jobs were in the machine at once; its limit is 6, of which a shard's share is 3"
    );
    gateway.until_idle(wait::BOUND);
}
