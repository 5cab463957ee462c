//! One gateway takes over from another while callers go on: none of them sees a failed job, and nothing runs twice. What happens where
//! one of the two ends, or is stopped, in the middle of it is in `mishaps`, and where it hangs in `hangs`.

mod estate;
mod hangs;
mod mishaps;

use std::{
    collections::HashSet,
    fs,
    io::Write,
    net::TcpStream,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixDatagram, UnixStream},
    },
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
use seeway_bench::{Target, wire::WireCaller};
use seeway_client::grpc::{Gateway as GrpcGateway, SubmitOptions};
use seeway_proto::wire::ReplyBody;
use seeway_tests::{
    Config, Gateway, Identity, Machine,
    audit::AuditLog,
    authority::Authority,
    callers::{self, Told},
    machine::seeway,
    process::Process,
    turn::Turn,
    wait,
};
use tempfile::TempDir;
use tokio::task::JoinSet;

use estate::{Estate, caller, object, open_world, reply, see_job, send, send_to, status, stopped, succeeded};

const BOUND: Duration = wait::BOUND;

/// Counts of callers who go on through everything.
#[derive(Default)]
struct Ledger {
    stop: AtomicBool,
    replied: AtomicU64,
}

impl Ledger {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// The job's bytes, which the journal has as its id: `caller/number`.
fn job(caller: u64, number: u64) -> Vec<u8> {
    format!("{caller}/{number}").into_bytes()
}

/// Sends jobs from the one after `sent` on, until `goes_on` says no; each is replied to. Returns the last one's number.
async fn all_replied(
    caller: u64,
    target: &Target,
    mut sent: u64,
    ledger: &Ledger,
    goes_on: impl Fn(u64) -> bool,
) -> u64 {
    let next = || {
        goes_on(sent).then(|| {
            sent += 1;
            (sent, job(caller, sent))
        })
    };
    let on_answer = |number, told: Told<'_>| match told {
        Told::Replied(bytes) => {
            assert_eq!(bytes, job(caller, number));
            ledger.replied.fetch_add(1, Ordering::Relaxed);
        }
        Told::Failed { reason, .. } => panic!("job {number} of caller {caller} on {target}: {reason}"),
    };
    callers::run(target, "echo", 8, next, on_answer).await.unwrap_or_else(|error| panic!("{target}: {error}"));
    sent
}

/// One legacy connection for all of the test: whatever happens to the gateway, it never ends, and each job on it is replied to.
async fn legacy(caller: u64, target: Target, ledger: Arc<Ledger>) {
    all_replied(caller, &target, 0, &ledger, |_| ledger.goes_on()).await;
}

/// One gRPC stream after the other, of a few hundred jobs each.
async fn streams(caller: u64, target: Target, ledger: Arc<Ledger>) {
    let mut sent = 0;
    while ledger.goes_on() {
        let last = sent + 300;
        sent = all_replied(caller, &target, sent, &ledger, |sent| sent < last).await;
    }
}

/// Unary calls on one client, which connects anew when it is told to.
async fn calls(caller: u64, address: String, ledger: Arc<Ledger>) {
    let client = GrpcGateway::connect(&address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
    let mut sent = 0;
    while ledger.goes_on() {
        sent += 1;
        let options = SubmitOptions { timeout: Some(BOUND), ..SubmitOptions::default() };
        let done = client.submit("echo", job(caller, sent), &options).await;
        let done = done.unwrap_or_else(|error| panic!("call {sent} of caller {caller}: {} {error}", error.reason()));
        assert_eq!(done.reply.as_bytes(), job(caller, sent));
        ledger.replied.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_job_fails_and_none_runs_twice_while_one_gateway_after_the_other_takes_over() {
    let _turn = Turn::alone();
    let estate = Estate::new("echo");
    let mut gateway = Gateway::ready(&estate.config);
    let ledger = Arc::new(Ledger::default());
    let mut all = JoinSet::new();
    let Target::Grpc(address) = gateway.grpc() else { panic!("gRPC") };
    let ways = [gateway.unix(), gateway.tcp4(), gateway.tcp6()];
    for (caller, target) in (0..8).zip(ways.into_iter().cycle()) {
        all.spawn(legacy(caller, target, ledger.clone()));
    }
    for caller in 8..11 {
        all.spawn(streams(caller, gateway.grpc(), ledger.clone()));
    }
    for caller in 11..15 {
        all.spawn(calls(caller, address.clone(), ledger.clone()));
    }
    for round in 0..3 {
        let before = ledger.replied.load(Ordering::Relaxed);
        let flows = || async { (ledger.replied.load(Ordering::Relaxed) > before + 2_000).then_some(()) };
        wait::until_async("jobs flow", BOUND, flows).await;
        let old = gateway.upgrade();
        let old_log = tokio::task::spawn_blocking(move || succeeded(old));
        old_log.await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        let metrics = gateway.metrics();
        assert!((metrics.sum("seeway_handovers_total") - 1.0).abs() < 0.5, "it has taken over once");
        assert!(
            (metrics.sum_where("seeway_handed_over_total", "kind=\"caller\"") - 8.0).abs() < 0.5,
            "all legacy connections have moved: {}",
            gateway.log()
        );
    }
    let before = ledger.replied.load(Ordering::Relaxed);
    let flows = || async { (ledger.replied.load(Ordering::Relaxed) > before + 2_000).then_some(()) };
    wait::until_async("jobs flow through the last one", BOUND, flows).await;
    ledger.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = all.join_next().await {
        ended.unwrap_or_else(|error| panic!("a caller has failed: {error}\n{}", gateway.log()));
    }
    let runs = estate.machine.journal().runs();
    assert_eq!(runs.len() as u64, ledger.replied.load(Ordering::Relaxed), "each job has run");
    let twice: Vec<_> = runs.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    stopped(gateway);
}

/// What a legacy caller says is in its own hands: a command is cut in two, and the gateway is replaced between the halves.
#[test]
fn half_a_command_and_the_handles_move_with_their_connection() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let mut gateway = Gateway::ready(&estate.config);
    let (mut half, handle) = caller(&gateway);
    let command = see_job(2, handle, b"cut in two");
    half.write_all(&command[..9]).expect("sent");
    // A second one says nothing at all.
    let Target::Tcp(address) = gateway.tcp4() else { panic!("TCP") };
    let mut idle = TcpStream::connect(address).expect("it listens");
    idle.set_read_timeout(Some(BOUND)).expect("set");
    idle.write_all(&open_world(1, b"echo")).expect("sent");
    let idle_handle = object(&mut idle, 1);

    succeeded(gateway.upgrade());
    half.write_all(&command[9..]).expect("sent");
    assert_eq!(reply(&mut half, 2), b"cut in two");
    idle.write_all(&see_job(7, idle_handle, b"after a while")).expect("sent");
    assert_eq!(reply(&mut idle, 7), b"after a while");

    // A world that the next gateway has not is none on a handle of before, and none other either.
    let other = estate.config.text("nserver").replace("name = \"echo\"", "name = \"other\"");
    gateway.rewrite_as(&other);
    succeeded(gateway.upgrade());
    idle.write_all(&see_job(8, idle_handle, b"whose?")).expect("sent");
    assert_eq!(status(&mut idle, 8), 4, "UnknownID: it has not run");
    assert!(!estate.machine.journal().runs().contains_key("whose?"));
    idle.write_all(&open_world(9, b"other")).expect("sent");
    let new_handle = object(&mut idle, 9);
    assert_ne!(new_handle, idle_handle);
    idle.write_all(&see_job(10, new_handle, b"theirs")).expect("sent");
    assert_eq!(reply(&mut idle, 10), b"theirs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_take_long_are_answered_by_the_gateway_that_took_them() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("slow:3000");
    let mut gateway = Gateway::ready(&estate.config);
    let mut caller: WireCaller<u64> =
        WireCaller::connect(&gateway.unix(), 10).await.unwrap_or_else(|error| panic!("{error}"));
    let world = caller.open_world("echo", 0).await.unwrap_or_else(|error| panic!("{error}"));
    for number in 0..5 {
        caller.stage(world, b"slow", number).expect("there is room");
    }
    let mut answers = HashSet::new();
    let mut take = |number: u64, reply: ReplyBody<'_>| {
        assert!(matches!(reply, ReplyBody::Job(_)), "job {number}: {reply:?}");
        assert!(answers.insert(number));
    };
    // What is staged is written with the first exchange, which waits for answers.
    let exchanged = tokio::time::timeout(Duration::from_millis(500), caller.exchange(&mut take)).await;
    assert!(exchanged.is_err(), "they take three seconds");
    let in_flight = || (gateway.metrics().sum("seeway_jobs_in_flight") > 4.5).then_some(());
    wait::until("all are in flight", BOUND, in_flight);
    let old = gateway.upgrade();
    // One that comes meanwhile waits in the socket until the connection has moved.
    caller.stage(world, b"later", 5).expect("there is room");
    while caller.in_flight() > 0 {
        caller.exchange(&mut take).await.unwrap_or_else(|error| panic!("{error}"));
    }
    assert_eq!(answers.len(), 6);
    succeeded(old);
}

/// What an operator has taken out of work stays out of it: a machine, and the gateway.
#[test]
fn what_is_drained_stays_so() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let mut gateway = Gateway::ready(&estate.config);
    for of in ["?machine=hsm", ""] {
        assert_eq!(gateway.post(&format!("/drain{of}")).0, 200, "{of:?}");
        succeeded(gateway.upgrade());
        let (status, said) = gateway.get(&format!("/drain{of}"));
        assert!(status == 200 && said.contains("\"draining\":true"), "{of:?}: {said}");
        assert_eq!(gateway.get("/readyz").0, 503, "{of:?}: nobody is to send jobs here");
        assert_eq!(gateway.post(&format!("/resume{of}")).0, 200, "{of:?}");
        send(&gateway, "again");
    }
    // And what was resumed.
    succeeded(gateway.upgrade());
    send(&gateway, "still");
}

/// A gateway that can't do what the running one does takes nothing from it.
#[test]
fn a_gateway_that_does_not_start_leaves_the_running_one_as_it_was() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let gateway = Gateway::ready(&estate.config);
    let good = fs::read_to_string(gateway.config_file()).expect("written before");
    let asked = |also: &str| {
        let output = seeway().args(["upgrade", "--config"]).arg(gateway.config_file()).output().expect("it runs");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(also), "{also}: {said}");
        send(&gateway, "still");
    };
    gateway.rewrite_as(&format!("{good}\n[limit]\n"));
    asked("limit");
    // An address that is taken, by somebody else.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = taken.local_addr().expect("bound").port();
    gateway.rewrite_as(&good.replace("grpc = \"127.0.0.1:0\"", &format!("grpc = \"127.0.0.1:{port}\"")));
    asked("did not take over");
    // A machine that lets nobody in: the world would be worse off.
    let stranger = Identity::generate();
    let private = stranger.private().display().to_string();
    let line = good.lines().find(|line| line.trim_start().starts_with("identity")).expect("it has an identity");
    gateway.rewrite_as(&good.replace(line, &format!("identity = \"{private}\"")));
    asked("no machine of echo is up");
    gateway.rewrite_as(&good.replace("handover = \"unix:handover\"", ""));
    asked("listen.handover");
    gateway.rewrite_as(&good.replace("unix:handover", "unix:elsewhere"));
    asked("no gateway answers");
    gateway.rewrite_as(&good);
    let log = gateway.log();
    assert!(log.contains("this one goes on"), "{log}");
    assert!(gateway.metrics().sum_where("seeway_handovers_total", "failed") > 1.5);
}

/// A gateway that `seeway upgrade` has started, and that nobody else ends where a test fails.
struct Started(u32);

impl Started {
    /// The one that the command has named first.
    fn by(said: &str) -> Self {
        let rest = said.split("(process ").nth(1).expect("it names the new one");
        Self(rest.split(')').next().and_then(|number| number.parse().ok()).expect("a number"))
    }

    fn terminate(&self) {
        seeway_bench::family::send(self.0, Signal::TERM);
    }

    fn until_ended(&self) {
        let exe = format!("/proc/{}/exe", self.0);
        wait::until("it has ended", BOUND, || fs::read_link(&exe).is_err().then_some(()));
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        seeway_bench::family::kill(self.0);
    }
}

#[test]
fn the_command_upgrades_and_where_the_file_is_the_same_it_reloads() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let mut gateway = Gateway::ready(&estate.config);
    // The new gateway logs to where this command's errors go, for as long as it lives.
    let errors = gateway.folder().join("errors");
    let upgrade = |further: &[&str]| {
        let mut command = seeway();
        command.arg("upgrade").args(further).arg("--config").arg(gateway.config_file());
        command.stderr(fs::File::create(&errors).expect("the temporary folder can be written"));
        let output = command.stdout(Stdio::piped()).spawn().expect("it runs").wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", fs::read_to_string(&errors).unwrap_or_default());
        said
    };
    assert!(upgrade(&["--if-replaced"]).contains("it has reloaded"));
    let reloaded = || (gateway.metrics().sum_where("seeway_reloads_total", "ok") > 0.5).then_some(());
    wait::until("it has reloaded", BOUND, reloaded);
    let said = upgrade(&[]);
    assert!(said.contains(&format!("(process {})", gateway.id())), "{said}");
    let new = Started::by(&said);
    assert_eq!(gateway.exit(BOUND).code(), Some(0), "{}", gateway.log());
    send(&gateway, "still");
    new.terminate();
    new.until_ended();
}

/// A service's credentials can't be read by what a service manager starts for a reload, nor by an operator's shell: the gateway that runs
/// lends them to the next one, and that one to the one after it.
#[test]
fn credentials_go_from_one_gateway_to_the_next() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let folder = TempDir::new().expect("the temporary folder can be written");
    let [credentials, hidden] = ["credentials", "hidden"].map(|name| folder.path().join(name));
    fs::create_dir(&credentials).expect("written");
    fs::set_permissions(&credentials, fs::Permissions::from_mode(0o700)).expect("set");
    let socket = folder.path().join("nserver");
    let text = estate.config.text(&socket.display().to_string());
    let line = text.lines().find(|line| line.trim_start().starts_with("identity")).expect("it has an identity");
    let private = line.split('"').nth(1).expect("a name in quotes");
    fs::copy(private, credentials.join("key")).expect("copied");
    let file = folder.path().join("seeway.toml");
    fs::write(&file, text.replace(private, "credential:key")).expect("written");
    let here = |command: &mut Command| {
        // As systemd names it, and nobody can look into it.
        command.arg("--config").arg(&file).env("CREDENTIALS_DIRECTORY", &credentials);
    };
    let mut serve = seeway();
    here(serve.arg("serve"));
    let mut first = Process::start("the gateway", &mut serve);
    first.line("ready ");
    let target: Target = format!("unix:{}", socket.display()).parse().expect("a target");
    send_to(&target, "with its own");
    fs::rename(&credentials, &hidden).expect("renamed");

    let errors = folder.path().join("errors");
    let upgrade = |further: &[&str]| {
        let mut command = seeway();
        here(command.arg("upgrade").args(further));
        // The new gateway has it for as long as it lives.
        command.stderr(fs::File::options().append(true).create(true).open(&errors).expect("written"));
        let output = command.stdout(Stdio::piped()).spawn().expect("it runs").wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", fs::read_to_string(&errors).unwrap_or_default());
        said
    };
    let second = Started::by(&upgrade(&[]));
    assert_eq!(first.exit(BOUND).code(), Some(0), "{}", first.log());
    send_to(&target, "with what was lent");
    let third = Started::by(&upgrade(&[]));
    second.until_ended();
    assert!(upgrade(&["--if-replaced"]).contains("has reloaded"), "it reads them again");
    send_to(&target, "and lent on");
    third.terminate();
    third.until_ended();
    assert!(!socket.exists(), "{}", fs::read_to_string(&errors).unwrap_or_default());
}

/// TLS has keys that can not move: such a connection is served where it is until it ends.
#[test]
fn a_legacy_caller_over_tls_stays_until_it_goes() {
    let _turn = Turn::beside_others();
    let authority = Authority::new("callers");
    let server = authority.server();
    let identity = Identity::generate();
    let machine = Machine::start_with_ssh("echo", &identity, "127.0.0.1:0");
    let config = Config::new()
        .machine("hsm", machine.door(), machine.seejobs(), &identity, "")
        .world("echo", &["hsm"], "")
        .tls_listener()
        .line("tls", &authority.tls(&server))
        .line("listen", "handover = \"unix:handover\"")
        .line("runtime", "handover_timeout = \"60s\"");
    let mut gateway = Gateway::ready(&config);
    let client = authority.client("spiffe://seeway/one");
    let mut openssl = Command::new("openssl");
    openssl
        .args(["s_client", "-quiet", "-no_ign_eof", "-connect", gateway.tls(), "-CAfile"])
        .arg(authority.certificate());
    openssl.arg("-cert").arg(&client.certificate).arg("-key").arg(&client.key);
    openssl.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut openssl = openssl.spawn().expect("openssl is there");
    let (mut to, mut from) = (openssl.stdin.take().expect("piped"), openssl.stdout.take().expect("piped"));
    to.write_all(&open_world(1, b"echo")).expect("sent");
    let handle = object(&mut from, 1);
    let mut old = gateway.upgrade();
    for number in 2..5 {
        to.write_all(&see_job(number, handle, b"sealed")).expect("sent");
        assert_eq!(reply(&mut from, number), b"sealed", "the old one serves it");
        assert!(old.try_exit().is_none(), "{}", old.log());
    }
    drop(to);
    openssl.wait().expect("it ends");
    succeeded(old);
}

#[test]
fn both_halves_of_an_audit_log_hold() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let folder = TempDir::new().expect("the temporary folder can be written");
    let log = folder.path().join("audit.log");
    let config = estate.config.line("audit", &format!("to = \"file:{}\"", log.display()));
    let mut gateway = Gateway::ready(&config);
    send(&gateway, "one");
    send(&gateway, "two");
    let old = gateway.upgrade();
    send(&gateway, "three");
    succeeded(old);
    gateway.terminate();
    assert_eq!(gateway.exit(BOUND).code(), Some(0), "{}", gateway.log());
    let files: Vec<_> =
        fs::read_dir(folder.path()).expect("readable").map(|file| file.expect("readable").path()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
    let first = files.iter().find(|file| **file != log).expect("the old one's");
    assert!(first.display().to_string().contains("handed-over"), "{}", first.display());
    for (file, jobs, event) in [(first, 2, "handed_over"), (&log, 1, "gateway_started")] {
        let log = AuditLog::of(&[file]);
        assert_eq!(log.of_event("job").len(), jobs, "{}", file.display());
        assert!(!log.of_event(event).is_empty(), "{}", file.display());
        log.verified();
    }
}

/// systemd's own program for it passes the sockets, as a socket unit does.
#[test]
fn sockets_that_systemd_has_bound_are_served_and_stay() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let folder = TempDir::new().expect("the temporary folder can be written");
    let (file, socket) = (folder.path().join("seeway.toml"), folder.path().join("nserver"));
    let port = seeway_tests::ports::free(std::net::Ipv4Addr::LOCALHOST.into());
    let text = estate.config.text(&socket.to_string_lossy());
    fs::write(&file, text.replace("grpc = \"127.0.0.1:0\"", &format!("grpc = \"127.0.0.1:{port}\""))).expect("written");
    let activated = |listen: &[String]| {
        let mut command = Command::new("systemd-socket-activate");
        for address in listen {
            command.args(["--listen", address]);
        }
        command.arg(seeway().get_program()).args(["serve", "--config"]).arg(&file);
        Process::start("systemd-socket-activate", &mut command)
    };
    let mut gateway = activated(&[socket.to_string_lossy().into_owned(), format!("127.0.0.1:{port}")]);
    // The first caller starts it, and waits meanwhile.
    let job = |way: &str| {
        let output = seeway().args(["job", way, "--world", "echo", "--data", "hello"]).output().expect("it runs");
        assert_eq!(output.stdout, b"hello", "{way}: {}", String::from_utf8_lossy(&output.stderr));
    };
    wait::until("systemd listens", BOUND, || socket.exists().then_some(()));
    job(&format!("unix:{}", socket.display()));
    job(&format!("grpc://127.0.0.1:{port}"));
    gateway.line("ready ");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit(BOUND).code(), Some(0), "{}", gateway.log());
    assert!(socket.exists(), "the socket's file is systemd's");

    fs::remove_file(&socket).expect("it is there");
    let other = folder.path().join("other");
    let mut gateway = activated(&[other.to_string_lossy().into_owned()]);
    wait::until("systemd listens", BOUND, || UnixStream::connect(&other).ok());
    assert_eq!(gateway.exit(BOUND).code(), Some(1));
    let said = gateway.log();
    assert!(said.contains("was passed by LISTEN_FDS") && said.contains("other"), "{said}");
}

/// What a service manager is told: that it is ready, again and again that it is well, that another process is the main one now, and that
/// it ends.
#[test]
fn a_service_manager_hears_of_everything() {
    let _turn = Turn::beside_others();
    let estate = Estate::new("echo");
    let folder = TempDir::new().expect("the temporary folder can be written");
    let manager = folder.path().join("notify");
    let heard = UnixDatagram::bind(&manager).expect("bound");
    heard.set_read_timeout(Some(BOUND)).expect("set");
    let until_heard = |wanted: &str| {
        let mut said = Vec::new();
        loop {
            let mut bytes = [0; 4096];
            let count =
                heard.recv(&mut bytes).unwrap_or_else(|error| panic!("{wanted} is not said: {error}; {said:?}"));
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            if text.lines().any(|line| line.starts_with(wanted)) {
                return text;
            }
            said.push(text);
        }
    };
    let (file, socket) = (folder.path().join("seeway.toml"), folder.path().join("nserver"));
    fs::write(&file, estate.config.text(&socket.to_string_lossy())).expect("written");
    let start = |further: &[&str]| {
        let mut command = seeway();
        command.arg("serve").args(further).arg("--config").arg(&file).env("NOTIFY_SOCKET", &manager);
        // As systemd does it for the main process alone.
        if further.is_empty() {
            command.env("WATCHDOG_USEC", "400000");
        }
        Process::start("the gateway", &mut command)
    };
    let mut old = start(&[]);
    let said = until_heard("READY=1");
    assert!(said.contains("STATUS=ready grpc="), "{said}");
    until_heard("WATCHDOG=1");
    until_heard("WATCHDOG=1");
    let mut new = start(&["--take-over"]);
    let said = until_heard("MAINPID=");
    assert!(said.contains(&format!("MAINPID={}\n", new.id())) && said.contains("READY=1"), "{said}");
    assert_eq!(old.exit(BOUND).code(), Some(0), "{}", old.log());
    // It was told by the one before how often that is wanted.
    until_heard("WATCHDOG=1");
    until_heard("WATCHDOG=1");
    // And so is the one after it, which nobody but that one can tell.
    let mut third = start(&["--take-over"]);
    let said = until_heard("MAINPID=");
    assert!(said.contains(&format!("MAINPID={}\n", third.id())), "{said}");
    assert_eq!(new.exit(BOUND).code(), Some(0), "{}", new.log());
    heard.set_nonblocking(true).expect("set");
    while heard.recv(&mut [0; 4096]).is_ok() {}
    heard.set_nonblocking(false).expect("set");
    until_heard("WATCHDOG=1");
    until_heard("WATCHDOG=1");
    third.signal(Signal::TERM);
    until_heard("STOPPING=1");
    assert_eq!(third.exit(BOUND).code(), Some(0), "{}", third.log());
}
