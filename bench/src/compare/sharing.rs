//! Rows 10 and 11: callers that share a gateway with one who wants all of it.

use std::thread;

use anyhow::Context;

use super::{
    Bar, Plan, Seen,
    Sense::{AtLeast, AtMost},
    Spread, Tell,
    scene::{Gateway, Scene, WORLD},
};
use crate::{
    Load, Report, Sizes, Until, Way,
    load::{Callers, Unwatched},
};

/// The largest job that a gateway takes unless it is configured otherwise.
const BULK_BYTES: usize = 262_100;
/// Enough of them under way that the bulk caller never waits for one.
const BULK_IN_FLIGHT: usize = 4;

/// Row 10: the p99 of a caller with one job in flight, beside one of large jobs at full speed, against the same alone.
pub(super) fn bulk(scene: &Scene, plan: &Plan, tell: &Tell<'_>) -> anyhow::Result<Seen> {
    let gateway = scene.gateway("gateway for bulk", "")?;
    let small = plan.timed(load(&gateway));
    let large = Load { in_flight: BULK_IN_FLIGHT, sizes: Sizes::fixed(BULK_BYTES), ..outlasting(&small) };
    let (mut reports, mut slower) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let alone = || small.run(&mut Unwatched).context("the small caller alone");
        let beside = || together(&small, &large).context("the small caller beside the large one");
        // Every other round the other way round, so that neither always comes second.
        let (alone, (beside, large)) = if round % 2 == 0 {
            let alone = alone()?;
            (alone, beside()?)
        } else {
            let beside = beside()?;
            (alone()?, beside)
        };
        slower.push(beside.p99_us / alone.p99_us);
        for (name, report) in [
            ("one caller alone", alone),
            ("one caller beside jobs of 256 KiB", beside),
            ("the caller of jobs of 256 KiB", large),
        ] {
            tell(round, name, &report);
            reports.push((name.to_owned(), report));
        }
    }
    let name = "1 × 1 beside a caller of 256 KiB jobs at full speed: p99 against alone";
    Ok(Seen { reports, bars: vec![Bar::ratio(10, name, Spread::of(slower), AtMost, 2.0)] })
}

/// Jobs that the machine of row 11 takes at once. With so few, the world is saturated and what decides who is served is the
/// gateway's queue and nothing else; and a round of all callers takes longer than a caller needs to come back with its next job, so
/// that a caller with one job in flight can have its share at all.
const SCARCE: &str = "max_in_flight = 4";
const GREEDY_IN_FLIGHT: usize = 1000;
const MODEST: usize = 50;

/// Row 11: each of fifty callers with one job in flight, beside one with a thousand. The share of each is what all of them get
/// together, divided by their number; what counts is the one that gets the least.
pub(super) fn greedy(scene: &Scene, plan: &Plan, tell: &Tell<'_>) -> anyhow::Result<Seen> {
    let gateway = scene.gateway("gateway with a scarce machine", SCARCE)?;
    let modest = Load { callers: MODEST, ..plan.timed(load(&gateway)) };
    let greedy = Load { in_flight: GREEDY_IN_FLIGHT, ..modest.clone() };
    let greedy = Load { callers: 1, ..greedy };
    let (mut reports, mut shares) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let (modest, greedy) = together(&modest, &greedy)?;
        let share = (modest.jobs_per_second + greedy.jobs_per_second) / crate::report::count(MODEST as u64 + 1);
        shares.push(modest.fewest_per_second / share);
        for (name, report) in [("fifty callers × 1", modest), ("one caller × 1000 beside them", greedy)] {
            tell(round, name, &report);
            reports.push((name.to_owned(), report));
        }
    }
    let name = "50 callers × 1 beside 1 × 1000: what the last of them gets against an equal share";
    Ok(Seen { reports, bars: vec![Bar::ratio(11, name, Spread::of(shares), AtLeast, 0.8)] })
}

/// A load on the legacy listener.
fn load(gateway: &Gateway) -> Load {
    Load::new(Way::Wire(gateway.legacy.clone()), Some(WORLD))
}

/// The same for so long that the first is over before it.
fn outlasting(load: &Load) -> Load {
    let Until::Elapsed(time) = load.until else {
        return load.clone();
    };
    Load { until: Until::Elapsed(time + load.warm_up), ..load.clone() }
}

/// Runs both at the same time.
fn together(one: &Load, other: &Load) -> anyhow::Result<(Report, Report)> {
    let (mut ones, mut others) = (one.connect()?, other.connect()?);
    let run = |callers: &mut Callers, load: &Load| callers.run(load, &mut Unwatched);
    thread::scope(|scope| {
        let beside = scope.spawn(|| run(&mut others, other));
        let first = run(&mut ones, one);
        let second = beside.join().expect("a load does not panic");
        let (first, second) = (first?, second?);
        anyhow::ensure!(first.failed() + second.failed() == 0, "{first}\n{second}");
        Ok((first, second))
    })
}
