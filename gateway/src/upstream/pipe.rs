//! A channel to any port of one of a world's machines, on a tunnel of its own.

use std::sync::Arc;

use seeway_client::tunnel::{Channel, Tunnel, TunnelError};

use super::pacer;
use crate::config::Machine;
use crate::schedule::{MachineId, MachineState, WorldId};
use crate::shard::Shard;

/// Why there is no pipe.
#[derive(Debug, thiserror::Error)]
pub enum PipeError {
    /// No machine of the world is up, and none takes a pipe.
    #[error("no machine of the world is up; try again later. The last one that was tried: {error}")]
    NoMachine {
        /// What went wrong with the last one.
        error: TunnelError,
    },
    /// The gateway, or each machine that the pipe could go to, is being drained.
    #[error(
        "the gateway, or each machine that the pipe could go to, is being drained; use another gateway, or try again later"
    )]
    Draining,
    /// The machine's SSH server does not take the tunnel, or the channel.
    #[error("machine `{machine}`: {error}")]
    Tunnel {
        /// The machine.
        machine: String,
        /// What went wrong.
        error: TunnelError,
    },
}

/// Opens a pipe to the machine of a world that a job with this key would go to (without one: that takes jobs and has the least in
/// flight); to its SEEJobs port where no port is given.
///
/// A machine need not speak SEEJobs to be piped to. So where none of the world's takes jobs, the first is taken whose SSH server
/// opens a channel to the port. One that is drained is passed over as it is by jobs, and a gateway that is drained opens none.
pub async fn open_pipe(
    shard: &Shard,
    world: WorldId,
    affinity_key: &[u8],
    port: Option<u16>,
) -> Result<(Arc<Tunnel>, Channel), PipeError> {
    let config = shard.config();
    let order = shard.with(|state, _| state.scheduler.machines_for(world, affinity_key));
    let mut result = Err(PipeError::Draining);
    for (id, takes_jobs) in order {
        if is_drained(shard, id) {
            continue;
        }
        let machine = &config.machines[id.0];
        match open_on(shard, machine, port).await {
            // A drain may have begun meanwhile.
            Ok(_) if is_drained(shard, id) => {}
            Ok(pipe) => return Ok(pipe),
            Err(error) if takes_jobs => return Err(PipeError::Tunnel { machine: machine.name.clone(), error }),
            Err(error) => result = Err(PipeError::NoMachine { error }),
        }
    }
    result
}

/// Whether a machine, or the whole gateway, takes no more of anything.
fn is_drained(shard: &Shard, machine: MachineId) -> bool {
    shard.with(|state, _| {
        let scheduler = &state.scheduler;
        scheduler.is_draining() || scheduler.machine_state(machine) == MachineState::Draining
    })
}

async fn open_on(shard: &Shard, machine: &Machine, port: Option<u16>) -> Result<(Arc<Tunnel>, Channel), TunnelError> {
    let ssh = shard.config().ssh.clone();
    pacer::turn(&machine.address, ssh.connect_pace).await;
    let tunnel = Tunnel::connect(&machine.tunnel_options(&ssh)).await?;
    let channel = tunnel.open(&machine.seejobs_host, port.unwrap_or(machine.seejobs_port)).await?;
    Ok((Arc::new(tunnel), channel))
}
