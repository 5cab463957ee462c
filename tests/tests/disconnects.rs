//! A thousand callers vanish with jobs queued and in flight, while machines, SSH servers and the network fail. The gateway serves the
//! others all the while, and keeps nothing of those who are gone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use seeway_bench::{Target, grpc::GrpcCaller, wire::WireCaller};
use seeway_tests::{
    Config, Door, Gateway, Identity, Machine, Sshd,
    callers::{self, Told},
    network::Network,
    turn::Turn,
    wait,
};
use tokio::task::JoinSet;

const DISCONNECTS: usize = 1_000;
/// Callers that come and go between one fault and the next.
const ROUND: usize = 100;
/// More than the machine has places for, so that some wait in the queue and some are in flight.
const JOBS_FOR_EACH: u64 = 40;
const MAX_IN_FLIGHT: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_disconnects_leave_nothing_behind() {
    let _turn = Turn::alone();
    let identity = Identity::generate();
    let (mut sshd, steady_sshd) = (Sshd::start(&identity), Sshd::start(&identity));
    let (mut machine, steady_machine) = (Machine::start("slow:20"), Machine::start("echo"));
    let network = Network::to(sshd.door().address).await;
    let through_network = Door { address: network.address(), ..sshd.door().clone() };
    let in_flight = format!("max_in_flight = {MAX_IN_FLIGHT}");
    let config = Config::new()
        .machine("troubled", &through_network, machine.seejobs(), &identity, &in_flight)
        .machine("steady", steady_sshd.door(), steady_machine.seejobs(), &identity, "")
        .world("troubled", &["troubled"], "")
        .world("steady", &["steady"], "")
        .line("ssh", "retry_max = \"200ms\"");
    let gateway = Gateway::ready(&config);
    let ways = [gateway.unix(), gateway.tcp4(), gateway.tcp6(), gateway.grpc()];
    for way in &ways {
        answered(way, "steady", 1).await;
    }
    gateway.until_idle(wait::BOUND);
    let files_before = gateway.open_files();

    let (others, stop, served) = others(&ways);
    for round in 0..DISCONNECTS / ROUND {
        let mut vanishing = JoinSet::new();
        for number in 0..ROUND {
            vanishing.spawn(vanish(ways[number % ways.len()].clone()));
        }
        let vanished = vanishing.join_all().await;
        assert_eq!(vanished.len(), ROUND);
        let before = served.load(Ordering::Relaxed);
        match round % 4 {
            0 => {
                machine.kill();
                machine.start_again();
            }
            1 => {
                sshd.kill();
                sshd.start_again();
            }
            2 => {
                let connections = network.connections();
                network.cut();
                wait::until_async("the gateway tries to reach its machine again", wait::BOUND, || async {
                    (network.connections() > connections).then_some(())
                })
                .await;
                network.mend();
            }
            _ => {}
        }
        wait::until_async("the others are served meanwhile", wait::BOUND, || async {
            (served.load(Ordering::Relaxed) > before + 100).then_some(())
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    let ended = tokio::time::timeout(wait::BOUND, others.join_all()).await;
    assert!(ended.is_ok(), "the others do not get their last answers");

    gateway.until_idle(Duration::from_secs(60));
    gateway.until_up(config.machines());
    wait::until("no socket is left over", wait::BOUND, || (gateway.open_files() <= files_before).then_some(()));
    // Every place at the machine can be used again: no tag is lost.
    for way in &ways {
        answered(way, "troubled", 4 * MAX_IN_FLIGHT as u64).await;
    }
    gateway.until_idle(wait::BOUND);
}

/// Connects, hands over jobs, and is gone before any answer. The jobs may or may not have left the gateway by then.
async fn vanish(way: Target) {
    let count = usize::try_from(JOBS_FOR_EACH).expect("a small number");
    match &way {
        Target::Grpc(address) => {
            let mut caller = GrpcCaller::connect(address, count).await.unwrap_or_else(|error| panic!("{error}"));
            for number in 0..JOBS_FOR_EACH {
                let sent = caller.send(number, "troubled", callers::payload(0, number, 500).into()).await;
                sent.unwrap_or_else(|error| panic!("{error}"));
            }
            // One answer, or none in time: either way the gateway has the jobs in hand by now.
            let _ = tokio::time::timeout(Duration::from_millis(50), caller.next()).await;
        }
        Target::Unix(_) | Target::Tcp(_) => {
            let mut caller = WireCaller::connect(&way, count).await.unwrap_or_else(|error| panic!("{error}"));
            let world = caller.open_world("troubled", 0).await.unwrap_or_else(|error| panic!("{error}"));
            for number in 0..JOBS_FOR_EACH {
                let staged = caller.stage(world, &callers::payload(0, number, 500), number);
                staged.expect("as many are allowed in flight");
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), caller.exchange(|_, _| ())).await;
        }
    }
}

/// Hands over jobs, all at once, and waits for every reply.
async fn answered(way: &Target, world: &str, jobs: u64) {
    let mut numbers = 0..jobs;
    let mut replies = 0;
    let in_flight = usize::try_from(jobs).expect("a small number");
    let next = || numbers.next().map(|number| (number, callers::payload(1, number, 100)));
    let on_answer = |number, told: Told<'_>| {
        assert!(told == Told::Replied(&callers::payload(1, number, 100)), "job {number} on {way}: {told:?}");
        replies += 1;
    };
    let ended = tokio::time::timeout(wait::BOUND, callers::run(way, world, in_flight, next, on_answer)).await;
    ended.expect("every job is answered in time").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(replies, jobs);
}

/// A caller on each way in, for another machine, who must notice nothing.
fn others(ways: &[Target]) -> (JoinSet<()>, Arc<AtomicBool>, Arc<AtomicU64>) {
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut callers = JoinSet::new();
    for (number, way) in ways.iter().cloned().enumerate() {
        let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
        callers.spawn(async move {
            let caller = number as u64 + 2;
            let mut handed_over = 0;
            let next = || {
                handed_over += 1;
                (!stop.load(Ordering::Relaxed)).then(|| (handed_over, callers::payload(caller, handed_over, 300)))
            };
            let on_answer = |number, told: Told<'_>| {
                assert!(
                    told == Told::Replied(&callers::payload(caller, number, 300)),
                    "job {number} on {way}: {told:?}"
                );
                served.fetch_add(1, Ordering::Relaxed);
            };
            callers::run(&way, "steady", 2, next, on_answer).await.unwrap_or_else(|error| panic!("{error}"));
        });
    }
    (callers, stop, served)
}
