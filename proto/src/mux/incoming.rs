//! The answering end of a stream.

use std::fmt;
use std::sync::Arc;

use super::tags::Tags;
use crate::bug::{self, Bug};
use crate::wiped::{Spares, WipedBuffer};
use crate::wire::{self, Command, Direction, Fault, Frame, FrameError, Framer, Limits, Profile};

/// What becomes of a command with a `cmd` that the profile does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownCommands {
    /// It is answered with UnknownCommand here.
    Refused,
    /// It is taken like any other one; somebody else knows what to do with it.
    Taken,
}

/// A command, and the bytes that it came as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Received<'a> {
    /// The client's tag.
    pub tag: u32,
    /// What it says; `None` where its `cmd` is unknown.
    pub command: Option<Command<'a>>,
    /// The whole message, its length word included.
    pub message: &'a [u8],
}

impl fmt::Debug for Received<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The message may hold a job.
        let Self { tag, command, message } = self;
        write!(f, "Received {{ tag: {tag}, command: {command:?}, message: {} bytes }}", message.len())
    }
}

/// The answering end: commands come in, replies go out in any order.
#[derive(Debug)]
pub struct Incoming {
    profile: Arc<Profile>,
    limits: Limits,
    max_outstanding: usize,
    framer: Framer,
    outstanding: Tags,
    output: WipedBuffer,
    /// Where output of more bytes than `large_above` is kept.
    spares: Option<Spares>,
    large_above: usize,
    refused: u64,
}

impl Incoming {
    /// The end of a stream that has just begun. At most `max_outstanding` commands are taken before one is answered.
    pub fn new(profile: Arc<Profile>, limits: Limits, max_outstanding: usize) -> Self {
        Self {
            framer: Framer::new(Direction::Commands, limits),
            profile,
            limits,
            max_outstanding,
            outstanding: Tags::default(),
            output: WipedBuffer::new(),
            spares: None,
            large_above: usize::MAX,
            refused: 0,
        }
    }

    /// The same with buffers for large output that it shares with others: one of more bytes than `above` is taken from `spares`
    /// for a large reply, and goes back when it is empty.
    #[must_use]
    pub fn with_spares(mut self, spares: Spares, above: usize) -> Self {
        (self.spares, self.large_above) = (Some(spares), above);
        self
    }

    /// Takes the next command off the front of `input`. Its tag is outstanding until one of the `answer_` methods is called.
    /// `None` where there is no whole command, or no room for one more: then [`has_room`](Self::has_room) is false, and
    /// `input` is to be offered again after an answer.
    ///
    /// Commands that are wrong are answered here and not returned. An error means that the stream can't be followed any
    /// further: close it.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Command<'a>>, FrameError> {
        let received = self.next_received(input, UnknownCommands::Refused)?;
        Ok(received.and_then(|received| received.command))
    }

    /// [`next`](Self::next) for somebody who passes commands on: with each comes the message that it was, and commands that
    /// the profile does not have come too, where they are [`UnknownCommands::Taken`].
    #[inline(always)]
    pub fn next_received<'a>(
        &mut self,
        input: &mut &'a [u8],
        unknown: UnknownCommands,
    ) -> Result<Option<Received<'a>>, FrameError> {
        while self.has_room() {
            let before = *input;
            let Some(frame) = self.framer.next(input)? else {
                return Ok(None);
            };
            let body = match frame {
                Frame::TooLong { tag, .. } => {
                    self.refuse_too_large(tag);
                    continue;
                }
                Frame::Body(body) => body,
            };
            let (tag, command) = match wire::decode_command(&self.profile, body) {
                Ok(command) => (command.tag(), Some(command)),
                Err(bad) if bad.fault == Fault::UnknownCommand && unknown == UnknownCommands::Taken => (bad.tag, None),
                Err(bad) => {
                    self.refuse(bad.tag, bad.fault);
                    continue;
                }
            };
            if self.accept(tag, command) {
                let message = &before[..before.len() - input.len()];
                return Ok(Some(Received { tag, command, message }));
            }
        }
        Ok(None)
    }

    /// How many bytes are missing from the message at the front of `input`: the least that the next read needs room for.
    pub fn missing(&self, input: &[u8]) -> usize {
        self.framer.missing(input)
    }

    /// Whether a command that is too long is being dropped, whose end has not come.
    pub fn is_skipping(&self) -> bool {
        self.framer.is_skipping()
    }

    /// Whether one more command may become outstanding.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.outstanding.len() < self.max_outstanding
    }

    /// How many commands are to be answered yet.
    pub fn outstanding(&self) -> usize {
        self.outstanding.len()
    }

    /// How many commands were answered here, because they were wrong, since this was last asked.
    #[inline]
    pub fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// Answers a NoOp.
    pub fn answer_no_op(&mut self, tag: u32) {
        self.answered(tag);
        wire::reply_no_op(&self.profile, &mut self.output, tag);
    }

    /// Answers a job with its reply. One that is larger than `max_job_bytes` can not be sent: the answer is then the
    /// status that the profile has for a machine that failed, since the job did run.
    #[inline(always)]
    pub fn answer_job(&mut self, tag: u32, reply: &[u8]) {
        if reply.len() > self.limits.max_job_bytes as usize {
            self.answer_too_large(tag);
            return;
        }
        self.answered(tag);
        if reply.len() > self.large_above {
            self.take_spare();
        }
        wire::reply_job(&self.profile, &mut self.output, tag, reply);
    }

    /// Answers a GetPublishedObject.
    pub fn answer_object(&mut self, tag: u32, object: u32) {
        self.answered(tag);
        wire::reply_object(&self.profile, &mut self.output, tag, object);
    }

    /// Answers any command with an error.
    pub fn answer_error(&mut self, tag: u32, status: u32, info: Option<&str>) {
        self.answered(tag);
        self.put_error(tag, status, info);
    }

    /// Answers any command with a whole message that somebody else wrote, its length word included. It has the tag.
    pub fn answer_with(&mut self, tag: u32, message: &[u8]) {
        self.answered(tag);
        self.output.extend(message);
    }

    /// How many bytes wait to be written.
    #[inline]
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    /// The answers that have not been taken.
    #[inline]
    pub fn output(&self) -> &[u8] {
        self.output.filled()
    }

    /// The first `count` bytes of [`output`](Self::output) have been taken; returns whether they were all.
    #[inline]
    pub fn taken(&mut self, count: usize) -> bool {
        self.output.consume(count);
        let is_all = self.output.is_empty();
        if is_all && self.output.capacity() > self.large_above {
            self.put_spare_back();
        }
        is_all
    }

    /// Takes everything that waits to be written, and leaves `empty` to be filled in its place.
    ///
    /// # Panics
    /// If `empty` is not.
    pub fn swap_output(&mut self, empty: &mut WipedBuffer) {
        assert!(empty.is_empty(), "what is swapped in would be sent again");
        std::mem::swap(&mut self.output, empty);
    }

    /// Whether a command may become outstanding, and is now; it has been answered otherwise.
    #[inline]
    fn accept(&mut self, tag: u32, command: Option<Command<'_>>) -> bool {
        if matches!(command, Some(Command::SeeJob { job, .. }) if job.0.len() > self.limits.max_job_bytes as usize) {
            self.refuse_too_large(tag);
            return false;
        }
        if self.outstanding.insert(tag) || bug::is_on(Bug::DuplicateTagAccepted) {
            return true;
        }
        self.refuse_tag(tag);
        false
    }

    #[cold]
    #[inline(never)]
    fn take_spare(&mut self) {
        if let Some(spares) = &self.spares
            && self.output.is_empty()
        {
            self.output = spares.take();
        }
    }

    #[cold]
    #[inline(never)]
    fn put_spare_back(&mut self) {
        let empty = std::mem::take(&mut self.output);
        if let Some(spares) = &self.spares {
            spares.put_back(empty);
        }
    }

    #[cold]
    fn refuse_tag(&mut self, tag: u32) {
        self.refused += 1;
        let status = self.profile.statuses.invalid_parameter;
        self.put_error(tag, status, Some("tag in use"));
    }

    #[cold]
    fn answer_too_large(&mut self, tag: u32) {
        let status = self.profile.statuses.see_world_failed;
        self.answer_error(tag, status, Some("the reply is larger than the limit"));
    }

    #[cold]
    fn refuse(&mut self, tag: u32, fault: Fault) {
        self.refused += 1;
        let statuses = &self.profile.statuses;
        let (status, info) = match fault {
            Fault::Malformed => (statuses.malformed, "the command does not parse"),
            Fault::UnknownCommand => (statuses.unknown_command, "no such command"),
            Fault::FlagsSet => (statuses.invalid_parameter, "flags must be 0"),
        };
        self.put_error(tag, status, Some(info));
    }

    #[cold]
    fn refuse_too_large(&mut self, tag: u32) {
        self.refused += 1;
        let info = format!("larger than the limit of {} bytes", self.limits.max_job_bytes);
        self.put_error(tag, self.profile.statuses.buffer_full, Some(&info));
    }

    fn put_error(&mut self, tag: u32, status: u32, info: Option<&str>) {
        wire::reply_error(&self.profile, &mut self.output, tag, status, info);
    }

    #[inline]
    fn answered(&mut self, tag: u32) {
        if bug::is_on(Bug::AnsweredTagKept) {
            return;
        }
        let was_outstanding = self.outstanding.remove(tag);
        debug_assert!(was_outstanding, "every command is answered once");
    }
}
