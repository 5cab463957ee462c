//! The demonstration's second act: a machine is killed and revived while jobs flow, and every job is accounted for.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use seeway_client::grpc::{JobStream, SubmitOptions};
use seeway_client::hardserver::World;
use seeway_client::{JobError, Reply};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::load::{Keys, PATIENCE, address, connect, failed, signer};
use super::stage::{MACHINES, Stage, WORLD};
use crate::command::Failure;
use crate::command::table::write_table;

/// The place in [`MACHINES`] of the one that is killed.
const VICTIM: usize = 1;

/// Jobs in flight at each front end.
const IN_FLIGHT: u32 = 16;

/// How long each part is, the time that the machine takes to come back not counted.
const PART: Duration = Duration::from_millis(800);

/// How many jobs the machine should hold when it dies, so that there is something to see.
const SHOWN_JOBS: usize = 8;

/// How long the revived machine has to get its first job.
const REVIVAL: Duration = Duration::from_secs(15);

/// How often is looked whether it has.
const LOOK: Duration = Duration::from_millis(10);

/// The parts, by when a job's outcome is told.
const PARTS: [&str; 3] = ["both up", "hsm-b killed", "hsm-b revived"];
const KILLED: usize = 1;

/// What became of the jobs of one part.
#[derive(Debug, Default, Clone)]
struct Part {
    took: Duration,
    /// Replies with a good signature, by whose it is.
    signed: BTreeMap<&'static str, usize>,
    /// Jobs that the gateway sent again.
    sent_again: u64,
    /// Outcomes that leave it open whether the job ran.
    unknown: usize,
    /// Jobs that certainly did not run.
    did_not_run: usize,
    /// Replies that no machine signed.
    bad: usize,
}

impl Part {
    fn jobs(&self) -> usize {
        self.signed.values().sum::<usize>() + self.unknown + self.did_not_run + self.bad
    }

    fn signed_by(&self, machine: &str) -> usize {
        self.signed.get(machine).copied().unwrap_or_default()
    }
}

/// What became of all of them.
#[derive(Debug)]
pub(super) struct Told {
    parts: [Part; PARTS.len()],
    /// An example of what went wrong.
    failure: Option<String>,
}

impl Told {
    /// Whether nothing went wrong: the only jobs without a signature are those that the machine held when it was killed.
    pub(super) fn is_good(&self) -> bool {
        let went_well = |(number, part): (usize, &Part)| {
            part.bad == 0 && part.did_not_run == 0 && (part.unknown == 0 || number == KILLED) && !part.signed.is_empty()
        };
        self.parts.iter().enumerate().all(went_well)
    }

    /// The table for people.
    pub(super) fn report(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let [spared, victim] = MACHINES;
        let rows = self.parts.iter().zip(PARTS).map(|(part, name)| {
            [
                name.to_owned(),
                format!("{:.1} s", part.took.as_secs_f64()),
                part.jobs().to_string(),
                part.signed_by(spared).to_string(),
                part.signed_by(victim).to_string(),
                part.sent_again.to_string(),
                part.unknown.to_string(),
                part.did_not_run.to_string(),
                part.bad.to_string(),
            ]
        });
        let heads = [
            "a machine dies",
            "for",
            "jobs",
            "signed by hsm-a",
            "by hsm-b",
            "sent again",
            "outcome unknown",
            "not run",
            "wrong",
        ];
        writeln!(out)?;
        write_table(out, heads, &rows.collect::<Vec<_>>())?;
        let unknown: usize = self.parts.iter().map(|part| part.unknown).sum();
        let sent_again: u64 = self.parts.iter().map(|part| part.sent_again).sum();
        writeln!(
            out,
            "\nof the jobs that {victim} held when it was killed {sent_again} were sent again, since they were marked idempotent; {unknown} have \
             an unknown outcome:\ntheir callers were told that they may have run"
        )?;
        if let Some(failure) = &self.failure {
            writeln!(out, "failed: {failure}")?;
        }
        Ok(())
    }

    /// The table for programs.
    pub(super) fn as_json(&self) -> Value {
        let part = |(part, name): (&Part, &str)| {
            json!({
                "part": name,
                "seconds": part.took.as_secs_f64(),
                "jobs": part.jobs(),
                "signed": part.signed,
                "sent_again": part.sent_again,
                "outcome_unknown": part.unknown,
                "did_not_run": part.did_not_run,
                "wrong": part.bad,
            })
        };
        json!({ "machine": MACHINES[VICTIM], "parts": self.parts.iter().zip(PARTS).map(part).collect::<Vec<_>>() })
    }
}

/// A front end, for one of several tasks.
#[derive(Clone)]
enum Way {
    /// Its jobs are not idempotent.
    Legacy(World),
    /// Its jobs are.
    Stream(JobStream),
}

impl Way {
    async fn send(&self, job: &str) -> Result<Reply, JobError> {
        match self {
            Self::Legacy(world) => world.submit_within(job.as_bytes(), PATIENCE).await,
            Self::Stream(stream) => {
                let options = SubmitOptions { timeout: Some(PATIENCE), idempotent: true, ..SubmitOptions::default() };
                Ok(stream.submit(WORLD, job.to_owned(), &options).await?.reply)
            }
        }
    }
}

/// What the senders share.
struct Ledger {
    keys: Keys,
    part: AtomicUsize,
    is_over: AtomicBool,
    told: Mutex<Told>,
}

impl Ledger {
    fn told(&self) -> MutexGuard<'_, Told> {
        // Counters are whole at every step.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, job: &str, result: Result<Reply, JobError>) {
        let number = self.part.load(Ordering::Relaxed);
        let signer = result.map(|signature| signer(&self.keys, job, &signature, None));
        let mut told = self.told();
        let part = &mut told.parts[number];
        let failure = match signer {
            Ok(Some(machine)) => {
                *part.signed.entry(machine).or_default() += 1;
                return;
            }
            Ok(None) => {
                part.bad += 1;
                "the reply is no signature of the job".to_owned()
            }
            Err(error) if error.may_have_run() => {
                part.unknown += 1;
                if number == KILLED {
                    return;
                }
                error.to_string()
            }
            Err(error) => {
                part.did_not_run += 1;
                error.to_string()
            }
        };
        told.failure.get_or_insert(failure);
    }

    fn signed_by_victim(&self, number: usize) -> usize {
        self.told().parts[number].signed_by(MACHINES[VICTIM])
    }
}

/// Has jobs flow through both front ends, kills a machine, revives it, and waits until it works again.
pub(super) async fn play(stage: &Stage, keys: &Keys) -> Result<Told, Failure> {
    let told = Told { parts: Default::default(), failure: None };
    let ledger = Arc::new(Ledger {
        keys: keys.clone(),
        part: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
        told: Mutex::new(told),
    });
    let mut senders = JoinSet::new();
    for (name, way) in ways(stage).await? {
        for number in 0..IN_FLIGHT {
            senders.spawn(send(format!("{name} {number}"), way.clone(), ledger.clone()));
        }
    }
    for number in 0..PARTS.len() {
        let again = stage.sent_again().await;
        if number == KILLED {
            until_it_holds_jobs(stage).await;
        }
        let began = Instant::now();
        ledger.part.store(number, Ordering::Relaxed);
        if number == KILLED {
            stage.machine(VICTIM).kill();
        }
        tokio::time::sleep(PART).await;
        if number == KILLED {
            stage.machine(VICTIM).restart().map_err(failed)?;
            if !stage.is_whole().await {
                return Err(Failure::Failed(format!("{} was revived, and not seen again", MACHINES[VICTIM])));
            }
        } else {
            until_it_signs(&ledger, number).await?;
        }
        let sent_again = stage.sent_again().await.saturating_sub(again);
        let mut told = ledger.told();
        told.parts[number].took = began.elapsed();
        told.parts[number].sent_again = sent_again;
    }
    ledger.is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = senders.join_next().await {
        ended.map_err(failed)?;
    }
    let told = std::mem::replace(&mut *ledger.told(), Told { parts: Default::default(), failure: None });
    Ok(told)
}

async fn ways(stage: &Stage) -> Result<Vec<(&'static str, Way)>, Failure> {
    let addresses = stage.addresses();
    let mut ways = Vec::new();
    if let Some(legacy) = addresses.hardserver.first() {
        let world = connect(&address(legacy)).await?.world(WORLD).await.map_err(failed)?;
        ways.push(("legacy", Way::Legacy(world)));
    }
    if let Some(gateway) = stage.grpc().await? {
        ways.push(("gRPC", Way::Stream(gateway.stream())));
    }
    Ok(ways)
}

async fn send(name: String, way: Way, ledger: Arc<Ledger>) {
    let mut number = 0;
    while !ledger.is_over.load(Ordering::Relaxed) {
        number += 1;
        let job = format!("{name}: payment {number}");
        let result = way.send(&job).await;
        ledger.enter(&job, result);
    }
}

/// A machine that dies between two batches of jobs takes none with it, and shows nothing: waits a little for a better moment.
async fn until_it_holds_jobs(stage: &Stage) {
    let began = Instant::now();
    while stage.machine(VICTIM).jobs() < SHOWN_JOBS && began.elapsed() < PART {
        tokio::task::yield_now().await;
    }
}

async fn until_it_signs(ledger: &Ledger, number: usize) -> Result<(), Failure> {
    let signs = async {
        while ledger.signed_by_victim(number) == 0 {
            tokio::time::sleep(LOOK).await;
        }
    };
    let soon = tokio::time::timeout(REVIVAL, signs).await;
    soon.map_err(|_| Failure::Failed(format!("{} is up and got no job within {REVIVAL:?}", MACHINES[VICTIM])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(change: impl FnOnce(&mut [Part; PARTS.len()])) -> Told {
        let part = Part { signed: BTreeMap::from([(MACHINES[0], 10)]), ..Part::default() };
        let mut parts = [part.clone(), part.clone(), part];
        change(&mut parts);
        Told { parts, failure: None }
    }

    #[test]
    fn only_the_jobs_that_the_victim_held_may_have_an_unknown_outcome() {
        assert!(told(|_| ()).is_good());
        assert!(told(|parts| parts[KILLED].unknown = 3).is_good());
        assert!(!told(|parts| parts[0].unknown = 1).is_good());
        assert!(!told(|parts| parts[2].unknown = 1).is_good());
    }

    #[test]
    fn jobs_without_a_reply_or_with_a_wrong_one_are_not_good() {
        assert!(!told(|parts| parts[KILLED].did_not_run = 1).is_good());
        assert!(!told(|parts| parts[2].bad = 1).is_good());
        assert!(!told(|parts| parts[2].signed.clear()).is_good());
    }

    #[test]
    fn the_names_of_the_parts_and_heads_are_those_of_the_machines() {
        assert_eq!(MACHINES, ["hsm-a", "hsm-b"]);
        assert!(PARTS[KILLED].starts_with(MACHINES[VICTIM]));
    }
}
