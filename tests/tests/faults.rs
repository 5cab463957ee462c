//! Servers die under load and come back. What the callers were told is compared with what the machine's journal says, job by job.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use seeway_bench::{Target, wire::WireCaller};
use seeway_proto::wire::ReplyBody;
use seeway_tests::{
    Config, Door, Gateway, Identity, Machine, Sshd,
    callers::{self, Told},
    network::Network,
    turn::Turn,
    wait,
};
use tokio::task::JoinSet;

const LEGACY_CALLERS: u64 = 6;
const GRPC_CALLERS: u64 = 2;
const IN_FLIGHT: usize = 8;
const KILLS: u64 = 6;
/// Replies that callers get between one death and the next.
const REPLIES_BETWEEN: u64 = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sshd_dies_and_jobs_wait_for_it() {
    let _turn = Turn::alone();
    let mut scene = Scene::new("hold = \"35s\"").await;
    let load = scene.load();
    for _ in 0..KILLS {
        load.until_replies(REPLIES_BETWEEN).await;
        scene.sshd.kill();
        scene.until_down();
        scene.sshd.start_again();
    }
    load.until_replies(REPLIES_BETWEEN).await;
    let told = load.end().await;
    scene.compare(&told);
    let not_sent = told.iter().filter(|entry| matches!(entry.told, Claim::DidNotRun)).count();
    assert_eq!(not_sent, 0, "jobs that had not left wait for the server to come back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sshd_dies_and_jobs_do_not_wait() {
    let _turn = Turn::alone();
    let mut scene = Scene::new("hold = \"50ms\"").await;
    let load = scene.load();
    for kill in 1..=KILLS {
        load.until_replies(REPLIES_BETWEEN).await;
        scene.sshd.kill();
        load.until_refusals(kill * 100).await;
        scene.sshd.start_again();
    }
    load.until_replies(REPLIES_BETWEEN).await;
    let told = load.end().await;
    scene.compare(&told);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_machine_dies_behind_its_ssh_server() {
    let _turn = Turn::alone();
    let mut scene = Scene::new("hold = \"35s\"").await;
    let load = scene.load();
    for _ in 0..KILLS {
        load.until_replies(REPLIES_BETWEEN).await;
        scene.machine.kill();
        scene.until_down();
        scene.machine.start_again();
    }
    load.until_replies(REPLIES_BETWEEN).await;
    let told = load.end().await;
    // The counter begins anew with each of its processes, so its values say nothing here.
    scene.compare_runs(&told);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_is_cut_or_falls_silent() {
    let _turn = Turn::alone();
    let scene = Scene::new("hold = \"35s\"").await;
    let load = scene.load();
    for fault in [Network::cut, Network::fall_silent, Network::cut, Network::fall_silent] {
        load.until_replies(REPLIES_BETWEEN).await;
        fault(&scene.network);
        scene.until_down();
        scene.network.mend();
    }
    load.until_replies(REPLIES_BETWEEN).await;
    let told = load.end().await;
    scene.compare(&told);
}

/// The last that a server says before it hangs up counts: a job whose reply has come is never called unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_that_came_with_the_end_of_the_tunnel_are_delivered() {
    let _turn = Turn::alone();
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let machine = Machine::start("echo");
    let network = Network::to(sshd.door().address).await;
    let door = Door { address: network.address(), ..sshd.door().clone() };
    let config = Config::new()
        .machine("hsm", &door, machine.seejobs(), &identity, "channels = 1")
        .world("echo", &["hsm"], "")
        .line("ssh", "retry_max = \"200ms\"");
    let gateway = Gateway::ready(&config);
    let mut caller = WireCaller::connect(&gateway.unix(), 4).await.expect("accepted");
    let world = caller.open_world("echo", 0).await.unwrap_or_else(|error| panic!("{error}"));
    for round in 1..=10 {
        gateway.until_up(&["hsm"]);
        network.hold_back();
        caller.stage(world, b"job", round).expect("room");
        let on_answer = |_, reply: ReplyBody<'_>| {
            assert!(
                matches!(reply, ReplyBody::Job(_)),
                "round {round}: the reply had come; the caller was told {reply:?}"
            );
        };
        let connections = network.connections();
        let hang_up = async {
            let held = || async { (network.held_back() > 0).then_some(()) };
            wait::until_async("the reply is on its way", wait::BOUND, held).await;
            network.mend();
        };
        let (exchanged, ()) = tokio::join!(caller.exchange(on_answer), hang_up);
        exchanged.unwrap_or_else(|error| panic!("{error}"));
        let again = || async { (network.connections() > connections).then_some(()) };
        wait::until_async("the gateway connects again", wait::BOUND, again).await;
    }
}

/// A gateway, a network and an SSH server behind it, and a machine behind that, which counts.
struct Scene {
    gateway: Gateway,
    sshd: Sshd,
    machine: Machine,
    network: Network,
    _identity: Identity,
}

impl Scene {
    async fn new(limits: &str) -> Self {
        let identity = Identity::generate();
        let sshd = Sshd::start(&identity);
        let machine = Machine::start("counter");
        let network = Network::to(sshd.door().address).await;
        let through_network = Door { address: network.address(), ..sshd.door().clone() };
        let config = Config::new()
            .machine("hsm", &through_network, machine.seejobs(), &identity, "")
            .world("counter", &["hsm"], "")
            .line("ssh", "retry_max = \"500ms\"\nconnect_timeout = \"3s\"")
            .line("ssh", "keepalive_idle = \"500ms\"\nkeepalive = \"500ms\"\nbroken_after = \"2s\"")
            .line("limits", limits);
        let gateway = Gateway::ready(&config);
        Self { gateway, sshd, machine, network, _identity: identity }
    }

    fn load(&self) -> Load {
        let progress = Arc::new(Progress::default());
        let mut callers = JoinSet::new();
        let ways = [self.gateway.unix(), self.gateway.tcp4(), self.gateway.tcp6()];
        for number in 0..LEGACY_CALLERS + GRPC_CALLERS {
            let way = match number {
                0..LEGACY_CALLERS => ways[usize::try_from(number).expect("a small number") % ways.len()].clone(),
                _ => self.gateway.grpc(),
            };
            callers.spawn(caller(way, number, Arc::clone(&progress)));
        }
        Load { callers, progress }
    }

    /// Waits until the gateway has noticed that its machine is out of reach.
    fn until_down(&self) {
        wait::until("the gateway has no channel", wait::BOUND, || {
            (self.gateway.metrics().sum("seeway_channels") < 0.5).then_some(())
        });
    }

    /// Compares what callers were told with the journal, and the counter's values with each other.
    fn compare(&self, told: &[Entry]) {
        self.compare_runs(told);
        let mut values = HashSet::new();
        for entry in told {
            if let Claim::Replied(value) = entry.told {
                assert!(
                    values.insert(value),
                    "two callers were told the counter's value {value}, one of them {}",
                    entry.job
                );
            }
        }
    }

    fn compare_runs(&self, told: &[Entry]) {
        self.gateway.until_idle(wait::BOUND);
        let runs = self.machine.journal().runs();
        let twice: HashMap<_, _> = runs.iter().filter(|(_, runs)| **runs > 1).collect();
        assert!(twice.is_empty(), "jobs that ran more than once: {twice:?}");
        let mut known = HashSet::new();
        let (mut replied, mut unknown, mut not_run) = (0, 0, 0);
        for Entry { job, told } in told {
            assert!(known.insert(job.as_str()), "{job} has two outcomes");
            let ran = runs.contains_key(job);
            match told {
                Claim::Replied(_) => {
                    assert!(ran, "{job} has a reply and never ran");
                    replied += 1;
                }
                Claim::MayHaveRun => unknown += 1,
                Claim::DidNotRun => {
                    assert!(!ran, "{job} ran, and its caller was told that it certainly did not");
                    not_run += 1;
                }
            }
        }
        let strangers: Vec<_> = runs.keys().filter(|job| !known.contains(job.as_str())).collect();
        assert!(strangers.is_empty(), "jobs ran that no caller has an outcome of: {strangers:?}");
        println!("{replied} replied, {unknown} unknown, {not_run} did not run; {} in the journal", runs.len());
        assert!(unknown > 0, "with jobs in flight at every death some outcomes must be unknown");
    }
}

/// What a caller was told of one job.
struct Entry {
    job: String,
    told: Claim,
}

enum Claim {
    Replied(u64),
    MayHaveRun,
    DidNotRun,
}

#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    replies: AtomicU64,
    refusals: AtomicU64,
    ledger: Mutex<Vec<Entry>>,
}

/// Callers that go on until they are told to stop.
struct Load {
    callers: JoinSet<()>,
    progress: Arc<Progress>,
}

impl Load {
    /// Waits until callers got so many further replies.
    async fn until_replies(&self, further: u64) {
        let wanted = self.progress.replies.load(Ordering::Relaxed) + further;
        let reached = || async { (self.progress.replies.load(Ordering::Relaxed) >= wanted).then_some(()) };
        wait::until_async("callers get replies", wait::BOUND, reached).await;
    }

    /// Waits until so many jobs in all were refused as certainly not run.
    async fn until_refusals(&self, wanted: u64) {
        let reached = || async { (self.progress.refusals.load(Ordering::Relaxed) >= wanted).then_some(()) };
        wait::until_async("jobs are refused", wait::BOUND, reached).await;
    }

    /// Has the callers wait for what they have handed over, and gives their ledgers.
    async fn end(self) -> Vec<Entry> {
        self.progress.stop.store(true, Ordering::Relaxed);
        let ended = tokio::time::timeout(Duration::from_secs(60), self.callers.join_all()).await;
        assert!(ended.is_ok(), "a minute after the load ended some jobs have no outcome");
        std::mem::take(&mut *self.progress.ledger.lock().expect("no caller panics while it holds this"))
    }
}

async fn caller(way: Target, caller: u64, progress: Arc<Progress>) {
    let mut handed_over = 0;
    let name = |number: u64| format!("caller-{caller}/{number}");
    let next = || {
        if progress.stop.load(Ordering::Relaxed) {
            return None;
        }
        handed_over += 1;
        Some((handed_over, name(handed_over).into_bytes()))
    };
    let mut answered = 0;
    let on_answer = |number, told: Told<'_>| {
        answered += 1;
        let told = match told {
            Told::Replied(reply) => {
                progress.replies.fetch_add(1, Ordering::Relaxed);
                Claim::Replied(u64::from_le_bytes(reply.try_into().expect("the counter is 8 bytes")))
            }
            Told::Failed { may_have_run: true, .. } => Claim::MayHaveRun,
            Told::Failed { may_have_run: false, .. } => {
                progress.refusals.fetch_add(1, Ordering::Relaxed);
                Claim::DidNotRun
            }
        };
        progress.ledger.lock().expect("no caller panics while it holds this").push(Entry { job: name(number), told });
    };
    let ended = callers::run(&way, "counter", IN_FLIGHT, next, on_answer).await;
    ended.unwrap_or_else(|error| panic!("caller {caller}: the gateway must stay: {error}"));
    assert_eq!(answered, handed_over, "caller {caller} has one outcome for each job");
}
