//! What has happened to a machine lately: connects, losses, refusals, and what operators wanted of it. For whoever asks why it is
//! as it is.
//!
//! Written on the shard where it happens, by the keepers in `upstream` and by the scheduler's effects, never for a job; read by the
//! control plane when somebody looks.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::schedule::MachineId;

use super::Front;

/// How much of the past is kept, for each machine on each shard.
pub const KEPT: usize = 100;

/// What of a text is kept, in bytes: an SSH server has a say in some of them.
const MAX_TEXT: usize = 400;

/// What can happen to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A tunnel is up.
    TunnelUp,
    /// A tunnel was lost.
    TunnelLost,
    /// A tunnel could not be made.
    ConnectFailed,
    /// The host key or the login was refused.
    Refused,
    /// A tunnel takes no more jobs and is replaced, or goes.
    TunnelDrains,
    /// A channel could not be used.
    ChannelFailed,
    /// The SSH server's policy forbids the channel.
    ChannelForbidden,
    /// A channel has ended that was up.
    ChannelLost,
    /// It failed jobs or was silent, and gets none.
    Ejected,
    /// It was ejected and gets jobs again.
    Trusted,
    /// An operator takes it out.
    Drained,
    /// An operator has it take jobs again.
    Resumed,
    /// The configuration was read again.
    Reloaded,
}

impl What {
    /// Its name, for programs.
    pub fn label(self) -> &'static str {
        match self {
            Self::TunnelUp => "tunnel_up",
            Self::TunnelLost => "tunnel_lost",
            Self::ConnectFailed => "connect_failed",
            Self::Refused => "refused",
            Self::TunnelDrains => "tunnel_drains",
            Self::ChannelFailed => "channel_failed",
            Self::ChannelForbidden => "channel_forbidden",
            Self::ChannelLost => "channel_lost",
            Self::Ejected => "ejected",
            Self::Trusted => "trusted",
            Self::Drained => "drained",
            Self::Resumed => "resumed",
            Self::Reloaded => "reloaded",
        }
    }

    /// Whether it happens on all shards at once, because an operator wanted it.
    pub fn is_wish(self) -> bool {
        matches!(self, Self::Drained | Self::Resumed | Self::Reloaded)
    }

    /// Whether it is why a machine gets no jobs, until something better happens.
    fn is_trouble(self) -> bool {
        matches!(
            self,
            Self::TunnelLost
                | Self::ConnectFailed
                | Self::Refused
                | Self::ChannelFailed
                | Self::ChannelForbidden
                | Self::ChannelLost
        )
    }
}

/// Something that has happened to a machine.
#[derive(Clone, Debug)]
pub struct Happening {
    /// When.
    pub at: SystemTime,
    /// What.
    pub what: What,
    /// More of it, as the log has it; empty where there is no more.
    pub detail: Arc<str>,
}

/// What has happened to one machine on one shard.
#[derive(Debug, Default)]
pub struct History {
    last: VecDeque<Happening>,
    count: u64,
    trouble: Option<Happening>,
}

impl History {
    fn add(&mut self, what: What, detail: &str) {
        let end = (0..=MAX_TEXT.min(detail.len())).rev().find(|end| detail.is_char_boundary(*end)).unwrap_or_default();
        let happening = Happening { at: SystemTime::now(), what, detail: detail[..end].into() };
        if what.is_trouble() {
            self.trouble = Some(happening.clone());
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(happening);
        self.count += 1;
    }

    /// What has happened, the oldest first.
    pub fn last(&self) -> impl Iterator<Item = &Happening> {
        self.last.iter()
    }

    /// How much has ever happened.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Why its last tunnel or channel is not up; `None` where one has come up since.
    pub fn trouble(&self) -> Option<&Happening> {
        self.trouble.as_ref()
    }
}

impl Front {
    /// Something has happened to a machine. `detail` must be fit for the log.
    pub fn happened(&mut self, machine: MachineId, what: What, detail: impl fmt::Display) {
        self.history_mut(machine).add(what, &detail.to_string());
    }

    /// A channel to a machine has answered a NoOp: whatever was wrong is over.
    pub fn is_well(&mut self, machine: MachineId) {
        self.history_mut(machine).trouble = None;
    }

    /// What has happened to a machine.
    pub fn history(&self, machine: MachineId) -> Option<&History> {
        self.histories.get(machine.0)
    }

    fn history_mut(&mut self, machine: MachineId) -> &mut History {
        if self.histories.len() <= machine.0 {
            self.histories.resize_with(machine.0 + 1, History::default);
        }
        &mut self.histories[machine.0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hundred_are_kept_and_all_are_counted() {
        let mut history = History::default();
        for number in 0..=KEPT {
            history.add(What::ConnectFailed, &number.to_string());
        }
        let details: Vec<_> = history.last().map(|happening| happening.detail.to_string()).collect();
        assert_eq!((details.len(), details[0].as_str(), details[KEPT - 1].as_str()), (KEPT, "1", "100"));
        assert_eq!(history.count(), 101);
        assert_eq!(history.trouble().map(|trouble| &*trouble.detail), Some("100"));
    }

    #[test]
    fn what_somebody_else_says_is_cut() {
        let mut history = History::default();
        // A character of two bytes across the limit.
        history.add(What::TunnelUp, &format!("{}é and more", "x".repeat(MAX_TEXT - 1)));
        assert_eq!(history.last().next().map(|happening| happening.detail.len()), Some(MAX_TEXT - 1));
        assert!(history.trouble().is_none());
    }
}
