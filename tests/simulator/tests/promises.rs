//! What CI asks of the simulator: that the gateway keeps its promises for two thousand seeds, that a seed is told again exactly,
//! and that the simulator bites.

use std::time::{Duration, Instant};

use seeway_proto::bug::Bug;
use seeway_proto::outcome::OutcomeKind;
use seeway_simulator::setup::Setup;
use seeway_simulator::shrink::shrink;
use seeway_simulator::story::Story;
use seeway_simulator::{Options, run, run_story, try_seeds};

/// The seeds that are tried each time. `simulate --minutes N` tries others.
const SEEDS: u64 = 2000;

fn nth(place: u64) -> Option<u64> {
    (place < SEEDS).then_some(place)
}

#[test]
fn two_thousand_seeds_break_no_promise() {
    let begun = Instant::now();
    let tried = try_seeds(nth, None, None, true);
    println!(
        "{} seeds, {} steps, {} jobs in {:?}: {:?}",
        tried.seeds,
        tried.steps,
        tried.jobs,
        begun.elapsed(),
        tried.outcomes
    );
    if let Some((seed, violation)) = tried.broken.first() {
        let shrunken =
            shrink(*seed, Options::default(), Duration::from_secs(30)).expect("it breaks a promise each time");
        println!("{}", Setup::drawn(*seed));
        shrunken.log.iter().for_each(|line| println!("{line}"));
        let seeds: Vec<_> = tried.broken.iter().map(|(seed, _)| seed).collect();
        panic!("seed {seed}: {violation}\nreplay it with: simulate --seed {seed}\nall that break a promise: {seeds:?}");
    }
    assert_eq!(tried.seeds, SEEDS);
    // Stories in which nothing happens would break nothing either.
    for kind in OutcomeKind::ALL {
        let count = tried.outcomes.get(kind.label()).copied().unwrap_or(0);
        assert!(count > SEEDS / 4, "{kind} came up {count} times in {SEEDS} seeds: {:?}", tried.outcomes);
    }
}

#[test]
fn a_seed_is_told_again_exactly() {
    for seed in 0..40 {
        let options = Options { is_logged: true, ..Options::default() };
        let (one, other) = (run(seed, options), run(seed, options));
        assert_eq!((one.digest, one.steps, &one.outcomes), (other.digest, other.steps, &other.outcomes), "seed {seed}");
        assert_eq!(one.log, other.log, "seed {seed}");
    }
}

#[test]
fn every_part_of_a_story_is_a_story() {
    for seed in 100..110 {
        let setup = Setup::drawn(seed);
        let story = Story::drawn(&setup);
        for skipped in 0..3 {
            let part = story.events.iter().filter(|event| event.number % 3 != skipped).cloned().collect();
            let ended = run_story(&setup, &Story { events: part }, Options::default());
            assert_eq!(ended.violation, None, "seed {seed} without every third event from {skipped} on");
        }
    }
}

#[test]
fn every_deliberate_bug_is_caught() {
    println!("| bug | what it does wrong | seeds | the promise that it breaks |");
    println!("| --- | --- | --- | --- |");
    let mut uncaught = Vec::new();
    for bug in Bug::ALL {
        let tried = try_seeds(nth, None, Some(bug), false);
        match tried.broken.first() {
            Some((seed, violation)) => {
                println!("| `{}` | {} | {} | {} |", bug.name(), bug.what(), seed + 1, violation.broken.promise.text());
            }
            None => uncaught.push(bug.name()),
        }
    }
    assert!(uncaught.is_empty(), "{SEEDS} seeds do not catch {uncaught:?}");
}

#[test]
fn a_story_that_breaks_a_promise_is_made_short_and_still_breaks_it() {
    let options = Options { bug: Some(Bug::NotSentAfterItLeft), ..Options::default() };
    let tried = try_seeds(nth, None, options.bug, false);
    let (seed, violation) = tried.broken.first().expect("caught");
    let shrunken = shrink(*seed, options, Duration::from_secs(30)).expect("it breaks a promise each time");
    println!("{} of {} events", shrunken.story.events.len(), shrunken.events_before);
    assert!(shrunken.story.events.len() <= 8, "{:?}", shrunken.story);
    assert_eq!(shrunken.violation.broken.promise, violation.broken.promise);
    assert!(shrunken.log.iter().any(|line| line.contains("BROKEN")));
    let setup = Setup::drawn(*seed);
    let again = run_story(&setup, &shrunken.story, options).violation;
    assert_eq!(again.as_ref(), Some(&shrunken.violation));
    let without = run_story(&setup, &shrunken.story, Options::default()).violation;
    assert_eq!(without, None, "without the bug the same story breaks nothing");
}
