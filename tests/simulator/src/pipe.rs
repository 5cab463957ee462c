//! One direction of a simulated connection: bytes that travel, in pieces.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::draw::Chance;

/// Bytes that travel. They arrive in order, cut anywhere.
#[derive(Debug, Default)]
pub struct Pipe {
    pieces: VecDeque<(Instant, Vec<u8>)>,
    last: Option<Instant>,
}

impl Pipe {
    /// Sends bytes, cut into at most `pieces`; returns when each piece arrives.
    pub fn send(
        &mut self,
        now: Instant,
        bytes: &[u8],
        latency: (u64, u64),
        pieces: usize,
        chance: &mut Chance,
    ) -> Vec<Instant> {
        let mut arrivals = Vec::new();
        let mut rest = bytes;
        let mut at = self.last.unwrap_or(now).max(now + chance.micros(latency.0, latency.1));
        for remaining in (0..chance.count(1, pieces)).rev() {
            let size = if remaining == 0 { rest.len() } else { chance.count(0, rest.len()) };
            let (piece, others) = rest.split_at(size);
            rest = others;
            if piece.is_empty() {
                continue;
            }
            self.pieces.push_back((at, piece.to_vec()));
            arrivals.push(at);
            self.last = Some(at);
            at += chance.micros(0, latency.1);
        }
        arrivals
    }

    /// The next piece that has arrived.
    pub fn arrived(&mut self, now: Instant) -> Option<Vec<u8>> {
        self.pieces.front().filter(|(at, _)| *at <= now)?;
        self.pieces.pop_front().map(|(_, piece)| piece)
    }

    /// Cuts what travels between any two bytes: what is behind the cut never arrives.
    pub fn cut(&mut self, chance: &mut Chance) {
        let travelling: usize = self.pieces.iter().map(|(_, piece)| piece.len()).sum();
        // Nothing or everything are the cases that matter most.
        let mut left = match chance.below(4) {
            0 => 0,
            1 => travelling,
            _ => chance.count(0, travelling),
        };
        for (_, piece) in &mut self.pieces {
            let kept = piece.len().min(left);
            piece.truncate(kept);
            left -= kept;
        }
        self.pieces.retain(|(_, piece)| !piece.is_empty());
    }

    /// When the last byte that still travels arrives, or `now`.
    pub fn last_arrival(&self, now: Instant) -> Instant {
        self.pieces.back().map_or(now, |(at, _)| (*at).max(now))
    }

    /// Whether nothing travels.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

/// A moment that stands for the beginning of a simulation: times before it can be said too.
pub fn beginning(of_process: Instant) -> Instant {
    of_process + Duration::from_secs(3600)
}
