//! The pools: for each machine its tunnels, and on each tunnel its channels.
//!
//! A pool has a place for each tunnel, and each place a keeper. It connects at start, and again, with back-off, whenever the
//! tunnel is lost; where the tunnel has come of age, or the configuration is another one, it makes the next one first and drains
//! the old one then. Large jobs have a tunnel of their own, which is made when the first of them comes, and runs `aside`: on one
//! connection a small job would wait for the bytes of all large ones before it, here, in the SSH server and on the network. A keeper for each channel opens it on the tunnel, tries the machine with a NoOp, registers it with the
//! scheduler, moves bytes until it ends, and opens it again as long as the tunnel stands. What becomes of jobs is none of their
//! business. What a tunnel does when is decided in `life`, without I/O.

mod aside;
mod backoff;
mod certificates;
mod channel;
mod keeper;
mod life;
mod pacer;
mod pipe;
mod serving;
#[cfg(all(test, feature = "emulator"))]
mod tests;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

pub use certificates::warn_of_ends;
pub use pipe::{PipeError, open_pipe};

use crate::config::{Config, Machine, Ssh};
use crate::schedule::{MachineId, SizeClass};
use crate::shard::{Pool, Shard};
use aside::Aside;
use keeper::{End, Orders};

/// The keepers of all of a shard's tunnels.
pub struct Keepers {
    shard: Shard,
    config: Arc<Config>,
    /// By [`MachineId`].
    machines: Vec<Places>,
    /// Those of places that are to end, and may have.
    retired: Vec<watch::Sender<Orders>>,
    tasks: JoinSet<()>,
    aside: Aside,
}

/// What the keepers of a machine's places are told.
#[derive(Default)]
struct Places {
    small: Vec<watch::Sender<Orders>>,
    bulk: Vec<watch::Sender<Orders>>,
}

impl Places {
    fn of(&mut self, class: SizeClass) -> &mut Vec<watch::Sender<Orders>> {
        match class {
            SizeClass::Small => &mut self.small,
            SizeClass::Bulk => &mut self.bulk,
        }
    }
}

/// Both size classes.
const CLASSES: [SizeClass; 2] = [SizeClass::Small, SizeClass::Bulk];

/// Starts a keeper for each tunnel of each machine.
pub fn start(shard: &Shard) -> Keepers {
    let config = shard.config();
    Keepers::start(shard, &config)
}

impl Keepers {
    fn start(shard: &Shard, config: &Arc<Config>) -> Self {
        let mut keepers = Self {
            shard: shard.clone(),
            config: config.clone(),
            machines: Vec::new(),
            retired: Vec::new(),
            tasks: JoinSet::new(),
            aside: Aside::default(),
        };
        for (index, machine) in config.machines.iter().enumerate() {
            keepers.machines.push(Places::default());
            for class in CLASSES {
                keepers.fill(index, class, wanted(machine, class));
            }
        }
        keepers
    }

    /// The shard's configuration has changed, and its scheduler knows. Each machine has kept its place; new ones are at the end.
    ///
    /// A machine's tunnels are replaced where anything has changed that they are made with: the next ones are up before the old
    /// ones drain. (As long as the new configuration does not lead to the machine, the old tunnels stand.) A retired machine's
    /// tunnels drain and end, and so do those that are too many. Whoever waits before it connects again does so at once.
    pub fn reconfigure(&mut self, shard: &Shard) {
        let config = shard.config();
        self.take(&config);
    }

    fn take(&mut self, new: &Arc<Config>) {
        let old = std::mem::replace(&mut self.config, new.clone());
        self.shard.with(|state, _| {
            let machines = state.pools.len().max(new.machines.len());
            state.pools.resize_with(machines, Pool::default);
        });
        // Keepers that have retired since the last time.
        while self.tasks.try_join_next().is_some() {}
        self.retired.retain(|orders| !orders.is_closed());
        self.machines.resize_with(self.machines.len().max(new.machines.len()), Places::default);
        for (index, machine) in new.machines.iter().enumerate() {
            let is_changed =
                old.machines.get(index).is_none_or(|old_one| differ((old_one, &old.ssh), (machine, &new.ssh)));
            for class in CLASSES {
                let wanted = wanted(machine, class);
                let places = self.machines[index].of(class);
                for surplus in places.drain(wanted.min(places.len())..) {
                    surplus.send_modify(|orders| {
                        orders.config = new.clone();
                        orders.end = Some(End::Retire);
                    });
                    self.retired.push(surplus);
                }
                for place in places {
                    place.send_modify(|orders| {
                        orders.config = new.clone();
                        orders.reloads += 1;
                        orders.version += u64::from(is_changed);
                    });
                }
                self.fill(index, class, wanted);
            }
        }
    }

    /// Starts keepers until a machine has as many as are wanted.
    fn fill(&mut self, machine: usize, class: SizeClass, wanted: usize) {
        while self.machines[machine].of(class).len() < wanted {
            let (orders, ordered) =
                watch::channel(Orders { config: self.config.clone(), version: 0, reloads: 0, end: None });
            let (shard, aside) = (self.shard.clone(), self.aside.clone());
            self.tasks.spawn(keeper::keep(shard, MachineId(machine), class, aside, ordered));
            self.machines[machine].of(class).push(orders);
        }
    }

    /// Closes every channel and tunnel and waits for it. Jobs that are still out get their outcome.
    pub async fn stop(mut self) {
        let places = self.machines.iter().flat_map(|places| places.small.iter().chain(&places.bulk));
        for place in places.chain(&self.retired) {
            place.send_modify(|orders| orders.end = Some(End::Stop));
        }
        while self.tasks.join_next().await.is_some() {}
    }
}

/// How many tunnels a machine is to have for jobs of this size.
fn wanted(machine: &Machine, class: SizeClass) -> usize {
    match class {
        _ if machine.is_retired => 0,
        SizeClass::Small => machine.tunnels,
        SizeClass::Bulk => usize::from(machine.bulk_channels > 0),
    }
}

/// Whether tunnels that were made with one of the two are others than those made with the other one.
fn differ(one: (&Machine, &Ssh), other: (&Machine, &Ssh)) -> bool {
    let made_with = |(machine, ssh): (&Machine, &Ssh)| {
        let target = (machine.seejobs_host.clone(), machine.seejobs_port);
        (machine.tunnel_options(ssh), target, machine.channels, machine.bulk_channels)
    };
    made_with(one) != made_with(other)
}
