//! What is seen of the shards at one moment, and what it says by itself: which machines are well, and why worlds are not ready.
//! For the sampler; and for `/metrics` and `/readyz`, which go by the same rules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Board;
use super::state::{Happening, Readiness, WorldReadiness};
use crate::config::Config;
use crate::schedule::MachineState;
use crate::shard::{self, Look, MachineReport, Report, TunnelState, What, WorldReport};

/// What shards have to say of worlds and machines, by the positions that these have in the configuration.
pub(super) trait Reports {
    /// The configuration that is in force.
    fn config(&self) -> &Config;

    /// What each shard has to say.
    fn reports(&self) -> impl Iterator<Item = &Report>;

    /// A world's part of each report. A shard that has not heard of the world yet has none.
    fn of_world(&self, index: usize) -> impl Iterator<Item = &WorldReport> {
        self.reports().filter_map(move |report| report.worlds.get(index))
    }

    /// A machine's part of each report. A shard that has not heard of the machine yet has none.
    fn of_machine(&self, index: usize) -> impl Iterator<Item = &MachineReport> {
        self.reports().filter_map(move |report| report.machines.get(index))
    }

    /// The worlds that are shown: those that the configuration has.
    fn worlds(&self) -> impl Iterator<Item = usize> {
        let worlds = self.config().worlds.iter().enumerate();
        worlds.filter(|(_, world)| !world.is_retired).map(|(index, _)| index)
    }

    /// The machines that are shown: those that the configuration has, and those that still finish what they had when it lost them.
    fn machines(&self) -> impl Iterator<Item = usize> {
        let is_at_work = |index| self.of_machine(index).any(|machine| machine.in_flight > 0 || machine.channels > 0);
        let machines = self.config().machines.iter().enumerate();
        machines.filter(move |(index, machine)| !machine.is_retired || is_at_work(*index)).map(|(index, _)| index)
    }
}

/// The shards at one moment.
pub(super) struct Seen {
    /// The configuration that is in force.
    pub(super) config: Arc<Config>,
    /// What each shard has to say.
    pub(super) looks: Vec<Look>,
}

/// A machine's state is the worst that it has on a shard; this is from the worst on.
const WORST_FIRST: [MachineState; 6] = [
    MachineState::Draining,
    MachineState::Down,
    MachineState::Ejected,
    MachineState::Probing,
    MachineState::Starting,
    MachineState::Ready,
];

impl Reports for Seen {
    fn config(&self) -> &Config {
        &self.config
    }

    fn reports(&self) -> impl Iterator<Item = &Report> {
        self.looks.iter().map(|look| &look.report)
    }
}

impl Seen {
    /// The worst of what a machine is to the shards.
    pub(super) fn state(&self, machine: usize) -> MachineState {
        let is_any = |state: &MachineState| self.of_machine(machine).any(|report| report.state == *state);
        WORST_FIRST.into_iter().find(is_any).unwrap_or(MachineState::Down)
    }

    /// On how many shards a machine is in which state.
    pub(super) fn states(&self, machine: usize) -> BTreeMap<String, usize> {
        let mut states = BTreeMap::new();
        for report in self.of_machine(machine) {
            *states.entry(report.state.label().to_owned()).or_default() += 1;
        }
        states
    }

    /// A machine's tunnels, by state.
    pub(super) fn tunnels(&self, machine: usize) -> BTreeMap<String, usize> {
        let count = |place: usize| self.of_machine(machine).map(|report| report.tunnels[place]).sum();
        TunnelState::ALL.iter().enumerate().map(|(place, state)| (state.label().to_owned(), count(place))).collect()
    }

    /// Why a machine's last tunnel or channel is not up, and on which shard: the latest of all shards.
    pub(super) fn trouble(&self, machine: usize) -> Option<Happening> {
        let troubles = self.looks.iter().enumerate().filter_map(|(shard, look)| {
            let trouble = look.machines.get(machine)?.trouble.as_ref()?;
            Some((trouble, shard))
        });
        let (trouble, shard) = troubles.max_by_key(|(trouble, _)| trouble.at)?;
        Some(happening(trouble, shard))
    }

    /// How much has happened to a machine.
    pub(super) fn happenings(&self, machine: usize) -> u64 {
        self.looks.iter().filter_map(|look| look.machines.get(machine)).map(|machine| machine.happenings).sum()
    }

    /// Why a world can not take a job: what is wrong with each of its machines.
    pub(super) fn why_not_ready(&self, world: usize) -> String {
        let machines = self.config.worlds[world].machines.iter();
        let reasons: Vec<_> = machines.map(|machine| self.why_not_up(*machine)).collect();
        if reasons.is_empty() { "it has no machine".to_owned() } else { reasons.join("; ") }
    }

    fn why_not_up(&self, machine: usize) -> String {
        let name = &self.config.machines[machine].name;
        match self.state(machine) {
            MachineState::Draining => format!("{name} is drained"),
            MachineState::Ejected | MachineState::Probing => {
                format!("{name} is ejected: it failed jobs, or answered none for too long")
            }
            MachineState::Down | MachineState::Starting | MachineState::Ready => {
                let Some(trouble) = self.trouble(machine) else { return format!("{name} has no channel up yet") };
                let what = match trouble.what.as_str() {
                    what if what == What::Refused.label() => " refused the tunnel, or is not the one that is pinned: ",
                    what if what == What::ChannelForbidden.label() => " forbids the channel: ",
                    what if what == What::TunnelLost.label() => ": the tunnel was lost: ",
                    _ => ": ",
                };
                format!("{name}{what}{}", trouble.text)
            }
        }
    }
}

/// Whether the gateway is ready, as the board has it: ready is one that does not drain and has a world that can take a job. `reason_of` says
/// why a world is not, where somebody has seen that.
pub(super) fn readiness(board: &Board, reason_of: impl Fn(&str) -> Option<String>) -> Readiness {
    let of_world = |(world, ready): (String, bool)| {
        let reason = if ready { None } else { reason_of(&world) };
        WorldReadiness { world, ready, reason }
    };
    let worlds: Vec<_> = board.worlds().into_iter().map(of_world).collect();
    let is_draining = board.is_draining();
    let can_take = worlds.iter().any(|world| world.ready);
    let mut reasons = Vec::new();
    if is_draining {
        reasons.push("the gateway takes no new jobs: it was drained, or is stopping".to_owned());
    }
    if !can_take {
        reasons.push("no world can take a job".to_owned());
    }
    for WorldReadiness { world, reason, .. } in worlds.iter().filter(|world| !world.ready) {
        let why = reason.as_deref().unwrap_or("no machine is up");
        reasons.push(format!("world {world}: {why}"));
    }
    Readiness { ready: !is_draining && can_take, reasons, worlds }
}

/// Something that has happened on a shard, as programs are told it.
pub(super) fn happening(happened: &shard::Happening, shard: usize) -> Happening {
    Happening {
        time: seconds(happened.at),
        shard: (!happened.what.is_wish()).then_some(shard),
        what: happened.what.label().to_owned(),
        text: happened.detail.to_string(),
    }
}

/// Seconds since 1970, to the millisecond.
pub(super) fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs_f64() * 1000.0).round() / 1000.0
}
