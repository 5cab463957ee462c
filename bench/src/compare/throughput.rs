//! Rows 1 to 9 and 15: the same loads through each way, round by round.

use std::collections::BTreeMap;

use super::{
    Bar, Measurement, Plan,
    Sense::{self, AtLeast, AtMost},
    Tell, ratios,
    scene::{Scene, Socket},
    ways::{Part, Peer, Sample, Shape, Ways, shape},
};

/// A figure of a sample.
type Figure = fn(&Sample) -> f64;

const JOBS: Figure = |sample| sample.report.jobs_per_second;
const P50: Figure = |sample| sample.report.p50_us;
const P99: Figure = |sample| sample.report.p99_us;
const P99_9: Figure = |sample| sample.report.p99_9_us;
const CPU: Figure = |sample| sample.cpu_us.get(&Part::Front).copied().unwrap_or(f64::NAN);

/// Seeway under a load against a peer under the same load.
struct Requirement {
    row: u8,
    ours: Peer,
    theirs: Peer,
    shape: Shape,
    what: &'static str,
    figure: Figure,
    sense: Sense,
    required: f64,
}

#[rustfmt::skip]
const REQUIREMENTS: &[Requirement] = &[
    of(1, Peer::Legacy, Peer::Tunnel, shape(1, 64), "jobs/s", JOBS, AtLeast, 40.0),
    of(1, Peer::Legacy, Peer::Tunnel, shape(1, 64), "p99.9", P99_9, AtMost, 1.0 / 40.0),
    of(2, Peer::Legacy, Peer::BestTunnel, shape(1, 64), "jobs/s", JOBS, AtLeast, 1.1),
    of(2, Peer::Legacy, Peer::BestTunnel, shape(1, 64), "p99.9", P99_9, AtMost, 1.0),
    of(3, Peer::Legacy, Peer::BestTunnel, shape(1, 1), "p50", P50, AtMost, 0.95),
    of(3, Peer::Legacy, Peer::BestTunnel, shape(1, 1), "p99.9", P99_9, AtMost, 1.0),
    of(4, Peer::Legacy, Peer::BestTunnel, shape(32, 1), "jobs/s", JOBS, AtLeast, 2.5),
    of(4, Peer::Legacy, Peer::Blocking, shape(32, 1), "jobs/s", JOBS, AtLeast, 2.5),
    of(5, Peer::Legacy, Peer::BestTunnel, shape(64, 1), "jobs/s", JOBS, AtLeast, 3.5),
    of(6, Peer::Legacy, Peer::BestTunnel, shape(256, 1), "jobs/s", JOBS, AtLeast, 5.0),
    of(6, Peer::Legacy, Peer::BestTunnel, shape(256, 1), "p99", P99, AtMost, 0.25),
    of(7, Peer::Legacy, Peer::Plain, shape(256, 1), "jobs/s", JOBS, AtLeast, 1.2),
    of(8, Peer::GrpcStream, Peer::TonicStream, shape(1, 64), "jobs/s", JOBS, AtLeast, 0.5),
    of(9, Peer::GrpcUnary, Peer::TonicUnary, shape(1, 64), "jobs/s", JOBS, AtLeast, 0.75),
    of(15, Peer::Legacy, Peer::BestTunnel, shape(256, 1), "CPU of its process for each job", CPU, AtMost, 0.4),
];

#[expect(clippy::too_many_arguments, reason = "a row of a table")]
const fn of(
    row: u8,
    ours: Peer,
    theirs: Peer,
    shape: Shape,
    what: &'static str,
    figure: Figure,
    sense: Sense,
    required: f64,
) -> Requirement {
    Requirement { row, ours, theirs, shape, what, figure, sense, required }
}

/// What a whole run measures besides, for the report's plots.
const SHAPES: [Shape; 5] = [shape(1, 1), shape(1, 64), shape(32, 1), shape(64, 1), shape(256, 1)];

/// What came of the rows.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) measurements: Vec<Measurement>,
    pub(super) bars: Vec<Bar>,
    pub(super) cipher: Option<&'static str>,
    pub(super) tonic_threads: BTreeMap<&'static str, usize>,
}

/// The same load through the same way in each round.
struct Cell {
    peer: Peer,
    shape: Shape,
    samples: Vec<Sample>,
}

/// Measures what the wanted rows need, and with `whole` what the plots show.
pub(super) fn run(
    scene: &Scene,
    plan: &Plan,
    wanted: &dyn Fn(u8) -> bool,
    whole: bool,
    tell: &Tell<'_>,
) -> anyhow::Result<Outcome> {
    let requirements: Vec<_> = REQUIREMENTS.iter().filter(|requirement| wanted(requirement.row)).collect();
    let mut places: Vec<(Shape, Peer)> = requirements
        .iter()
        .flat_map(|requirement| [(requirement.shape, requirement.ours), (requirement.shape, requirement.theirs)])
        .collect();
    if whole {
        places.extend(SHAPES.iter().flat_map(|shape| Peer::ON_THE_WIRE.iter().map(|peer| (*shape, *peer))));
    }
    if scene.socket == Socket::Tcp {
        places.retain(|(_, peer)| *peer != Peer::LegacyTcp);
    }
    places.sort_unstable();
    places.dedup();
    if places.is_empty() {
        return Ok(Outcome::default());
    }
    let gateway = scene.gateway("gateway", "")?;
    let peers: Vec<Peer> = places.iter().map(|(_, peer)| *peer).collect();
    let ways = Ways::start(scene, &gateway, &peers)?;
    let mut cells: Vec<Cell> =
        places.iter().map(|(shape, peer)| Cell { peer: *peer, shape: *shape, samples: Vec::new() }).collect();
    for round in 0..plan.rounds {
        // Every other round backwards, so that no way always comes after the same one.
        let order: Vec<usize> =
            if round % 2 == 0 { (0..cells.len()).collect() } else { (0..cells.len()).rev().collect() };
        for index in order {
            let cell = &mut cells[index];
            let sample = ways.measure(cell.peer, cell.shape, plan, scene, &gateway)?;
            tell(round, cell.peer.name(), &sample.report);
            cell.samples.push(sample);
        }
    }
    let bars = requirements.iter().map(|requirement| requirement.bar(&cells)).collect();
    let measurements = cells.into_iter();
    let measurements =
        measurements.filter_map(|cell| Measurement::new(cell.peer.name(), Some(cell.peer), cell.samples));
    let tonic_threads = ways.tonic_threads.iter().map(|(peer, threads)| (peer.name(), *threads)).collect();
    Ok(Outcome { measurements: measurements.collect(), bars, cipher: ways.cipher, tonic_threads })
}

impl Requirement {
    fn bar(&self, cells: &[Cell]) -> Bar {
        let find = |peer| {
            let cell = cells.iter().find(|cell| cell.peer == peer && cell.shape == self.shape);
            cell.map(|cell| cell.samples.iter().map(self.figure).collect::<Vec<_>>()).unwrap_or_default()
        };
        let name = format!("{}, {}: {} against {}", self.shape, self.ours.name(), self.what, self.theirs.name());
        Bar::ratio(self.row, name, ratios(&find(self.ours), &find(self.theirs)), self.sense, self.required)
    }
}
