//! The wire alone: finding messages, decoding and encoding them.

use std::hint::black_box;
use std::sync::Arc;

use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{self, Command, Direction, Frame, Framer, Limits, Profile, ReplyBody};

use super::Work;
use super::messages::{Echo, JOB_BYTES, Jobs, REPLY_MESSAGE, job, job_message};

/// Decodes the jobs of one read.
pub(super) struct DecodeJobs {
    profile: Arc<Profile>,
    framer: Framer,
    jobs: Jobs,
    count: usize,
}

impl DecodeJobs {
    pub(super) fn new(count: usize) -> Self {
        let profile = Profile::open_1();
        let jobs = Jobs::new(&profile, 7, count);
        Self { framer: Framer::new(Direction::Commands, Limits::default()), profile, jobs, count }
    }
}

impl Work for DecodeJobs {
    fn turn(&mut self) {
        let mut input = black_box(self.jobs.next());
        let mut decoded = 0;
        while let Some(Frame::Body(body)) = self.framer.next(&mut input).expect("whole messages") {
            let command = black_box(wire::decode_command(&self.profile, body));
            let Ok(Command::SeeJob { job, .. }) = command else { panic!("a job was sent") };
            decoded += usize::from(job.0.len() == JOB_BYTES);
        }
        assert_eq!(decoded, self.count);
    }
}

/// Encodes jobs into a buffer, which is then emptied.
pub(super) struct EncodeJobs {
    profile: Arc<Profile>,
    buffer: WipedBuffer,
    job: Vec<u8>,
    count: u32,
}

impl EncodeJobs {
    pub(super) fn new(count: u32) -> Self {
        Self { profile: Profile::open_1(), buffer: WipedBuffer::new(), job: job(), count }
    }
}

impl Work for EncodeJobs {
    fn turn(&mut self) {
        for tag in 0..self.count {
            wire::command_see_job(&self.profile, &mut self.buffer, tag, 7, black_box(&self.job));
        }
        assert_eq!(black_box(self.buffer.filled()).len(), self.count as usize * job_message());
        self.buffer.clear();
    }
}

/// Decodes replies and encodes them again.
pub(super) struct Replies {
    profile: Arc<Profile>,
    framer: Framer,
    jobs: Jobs,
    echo: Echo,
    buffer: WipedBuffer,
    count: usize,
}

impl Replies {
    pub(super) fn new(count: usize) -> Self {
        let profile = Profile::open_1();
        Self {
            framer: Framer::new(Direction::Replies, Limits::default()),
            jobs: Jobs::new(&profile, 0, count),
            echo: Echo::new(&profile, count),
            profile,
            buffer: WipedBuffer::new(),
            count,
        }
    }
}

impl Work for Replies {
    fn turn(&mut self) {
        let mut input = black_box(self.echo.replies_to(self.jobs.next()));
        while let Some(Frame::Body(body)) = self.framer.next(&mut input).expect("whole messages") {
            let reply = wire::decode_reply(&self.profile, body).expect("a whole reply");
            let ReplyBody::Job(bytes) = reply.body else { panic!("a job was answered") };
            wire::reply_job(&self.profile, &mut self.buffer, reply.tag, bytes.0);
        }
        assert_eq!(black_box(self.buffer.filled()).len(), self.count * REPLY_MESSAGE);
        self.buffer.clear();
    }
}
