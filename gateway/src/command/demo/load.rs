//! The demonstration's jobs: sent through each way in, each reply verified, each timed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use seeway_client::grpc::{Gateway, JobStream, SubmitOptions};
use seeway_client::hardserver::{Address, Hardserver, World};
use seeway_client::stream::Options;
use seeway_client::{JobError, Reply};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::fault;
use super::stage::{MACHINES, Stage, WORLD};
use crate::command::Failure;
use crate::config::HardserverAddress;

/// Legacy connections, and jobs in flight on each: as a service with worker threads has them.
const CONNECTIONS: u32 = 8;
const IN_FLIGHT: u32 = 8;

/// How long one job may take before it counts as failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How many failures are told in words.
const TOLD_FAILURES: usize = 5;

/// What came of the jobs of one way in.
#[derive(Debug, Default)]
pub(super) struct Measured {
    way: String,
    pub(super) verified: usize,
    failed: usize,
    pub(super) failures: Vec<String>,
    /// From before a job was sent to after its reply had come.
    latencies: Vec<Duration>,
    took: Duration,
}

impl Measured {
    pub(super) fn is_good(&self) -> bool {
        self.failed == 0 && self.verified > 0
    }

    fn add(&mut self, other: Self) {
        self.verified += other.verified;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.truncate(TOLD_FAILURES);
        self.latencies.extend(other.latencies);
    }

    fn fail(&mut self, why: &dyn std::fmt::Display) {
        self.failed += 1;
        if self.failures.len() < TOLD_FAILURES {
            self.failures.push(format!("{}: {why}", self.way));
        }
    }

    /// The latency that this share of the jobs does not exceed; `latencies` is sorted.
    fn percentile(&self, share: f64) -> Duration {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let place = (self.latencies.len() as f64 * share).ceil() as usize;
        self.latencies.get(place.saturating_sub(1)).copied().unwrap_or_default()
    }

    fn rate(&self) -> f64 {
        #[allow(clippy::cast_precision_loss)] // Far below 2^52.
        let jobs = self.latencies.len() as f64;
        jobs / self.took.as_secs_f64().max(1e-9)
    }

    pub(super) fn row(&self) -> [String; 8] {
        let shown = |latency: Duration| format!("{:.2} ms", latency.as_secs_f64() * 1e3);
        [
            self.way.clone(),
            (self.verified + self.failed).to_string(),
            self.verified.to_string(),
            self.failed.to_string(),
            format!("{:.0}", self.rate()),
            shown(self.percentile(0.5)),
            shown(self.percentile(0.99)),
            shown(self.percentile(0.999)),
        ]
    }
}

/// The table for programs; latencies in seconds.
pub(super) fn as_json(measured: &[Measured], fault: &fault::Told) -> Value {
    let way = |measured: &Measured| {
        json!({
            "way": measured.way,
            "jobs": measured.verified + measured.failed,
            "verified": measured.verified,
            "failed": measured.failed,
            "jobs_per_second": measured.rate(),
            "p50": measured.percentile(0.5).as_secs_f64(),
            "p99": measured.percentile(0.99).as_secs_f64(),
            "p99_9": measured.percentile(0.999).as_secs_f64(),
        })
    };
    json!({ "ways": measured.iter().map(way).collect::<Vec<_>>(), "fault": fault.as_json() })
}

/// The machines' public keys, by the machines' names.
pub(super) type Keys = Arc<Vec<(&'static str, UnparsedPublicKey<Vec<u8>>)>>;

/// One way in, for one of several tasks.
#[derive(Clone)]
#[allow(clippy::large_enum_variant)] // There are a few of them.
enum Way {
    Legacy(World),
    Submit(Gateway),
    Stream(JobStream),
}

impl Way {
    /// The reply, and the machine that it is from where that is told.
    async fn send(&self, job: String) -> Result<(Reply, Option<String>), JobError> {
        let options = SubmitOptions { timeout: Some(PATIENCE), ..SubmitOptions::default() };
        let completed = match self {
            Self::Legacy(world) => return Ok((world.submit_within(job.as_bytes(), PATIENCE).await?, None)),
            Self::Submit(gateway) => gateway.submit(WORLD, job, &options).await?,
            Self::Stream(stream) => stream.submit(WORLD, job, &options).await?,
        };
        Ok((completed.reply, Some(completed.machine)))
    }
}

/// Sends `jobs` jobs through each way in, one way after the other.
pub(super) async fn send(stage: &Stage, jobs: u32, keys: &Keys) -> Result<Vec<Measured>, Failure> {
    let addresses = stage.addresses();
    let legacy: Vec<Address> = addresses.hardserver.iter().map(address).collect();
    let mut measured = Vec::new();
    for address in &legacy {
        let mut ways = Vec::new();
        for _ in 0..CONNECTIONS {
            let world = connect(address).await?.world(WORLD).await.map_err(failed)?;
            ways.push(Way::Legacy(world));
        }
        let name = format!("hardserver, {}", if matches!(address, Address::Unix(_)) { "Unix socket" } else { "TCP" });
        measured.push(measure(name, ways, jobs, keys).await);
    }
    if let Some(gateway) = stage.grpc().await? {
        let stream = gateway.stream();
        measured.push(measure("gRPC, Submit".to_owned(), vec![Way::Submit(gateway)], jobs, keys).await);
        measured.push(measure("gRPC, Stream".to_owned(), vec![Way::Stream(stream)], jobs, keys).await);
    }
    Ok(measured)
}

/// Keeps 64 jobs in flight, over however many connections there are.
async fn measure(name: String, ways: Vec<Way>, jobs: u32, keys: &Keys) -> Measured {
    let next = Arc::new(AtomicU32::new(0));
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for number in 0..CONNECTIONS * IN_FLIGHT {
        let way = ways[number as usize % ways.len()].clone();
        tasks.spawn(send_some(name.clone(), way, next.clone(), jobs, keys.clone()));
    }
    let mut all = Measured { way: name, ..Measured::default() };
    while let Some(some) = tasks.join_next().await {
        match some {
            Ok(some) => all.add(some),
            Err(panic) => all.fail(&panic),
        }
    }
    all.took = began.elapsed();
    all.latencies.sort_unstable();
    all
}

async fn send_some(name: String, way: Way, next: Arc<AtomicU32>, jobs: u32, keys: Keys) -> Measured {
    let mut measured = Measured { way: name, ..Measured::default() };
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= jobs {
            return measured;
        }
        let job = format!("invoice {number}: pay 100 EUR");
        let began = Instant::now();
        match way.send(job.clone()).await {
            Ok((signature, machine)) => {
                measured.latencies.push(began.elapsed());
                if signer(&keys, &job, &signature, machine.as_deref()).is_some() {
                    measured.verified += 1;
                } else {
                    measured.fail(&"the reply is no signature of the job by the machine");
                }
            }
            Err(error) => measured.fail(&error),
        }
    }
}

/// Whose signature of `job` it is: of `machine`, where that is told, or of any.
pub(super) fn signer(keys: &Keys, job: &str, signature: &Reply, machine: Option<&str>) -> Option<&'static str> {
    keys.iter()
        .filter(|(name, _)| machine.is_none_or(|machine| machine == *name))
        .find(|(_, key)| key.verify(job.as_bytes(), signature.as_bytes()).is_ok())
        .map(|(name, _)| *name)
}

/// Asks each machine for its public key.
pub(super) async fn public_keys(stage: &Stage) -> Result<Keys, Failure> {
    let first = stage.addresses().hardserver.first().map(address);
    let first = first.ok_or_else(|| Failure::Failed("the stage has no legacy front end".to_owned()))?;
    let gateway = connect(&first).await?;
    let mut keys = Vec::new();
    for machine in MACHINES {
        let world = gateway.world(machine).await.map_err(failed)?;
        let key = world.submit_within(b"pubkey", PATIENCE).await.map_err(failed)?;
        keys.push((machine, UnparsedPublicKey::new(&ED25519, key.as_bytes().to_vec())));
    }
    Ok(Arc::new(keys))
}

pub(super) async fn connect(address: &Address) -> Result<Hardserver, Failure> {
    Hardserver::connect(address, Options::default()).await.map_err(failed)
}

pub(super) fn address(address: &HardserverAddress) -> Address {
    match address {
        HardserverAddress::Unix(path) => Address::Unix(path.clone()),
        HardserverAddress::Tcp(address) | HardserverAddress::Tls(address) => Address::Tcp(address.to_string()),
    }
}

pub(super) fn failed(error: impl std::error::Error) -> Failure {
    Failure::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_thousand() {
        let latencies = (1..=1000).map(Duration::from_millis).collect();
        let measured = Measured { latencies, ..Measured::default() };
        let of = |share| measured.percentile(share).as_millis();
        assert_eq!((of(0.5), of(0.99), of(0.999), of(1.0)), (500, 990, 999, 1000));
        assert_eq!(Measured::default().percentile(0.5), Duration::ZERO);
    }

    #[test]
    fn jobs_that_failed_or_that_were_none_are_not_good() {
        assert!(!Measured::default().is_good());
        assert!(Measured { verified: 1, ..Measured::default() }.is_good());
        let mut measured = Measured { verified: 1, ..Measured::default() };
        measured.fail(&"why");
        assert!(!measured.is_good());
    }
}
