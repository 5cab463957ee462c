//! Takes files and ports away from the process, with the kernel's Landlock.

use std::fmt;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetStatus, Scope, path_beneath_rules,
};

use super::{HardenError, Paths};

/// What is taken away where the kernel can: Linux 6.12 can take away all of it. Later ones could also take away sockets' names,
/// which needs rules for each service that the C library asks.
const NEWEST: ABI = ABI::V6;

/// The port of name servers, which are asked over TCP where an answer is long.
const DNS: u16 = 53;

/// How much was taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restricted {
    /// Files, ports, and other processes' signals and abstract sockets.
    Fully,
    /// Files, and of the rest what this kernel can: it is older than Linux 6.12.
    Partly,
    /// Nothing: the kernel has no Landlock.
    Not,
}

impl fmt::Display for Restricted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Fully => "and ports taken away",
            Self::Partly => "taken away, ports as far as this kernel can",
            Self::Not => "left",
        })
    }
}

/// Leaves to this thread, and to those that it will start, these paths and no others, no further TCP listener, and connections to
/// these ports only, where there are any.
pub(super) fn restrict(paths: &Paths, connect_ports: Option<&[u16]>) -> Result<Restricted, HardenError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = AccessFs::from_all(NEWEST) & !(AccessFs::Execute | AccessFs::IoctlDev | special_files());
    let mut network = BitFlags::from(AccessNet::BindTcp);
    if connect_ports.is_some() {
        network |= AccessNet::ConnectTcp;
    }
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(network)?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(&paths.read, read))?
        .add_rules(path_beneath_rules(&paths.write, write))?
        .add_rules(path_beneath_rules(&paths.remove, BitFlags::from(AccessFs::RemoveFile)))?;
    for port in connect_ports.into_iter().flatten().chain([&DNS]).filter(|_| connect_ports.is_some()) {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    Ok(match rules.restrict_self()?.ruleset {
        RulesetStatus::FullyEnforced => Restricted::Fully,
        RulesetStatus::PartiallyEnforced => Restricted::Partly,
        RulesetStatus::NotEnforced => Restricted::Not,
    })
}

/// What is made for other things than data.
fn special_files() -> BitFlags<AccessFs> {
    AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::MakeFifo | AccessFs::MakeSym | AccessFs::Refer
}
