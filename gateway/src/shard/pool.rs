//! A machine's tunnels on one shard, as far as others than their keepers need to know: how many are in which state, and what has
//! been counted.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use seeway_client::tunnel::Tunnel;

use crate::schedule::Histogram;

/// What a tunnel is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelState {
    /// It connects, or waits for its turn to.
    #[default]
    Connecting,
    /// It is up.
    Ready,
    /// It takes no more jobs and finishes those that it has, because of its age or of a new configuration.
    Draining,
    /// It waits before it connects again.
    BackingOff,
    /// The host key or the login was refused: it waits long, since somebody has to do something about it.
    Refused,
}

impl TunnelState {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Connecting, Self::Ready, Self::Draining, Self::BackingOff, Self::Refused];

    /// Its name as a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::BackingOff => "backing_off",
            Self::Refused => "refused",
        }
    }
}

/// A machine's tunnels on one shard. Counts are since the shard began.
#[derive(Debug, Default)]
pub struct Pool {
    /// How many tunnels are in each state, in the order of [`TunnelState::ALL`].
    states: [usize; TunnelState::ALL.len()],
    counts: PoolCounts,
    /// Round trips of keepalives. Locked for one of them at a time, seconds apart, by the tunnel that has sent it.
    keepalives: Arc<Mutex<Histogram>>,
    standing: Vec<Weak<Tunnel>>,
}

/// What a pool has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Tunnels that were made.
    pub made: u64,
    /// Connects that failed, refused ones included.
    pub failed_connects: u64,
    /// Connects that failed for the host key or the login.
    pub refused: u64,
    /// Channels that the SSH server's policy forbade.
    pub prohibited: u64,
    /// Key exchanges on tunnels that stood already.
    pub rekeys: u64,
}

impl Pool {
    /// A tunnel goes from one state to another; `None` is before its beginning, and after its end.
    pub fn change(&mut self, from: Option<TunnelState>, to: Option<TunnelState>) {
        let place = |state| TunnelState::ALL.iter().position(|other| *other == state).expect("ALL has each");
        if let Some(from) = from {
            self.states[place(from)] -= 1;
        }
        if let Some(to) = to {
            self.states[place(to)] += 1;
        }
    }

    /// A tunnel was made.
    pub fn made(&mut self, tunnel: &Arc<Tunnel>) {
        self.counts.made += 1;
        let keepalives = self.keepalives.clone();
        tunnel.on_keepalive(move |took| keepalives.lock().unwrap_or_else(PoisonError::into_inner).record(took));
        self.standing.push(Arc::downgrade(tunnel));
    }

    /// A tunnel that was made has ended.
    pub fn ended(&mut self, tunnel: &Arc<Tunnel>) {
        self.counts.rekeys += tunnel.rekeys();
        self.standing.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(tunnel)));
    }

    /// A connect failed.
    pub fn failed(&mut self, was_refused: bool) {
        self.counts.failed_connects += 1;
        self.counts.refused += u64::from(was_refused);
    }

    /// The SSH server's policy forbids the channel.
    pub fn prohibited(&mut self) {
        self.counts.prohibited += 1;
    }

    /// How many tunnels are in each state, in the order of [`TunnelState::ALL`].
    pub fn states(&self) -> [usize; TunnelState::ALL.len()] {
        self.states
    }

    /// The round trips of the tunnels' keepalives.
    pub fn keepalives(&self) -> Histogram {
        self.keepalives.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was counted so far.
    pub fn counts(&self) -> PoolCounts {
        let standing: u64 = self.standing.iter().filter_map(Weak::upgrade).map(|tunnel| tunnel.rekeys()).sum();
        PoolCounts { rekeys: self.counts.rekeys + standing, ..self.counts }
    }
}
