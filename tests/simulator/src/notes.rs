//! What the scheduler says while it is called, written down to be acted on after the call.

use std::collections::{BTreeMap, VecDeque};

use seeway::schedule::{Abandoned, CallerId, ChannelId, Concluded, Effects, MachineId, WorldId};
use seeway_proto::outcome::{NotSent, Outcome, Rejected, Unknown};
use seeway_proto::wire::JobBytes;

/// An outcome that owns what it says.
#[derive(Clone, Debug)]
pub enum Said {
    /// See [`Outcome::Replied`].
    Replied(Vec<u8>),
    /// See [`Outcome::MachineStatus`].
    MachineStatus(u32, Option<String>, bool),
    /// See [`Outcome::Rejected`].
    Rejected(Rejected),
    /// See [`Outcome::NotSent`].
    NotSent(NotSent),
    /// See [`Outcome::Unknown`].
    Unknown(Unknown),
}

impl Said {
    /// The outcome.
    pub fn outcome(&self) -> Outcome<'_> {
        match self {
            Self::Replied(reply) => Outcome::Replied(JobBytes(reply)),
            Self::MachineStatus(status, info, may_have_run) => {
                Outcome::MachineStatus { status: *status, info: info.as_deref(), may_have_run: *may_have_run }
            }
            Self::Rejected(rejected) => Outcome::Rejected(*rejected),
            Self::NotSent(not_sent) => Outcome::NotSent(*not_sent),
            Self::Unknown(unknown) => Outcome::Unknown(*unknown),
        }
    }
}

impl From<Outcome<'_>> for Said {
    fn from(outcome: Outcome<'_>) -> Self {
        match outcome {
            Outcome::Replied(reply) => Self::Replied(reply.0.to_vec()),
            Outcome::MachineStatus { status, info, may_have_run } => {
                Self::MachineStatus(status, info.map(str::to_owned), may_have_run)
            }
            Outcome::Rejected(rejected) => Self::Rejected(rejected),
            Outcome::NotSent(not_sent) => Self::NotSent(not_sent),
            Outcome::Unknown(unknown) => Self::Unknown(unknown),
        }
    }
}

/// A job's end, as the scheduler told it.
#[derive(Clone, Debug)]
pub struct Told {
    /// Who handed it over.
    pub caller: CallerId,
    /// The caller's own name for it.
    pub ticket: u64,
    /// Where it was to run.
    pub world: WorldId,
    /// The machine that it was last sent to.
    pub machine: Option<MachineId>,
    /// What became of it.
    pub said: Said,
}

/// Everything that the scheduler said and that was not acted on yet.
#[derive(Debug, Default)]
pub struct Notes {
    /// Jobs that ended.
    pub told: VecDeque<Told>,
    /// Jobs that ended without an outcome, by caller and ticket, and whether each may have run.
    pub abandoned: BTreeMap<(CallerId, u64), bool>,
    /// Channels that have something to write.
    pub staged: Vec<ChannelId>,
    /// Callers that have room again.
    pub rooms: Vec<CallerId>,
    /// Whether each world can take jobs.
    pub ready: BTreeMap<WorldId, bool>,
    /// Worlds that were said to be ready or not while they were already.
    pub stammered: Vec<WorldId>,
}

impl Effects for Notes {
    fn concluded(&mut self, concluded: Concluded<'_>) {
        let Concluded { caller, ticket, world, machine, outcome, .. } = concluded;
        self.told.push_back(Told { caller, ticket, world, machine, said: outcome.into() });
    }

    fn abandoned(&mut self, abandoned: Abandoned) {
        self.abandoned.insert((abandoned.caller, abandoned.ticket), abandoned.may_have_run);
    }

    fn output_staged(&mut self, channel: ChannelId) {
        self.staged.push(channel);
    }

    fn world_ready(&mut self, world: WorldId, ready: bool) {
        if self.ready.insert(world, ready).unwrap_or(false) == ready {
            self.stammered.push(world);
        }
    }

    fn caller_has_room(&mut self, caller: CallerId) {
        self.rooms.push(caller);
    }

    // The keepers of the simulation open all channels at once.
    fn bulk_wanted(&mut self, _: MachineId) {}
}
