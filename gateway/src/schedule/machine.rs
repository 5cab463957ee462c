//! A machine's channels, whether it gets jobs, and which of a world's machines gets the next.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use seeway_proto::bug::{self, Bug};
use seeway_proto::mux::Outgoing;
use slotmap::SlotMap;

use super::budget::Lease;
use super::chance::{Chance, stable_hash};
use super::circuit::Circuit;
use super::fair::LaneId;
use super::group::GroupId;
use super::pace::{ReplyTime, SlowStart};
use super::stats::MachineStats;
use super::tally::Tally;
use super::{ChannelId, JobId, MachineId, MachineSettings, MachineState, SizeClass, WorldId};

/// What fits into one of OpenSSH's packets: it allows 32 KiB on a channel.
pub const PACKET_BYTES: usize = 32 * 1024;

/// How long after its first job a batch may be filled up. Long against the time in which its writer takes it, and short against
/// what a job may be held up: a writer that is stuck does not keep what other channels would send.
const FILLING_TIME: Duration = Duration::from_millis(1);

/// A machine as this shard sees it.
#[derive(Debug)]
pub(super) struct Machine {
    /// What affinity keys are weighed against.
    pub(super) name_hash: u64,
    /// The worlds that send to it.
    pub(super) worlds: Vec<WorldId>,
    /// Whose turn it is among them, when each has jobs waiting.
    pub(super) turn: usize,
    pub(super) channels: Vec<ChannelId>,
    /// The channel whose batch was begun last.
    pub(super) filling: ChannelId,
    /// One permit for each tag that a job holds on its channels.
    pub(super) in_flight: Lease,
    pub(super) circuit: Circuit,
    pub(super) reply_time: ReplyTime,
    pub(super) slow_start: Option<SlowStart>,
    /// Until when it may answer none of the jobs that it has.
    pub(super) silent_until: Option<Instant>,
    /// When anything last came from it.
    pub(super) last_answer: Option<Instant>,
    /// An operator takes it out.
    pub(super) is_draining: bool,
    /// The configuration has it no more.
    pub(super) is_retired: bool,
    /// The jobs that it had last.
    pub(super) tally: Tally,
    pub(super) stats: MachineStats,
}

/// One SEEJob stream to a machine.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) machine: MachineId,
    pub(super) class: SizeClass,
    /// Each job by its id; `None` is a NoOp that asks whether the machine is there.
    pub(super) mux: Outgoing<Option<JobId>>,
    /// Each `NoOp` that is not answered: tags that no job holds.
    pub(super) probes: usize,
    pub(super) is_draining: bool,
    /// Until when jobs join those that are staged here: see [`Machines::choose`].
    pub(super) fills_until: Instant,
    /// Groups whose next job waits until this channel has been written.
    pub(super) followers: BTreeSet<GroupId>,
}

/// The machines and their channels.
#[derive(Debug)]
pub(super) struct Machines {
    pub(super) all: Vec<Machine>,
    pub(super) channels: SlotMap<ChannelId, Channel>,
    /// Bytes that may be staged on a channel before it counts as busy.
    pub(super) channel_buffer: usize,
    /// How long one that has jobs may answer none.
    pub(super) silent_after: Duration,
    pub(super) chance: Chance,
    /// Machines that have room, while one is chosen; kept so that choosing allocates nothing.
    candidates: Vec<(MachineId, ChannelId)>,
}

/// What a world has in its machines, the best of them counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// One that takes all that it may have.
    Ready,
    /// None but such as take load step by step. Then these take all of it: there is nobody else.
    Starting,
    /// None that is trusted. Then ejection counts for nothing: the last one is never ejected.
    Ejected,
}

impl Machine {
    pub(super) fn new(settings: MachineSettings) -> Self {
        let MachineSettings { name, in_flight, is_retired } = settings;
        Self {
            name_hash: stable_hash(name.as_bytes()),
            worlds: Vec::new(),
            turn: 0,
            channels: Vec::new(),
            in_flight: Lease::new(in_flight),
            circuit: Circuit::default(),
            reply_time: ReplyTime::default(),
            slow_start: None,
            silent_until: None,
            filling: ChannelId::default(),
            last_answer: None,
            is_draining: false,
            is_retired,
            tally: Tally::default(),
            stats: MachineStats::default(),
        }
    }

    /// Whether it may have jobs at all.
    #[inline]
    fn is_taking(&self) -> bool {
        (!self.is_draining || bug::is_on(Bug::DrainIgnored)) && !self.is_retired
    }

    /// Whether nothing about it but its limit keeps jobs from it.
    #[inline]
    fn is_unrestricted(&self) -> bool {
        self.circuit.is_closed() && self.slow_start.is_none()
    }

    /// Whether what it may have in flight allows one more, beside the others of the world.
    fn has_allowance(&self, others: Others) -> bool {
        let is_allowed = bug::is_on(Bug::EjectedStillServed)
            || self.circuit.is_closed()
            || self.circuit.wants_trial()
            || others == Others::Ejected;
        let is_within = self.slow_start.is_none_or(|start| self.in_flight.used() < start.limit());
        is_allowed && (is_within || others != Others::Ready)
    }
}

impl Channel {
    /// A job is staged, the first of a batch. Not inlined, so that the others do not reckon the time out too.
    #[inline(never)]
    pub(super) fn begin_batch(&mut self, now: Instant) {
        self.fills_until = now + FILLING_TIME;
    }
}

impl Machines {
    pub(super) fn new(channel_buffer: usize, silent_after: Duration, seed: u64) -> Self {
        Self {
            all: Vec::new(),
            channels: SlotMap::default(),
            channel_buffer,
            silent_after,
            chance: Chance::new(seed),
            candidates: Vec::new(),
        }
    }

    /// From now on one that has jobs may be silent for so long, reckoned from when it fell silent.
    pub(super) fn set_silent_after(&mut self, silent_after: Duration) {
        for machine in &mut self.all {
            let since = machine.silent_until.and_then(|until| until.checked_sub(self.silent_after));
            machine.silent_until = since.map(|since| since + silent_after);
        }
        self.silent_after = silent_after;
    }

    /// Whether a machine has a channel that takes jobs, and may have them.
    pub(super) fn is_up(&self, id: MachineId) -> bool {
        let machine = &self.all[id.0];
        machine.is_taking() && machine.channels.iter().any(|channel| !self.channels[*channel].is_draining)
    }

    /// Whether a machine is up and nothing is held against it.
    pub(super) fn is_trusted(&self, id: MachineId) -> bool {
        self.all[id.0].circuit.is_closed() && self.is_up(id)
    }

    /// What a world has in its machines.
    fn others(&self, machines: &[MachineId]) -> Others {
        let mut others = Others::Ejected;
        for &machine in machines.iter().filter(|machine| self.is_trusted(**machine)) {
            if self.all[machine.0].slow_start.is_none() {
                return Others::Ready;
            }
            others = Others::Starting;
        }
        others
    }

    /// Whether a world with these machines sends jobs to this one, once that has room.
    pub(super) fn is_usable(&self, id: MachineId, machines: &[MachineId]) -> bool {
        let circuit = &self.all[id.0].circuit;
        self.is_up(id) && (circuit.is_closed() || circuit.wants_trial() || self.others(machines) == Others::Ejected)
    }

    /// Whether each world of a machine has another one to go to.
    pub(super) fn can_spare(&self, id: MachineId, worlds: &[super::world::World]) -> bool {
        let mut worlds = self.all[id.0].worlds.iter().map(|world| &worlds[world.0]).filter(|world| !world.is_retired);
        worlds.all(|world| world.machines.iter().any(|other| *other != id && self.is_trusted(*other)))
    }

    /// The channel that takes the next job of a lane: of the machines that have room two are drawn, and the one with less to
    /// do is taken; of its channels the one with the least in flight. `None` where none has room.
    ///
    /// A channel that has been given its first job of a batch just now is filled up to a packet before another one is begun: one
    /// packet costs the SSH server, the machine and this gateway less than two.
    ///
    /// The machine's permit is taken; [`settle`](Self::settle) releases it when the tag is free again.
    #[inline(always)]
    pub(super) fn choose(&mut self, now: Instant, world_machines: &[MachineId], lane: LaneId) -> Option<ChannelId> {
        if let ([only], None) = (world_machines, lane.machine)
            && self.all[only.0].is_taking()
            && self.all[only.0].is_unrestricted()
            && let Some(channel) = self.channel_with_room(now, *only, lane.class)
            && self.all[only.0].in_flight.try_use(1)
        {
            // There is nothing to choose, and nothing is held against it.
            return Some(channel);
        }
        self.choose_anew(now, world_machines, lane)
    }

    fn choose_anew(&mut self, now: Instant, world_machines: &[MachineId], lane: LaneId) -> Option<ChannelId> {
        let candidate = |id: MachineId| self.candidate(now, id, lane.class, world_machines);
        let chosen = match (lane.machine, world_machines) {
            // A reload may have taken it from the world.
            (Some(machine), _) => candidate(machine).filter(|_| world_machines.contains(&machine)),
            (None, [only]) => candidate(*only),
            (None, _) => {
                let mut candidates = std::mem::take(&mut self.candidates);
                candidates.extend(
                    world_machines.iter().filter_map(|id| self.candidate(now, *id, lane.class, world_machines)),
                );
                let chosen = self.better_of_two(&candidates);
                candidates.clear();
                self.candidates = candidates;
                chosen
            }
        };
        let channel = chosen.and_then(|(machine, channel)| self.all[machine.0].in_flight.try_use(1).then_some(channel));
        if channel.is_none() {
            self.wait_for_permits(now, world_machines, lane);
        }
        channel
    }

    /// Tells the other shards that a permit is wanted of each machine where nothing else is missing.
    fn wait_for_permits(&mut self, now: Instant, world_machines: &[MachineId], lane: LaneId) {
        let wanted = world_machines.iter().filter(|id| lane.machine.is_none_or(|machine| machine == **id));
        for id in wanted {
            if self.all[id.0].in_flight.is_shared() && self.channel_with_room(now, *id, lane.class).is_some() {
                self.all[id.0].in_flight.wait();
            }
        }
    }

    /// Nothing waits for these machines any more, as far as one of their worlds goes.
    pub(super) fn want_no_permits(&mut self, world_machines: &[MachineId]) {
        for id in world_machines {
            self.all[id.0].in_flight.stop_waiting();
        }
    }

    /// A machine that may have one more job of this size, and the channel for it.
    fn candidate(
        &self,
        now: Instant,
        id: MachineId,
        class: SizeClass,
        world_machines: &[MachineId],
    ) -> Option<(MachineId, ChannelId)> {
        let machine = &self.all[id.0];
        let is_allowed = machine.is_unrestricted() || machine.has_allowance(self.others(world_machines));
        if !machine.is_taking() || !is_allowed || !machine.in_flight.has_room() {
            return None;
        }
        Some((id, self.channel_with_room(now, id, class)?))
    }

    fn better_of_two(&mut self, candidates: &[(MachineId, ChannelId)]) -> Option<(MachineId, ChannelId)> {
        let (one, other) = match candidates {
            [] => return None,
            [only] => return Some(*only),
            [one, other] => (*one, *other),
            _ => {
                let one = self.chance.below(candidates.len());
                let other = (one + 1 + self.chance.below(candidates.len() - 1)) % candidates.len();
                (candidates[one], candidates[other])
            }
        };
        let load = |(machine, _): (MachineId, ChannelId)| {
            let machine = &self.all[machine.0];
            machine.reply_time.load(machine.in_flight.used())
        };
        Some(if load(other) < load(one) { other } else { one })
    }

    /// Of a machine's channels for jobs of this size the one that is being filled, else the one with the least in flight, among
    /// those that have room.
    #[inline(always)]
    fn channel_with_room(&self, now: Instant, id: MachineId, class: SizeClass) -> Option<ChannelId> {
        let machine = &self.all[id.0];
        // Most jobs join others.
        if let Some(channel) = self.channels.get(machine.filling)
            && channel.class == class
            && self.is_being_filled(channel, now)
        {
            return Some(machine.filling);
        }
        if let [only] = machine.channels[..] {
            let channel = &self.channels[only];
            return (!channel.is_draining && self.has_room(channel)).then_some(only);
        }
        self.least_in_flight(machine, class)
    }

    fn least_in_flight(&self, machine: &Machine, class: SizeClass) -> Option<ChannelId> {
        let mut best: Option<(usize, ChannelId)> = None;
        let mut has_own = false;
        for &id in &machine.channels {
            let channel = &self.channels[id];
            let is_own = channel.class == class;
            if channel.is_draining || (has_own && !is_own) {
                continue;
            }
            if is_own && !has_own {
                // A class borrows the other's channels only where none of its own is up.
                has_own = true;
                best = None;
            }
            let in_flight = channel.mux.in_flight();
            if best.is_none_or(|(least, _)| in_flight < least) && self.has_room(channel) {
                best = Some((in_flight, id));
            }
        }
        best.map(|(_, id)| id)
    }

    /// Whether a channel's batch was begun just now and does not fill a packet yet, so that one more job joins it.
    #[inline(always)]
    fn is_being_filled(&self, channel: &Channel, now: Instant) -> bool {
        let staged = channel.mux.staged_len();
        staged > 0
            && staged < PACKET_BYTES
            && now <= channel.fills_until
            && !channel.is_draining
            && self.has_room(channel)
    }

    /// Whether a job may follow another one of its group to this channel.
    pub(super) fn may_follow(&self, id: ChannelId, lane: LaneId) -> bool {
        let Some(channel) = self.channels.get(id) else { return false };
        !channel.is_draining
            && channel.class == lane.class
            && lane.machine.is_none_or(|machine| machine == channel.machine)
            && self.has_room(channel)
    }

    #[inline]
    fn has_room(&self, Channel { mux, .. }: &Channel) -> bool {
        mux.has_room() && mux.staged_len() < self.channel_buffer
    }

    /// Gives back a permit that was taken for a job that was not staged.
    pub(super) fn give_back(&mut self, channel: ChannelId) {
        let machine = self.channels[channel].machine;
        self.all[machine.0].in_flight.release(1);
    }

    /// Releases the permits of tags that no job holds any more.
    pub(super) fn settle(&mut self, now: Instant, id: MachineId) {
        if bug::is_on(Bug::PermitLeakedOnLoss) && self.all[id.0].channels.is_empty() {
            return;
        }
        let machine = &mut self.all[id.0];
        let on_channel = |id: &ChannelId| self.channels[*id].mux.in_flight() - self.channels[*id].probes;
        let taken: usize = machine.channels.iter().map(on_channel).sum();
        let freed = machine.in_flight.used() - taken;
        if freed > 0 {
            machine.in_flight.release(freed);
        }
        if machine.channels.is_empty() {
            machine.in_flight.stop_waiting();
        }
        machine.silent_until =
            if taken == 0 { None } else { machine.silent_until.or_else(|| Some(now + self.silent_after)) };
    }

    /// Whether a machine takes jobs, and why not.
    pub(super) fn state(&self, id: MachineId) -> MachineState {
        let machine = &self.all[id.0];
        if machine.is_draining || (machine.is_retired && !machine.channels.is_empty()) {
            MachineState::Draining
        } else if !self.is_up(id) {
            MachineState::Down
        } else if machine.circuit.is_probing() {
            MachineState::Probing
        } else if !machine.circuit.is_closed() {
            MachineState::Ejected
        } else if machine.slow_start.is_some() {
            MachineState::Starting
        } else {
            MachineState::Ready
        }
    }
}
