//! A thousand callers vanish with jobs queued and in flight, while machines, SSH servers and the network fail. The gateway serves the
//! others all the while, and keeps nothing of those who are gone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use seeway_bench::Target;
use seeway_tests::{
    Config, Door, Gateway, Identity, Machine, Sshd,
    callers::{self, Told},
    network::Network,
    turn::Turn,
    wait,
};
use tokio::{sync::watch, task::JoinSet};

const DISCONNECTS: usize = 1_000;
/// Callers that come and go between one fault and the next.
const ROUND: usize = 100;
/// Of all callers together more than the machine has places for, so that some wait in the queue and some are in flight.
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
    let tasks_before = gateway.metrics().sum("seeway_tasks");

    let (others, stop, served) = others(&ways);
    for round in 0..DISCONNECTS / ROUND {
        gateway.until_up(&["troubled"]);
        let (vanish, told) = watch::channel(false);
        let mut vanishing = JoinSet::new();
        for number in 0..ROUND {
            vanishing.spawn(hand_over_and_vanish(ways[number % ways.len()].clone(), told.clone()));
        }
        wait::until("jobs wait behind as many as may be in flight", wait::BOUND, || {
            let metrics = gateway.metrics();
            let of_troubled = |name, label| metrics.sum_where(name, label) > 0.5;
            (of_troubled("seeway_jobs_in_flight", "machine=\"troubled\"")
                && of_troubled("seeway_jobs_queued", "world=\"troubled\""))
            .then_some(())
        });
        match round % 4 {
            0 => machine.kill(),
            1 => sshd.kill(),
            2 => network.cut(),
            _ => {}
        }
        vanish.send_replace(true);
        assert_eq!(vanishing.join_all().await.len(), ROUND);
        let before = served.load(Ordering::Relaxed);
        wait::until_async("the others are served meanwhile", wait::BOUND, || async {
            (served.load(Ordering::Relaxed) > before + 100).then_some(())
        })
        .await;
        match round % 4 {
            0 => machine.start_again(),
            1 => sshd.start_again(),
            2 => network.mend(),
            _ => {}
        }
    }
    stop.store(true, Ordering::Relaxed);
    let ended = tokio::time::timeout(wait::BOUND, others.join_all()).await;
    assert!(ended.is_ok(), "the others do not get their last answers");

    gateway.until_idle(Duration::from_secs(60));
    gateway.until_up(config.machines());
    wait::until("no socket is left over", wait::BOUND, || (gateway.open_files() <= files_before).then_some(()));
    wait::until("no task is left over", wait::BOUND, || {
        (gateway.metrics().sum("seeway_tasks") < tasks_before + 0.5).then_some(())
    });
    // Every place at the machine can be used again: no tag is lost.
    for way in &ways {
        answered(way, "troubled", 4 * MAX_IN_FLIGHT as u64).await;
    }
    gateway.until_idle(wait::BOUND);
}

/// Connects, hands over jobs, and is gone as soon as it is told, whatever has or has not been answered by then.
async fn hand_over_and_vanish(way: Target, mut told: watch::Receiver<bool>) {
    let mut numbers = 0..JOBS_FOR_EACH;
    let in_flight = usize::try_from(JOBS_FOR_EACH).expect("a small number");
    let next = || numbers.next().map(|number| (number, callers::payload(0, number, 500)));
    tokio::select! {
        ended = callers::run(&way, "troubled", in_flight, next, |_, _| ()) => {
            ended.unwrap_or_else(|error| panic!("{way}: {error}"));
        }
        vanish = told.wait_for(|vanish| *vanish) => {
            vanish.expect("the test tells it before it ends");
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
