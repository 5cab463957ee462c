//! Reload, drain and resume while jobs flow, with real SSH servers: no job is lost, none is told what is not so.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Output;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::Signal;
use seeway_bench::grpc::{GrpcCaller, connect};
use seeway_bench::wire::WireCaller;
use seeway_proto::v1::pipe_request::Message;
use seeway_proto::v1::stream_response::Result as JobResult;
use seeway_proto::v1::{ListWorldsRequest, PipeOpen, PipeRequest, SubmitRequest};
use seeway_proto::wire::{Profile, ReplyBody};
use seeway_tests::load::Load;
use seeway_tests::machine::seeway;
use seeway_tests::{Config, Gateway, Identity, Machine, Sshd, turn::Turn, wait};
use tokio::task::JoinSet;
use tonic::Code;
use tonic_types::StatusExt;

/// An OpenSSH server and a machine behind it.
struct Hsm {
    sshd: Sshd,
    machine: Machine,
}

impl Hsm {
    fn start(identity: &Identity, app: &str) -> Self {
        Self { sshd: Sshd::start(identity), machine: Machine::start(app) }
    }

    fn add_to(&self, config: Config, name: &str, identity: &Identity, further: &str) -> Config {
        config.machine(name, self.sshd.door(), self.machine.seejobs(), identity, further)
    }

    fn runs(&self) -> usize {
        self.machine.journal().runs().values().sum()
    }
}

fn address(gateway: &Gateway) -> String {
    gateway.grpc().to_string().trim_start_matches("grpc://").to_owned()
}

fn reloads(gateway: &Gateway, result: &str) -> f64 {
    gateway.metrics().sum_where("seeway_reloads_total", &format!("result=\"{result}\""))
}

/// Waits until so many reloads ended so.
fn until_reloads(gateway: &Gateway, result: &str, count: f64) {
    let reached = || (reloads(gateway, result) > count - 0.5).then_some(());
    wait::until(&format!("{count} reloads were {result}"), wait::BOUND, reached);
}

fn reload(gateway: &Gateway, config: &Config) {
    gateway.rewrite(config);
    let (status, said) = gateway.post("/reload");
    assert_eq!(status, 200, "{said}");
}

/// One job on a connection of its own.
async fn one_job(gateway: &Gateway, world: &str) -> Result<Bytes, tonic::Status> {
    let mut client = connect(&address(gateway)).await.unwrap_or_else(|error| panic!("{error}"));
    let request = SubmitRequest { world: world.into(), job: Bytes::from_static(b"job"), ..Default::default() };
    client.submit(request).await.map(|reply| reply.into_inner().reply)
}

async fn worlds(gateway: &Gateway) -> Vec<String> {
    let mut client = connect(&address(gateway)).await.unwrap_or_else(|error| panic!("{error}"));
    let listed = client.list_worlds(ListWorldsRequest {}).await.unwrap_or_else(|status| panic!("{status}"));
    listed.into_inner().worlds.into_iter().map(|world| world.name).collect()
}

fn command(gateway: &Gateway, arguments: &[&str]) -> (Option<i32>, String, String) {
    let admin = gateway.admin().to_string();
    let Output { status, stdout, stderr } =
        seeway().args(arguments).args(["--admin", &admin]).output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_and_a_world_come_and_go_under_load() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let (one, other) = (Hsm::start(&identity, "echo"), Hsm::start(&identity, "echo"));
    let before = one.add_to(Config::new(), "hsm-a", &identity, "").world("first", &["hsm-a"], "");
    let after = other
        .add_to(one.add_to(Config::new(), "hsm-a", &identity, ""), "hsm-b", &identity, "")
        .world("second", &["hsm-b"], "")
        .world("first", &["hsm-a", "hsm-b"], "");
    let mut gateway = Gateway::ready(&before);
    let load = Load::start(&gateway, "first");
    wait::until("jobs flow", wait::BOUND, || (gateway.metrics().sum("seeway_jobs_total") > 100.5).then_some(()));

    gateway.rewrite(&after);
    gateway.hang_up();
    until_reloads(&gateway, "ok", 1.0);
    gateway.until_up(&["hsm-b"]);
    assert_eq!(one_job(&gateway, "second").await.expect("a reply"), &b"job"[..]);
    assert_eq!(worlds(&gateway).await, ["first", "second"]);
    let mut legacy = WireCaller::connect(&gateway.unix(), 4).await.expect("accepted");
    let handle = legacy.open_world("second", 0).await.unwrap_or_else(|error| panic!("{error}"));
    let runs = other.runs();
    wait::until("the new machine takes its part of the old world", wait::BOUND, || {
        (other.runs() > runs + 100).then_some(())
    });

    reload(&gateway, &before);
    assert_eq!(worlds(&gateway).await, ["first"]);
    let gone = one_job(&gateway, "second").await.expect_err("a world that is gone");
    let details = gone.get_error_details();
    assert_eq!(gone.code(), Code::NotFound, "{gone:?}");
    assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("NO_SUCH_WORLD"));
    legacy.stage(handle, b"job", 1).expect("room");
    let unknown = Profile::open_1().statuses.unknown_id;
    let refused = |_, reply: ReplyBody<'_>| {
        assert!(matches!(reply, ReplyBody::Error { status, .. } if status == unknown), "{reply:?}");
    };
    legacy.exchange(refused).await.unwrap_or_else(|error| panic!("{error}"));
    let (_, page) = gateway.get("/metrics");
    assert!(!page.contains("world=\"second\""), "{page}");
    let (status, ready) = gateway.get("/readyz");
    assert!(status == 200 && !ready.contains("second"), "{ready}");
    // What it did for the world that is still there stays counted.
    let is_its =
        |line: &&str| line.contains("machine=\"hsm-b\"") && !line.starts_with("seeway_jobs_total{world=\"first\"");
    let has_left = || (gateway.get("/metrics").1.lines().find(is_its).is_none()).then_some(());
    wait::until("nothing is left of the machine", wait::BOUND, has_left);

    // What comes back under its old name works again, on the handle that the caller still has.
    reload(&gateway, &after);
    gateway.until_up(&["hsm-b"]);
    legacy.stage(handle, b"again", 2).expect("room");
    let replied = |_, reply: ReplyBody<'_>| assert!(matches!(reply, ReplyBody::Job(_)), "{reply:?}");
    legacy.exchange(replied).await.unwrap_or_else(|error| panic!("{error}"));
    let replied = load.finish().await;
    assert!(replied > 500, "jobs flowed all the time: {replied}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_in_flight_on_what_is_removed_are_replied_to() {
    const JOBS: u32 = 20;
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let (stays, mut goes) = (Hsm::start(&identity, "echo"), Hsm::start(&identity, "slow:1500"));
    let with = |config| stays.add_to(config, "stays", &identity, "").world("first", &["stays"], "");
    let before = goes.add_to(with(Config::new()), "goes", &identity, "").world("second", &["goes"], "");
    let mut gateway = Gateway::ready(&before);
    let mut legacy = WireCaller::connect(&gateway.tcp4(), 100).await.expect("accepted");
    let handle = legacy.open_world("second", 0).await.unwrap_or_else(|error| panic!("{error}"));
    let mut stream = GrpcCaller::connect(&address(&gateway), 100).await.unwrap_or_else(|error| panic!("{error}"));
    // No job ends before its machine is removed, however long that takes.
    goes.machine.signal(Signal::STOP);
    for number in 0..u64::from(JOBS) {
        legacy.stage(handle, format!("job {number}").as_bytes(), number).expect("room");
        stream.send(number, "second", format!("job {number}").into()).await.unwrap_or_else(|error| panic!("{error}"));
    }
    let mut answers = BTreeMap::new();
    let mut note = |number: u64, reply: ReplyBody<'_>| {
        let ReplyBody::Job(bytes) = reply else { panic!("job {number}: {reply:?}") };
        assert!(answers.insert(number, bytes.0.to_vec()).is_none(), "job {number} has two answers");
    };
    let started = Instant::now();
    while gateway.metrics().sum_where("seeway_jobs_in_flight", "\"goes\"") < f64::from(2 * JOBS) - 0.5 {
        assert!(started.elapsed() < wait::BOUND, "all are in flight");
        // In vain, but what was staged is sent.
        let _ = tokio::time::timeout(Duration::from_millis(10), legacy.exchange(&mut note)).await;
    }

    gateway.rewrite(&with(Config::new()));
    gateway.hang_up();
    until_reloads(&gateway, "ok", 1.0);
    let seen = gateway.metrics().sum_where("seeway_jobs_in_flight", "\"goes\"");
    assert!(seen > 0.5, "the machine is shown as long as it has jobs");
    goes.machine.signal(Signal::CONT);
    let mut left = JOBS;
    while left > 0 {
        let counted = |number: u64, reply: ReplyBody<'_>| {
            left -= 1;
            note(number, reply);
        };
        let exchanged = tokio::time::timeout(wait::BOUND, legacy.exchange(counted)).await;
        exchanged.expect("in time").unwrap_or_else(|error| panic!("{error}"));
    }
    assert!(answers.iter().all(|(number, reply)| *reply == format!("job {number}").into_bytes()));
    for _ in 0..JOBS {
        let answer = stream.next().await.unwrap_or_else(|error| panic!("{error}"));
        let Some(JobResult::Reply(reply)) = &answer.result else { panic!("{answer:?}") };
        assert_eq!(reply.reply, format!("job {}", answer.id));
    }
    assert_eq!(one_job(&gateway, "second").await.expect_err("gone").code(), Code::NotFound);
    let has_left = || (!gateway.get("/metrics").1.contains("machine=\"goes\"")).then_some(());
    wait::until("its tunnels are closed", wait::BOUND, has_left);
    assert_eq!(one_job(&gateway, "first").await.expect("a reply"), &b"job"[..]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_file_changes_nothing_and_says_why() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let hsm = Hsm::start(&identity, "echo");
    let config = hsm.add_to(Config::new(), "hsm", &identity, "").world("w", &["hsm"], "");
    let mut gateway = Gateway::ready(&config);
    let load = Load::start(&gateway, "w");

    let good = std::fs::read_to_string(gateway.config_file()).expect("there");
    let bad = format!("{good}\n[limits]\nqueue = 0\nno_such_key = 1\n");
    let line = |text: &str, start: &str| text.lines().position(|line| line.starts_with(start)).expect("there") + 1;
    gateway.rewrite_as(&bad);
    let (status, said) = gateway.post("/reload");
    assert_eq!(status, 400, "{said}");
    for (start, key) in [("queue", "limits.queue"), ("no_such_key", "limits.no_such_key")] {
        let said_so = format!("\"line\":{}", line(&bad, start));
        assert!(said.contains(&said_so) && said.contains(key), "{key} in line {}: {said}", line(&bad, start));
    }
    gateway.hang_up();
    until_reloads(&gateway, "refused", 2.0);
    let wanted = format!("seeway.toml:{}:", line(&bad, "queue"));
    // What is logged is read a little later than what is counted.
    wait::until(&format!("the log says that nothing was reloaded, and {wanted:?}"), wait::BOUND, || {
        let logged = gateway.log();
        (logged.contains("was not reloaded") && logged.contains(&wanted)).then_some(())
    });
    let (status, out, err) = command(&gateway, &["reload"]);
    assert_eq!((status, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains(&wanted) && err.contains("limits.queue") && err.contains("limits.no_such_key"), "{err}");

    // Nothing is wrong with this one, but for a gateway that runs.
    let other = good.replace("admin = \"127.0.0.1:0\"", "admin = \"127.0.0.1:1\"");
    let other = format!("{other}\n[runtime]\nshards = 7\n[limits]\nqueue = 7\n");
    gateway.rewrite_as(&other);
    let (status, said) = gateway.post("/reload");
    assert_eq!(status, 409, "{said}");
    for key in ["listen.admin", "runtime.shards"] {
        assert!(said.contains(&format!("\"key\":\"{key}\"")) && said.contains("restart"), "{key}: {said}");
    }
    let queue = gateway.metrics().sum_where("seeway_limit", "\"queue\"");
    assert!((queue - 4096.0).abs() < 0.5, "refused as a whole: {queue}");

    assert!((reloads(&gateway, "refused") - 4.0).abs() < 0.5);
    assert!(reloads(&gateway, "ok").abs() < 0.5);
    assert!(load.finish().await > 0);
    gateway.rewrite_as(&good);
    let (status, out, err) = command(&gateway, &["reload", "--json"]);
    assert_eq!(status, Some(0), "{err}");
    assert!(out.starts_with('{') && out.contains("\"result\":\"ok\""), "{out}");
}

/// Makes six calls at once, each as a caller of its own, of which so many are to be refused; gives how many were
/// replied to. The machine is halted until the refusals have come: a job that ended before would leave room for
/// one more.
async fn replied_of_six(gateway: &Gateway, machine: &mut Machine, to_be_refused: usize) -> usize {
    machine.signal(Signal::STOP);
    let mut calls = JoinSet::new();
    for _ in 0..6 {
        let address = address(gateway);
        calls.spawn(async move {
            let mut client = connect(&address).await.unwrap_or_else(|error| panic!("{error}"));
            let request = SubmitRequest { world: "w".into(), job: Bytes::from_static(b"j"), ..Default::default() };
            client.submit(request).await
        });
    }
    let mut ended = Vec::new();
    while ended.len() < to_be_refused {
        let next = tokio::time::timeout(wait::BOUND, calls.join_next()).await;
        let next = next.unwrap_or_else(|_| panic!("{} and not {to_be_refused} are refused", ended.len()));
        ended.push(next.expect("six were asked").expect("no panic"));
    }
    machine.signal(Signal::CONT);
    ended.extend(calls.join_all().await);
    for refused in ended.iter().filter_map(|ended| ended.as_ref().err()) {
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    }
    ended.iter().filter(|ended| ended.is_ok()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_changed_take_effect() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let Hsm { sshd, mut machine } = Hsm::start(&identity, "slow:300");
    let seejobs = machine.seejobs();
    let with = |in_flight: &str, queue: &str| {
        let config = Config::new().machine("hsm", sshd.door(), seejobs, &identity, in_flight).world("w", &["hsm"], "");
        config.line("limits", queue).line("limits", "callers = 50")
    };
    let gateway = Gateway::ready(&with("max_in_flight = 1", "queue = 1"));
    assert_eq!(replied_of_six(&gateway, &mut machine, 4).await, 2, "one in flight, one that waits");
    reload(&gateway, &with("max_in_flight = 2", "queue = 3"));
    assert_eq!(replied_of_six(&gateway, &mut machine, 1).await, 5, "two in flight, three that wait");
    let metrics = gateway.metrics();
    assert!((metrics.sum("seeway_max_in_flight") - 2.0).abs() < 0.5);
    reload(&gateway, &with("max_in_flight = 1", "queue = 2"));
    assert_eq!(replied_of_six(&gateway, &mut machine, 3).await, 3, "one in flight, two that wait");

    // Connections: those that are there stay, one more is closed.
    let mut inside = WireCaller::<u64>::connect(&gateway.unix(), 4).await.expect("accepted");
    inside.open_world("w", 0).await.unwrap_or_else(|error| panic!("{error}"));
    let alone = || (gateway.metrics().sum("seeway_callers") < 1.5).then_some(());
    wait::until("the others have gone", wait::BOUND, alone);
    reload(&gateway, &with("max_in_flight = 1", "queue = 2").line("runtime", "drain_timeout = \"3s\""));
    let text = std::fs::read_to_string(gateway.config_file()).expect("there");
    gateway.rewrite_as(&text.replace("callers = 50", "callers = 1"));
    assert_eq!(gateway.post("/reload").0, 200);
    let mut past = WireCaller::<u64>::connect(&gateway.unix(), 4).await.expect("the system accepts it");
    assert!(past.open_world("w", 0).await.is_err(), "one past the limit");
    inside.open_world("w", 0).await.unwrap_or_else(|error| panic!("it stays: {error}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_drained_gets_nothing_until_it_is_resumed() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let (one, other) = (Hsm::start(&identity, "echo"), Hsm::start(&identity, "echo"));
    let config = other.add_to(one.add_to(Config::new(), "hsm-a", &identity, ""), "hsm-b", &identity, "").world(
        "w",
        &["hsm-a", "hsm-b"],
        "",
    );
    let gateway = Gateway::ready(&config);
    let load = Load::start(&gateway, "w");
    wait::until("both work", wait::BOUND, || (one.runs() > 20 && other.runs() > 20).then_some(()));

    let (status, out, err) = command(&gateway, &["drain", "--machine", "hsm-a", "--wait", "20s"]);
    assert_eq!((status, out.as_str()), (Some(0), "machine hsm-a takes no new jobs; jobs in hand: 0\n"), "{err}");
    let (runs, others) = (one.runs(), other.runs());
    wait::until("the other one works", wait::BOUND, || (other.runs() > others + 200).then_some(()));
    assert_eq!(one.runs(), runs, "a machine that is drained gets no job");
    let state = |state: &str| {
        gateway.metrics().sum_where("seeway_machine_state", &format!("machine=\"hsm-a\",state=\"{state}\"")) > 0.5
    };
    assert!(state("draining"));
    assert_eq!(gateway.get("/readyz").0, 200, "the gateway takes jobs");
    // A reload does not resume it.
    reload(&gateway, &config.clone().line("limits", "hold = \"30s\""));
    assert!(state("draining"));
    let (status, said) = gateway.post("/drain?machine=hsm-a");
    assert_eq!((status, said.as_str()), (200, "{\"draining\":true,\"jobs\":0,\"machine\":\"hsm-a\"}\n"));

    let (status, out, err) = command(&gateway, &["resume", "--machine", "hsm-a"]);
    assert_eq!((status, out.as_str()), (Some(0), "machine hsm-a takes jobs; jobs in hand: 0\n"), "{err}");
    wait::until("it works again", wait::BOUND, || (one.runs() > runs + 100).then_some(()));
    let (status, _, err) = command(&gateway, &["drain", "--machine", "hsm-c"]);
    assert_eq!(status, Some(1));
    assert!(err.contains("no machine `hsm-c`"), "{err}");
    assert!(load.finish().await > 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_drained_finishes_what_it_has_and_takes_jobs_again_when_resumed() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let mut hsm = Hsm::start(&identity, "slow:1000");
    let config = hsm.add_to(Config::new(), "hsm", &identity, "").world("w", &["hsm"], "");
    let mut gateway = Gateway::ready(&config);
    // The job does not end before the drain has begun, however long that takes.
    hsm.machine.signal(Signal::STOP);
    let mut client = connect(&address(&gateway)).await.unwrap_or_else(|error| panic!("{error}"));
    let request = || SubmitRequest { world: "w".into(), job: Bytes::from_static(b"job"), ..Default::default() };
    let mut early = client.clone();
    let early = tokio::spawn(async move { early.submit(request()).await });
    wait::until("the job is in flight", wait::BOUND, || {
        (gateway.metrics().sum("seeway_jobs_in_flight") > 0.5).then_some(())
    });

    let (status, said) = gateway.post("/drain");
    assert_eq!((status, said.as_str()), (200, "{\"draining\":true,\"jobs\":1,\"machine\":null}\n"));
    hsm.machine.signal(Signal::CONT);
    let late = client.submit(request()).await.expect_err("drained");
    assert_eq!(late.code(), Code::Unavailable, "{late:?}");
    assert_eq!(late.get_error_details().error_info().map(|info| info.reason.as_str()), Some("NOT_SENT"));
    let mut legacy = WireCaller::connect(&gateway.unix(), 4).await.expect("connections are taken");
    let handle = legacy.open_world("w", 0).await.unwrap_or_else(|error| panic!("{error}"));
    legacy.stage(handle, b"job", 1).expect("room");
    let not_available = Profile::open_1().statuses.not_available;
    let refused = |_, reply: ReplyBody<'_>| {
        assert!(matches!(reply, ReplyBody::Error { status, .. } if status == not_available), "{reply:?}");
    };
    legacy.exchange(refused).await.unwrap_or_else(|error| panic!("{error}"));
    let open = PipeRequest { message: Some(Message::Open(PipeOpen { world: "w".into(), ..Default::default() })) };
    let pipe = client.pipe(tokio_stream::iter([open.clone()])).await.expect_err("drained");
    assert_eq!(pipe.code(), Code::Unavailable, "{pipe:?}");
    let details = pipe.get_error_details();
    assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("NOT_SENT"));
    assert!(details.retry_info().is_some(), "{pipe:?}");
    let (status, ready) = gateway.get("/readyz");
    assert!(status == 503 && ready.starts_with("not ready: draining\n"), "{status} {ready}");
    assert!(gateway.metrics().sum("seeway_draining") > 0.5);

    let (status, out, err) = command(&gateway, &["drain", "--wait", "20s", "--json"]);
    assert_eq!((status, out.as_str()), (Some(0), "{\"draining\":true,\"jobs\":0,\"machine\":null}\n"), "{err}");
    assert_eq!(early.await.expect("no panic").expect("it was in hand before").into_inner().reply, &b"job"[..]);

    // A reload does not resume it.
    reload(&gateway, &config.clone().line("limits", "hold = \"30s\""));
    assert_eq!(gateway.get("/readyz").0, 503);
    let (status, out, err) = command(&gateway, &["resume"]);
    assert_eq!((status, out.as_str()), (Some(0), "the gateway takes jobs; jobs in hand: 0\n"), "{err}");
    client.pipe(tokio_stream::iter([open])).await.unwrap_or_else(|status| panic!("{status}"));
    assert_eq!(gateway.get("/readyz").0, 200);
    assert_eq!(client.submit(request()).await.expect("resumed").into_inner().reply, &b"job"[..]);
    // And a drain that ends it is what it was.
    assert_eq!(gateway.post("/drain").0, 200);
    drop((client, legacy));
    gateway.terminate();
    assert_eq!(gateway.exit(wait::BOUND).code(), Some(0));
}

#[test]
fn a_browser_changes_nothing() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let hsm = Hsm::start(&identity, "echo");
    let config = hsm.add_to(Config::new(), "hsm", &identity, "").world("w", &["hsm"], "");
    let gateway = Gateway::ready(&config);
    let admin = gateway.admin();
    let port = admin.port();
    for path in ["/reload", "/drain", "/resume", "/drain?machine=hsm"] {
        for headers in [
            format!("Host: {admin}\r\nOrigin: http://{admin}\r\n"),
            format!("Host: {admin}\r\nOrigin: null\r\n"),
            format!("Host: rebound.example:{port}\r\n"),
            format!("Host: localhost.rebound.example:{port}\r\n"),
            format!("Host: 127.0.0.1.rebound.example:{port}\r\n"),
        ] {
            let (status, said) = gateway.ask("POST", path, &format!("{headers}Content-Length: 0\r\n"));
            assert_eq!(status, 403, "{path} {headers}: {said}");
        }
    }
    for (method, path, status) in [
        ("GET", "/reload", 405),
        ("GET", "/resume", 405),
        ("PUT", "/drain", 405),
        ("POST", "/metrics", 405),
        ("POST", "/drain?machin=hsm", 400),
        ("POST", "/drain?machine=", 400),
        ("POST", "/drain?machine=nobody", 404),
        ("POST", "/reload?machine=hsm", 400),
    ] {
        let (answered, said) = gateway.ask(method, path, &format!("Host: {admin}\r\nContent-Length: 0\r\n"));
        assert_eq!(answered, status, "{method} {path}: {said}");
    }
    assert!(gateway.metrics().sum("seeway_draining").abs() < 0.5, "nothing has changed");
    assert!(gateway.metrics().sum("seeway_reloads_total").abs() < 0.5);
    for host in [format!("localhost:{port}"), format!("[::1]:{port}"), admin.to_string(), format!("192.0.2.1:{port}")] {
        let (status, said) = gateway.ask("POST", "/resume", &format!("Host: {host}\r\nContent-Length: 0\r\n"));
        assert_eq!(status, 200, "{host}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_changes_under_load_and_a_host_key_is_mended() {
    let _turn = Turn::beside_others();
    let first = Identity::generate();
    let second = Identity::generate_beside(&first);
    let hsm = Hsm::start(&first, "echo");
    // The server reads them at each login.
    let both = format!("{}\n{}\n", first.public(), second.public());
    std::fs::write(first.authorized_keys(), both).expect("the temporary folder can be written");
    let wrong_door = {
        let mut door = hsm.sshd.door().clone();
        door.host_key = seeway_tests::keys::key_alone(second.public());
        door
    };
    let wrong = Config::new().machine("hsm", &wrong_door, hsm.machine.seejobs(), &first, "").world("w", &["hsm"], "");
    let with = |identity: &Identity| hsm.add_to(Config::new(), "hsm", identity, "").world("w", &["hsm"], "");
    let tunnels =
        |gateway: &Gateway, state: &str| gateway.metrics().sum_where("seeway_tunnels", &format!("state=\"{state}\""));

    // It would be looked at again in five minutes.
    let gateway = Gateway::start(&wrong);
    let refused = || (tunnels(&gateway, "refused") > 0.5).then_some(());
    wait::until("the host key is refused", wait::BOUND, refused);
    reload(&gateway, &with(&first));
    gateway.until_up(&["hsm"]);

    let load = Load::start(&gateway, "w");
    let made = || gateway.metrics().sum("seeway_tunnels_made_total");
    let before = made();
    reload(&gateway, &with(&second));
    wait::until("there is a tunnel with the other identity", wait::BOUND, || (made() > before + 0.5).then_some(()));
    let is_replaced = || (tunnels(&gateway, "ready") - 1.0).abs() < 0.5 && tunnels(&gateway, "draining").abs() < 0.5;
    wait::until("it has taken the old one's place", wait::BOUND, || is_replaced().then_some(()));
    let logins = || -> BTreeSet<String> {
        let key_of = |line: &str| {
            let (_, key) = line.split_once("Accepted publickey for ")?.1.split_once("SHA256:")?;
            Some(key.to_owned())
        };
        hsm.sshd.log().lines().filter_map(key_of).collect()
    };
    // The server's log is read a little later than what is counted.
    wait::until("two keys have logged in", wait::BOUND, || (logins().len() > 1).then_some(()));
    assert_eq!(logins().len(), 2, "and no other:\n{}", hsm.sshd.log());

    // A host key that is not the server's does not take the tunnel that stands away.
    reload(&gateway, &wrong);
    let failed = || (gateway.metrics().sum("seeway_tunnels_refused_total") > 1.5).then_some(());
    wait::until("the wrong host key was refused again", wait::BOUND, failed);
    assert_eq!(one_job(&gateway, "w").await.expect("the old tunnel stands"), &b"job"[..]);
    reload(&gateway, &with(&second));
    assert!(load.finish().await > 100, "each was replied to");
}
