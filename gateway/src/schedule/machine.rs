//! A machine's channels, and which of them takes the next job.

use seeway_proto::mux::Outgoing;
use slotmap::SlotMap;

use super::budget::Lease;
use super::stats::MachineStats;
use super::{ChannelId, JobId, MachineId, WorldId};

/// A machine as this shard sees it.
#[derive(Debug)]
pub(super) struct Machine {
    /// The worlds that send to it.
    pub(super) worlds: Vec<WorldId>,
    /// Whose turn it is among them, when each has jobs waiting.
    pub(super) turn: usize,
    pub(super) channels: Vec<ChannelId>,
    /// One permit for each tag that is taken on its channels.
    pub(super) in_flight: Lease,
    pub(super) stats: MachineStats,
}

/// One SEEJob stream to a machine.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) machine: MachineId,
    pub(super) mux: Outgoing<JobId>,
}

/// The machines and their channels.
#[derive(Debug)]
pub(super) struct Machines {
    pub(super) all: Vec<Machine>,
    pub(super) channels: SlotMap<ChannelId, Channel>,
    /// Bytes that may be staged on a channel before it counts as busy.
    pub(super) channel_buffer: usize,
}

impl Machines {
    /// The channel that takes the next job: of the machines that have room the one with the least in flight, and of its
    /// channels that have room the one with the least in flight. `None` where none has room.
    ///
    /// The machine's permit is taken; [`settle`](Self::settle) releases it when the tag is free again.
    pub(super) fn choose(&mut self, candidates: &[MachineId]) -> Option<ChannelId> {
        let mut best: Option<(usize, MachineId, ChannelId)> = None;
        for &id in candidates {
            let machine = &mut self.all[id.0];
            let used = machine.in_flight.used();
            if best.is_some_and(|(least, ..)| least <= used) {
                continue;
            }
            if let Some(channel) = least_in_flight(&self.channels, &machine.channels, self.channel_buffer)
                && machine.in_flight.has_room()
            {
                best = Some((used, id, channel));
            }
        }
        let (_, machine, channel) = best?;
        self.all[machine.0].in_flight.try_use().then_some(channel)
    }

    /// Releases the permits of tags that a channel no longer holds.
    pub(super) fn settle(&mut self, machine: MachineId) {
        let machine = &mut self.all[machine.0];
        let taken: usize = machine.channels.iter().map(|&id| self.channels[id].mux.in_flight()).sum();
        let freed = machine.in_flight.used() - taken;
        if freed > 0 {
            machine.in_flight.release(freed);
        }
    }
}

fn least_in_flight(
    channels: &SlotMap<ChannelId, Channel>,
    candidates: &[ChannelId],
    channel_buffer: usize,
) -> Option<ChannelId> {
    candidates
        .iter()
        .copied()
        .filter(|&id| {
            let mux = &channels[id].mux;
            mux.has_room() && mux.staged_len() < channel_buffer
        })
        .min_by_key(|&id| channels[id].mux.in_flight())
}
