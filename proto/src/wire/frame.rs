//! Finding whole messages in a stream of bytes.

use std::fmt;

use super::fields::WORD;
use super::{Limits, SKIP_LIMIT};

/// Which way a stream's messages go; it decides how short one may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a client: the smallest body has 12 bytes.
    Commands,
    /// From a machine: the smallest body has 16 bytes.
    Replies,
}

impl Direction {
    fn smallest_body(self) -> u32 {
        match self {
            Self::Commands => 12,
            Self::Replies => 16,
        }
    }
}

/// One message's body, or what is left of one that was too long.
#[derive(PartialEq, Eq)]
pub enum Frame<'a> {
    /// The body of a whole message, at least as long as the direction's smallest one.
    Body(&'a [u8]),
    /// A message longer than the limit, all of it read and dropped by now.
    TooLong {
        /// The tag that it began with.
        tag: u32,
        /// The `length` that it announced, in bytes.
        length: u32,
    },
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The body may be a job's.
            Self::Body(body) => write!(f, "Body({} bytes)", body.len()),
            Self::TooLong { tag, length } => write!(f, "TooLong {{ tag: {tag}, length: {length} }}"),
        }
    }
}

/// A length that no peer of good will sends. The connection has to be closed: where the next message would begin can not
/// be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {length} bytes was announced; {smallest} to {SKIP_LIMIT} are possible")]
pub struct FrameError {
    /// The `length` that was announced, in bytes.
    pub length: u32,
    /// The smallest one that is possible in this direction.
    pub smallest: u32,
}

/// Splits a stream into messages. It holds no bytes itself: what is not a whole message yet stays with the caller.
#[derive(Debug)]
pub struct Framer {
    direction: Direction,
    max_message: u32,
    skipping: Option<Skipping>,
}

#[derive(Debug)]
struct Skipping {
    tag: u32,
    length: u32,
    remaining: usize,
}

impl Framer {
    /// A framer at a stream's beginning.
    pub fn new(direction: Direction, limits: Limits) -> Self {
        Self { direction, max_message: limits.max_message(), skipping: None }
    }

    /// Takes the next message off the front of `input`; `None` where there is no whole one.
    ///
    /// Of a message that is too long, bytes are taken as they come, so that the caller never has to hold it.
    #[inline]
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Frame<'a>>, FrameError> {
        if self.skipping.is_some() {
            return Ok(self.skip(input));
        }
        let Some((word, rest)) = input.split_first_chunk::<WORD>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*word);
        let smallest = self.direction.smallest_body();
        if length < smallest || length > SKIP_LIMIT {
            return Err(FrameError { length, smallest });
        }
        if length > self.max_message {
            return Ok(self.begin_skipping(input, length));
        }
        let Some((body, rest)) = rest.split_at_checked(length as usize) else {
            return Ok(None);
        };
        *input = rest;
        Ok(Some(Frame::Body(body)))
    }

    /// How many bytes are missing from the message at the front of `input`, which has been through
    /// [`next`](Self::next): the least that the next read needs room for. It is never more than the largest message.
    pub fn missing(&self, input: &[u8]) -> usize {
        match input.split_first_chunk::<WORD>() {
            Some((word, rest)) if self.skipping.is_none() => {
                let length = u32::from_le_bytes(*word).min(self.max_message);
                (length as usize).saturating_sub(rest.len()).max(1)
            }
            _ => WORD,
        }
    }

    /// Whether a message that is too long is being dropped, whose end has not come.
    pub fn is_skipping(&self) -> bool {
        self.skipping.is_some()
    }

    /// Begins to drop the message at the front of `input`, once its tag is there.
    #[cold]
    fn begin_skipping<'a>(&mut self, input: &mut &'a [u8], length: u32) -> Option<Frame<'a>> {
        let (tag, rest) = input[WORD..].split_first_chunk::<WORD>()?;
        *input = rest;
        self.skipping = Some(Skipping { tag: u32::from_le_bytes(*tag), length, remaining: length as usize - WORD });
        self.skip(input)
    }

    #[cold]
    fn skip<'a>(&mut self, input: &mut &'a [u8]) -> Option<Frame<'a>> {
        let skipping = self.skipping.as_mut()?;
        let dropped = skipping.remaining.min(input.len());
        *input = &input[dropped..];
        skipping.remaining -= dropped;
        if skipping.remaining > 0 {
            return None;
        }
        let Skipping { tag, length, .. } = self.skipping.take()?;
        Some(Frame::TooLong { tag, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(body.len()).expect("small").to_le_bytes().to_vec();
        bytes.extend_from_slice(body);
        bytes
    }

    fn commands() -> Framer {
        Framer::new(Direction::Commands, Limits { max_job_bytes: 100 })
    }

    #[test]
    fn every_whole_message_in_a_buffer_and_nothing_of_the_last() {
        let mut bytes = message(&[1; 12]);
        bytes.extend(message(&[2; 16]));
        bytes.extend(&message(&[3; 20])[..23]);
        let mut input = &bytes[..];
        let mut framer = commands();
        assert_eq!(framer.next(&mut input), Ok(Some(Frame::Body(&[1; 12]))));
        assert_eq!(framer.next(&mut input), Ok(Some(Frame::Body(&[2; 16]))));
        assert_eq!(framer.next(&mut input), Ok(None));
        assert_eq!(input.len(), 23);
        assert_eq!(framer.missing(input), 1);
    }

    #[test]
    fn lengths_at_and_past_each_limit() {
        for (direction, length, fine) in [
            (Direction::Commands, 11, false),
            (Direction::Commands, 12, true),
            (Direction::Replies, 15, false),
            (Direction::Replies, 16, true),
            (Direction::Commands, SKIP_LIMIT, true),
            (Direction::Commands, SKIP_LIMIT + 1, false),
            (Direction::Commands, u32::MAX, false),
        ] {
            let bytes = length.to_le_bytes();
            let result = Framer::new(direction, Limits::default()).next(&mut &bytes[..]);
            assert_eq!(result.is_ok(), fine, "{direction:?} {length}");
        }
    }

    #[test]
    fn at_the_message_limit_a_body_and_one_past_it_too_long() {
        let limit = Limits { max_job_bytes: 100 }.max_message() as usize;
        let at = message(&vec![7; limit]);
        assert_eq!(commands().next(&mut &at[..]), Ok(Some(Frame::Body(&vec![7; limit][..]))));
        let past = message(&vec![7; limit + 1]);
        let mut unfinished = commands();
        assert_eq!(unfinished.next(&mut &past[..limit]), Ok(None));
        assert!(unfinished.is_skipping(), "its end is waited for, and nothing of it is kept");
        assert_eq!(
            commands().next(&mut &past[..]),
            Ok(Some(Frame::TooLong { tag: 0x0707_0707, length: u32::try_from(limit + 1).expect("small") }))
        );
    }

    #[test]
    fn a_long_message_is_dropped_as_it_comes_and_the_next_one_found() {
        let mut bytes = message(&[9; 5000]);
        bytes.extend(message(&[1; 12]));
        let mut framer = commands();
        let mut held = Vec::new();
        let mut found = Vec::new();
        for byte in bytes {
            held.push(byte);
            let mut input = &held[..];
            if let Some(frame) = framer.next(&mut input).expect("valid") {
                found.push(format!("{frame:?}"));
            }
            held = input.to_vec();
            assert!(held.len() <= 16, "nothing of the long message is kept");
        }
        assert_eq!(found.len(), 2);
        assert!(found[0].contains("TooLong") && found[0].contains("5000"), "{found:?}");
    }
}
