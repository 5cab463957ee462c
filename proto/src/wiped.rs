//! A byte buffer that leaves nothing behind.
//!
//! Jobs and replies pass through buffers of this type wherever Seeway buffers them: sockets are read into it, messages
//! are encoded into it. What has been consumed is overwritten with zeroes at once, and the rest when the buffer is dropped.

use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use zeroize::Zeroize;

/// A growable buffer that is written at its end and consumed from its start.
///
/// Everything outside of [`filled`](Self::filled) is always zero: consumed bytes are wiped when they are consumed, and an
/// allocation that is outgrown is wiped before it is freed.
#[derive(Default)]
pub struct WipedBuffer {
    /// All of it is initialised; bytes outside `start..end` are zero.
    storage: Vec<u8>,
    start: usize,
    end: usize,
}

impl WipedBuffer {
    /// An empty buffer; it allocates when it is first written to.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { storage: vec![0; capacity], start: 0, end: 0 }
    }

    /// How many bytes are held.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is held.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How many bytes it can hold without allocating again.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.storage.len()
    }

    /// What is held, oldest byte first.
    #[inline]
    pub fn filled(&self) -> &[u8] {
        &self.storage[self.start..self.end]
    }

    /// Forgets and wipes the oldest `count` bytes.
    ///
    /// # Panics
    /// If fewer are held.
    #[inline]
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.len(), "consumed more than is held");
        self.storage[self.start..self.start + count].zeroize();
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Room to write into, at least `at_least` bytes of it. Say with [`commit`](Self::commit) how much was written.
    #[inline]
    pub fn unfilled(&mut self, at_least: usize) -> &mut [u8] {
        self.reserve(at_least);
        &mut self.storage[self.end..]
    }

    /// Counts the first `count` bytes of [`unfilled`](Self::unfilled) as held.
    ///
    /// # Panics
    /// If that is more than there was room for.
    #[inline]
    pub fn commit(&mut self, count: usize) {
        assert!(count <= self.storage.len() - self.end, "committed more than there was room for");
        self.end += count;
    }

    /// Appends a copy of `bytes`.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) {
        self.append(bytes.len(), |room| room.copy_from_slice(bytes));
    }

    /// Appends `count` bytes, which `write` finds zero and leaves as they are to be.
    #[inline(always)]
    pub fn append(&mut self, count: usize, write: impl FnOnce(&mut [u8])) {
        self.reserve(count);
        let end = self.end + count;
        write(&mut self.storage[self.end..end]);
        self.end = end;
    }

    /// Appends `count` zero bytes.
    pub fn extend_zeroes(&mut self, count: usize) {
        self.reserve(count);
        // What is not held is zero already.
        self.end += count;
    }

    /// Drops and wipes the newest bytes, so that `length` remain. Does nothing where fewer are held.
    pub fn truncate(&mut self, length: usize) {
        if length < self.len() {
            let new_end = self.start + length;
            self.storage[new_end..self.end].zeroize();
            self.end = new_end;
        }
    }

    /// Forgets and wipes everything; keeps the allocation.
    pub fn clear(&mut self) {
        self.consume(self.len());
    }

    /// Moves what is held into a shared, immutable handle that is wiped when its last clone is dropped.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(Frozen(self))
    }

    #[inline]
    fn reserve(&mut self, additional: usize) {
        if self.storage.len() - self.end < additional {
            self.make_room(additional);
        }
    }

    #[cold]
    fn make_room(&mut self, additional: usize) {
        let held = self.len();
        if self.storage.len() - held >= additional && self.start >= held {
            // Enough room once the held bytes stand at the front; they move no further than they have been consumed.
            self.storage.copy_within(self.start..self.end, 0);
            self.storage[self.start..self.end].zeroize();
        } else {
            let capacity = (held + additional).max(self.storage.len() * 2).max(64);
            let mut larger = vec![0; capacity];
            larger[..held].copy_from_slice(self.filled());
            let mut outgrown = std::mem::replace(&mut self.storage, larger);
            outgrown[self.start..self.end].zeroize();
        }
        self.start = 0;
        self.end = held;
    }
}

impl Drop for WipedBuffer {
    fn drop(&mut self) {
        self.storage[self.start..self.end].zeroize();
    }
}

impl fmt::Debug for WipedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WipedBuffer({} bytes)", self.len())
    }
}

impl From<&[u8]> for WipedBuffer {
    fn from(bytes: &[u8]) -> Self {
        let mut buffer = Self::with_capacity(bytes.len());
        buffer.extend(bytes);
        buffer
    }
}

struct Frozen(WipedBuffer);

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        self.0.filled()
    }
}

/// Buffers that come back, for whoever hands out one after the other: so that none is allocated anew. A clone shares them.
#[derive(Clone)]
pub struct Spares {
    pool: Arc<Pool>,
}

struct Pool {
    /// Wiped ones. Whoever drops a [`Batch`] may be another thread.
    buffers: Mutex<Vec<WipedBuffer>>,
    most: usize,
    most_bytes: usize,
}

impl Default for Spares {
    /// Those of one stream.
    fn default() -> Self {
        Self::new(Self::MOST, Self::MOST_BYTES)
    }
}

impl Spares {
    /// How many one stream keeps: one that is filled while another one is on its way is the most that it needs.
    pub const MOST: usize = 2;

    /// Larger ones are freed, where they are one stream's.
    pub const MOST_BYTES: usize = 256 * 1024;

    /// Keeps at most `most` buffers of at most `most_bytes`; others are freed.
    pub fn new(most: usize, most_bytes: usize) -> Self {
        Self { pool: Arc::new(Pool { buffers: Mutex::default(), most, most_bytes }) }
    }

    /// An empty buffer; it has the room of one that has come back, if one has.
    pub fn take(&self) -> WipedBuffer {
        self.pool.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Hands out what a buffer holds. When that is dropped the buffer is wiped and comes back here.
    pub fn lend(&self, buffer: WipedBuffer) -> Batch {
        Batch { buffer, spares: self.clone() }
    }

    /// Takes a buffer back that is not needed any more. It is wiped.
    pub fn put_back(&self, mut buffer: WipedBuffer) {
        buffer.clear();
        let Pool { buffers, most, most_bytes } = &*self.pool;
        if (1..=*most_bytes).contains(&buffer.capacity()) {
            let mut buffers = buffers.lock().unwrap_or_else(PoisonError::into_inner);
            if buffers.len() < *most {
                buffers.push(buffer);
            }
        }
    }
}

impl fmt::Debug for Spares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spares")
    }
}

/// Bytes that are to be written. Once they have been, and this is dropped, their buffer is wiped and used again.
///
/// A library that wants to share them gets them as [`Bytes`], without a copy: `Bytes::from(batch)`. That is one small allocation.
pub struct Batch {
    buffer: WipedBuffer,
    spares: Spares,
}

impl Deref for Batch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.buffer.filled()
    }
}

impl AsRef<[u8]> for Batch {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Batch> for Bytes {
    fn from(batch: Batch) -> Self {
        Self::from_owner(batch)
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} bytes)", self.len())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.spares.put_back(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside_is_zero(buffer: &WipedBuffer) -> bool {
        buffer.storage[..buffer.start].iter().all(|byte| *byte == 0)
            && buffer.storage[buffer.end..].iter().all(|byte| *byte == 0)
    }

    #[test]
    fn consumed_bytes_are_wiped_at_once() {
        let mut buffer = WipedBuffer::from(&b"secret and public"[..]);
        buffer.consume(7);
        assert_eq!(buffer.filled(), b"and public");
        assert!(outside_is_zero(&buffer));
        buffer.truncate(3);
        assert_eq!(buffer.filled(), b"and");
        assert!(outside_is_zero(&buffer));
        buffer.clear();
        assert!(buffer.is_empty() && outside_is_zero(&buffer));
    }

    #[test]
    fn growing_and_compacting_keep_what_is_held() {
        let mut buffer = WipedBuffer::with_capacity(64);
        let mut expected = Vec::new();
        for round in 0..1000_u32 {
            let piece = vec![u8::try_from(round % 251).expect("below 256"); round as usize % 97];
            buffer.extend(&piece);
            expected.extend_from_slice(&piece);
            let eaten = expected.len() * 2 / 3;
            buffer.consume(eaten);
            expected.drain(..eaten);
            assert_eq!(buffer.filled(), expected);
            assert!(outside_is_zero(&buffer));
        }
        assert!(buffer.capacity() < 1024, "a buffer that is emptied does not grow: {}", buffer.capacity());
    }

    #[test]
    fn debug_shows_no_content() {
        let buffer = WipedBuffer::from(&b"pin 1234"[..]);
        assert_eq!(format!("{buffer:?}"), "WipedBuffer(8 bytes)");
        assert_eq!(format!("{:?}", Spares::default().lend(buffer)), "Batch(8 bytes)");
    }

    #[test]
    fn frozen_bytes_are_the_held_ones() {
        let mut buffer = WipedBuffer::from(&b"xyz123"[..]);
        buffer.consume(3);
        assert_eq!(buffer.freeze(), &b"123"[..]);
    }

    #[test]
    fn a_buffer_that_was_lent_comes_back_wiped_when_nobody_has_it_any_more() {
        let spares = Spares::default();
        let mut buffer = spares.take();
        buffer.extend(b"pin 1234");
        let (address, capacity) = (buffer.filled().as_ptr(), buffer.capacity());
        let shared = Bytes::from(spares.lend(buffer));
        let clone = shared.slice(4..);
        drop(shared);
        assert_eq!((spares.take().capacity(), &clone[..]), (0, &b"1234"[..]), "it is still in use");
        drop(clone);
        let mut back = spares.take();
        assert_eq!((back.capacity(), back.len()), (capacity, 0));
        assert!(outside_is_zero(&back));
        back.extend(b"x");
        assert_eq!(back.filled().as_ptr(), address);
    }

    #[test]
    fn spares_are_few_and_not_large() {
        for (sizes, kept) in [
            (&[Spares::MOST_BYTES][..], 1),
            (&[Spares::MOST_BYTES + 1], 0),
            (&[1; Spares::MOST], Spares::MOST),
            (&[1; Spares::MOST + 1], Spares::MOST),
        ] {
            let spares = Spares::default();
            let lent: Vec<_> = sizes.iter().map(|size| spares.lend(WipedBuffer::with_capacity(*size))).collect();
            drop(lent);
            let back = std::iter::repeat_with(|| spares.take()).take_while(|buffer| buffer.capacity() > 0).count();
            assert_eq!(back, kept, "{} of {sizes:?}", sizes.len());
        }
        let spares = Spares::new(1, 10);
        for size in [0, 11, 10, 10] {
            spares.put_back(WipedBuffer::with_capacity(size));
        }
        assert_eq!([spares.take().capacity(), spares.clone().take().capacity()], [10, 0]);
    }
}
