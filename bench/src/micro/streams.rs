//! The two ends of a stream that carries many jobs.

use std::hint::black_box;

use seeway_proto::mux::{Incoming, Outgoing};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Command, Limits, Profile, ReplyBody};

use super::Work;
use super::messages::{Echo, JOB_BYTES, Jobs, REPLY_MESSAGE, job};

/// The asking end: stages jobs, is written, and gets the replies.
pub(super) struct Ask {
    outgoing: Outgoing<u64>,
    echo: Echo,
    job: Vec<u8>,
    count: u64,
}

impl Ask {
    pub(super) fn new(count: u64) -> Self {
        let profile = Profile::open_1();
        let echo = Echo::new(&profile, usize::try_from(count).expect("small"));
        Self { outgoing: Outgoing::new(profile, Limits::default(), 1024), echo, job: job(), count }
    }
}

impl Work for Ask {
    fn turn(&mut self) {
        for token in 0..self.count {
            self.outgoing.stage_job(0, black_box(&self.job), token).expect("there is room");
        }
        let written = self.outgoing.take_output().expect("jobs are staged");
        let mut input = self.echo.replies_to(&written);
        let mut sum = 0;
        while let Some(answer) = self.outgoing.receive(&mut input).expect("replies to what was asked") {
            let ReplyBody::Job(reply) = black_box(answer.reply) else { panic!("a job was answered") };
            assert_eq!(reply.0.len(), JOB_BYTES);
            sum += answer.token + 1;
        }
        assert_eq!(sum, self.count * (self.count + 1) / 2, "each job was answered");
    }
}

/// The answering end: takes jobs and answers them.
pub(super) struct Answer {
    incoming: Incoming,
    jobs: Jobs,
    job: Vec<u8>,
    tags: Vec<u32>,
    written: WipedBuffer,
    count: usize,
}

impl Answer {
    pub(super) fn new(count: usize) -> Self {
        let profile = Profile::open_1();
        Self {
            jobs: Jobs::new(&profile, 7, count),
            incoming: Incoming::new(profile, Limits::default(), 1024),
            job: job(),
            tags: Vec::with_capacity(count),
            written: WipedBuffer::new(),
            count,
        }
    }
}

impl Work for Answer {
    fn turn(&mut self) {
        let mut input = black_box(self.jobs.next());
        while let Some(command) = self.incoming.next(&mut input).expect("whole messages") {
            let Command::SeeJob { tag, job, .. } = black_box(command) else { panic!("jobs were sent") };
            assert_eq!(job.0.len(), JOB_BYTES);
            self.tags.push(tag);
        }
        for tag in self.tags.drain(..) {
            self.incoming.answer_job(tag, black_box(&self.job));
        }
        self.incoming.swap_output(&mut self.written);
        assert_eq!(black_box(self.written.filled()).len(), self.count * REPLY_MESSAGE);
        self.written.clear();
    }
}
