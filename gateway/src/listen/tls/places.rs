//! How many connections may be agreeing on TLS: in all, and from one address, so that whoever begins many and ends none does not keep
//! out everybody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::shard::Peer;

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Places {
    limit: usize,
    peer_limit: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Of those that have any.
    of_peers: HashMap<Peer, usize>,
}

/// One of them; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    peer: Peer,
}

impl Places {
    /// So many, of which one peer may have so many.
    pub(super) fn new(limit: usize, peer_limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, peer_limit, taken: Mutex::default() })
    }

    /// One for this peer, if there is one.
    pub(super) fn take(self: &Arc<Self>, peer: Peer) -> Option<Place> {
        let mut taken = self.lock();
        let of_peer = taken.of_peers.get(&peer).copied().unwrap_or_default();
        if taken.all >= self.limit || of_peer >= self.peer_limit {
            return None;
        }
        taken.all += 1;
        taken.of_peers.insert(peer, of_peer + 1);
        Some(Place { places: self.clone(), peer })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(of_peer) = taken.of_peers.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.of_peers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> Peer {
        std::net::IpAddr::from([192, 0, 2, last]).into()
    }

    #[test]
    fn a_peer_at_its_share_leaves_places_for_others_and_gets_its_own_back() {
        let places = Places::new(3, 2);
        let mut held: Vec<_> = (0..2).map(|_| places.take(peer(1)).expect("within its share")).collect();
        assert!(places.take(peer(1)).is_none(), "one past its share");
        let other = places.take(peer(2)).expect("the last of all");
        assert!(places.take(peer(3)).is_none(), "one past all");
        held.pop();
        assert!(places.take(peer(1)).is_some(), "and given back at once");
        drop((held, other));
        assert!(places.lock().all == 0 && places.lock().of_peers.is_empty());
    }
}
