//! The SEEJob wire: messages, their framing, and the profile that gives them their numbers (the specification's
//! "SEEJob wire, profile open-1").
//!
//! Decoding copies nothing: [`Framer`] finds whole messages in a buffer, [`decode_command`] and [`decode_reply`] return
//! slices of it. Encoding appends to a caller's buffer and allocates nothing where the message fits.
//!
//! Used by [`crate::mux`], which is what everybody else should use; only benchmarks and tests come here directly.

mod command;
mod encode;
mod fields;
mod frame;
mod profile;
mod reply;

pub use command::{BadCommand, Command, Fault, JobBytes, decode_command};
pub(crate) use encode::StagedMessage;
pub use encode::{
    command_get_published_object, command_no_op, command_see_job, reply_error, reply_job, reply_no_op, reply_object,
    see_job_message_len,
};
pub use frame::{Direction, Frame, FrameError, Framer};
pub use profile::{Commands, OPEN_1, Profile, ProfileError, ReplyFlags, Statuses};
pub use reply::{BadReply, OpaqueReply, Reply, ReplyBody, decode_reply};

/// A message longer than this closes the connection, whatever is configured: 16 MiB. Shorter ones that exceed
/// [`Limits::max_message`] are read and dropped.
pub const SKIP_LIMIT: u32 = 16 * 1024 * 1024;

/// The largest job that may be configured: one whose message is still within [`SKIP_LIMIT`].
pub const MAX_JOB_BYTES_CEILING: u32 = SKIP_LIMIT - MESSAGE_OVERHEAD;

/// By how much `max_message` exceeds `max_job_bytes`, before it is rounded up to a multiple of 4.
const MESSAGE_OVERHEAD: u32 = 44;

/// How large things may be on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest job or reply, in bytes.
    pub max_job_bytes: u32,
}

impl Limits {
    /// The largest `length` of a message that is taken in.
    pub fn max_message(self) -> u32 {
        (self.max_job_bytes.min(MAX_JOB_BYTES_CEILING) + MESSAGE_OVERHEAD).next_multiple_of(4)
    }
}

impl Default for Limits {
    /// 262 100 bytes for a job, hence 262 144 for a message.
    fn default() -> Self {
        Self { max_job_bytes: 262_100 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_limit_follows_from_the_job_limit() {
        assert_eq!(Limits::default().max_message(), 262_144);
        assert_eq!(Limits { max_job_bytes: 1 }.max_message(), 48);
        assert_eq!(Limits { max_job_bytes: 0 }.max_message(), 44);
        assert_eq!(Limits { max_job_bytes: u32::MAX }.max_message(), SKIP_LIMIT);
    }
}
