//! Bytes read as a list of decisions: which step comes next, and with what.

/// What is left of a script.
#[derive(Clone, Debug)]
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// One that begins with the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next byte; `None` at the end.
    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// A number below `end`, which is not zero; zero past the end of the script.
    pub fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte().unwrap_or_default()) % end
    }

    /// Whether something is to be so; not past the end of the script.
    pub fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    /// The next bytes, at most `count`.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }
}
