//! Dies now and then, holding a job.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::runtime::{Application, Job};

pub(super) struct Faulty {
    probability: f64,
    /// The state of a splitmix64 generator: good enough to fail at random, and no lock.
    random: AtomicU64,
}

/// splitmix64's step, 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Faulty {
    /// # Panics
    /// If the system gives no randomness.
    pub(super) fn new(probability: f64) -> Self {
        let seed = getrandom::u64().expect("the system gives randomness");
        Self { probability, random: AtomicU64::new(seed) }
    }

    /// A number from 0 to below 1.
    fn random(&self) -> f64 {
        let mut mixed = self.random.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let upper = u32::try_from(mixed >> 32).expect("32 bits remain");
        f64::from(upper) / (f64::from(u32::MAX) + 1.0)
    }
}

impl Application for Faulty {
    fn run(&self, job: Job) {
        if self.random() < self.probability {
            // A panic without the panic hook: dying is what it is for, and is no line on stderr each time.
            resume_unwind(Box::new("the application dies holding a job, as it was asked to"));
        }
        let (bytes, reply_to) = job.split();
        reply_to.reply(bytes.filled());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fails_about_as_often_as_it_should() {
        let app = Faulty::new(0.25);
        let failures = (0..40_000).filter(|_| app.random() < app.probability).count();
        assert!((9_000..11_000).contains(&failures), "{failures} of 40000");
        assert!((0..1000).all(|_| app.random() < 1.0 && app.random() >= 0.0));
    }
}
