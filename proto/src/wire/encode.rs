//! Writing messages at the end of a buffer. Nothing is allocated where the buffer has room.
//!
//! Blocks come from callers that have checked them against [`super::Limits`]; a length that does not fit a word can not
//! occur below that limit.

use super::fields::{Fields, WORD, padding};
use super::{Command, Profile, decode_command};
use crate::wiped::WipedBuffer;

/// Bytes of a SEEJob message around its job: its length word, tag, cmd, flags, worldid and the block's length.
const SEE_JOB_OVERHEAD: usize = 6 * WORD;

/// The bytes that a SEEJob with a job of `job_len` bytes takes on the wire, its length word and padding included.
#[inline]
pub fn see_job_message_len(job_len: usize) -> usize {
    SEE_JOB_OVERHEAD + job_len + padding(job_len)
}

/// Appends a NoOp.
pub fn command_no_op(profile: &Profile, out: &mut WipedBuffer, tag: u32) {
    message(out, [12, tag, profile.commands.no_op, 0], &[]);
}

/// Appends a SEEJob.
#[inline]
pub fn command_see_job(profile: &Profile, out: &mut WipedBuffer, tag: u32, world: u32, job: &[u8]) {
    let len = word_of(job.len());
    let length = word_of(see_job_message_len(job.len()) - WORD);
    message(out, [length, tag, profile.commands.see_job, 0, world, len], job);
}

/// Appends a GetPublishedObject.
pub fn command_get_published_object(profile: &Profile, out: &mut WipedBuffer, tag: u32, name: &str) {
    let len = name.len();
    let length = word_of(4 * WORD + len + padding(len));
    message(out, [length, tag, profile.commands.get_published_object, 0, word_of(len)], name.as_bytes());
}

/// Appends the reply to a NoOp.
pub fn reply_no_op(profile: &Profile, out: &mut WipedBuffer, tag: u32) {
    message(out, [16, tag, profile.commands.no_op, profile.statuses.ok, 0], &[]);
}

/// Appends the reply to a SEEJob.
#[inline]
pub fn reply_job(profile: &Profile, out: &mut WipedBuffer, tag: u32, reply: &[u8]) {
    let len = reply.len();
    let length = word_of(5 * WORD + len + padding(len));
    message(out, [length, tag, profile.commands.see_job, profile.statuses.ok, 0, word_of(len)], reply);
}

/// Appends the reply to a GetPublishedObject.
pub fn reply_object(profile: &Profile, out: &mut WipedBuffer, tag: u32, object: u32) {
    message(out, [20, tag, profile.commands.get_published_object, profile.statuses.ok, 0, object], &[]);
}

/// Appends an ErrorReturn, with an errorinfo where there is one to give.
pub fn reply_error(profile: &Profile, out: &mut WipedBuffer, tag: u32, status: u32, info: Option<&str>) {
    let error_return = profile.commands.error_return;
    let Some(info) = info else {
        message(out, [16, tag, error_return, status, 0], &[]);
        return;
    };
    let len = info.len();
    let length = word_of(5 * WORD + len + padding(len));
    message(out, [length, tag, error_return, status, profile.reply_flags.errorinfo, word_of(len)], info.as_bytes());
}

/// Appends a message that ends with a block; its words, the block's length among them, come first.
#[inline]
fn message<const WORDS: usize>(out: &mut WipedBuffer, words: [u32; WORDS], block: &[u8]) {
    let head = WORDS * WORD;
    let length = head + block.len() + padding(block.len());
    out.append(length, |room| {
        let (words_room, block_room) = room.split_at_mut(head);
        for (place, word) in words_room.as_chunks_mut::<WORD>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        // The padding is zero: bytes that are not held are.
        block_room[..block.len()].copy_from_slice(block);
    });
}

#[inline]
fn word_of(len: usize) -> u32 {
    u32::try_from(len).expect("blocks are checked against the message limit, which is far below 4 GiB")
}

/// One message of a buffer that was written by the functions of this module.
pub(crate) struct StagedMessage<'a> {
    /// The whole message, its length word included.
    pub(crate) bytes: &'a [u8],
    pub(crate) tag: u32,
    /// The job's bytes; none for other commands.
    pub(crate) job: &'a [u8],
}

impl<'a> StagedMessage<'a> {
    /// Takes the first message off the front of `staged`.
    ///
    /// # Panics
    /// If `staged` does not begin with a command that was written here.
    pub(crate) fn split_off(profile: &Profile, staged: &mut &'a [u8]) -> Self {
        let mut head = Fields::new(staged);
        let length = head.word().expect("staged messages are whole") as usize;
        let (bytes, rest) = staged.split_at(WORD + length);
        *staged = rest;
        let (tag, job) = match decode_command(profile, &bytes[WORD..]) {
            Ok(Command::SeeJob { tag, job, .. }) => (tag, job.0),
            Ok(Command::NoOp { tag } | Command::GetPublishedObject { tag, .. }) => (tag, &[][..]),
            Err(bad) => unreachable!("a staged command parses: {bad:?}"),
        };
        Self { bytes, tag, job }
    }
}
