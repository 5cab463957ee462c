//! What a shard tells the control plane when somebody wants to see metrics.

use crate::schedule::{Histogram, MachineId, WorldId, WorldStats};

use super::{Passed, State};

/// A shard's numbers at one moment. Counts are since the shard began.
#[derive(Debug)]
pub struct Report {
    /// By [`WorldId`].
    pub worlds: Vec<WorldReport>,
    /// By [`MachineId`].
    pub machines: Vec<MachineReport>,
    /// Legacy connections.
    pub legacy_callers: usize,
    /// gRPC connections and streams.
    pub grpc_callers: usize,
    /// Jobs in hand.
    pub jobs: usize,
    /// Tasks that run on the shard.
    pub tasks: usize,
    /// Jobs rejected for no world that is configured.
    pub rejected: u64,
    /// Connections to the hardserver that are up.
    pub hardserver_connections: usize,
    /// Commands that were passed on to the hardserver and have ended.
    pub passed: Passed,
}

/// A world's part of a [`Report`].
#[derive(Debug)]
pub struct WorldReport {
    /// Jobs that wait.
    pub queued: usize,
    /// Whether a job could be sent now.
    pub is_ready: bool,
    /// What was counted.
    pub stats: WorldStats,
}

/// A machine's part of a [`Report`].
#[derive(Debug)]
pub struct MachineReport {
    /// Tags that are taken.
    pub in_flight: usize,
    /// Channels that are up.
    pub channels: usize,
    /// How many tunnels are in each state, in the order of [`TunnelState::ALL`].
    pub tunnels: [usize; TunnelState::ALL.len()],
    /// How often a connect failed.
    pub failed_connects: u64,
    /// Replies that nobody waited for any more.
    pub late_replies: u64,
    /// From sending to reply.
    pub machine_time: Histogram,
}

/// What the keeper of a tunnel is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelState {
    /// It connects.
    #[default]
    Connecting,
    /// The tunnel is up.
    Ready,
    /// It waits before it connects again.
    BackingOff,
    /// The host key or the login was refused: it waits long, since somebody has to do something about it.
    Refused,
}

impl TunnelState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Connecting, Self::Ready, Self::BackingOff, Self::Refused];

    /// Its name as a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::BackingOff => "backing_off",
            Self::Refused => "refused",
        }
    }
}

impl State {
    /// The shard's numbers now.
    pub fn report(&self) -> Report {
        let Self { scheduler, front, pools, .. } = self;
        let (legacy_callers, grpc_callers) = front.count();
        let machine = |(index, pool): (usize, &super::Pool)| {
            let stats = scheduler.machine_stats(MachineId(index));
            MachineReport {
                in_flight: scheduler.in_flight(MachineId(index)),
                channels: scheduler.channels(MachineId(index)),
                tunnels: TunnelState::ALL
                    .map(|state| pool.tunnels.iter().filter(|tunnel| tunnel.state == state).count()),
                failed_connects: pool.tunnels.iter().map(|tunnel| tunnel.failed_connects).sum(),
                late_replies: stats.late_replies,
                machine_time: stats.machine_time.clone(),
            }
        };
        Report {
            worlds: (0..scheduler.worlds())
                .map(|index| WorldReport {
                    queued: scheduler.queued(WorldId(index)),
                    is_ready: scheduler.is_ready(WorldId(index)),
                    stats: scheduler.world_stats(WorldId(index)).clone(),
                })
                .collect(),
            machines: pools.iter().enumerate().map(machine).collect(),
            legacy_callers,
            grpc_callers,
            jobs: scheduler.jobs(),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            rejected: front.rejected,
            hardserver_connections: front.hardserver_connections(),
            passed: front.passed,
        }
    }
}
