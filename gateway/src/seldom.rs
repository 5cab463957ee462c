//! Log lines that a fault could repeat without end: told at once the first time, then at most once in ten seconds, with how many were
//! not told meanwhile.
//!
//! Every place that a peer, a caller or a machine can bring to say the same again has a [`Seldom`] of its own, and asks it before it says
//! anything. What was held back when the fault is over is told in sum by [`keep_telling`], which the control plane runs.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// In so long a place says the same once of one machine, listener or file, where it has no reason to do otherwise.
pub(crate) const PERIOD: Duration = Duration::from_secs(10);

/// How often it is looked for what was held back.
const LOOK: Duration = Duration::from_secs(1);

/// So many keys of one place are told apart. One more takes the place of that which was told least lately.
const KEYS: usize = 256;

/// A place in the program that says something, and how often it may.
#[derive(Debug)]
pub(crate) struct Seldom {
    /// What it says, as it stands in the log.
    says: &'static str,
    /// How often it is said in a period.
    most: u32,
    told: Mutex<Told>,
}

/// It is to be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tell {
    /// How many were not told since it was said last, where there were any.
    pub(crate) untold: Option<u64>,
}

impl Tell {
    fn of(untold: u64) -> Self {
        Self { untold: (untold > 0).then_some(untold) }
    }
}

/// What a place has said.
#[derive(Debug)]
struct Told {
    /// By what it is about: a machine's name, or nothing where there is one fault only.
    keys: BTreeMap<String, Last>,
    /// Whether [`keep_telling`] knows of the place.
    is_known: bool,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    /// When the first one was told of those that count now.
    at: Instant,
    /// How many were told since.
    told: u32,
    /// How many were not told since.
    untold: u64,
}

/// Every place that has held something back.
static PLACES: Mutex<Vec<&'static Seldom>> = Mutex::new(Vec::new());

impl Seldom {
    /// One that says `says`, at most once in a [`PERIOD`] for each key.
    pub(crate) const fn new(says: &'static str) -> Self {
        Self::up_to(1, says)
    }

    /// One that says it up to so many times in a [`PERIOD`]: where several at once are no fault.
    pub(crate) const fn up_to(most: u32, says: &'static str) -> Self {
        Self { says, most, told: Mutex::new(Told { keys: BTreeMap::new(), is_known: false }) }
    }

    /// Whether it is to be said now, of what `key` names; `None` where it is held back.
    pub(crate) fn tell(&'static self, key: &str) -> Option<Tell> {
        self.tell_at(key, Instant::now())
    }

    fn tell_at(&'static self, key: &str, now: Instant) -> Option<Tell> {
        let mut told = lock(&self.told);
        if let Some(last) = told.keys.get_mut(key) {
            if now.saturating_duration_since(last.at) < PERIOD {
                if last.told < self.most {
                    last.told += 1;
                    return Some(Tell::of(0));
                }
                last.untold += 1;
                if !std::mem::replace(&mut told.is_known, true) {
                    lock(&PLACES).push(self);
                }
                return None;
            }
            (last.at, last.told) = (now, 1);
            return Some(Tell::of(std::mem::take(&mut last.untold)));
        }
        let mut untold = 0;
        if told.keys.len() >= KEYS {
            let oldest = told.keys.iter().min_by_key(|(_, last)| last.at).map(|(key, _)| key.clone());
            // What was held back of it is told with this one.
            untold = oldest.and_then(|oldest| told.keys.remove(&oldest)).map_or(0, |last| last.untold);
        }
        told.keys.insert(key.to_owned(), Last { at: now, told: 1, untold: 0 });
        Some(Tell::of(untold))
    }

    /// What was held back and may be told now: by key, how many.
    fn held_back(&self, now: Instant) -> Vec<(String, u64)> {
        let mut told = lock(&self.told);
        let mut held_back = Vec::new();
        // What is told of no more is forgotten.
        told.keys.retain(|key, last| {
            let is_over = now.saturating_duration_since(last.at) >= PERIOD;
            if is_over && last.untold > 0 {
                held_back.push((key.clone(), std::mem::take(&mut last.untold)));
                // The next one is told in full: what goes wrong now may be something else.
                (last.at, last.told) = (now, 0);
                return true;
            }
            !is_over
        });
        held_back
    }
}

/// Tells what was held back, once it may be told. Runs for as long as the gateway does.
pub(crate) async fn keep_telling() {
    loop {
        tokio::time::sleep(LOOK).await;
        tell_rest(Instant::now());
    }
}

/// The same once. To be called at the end, so that nothing is forgotten.
pub(crate) fn tell_rest(now: Instant) {
    let places = lock(&PLACES).clone();
    for place in places {
        for (key, untold) in place.held_back(now) {
            let (says, of) = (place.says, if key.is_empty() { "all" } else { key.as_str() });
            tracing::warn!(untold, of, says, "more of the same was not told");
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Told now, with as many that were not told before.
    fn told(untold: u64) -> Tell {
        Tell::of(untold)
    }

    #[test]
    fn a_fault_that_repeats_is_told_at_once_and_then_with_how_many_were_not() {
        static PLACE: Seldom = Seldom::new("a test's fault");
        let begin = Instant::now();
        let later = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(PLACE.tell_at("hsm-a", begin), Some(told(0)));
        assert_eq!((0..1000).filter_map(|_| PLACE.tell_at("hsm-a", later(9))).count(), 0);
        assert_eq!(PLACE.tell_at("hsm-b", later(9)), Some(told(0)), "another machine's is another fault");
        assert_eq!(PLACE.tell_at("hsm-a", later(10)), Some(told(1000)));
        assert_eq!(PLACE.tell_at("hsm-a", later(19)), None);
        assert_eq!(PLACE.tell_at("hsm-a", later(30)), Some(told(1)));
    }

    #[test]
    fn what_was_held_back_is_told_when_the_fault_is_over_and_then_forgotten() {
        static PLACE: Seldom = Seldom::new("another test's fault");
        let begin = Instant::now();
        let later = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(PLACE.tell_at("", begin), Some(told(0)));
        assert_eq!((PLACE.tell_at("", begin), PLACE.tell_at("", begin)), (None, None));
        assert!(PLACE.held_back(later(9)).is_empty());
        assert_eq!(PLACE.held_back(later(10)), [(String::new(), 2)]);
        assert_eq!(PLACE.tell_at("", later(11)), Some(told(0)), "how many is no word of what goes wrong now");
        assert_eq!(PLACE.tell_at("", later(12)), None);
        assert_eq!(PLACE.held_back(later(20)), [(String::new(), 1)]);
        assert!(PLACE.held_back(later(30)).is_empty() && lock(&PLACE.told).keys.is_empty());
    }

    #[test]
    fn keys_are_bounded_and_no_count_is_lost_with_one() {
        static PLACE: Seldom = Seldom::new("many faults");
        let begin = Instant::now();
        let later = |millis| begin + Duration::from_millis(millis);
        for key in 0..KEYS as u64 {
            assert_eq!(PLACE.tell_at(&key.to_string(), later(key)), Some(told(0)));
        }
        assert_eq!(PLACE.tell_at("0", later(500)), None);
        assert_eq!(PLACE.tell_at("one more", later(501)), Some(told(1)), "with what was held back of the oldest");
        assert_eq!(lock(&PLACE.told).keys.len(), KEYS);
    }

    #[test]
    fn several_at_once_are_told_where_that_is_no_fault() {
        static PLACE: Seldom = Seldom::up_to(3, "good news");
        let begin = Instant::now();
        assert_eq!((0..5).filter_map(|_| PLACE.tell_at("hsm-a", begin)).count(), 3);
        assert_eq!(PLACE.tell_at("hsm-a", begin + PERIOD), Some(told(2)));
    }
}
