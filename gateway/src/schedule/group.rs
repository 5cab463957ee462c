//! Jobs that keep their order: those of one caller with one affinity key.
//!
//! Of a group's waiting jobs only the first is in line. Where the job before it is still staged on a channel it can only
//! follow it there; otherwise the one sent later could leave first. So the order of sending is the order of submission.

use foldhash::HashMap;

use super::order::InOrder;
use super::{CallerId, ChannelId, JobId, WorldId};

/// Whose group it is, where, and the hash of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct GroupId {
    pub(super) world: WorldId,
    pub(super) caller: CallerId,
    pub(super) key: u64,
}

/// What of a group is in hand.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Jobs that wait, by the order of admission.
    pub(super) waiting: InOrder<JobId>,
    /// Jobs in hand, waiting or sent.
    pub(super) jobs: usize,
    /// The one of the waiting jobs that is in line, if one is.
    pub(super) in_line: Option<JobId>,
    /// The channel on which jobs are staged, the batch that they go with, and how many they are.
    pub(super) staged: Option<(ChannelId, u64, usize)>,
    /// The channel that tells this group when it has been written: its next job waits for that.
    pub(super) follows: Option<ChannelId>,
}

/// All groups that have jobs in hand.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Hashed quickly: whoever finds keys that meet slows down what is in hand of its own.
    table: HashMap<GroupId, Group>,
}

impl Groups {
    /// A job of this group is in hand.
    pub(super) fn job_admitted(&mut self, id: GroupId) {
        self.table.entry(id).or_default().jobs += 1;
    }

    /// A job of this group has ended; it waits no more.
    pub(super) fn job_ended(&mut self, id: GroupId) {
        if let Some(group) = self.table.get_mut(&id) {
            group.jobs -= 1;
            if group.jobs == 0 {
                self.table.remove(&id);
            }
        }
    }

    pub(super) fn get(&self, id: GroupId) -> Option<&Group> {
        self.table.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.table.get_mut(&id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}
