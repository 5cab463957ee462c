//! Where chance comes from: numbers that follow from a seed and from what they are drawn for.
//!
//! Most things are drawn by what they are drawn for, and not from one long row. So leaving an event out of a story does not
//! change what is drawn for the others, which is what makes stories shrink.

use std::time::Duration;

/// A row of numbers that follows from its beginning (`SplitMix64`).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The row that belongs to these words: a seed, and what is drawn.
    pub fn of(words: &[u64]) -> Self {
        Self(words.iter().fold(0x5ee0_5eed, |state, word| mix(state ^ mix(*word))))
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.number()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the upper half of 128 bits")
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// The same for counts and sizes.
    pub fn count(&mut self, low: usize, high: usize) -> usize {
        usize::try_from(self.between(low as u64, high as u64)).expect("no more than `high`")
    }

    /// A place in something with `len` places, at least one.
    pub fn place(&mut self, len: usize) -> usize {
        self.count(0, len - 1)
    }

    /// True in `percent` of a hundred cases.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.place(from.len())]
    }

    /// A time between two numbers of microseconds.
    pub fn micros(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.between(low, high))
    }

    /// A time between two numbers of milliseconds.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        self.micros(low * 1000, high * 1000)
    }
}

/// A number in which every bit depends on every bit of `state`.
pub fn mix(mut state: u64) -> u64 {
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_follows_from_the_words_and_stays_in_its_bounds() {
        let drawn = |words: &[u64]| {
            let mut chance = Chance::of(words);
            (0..1000).map(|_| chance.between(3, 9)).collect::<Vec<_>>()
        };
        assert_eq!(drawn(&[1, 2]), drawn(&[1, 2]));
        assert_ne!(drawn(&[1, 2]), drawn(&[2, 1]));
        for bound in 3..=9 {
            assert!(drawn(&[7]).contains(&bound));
        }
        assert!(drawn(&[7]).iter().all(|number| (3..=9).contains(number)));
    }
}
