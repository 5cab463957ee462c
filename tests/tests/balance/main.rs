//! Several gateways side by side: behind `haproxy`, and before callers that choose among them. One is killed under load, one is drained, and what callers
//! were told of each job is compared with what the machines journalled.

mod callers;

use std::{collections::HashMap, path::Path};

use callers::{Attempt, Load, Python, Told};
use seeway_client::grpc::{Credentials, Gateway as Client};
use seeway_tests::repository::root;
use seeway_tests::{
    Config, Gateway, Identity, Machine,
    authority::{Authority, Certified},
    balancer::{Haproxy, SERVERS},
    machine::seeway,
    python,
    turn::Turn,
    wait,
};
use tempfile::TempDir;

const CONNECTIONS: usize = 4;
const LINES: usize = 8;
/// Calls that the Python callers have out at once.
const PYTHON_LINES: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_behind_haproxy_is_killed_and_no_job_is_lost_that_was_not_sent() {
    let _turn = Turn::alone();
    let mut scene = Scene::new();
    let haproxy = scene.haproxy("haproxy.cfg");
    let load = scene.load(&haproxy.address()).await;
    let mut python = scene.python(&["--through", &haproxy.address()]);
    load.until_replies(500).await;
    for gateway in &scene.gateways {
        // Calls share connections; a connection for each call would cost more than the call.
        let metrics = gateway.metrics();
        let connections = metrics.sum_where("seeway_callers", "listener=\"grpc\"");
        let handshakes = metrics.sum_where("seeway_tls_handshakes_total", "result=\"ok\"");
        let replies = metrics.sum_where("seeway_jobs_total", "outcome=\"replied\"");
        println!("{connections} connections, {handshakes} handshakes, {replies} replies");
        assert!(handshakes * 2.0 < replies, "{handshakes} handshakes for {replies} replies");
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
    for gateway in 0..SERVERS.len() {
        scene.until_replied(gateway, 50.0);
    }

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
    let deploy = root().join("deploy");
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
        for gateway in &gateways {
            gateway.until_up(config.machines());
        }
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
        let schema = root().join("proto").display().to_string();
        let path = |path: &Path| path.display().to_string();
        let files = [
            ("--ca", &self.authority.certificate()),
            ("--certificate", &self.caller.certificate),
            ("--key", &self.caller.key),
        ];
        let common = files.into_iter().flat_map(|(name, file)| [name.to_owned(), path(file)]);
        let own = ["--schema".to_owned(), schema, "--lines".to_owned(), PYTHON_LINES.to_string()];
        let further = arguments.iter().map(|&word| word.to_owned());
        Python::start(ledger, common.chain(own).chain(further).collect())
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
