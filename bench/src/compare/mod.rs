//! `seeway-bench compare`: the gateway against every other way to the same machine, in one run, with a verdict for each row of the
//! table that it has to reach.
//!
//! What is compared is measured in turn within each round; what disturbs the machine then disturbs both, and a bar's figure is the
//! median of the rounds' ratios.

mod bars;
mod crowd;
mod host;
mod instructions;
mod plot;
mod process;
mod program;
mod report;
mod scene;
mod sharing;
mod start;
mod statistics;
mod throughput;
mod ways;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::Serialize;

pub use bars::{Bar, Sense};
pub use host::Host;
pub use report::PAGE;
pub use scene::Socket;
pub use statistics::{Spread, ratios};
pub use ways::{Part, Peer, Sample, Shape};

use crate::{Load, Report, Until};
use scene::Scene;

/// What to compare.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Shorter, with wider error bars.
    pub quick: bool,
    /// The table's rows to measure; all of them where there is none.
    pub only: BTreeSet<u8>,
    /// The gateway's program; where there is none it is looked for, or built.
    pub program: Option<PathBuf>,
    /// The kind of socket that callers reach tunnels and the gateway by.
    pub socket: Socket,
    /// Rounds, where not the usual number of them.
    pub rounds: Option<usize>,
    /// How long each measurement takes, where not as long as usual.
    pub time: Option<Duration>,
}

/// How often and how long.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Plan {
    /// How often each thing is measured.
    pub rounds: usize,
    /// For how long jobs are sent before each measurement.
    #[serde(rename = "warm_up_seconds", serialize_with = "seconds")]
    pub warm_up: Duration,
    /// How long each measurement takes.
    #[serde(rename = "measured_seconds", serialize_with = "seconds")]
    pub time: Duration,
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

impl Plan {
    fn of(options: &Options) -> Self {
        let (rounds, milliseconds) = if options.quick { (5, 400) } else { (9, 1000) };
        let (rounds, time) =
            (options.rounds.unwrap_or(rounds), options.time.unwrap_or(Duration::from_millis(milliseconds)));
        Self { rounds, time, warm_up: time / 4 }
    }

    fn timed(&self, load: Load) -> Load {
        Load { warm_up: self.warm_up, until: Until::Elapsed(self.time), ..load }
    }
}

/// Is told each measurement: its round, its name, and what came of it.
type Tell<'a> = dyn Fn(usize, &str, &Report) + 'a;

/// What came of a row that has loads of its own.
struct Seen {
    /// What was measured, by name; a name comes once in each round.
    reports: Vec<(String, Report)>,
    bars: Vec<Bar>,
}

/// Measures such a row.
type Row = fn(&Scene, &Plan, &Tell<'_>) -> anyhow::Result<Seen>;

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Where it ran.
    pub machine: Host,
    /// How.
    pub plan: Plan,
    /// The kind of socket that callers reached tunnels and the gateway by.
    pub socket: Socket,
    /// How long it took, in seconds.
    pub took_seconds: f64,
    /// The cipher with which OpenSSH was the fastest.
    pub best_cipher: Option<&'static str>,
    /// Threads with which the tonic echo was the fastest.
    pub tonic_threads: BTreeMap<&'static str, usize>,
    /// Everything that was measured.
    pub measurements: Vec<Measurement>,
    /// Each requirement.
    pub bars: Vec<Bar>,
}

/// One thing that was measured, over all rounds.
#[derive(Debug, Serialize)]
pub struct Measurement {
    /// What was measured.
    pub name: String,
    /// The way, where it is one of those that are compared.
    pub peer: Option<Peer>,
    /// Connections.
    pub callers: usize,
    /// Jobs that each kept in flight, or in an open loop could have there.
    pub in_flight: usize,
    /// Jobs sent each second in an open loop.
    pub rate: Option<f64>,
    /// Jobs answered each second.
    pub jobs_per_second: Option<Spread>,
    /// Latency within which half of the jobs were answered, in microseconds.
    pub p50_us: Option<Spread>,
    /// Latency within which 99 % of the jobs were answered, in microseconds.
    pub p99_us: Option<Spread>,
    /// Latency within which 99.9 % of the jobs were answered, in microseconds.
    pub p99_9_us: Option<Spread>,
    /// Processor time for each job, in microseconds, by process.
    pub cpu_us: BTreeMap<Part, Spread>,
    /// By round.
    pub rounds: Vec<Sample>,
}

impl Measurement {
    /// Of at least one round.
    fn new(name: impl Into<String>, peer: Option<Peer>, rounds: Vec<Sample>) -> Option<Self> {
        let spread = |figure: fn(&Report) -> f64| Spread::of(rounds.iter().map(|sample| figure(&sample.report)));
        let parts: BTreeSet<Part> = rounds.iter().flat_map(|sample| sample.cpu_us.keys().copied()).collect();
        let cpu = |part: &Part| Spread::of(rounds.iter().filter_map(|sample| sample.cpu_us.get(part).copied()));
        let first = &rounds.first()?.report;
        Some(Self {
            name: name.into(),
            peer,
            callers: first.callers,
            in_flight: first.in_flight,
            rate: first.rate,
            jobs_per_second: spread(|report| report.jobs_per_second),
            p50_us: spread(|report| report.p50_us),
            p99_us: spread(|report| report.p99_us),
            p99_9_us: spread(|report| report.p99_9_us),
            cpu_us: parts.iter().filter_map(|part| Some((*part, cpu(part)?))).collect(),
            rounds,
        })
    }

    /// One for each name, of the rounds in their order.
    fn grouped(reports: Vec<(String, Report)>) -> Vec<Self> {
        let mut groups: Vec<(String, Vec<Sample>)> = Vec::new();
        for (name, mut report) in reports {
            report.way.clone_from(&name);
            let sample = Sample { report, cpu_us: BTreeMap::new() };
            match groups.iter_mut().find(|(group, _)| *group == name) {
                Some((_, samples)) => samples.push(sample),
                None => groups.push((name, vec![sample])),
            }
        }
        groups.into_iter().filter_map(|(name, samples)| Self::new(name, None, samples)).collect()
    }
}

/// Runs it. Fails where something does not start or a job fails; a bar that is missed is a result.
pub fn run(options: &Options) -> anyhow::Result<Comparison> {
    let began = Instant::now();
    let plan = Plan::of(options);
    let wanted = |row: u8| options.only.is_empty() || options.only.contains(&row);
    let tell = |round: usize, name: &str, report: &Report| {
        eprintln!("{:>5.0} s  round {}  {name:<44} {report}", began.elapsed().as_secs_f64(), round + 1);
    };
    let program = options.program.clone().map_or_else(|| program::find(program::SEEWAY), Ok)?;
    let mut machine = Host::look(&program);
    let scene = Scene::start(program, options.socket)?;
    let (mut measurements, mut bars) = (Vec::new(), Vec::new());

    let ways = throughput::run(&scene, &plan, &wanted, options.only.is_empty(), &tell)?;
    measurements.extend(ways.measurements);
    bars.extend(ways.bars);
    let rows: [(u8, Row); 4] = [(10, sharing::bulk), (11, sharing::greedy), (12, crowd::idle), (13, crowd::busy)];
    for (_, row) in rows.into_iter().filter(|(row, _)| wanted(*row)) {
        let seen = row(&scene, &plan, &tell)?;
        measurements.extend(Measurement::grouped(seen.reports));
        bars.extend(seen.bars);
    }
    if wanted(14) {
        bars.extend(instructions::run());
    }
    if wanted(16) {
        bars.extend(start::run(&scene, &plan)?);
    }
    bars.sort_by_key(|bar| bar.row);
    machine.end();
    Ok(Comparison {
        machine,
        plan,
        socket: options.socket,
        took_seconds: began.elapsed().as_secs_f64(),
        best_cipher: ways.cipher,
        tonic_threads: ways.tonic_threads,
        measurements,
        bars,
    })
}
