//! What a shard tells the control plane when somebody wants to see metrics.

use crate::schedule::{Histogram, MachineId, MachineState, WorldId, WorldStats};

use super::{Passed, PoolCounts, State, TunnelState};

/// A shard's numbers at one moment. Counts are since the shard began.
#[derive(Clone, Debug)]
pub struct Report {
    /// By [`WorldId`].
    pub worlds: Vec<WorldReport>,
    /// By [`MachineId`].
    pub machines: Vec<MachineReport>,
    /// Legacy connections.
    pub legacy_callers: usize,
    /// gRPC connections and streams.
    pub grpc_callers: usize,
    /// Legacy connections that are not read from, because one of the caller's limits is reached.
    pub legacy_paused: usize,
    /// gRPC streams that are not read from, because one of the caller's limits is reached.
    pub grpc_paused: usize,
    /// Jobs in hand.
    pub jobs: usize,
    /// Tasks that run on the shard.
    pub tasks: usize,
    /// Requests rejected that were counted for no world.
    pub rejected: u64,
    /// Connections and calls whose message took too long to come.
    pub late: Late,
    /// Legacy connections whose messages were none.
    pub broken: u64,
    /// Connections to the hardserver that are up.
    pub hardserver_connections: usize,
    /// Commands that were passed on to the hardserver and have ended.
    pub passed: Passed,
}

/// How often a message took longer to come than `limits.message_timeout`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Late {
    /// Legacy connections that were closed for it.
    pub legacy: u64,
    /// gRPC connections that were closed for it, and calls that failed.
    pub grpc: u64,
}

/// A world's part of a [`Report`].
#[derive(Clone, Debug)]
pub struct WorldReport {
    /// Jobs that wait.
    pub queued: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Whether a job could be sent now.
    pub is_ready: bool,
    /// What was counted.
    pub stats: WorldStats,
}

/// A machine's part of a [`Report`].
#[derive(Clone, Debug)]
pub struct MachineReport {
    /// Whether it takes jobs, and why not.
    pub state: MachineState,
    /// Tags that are taken.
    pub in_flight: usize,
    /// Channels that are up.
    pub channels: usize,
    /// How many tunnels are in each state, in the order of [`TunnelState::ALL`].
    pub tunnels: [usize; TunnelState::ALL.len()],
    /// What its pool has counted.
    pub pool: PoolCounts,
    /// Replies that nobody waited for any more.
    pub late_replies: u64,
    /// How often it was ejected.
    pub ejections: u64,
    /// From sending to reply.
    pub machine_time: Histogram,
    /// Round trips of keepalives.
    pub keepalives: Histogram,
}

impl State {
    /// The shard's numbers now.
    pub fn report(&self) -> Report {
        let Self { scheduler, front, pools, .. } = self;
        let (legacy_callers, grpc_callers) = front.count();
        let (legacy_paused, grpc_paused) = front.paused();
        let machine = |(index, pool): (usize, &super::Pool)| {
            let stats = scheduler.machine_stats(MachineId(index));
            MachineReport {
                state: scheduler.machine_state(MachineId(index)),
                in_flight: scheduler.in_flight(MachineId(index)),
                channels: scheduler.channels(MachineId(index)),
                tunnels: pool.states(),
                pool: pool.counts(),
                late_replies: stats.late_replies,
                ejections: stats.ejections,
                machine_time: stats.machine_time,
                keepalives: pool.keepalives(),
            }
        };
        Report {
            worlds: (0..scheduler.worlds())
                .map(|index| WorldReport {
                    queued: scheduler.queued(WorldId(index)),
                    queued_bytes: scheduler.queued_bytes(WorldId(index)),
                    is_ready: scheduler.is_ready(WorldId(index)),
                    stats: scheduler.world_stats(WorldId(index)),
                })
                .collect(),
            machines: pools.iter().enumerate().map(machine).collect(),
            legacy_callers,
            grpc_callers,
            legacy_paused,
            grpc_paused,
            jobs: scheduler.jobs(),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            rejected: front.rejected,
            late: front.late,
            broken: front.broken,
            hardserver_connections: front.hardserver_connections(),
            passed: front.passed,
        }
    }
}
