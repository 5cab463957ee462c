//! The program `simulate`.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use seeway_proto::bug::Bug;
use seeway_simulator::run::Tried;
use seeway_simulator::setup::Setup;
use seeway_simulator::shrink::shrink;
use seeway_simulator::{Options, run, try_seeds};

/// Tells stories to the gateway's wire, mux and scheduler in which everything that can go wrong does, and checks after every
/// step that every job gets one honest outcome.
///
/// Exits with 0 where all promises hold, 1 where one is broken, 2 where the command line is wrong.
#[derive(Debug, Parser)]
#[allow(clippy::struct_excessive_bools)] // Each is a switch of its own.
#[command(after_help = "\
Examples:
  simulate                           the 2 000 seeds of CI
  simulate --seeds 5000..6000        other ones
  simulate --minutes 10              random seeds for ten minutes
  simulate --seed 1234               one seed; where it breaks a promise, its story is made short and told
  simulate --seed 1234 --log         the whole story, as drawn
  simulate --seed 1234 --log --steps 200   its first 200 steps
  simulate --bug tag-freed-at-deadline     with a deliberate bug; `--bug list` names them")]
struct Arguments {
    /// Tells the story of one seed.
    #[arg(long, conflicts_with_all = ["seeds", "minutes"])]
    seed: Option<u64>,
    /// Tells the stories of these seeds; the last one is not included.
    #[arg(long, value_name = "A..B", value_parser = range, conflicts_with = "minutes")]
    seeds: Option<Range<u64>>,
    /// Tells stories of random seeds for so long.
    #[arg(long)]
    minutes: Option<u64>,
    /// Ends after so many steps (with --seed).
    #[arg(long, requires = "seed")]
    steps: Option<u64>,
    /// Prints all that happens (with --seed).
    #[arg(long, requires = "seed")]
    log: bool,
    /// Goes on after a seed that breaks a promise, and names all of them.
    #[arg(long)]
    all: bool,
    /// Does not make the story of a seed that breaks a promise short.
    #[arg(long)]
    no_shrink: bool,
    /// Switches a deliberate bug on; `list` names all.
    #[arg(long, value_name = "NAME")]
    bug: Option<String>,
    /// Prints a last line in JSON.
    #[arg(long)]
    json: bool,
}

/// Prints a line. Who closes the pipe has read enough.
macro_rules! say {
    ($($text:tt)*) => {{
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

/// The seeds that CI tries.
const CI_SEEDS: Range<u64> = 0..2000;

/// How long a story is made shorter.
const SHRINKING: Duration = Duration::from_secs(60);

fn range(text: &str) -> Result<Range<u64>, String> {
    let (first, last) = text.split_once("..").ok_or("two numbers with `..` between them, such as 0..2000")?;
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is not a number"));
    Ok(number(first)?..number(last)?)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let bug = match arguments.bug.as_deref() {
        None => None,
        Some("list") => {
            for bug in Bug::ALL {
                say!("{:<32} {}", bug.name(), bug.what());
            }
            return ExitCode::SUCCESS;
        }
        Some(name) => {
            let bug = Bug::ALL.into_iter().find(|bug| bug.name() == name);
            if bug.is_none() {
                eprintln!("no bug is called `{name}`: see `simulate --bug list`");
                return ExitCode::from(2);
            }
            bug
        }
    };
    let begun = Instant::now();
    let tried = match arguments.seed {
        Some(seed) => one(seed, &arguments, bug),
        None => many(&arguments, bug),
    };
    for (seed, violation) in &tried.broken {
        say!("seed {seed}: {violation}");
        say!("replay it with: simulate --seed {seed}");
    }
    if let Some((seed, _)) = tried.broken.first().filter(|_| !arguments.no_shrink && !arguments.log) {
        say!();
        tell_shortly(*seed, bug);
    }
    let seconds = begun.elapsed().as_secs_f64();
    say!(
        "{} seeds, {} steps, {} jobs in {seconds:.1} s: {} broke a promise",
        tried.seeds,
        tried.steps,
        tried.jobs,
        tried.broken.len()
    );
    for (outcome, count) in &tried.outcomes {
        say!("  {outcome:<28} {count}");
    }
    if arguments.json {
        say!("{}", json(&tried, seconds));
    }
    if tried.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64, arguments: &Arguments, bug: Option<Bug>) -> Tried {
    let options = Options { is_logged: arguments.log, stop_after: arguments.steps, bug };
    let ended = run(seed, options);
    if arguments.log {
        say!("{}", Setup::drawn(seed));
        for line in &ended.log {
            say!("{line}");
        }
    }
    let broken = ended.violation.map(|violation| (seed, violation)).into_iter().collect();
    Tried { seeds: 1, steps: ended.steps, jobs: ended.jobs, outcomes: ended.outcomes, broken }
}

fn many(arguments: &Arguments, bug: Option<Bug>) -> Tried {
    if let Some(minutes) = arguments.minutes {
        let until = Instant::now() + Duration::from_secs(60 * minutes);
        // Without a source of randomness the seeds of the last time come again.
        let random = |_| Some(getrandom::u64().unwrap_or(1) >> 16);
        return try_seeds(random, Some(until), bug, arguments.all);
    }
    let seeds = arguments.seeds.clone().unwrap_or(CI_SEEDS);
    let nth = |place| seeds.start.checked_add(place).filter(|seed| *seed < seeds.end);
    try_seeds(nth, None, bug, arguments.all)
}

fn tell_shortly(seed: u64, bug: Option<Bug>) {
    let options = Options { bug, ..Options::default() };
    let Some(shrunken) = shrink(seed, options, SHRINKING) else { return };
    say!("the story of seed {seed}, made short: {} of {} events", shrunken.story.events.len(), shrunken.events_before);
    say!("{}", Setup::drawn(seed));
    for event in &shrunken.story.events {
        say!("  event {:>4} at {:>12.6} s: {:?}", event.number, event.at.as_secs_f64(), event.act);
    }
    say!("what happens:");
    for line in &shrunken.log {
        say!("{line}");
    }
    say!("{}\n", shrunken.violation);
}

fn json(tried: &Tried, seconds: f64) -> String {
    let broken: Vec<_> = tried
        .broken
        .iter()
        .map(|(seed, violation)| {
            serde_json::json!({
                "seed": seed,
                "step": violation.step,
                "promise": format!("{:?}", violation.broken.promise),
                "what": violation.broken.what,
            })
        })
        .collect();
    let outcomes: BTreeMap<_, _> = tried.outcomes.iter().collect();
    serde_json::json!({
        "seeds": tried.seeds, "steps": tried.steps, "jobs": tried.jobs, "seconds": seconds, "outcomes": outcomes, "broken": broken,
    })
    .to_string()
}
