//! The tags that a client has outstanding, as a set that is quick with what clients do.

use std::fmt;
use std::hash::BuildHasher;

use foldhash::fast::RandomState;

/// The golden ratio's part of a place's hash. Clients count their tags up; by this ratio numbers that follow each other lie as
/// far from each other as so many can.
const GOLDEN: u64 = 0x9e37 << 48;

/// Places of a table when the first tag comes.
const FIRST_PLACES: usize = 16;

/// A set of tags: a table of twice as many places as there are tags at least, in which a tag is at its own place or at the next
/// that was free.
///
/// Where a tag's place is depends on a number drawn for each set. Somebody who found tags that meet in the table all the same
/// would have each of them looked for among the others: there are at most as many as may be outstanding.
pub(super) struct Tags {
    /// One more than the tag; zero where there is none. No places, or a power of two of them.
    places: Vec<u64>,
    count: usize,
    multiplier: u64,
    /// How far a product is moved to have as many bits as the number of a place.
    shift: u32,
}

impl Default for Tags {
    fn default() -> Self {
        let drawn = RandomState::default().hash_one(0_u32);
        Self { places: Vec::new(), count: 0, multiplier: GOLDEN | drawn >> 16 | 1, shift: 0 }
    }
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tags({})", self.count)
    }
}

impl Tags {
    /// How many there are.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Adds a tag; false where it was there.
    #[inline]
    pub(super) fn insert(&mut self, tag: u32) -> bool {
        if self.count * 2 >= self.places.len() {
            self.grow();
        }
        let wanted = entry(tag);
        let mut place = self.home(wanted);
        loop {
            match &mut self.places[place] {
                free @ 0 => {
                    *free = wanted;
                    self.count += 1;
                    return true;
                }
                found if *found == wanted => return false,
                _ => place = self.after(place),
            }
        }
    }

    /// Takes a tag out; false where it was not there.
    #[inline]
    pub(super) fn remove(&mut self, tag: u32) -> bool {
        if self.count == 0 {
            return false;
        }
        let wanted = entry(tag);
        let mut place = self.home(wanted);
        while self.places[place] != wanted {
            if self.places[place] == 0 {
                return false;
            }
            place = self.after(place);
        }
        self.places[place] = 0;
        self.count -= 1;
        let next = self.after(place);
        if self.places[next] != 0 {
            self.close_gap(place);
        }
        true
    }

    /// Moves those behind an empty place up that would not be found past it.
    fn close_gap(&mut self, mut gap: usize) {
        let mut place = self.after(gap);
        while self.places[place] != 0 {
            // How far it stands from its own place, and how far the gap stands before it.
            let mask = self.places.len() - 1;
            let strayed = place.wrapping_sub(self.home(self.places[place])) & mask;
            if strayed >= place.wrapping_sub(gap) & mask {
                self.places.swap(gap, place);
                gap = place;
            }
            place = self.after(place);
        }
    }

    #[cold]
    fn grow(&mut self) {
        let more = (self.places.len() * 2).max(FIRST_PLACES);
        let before = std::mem::replace(&mut self.places, vec![0; more]);
        self.shift = u64::BITS - more.trailing_zeros();
        for entry in before.into_iter().filter(|entry| *entry != 0) {
            let mut place = self.home(entry);
            while self.places[place] != 0 {
                place = self.after(place);
            }
            self.places[place] = entry;
        }
    }

    /// Where a tag is looked for first.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // It is below the number of places.
    fn home(&self, entry: u64) -> usize {
        (entry.wrapping_mul(self.multiplier) >> self.shift) as usize
    }

    #[inline]
    fn after(&self, place: usize) -> usize {
        (place + 1) & (self.places.len() - 1)
    }
}

#[inline]
fn entry(tag: u32) -> u64 {
    u64::from(tag) + 1
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// How many places are looked at for a tag.
    fn looked_at(tags: &Tags, tag: u32) -> usize {
        let home = tags.home(entry(tag));
        (0..tags.places.len()).find(|step| tags.places[(home + step) % tags.places.len()] == entry(tag)).expect("there")
            + 1
    }

    #[test]
    fn tags_that_are_counted_up_are_found_at_once() {
        for (first, step) in [(0, 1), (u32::MAX - 700, 1), (7, 2), (0, 3)] {
            let mut tags = Tags::default();
            let nth = |n: u32| first.wrapping_add(n.wrapping_mul(step));
            for n in 0..5000 {
                assert!(tags.insert(nth(n)));
                assert!(n < 1000 || tags.remove(nth(n - 1000)));
            }
            let all: usize = (4001..5000).map(|n| looked_at(&tags, nth(n))).sum();
            assert!(all < 999 * 3, "{first} and every {step}: {all} for 999");
        }
    }

    proptest! {
        #[test]
        fn it_does_what_a_set_does(steps in prop::collection::vec((any::<bool>(), prop_oneof![0_u32..40, any::<u32>(), Just(u32::MAX)]), 0..400)) {
            let (mut tags, mut set) = (Tags::default(), HashSet::new());
            for (is_insert, tag) in steps {
                if is_insert {
                    prop_assert_eq!(tags.insert(tag), set.insert(tag));
                } else {
                    prop_assert_eq!(tags.remove(tag), set.remove(&tag));
                }
                prop_assert_eq!(tags.len(), set.len());
            }
            for tag in set {
                prop_assert!(tags.remove(tag) && !tags.remove(tag));
            }
            prop_assert!(tags.places.iter().all(|place| *place == 0));
        }
    }
}
