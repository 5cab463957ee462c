//! A gateway with a good machine, two callers that behave, and an attack on it, measured.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::cost::{Cost, forget_peak};
use super::victim::{Latencies, Victim};
use crate::{Config, Gateway, Identity, Machine, wait};

/// How long callers are measured at a time, without the attack and then with it.
const WINDOW: Duration = Duration::from_millis(250);
/// How often. What counts is the median over these.
const ROUNDS: usize = 3;
/// Measurements before the claim is given up: somebody else's work may slow any one of them.
const TRIES: usize = 3;
/// Latencies of a few hundred microseconds vary by this much on a machine with two cores, on which the attacker has to live, too.
const NOISE_US: u64 = 2_000;
/// The same as a multiple of what half of the jobs take alone: where all is slower, as the machine is slow or busy,
/// they vary by as much more. Where half of them take 200 µs both are the same.
const NOISE_P50S: u64 = 10;

/// The world that the callers who behave use; on the machine `good`.
pub const WORLD: &str = "w";

/// A gateway under attack.
pub struct Scene {
    /// The gateway.
    pub gateway: Gateway,
    /// Whom the machines let in.
    pub identity: Identity,
    machine: Machine,
    /// Files that the gateway holds open when nobody is connected, with the two that a connect takes to a machine that does not behave.
    files_at_rest: usize,
}

/// What an attack may cost.
pub struct Assault {
    /// The attack's name in the table.
    pub name: &'static str,
    /// Its rate, in words.
    pub rate: &'static str,
    /// By how much the gateway's memory may grow, in KiB.
    pub memory: u64,
    /// How many more files it may hold open meanwhile.
    pub files: usize,
    /// How many cores it may use at most, in hundredths, beyond what the callers' own jobs take.
    pub cpu: u64,
}

/// Counts what an attacker does.
#[derive(Clone, Default)]
pub struct Tally(Arc<AtomicU64>);

impl Tally {
    /// So many more.
    pub fn add(&self, count: u32) {
        self.0.fetch_add(count.into(), Ordering::Relaxed);
    }

    /// All of them.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What was measured.
#[derive(Debug)]
pub struct Figures {
    /// What the attacker has done.
    pub blows: u64,
}

/// One caller's medians over the rounds, in microseconds.
#[derive(Clone, Copy)]
struct Noticed {
    p50: [u64; 2],
    p99: [u64; 2],
}

impl Scene {
    /// One machine, `good`, that echoes, and the world `w` on it; `with` adds to the configuration.
    pub fn new(with: impl FnOnce(Config, &Identity) -> Config) -> Self {
        Self::of(&["good"], with)
    }

    /// The same with the world `w` on these machines; `with` adds those that are not `good`.
    pub fn of(machines: &[&str], with: impl FnOnce(Config, &Identity) -> Config) -> Self {
        let identity = Identity::generate();
        let machine = Machine::start_with_ssh("echo", &identity, "127.0.0.1:0");
        let config = Config::new()
            .machine("good", machine.door(), machine.seejobs(), &identity, "")
            .world(WORLD, machines, "")
            .line("runtime", "shards = 1");
        let config = with(config, &identity);
        let gateway = Gateway::start(&config);
        gateway.until_up(&["good"]);
        let files_at_rest = gateway.open_files() + 2 * (config.machines().len() - 1);
        Self { gateway, identity, machine, files_at_rest }
    }

    /// Its gRPC front end's address.
    pub fn grpc(&self) -> String {
        self.gateway.grpc().to_string().trim_start_matches("grpc://").to_owned()
    }

    /// Its hardserver port's address.
    pub fn legacy(&self) -> String {
        self.gateway.tcp4().to_string().trim_start_matches("tcp:").to_owned()
    }

    /// The good machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Measures callers that behave without an attack and with it in turns, and what it costs the gateway; prints a row of the table, and
    /// panics where a bound is not kept. `attack` is begun anew in each round, and dropped at its end.
    pub async fn under<F: Future<Output = ()> + Send + 'static>(
        &self,
        assault: &Assault,
        attack: impl Fn(Tally) -> F,
    ) -> Figures {
        let victims = [self.gateway.unix(), self.gateway.grpc()].map(|target| Victim::start(target, WORLD));
        // Connections, caches, and whatever else there is to warm up.
        window(&victims, Duration::from_millis(100)).await;
        let process = self.gateway.id();
        let rest = Cost::of(process);
        forget_peak(process);
        let mut files = 0;
        let tally = Tally::default();
        let mut tries = 0;
        loop {
            tries += 1;
            let mut measured: Vec<[[Latencies; 2]; 2]> = Vec::new();
            let mut cpu = [Duration::ZERO; 2];
            let mut lasted = [Duration::ZERO; 2];
            for _ in 0..ROUNDS {
                let mut of_round = Vec::new();
                for with in [false, true] {
                    let (begun, before) = (Instant::now(), Cost::of(process).cpu);
                    let attacker = with.then(|| tokio::spawn(attack(tally.clone())));
                    of_round.push(window(&victims, WINDOW).await);
                    cpu[usize::from(with)] += Cost::of(process).cpu.saturating_sub(before);
                    lasted[usize::from(with)] += begun.elapsed();
                    if let Some(attacker) = attacker {
                        files = files.max(self.gateway.open_files());
                        attacker.abort();
                        if let Err(ended) = attacker.await
                            && ended.is_panic()
                        {
                            std::panic::resume_unwind(ended.into_panic());
                        }
                    }
                }
                measured.push(of_round.try_into().unwrap_or_else(|_| panic!("alone, and attacked")));
            }
            let noticed = [0, 1].map(|victim| Noticed::of(&measured, victim));
            let is_borne = noticed.iter().all(Noticed::is_borne);
            let cores = [0, 1].map(|with| 100 * cpu[with].as_millis() / lasted[with].as_millis().max(1));
            let grown = Cost::of(process).peak.saturating_sub(rest.resident);
            let more_files = files.saturating_sub(self.files_at_rest);
            let jobs: usize = measured.iter().flatten().flatten().map(Latencies::count).sum();
            let [legacy, grpc] = noticed.map(|noticed| noticed.to_string());
            println!(
                "| {} | {} | +{grown} KiB | {} % → {} % of a core | +{more_files} | {legacy} | {grpc} |\n  ({} blows, {jobs} jobs, try {tries})",
                assault.name,
                assault.rate,
                cores[0],
                cores[1],
                tally.count()
            );
            assert!(
                grown <= assault.memory,
                "{}: memory grew by {grown} KiB; {} are allowed",
                assault.name,
                assault.memory
            );
            assert!(
                more_files <= assault.files,
                "{}: {more_files} more files; {} are allowed",
                assault.name,
                assault.files
            );
            let cpu = cores[1].saturating_sub(cores[0]);
            assert!(cpu <= assault.cpu.into(), "{}: {cpu} % of a core; {} are allowed", assault.name, assault.cpu);
            if is_borne {
                break;
            }
            assert!(tries < TRIES, "{}: other callers wait more than twice as long: {legacy}, {grpc}", assault.name);
        }
        drop(victims);
        assert!(tally.count() > 0, "{}: nothing was done", assault.name);
        self.until_at_rest();
        Figures { blows: tally.count() }
    }

    /// Waits until nothing is left of those who came.
    pub fn until_at_rest(&self) {
        self.gateway.until_idle(wait::BOUND);
        wait::until("all connections are closed", wait::BOUND, || {
            (self.gateway.open_files() <= self.files_at_rest).then_some(())
        });
    }

    /// A sum over one of the gateway's metrics.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        self.gateway.metrics().sum_where(name, label)
    }
}

/// One window of both callers.
async fn window(victims: &[Victim; 2], length: Duration) -> [Latencies; 2] {
    for victim in victims {
        victim.begin(length);
    }
    // The runtime is the attacker's meanwhile.
    tokio::time::sleep(length).await;
    tokio::task::block_in_place(|| [victims[0].end(), victims[1].end()])
}

impl Noticed {
    fn of(rounds: &[[[Latencies; 2]; 2]], victim: usize) -> Self {
        let median = |with: usize, share| {
            let mut of_rounds: Vec<u64> = rounds.iter().map(|round| round[with][victim].permille(share)).collect();
            of_rounds.sort_unstable();
            of_rounds[of_rounds.len() / 2]
        };
        Self { p50: [median(0, 500), median(1, 500)], p99: [median(0, 990), median(1, 990)] }
    }

    /// At most twice what it is alone, or no more above that than noise.
    fn is_borne(&self) -> bool {
        let [alone, attacked] = self.p99;
        let noise = NOISE_US.max(NOISE_P50S * self.p50[0]);
        attacked <= (2 * alone).max(alone + noise)
    }
}

impl std::fmt::Display for Noticed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { p50, p99 } = self;
        let ms = |us: u64| format!("{}.{:02}", us / 1000, us % 1000 / 10);
        write!(f, "{} / {} → {} / {} ms", ms(p50[0]), ms(p99[0]), ms(p50[1]), ms(p99[1]))
    }
}
