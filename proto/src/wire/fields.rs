//! Reading a body's fields one after the other: words and byte blocks.

/// Bytes in a word, and what byte blocks are padded to.
pub(super) const WORD: usize = 4;

/// The zero bytes after a byte block of `len` bytes.
#[inline]
pub(super) fn padding(len: usize) -> usize {
    len.wrapping_neg() % WORD
}

/// What is left of a body that is being read.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    #[inline]
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    #[inline]
    pub(super) fn word(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk::<WORD>()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*word))
    }

    /// Some words; `None` where there are fewer, of which none is taken then.
    #[inline]
    pub(super) fn words<const COUNT: usize>(&mut self) -> Option<[u32; COUNT]> {
        let (words, rest) = self.0.split_at_checked(COUNT * WORD)?;
        self.0 = rest;
        let mut numbers = [0; COUNT];
        for (number, word) in numbers.iter_mut().zip(words.as_chunks::<WORD>().0) {
            *number = u32::from_le_bytes(*word);
        }
        Some(numbers)
    }

    /// A byte block; `None` where it is cut short or its padding is not zero.
    #[inline]
    pub(super) fn block(&mut self) -> Option<&'a [u8]> {
        let len = self.word()? as usize;
        let (block, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        if !len.is_multiple_of(WORD) {
            self.skip_padding(padding(len))?;
        }
        Some(block)
    }

    fn skip_padding(&mut self, count: usize) -> Option<()> {
        let (pad, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        pad.iter().all(|byte| *byte == 0).then_some(())
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.block()?).ok()
    }

    /// Whether everything has been read: bytes left over are malformed.
    #[inline]
    pub(super) fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}
