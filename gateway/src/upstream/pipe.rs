//! A channel to any port of one of a world's machines, on a tunnel of its own.

use std::sync::Arc;

use seeway_client::tunnel::{Channel, Tunnel, TunnelError};

use crate::schedule::WorldId;
use crate::shard::Shard;

/// Why there is no pipe.
#[derive(Debug, thiserror::Error)]
pub enum PipeError {
    /// No machine of the world is up.
    #[error("no machine of the world is up; try again later")]
    NoMachine,
    /// The machine's SSH server does not take the tunnel, or the channel.
    #[error("machine `{machine}`: {error}")]
    Tunnel {
        /// The machine.
        machine: String,
        /// What went wrong.
        error: TunnelError,
    },
}

/// Opens a pipe to the machine of a world that is up and has the least in flight; to its SEEJobs port where none is given.
pub async fn open_pipe(shard: &Shard, world: WorldId, port: Option<u16>) -> Result<(Arc<Tunnel>, Channel), PipeError> {
    let machine = shard.with(|state, _| state.scheduler.ready_machines(world).first().copied());
    let machine = machine.ok_or(PipeError::NoMachine)?;
    let config = shard.config();
    let machine = &config.machines[machine.0];
    let refused = |error| PipeError::Tunnel { machine: machine.name.clone(), error };
    let tunnel = Tunnel::connect(&machine.tunnel_options(&config.ssh)).await.map_err(refused)?;
    let channel = tunnel.open(&machine.seejobs_host, port.unwrap_or(machine.seejobs_port)).await.map_err(refused)?;
    Ok((Arc::new(tunnel), channel))
}
