//! An attacker's rate.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How often an attacker acts. What is due meanwhile is done in one go, as an attacker would.
const TICK: Duration = Duration::from_millis(4);

/// Says how many blows are due.
pub struct Pace {
    per_second: u32,
    started: Instant,
    given: u64,
    next: Instant,
}

impl Pace {
    /// So many in a second.
    pub fn per_second(per_second: u32) -> Self {
        let now = Instant::now();
        Self { per_second, started: now, given: 0, next: now }
    }

    /// The same, of the `index`th of `all` attackers: those of different places do not keep step.
    pub fn out_of_step(per_second: u32, index: u32, all: u32) -> Self {
        let started = Instant::now() + Duration::from_secs(1) / per_second * index / all;
        Self { per_second, started, given: 0, next: started }
    }

    /// Waits until at least one is due; gives how many are. One that was held up does not catch up on more than a tenth of a second.
    pub async fn due(&mut self) -> u32 {
        loop {
            sleep_until(self.next).await;
            let now = Instant::now();
            self.next = now + TICK;
            let elapsed = u64::try_from(now.duration_since(self.started).as_micros()).expect("tests are short");
            let due = elapsed * u64::from(self.per_second) / 1_000_000;
            let most = u64::from(self.per_second / 10).max(1);
            let count = (due - self.given).min(most);
            self.given = due;
            if count > 0 {
                return u32::try_from(count).expect("at most a tenth of the rate");
            }
        }
    }
}
