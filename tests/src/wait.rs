//! Waiting for a condition, with a bound. The tests' only way to let time pass.

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// How long a thing may take that takes milliseconds on an idle machine.
pub const BOUND: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(10);

/// Waits until `probe` gives a value. Panics with `what` when it has not within `bound`.
#[track_caller]
pub fn until<T>(what: &str, bound: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(started.elapsed() < bound, "waited {bound:?} in vain until {what}");
        std::thread::sleep(POLL);
    }
}

/// [`until`] for tests whose callers live on the same runtime.
pub async fn until_async<T, F: Future<Output = Option<T>>>(
    what: &str,
    bound: Duration,
    mut probe: impl FnMut() -> F,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(started.elapsed() < bound, "waited {bound:?} in vain until {what}");
        tokio::time::sleep(POLL).await;
    }
}
