//! Buffers that are used again: for the scheduler's own copies of jobs, of those that wait and of those that may be sent again, and
//! for what is large.

use seeway_proto::wiped::{Spares, WipedBuffer};

/// How many are kept at most, and how large: 4 MiB together.
const MOST: usize = 1024;
const MOST_BYTES: usize = 4096;

/// How many large buffers a shard keeps at most, and how large: 16 MiB together. A large job is in one after the other: as it is
/// read, on its way out, and as its reply is written.
const MOST_LARGE: usize = 8;
const MOST_LARGE_BYTES: usize = 2 * 1024 * 1024;

/// What large jobs and replies pass through, all those of a shard. To get so much memory afresh for each of them, and give it back,
/// holds the shard's thread up for longer than anything else that it does with them.
pub(super) fn large_buffers() -> Spares {
    Spares::new(MOST_LARGE, MOST_LARGE_BYTES)
}

/// Buffers that were used and will be again, so that a copy allocates nothing. All of them are empty, and so wiped.
#[derive(Debug, Default)]
pub(super) struct SpareBuffers {
    buffers: Vec<WipedBuffer>,
}

impl SpareBuffers {
    /// A copy of a job.
    pub(super) fn copy_of(&mut self, bytes: &[u8]) -> WipedBuffer {
        match self.buffers.pop() {
            Some(mut buffer) => {
                buffer.extend(bytes);
                buffer
            }
            None => WipedBuffer::from(bytes),
        }
    }

    /// A copy is not needed any more.
    pub(super) fn put_back(&mut self, mut buffer: WipedBuffer) {
        buffer.clear();
        if buffer.capacity() <= MOST_BYTES && self.buffers.len() < MOST {
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_takes_the_buffer_of_one_before_it() {
        let mut spare = SpareBuffers::default();
        let first = spare.copy_of(&[1; MOST_BYTES]);
        let address = first.filled().as_ptr();
        spare.put_back(first);
        let second = spare.copy_of(b"another");
        assert_eq!((second.filled(), second.filled().as_ptr()), (&b"another"[..], address));
        assert!(spare.buffers.is_empty());
    }

    #[test]
    fn large_ones_and_too_many_are_not_kept() {
        let mut spare = SpareBuffers::default();
        spare.put_back(WipedBuffer::with_capacity(MOST_BYTES + 1));
        assert!(spare.buffers.is_empty());
        for _ in 0..=MOST {
            spare.put_back(WipedBuffer::with_capacity(MOST_BYTES));
        }
        assert_eq!(spare.buffers.len(), MOST);
    }
}
