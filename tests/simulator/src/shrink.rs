//! Making a story short: parts are left out as long as what is left still breaks the same promise.

use std::time::{Duration, Instant};

use crate::promise::Violation;
use crate::run::{Options, run_story};
use crate::setup::Setup;
use crate::story::{Act, Event, Story};

/// A story that was made short.
#[derive(Clone, Debug)]
pub struct Shrunken {
    /// What is left.
    pub story: Story,
    /// How many events there were.
    pub events_before: usize,
    /// What it breaks.
    pub violation: Violation,
    /// What happens, line by line.
    pub log: Vec<String>,
}

/// Makes the story of a seed short, for as long as `patience`. `None` where the seed breaks nothing.
pub fn shrink(seed: u64, options: Options, patience: Duration) -> Option<Shrunken> {
    let setup = Setup::drawn(seed);
    let story = Story::drawn(&setup);
    let options = Options { is_logged: false, stop_after: None, ..options };
    let end = Instant::now() + patience;
    let mut violation = run_story(&setup, &story, options).violation?;
    let promise = violation.broken.promise;
    let mut events = story.events.clone();
    let breaks = |events: &[Event]| {
        let story = Story { events: events.to_vec() };
        run_story(&setup, &story, options).violation.filter(|violation| violation.broken.promise == promise)
    };

    // What comes after the break is not needed.
    let needed: Vec<_> = events.iter().filter(|event| event.at <= violation.at).cloned().collect();
    if let Some(found) = breaks(&needed) {
        (events, violation) = (needed, found);
    }
    let mut chunk = events.len().div_ceil(2).max(1);
    while Instant::now() < end {
        let mut place = 0;
        let mut is_shorter = false;
        while place < events.len() && Instant::now() < end {
            let mut without = events.clone();
            without.drain(place..(place + chunk).min(events.len()));
            if let Some(found) = breaks(&without) {
                (events, violation, is_shorter) = (without, found, true);
            } else {
                place += chunk;
            }
        }
        if chunk == 1 && !is_shorter {
            break;
        }
        chunk = (chunk / 2).max(1);
    }
    // Fewer jobs at once.
    for place in 0..events.len() {
        while let Act::Submit(slot, count, spec) = events[place].act
            && count > 1
            && Instant::now() < end
        {
            let mut fewer = events.clone();
            fewer[place].act = Act::Submit(slot, count / 2, spec);
            let Some(found) = breaks(&fewer) else { break };
            (events, violation) = (fewer, found);
        }
    }

    let shrunken = Story { events };
    let log = run_story(&setup, &shrunken, Options { is_logged: true, ..options }).log;
    Some(Shrunken { story: shrunken, events_before: story.events.len(), violation, log })
}
