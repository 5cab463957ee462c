//! The answering end of a SEEJob stream, as a test wants it.

use seeway_proto::mux::Incoming;
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Command, Limits, Profile};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A world that the machine knows, and its handle.
pub const WORLD: (&str, u32) = ("signer", 17);

/// A status of the application's own.
pub const APPLICATION_STATUS: u32 = 0x0001_0007;

/// The machine's end of a stream.
pub struct Machine<S> {
    stream: S,
    incoming: Incoming,
    input: WipedBuffer,
    /// How many reads found something.
    pub reads: usize,
}

/// A job that is to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub tag: u32,
    pub world: u32,
    pub bytes: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Machine<S> {
    pub fn new(stream: S) -> Self {
        let incoming = Incoming::new(Profile::open_1(), Limits::default(), 65_536);
        Self { stream, incoming, input: WipedBuffer::new(), reads: 0 }
    }

    /// The jobs of the next read that has any; empty at the end of the stream. Answers everything else by itself.
    pub async fn jobs(&mut self) -> Vec<Job> {
        loop {
            let mut jobs = Vec::new();
            let mut rest = self.input.filled();
            let held = rest.len();
            while let Some(request) = self.incoming.next(&mut rest).expect("the client keeps to the protocol") {
                match request {
                    Command::NoOp { tag } => self.incoming.answer_no_op(tag),
                    Command::SeeJob { tag, world, job } => jobs.push(Job { tag, world, bytes: job.0.to_vec() }),
                    Command::GetPublishedObject { tag, name } if name == WORLD.0 => {
                        self.incoming.answer_object(tag, WORLD.1);
                    }
                    Command::GetPublishedObject { tag, .. } => {
                        let status = Profile::open_1().statuses.unknown_id;
                        self.incoming.answer_error(tag, status, Some("no such world"));
                    }
                }
            }
            let consumed = held - rest.len();
            self.input.consume(consumed);
            self.flush().await;
            if !jobs.is_empty() {
                return jobs;
            }
            match self.stream.read(self.input.unfilled(64 * 1024)).await {
                Ok(count) if count > 0 => self.input.commit(count),
                _ => return jobs,
            }
            self.reads += 1;
        }
    }

    pub fn reply(&mut self, job: &Job, reply: &[u8]) {
        self.incoming.answer_job(job.tag, reply);
    }

    pub fn fail(&mut self, job: &Job, status: u32, info: Option<&str>) {
        self.incoming.answer_error(job.tag, status, info);
    }

    pub async fn flush(&mut self) {
        let mut output = WipedBuffer::new();
        self.incoming.swap_output(&mut output);
        if !output.is_empty() {
            // A client that has gone does not read it.
            let _ = self.stream.write_all(output.filled()).await;
        }
    }

    pub async fn write_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Answers every job with its own bytes, those of each read in reverse; the job `fail` gets the application's status.
    pub async fn echo(mut self) {
        loop {
            let jobs = self.jobs().await;
            if jobs.is_empty() {
                return;
            }
            for job in jobs.iter().rev() {
                if job.bytes == b"fail" {
                    self.fail(job, APPLICATION_STATUS, Some("as it was told to"));
                } else {
                    self.reply(job, &job.bytes);
                }
            }
            self.flush().await;
        }
    }
}
