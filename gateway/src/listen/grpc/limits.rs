//! What callers of the gRPC front end may have, where HTTP/2 has no limit for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use seeway_proto::outcome::Rejected;
use tonic::Status;

use super::somebody::Somebody;
use crate::shard::Shard;

/// The longest `affinity_key`, in bytes. A key is an account's or a session's name, and each one that is in use is kept.
const MAX_AFFINITY_KEY: usize = 256;

/// Why a request's `affinity_key` is not taken; `None` where it is.
pub(super) fn bad_affinity_key(key: &str) -> Option<String> {
    let is_too_long = key.len() > MAX_AFFINITY_KEY;
    is_too_long.then(|| format!(": `affinity_key` has {} bytes; {MAX_AFFINITY_KEY} is the most", key.len()))
}

/// Fails a call whose `affinity_key` is not taken.
pub(super) fn check_affinity_key(shard: &Shard, somebody: &Somebody, world: &str, key: &str) -> Result<(), Status> {
    let Some(why) = bad_affinity_key(key) else { return Ok(()) };
    let (caller, whose) = (somebody.caller().id(), somebody.of_call());
    let mut failure = shard.with(|state, _| state.front.reject(caller, whose, world, Rejected::Malformed));
    failure.message.push_str(&why);
    Err(failure.into())
}

/// How many pipes may be open at once, over all shards.
#[derive(Debug)]
pub struct Pipes {
    limit: AtomicUsize,
    open: AtomicUsize,
}

/// One pipe's place among them, given back when it is dropped.
#[derive(Debug)]
pub(super) struct PipePlace(Arc<Pipes>);

impl Pipes {
    /// Room for `limit` pipes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: AtomicUsize::new(limit), open: AtomicUsize::new(0) })
    }

    /// Changes the limit. Where more are open already, they stay, and no other is opened until enough have been closed.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// How many may be open.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A place for one more, if there is one.
    pub(super) fn take(self: Arc<Self>) -> Option<PipePlace> {
        let one_more = |open| (open < self.limit.load(Ordering::Relaxed)).then_some(open + 1);
        let taken = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok();
        taken.then(|| PipePlace(self))
    }
}

impl Drop for PipePlace {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_shrinks_lets_nobody_in_until_enough_have_gone() {
        let pipes = Pipes::new(2);
        let (one, two) = (pipes.clone().take().expect("room"), pipes.clone().take().expect("room"));
        assert!(pipes.clone().take().is_none());
        pipes.set_limit(1);
        drop(one);
        assert!(pipes.clone().take().is_none(), "the one that is open takes the only place");
        drop(two);
        assert!(pipes.clone().take().is_some());
        assert_eq!(pipes.open(), 0);
    }

    #[test]
    fn the_longest_affinity_key_and_one_past_it() {
        assert_eq!(bad_affinity_key(&"k".repeat(256)), None);
        let why = bad_affinity_key(&"k".repeat(257)).expect("too long");
        assert!(why.contains("257") && !why.contains("kk"), "{why}");
    }
}
