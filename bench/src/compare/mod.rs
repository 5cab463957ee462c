//! `seeway-bench compare`: the gateway against every other way to the same machine, in one run, with a verdict for each row of the
//! table that it has to reach.

mod bars;
mod process;
mod program;
mod scene;
mod statistics;
mod throughput;
mod ways;

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use serde::Serialize;

pub use bars::{Bar, Sense};
pub use statistics::{Spread, ratios};
pub use ways::{Cell, Part, Peer, Sample, Shape};

use crate::{Load, Until};
use scene::Scene;

/// What to compare.
#[derive(Debug, Clone)]
pub struct Options {
    /// Shorter, with wider error bars.
    pub quick: bool,
    /// The table's rows to measure; all of them where there is none.
    pub only: BTreeSet<u8>,
    /// Where the report is written.
    pub output: Option<PathBuf>,
    /// The gateway's program; where there is none it is looked for, or built.
    pub program: Option<PathBuf>,
    /// Rounds, where not the usual number of them.
    pub rounds: Option<usize>,
    /// How long each measurement takes, where not as long as usual.
    pub time: Option<Duration>,
}

/// How often and how long.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    #[serde(rename = "warm_up_seconds", serialize_with = "seconds")]
    pub(crate) warm_up: Duration,
    #[serde(rename = "measured_seconds", serialize_with = "seconds")]
    pub(crate) time: Duration,
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

impl Plan {
    fn of(options: &Options) -> Self {
        let (rounds, time) =
            if options.quick { (5, Duration::from_millis(400)) } else { (7, Duration::from_millis(1500)) };
        let (rounds, time) = (options.rounds.unwrap_or(rounds), options.time.unwrap_or(time));
        Self { rounds, time, warm_up: time / 4 }
    }

    pub(crate) fn timed(&self, load: Load) -> Load {
        Load { warm_up: self.warm_up, until: Until::Elapsed(self.time), ..load }
    }
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Each way under each load.
    pub measurements: Vec<Measurement>,
    /// Each requirement.
    pub bars: Vec<Bar>,
}

/// One way under one load, over all rounds.
#[derive(Debug, Serialize)]
pub struct Measurement {
    /// What was measured.
    pub name: String,
    /// Connections.
    pub callers: usize,
    /// Jobs that each kept in flight.
    pub in_flight: usize,
    /// Jobs per second.
    pub jobs_per_second: Option<Spread>,
    /// Latency that half of the jobs kept, in microseconds.
    pub p50_us: Option<Spread>,
    /// Latency that 99 % of the jobs kept, in microseconds.
    pub p99_us: Option<Spread>,
    /// Latency that 99.9 % of the jobs kept, in microseconds.
    pub p99_9_us: Option<Spread>,
    /// By round.
    pub rounds: Vec<Sample>,
}

impl From<Cell> for Measurement {
    fn from(cell: Cell) -> Self {
        Self {
            name: cell.peer.name().to_owned(),
            callers: cell.shape.callers,
            in_flight: cell.shape.in_flight,
            jobs_per_second: cell.spread(|sample| sample.report.jobs_per_second),
            p50_us: cell.spread(|sample| sample.report.p50_us),
            p99_us: cell.spread(|sample| sample.report.p99_us),
            p99_9_us: cell.spread(|sample| sample.report.p99_9_us),
            rounds: cell.samples,
        }
    }
}

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<Comparison> {
    let plan = Plan::of(options);
    let wanted = |row: u8| options.only.is_empty() || options.only.contains(&row);
    let program = options.program.clone().map_or_else(program::seeway, Ok)?;
    let scene = Scene::start(program)?;
    let (cells, bars) = throughput::run(&scene, &plan, &wanted, options.only.is_empty())?;
    Ok(Comparison { measurements: cells.into_iter().map(Measurement::from).collect(), bars })
}
