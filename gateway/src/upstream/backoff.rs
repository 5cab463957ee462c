//! How long to wait before the next try.

use std::time::Duration;

/// Waits that double up to a ceiling, each with jitter: half of it is certain, half is chance. So a hundred gateways that
/// lost the same machine do not come back in the same millisecond.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    ceiling: Duration,
    next: Duration,
}

impl Backoff {
    /// Begins with `first`, never exceeds `ceiling`.
    pub fn new(first: Duration, ceiling: Duration) -> Self {
        let first = first.min(ceiling);
        Self { first, ceiling, next: first }
    }

    /// From now on it begins with `first` and never exceeds `ceiling`. How far the waits have grown stays, within these.
    pub fn set_limits(&mut self, first: Duration, ceiling: Duration) {
        let first = first.min(ceiling);
        *self = Self { first, ceiling, next: self.next.clamp(first, ceiling) };
    }

    /// The next wait, given a chance between 0 and 1.
    pub fn wait(&mut self, chance: f64) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.ceiling);
        whole.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }

    /// What was tried has worked: the next wait is the first one again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A number between 0 and 1 that nobody can foresee.
pub fn chance() -> f64 {
    // Without a source of randomness the waits lose their jitter, and nothing else.
    getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_ceiling_and_begin_again() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(200), ms(1000));
        let waits: Vec<_> = (0..5).map(|_| backoff.wait(1.0)).collect();
        assert_eq!(waits, [200, 400, 800, 1000, 1000].map(ms));
        backoff.reset();
        assert_eq!(backoff.wait(0.0), ms(100));
        assert_eq!(backoff.wait(0.5), ms(300));
        assert_eq!(Backoff::new(ms(500), ms(100)).wait(1.0), ms(100));
    }
}
