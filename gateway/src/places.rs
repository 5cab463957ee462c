//! How much there may be at once, in all and of one peer's, so that whoever takes all that it can get leaves some for others:
//! connections, and handshakes. Asked when somebody comes and goes, never for a job.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Who takes places: what tells one who connects from others without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// An IPv4 address, or the first half of an IPv6 one: who has one of those has them all.
    Address(IpAddr),
    /// A Unix user.
    User(u32),
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

/// The places that there are.
#[derive(Debug)]
pub struct Places(Mutex<Taken>);

#[derive(Debug)]
struct Taken {
    limit: usize,
    peer_limit: usize,
    all: usize,
    /// Of those that have any.
    of_peers: HashMap<Peer, usize>,
}

/// One of them, free again wherever it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    peer: Peer,
}

impl Places {
    /// So many, all of them free, of which one peer may have so many.
    pub fn new(limit: usize, peer_limit: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Taken { limit, peer_limit, all: 0, of_peers: HashMap::new() })))
    }

    /// How many there are in all, taken or free.
    pub fn limit(&self) -> usize {
        self.lock().limit
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.lock().all
    }

    /// How much the peer that has most uses of what one may have, 0 to 1; 0 where one may have all.
    pub fn fullest_peer(&self) -> f64 {
        let taken = self.lock();
        if taken.peer_limit >= taken.limit {
            return 0.0;
        }
        let most = taken.of_peers.values().copied().max().unwrap_or_default();
        #[allow(clippy::cast_precision_loss)] // Both are far below 2^52.
        let used = most as f64 / taken.peer_limit.max(1) as f64;
        used.min(1.0)
    }

    /// Changes the limits. Where more are taken already, they stay, and there is no other until enough are free again.
    pub fn set_limits(&self, limit: usize, peer_limit: usize) {
        let mut taken = self.lock();
        (taken.limit, taken.peer_limit) = (limit, peer_limit);
    }

    /// One for this peer; `None` where all are taken, or all that it may have.
    pub fn take(self: &Arc<Self>, peer: Peer) -> Option<Place> {
        let mut taken = self.lock();
        let of_peer = taken.of_peers.get(&peer).copied().unwrap_or_default();
        if taken.all >= taken.limit || of_peer >= taken.peer_limit {
            return None;
        }
        taken.all += 1;
        taken.of_peers.insert(peer, of_peer + 1);
        Some(Place { places: self.clone(), peer })
    }

    /// One for this peer, even if there is none: for a connection that was let in before there were these places.
    pub fn take_in_any_case(self: &Arc<Self>, peer: Peer) -> Place {
        let mut taken = self.lock();
        taken.all += 1;
        *taken.of_peers.entry(peer).or_default() += 1;
        Place { places: self.clone(), peer }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn no_more_places_are_taken_at_once_than_there_are() {
        const LIMIT: usize = 100;
        let places = Places::new(LIMIT, LIMIT);
        let peer = Peer::User(0);
        // All threads hold what they have until each has asked in vain once.
        let all_asked = std::sync::Barrier::new(4);
        let taken: usize = std::thread::scope(|scope| {
            let acceptor = || {
                let taken: Vec<_> = std::iter::from_fn(|| places.take(peer)).collect();
                all_asked.wait();
                taken.len()
            };
            let acceptors: Vec<_> = (0..4).map(|_| scope.spawn(acceptor)).collect();
            acceptors.into_iter().map(|acceptor| acceptor.join().expect("no panic")).sum()
        });
        assert_eq!(taken, LIMIT);
        assert_eq!(places.lock().all, 0, "all are given back");
        assert!(places.lock().of_peers.is_empty(), "and nothing is kept of who had them");
        assert!(places.take(peer).is_some());
    }

    #[test]
    fn at_a_peers_limit_and_one_past_it() {
        let places = Places::new(10, 3);
        let address = |text: &str| Peer::from(text.parse::<IpAddr>().expect("an address"));
        let take = |peer, count: usize| (0..count).map(|_| places.take(peer)).collect::<Vec<_>>();
        assert!(places.fullest_peer().abs() < 1e-9);
        let mut four = take(address("192.0.2.1"), 4);
        assert!(four[2].is_some() && four[3].is_none());
        assert!((places.fullest_peer() - 1.0).abs() < 1e-9);
        // Another address, and the same one in other clothes.
        assert!(take(address("::ffff:192.0.2.1"), 1)[0].is_none());
        let six = take(address("2001:db8::1"), 3);
        assert!(six.iter().all(Option::is_some));
        assert!(take(address("2001:db8::2"), 1)[0].is_none(), "the same /64");
        assert!(take(address("2001:db8:0:1::2"), 1)[0].is_some());
        assert!(take(Peer::User(0), 1)[0].is_some());
        four.pop();
        four.pop();
        assert!(take(address("192.0.2.1"), 1)[0].is_some(), "one has gone");
        drop((four, six));
        assert!(places.lock().of_peers.is_empty());
    }

    #[test]
    fn who_was_let_in_elsewhere_has_a_place_and_keeps_the_next_one_out() {
        let places = Places::new(1, 1);
        let peer = Peer::User(0);
        let first = places.take_in_any_case(peer);
        let second = places.take_in_any_case(peer);
        assert!(places.take(peer).is_none() && places.take(Peer::User(1)).is_none());
        drop(first);
        assert!(places.take(Peer::User(1)).is_none(), "as many as there are");
        drop(second);
        assert!(places.lock().of_peers.is_empty());
        assert!(places.take(peer).is_some());
    }

    #[test]
    fn a_limit_that_shrinks_lets_nobody_in_until_enough_have_gone() {
        let places = Places::new(3, 3);
        let mut held: Vec<_> = (0..3).map(|user| places.take(Peer::User(user)).expect("free")).collect();
        places.set_limits(2, 1);
        assert!(places.take(Peer::User(9)).is_none());
        held.pop();
        assert!(places.take(Peer::User(9)).is_none(), "as many as there are");
        held.pop();
        let last = places.take(Peer::User(9)).expect("free");
        assert!(places.take(Peer::User(9)).is_none());
        drop(last);
        assert!(places.take(Peer::User(0)).is_none(), "it has its only one");
    }
}
