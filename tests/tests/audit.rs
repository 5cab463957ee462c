//! The audit log of a real gateway: each job has exactly one record, whatever becomes of the job, the disk or the gateway.

use std::{
    collections::{HashMap, HashSet},
    env, fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Signal, geteuid};
use seeway_bench::{Target, grpc::GrpcCaller, grpc::connect, wire::WireCaller};
use seeway_client::grpc::{Credentials, Gateway as Client, SubmitOptions};
use seeway_proto::v1::SubmitRequest;
use seeway_tests::{
    Config, Gateway, Identity, Machine,
    audit::{AuditLog, sha256},
    authority::Authority,
    callers::{self, Told},
    turn::Turn,
    wait,
};
use tempfile::TempDir;

/// A job that the application `counter` writes into its journal.
fn id(kind: &str, number: u64) -> Vec<u8> {
    format!("{kind}-{number}").into_bytes()
}

/// What a caller was told of its jobs, by their bytes: `Replied`, or the reason and whether it may have run.
type Ledger = HashMap<Vec<u8>, Result<(), (String, bool)>>;

/// Has a caller send `count` jobs, and takes its answers.
async fn send(target: &Target, kind: &str, count: u64, in_flight: usize) -> Ledger {
    let mut ledger = Ledger::new();
    let mut numbers = 0..count;
    let next = || numbers.next().map(|number| (number, id(kind, number)));
    let on_answer = |number, told: Told<'_>| {
        let told = match told {
            Told::Replied(_) => Ok(()),
            Told::Failed { reason, may_have_run } => Err((reason.to_owned(), may_have_run)),
        };
        assert!(ledger.insert(id(kind, number), told).is_none(), "job {number} has two answers");
    };
    let ended = callers::run(target, "w", in_flight, next, on_answer).await;
    ended.unwrap_or_else(|error| panic!("{error}"));
    ledger
}

struct Scene {
    machine: Machine,
    config: Config,
    folder: TempDir,
    _identity: Identity,
}

impl Scene {
    /// One world `w` on a machine that runs `app`, and an audit log in a folder of its own.
    fn new(app: &str, audit: &[&str]) -> Self {
        let folder = TempDir::new().expect("the temporary folder can be written");
        let to = format!("to = \"file:{}\"", folder.path().join("audit.jsonl").display());
        Self::logging_to(app, folder, &to, audit)
    }

    fn logging_to(app: &str, folder: TempDir, to: &str, audit: &[&str]) -> Self {
        let identity = Identity::generate();
        let machine = Machine::start_with_ssh(app, &identity, "127.0.0.1:0");
        let config = Config::new().machine("hsm", machine.door(), machine.seejobs(), &identity, "");
        let config = config.world("w", &["hsm"], "").line("audit", to);
        let config = audit.iter().fold(config, |config, line| config.line("audit", line));
        Self { machine, config, folder, _identity: identity }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("audit.jsonl")
    }

    fn log(&self) -> AuditLog {
        AuditLog::of(&[&self.file()])
    }
}

fn ended(gateway: &mut Gateway) {
    gateway.terminate();
    assert!(gateway.exit(wait::BOUND).success());
}

/// The head that the admin port shows, once all that waited is written.
fn head(gateway: &Gateway) -> String {
    wait::until("nothing waits to be recorded", wait::BOUND, || {
        let (status, body) = gateway.get("/audit");
        assert_eq!(status, 200, "{body}");
        let audit: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        (audit["waiting"] == 0).then(|| audit["head"].as_str().expect("a head").to_owned())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_has_exactly_one_record_that_says_what_became_of_it() {
    const JOBS: u64 = 500;
    let _turn = Turn::beside_others();
    let scene = Scene::new("counter", &["job_digest = true"]);
    let mut gateway = Gateway::ready(&scene.config);
    let mut told = Ledger::new();
    for (kind, target) in [("unix", gateway.unix()), ("tcp", gateway.tcp4()), ("stream", gateway.grpc())] {
        told.extend(send(&target, kind, JOBS, 64).await);
    }
    // Unary calls, one of them to a world that is none, and one that is too large.
    let address = gateway.grpc().to_string().trim_start_matches("grpc://").to_owned();
    let mut calls = connect(&address).await.unwrap_or_else(|error| panic!("{error}"));
    for number in 0..20 {
        let job = id("unary", number);
        let submit = SubmitRequest { world: "w".into(), job: job.clone().into(), ..SubmitRequest::default() };
        calls.submit(submit).await.unwrap_or_else(|status| panic!("{status}"));
        told.insert(job, Ok(()));
    }
    let nowhere = "no\"where\n\u{202e}".to_owned() + &"x".repeat(1000);
    let submit = SubmitRequest { world: nowhere.clone(), job: "none".into(), ..SubmitRequest::default() };
    assert_eq!(calls.submit(submit).await.expect_err("no such world").code(), tonic::Code::NotFound);
    let large = vec![b'x'; 300_000];
    let submit = SubmitRequest { world: "w".into(), job: large.clone().into(), ..SubmitRequest::default() };
    assert_eq!(calls.submit(submit).await.expect_err("too large").code(), tonic::Code::OutOfRange);
    told.insert(large, Err(("JOB_TOO_LARGE".into(), false)));
    drop(calls);
    let kept = head(&gateway);
    ended(&mut gateway);

    let log = scene.log();
    log.verified();
    let (is_well, said) = log.verify(&["--head", &kept]);
    assert!(is_well && said["has_head"] == true, "{said:#}");
    let mut jobs = log.jobs();
    for (job, told) in &told {
        let name = String::from_utf8_lossy(&job[..job.len().min(40)]).into_owned();
        let record = jobs.remove(&sha256(job)).unwrap_or_else(|| panic!("{name} has no record"));
        assert_eq!(record["job_bytes"], job.len(), "{record}");
        let user = seeway_tests::sshd::user();
        let (listener, by, who) = match name.split('-').next() {
            Some("unix") => ("hardserver_unix", "unix_user", user.as_str()),
            Some("tcp") => ("hardserver_tcp", "anonymous", "anonymous"),
            _ => ("grpc", "anonymous", "anonymous"),
        };
        let shown = ["listener", "by", "who", "world"].map(|key| record[key].as_str().unwrap_or_default());
        assert_eq!(shown, [listener, by, who, "w"], "{record}");
        match told {
            Ok(()) => {
                assert_eq!(
                    (&record["outcome"], &record["may_have_run"]),
                    (&"replied".into(), &true.into()),
                    "{record}"
                );
                assert_eq!((&record["machine"], &record["reply_bytes"]), (&"hsm".into(), &8.into()), "{record}");
            }
            Err((reason, may_have_run)) => {
                assert_eq!(
                    (&record["reason"], &record["may_have_run"]),
                    (&reason.as_str().into(), &(*may_have_run).into())
                );
            }
        }
    }
    assert!(jobs.is_empty(), "records of jobs that nobody sent: {jobs:?}");
    let ran: HashSet<String> = scene.machine.journal().runs().into_keys().collect();
    let replied =
        told.iter().filter(|(_, told)| told.is_ok()).map(|(job, _)| String::from_utf8_lossy(job).into_owned());
    assert_eq!(ran, replied.collect(), "the machine's own account");
    let refused = log.of_event("refused");
    let [refused] = refused.as_slice() else { panic!("{refused:?}") };
    assert_eq!((&refused["reason"], &refused["world_bytes"]), (&"NO_SUCH_WORLD".into(), &nowhere.len().into()));
    assert!(refused["world"].as_str().is_some_and(|world| nowhere.starts_with(world) && world.len() <= 256));
    for event in ["opened", "gateway_started", "gateway_stopped"] {
        assert_eq!(log.of_event(event).len(), 1, "{event}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_nobody_waits_for_any_more_has_its_record_too() {
    let _turn = Turn::beside_others();
    let mut scene = Scene::new("slow:300", &["job_digest = true"]);
    let mut gateway = Gateway::ready(&scene.config);
    let mut caller = WireCaller::connect(&gateway.unix(), 100).await.expect("accepted");
    let world = caller.open_world("w", 0).await.unwrap_or_else(|error| panic!("{error}"));
    for number in 0..10 {
        caller.stage(world, &id("left", number), number).expect("room");
    }
    // Long enough for them to leave. None is answered while its caller is there, however long that is.
    scene.machine.signal(Signal::STOP);
    let _ = tokio::time::timeout(Duration::from_millis(100), caller.exchange(|_, _| panic!("too early"))).await;
    wait::until("they are in flight", wait::BOUND, || {
        (gateway.metrics().sum("seeway_jobs_in_flight") > 9.5).then_some(())
    });
    drop(caller);
    wait::until("the caller has gone", wait::BOUND, || (gateway.metrics().sum("seeway_callers") < 0.5).then_some(()));
    scene.machine.signal(Signal::CONT);
    gateway.until_idle(wait::BOUND);
    ended(&mut gateway);
    scene.log().verified();
    let jobs = scene.log().jobs();
    assert_eq!(jobs.len(), 10);
    for number in 0..10 {
        let record = &jobs[&sha256(&id("left", number))];
        assert_eq!((&record["outcome"], &record["may_have_run"]), (&"abandoned".into(), &true.into()), "{record}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_leaves_a_log_that_the_next_one_goes_on_with() {
    let _turn = Turn::beside_others();
    let scene = Scene::new("counter", &["job_digest = true"]);
    let mut gateway = Gateway::start_on_fixed_ports(&scene.config, None);
    gateway.until_up(scene.config.machines());
    let before = send(&gateway.grpc(), "before", 200, 16).await;
    let kept = head(&gateway);
    gateway.kill();
    // What a disk may hold of a line that was being written.
    let mut bytes = fs::read(scene.file()).expect("there");
    bytes.extend(b"{\"seq\":203,\"time\":\"2026-");
    fs::write(scene.file(), bytes).expect("written");
    let (is_well, said) = scene.log().verify(&[]);
    assert!(is_well && said["unfinished_bytes"] == 24, "{said:#}");

    gateway.start_again();
    gateway.until_up(scene.config.machines());
    let after = send(&gateway.grpc(), "after", 100, 16).await;
    ended(&mut gateway);
    let (is_well, said) = scene.log().verify(&["--head", &kept]);
    assert!(is_well && said["torn"] == 1 && said["unfinished_bytes"].is_null(), "{said:#}");
    let jobs = scene.log().jobs();
    assert_eq!(jobs.len(), before.len() + after.len());
    let starts = scene.log().of_event("gateway_started").len();
    assert_eq!((starts, scene.log().of_event("gateway_stopped").len()), (2, 1), "one was killed, and that shows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_rotate_the_log_and_are_in_it() {
    let _turn = Turn::beside_others();
    let folder = TempDir::new().expect("the temporary folder can be written");
    let key = folder.path().join("key");
    fs::write(&key, "00112233445566778899aabbccddeeff\n").expect("written");
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("set");
    let key = key.to_str().expect("UTF-8");
    let scene = Scene::new("counter", &[&format!("key = {key:?}")]);
    let mut gateway = Gateway::ready(&scene.config);
    send(&gateway.grpc(), "first", 50, 16).await;
    head(&gateway);
    let moved = scene.folder.path().join("audit.jsonl.1");
    fs::rename(scene.file(), &moved).expect("moved");
    gateway.hang_up();
    wait::until("there is another file", wait::BOUND, || scene.file().exists().then_some(()));
    for path in ["/drain?machine=hsm", "/resume?machine=hsm", "/reload"] {
        assert_eq!(gateway.post(path).0, 200, "{path}");
    }
    assert_eq!(gateway.post("/drain?machine=none").0, 404);
    assert_eq!(gateway.ask("POST", "/drain", "Host: evil.example\r\nContent-Length: 0\r\n").0, 403);
    gateway.until_up(scene.config.machines());
    send(&gateway.grpc(), "second", 50, 16).await;
    ended(&mut gateway);

    let log = AuditLog::of(&[&moved, &scene.file()]);
    let (is_well, said) = log.verify(&["--key", key]);
    assert!(is_well, "{said:#}");
    assert!(!log.verify(&[]).0, "without the key nobody can say");
    assert!(!AuditLog::of(&[&scene.file(), &moved]).verify(&["--key", key]).0, "in the wrong order");
    assert_eq!(log.of_event("job").len(), 100);
    let one = |event: &str, key: &str, value: &str| {
        let found: Vec<_> = log.of_event(event).into_iter().filter(|record| record[key] == value).collect();
        let [record] = found.as_slice() else { panic!("{event} with {key} {value}: {found:?}") };
        record.clone()
    };
    assert_eq!(one("reload", "by", "signal")["result"], "ok");
    assert_eq!(one("reload", "listener", "admin")["result"], "ok");
    assert_eq!(one("drain", "machine", "hsm")["result"], "ok");
    assert_eq!(one("resume", "machine", "hsm")["result"], "ok");
    let vain = one("drain", "machine", "none");
    assert_eq!(vain["result"], "refused");
    assert!(vain["from"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:")), "{vain}");
    assert_eq!(one("admin_refused", "listener", "admin")["result"], "refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_gets_a_datagram_for_each_record() {
    let _turn = Turn::beside_others();
    let folder = TempDir::new().expect("the temporary folder can be written");
    let socket = folder.path().join("journal");
    let journal = UnixDatagram::bind(&socket).expect("bound");
    let export = folder.path().join("export");
    let copy = export.clone();
    let receiver = std::thread::spawn(move || {
        let mut lines = String::new();
        while !lines.contains("\"gateway_stopped\"") {
            let mut datagram = [0; 16 * 1024];
            let count = journal.recv(&mut datagram).expect("the gateway lives");
            let text = std::str::from_utf8(&datagram[..count]).expect("ASCII");
            assert!(text.contains("SYSLOG_IDENTIFIER=seeway-audit\n"), "{text}");
            lines += text.split_once("MESSAGE=").expect("a message").1;
        }
        fs::write(copy, lines).expect("written");
    });
    let scene = Scene::logging_to("counter", folder, &format!("to = \"journald:{}\"", socket.display()), &[]);
    let mut gateway = Gateway::ready(&scene.config);
    send(&gateway.unix(), "job", 100, 16).await;
    ended(&mut gateway);
    receiver.join().expect("no panic");
    let log = AuditLog::of(&[&export]);
    log.verified();
    assert_eq!(log.of_event("job").len(), 100);
}

/// Set within a mount namespace.
const INSIDE: &str = "SEEWAY_AUDIT_INSIDE";

/// A small disk of this test's own, within a mount namespace; `None` where the test runs again in one, and has ended.
fn small_disk(test: &str) -> Option<TempDir> {
    if env::var_os(INSIDE).is_none() {
        let mut command = Command::new("unshare");
        if !geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--mount", "--fork", "--kill-child"]).arg(env::current_exe().expect("a path"));
        command.args(["--exact", test, "--nocapture"]).env(INSIDE, "1").stdin(Stdio::null());
        let status = command.status().expect("unshare (util-linux) can be started");
        assert!(
            status.success(),
            "the test failed within its namespace; or this kernel lets nobody make one: {status}"
        );
        return None;
    }
    let folder = TempDir::new().expect("the temporary folder can be written");
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs"]).arg(folder.path()).status();
    assert!(mounted.expect("mount can be started").success(), "a tmpfs can be mounted within the namespace");
    Some(folder)
}

/// Leaves about this much room on the disk.
fn fill(disk: &Path, leave: usize) {
    fs::write(disk.join("filler"), vec![b'x'; 256 * 1024 - leave]).expect("there is room for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_jobs_honestly_until_there_is_room() {
    let Some(disk) = small_disk("a_full_disk_stops_jobs_honestly_until_there_is_room") else { return };
    let _turn = Turn::beside_others();
    let to = format!("to = \"file:{}\"", disk.path().join("audit.jsonl").display());
    let scene = Scene::logging_to("counter", disk, &to, &["job_digest = true", "when_full = \"stop\""]);
    fill(scene.folder.path(), 32 * 1024);
    let mut gateway = Gateway::ready(&scene.config);
    let mut told = Ledger::new();
    let mut rounds = 0;
    // Until the disk is full, on both ways in.
    while !told.values().any(Result::is_err) {
        for target in [gateway.unix(), gateway.grpc()] {
            told.extend(send(&target, &format!("full{rounds}"), 50, 4).await);
            rounds += 1;
        }
        assert!(rounds < 100, "a disk of 256 kB takes no more");
    }
    let mut refused = Ledger::new();
    for target in [gateway.tcp4(), gateway.grpc()] {
        refused.extend(send(&target, &format!("refused{target}"), 20, 4).await);
    }
    for (job, told) in told.iter().chain(&refused) {
        if let Err((reason, may_have_run)) = told {
            let name = String::from_utf8_lossy(job);
            assert!(["NotAvailable", "NOT_SENT"].contains(&reason.as_str()) && !may_have_run, "{name}: {reason}");
        }
    }
    assert!(refused.values().all(Result::is_err), "nothing is taken while nothing can be recorded");
    let metrics = gateway.metrics();
    assert!(metrics.sum("seeway_audit_failing") > 0.5 && metrics.sum("seeway_audit_failures_total") > 0.5);
    let count = told.values().chain(refused.values()).filter(|told| told.is_err()).count();
    assert_eq!(format!("{}", metrics.sum("seeway_audit_jobs_refused_total")), format!("{count}"));
    assert!(metrics.sum_where("seeway_audit_records_total", "dropped").abs() < 0.5);

    fs::remove_file(scene.folder.path().join("filler")).expect("there");
    wait::until("records are written again", wait::BOUND, || {
        (gateway.metrics().sum("seeway_audit_failing") < 0.5).then_some(())
    });
    let again = send(&gateway.unix(), "again", 50, 4).await;
    assert!(again.values().all(Result::is_ok), "jobs go on");
    ended(&mut gateway);

    told.extend(refused);
    told.extend(again);
    scene.log().verified();
    let jobs = scene.log().jobs();
    let ran: HashMap<String, usize> = scene.machine.journal().runs();
    for (job, told) in &told {
        let name = String::from_utf8_lossy(job).into_owned();
        assert_eq!(jobs.contains_key(&sha256(job)), told.is_ok(), "{name}: recorded");
        assert_eq!(ran.get(&name).copied().unwrap_or(0), usize::from(told.is_ok()), "{name}: ran");
    }
    let gap = scene.log().of_event("unrecorded");
    let [gap] = gap.as_slice() else { panic!("{gap:?}") };
    assert_eq!((&gap["jobs_refused"], &gap["records_dropped_of_jobs"]), (&count.into(), &0.into()));
    assert!(gap["error"].as_str().is_some_and(|error| error.contains("No space left")), "{gap}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_drops_records_and_counts_them() {
    const BUFFER: usize = 25;
    let Some(disk) = small_disk("a_full_disk_drops_records_and_counts_them") else { return };
    let _turn = Turn::beside_others();
    let to = format!("to = \"file:{}\"", disk.path().join("audit.jsonl").display());
    let lines = ["job_digest = true", "when_full = \"drop\"", &format!("buffer = {BUFFER}")];
    let scene = Scene::logging_to("counter", disk, &to, &lines);
    fill(scene.folder.path(), 32 * 1024);
    let mut gateway = Gateway::ready(&scene.config);
    let address = gateway.grpc().to_string().trim_start_matches("grpc://").to_owned();
    let mut caller = GrpcCaller::connect(&address, 1).await.unwrap_or_else(|error| panic!("{error}"));
    let mut sent = Vec::new();
    // One after the other, so that the buffer never overflows while the disk takes records.
    while gateway.metrics().sum_where("seeway_audit_records_total", "dropped") < 20.0 {
        for _ in 0..10 {
            let number = sent.len() as u64;
            caller.send(number, "w", id("job", number).into()).await.unwrap_or_else(|error| panic!("{error}"));
            let answer = caller.next().await.unwrap_or_else(|error| panic!("{error}"));
            let is_reply = matches!(answer.result, Some(seeway_proto::v1::stream_response::Result::Reply(_)));
            assert!(is_reply, "jobs run on: {answer:?}");
            sent.push(id("job", number));
        }
        assert!(sent.len() < 2000, "a disk of 256 kB takes no more");
    }
    fs::remove_file(scene.folder.path().join("filler")).expect("there");
    wait::until("records are written again", wait::BOUND, || {
        (gateway.metrics().sum("seeway_audit_failing") < 0.5).then_some(())
    });
    drop(caller);
    ended(&mut gateway);

    scene.log().verified();
    let (jobs, ran) = (scene.log().jobs(), scene.machine.journal().runs());
    let without = sent.iter().filter(|job| !jobs.contains_key(&sha256(job))).count();
    assert!(sent.iter().all(|job| ran[&String::from_utf8_lossy(job).into_owned()] == 1));
    let gap = scene.log().of_event("unrecorded");
    let dropped: u64 = gap.iter().filter_map(|record| record["records_dropped_of_jobs"].as_u64()).sum();
    assert_eq!(usize::try_from(dropped), Ok(without), "what is missing is counted: {gap:?}");
    assert!(without >= 20, "{without}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_let_in_and_who_was_not_is_known_by_name() {
    const PAY: &str = "spiffe://bank.example/pay";
    let _turn = Turn::beside_others();
    let authority = Authority::new("callers");
    let (server, caller) = (authority.server(), authority.client(PAY));
    let scene = Scene::new("echo", &[]);
    let tls = format!(
        "certificate = \"{}\"\nkey = \"{}\"\nclient_ca = \"{}\"",
        server.certificate.display(),
        server.key.display(),
        authority.certificate().display()
    );
    let config = scene.config.clone().world("vault", &["hsm"], "").line("tls", &tls);
    let rule = format!("who = [\"certificate:{PAY}\"]\nmay = [\"submit\"]\nworlds = [\"w\"]");
    let mut gateway = Gateway::ready(&config.permission(&rule));
    let credentials = Credentials::none().trust(&authority.certificate()).expect("readable");
    let credentials = credentials.certificate(&caller.certificate, &caller.key).expect("readable");
    let address = gateway.grpc().to_string().replace("grpc://", "grpcs://");
    let client = Client::connect_with(&address, credentials).await.unwrap_or_else(|error| panic!("{error}"));
    let options = SubmitOptions::default();
    client.submit("w", "job", &options).await.unwrap_or_else(|error| panic!("{error}"));
    client.stream().submit("w", "job", &options).await.unwrap_or_else(|error| panic!("{error}"));
    client.submit("vault", "job", &options).await.expect_err("not allowed");
    let mut legacy = WireCaller::connect(&gateway.tcp4(), 4).await.expect("connected");
    legacy.open_world("w", 1).await.expect_err("nobody may");
    drop((client, legacy));
    ended(&mut gateway);

    let log = scene.log();
    log.verified();
    let jobs = log.of_event("job");
    assert_eq!(jobs.len(), 2);
    for record in jobs {
        assert_eq!((&record["who"], &record["by"]), (&PAY.into(), &"certificate".into()), "{record}");
        assert!(record["from"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:")), "{record}");
    }
    let refused = log.of_event("refused");
    let [denied, nobody] = refused.as_slice() else { panic!("{refused:?}") };
    assert_eq!((&denied["who"], &denied["world"]), (&PAY.into(), &"vault".into()), "{denied}");
    assert_eq!((&nobody["who"], &nobody["world"]), (&"anonymous".into(), &"w".into()), "{nobody}");
    assert_eq!((&nobody["listener"], &nobody["reason"]), (&"hardserver_tcp".into(), &"NO_SUCH_WORLD".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_change_nothing_fills_no_disk_with_asking() {
    const ASKED: u64 = 400;
    let _turn = Turn::beside_others();
    let mut scene = Scene::new("counter", &[]);
    scene.config = scene.config.permission("who = [\"user:nobody-here\"]\nmay = [\"admin\"]");
    let mut gateway = Gateway::ready(&scene.config);
    for _ in 0..ASKED {
        assert_eq!(gateway.post("/reload").0, 403);
    }
    // The next one that is told, a tenth of a second later, tells of all before it.
    let requests = |record: &serde_json::Value| record["requests"].as_u64().expect("a number");
    let told = wait::until("all are told", wait::BOUND, || {
        gateway.post("/reload");
        let told: Vec<_> = scene.log().of_event("admin_refused").iter().map(requests).collect();
        (told.iter().sum::<u64>() > ASKED).then_some(told)
    });
    assert!(told.len() > 90 && told.iter().any(|requests| *requests > 1), "one by one at first, then in sum: {told:?}");
    let lines = gateway.log().matches("a change was asked for by somebody who may not").count();
    assert!(lines <= told.len() + 1 && told.len() < usize::try_from(ASKED).expect("small"), "{lines} lines: {told:?}");
    ended(&mut gateway);
}
