//! Rows 12 and 13: many callers, idle and busy.

use anyhow::{Context, bail};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::{
    Bar, Plan, Seen,
    Sense::{AtLeast, AtMost},
    Spread, Tell,
    scene::{Scene, WORLD},
};
use crate::{Load, Pace, Until, Way, load::Unwatched, report::count};

const IDLE: usize = 10_000;
/// Files that a process needs besides.
const OTHER_FILES: u64 = 500;
const BUSY: usize = 64;
/// The rate at which the idle ones have had their job.
const FIRST_JOBS_PER_SECOND: f64 = 20_000.0;
/// What each idle connection may cost, in bytes.
const IDLE_BYTES: f64 = 6.0 * 1024.0;

/// Lets this process and those that it starts open as many files as they may.
pub(super) fn raise_open_files() -> anyhow::Result<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("the limit of open files can not be raised")?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Row 12: what ten thousand idle legacy connections cost. Each of them has opened its world and has had a job answered. They are on
/// the Unix socket, which has room for them however many ports are free.
pub(super) fn idle(scene: &Scene, plan: &Plan, tell: &Tell<'_>) -> anyhow::Result<Seen> {
    let allowed = raise_open_files()?;
    let needed = IDLE as u64 + OTHER_FILES;
    if allowed < needed {
        bail!("{IDLE} connections need {needed} open files, and no more than {allowed} are allowed (ulimit -Hn)");
    }
    let gateway = scene.gateway("gateway for a crowd", "")?;
    let busy = Load { callers: BUSY, ..plan.timed(Load::new(Way::Wire(gateway.legacy.clone()), Some(WORLD))) };
    // One after the other: all at once are more than the world's queue holds.
    let each_one_job = Load {
        callers: IDLE,
        pace: Pace::Open { per_second: FIRST_JOBS_PER_SECOND },
        until: Until::Jobs(IDLE as u64),
        warm_up: std::time::Duration::ZERO,
        ..Load::new(Way::Wire(gateway.unix.clone()), Some(WORLD))
    };
    // What the busy ones make it allocate is not the idle ones' cost.
    busy.run(&mut Unwatched)?;
    let before = gateway.process.resident()?;
    let files = gateway.process.open_files()?;
    let (mut reports, mut bytes, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let alone = busy.run(&mut Unwatched)?;
        let mut crowd = each_one_job.connect().context("the idle callers")?;
        let first_jobs = crowd.run(&each_one_job, &mut Unwatched)?;
        anyhow::ensure!(first_jobs.failed() == 0, "{first_jobs}");
        bytes.push(count(gateway.process.resident()?.saturating_sub(before)) / count(IDLE as u64));
        let beside = busy.run(&mut Unwatched)?;
        kept.push(beside.jobs_per_second / alone.jobs_per_second);
        drop(crowd);
        gateway.process.until_open_files(files + IDLE / 100)?;
        for (name, report) in [("64 × 1 alone", alone), ("64 × 1 beside 10 000 idle connections", beside)] {
            tell(round, name, &report);
            reports.push((name.to_owned(), report));
        }
    }
    let bars = vec![
        Bar::new(
            12,
            "10 000 idle connections: the gateway's memory for each",
            Spread::of(bytes),
            AtMost,
            IDLE_BYTES,
            "bytes",
        ),
        Bar::ratio(12, "10 000 idle connections: jobs/s of 64 × 1 against none", Spread::of(kept), AtLeast, 0.95),
    ];
    Ok(Seen { reports, bars })
}

const MANY: usize = 1_000;
const FEW: usize = 10;
/// Jobs that one of few may have in flight, so that the rate is kept whatever the latency.
const FEW_IN_FLIGHT: usize = 256;

/// Row 13: a fifth of what a thousand callers reach, sent at a fixed rate by a thousand and by ten.
pub(super) fn busy(scene: &Scene, plan: &Plan, tell: &Tell<'_>) -> anyhow::Result<Seen> {
    raise_open_files()?;
    let gateway = scene.gateway("gateway for busy callers", "")?;
    let many = Load { callers: MANY, ..plan.timed(Load::new(Way::Wire(gateway.legacy.clone()), Some(WORLD))) };
    let mut fastest = Vec::new();
    for _ in 0..3 {
        fastest.push(many.run(&mut Unwatched)?.jobs_per_second);
    }
    let fastest = Spread::of(fastest).context("three rates")?.median;
    let pace = Pace::Open { per_second: fastest / 5.0 };
    let many = Load { pace, in_flight: FEW_IN_FLIGHT, ..many };
    let few = Load { callers: FEW, ..many.clone() };
    let (mut reports, mut slower) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        let (of_many, of_few) = if round % 2 == 0 {
            let of_many = many.run(&mut Unwatched)?;
            (of_many, few.run(&mut Unwatched)?)
        } else {
            let of_few = few.run(&mut Unwatched)?;
            (many.run(&mut Unwatched)?, of_few)
        };
        slower.push(of_many.p50_us / of_few.p50_us);
        for (name, report) in
            [("1 000 callers at a fifth of their maximum", of_many), ("10 callers at the same rate", of_few)]
        {
            anyhow::ensure!(report.failed() == 0, "{report}");
            tell(round, name, &report);
            reports.push((name.to_owned(), report));
        }
    }
    let name = "1 000 callers at a fifth of their maximum: p50 against 10 callers at the same rate";
    Ok(Seen { reports, bars: vec![Bar::ratio(13, name, Spread::of(slower), AtMost, 1.5)] })
}
