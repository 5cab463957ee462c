//! The commands of one legacy caller that are passed on to a hardserver: those that wait to be written, and those that
//! wait for a reply.
//!
//! A [`LegacyPort`](super::LegacyPort) has one where `listen.upstream_hardserver` is set. It knows no socket: the connection's
//! task writes what is staged here to its own connection to the hardserver, and says how far it came.

use std::collections::HashMap;
use std::sync::Arc;

use seeway_proto::wiped::WipedBuffer;
use tokio::sync::Notify;

/// What wakes the two directions of a connection to the hardserver.
#[derive(Debug, Default)]
pub struct PassageWakes {
    /// Notified when commands are staged.
    pub staged: Notify,
    /// Notified when the caller's answers have been taken, and more replies may be read.
    pub room: Notify,
}

/// How many passed-on commands ended, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// The hardserver's reply went to the caller.
    pub replied: u64,
    /// It did not leave.
    pub not_sent: u64,
    /// It left, and its reply can not come any more.
    pub unknown: u64,
}

impl std::ops::AddAssign for Passed {
    fn add_assign(&mut self, more: Self) {
        self.replied += more.replied;
        self.not_sent += more.not_sent;
        self.unknown += more.unknown;
    }
}

/// One caller's commands on their way to the hardserver and back.
#[derive(Debug)]
pub(super) struct Passage {
    /// What has not been written yet.
    staged: WipedBuffer,
    /// By tag.
    asked: HashMap<u32, Asked>,
    /// Bytes that have been written on this connection to the hardserver.
    written: u64,
    pub(super) is_connected: bool,
    pub(super) loss: Loss,
    pub(super) wakes: Arc<PassageWakes>,
}

/// What the caller knows of the end of the last connection to the hardserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// All there is to know, or there has been no connection.
    Known,
    /// It was lost while no command was out that could have told the caller.
    Untold,
    /// A command of the batch that is in hand has told it.
    BeingTold,
}

/// A command that has no reply yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Whether its reply can bring handles: one to a SEEJob is the application's own bytes.
    pub(super) may_bring_handles: bool,
    /// Its first byte's place among all bytes that are written on this connection to the hardserver.
    first_byte: u64,
}

impl Passage {
    pub(super) fn new(wakes: Arc<PassageWakes>) -> Self {
        Self {
            staged: WipedBuffer::new(),
            asked: HashMap::new(),
            written: 0,
            is_connected: false,
            loss: Loss::Known,
            wakes,
        }
    }

    /// Stages a command, whose tag is not outstanding.
    pub(super) fn stage(&mut self, tag: u32, may_bring_handles: bool, message: &[u8]) {
        let first_byte = self.written + self.staged.len() as u64;
        self.staged.extend(message);
        self.asked.insert(tag, Asked { may_bring_handles, first_byte });
        self.wakes.staged.notify_one();
    }

    pub(super) fn staged(&self) -> &[u8] {
        self.staged.filled()
    }

    /// The first `count` of the staged bytes have been written.
    pub(super) fn wrote(&mut self, count: usize) {
        self.staged.consume(count);
        self.written += count as u64;
        if self.staged.is_empty() && self.staged.capacity() > KEPT_BYTES {
            self.staged = WipedBuffer::new();
        }
    }

    /// Takes the command that a reply with this tag answers; `None` where none with it has left.
    pub(super) fn replied(&mut self, tag: u32) -> Option<Asked> {
        let asked = *self.asked.get(&tag)?;
        if !self.has_left(asked) {
            return None;
        }
        self.asked.remove(&tag)
    }

    /// The connection is gone, or was not to be had: gives every command without a reply, by its tag, and whether it had left
    /// by even one byte.
    pub(super) fn lost(&mut self) -> Vec<(u32, bool)> {
        let asked = std::mem::take(&mut self.asked);
        self.loss = if self.is_connected && asked.is_empty() { Loss::Untold } else { Loss::Known };
        let ended = asked.into_iter().map(|(tag, asked)| (tag, self.has_left(asked))).collect();
        self.is_connected = false;
        self.staged = WipedBuffer::new();
        self.written = 0;
        ended
    }

    /// Whether the caller has a connection to the hardserver, is about to have one, or has lost one and does not know it yet.
    pub(super) fn is_used(&self) -> bool {
        self.is_connected || self.outstanding() > 0 || self.loss != Loss::Known
    }

    /// How many commands have no reply yet.
    pub(super) fn outstanding(&self) -> usize {
        self.asked.len()
    }

    fn has_left(&self, asked: Asked) -> bool {
        asked.first_byte < self.written
    }
}

/// A buffer that grew beyond this is given back when it is empty.
const KEPT_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_left_with_its_first_byte() {
        let mut passage = Passage::new(Arc::default());
        passage.is_connected = true;
        passage.stage(1, true, &[1; 16]);
        passage.stage(2, true, &[2; 16]);
        passage.stage(3, false, &[3; 16]);
        assert!(passage.replied(1).is_none(), "nothing has left");
        passage.wrote(16);
        assert!(passage.replied(2).is_none(), "it has not left");
        passage.wrote(1);
        assert!(passage.replied(2).is_some() && passage.replied(2).is_none(), "once");
        assert!(passage.replied(9).is_none());
        let mut lost = passage.lost();
        lost.sort_unstable();
        assert_eq!(lost, [(1, true), (3, false)]);
        assert_eq!(passage.loss, Loss::Known, "the caller is told by the two");
        assert_eq!((passage.staged().len(), passage.outstanding()), (0, 0));
        passage.stage(1, true, &[1; 16]);
        assert_eq!(passage.lost(), [(1, false)], "what left on an earlier connection does not count");
    }

    #[test]
    fn a_loss_that_nobody_is_told_of_is_remembered() {
        let mut passage = Passage::new(Arc::default());
        assert!(passage.lost().is_empty());
        assert_eq!(passage.loss, Loss::Known, "there was no connection");
        assert!(!passage.is_used(), "it may go elsewhere");
        passage.is_connected = true;
        assert!(passage.is_used());
        assert!(passage.lost().is_empty());
        assert_eq!(passage.loss, Loss::Untold);
        assert!(passage.is_used(), "elsewhere nobody would tell the caller");
    }
}
