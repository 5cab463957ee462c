//! Spans of sampled jobs, as a collector in another language is sent them.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use seeway_bench::Target;
use seeway_client::grpc::{Gateway as Client, SubmitOptions};
use seeway_tests::authority::Authority;
use seeway_tests::callers::{self, Told, payload};
use seeway_tests::collector::Collector;
use seeway_tests::repository::root;
use seeway_tests::{Config, Gateway, Identity, Machine, python, turn::Turn, wait};
use serde_json::Value;

/// A machine behind its own SSH server, and a gateway that sends spans.
struct Scene {
    gateway: Gateway,
    config: Config,
    _machine: Machine,
    _identity: Identity,
}

impl Scene {
    /// The machine runs `app`, in the world `w`; these lines are in `[trace]`.
    fn new(app: &str, trace: &str) -> Self {
        Self::with(app, trace, None, |config| config)
    }

    fn with(app: &str, trace: &str, log: Option<&str>, further: impl FnOnce(Config) -> Config) -> Self {
        let identity = Identity::generate();
        let machine = Machine::start_with_ssh(app, &identity, "127.0.0.1:0");
        let config = Config::new()
            .machine("hsm", machine.door(), machine.seejobs(), &identity, "")
            .world("w", &["hsm"], "")
            .line("trace", trace)
            .line("trace", "interval = \"50ms\"");
        let config = further(config);
        let gateway = Gateway::start_logging(&config, log);
        gateway.until_up(config.machines());
        Self { gateway, config, _machine: machine, _identity: identity }
    }

    /// How many spans ended so.
    fn count(&self, result: &str) -> f64 {
        self.gateway.metrics().sum_where("seeway_spans_total", &format!("result=\"{result}\""))
    }

    /// Waits until the gateway has heard that so many spans are with the collector, which prints a span before it says
    /// that it has it. There must be no more of them.
    fn until_exported(&self, count: f64) {
        let exported = wait::until(&format!("{count} spans are exported"), wait::BOUND, || {
            Some(self.count("exported")).filter(|exported| *exported > count - 0.5)
        });
        assert!((exported - count).abs() < 0.5, "{exported} spans were exported, and not {count}");
    }

    /// Waits until the gateway has logged this; gives all that it has logged.
    fn until_logged(&self, text: &str) -> String {
        wait::until(&format!("the log says {text:?}"), wait::BOUND, || {
            Some(self.gateway.log()).filter(|log| log.contains(text))
        })
    }
}

fn endpoint(collector: &Collector, ratio: &str) -> String {
    format!("endpoint = \"{}\"\nsample_ratio = \"{ratio}\"", collector.endpoint())
}

/// Sends as many jobs; panics where one has no reply.
async fn send(way: &Target, jobs: u64, in_flight: usize) {
    let mut left = (0..jobs).map(|number| (number, payload(1, number, 100)));
    let mut replies = 0;
    let ended = callers::run(
        way,
        "w",
        in_flight,
        || left.next(),
        |number, told| match told {
            Told::Replied(reply) => {
                assert_eq!(reply, payload(1, number, 100));
                replies += 1;
            }
            Told::Failed { reason, .. } => panic!("job {number}: {reason}"),
        },
    );
    ended.await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(replies, jobs);
}

fn nanos(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no time"))
}

fn names(span: &Value) -> Vec<&str> {
    let events = span["events"].as_array().expect("a list");
    events.iter().map(|event| event["name"].as_str().expect("a name")).collect()
}

/// What holds of every span: its times follow each other, and are now.
fn check(span: &Value) {
    assert_eq!((span["name"].as_str(), span["kind"].as_str()), (Some("seejob"), Some("SPAN_KIND_SERVER")), "{span}");
    assert_eq!(span["attributes"]["seeway.world"], "w", "{span}");
    assert_eq!(span["resource"]["service.name"], "seeway", "{span}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let (start, end) = (nanos(&span["start"]), nanos(&span["end"]));
    assert!(u128::from(end) <= now && now - u128::from(start) < 600_000_000_000, "{span}");
    let events = span["events"].as_array().expect("a list");
    let times: Vec<u64> = events.iter().map(|event| nanos(&event["time"])).collect();
    assert!(times.is_sorted() && times[0] == start && times.iter().all(|time| *time <= end), "{span}");
}

#[test]
fn a_program_that_another_sdk_traces_finds_its_jobs_in_its_traces() {
    let _turn = Turn::beside_others();
    let collector = Collector::start();
    // Whatever the gateway would do by itself: what a caller says counts.
    let scene = Scene::new("slow:50", &endpoint(&collector, "0"));
    let schema = root().join("proto").to_string_lossy().into_owned();
    let address = scene.gateway.grpc().to_string().replace("grpc://", "");
    let said = python::run("traced_client.py", ["--grpc", &address, "--schema", &schema, "--world", "w"]);
    let told = |name: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix("traced ")?.strip_prefix(name));
        let mut ids = line.unwrap_or_else(|| panic!("{said}")).split_whitespace();
        (ids.next().expect("a trace").to_owned(), ids.next().expect("a span").to_owned())
    };
    let spans = collector.until_spans(4, wait::BOUND);
    scene.gateway.until_idle(wait::BOUND);
    for (name, jobs) in [("submit", 1), ("stream", 3)] {
        let (trace, parent) = told(name);
        let of_trace: Vec<_> = spans.iter().filter(|span| span["trace"] == trace.as_str()).collect();
        assert_eq!(of_trace.len(), jobs, "{name}: {spans:?}");
        for span in of_trace {
            check(span);
            assert_eq!(span["parent"], parent.as_str(), "{span}");
            assert_eq!((span["state"].as_str(), span["flags"].as_u64()), (Some("other=1"), Some(0x301)), "{span}");
            assert_eq!(names(span), ["queued", "sent", "replied"], "{span}");
            let [sent, replied] = [1, 2].map(|event| nanos(&span["events"][event]["time"]));
            // The machine takes 50 ms for each job.
            assert!(replied - sent >= 50_000_000, "{span}");
            assert_eq!(span["events"][1]["attributes"]["seeway.machine"], "hsm", "{span}");
            assert_eq!(span["status"], "STATUS_CODE_UNSET", "{span}");
            let attributes = &span["attributes"];
            for (name, wanted) in [
                ("machine", "hsm"),
                ("listener", "grpc"),
                ("caller", "anonymous"),
                ("caller.by", "anonymous"),
                ("outcome", "replied"),
            ] {
                assert_eq!(attributes[format!("seeway.{name}")], wanted, "{name}: {span}");
            }
            assert_eq!(attributes["seeway.may_have_run"], true, "{span}");
            assert_eq!(attributes["seeway.attempts"], 1, "{span}");
            let size = attributes["seeway.job.bytes"].as_u64().expect("a number");
            assert_eq!((size, attributes["seeway.reply.bytes"].as_u64()), (size, Some(size)), "it echoes: {span}");
            assert!((3..=7).contains(&size), "{span}");
        }
    }
    let all: BTreeSet<_> = spans.iter().map(|span| span["span"].as_str().expect("an id")).collect();
    assert_eq!(all.len(), spans.len(), "each span has a name of its own");
    // Those that its caller does not record came before the last metrics, and are nowhere.
    let unsampled = told("unsampled").0;
    assert!(!collector.log().contains(&unsampled));
    // And no other span was made.
    scene.until_exported(4.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_callers_say_nothing_begins_a_trace_of_its_own_as_often_as_the_ratio_has_it() {
    let _turn = Turn::beside_others();
    let collector = Collector::start();
    let scene = Scene::new("echo", &endpoint(&collector, "1"));
    let ways = [
        (scene.gateway.unix(), "hardserver_unix", "unix_user"),
        (scene.gateway.tcp4(), "hardserver_tcp", "anonymous"),
        (scene.gateway.grpc(), "grpc", "anonymous"),
    ];
    for (way, ..) in &ways {
        send(way, 50, 10).await;
    }
    let spans = collector.until_spans(150, wait::BOUND);
    for (_, listener, by) in ways {
        let of_listener: Vec<_> =
            spans.iter().filter(|span| span["attributes"]["seeway.listener"] == listener).collect();
        assert_eq!(of_listener.len(), 50, "{listener}");
        for span in of_listener {
            check(span);
            assert_eq!((span["parent"].as_str(), span["flags"].as_u64()), (Some(""), Some(0x101)), "{span}");
            assert_eq!(span["attributes"]["seeway.caller.by"], by, "{span}");
            assert_eq!(span["attributes"]["seeway.job.bytes"], 100, "{span}");
        }
    }
    let traces: BTreeSet<_> = spans.iter().map(|span| span["trace"].as_str().expect("an id")).collect();
    assert_eq!(traces.len(), 150);

    // The ratio is the one key that a reload takes.
    let reload = |ratio: &str| {
        let config = scene.config.clone().line("trace", "");
        let folder = scene.gateway.folder().join("nserver");
        let text = config.text(folder.to_str().expect("UTF-8"));
        let before = ["0", "1"].into_iter().find(|before| text.contains(&format!("sample_ratio = \"{before}\"")));
        let before = before.expect("it is one of them");
        scene
            .gateway
            .rewrite_as(&text.replace(&format!("sample_ratio = \"{before}\""), &format!("sample_ratio = \"{ratio}\"")));
        let (status, answer) = scene.gateway.post("/reload");
        assert_eq!(status, 200, "{answer}");
    };
    reload("0");
    for way in [scene.gateway.unix(), scene.gateway.grpc()] {
        send(&way, 50, 10).await;
    }
    reload("1");
    send(&scene.gateway.unix(), 1, 1).await;
    assert_eq!(collector.until_spans(151, wait::BOUND).len(), 151);
    scene.until_exported(151.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_sent_twice_has_both_attempts_in_its_span_and_one_that_fails_says_why() {
    let _turn = Turn::beside_others();
    let collector = Collector::start();
    let identity = Identity::generate();
    let mut held = Machine::start_with_ssh("slow:600000", &identity, "127.0.0.1:0");
    let scene = Scene::with("echo", &endpoint(&collector, "1"), None, |config| {
        let further = config.machine("held", held.door(), held.seejobs(), &identity, "");
        further.world("both", &["held", "hsm"], "").world("lost", &["held"], "")
    });
    let gateway = &scene.gateway;
    let client = Client::connect(&gateway.grpc().to_string()).await.unwrap_or_else(|error| panic!("{error}"));
    // Both jobs go to the machine that holds them, and one may be sent again.
    assert_eq!(gateway.post("/drain?machine=hsm").0, 200);
    let submit = |world: &'static str, idempotent: bool| {
        let client = client.clone();
        tokio::spawn(async move {
            client.submit(world, "job", &SubmitOptions { idempotent, ..SubmitOptions::default() }).await
        })
    };
    let (twice, once) = (submit("both", true), submit("lost", false));
    wait::until("both are at the machine", wait::BOUND, || {
        let in_flight = gateway.metrics().sum_where("seeway_jobs_in_flight", "machine=\"held\"");
        (in_flight > 1.5).then_some(())
    });
    assert_eq!(gateway.post("/resume?machine=hsm").0, 200);
    held.kill();
    let done = twice.await.expect("no panic").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(done.machine, "hsm");
    let failed = once.await.expect("no panic").expect_err("its machine is gone");
    assert!(failed.may_have_run());

    let spans = collector.until_spans(2, wait::BOUND);
    let of = |world: &str| {
        let found = spans.iter().find(|span| span["attributes"]["seeway.world"] == world);
        found.unwrap_or_else(|| panic!("{world}: {spans:?}"))
    };
    let twice = of("both");
    assert_eq!(names(twice), ["queued", "sent", "lost", "sent", "replied"], "{twice}");
    let event = |event: usize, name: &str| &twice["events"][event]["attributes"][format!("seeway.{name}")];
    assert_eq!((event(1, "machine"), event(3, "machine")), (&"held".into(), &"hsm".into()), "{twice}");
    assert_eq!((event(1, "attempt"), event(3, "attempt")), (&1.into(), &2.into()), "{twice}");
    assert_eq!(event(2, "reason"), "OUTCOME_UNKNOWN", "{twice}");
    let events = twice["events"].as_array().expect("a list");
    let times: Vec<u64> = events.iter().map(|event| nanos(&event["time"])).collect();
    assert!(times.is_sorted() && times[4] == nanos(&twice["end"]), "{twice}");
    let attributes = &twice["attributes"];
    assert_eq!((&attributes["seeway.outcome"], &attributes["seeway.machine"]), (&"replied".into(), &"hsm".into()));
    assert_eq!(attributes["seeway.attempts"], 2, "{twice}");

    let once = of("lost");
    assert_eq!(names(once), ["queued", "sent"], "{once}");
    assert_eq!((&once["status"], &once["message"]), (&"STATUS_CODE_ERROR".into(), &"OUTCOME_UNKNOWN".into()), "{once}");
    assert_eq!(once["attributes"]["seeway.may_have_run"], true, "{once}");
    assert_eq!(once["attributes"]["seeway.outcome"], "unknown_tunnel_lost", "{once}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_costs_spans_and_no_job() {
    let _turn = Turn::beside_others();
    let mut collector = Collector::start();
    let scene = Scene::new("echo", &format!("{}\nqueue = 64\ntimeout = \"2s\"", endpoint(&collector, "1")));
    let way = scene.gateway.unix();
    send(&way, 60, 4).await;
    collector.until_spans(60, wait::BOUND);
    collector.kill();
    // More than there is room for: each has its reply.
    send(&way, 2_000, 16).await;
    let dropped = scene.count("dropped");
    assert!(dropped > 1_000.0, "{dropped} were dropped");
    collector.start_again();
    send(&way, 10, 1).await;
    let exported = wait::until("spans come again", wait::BOUND, || {
        let exported = scene.count("exported");
        (exported > 60.5).then_some(exported)
    });
    // What waited meanwhile, and what was made since.
    wait::until("each span is counted once", wait::BOUND, || {
        let all = scene.count("exported") + scene.count("dropped") + scene.count("failed");
        ((all - 2_070.0).abs() < 0.5).then_some(())
    });
    assert!(exported <= 60.0 + 10.0 + 64.0 + 512.0, "{exported}");
    // They are counted before its output is read.
    collector.until_spans(1, wait::BOUND).iter().for_each(check);
    scene.until_logged("spans are not with the collector");
    scene.until_logged("the collector takes spans again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_are_sent_over_tls_to_a_collector_that_shows_the_right_certificate_and_wants_to_know_who_sends_them() {
    let _turn = Turn::beside_others();
    let (authority, other) = (Authority::new("collectors"), Authority::new("others"));
    let collector = Collector::start_with_tls(&authority.server(), "Bearer SECRET-of-the-collector");
    let folder = tempfile::TempDir::new().expect("a folder");
    let (ca, header) = (folder.path().join("ca.pem"), folder.path().join("authorization"));
    let copy = |from: &Path| std::fs::copy(from, &ca).map(drop).expect("the temporary folder can be written");
    copy(&other.certificate());
    std::fs::write(&header, "Bearer another\n").expect("the temporary folder can be written");
    std::fs::set_permissions(&header, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    let port = collector.endpoint().rsplit_once(':').expect("a port").1.to_owned();
    let trace = format!(
        "{}\nca = \"{}\"\nauthorization = \"{}\"",
        endpoint(&collector, "1").replace("127.0.0.1", "localhost"),
        ca.display(),
        header.display()
    );
    let scene = Scene::with("echo", &trace, Some("trace"), |config| {
        let ssh =
            config.text("").lines().find_map(|line| line.strip_prefix("address = \"127.0.0.1:").map(str::to_owned));
        let ssh = ssh.expect("the machine's address");
        // The kernel lets the gateway connect to these, and to no others.
        config.line("process", &format!("connect_ports = [\"{}\", \"{port}\"]", ssh.trim_end_matches('"')))
    });
    let way = scene.gateway.unix();
    send(&way, 5, 1).await;
    scene.until_logged("spans are not with the collector");
    assert!(collector.spans().is_empty());
    // The right authority is read with the next connection; it is asked who sends them then.
    copy(&authority.certificate());
    wait::until("the header is refused", wait::BOUND, || (scene.count("failed") > 4.5).then_some(()));
    std::fs::write(&header, "Bearer SECRET-of-the-collector\n").expect("the temporary folder can be written");
    send(&way, 5, 1).await;
    let spans = collector.until_spans(5, wait::BOUND);
    spans.iter().for_each(check);
    let log = scene.until_logged("say who you are");
    assert!(!log.contains("SECRET-of"), "the header is in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_collector_refuses_is_counted_and_not_sent_again() {
    let _turn = Turn::beside_others();
    let collector = Collector::start_with(&["--refuse", "1"]);
    let scene = Scene::new("echo", &endpoint(&collector, "1"));
    send(&scene.gateway.grpc(), 1, 1).await;
    wait::until("it was refused", wait::BOUND, || (scene.count("failed") > 0.5).then_some(()));
    assert!(scene.count("exported") < 0.5);
    send(&scene.gateway.grpc(), 1, 1).await;
    wait::until("the next was refused", wait::BOUND, || (scene.count("failed") > 1.5).then_some(()));
    // They are counted before its output is read.
    assert_eq!(collector.until_spans(2, wait::BOUND).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_of_a_job_is_in_a_span() {
    const SECRET: &[u8] = b"SECRET-of-the-job";
    const FORMS: [&str; 3] = ["SECRET-of", "5345435245542d6f66", "U0VDUkVULW9m"];
    let _turn = Turn::beside_others();
    let collector = Collector::start();
    let identity = Identity::generate();
    let dying = Machine::start_with_ssh("faulty:1", &identity, "127.0.0.1:0");
    let scene = Scene::with("echo", &endpoint(&collector, "1"), Some("trace"), |config| {
        config.machine("dying", dying.door(), dying.seejobs(), &identity, "").world("lost", &["dying"], "")
    });
    for way in [scene.gateway.unix(), scene.gateway.grpc()] {
        for world in ["w", "lost"] {
            for size in [1, 20_000] {
                let mut job = Some((1, SECRET.repeat(size)));
                let mut outcomes = 0;
                let ended = callers::run(&way, world, 1, || job.take(), |_, _| outcomes += 1).await;
                ended.unwrap_or_else(|error| panic!("{error}"));
                assert_eq!(outcomes, 1);
            }
        }
    }
    // One that is too large ends where it is admitted, and has a span too.
    let spans = collector.until_spans(6, wait::BOUND);
    scene.gateway.until_idle(wait::BOUND);
    let outcomes: BTreeSet<_> = spans.iter().filter_map(|span| span["attributes"]["seeway.outcome"].as_str()).collect();
    assert!(outcomes.contains("replied") && outcomes.len() > 1, "{outcomes:?}");
    for (place, text) in [("a span", collector.log()), ("the log", scene.gateway.log())] {
        let found: Vec<_> = text.lines().filter(|line| FORMS.iter().any(|form| line.contains(form))).collect();
        assert!(found.is_empty(), "{place} shows what is in a job: {found:?}");
    }
    assert!(collector.log().contains("  request "), "there is something to look at");
}
