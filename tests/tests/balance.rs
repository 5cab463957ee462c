//! Several gateways side by side: behind HAProxy, and before callers that choose among them. One is killed under load, one is drained, and what callers
//! were told of each job is compared with what the machines journalled.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
use seeway_client::grpc::{Credentials, Gateway as Client, SubmitOptions};
use seeway_tests::{
    Config, Gateway, Identity, Machine,
    authority::{Authority, Certified},
    balancer::{Haproxy, SERVERS},
    machine::seeway,
    process::Process,
    python,
    turn::Turn,
    wait,
};
use tempfile::TempDir;
use tokio::task::JoinSet;

const CONNECTIONS: usize = 4;
const LINES: usize = 8;
/// Calls that the Python callers have out at once.
const PYTHON_LINES: usize = 8;
/// How long a caller tries to get rid of one job.
const ATTEMPTS: usize = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_behind_haproxy_is_killed_and_no_job_is_lost_that_was_not_sent() {
    let _turn = Turn::alone();
    let mut scene = Scene::new();
    let haproxy = scene.haproxy("haproxy.cfg");
    let load = scene.load(&haproxy.address()).await;
    let mut python = scene.python(&["--through", &haproxy.address()]);
    load.until_replies(500).await;
    for gateway in &scene.gateways {
        // One for each of the callers' connections, those in Python share one; and a check may be there.
        let connections = gateway.metrics().sum_where("seeway_callers", "listener=\"grpc\"");
        assert!(connections < (CONNECTIONS + 1 + 2) as f64, "haproxy makes a connection for each call: {connections}");
    }

    scene.gateways[0].kill();
    let others = [scene.replied(1), scene.replied(2)];
    load.until_replies(1_000).await;
    for (number, before) in [1, 2].into_iter().zip(others) {
        assert!(scene.replied(number) > before + 100.0, "the other gateways go on, {} too", SERVERS[number]);
    }
    haproxy.until_state(SERVERS[0], "DOWN");

    scene.gateways[0].start_again();
    haproxy.until_state(SERVERS[0], "UP");
    scene.until_replied(0, 100.0);
    let told = load.end().await;
    let python = python.end();
    let unknown = scene.compare(&told);
    assert!((1..=CONNECTIONS * LINES).contains(&unknown), "{unknown} unknown: those that the dead gateway had");
    let unknown = scene.compare(&python);
    assert!(unknown <= PYTHON_LINES, "{unknown} unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_behind_haproxy_is_drained_and_no_call_fails() {
    let _turn = Turn::alone();
    let scene = Scene::new();
    let haproxy = scene.haproxy("haproxy.cfg");
    let load = scene.load(&haproxy.address()).await;
    load.until_replies(500).await;

    // With the gateway's own drain, those that come before the balancer knows of it are not sent, and sent again by their callers.
    scene.change(0, &["drain", "--wait", "30s"]);
    haproxy.until_state(SERVERS[0], "DOWN");
    let before = scene.replied(0);
    load.until_replies(1_000).await;
    assert!((scene.replied(0) - before).abs() < 0.5, "a drained gateway gets no jobs");
    scene.change(0, &["resume"]);
    haproxy.until_state(SERVERS[0], "UP");
    scene.until_replied(0, before + 100.0);

    // Where the balancer is told first, there is not even one to be sent again.
    let refusals = load.refusals();
    haproxy.say(&format!("set server gateways/{} state drain", SERVERS[1]));
    wait::until("the gateway has nothing in hand", wait::BOUND, || {
        (scene.gateways[1].metrics().sum("seeway_jobs") < 0.5).then_some(())
    });
    scene.change(1, &["drain", "--wait", "30s"]);
    load.until_replies(1_000).await;
    scene.change(1, &["resume"]);
    haproxy.say(&format!("set server gateways/{} state ready", SERVERS[1]));
    haproxy.until_state(SERVERS[1], "UP");
    let before = scene.replied(1);
    scene.until_replied(1, before + 100.0);
    assert_eq!(load.refusals(), refusals, "no call was refused");

    let told = load.end().await;
    assert_eq!(scene.compare(&told), 0, "no call has failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_lost_to_callers_whose_connections_go_through_haproxy_unopened() {
    let _turn = Turn::alone();
    let mut scene = Scene::new();
    let haproxy = scene.haproxy("passthrough.cfg");
    let load = scene.load(&haproxy.address()).await;
    load.until_replies(500).await;
    scene.gateways[0].kill();
    load.until_replies(500).await;
    haproxy.until_state(SERVERS[0], "DOWN");
    load.until_replies(500).await;
    let told = load.end().await;
    scene.gateways[0].start_again();
    let unknown = scene.compare(&told);
    assert!(unknown <= CONNECTIONS * LINES, "{unknown} unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_choose_among_gateways_while_one_is_drained_and_one_killed() {
    let _turn = Turn::alone();
    let mut scene = Scene::new();
    let addresses: Vec<_> = scene.gateways.iter().map(|gateway| gateway.grpc().to_string()).collect();
    let with_tls: Vec<_> = addresses.iter().map(|address| address.replace("grpc://", "grpcs://")).collect();
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let addresses: Vec<_> = with_tls.iter().map(String::as_str).collect();
            Client::among(&addresses, scene.credentials()).unwrap_or_else(|error| panic!("{error}"))
        })
        .collect();
    let load = Load::start(clients);
    let among = addresses.join(",").replace("grpc://", "");
    let mut python = scene.python(&["--among", &among]);
    let mut idempotent = scene.python(&["--among", &among, "--idempotent"]);
    load.until_replies(500).await;
    (0..SERVERS.len()).for_each(|gateway| scene.until_replied(gateway, 50.0));

    // Drained, a gateway is asked by grpcio for its health and left alone; what comes all the same is not sent, and sent again.
    scene.change(1, &["drain", "--wait", "30s"]);
    let before = scene.replied(1);
    load.until_replies(500).await;
    assert!((scene.replied(1) - before).abs() < 0.5, "a drained gateway runs no jobs");
    scene.change(1, &["resume"]);
    scene.until_replied(1, before + 50.0);

    scene.gateways[0].kill();
    load.until_replies(1_000).await;
    scene.gateways[0].start_again();
    scene.until_replied(0, 50.0);

    let told = load.end().await;
    let (python, idempotent) = (python.end(), idempotent.end());
    let unknown = scene.compare(&told);
    assert!((1..=CONNECTIONS * LINES).contains(&unknown), "{unknown} unknown: those that the dead gateway had");
    let unknown = scene.compare(&python);
    assert!(unknown <= PYTHON_LINES, "{unknown} unknown");
    // grpcio has sent again what was lost, since these may run twice: every one has its reply.
    let lost = idempotent.iter().filter(|attempt| matches!(attempt.told, Told::Unknown(_))).count();
    assert_eq!(lost, 0, "jobs that may run twice and were not sent again");
}

#[test]
fn what_balancers_say_by_themselves_is_what_a_gateway_would_say() {
    let _turn = Turn::beside_others();
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let file = |name: &str| deploy.join(name).display().to_string();
    let (haproxy, envoy) = (file("haproxy/haproxy.cfg"), file("envoy/envoy.yaml"));
    python::run("balancers_test.py", ["--haproxy", &haproxy, "--envoy", &envoy]);
}

/// Three gateways before the same two machines, which reply after 10 ms.
struct Scene {
    gateways: Vec<Gateway>,
    machines: [Machine; 2],
    authority: Authority,
    server: Certified,
    caller: Certified,
    folder: TempDir,
    _identity: Identity,
}

impl Scene {
    fn new() -> Self {
        let (identity, authority) = (Identity::generate(), Authority::new("callers"));
        let machines = [(), ()].map(|()| Machine::start_with_ssh("slow:10", &identity, "127.0.0.1:0"));
        let (server, caller) = (authority.server(), authority.client("spiffe://bank.example/balancer"));
        let config = machines.iter().zip(["hsm-a", "hsm-b"]).fold(Config::new(), |config, (machine, name)| {
            config.machine(name, machine.door(), machine.seejobs(), &identity, "")
        });
        let config = config.world("pay", &["hsm-a", "hsm-b"], "").line("tls", &authority.tls(&server));
        let gateways: Vec<_> = SERVERS.iter().map(|_| Gateway::start_on_fixed_ports(&config, None)).collect();
        gateways.iter().for_each(|gateway| gateway.until_up(config.machines()));
        let folder = TempDir::new().expect("the temporary folder can be written");
        Self { gateways, machines, authority, server, caller, folder, _identity: identity }
    }

    fn haproxy(&self, file: &str) -> Haproxy {
        Haproxy::start(file, &self.gateways, &self.authority, &self.server, &self.caller)
    }

    /// Replies that a gateway has counted since it was started.
    fn replied(&self, gateway: usize) -> f64 {
        self.gateways[gateway].metrics().sum_where("seeway_jobs_total", "outcome=\"replied\"")
    }

    fn until_replied(&self, gateway: usize, wanted: f64) {
        let what = format!("{} gets jobs again", SERVERS[gateway]);
        wait::until(&what, wait::BOUND, || (self.replied(gateway) >= wanted).then_some(()));
    }

    /// `seeway drain` or `seeway resume`.
    fn change(&self, gateway: usize, arguments: &[&str]) {
        let admin = self.gateways[gateway].admin().to_string();
        let changed = seeway().args(arguments).args(["--admin", &admin]).output().expect("the binary runs");
        assert!(changed.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&changed.stderr));
    }

    fn credentials(&self) -> Credentials {
        let trusting = Credentials::none().trust(&self.authority.certificate()).expect("readable");
        trusting.certificate(&self.caller.certificate, &self.caller.key).expect("readable")
    }

    /// Callers with connections to one address.
    async fn load(&self, address: &str) -> Load {
        let mut clients = Vec::new();
        for _ in 0..CONNECTIONS {
            let client = Client::connect_with(&format!("grpcs://{address}"), self.credentials()).await;
            clients.push(client.unwrap_or_else(|error| panic!("{error}")));
        }
        Load::start(clients)
    }

    /// Callers in Python that go on until they are told to stop.
    fn python(&self, arguments: &[&str]) -> Python {
        let ledger = self.folder.path().join(format!("python-{}", arguments.len()));
        let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto").display().to_string();
        let path = |path: &Path| path.display().to_string();
        let lines = PYTHON_LINES.to_string();
        let common = ["--ledger", &path(&ledger), "--schema", &schema, "--ca", &path(&self.authority.certificate())]
            .map(str::to_owned);
        let own = ["--certificate", &path(&self.caller.certificate), "--key", &path(&self.caller.key)].map(str::to_owned);
        let all = common.into_iter().chain(own).chain(["--lines".to_owned(), lines]);
        let mut process = python::start("balance_test.py", all.chain(arguments.iter().map(|&word| word.to_owned())));
        process.line("ready");
        Python { process, ledger }
    }

    /// Compares what callers were told with the machines' journals; how many outcomes are unknown.
    fn compare(&self, told: &[Attempt]) -> usize {
        for gateway in &self.gateways {
            wait::until("the gateway has nothing in hand", wait::BOUND, || {
                (gateway.metrics().sum("seeway_jobs") < 0.5).then_some(())
            });
        }
        let mut runs: HashMap<String, usize> = HashMap::new();
        for (job, times) in self.machines.iter().flat_map(|machine| machine.journal().runs()) {
            *runs.entry(job).or_default() += times;
        }
        let (mut replied, mut unknown, mut not_sent) = (0, 0, 0);
        for Attempt { id, told } in told {
            let times = runs.get(id).copied().unwrap_or(0);
            match told {
                Told::Replied => {
                    assert_eq!(times, 1, "{id} has a reply and ran {times} times");
                    replied += 1;
                }
                Told::Unknown(why) => {
                    assert!(times <= 1, "{id} ran {times} times; its caller was told {why}");
                    unknown += 1;
                }
                Told::NotSent(why) => {
                    assert_eq!(times, 0, "{id} ran, and its caller was told that it was not sent: {why}");
                    not_sent += 1;
                }
            }
        }
        println!("{replied} replied, {unknown} unknown, {not_sent} not sent and sent again");
        assert!(replied > 0);
        unknown
    }
}

/// One try to have a job done, under a name of its own.
struct Attempt {
    id: String,
    told: Told,
}

enum Told {
    Replied,
    Unknown(String),
    NotSent(String),
}

#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    replies: AtomicU64,
    refusals: AtomicU64,
    ledger: Mutex<Vec<Attempt>>,
}

struct Load {
    callers: JoinSet<()>,
    progress: Arc<Progress>,
}

impl Load {
    fn start(clients: Vec<Client>) -> Self {
        let progress = Arc::new(Progress::default());
        let mut callers = JoinSet::new();
        for (connection, client) in clients.into_iter().enumerate() {
            for line in 0..LINES {
                callers.spawn(caller(client.clone(), format!("rust/{connection}/{line}"), Arc::clone(&progress)));
            }
        }
        Self { callers, progress }
    }

    async fn until_replies(&self, further: u64) {
        let wanted = self.progress.replies.load(Ordering::Relaxed) + further;
        let reached = || async { (self.progress.replies.load(Ordering::Relaxed) >= wanted).then_some(()) };
        wait::until_async("callers get replies", wait::BOUND, reached).await;
    }

    /// Tries in all that were told "not sent".
    fn refusals(&self) -> u64 {
        self.progress.refusals.load(Ordering::Relaxed)
    }

    async fn end(self) -> Vec<Attempt> {
        self.progress.stop.store(true, Ordering::Relaxed);
        tokio::time::timeout(wait::BOUND, self.callers.join_all()).await.expect("every call ends");
        std::mem::take(&mut *self.progress.ledger.lock().expect("no caller panics while it holds this"))
    }
}

/// Has jobs done, one after the other. What was certainly not sent it sends again, until it gets rid of it.
async fn caller(client: Client, name: String, progress: Arc<Progress>) {
    let options = SubmitOptions { timeout: Some(Duration::from_secs(20)), ..SubmitOptions::default() };
    let note = |id, told| {
        progress.ledger.lock().expect("no caller panics while it holds this").push(Attempt { id, told });
    };
    for number in 1.. {
        if progress.stop.load(Ordering::Relaxed) {
            return;
        }
        for attempt in 1.. {
            let id = format!("{name}/{number}/{attempt}");
            match client.submit("pay", id.clone(), &options).await {
                Ok(done) => {
                    assert_eq!(done.reply.as_bytes(), id.as_bytes());
                    progress.replies.fetch_add(1, Ordering::Relaxed);
                    note(id, Told::Replied);
                    break;
                }
                Err(error) if error.may_have_run() => {
                    note(id, Told::Unknown(error.to_string()));
                    break;
                }
                Err(error) => {
                    assert!(attempt < ATTEMPTS, "{id}: {error}");
                    progress.refusals.fetch_add(1, Ordering::Relaxed);
                    note(id, Told::NotSent(error.to_string()));
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

/// Callers in Python.
struct Python {
    process: Process,
    ledger: PathBuf,
}

impl Python {
    /// Has them stop; what they were told.
    fn end(&mut self) -> Vec<Attempt> {
        self.process.signal(Signal::TERM);
        let status = self.process.exit(wait::BOUND);
        assert!(status.success(), "the callers in Python ended with {status}");
        let text = fs::read_to_string(&self.ledger).expect("they wrote it");
        let attempts = text.lines().map(|line| {
            let (id, told) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?} is no line of a ledger"));
            let told = match told.split_once(' ').unwrap_or((told, "")) {
                ("replied", _) => Told::Replied,
                ("unknown", why) => Told::Unknown(why.to_owned()),
                ("not-sent", why) => Told::NotSent(why.to_owned()),
                _ => panic!("{line:?} is no line of a ledger"),
            };
            Attempt { id: id.to_owned(), told }
        });
        attempts.collect()
    }
}
