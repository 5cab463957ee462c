//! Replies with the job.

use crate::runtime::{Application, Job};

pub(super) struct Echo;

impl Application for Echo {
    fn run(&self, job: Job) {
        let (bytes, reply_to) = job.split();
        reply_to.reply(bytes.filled());
    }
}
