//! Reading a body's fields one after the other: words and byte blocks.

/// Bytes in a word, and what byte blocks are padded to.
pub(super) const WORD: usize = 4;

/// The zero bytes after a byte block of `len` bytes.
pub(super) fn padding(len: usize) -> usize {
    len.next_multiple_of(WORD) - len
}

/// What is left of a body that is being read.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    pub(super) fn word(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk::<WORD>()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*word))
    }

    /// A byte block; `None` where it is cut short or its padding is not zero.
    pub(super) fn block(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.word()?).ok()?;
        let (block, rest) = self.0.split_at_checked(len)?;
        let (pad, rest) = rest.split_at_checked(padding(len))?;
        if pad.iter().any(|byte| *byte != 0) {
            return None;
        }
        self.0 = rest;
        Some(block)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.block()?).ok()
    }

    /// Whether everything has been read: bytes left over are malformed.
    pub(super) fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}
