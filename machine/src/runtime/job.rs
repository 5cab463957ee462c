//! A job in the application's hands.

use std::fmt;
use std::sync::Arc;

use seeway_proto::wiped::WipedBuffer;

use super::stream::Stream;

/// A job that is to be answered. Dropped without an answer, it answers `SEEWorldFailed`: the caller is told that the job
/// may have run.
///
/// Its bytes are wiped when it is dropped.
pub struct Job {
    bytes: WipedBuffer,
    reply_to: ReplyTo,
}

impl Job {
    pub(super) fn new(bytes: WipedBuffer, stream: Arc<Stream>, tag: u32) -> Self {
        let job_len = bytes.len();
        Self { bytes, reply_to: ReplyTo { stream, tag, job_len, is_answered: false } }
    }

    /// What the caller sent, at most the machine's `max_job_bytes`.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.filled()
    }

    /// Answers with `reply`. See [`ReplyTo::reply`].
    pub fn reply(self, reply: &[u8]) {
        self.reply_to.reply(reply);
    }

    /// Answers with a status of the application's own. See [`ReplyTo::fail`].
    pub fn fail(self, status: u32, info: Option<&str>) {
        self.reply_to.fail(status, info);
    }

    /// The bytes and the way back as two values, so that a reply can be made from the bytes, or the bytes can be let go
    /// long before the answer.
    pub fn split(self) -> (WipedBuffer, ReplyTo) {
        (self.bytes, self.reply_to)
    }

    /// Answers that nothing of the job ran, and that it may be sent again.
    pub(super) fn refuse_as_not_available(self, info: &str) {
        let status = self.reply_to.stream.statuses().not_available;
        self.reply_to.answer_error(status, Some(info));
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Job({} bytes)", self.bytes.len())
    }
}

/// The way back to whoever sent a job. Like a [`Job`], it answers `SEEWorldFailed` when it is dropped without an answer.
pub struct ReplyTo {
    stream: Arc<Stream>,
    tag: u32,
    job_len: usize,
    is_answered: bool,
}

impl ReplyTo {
    /// Answers with `reply`, which is copied. One that is larger than the machine's `max_job_bytes` can not be sent: the
    /// caller gets `SEEWorldFailed` and is told why. Where the caller has gone, nothing happens.
    pub fn reply(mut self, reply: &[u8]) {
        self.is_answered = true;
        let tag = self.tag;
        self.stream.answer(self.job_len, |incoming| incoming.answer_job(tag, reply));
    }

    /// Answers with a status of the application's own, `0x0001_0000` or above, and a text for the caller's log.
    ///
    /// Statuses below that number say things that only the machine and the gateway can know, such as that a job never
    /// ran. With one of them the caller gets `SEEWorldFailed`.
    pub fn fail(self, status: u32, info: Option<&str>) {
        let statuses = self.stream.statuses();
        if statuses.is_of_application(status) {
            self.answer_error(status, info);
        } else {
            let see_world_failed = statuses.see_world_failed;
            self.answer_error(see_world_failed, Some("the application failed with a status that is not its own"));
        }
    }

    fn answer_error(mut self, status: u32, info: Option<&str>) {
        self.is_answered = true;
        let tag = self.tag;
        self.stream.answer(self.job_len, |incoming| incoming.answer_error(tag, status, info));
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        let (tag, status) = (self.tag, self.stream.statuses().see_world_failed);
        let info = Some("the application failed while it held the job");
        self.stream.answer(self.job_len, |incoming| incoming.answer_error(tag, status, info));
    }
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplyTo(tag {})", self.tag)
    }
}
