//! Jobs and replies as gRPC messages, without the types that are generated for them in [`v1`](crate::v1): requests are read where
//! they stand ([`request`]), replies are written to where they are sent from ([`response`]).
//!
//! The generated types own what they hold: a string and a handle to shared bytes for each message, which cost more than all else
//! that is done with a small job here. Both ways say the same on the wire; tests hold them against each other.

pub mod request;
pub mod response;

pub use request::{BadMessage, Request, Submit};
pub use response::Reply;

/// What stands before each message: whether it is compressed, and its length, most significant byte first.
const HEAD: usize = 5;

/// What does not begin a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    /// It is compressed, or the flag says what nobody knows.
    #[error("a message has the compression flag {0}, and no compression was agreed upon")]
    Compressed(u8),
    /// It is larger than the limit.
    #[error("a message has {length} bytes; {limit} is the most")]
    TooLong {
        /// What its head says.
        length: usize,
        /// The most that is taken.
        limit: usize,
    },
}

/// Takes the first message off `input`; `None` where not all of it is there. `limit` is how long a message may be.
pub fn next_message<'a>(input: &mut &'a [u8], limit: usize) -> Result<Option<&'a [u8]>, BadHead> {
    let Some((head, rest)) = input.split_first_chunk::<HEAD>() else { return Ok(None) };
    let [flag, length @ ..] = *head;
    if flag != 0 {
        return Err(BadHead::Compressed(flag));
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > limit {
        return Err(BadHead::TooLong { length, limit });
    }
    let Some((message, rest)) = rest.split_at_checked(length) else { return Ok(None) };
    *input = rest;
    Ok(Some(message))
}

/// Where a whole message is at the front of `input`, or one that is never going to be: asked before more is waited for.
pub fn has_message(mut input: &[u8], limit: usize) -> bool {
    !matches!(next_message(&mut input, limit), Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_one_by_one_and_only_whole() {
        let bytes = [0, 0, 0, 0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, b'c'];
        let mut input = &bytes[..];
        assert_eq!(next_message(&mut input, 3), Ok(Some(&b"ab"[..])));
        assert_eq!(next_message(&mut input, 3), Ok(Some(&b""[..])));
        assert_eq!((next_message(&mut input, 3), input.len()), (Ok(None), 6));
        assert!(!has_message(input, 3));
        for end in 0..7 {
            assert_eq!(next_message(&mut &bytes[..end], 3), Ok(None), "{end}");
        }
    }

    #[test]
    fn what_is_too_long_or_compressed_is_known_by_its_head() {
        let too_long = [0, 0, 1, 0, 0];
        assert_eq!(next_message(&mut &too_long[..], 65_535), Err(BadHead::TooLong { length: 65_536, limit: 65_535 }));
        assert_eq!(next_message(&mut &too_long[..], 65_536), Ok(None));
        assert_eq!(next_message(&mut &[1, 0, 0, 0, 0][..], 9), Err(BadHead::Compressed(1)));
        assert!(has_message(&too_long, 9), "waiting for more does not help");
    }
}
