//! Chance: which jobs are sampled whose callers do not say, and what spans are called.

/// Bytes that are drawn from the system at once.
const DRAWN: usize = 1024;

/// The system's randomness, drawn in pieces.
#[derive(Debug)]
pub(super) struct Random {
    drawn: [u8; DRAWN],
    used: usize,
    /// Goes on where the system has none.
    last: u64,
}

impl Random {
    pub(super) fn new() -> Self {
        Self { drawn: [0; DRAWN], used: DRAWN, last: 0 }
    }

    /// So many bytes, not all of them zero: that would be no name of a trace or span.
    pub(super) fn bytes<const COUNT: usize>(&mut self) -> [u8; COUNT] {
        loop {
            if self.used + COUNT > DRAWN {
                self.draw();
            }
            let mut bytes = [0; COUNT];
            bytes.copy_from_slice(&self.drawn[self.used..self.used + COUNT]);
            self.used += COUNT;
            if bytes.iter().any(|byte| *byte != 0) {
                return bytes;
            }
        }
    }

    fn draw(&mut self) {
        self.used = 0;
        if getrandom::fill(&mut self.drawn).is_err() {
            // Names that repeat after 2^64 are better than none.
            for piece in self.drawn.chunks_exact_mut(8) {
                self.last = self.last.wrapping_add(0x9e37_79b9_7f4a_7c15);
                piece.copy_from_slice(&self.last.to_le_bytes());
            }
        }
    }

    /// A number above 0 and up to 1.
    fn part(&mut self) -> f64 {
        let number = u64::from_le_bytes(self.bytes()) >> 11;
        // 53 bits, as many as fit.
        #[allow(clippy::cast_precision_loss)]
        let part = (number + 1) as f64 / (1_u64 << 53) as f64;
        part
    }
}

/// Takes one job in so many. How many are passed over until the next one is drawn beforehand, so that those cost a number that is
/// counted down.
#[derive(Debug)]
pub(super) struct Sampler {
    ratio: f64,
    /// How many are passed over; `u64::MAX`: all.
    passes: u64,
}

impl Sampler {
    pub(super) fn new(ratio: f64, random: &mut Random) -> Self {
        let mut sampler = Self { ratio, passes: u64::MAX };
        sampler.draw(random);
        sampler
    }

    /// Whether the next job is taken, where `ratio` of all are to be; it may change from one to the next.
    #[inline]
    pub(super) fn takes(&mut self, ratio: f64, random: &mut Random) -> bool {
        if ratio.to_bits() != self.ratio.to_bits() {
            *self = Self::new(ratio, random);
        }
        if self.passes > 0 {
            self.passes -= u64::from(self.passes != u64::MAX);
            return false;
        }
        self.draw(random);
        true
    }

    /// The number of failures before the first success, where each try succeeds with the probability `ratio`.
    fn draw(&mut self, random: &mut Random) {
        self.passes = if self.ratio <= 0.0 {
            u64::MAX
        } else if self.ratio >= 1.0 {
            0
        } else {
            // It is not negative, and what is too large is the largest.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let passes = (random.part().ln() / (-self.ratio).ln_1p()) as u64;
            passes.min(u64::MAX - 1)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_taken_as_the_ratio_says_and_a_change_counts_at_once() {
        let mut random = Random::new();
        let mut sampler = Sampler::new(0.0, &mut random);
        let mut taken = |ratio: f64| (0..100_000).filter(|_| sampler.takes(ratio, &mut random)).count();
        assert_eq!(taken(0.0), 0);
        assert_eq!(taken(1.0), 100_000);
        // Ten standard deviations either way.
        let tenth = taken(0.1);
        assert!((9_000..11_000).contains(&tenth), "{tenth}");
        let few = taken(0.001);
        assert!((20..200).contains(&few), "{few}");
        assert_eq!(taken(0.0), 0);
    }

    #[test]
    fn names_are_not_told_twice() {
        let mut random = Random::new();
        let names: std::collections::HashSet<[u8; 8]> = (0..10_000).map(|_| random.bytes()).collect();
        assert_eq!(names.len(), 10_000);
    }
}
