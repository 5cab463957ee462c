//! When a caller stops waiting, for every way in.

use std::time::Duration;

use tokio::time::Instant;

/// Longer than any caller waits, and short enough to add to a clock.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The end of a time-out that begins now.
pub(crate) fn after(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(FOR_EVER)
}
