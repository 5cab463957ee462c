//! The page of metrics of a gateway that has seen jobs of every kind: counted where they came in and where they went, and a page that
//! Prometheus's own tool has nothing to say about.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::Duration,
};

use seeway_client::grpc::{Gateway as Client, SubmitOptions};
use seeway_proto::v1::{StreamRequest, SubmitRequest, stream_response};
use seeway_tests::{
    Config, Gateway, Identity, Machine,
    callers::{self, Told},
    gateway::Metrics,
    turn::Turn,
    wait,
};

const JOBS: u64 = 20;
const SIZE: usize = 100;
const HOLD: Duration = Duration::from_secs(1);

/// Three machines behind SSH servers of their own, each with a world of its name.
struct Scene {
    gateway: Gateway,
    slow: Machine,
    _others: [Machine; 2],
    _identity: Identity,
}

impl Scene {
    fn start() -> Self {
        let identity = Identity::generate();
        let start = |app| Machine::start_with_ssh(app, &identity, "127.0.0.1:0");
        let (echo, slow, faulty) = (start("echo"), start("slow:600000"), start("faulty:1"));
        let mut config = Config::new()
            .line("limits", &format!("hold = \"{}s\"\nmax_job_bytes = 1000", HOLD.as_secs()))
            .line(
                "ssh",
                "keepalive_idle = \"100ms\"\nkeepalive = \"100ms\"\nconnect_retry = \"30s\"\nretry_max = \"30s\"",
            )
            .line("process", "sandbox = \"require\"");
        for (name, machine) in [("echo", &echo), ("slow", &slow), ("faulty", &faulty)] {
            config = config.machine(name, machine.door(), machine.seejobs(), &identity, "").world(name, &[name], "");
        }
        let gateway = Gateway::ready(&config);
        Self { gateway, slow, _others: [echo, faulty], _identity: identity }
    }

    async fn client(&self) -> Client {
        let client = Client::connect(&self.gateway.grpc().to_string()).await;
        client.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sends a job that must not get a reply.
    async fn fails(&self, world: &str, size: usize, timeout: Duration) {
        let options = SubmitOptions { timeout: Some(timeout), ..SubmitOptions::default() };
        let done = self.client().await.submit(world, vec![7; size], &options).await;
        assert!(done.is_err(), "a job for {world} of {size} bytes was answered: {done:?}");
    }

    /// Sends a job that gets no reply within its time. On a stream only the gateway counts that time: a caller that
    /// counts it too may hang up first, and then the job has been abandoned.
    async fn is_too_late(&self, world: &str, timeout: Duration) {
        let submit = SubmitRequest { world: world.to_owned(), job: vec![7; SIZE].into(), ..SubmitRequest::default() };
        let request = StreamRequest { id: 1, submit: Some(submit), timeout: timeout.try_into().ok() };
        assert!(request.timeout.is_some(), "{timeout:?} can be written down");
        let mut client = self.client().await.client();
        let stream = client.stream(tokio_stream::iter([request])).await.unwrap_or_else(|status| panic!("{status}"));
        let answer = tokio::time::timeout(wait::BOUND, stream.into_inner().message()).await.expect("answered in time");
        let answer = answer.unwrap_or_else(|status| panic!("{status}")).expect("each job has an answer");
        assert!(
            matches!(answer.result, Some(stream_response::Result::Failure(_))),
            "a job for {world} was answered: {answer:?}"
        );
    }

    /// How many jobs of a world that came by gRPC had this outcome, at the machine of the same name or at none.
    fn ended(&self, world: &str, machine: &str, outcome: &str) -> f64 {
        let labels = [("world", world), ("machine", machine), ("listener", "grpc"), ("outcome", outcome)];
        self.gateway.metrics().sum_of("seeway_jobs_total", &labels)
    }

    fn until_ended(&self, world: &str, machine: &str, outcome: &str, count: f64) {
        let what = format!("{count} jobs of {world} are {outcome} at {machine}");
        wait::until(&what, wait::BOUND, || is(self.ended(world, machine, outcome), count).then_some(()));
    }
}

fn is(value: f64, wanted: f64) -> bool {
    (value - wanted).abs() < 1e-9
}

/// What promtool says of a page, where it says anything.
fn lint(page: &str) -> Option<String> {
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = promtool.spawn().expect("promtool is installed; tests/run does it");
    running.stdin.take().expect("piped").write_all(page.as_bytes()).expect("it reads");
    let said = running.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    (!said.status.success() || !text.trim().is_empty()).then(|| format!("{}: {text}", said.status))
}

#[test]
fn promtool_says_what_is_wrong_with_a_page() {
    let said = lint("# TYPE jobs counter\njobs 1\n").expect("no help, and no `_total`");
    assert!(said.contains("_total") && said.contains("help"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_every_kind_are_counted_and_promtool_finds_nothing() {
    let _turn = Turn::beside_others();
    let mut scene = Scene::start();
    for way in [scene.gateway.unix(), scene.gateway.grpc()] {
        let mut numbers = 0..JOBS;
        let next = || numbers.next().map(|number| (number, callers::payload(1, number, SIZE)));
        let on_answer = |_, told: Told<'_>| assert!(matches!(told, Told::Replied(_)), "{told:?}");
        callers::run(&way, "echo", 4, next, on_answer).await.unwrap_or_else(|error| panic!("{error}"));
    }
    scene.fails("echo", 1001, Duration::from_secs(20)).await;
    scene.fails("faulty", SIZE, Duration::from_secs(20)).await;
    scene.is_too_late("slow", Duration::from_millis(300)).await;

    // One that its machine holds when it is killed.
    let client = scene.client().await;
    let options = SubmitOptions { timeout: Some(Duration::from_secs(600)), ..SubmitOptions::default() };
    let held = tokio::spawn(async move { client.submit("slow", vec![7; SIZE], &options).await });
    let in_flight = |metrics: &Metrics| metrics.sum_of("seeway_jobs_in_flight", &[("machine", "slow")]);
    // The late one keeps its tag.
    wait::until("two jobs are at the slow machine", wait::BOUND, || {
        is(in_flight(&scene.gateway.metrics()), 2.0).then_some(())
    });
    let metrics = scene.gateway.metrics();
    let used = metrics.sum_of("seeway_limit_used_ratio", &[("limit", "max_in_flight")]);
    assert!(is(used * metrics.sum_of("seeway_max_in_flight", &[("machine", "slow")]), 2.0), "{used}");
    assert!(metrics.sum_of("seeway_limit_used_ratio", &[("limit", "callers")]) > 0.0, "one is connected");
    scene.slow.kill();
    assert!(held.await.expect("no panic").is_err());
    scene.until_ended("slow", "slow", "unknown_tunnel_lost", 1.0);

    // With no machine up one waits until its deadline, and one until `limits.hold`.
    scene.is_too_late("slow", HOLD / 5).await;
    scene.fails("slow", SIZE, HOLD * 20).await;

    for (world, machine, outcome, count) in [
        ("echo", "echo", "replied", JOBS),
        ("echo", "none", "rejected", 1),
        ("faulty", "faulty", "unknown_machine_failed", 1),
        ("slow", "slow", "unknown_too_late", 1),
        ("slow", "slow", "unknown_tunnel_lost", 1),
        ("slow", "none", "not_sent_too_late", 1),
        ("slow", "none", "not_sent_nowhere_to_go", 1),
    ] {
        scene.until_ended(world, machine, outcome, number(count));
    }
    let metrics = scene.gateway.metrics();
    assert!(
        is(metrics.sum("seeway_jobs_total"), number(2 * JOBS + 6)),
        "and no other: {}",
        metrics.sum("seeway_jobs_total")
    );
    let legacy = [("world", "echo"), ("machine", "echo"), ("listener", "hardserver"), ("outcome", "replied")];
    assert!(is(metrics.sum_of("seeway_jobs_total", &legacy), number(JOBS)));

    times_and_bytes(&metrics);
    process(&metrics, scene.gateway.id());
    let page = wait::until("the machines answer keepalives", wait::BOUND, || {
        let count = |machine| scene.gateway.metrics().sum_of("seeway_keepalive_seconds_count", &[("machine", machine)]);
        (count("echo") > 0.5 && count("faulty") > 0.5).then(|| scene.gateway.get("/metrics").1)
    });
    let took = scene.gateway.metrics();
    let took = took.sum_of("seeway_keepalive_seconds_sum", &[("machine", "echo")])
        / took.sum_of("seeway_keepalive_seconds_count", &[("machine", "echo")]);
    assert!(took > 1e-6 && took < 10.0, "a round trip of {took} s on this computer");
    assert!(page.contains("le=\"0.00005\"") && page.contains("le=\"52.4288\"") && page.contains("le=\"60\""), "{page}");
    assert_eq!(lint(&page), None, "{page}");
}

/// Jobs that were admitted have a time in all and in the queue, those that were answered one at the machine; bytes are theirs.
fn times_and_bytes(metrics: &Metrics) {
    let admitted = [("echo", "hardserver", JOBS), ("echo", "grpc", JOBS), ("faulty", "grpc", 1), ("slow", "grpc", 4)];
    for (world, listener, count) in admitted {
        let labels = [("world", world), ("listener", listener)];
        assert!(is(metrics.sum_of("seeway_job_seconds_count", &labels), number(count)), "{world} {listener}");
    }
    let slow = metrics.sum_of("seeway_job_seconds_sum", &[("world", "slow"), ("listener", "grpc")]);
    assert!(slow >= HOLD.as_secs_f64(), "{slow} s, and one waited for `hold`");
    let in_queue = metrics.sum_of("seeway_queue_seconds_sum", &[("world", "slow")]);
    assert!(in_queue >= HOLD.as_secs_f64() && in_queue <= slow, "{in_queue} s of {slow} s");
    for (world, count, replies) in [("echo", 2 * JOBS, 2 * JOBS), ("faulty", 1, 0), ("slow", 4, 0)] {
        let labels = [("world", world)];
        assert!(is(metrics.sum_of("seeway_queue_seconds_count", &labels), number(count)), "{world}");
        let (jobs, size) = (metrics.sum_of("seeway_job_bytes_total", &labels), number(SIZE as u64));
        assert!(is(jobs, number(count) * size), "{world}: {jobs} bytes");
        assert!(is(metrics.sum_of("seeway_reply_bytes_total", &labels), number(replies) * size), "{world}");
    }
    let at_machine = |machine| metrics.sum_of("seeway_machine_seconds_count", &[("machine", machine)]);
    assert!(is(at_machine("echo"), number(2 * JOBS)) && is(at_machine("slow"), 0.0));
}

/// In the sandbox, where there is no `/proc` any more.
fn process(metrics: &Metrics, id: u32) {
    let told = |name| metrics.sum(&format!("process_{name}"));
    let open = std::fs::read_dir(format!("/proc/{id}/fd")).expect("it runs").count();
    assert!((told("open_fds") - number(open as u64)).abs() < 10.0, "{} and not {open}", told("open_fds"));
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).expect("it runs").count();
    assert!((told("threads") - number(threads as u64)).abs() < 3.0, "{} and not {threads}", told("threads"));
    assert!(told("max_fds") > told("open_fds") && told("virtual_memory_bytes") > told("resident_memory_bytes"));
    assert!(told("resident_memory_bytes") > 1e6 && told("cpu_seconds_total") > 0.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("later").as_secs_f64();
    let age = now - told("start_time_seconds");
    assert!(age > -2.0 && age < 3600.0, "it was started {age} s ago");
}

#[expect(clippy::cast_precision_loss, reason = "all counts here are far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}
