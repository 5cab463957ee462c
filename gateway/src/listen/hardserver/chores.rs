//! What a port asks of its connection, which is served by another task: rare things, so they go through a list.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Something to be done for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chore {
    /// The socket did not take all answers: the rest is to be written when it takes more.
    Write,
    /// The connection was paused, and there may be room now.
    Resume,
}

/// Those of all connections of a shard, each with the connection's place.
#[derive(Debug, Default)]
pub(super) struct Chores {
    noted: Mutex<Vec<(usize, Chore)>>,
    wake: Notify,
}

impl Chores {
    pub(super) fn note(&self, place: usize, chore: Chore) {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).push((place, chore));
        self.wake.notify_one();
    }

    /// Has whoever waits for chores look for other things, too.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until there are some.
    pub(super) async fn noted(&self) {
        self.wake.notified().await;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    pub(super) fn take(&self) -> Vec<(usize, Chore)> {
        std::mem::take(&mut self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
