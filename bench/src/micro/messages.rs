//! The messages that scenarios are fed with, and a machine that echoes jobs at next to no cost.
//!
//! Both change tags in messages that stand ready. What that takes is counted with a scenario's work; [`Feed`] is just that, so
//! that it can be taken off.

use std::hint::black_box;

use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{self, Profile, see_job_message_len};

use super::Work;

/// Bytes of every job and reply.
pub(super) const JOB_BYTES: usize = 256;

/// Where a message has its tag: after its length.
const TAG: std::ops::Range<usize> = 4..8;

/// How many bytes there are of a reply around the job's bytes: length, tag, cmd, status, flags and the block's length.
const REPLY_OVERHEAD: usize = 24;

/// Bytes of a reply's message.
pub(super) const REPLY_MESSAGE: usize = REPLY_OVERHEAD + JOB_BYTES;

/// Bytes of a job's message.
pub(super) fn job_message() -> usize {
    see_job_message_len(JOB_BYTES)
}

/// A job's bytes: all 256 different ones.
pub(super) fn job() -> Vec<u8> {
    (0..=u8::MAX).collect()
}

/// Some jobs' messages one after the other, as a caller sends them.
pub(super) struct Jobs {
    bytes: Vec<u8>,
    next_tag: u32,
}

impl Jobs {
    /// `count` of them for the world that has this handle.
    pub(super) fn new(profile: &Profile, world: u32, count: usize) -> Self {
        let mut bytes = WipedBuffer::new();
        for _ in 0..count {
            wire::command_see_job(profile, &mut bytes, 0, world, &job());
        }
        assert_eq!(bytes.len(), count * job_message());
        Self { bytes: bytes.filled().to_vec(), next_tag: 0 }
    }

    /// The same jobs under tags of their own.
    pub(super) fn next(&mut self) -> &[u8] {
        for message in self.bytes.chunks_exact_mut(job_message()) {
            message[TAG].copy_from_slice(&self.next_tag.to_le_bytes());
            self.next_tag = self.next_tag.wrapping_add(1);
        }
        &self.bytes
    }
}

/// A machine that echoes.
pub(super) struct Echo {
    replies: Vec<u8>,
}

impl Echo {
    /// One that is sent at most `count` jobs at once.
    pub(super) fn new(profile: &Profile, count: usize) -> Self {
        let mut replies = WipedBuffer::new();
        for _ in 0..count {
            wire::reply_job(profile, &mut replies, 0, &job());
        }
        assert_eq!(replies.len(), count * REPLY_MESSAGE);
        Self { replies: replies.filled().to_vec() }
    }

    /// The replies to these jobs.
    pub(super) fn replies_to(&mut self, jobs: &[u8]) -> &[u8] {
        let jobs = jobs.chunks_exact(job_message());
        let count = jobs.len();
        for (reply, job) in self.replies.chunks_exact_mut(REPLY_MESSAGE).zip(jobs) {
            reply[TAG].copy_from_slice(&job[TAG]);
        }
        &self.replies[..count * REPLY_MESSAGE]
    }
}

/// What a scenario is fed with and nothing else: the jobs of some callers, and the machine's replies to all of them.
pub(super) struct Feed {
    callers: Vec<Jobs>,
    batch: Vec<u8>,
    echo: Echo,
}

impl Feed {
    pub(super) fn new(callers: usize, in_flight: usize) -> Self {
        let profile = Profile::open_1();
        let jobs = || Jobs::new(&profile, 1, in_flight);
        Self {
            callers: (0..callers).map(|_| jobs()).collect(),
            batch: Jobs::new(&profile, 1, callers * in_flight).bytes,
            echo: Echo::new(&profile, callers * in_flight),
        }
    }
}

impl Work for Feed {
    fn turn(&mut self) {
        for caller in &mut self.callers {
            black_box(caller.next());
        }
        black_box(self.echo.replies_to(black_box(&self.batch)));
    }
}
