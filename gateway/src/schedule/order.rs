//! Things in an order that each has a number in, of which most come at the end and go from the front.
//!
//! Used for whatever waits in the scheduler. Unlike a tree it allocates nothing as things come and go.

use std::collections::VecDeque;

/// Places that may be empty beyond as many as are not, before they are given up.
const MOST_EMPTY: usize = 16;

/// Things by their numbers, the lowest first.
///
/// Adding at the end and taking from the front cost the same however many there are, taking one out elsewhere costs their
/// logarithm. Adding one elsewhere moves those before or behind it, whichever are fewer.
#[derive(Clone, Debug)]
pub(super) struct InOrder<T> {
    /// `None` where something was taken out. The first and the last are never that.
    places: VecDeque<(u64, Option<T>)>,
    count: usize,
}

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        Self { places: VecDeque::new(), count: 0 }
    }
}

impl<T> InOrder<T> {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Puts something in its place, where nothing is.
    pub(super) fn insert(&mut self, number: u64, thing: T) {
        self.count += 1;
        if self.places.back().is_none_or(|(last, _)| *last < number) {
            self.places.push_back((number, Some(thing)));
            return;
        }
        match self.places.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(place) => {
                debug_assert!(self.places[place].1.is_none(), "numbers are given once");
                self.places[place].1 = Some(thing);
            }
            Err(place) => self.places.insert(place, (number, Some(thing))),
        }
    }

    /// Takes out what has this number, if anything has.
    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let place = match self.places.front() {
            Some((first, _)) if *first == number => 0,
            _ => self.places.binary_search_by_key(&number, |(number, _)| *number).ok()?,
        };
        let thing = self.places[place].1.take()?;
        self.count -= 1;
        self.tidy();
        Some(thing)
    }

    /// The first and its number.
    pub(super) fn first(&self) -> Option<(u64, &T)> {
        self.places.front().and_then(|(number, thing)| Some((*number, thing.as_ref()?)))
    }

    /// The last.
    pub(super) fn last(&self) -> Option<&T> {
        self.places.back().and_then(|(_, thing)| thing.as_ref())
    }

    /// Takes the first out.
    pub(super) fn pop_first(&mut self) -> Option<T> {
        let (_, thing) = self.places.pop_front()?;
        self.count -= 1;
        self.tidy();
        thing
    }

    /// All of them, the first first.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|(_, thing)| thing.as_ref())
    }

    /// Gives up empty places at both ends, and all of them where they are many.
    fn tidy(&mut self) {
        while self.places.front().is_some_and(|(_, thing)| thing.is_none()) {
            self.places.pop_front();
        }
        while self.places.back().is_some_and(|(_, thing)| thing.is_none()) {
            self.places.pop_back();
        }
        if self.places.len() > self.count * 2 + MOST_EMPTY {
            self.places.retain(|(_, thing)| thing.is_some());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::collections::btree_map::Entry;

    use super::*;
    use crate::schedule::chance::Chance;

    #[test]
    fn it_does_what_a_tree_does() {
        for seed in 0..50 {
            let mut chance = Chance::new(seed);
            let (mut order, mut tree) = (InOrder::default(), BTreeMap::new());
            for step in 0..2000_u64 {
                match chance.below(8) {
                    0..4 => {
                        // Mostly at the end.
                        let number = if chance.below(4) == 0 { step / 2 } else { step + 3000 };
                        if let Entry::Vacant(place) = tree.entry(number) {
                            place.insert(step);
                            order.insert(number, step);
                        }
                    }
                    4 | 5 => {
                        let number = tree.keys().nth(chance.below(tree.len())).copied().unwrap_or(7);
                        assert_eq!(order.remove(number), tree.remove(&number), "seed {seed}, step {step}");
                    }
                    6 => assert_eq!(order.remove(step + 9000), None),
                    _ => assert_eq!(order.pop_first(), tree.pop_first().map(|(_, thing)| thing), "seed {seed}"),
                }
                assert_eq!((order.len(), order.is_empty()), (tree.len(), tree.is_empty()), "seed {seed}, step {step}");
                assert_eq!(order.first(), tree.first_key_value().map(|(number, thing)| (*number, thing)));
                assert_eq!(order.last(), tree.last_key_value().map(|(_, thing)| thing));
                assert!(order.values().eq(tree.values()), "seed {seed}, step {step}");
                assert!(order.places.len() <= order.count * 2 + MOST_EMPTY, "seed {seed}, step {step}");
            }
        }
    }
}
