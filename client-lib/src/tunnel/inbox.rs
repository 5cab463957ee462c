//! What a channel has received and nobody has read yet.
//!
//! The SSH library's task puts data in ([`Inbox::deliver`]), the channel's reader takes all of it at once. The library has
//! a queue of its own for each channel, of packets; it stays unused, since one buffer is cheaper to decode from, can be
//! wiped, and has a limit in bytes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use seeway_proto::wiped::WipedBuffer;
use tokio::sync::{Notify, watch};

use super::error::Lost;

/// How many unread bytes a channel holds before its tunnel stops reading. That holds up the tunnel's other channels, so it
/// is far more than a reader that does its work ever leaves lying.
const MAX_UNREAD: usize = 8 * 1024 * 1024;

/// A reader's buffer that has grown beyond this has held a large message, and will hold the next one.
const SWAPPED_BYTES: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    unread: Mutex<Unread>,
    /// The reader has taken what there was.
    has_room: Notify,
    ends: watch::Sender<Ends>,
}

#[derive(Debug, Default)]
struct Unread {
    bytes: WipedBuffer,
    /// Nothing more will come.
    is_complete: bool,
    /// Nobody will read any more.
    is_abandoned: bool,
    reader: Option<Waker>,
}

/// How far a channel's end has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    /// Why it can not be written to any more.
    pub(super) lost: Option<Lost>,
    /// Its reader is gone.
    pub(super) is_abandoned: bool,
}

/// Too much is unread.
struct NoRoom;

impl Inbox {
    fn unread(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends `data` for the reader, as soon as there is room. Drops it where nobody will read it.
    pub(super) async fn deliver(&self, data: &[u8]) {
        loop {
            if let Ok(reader) = self.try_deliver(data) {
                // Without the lock, since the reader may be on another thread, and there at once.
                if let Some(reader) = reader {
                    reader.wake();
                }
                return;
            }
            // There is only one task that waits here, and a permit is kept for it.
            self.has_room.notified().await;
        }
    }

    /// Returns whoever is to be woken.
    fn try_deliver(&self, data: &[u8]) -> Result<Option<Waker>, NoRoom> {
        let mut unread = self.unread();
        if unread.is_abandoned || unread.is_complete {
            return Ok(None);
        }
        if !unread.bytes.is_empty() && unread.bytes.len() + data.len() > MAX_UNREAD {
            return Err(NoRoom);
        }
        unread.bytes.extend(data);
        Ok(unread.reader.take())
    }

    /// Moves all that is unread to the end of `into`. `Ready(false)`: nothing is left and nothing will come.
    pub(super) fn poll_take(&self, cx: &mut Context<'_>, into: &mut WipedBuffer) -> Poll<bool> {
        let mut unread = self.unread();
        if !unread.bytes.is_empty() {
            if into.is_empty() && into.capacity() <= unread.bytes.capacity().max(SWAPPED_BYTES) {
                std::mem::swap(&mut unread.bytes, into);
            } else {
                // A buffer that has grown for a large message stays with whoever reads those.
                into.extend(unread.bytes.filled());
                unread.bytes.clear();
            }
            self.has_room.notify_one();
            return Poll::Ready(true);
        }
        if unread.is_complete {
            return Poll::Ready(false);
        }
        unread.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Nothing more will come; what is unread can still be read.
    pub(super) fn complete(&self) {
        let reader = {
            let mut unread = self.unread();
            unread.is_complete = true;
            unread.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        self.has_room.notify_one();
    }

    /// The channel is lost. The first reason stays.
    pub(super) fn end(&self, lost: Lost) {
        self.complete();
        self.ends.send_if_modified(|ends| {
            let is_first = ends.lost.is_none();
            ends.lost.get_or_insert(lost);
            is_first
        });
    }

    /// Nobody will read any more.
    pub(super) fn abandon(&self) {
        {
            let mut unread = self.unread();
            unread.is_abandoned = true;
            unread.bytes = WipedBuffer::new();
            unread.reader = None;
        }
        self.has_room.notify_one();
        self.ends.send_modify(|ends| ends.is_abandoned = true);
    }

    pub(super) fn lost(&self) -> Option<Lost> {
        self.ends.borrow().lost.clone()
    }

    pub(super) fn ends(&self) -> watch::Receiver<Ends> {
        self.ends.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is unread now, appended to `into`.
    fn take(inbox: &Inbox, into: &mut WipedBuffer) {
        let polled = inbox.poll_take(&mut Context::from_waker(Waker::noop()), into);
        assert_eq!(polled, Poll::Ready(true));
    }

    #[tokio::test]
    async fn nothing_is_allocated_for_what_comes_after_a_large_message() {
        let inbox = Inbox::default();
        let mut buffer = WipedBuffer::new();
        inbox.deliver(&[1; 100]).await;
        take(&inbox, &mut buffer);
        inbox.deliver(&vec![2; SWAPPED_BYTES]).await;
        take(&inbox, &mut buffer);
        assert_eq!(buffer.filled(), [vec![1; 100], vec![2; SWAPPED_BYTES]].concat());
        let capacity = buffer.capacity();
        buffer.clear();
        // Its reader keeps the larger buffer, whether something is in it or not.
        for _ in 0..3 {
            inbox.deliver(&[3; 100]).await;
            take(&inbox, &mut buffer);
            assert_eq!((buffer.filled(), buffer.capacity()), (&[3; 100][..], capacity));
            assert_eq!(inbox.unread().bytes.capacity(), SWAPPED_BYTES);
            buffer.clear();
        }
        // What is small goes from hand to hand.
        let mut buffer = WipedBuffer::with_capacity(SWAPPED_BYTES);
        let address = buffer.unfilled(1).as_ptr();
        inbox.deliver(&[4; 100]).await;
        take(&inbox, &mut buffer);
        assert_eq!((buffer.filled(), inbox.unread().bytes.unfilled(1).as_ptr()), (&[4; 100][..], address));
    }
}
