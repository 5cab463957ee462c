//! A caller that speaks the SEEJob wire by hand, from its specification, and waiting with a bound.
#![allow(dead_code)] // Every test crate uses another part.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub const NO_OP: u32 = 1;
pub const SEE_JOB: u32 = 2;
pub const GET_PUBLISHED_OBJECT: u32 = 3;

pub const UNKNOWN_COMMAND: u32 = 1;
pub const MALFORMED: u32 = 2;
pub const INVALID_PARAMETER: u32 = 3;
pub const UNKNOWN_ID: u32 = 4;
pub const BUFFER_FULL: u32 = 6;
pub const NOT_AVAILABLE: u32 = 8;
pub const SEE_WORLD_FAILED: u32 = 10;

/// Far longer than anything here takes, on however busy a machine.
const BOUND: Duration = Duration::from_secs(60);

/// `future`'s output; panics where it takes too long.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(BOUND, future).await.expect("this takes far longer than it should")
}

/// Returns once `condition` holds; panics where it takes too long.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < BOUND, "{what}: not within {BOUND:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

pub fn block(bytes: &[u8]) -> Vec<u8> {
    let mut block = words(&[u32::try_from(bytes.len()).expect("small")]);
    block.extend_from_slice(bytes);
    block.resize(block.len().next_multiple_of(4), 0);
    block
}

/// A message of this body.
pub fn message(body: &[u8]) -> Vec<u8> {
    let mut message = words(&[u32::try_from(body.len()).expect("small")]);
    message.extend_from_slice(body);
    message
}

pub fn command(tag: u32, number: u32, flags: u32, arguments: &[u8]) -> Vec<u8> {
    let mut body = words(&[tag, number, flags]);
    body.extend_from_slice(arguments);
    message(&body)
}

pub fn no_op(tag: u32) -> Vec<u8> {
    command(tag, NO_OP, 0, &[])
}

pub fn job_for(world: u32, tag: u32, job: &[u8]) -> Vec<u8> {
    let mut arguments = words(&[world]);
    arguments.extend(block(job));
    command(tag, SEE_JOB, 0, &arguments)
}

pub fn job(tag: u32, job: &[u8]) -> Vec<u8> {
    job_for(0, tag, job)
}

/// What a machine said.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub tag: u32,
    pub said: Said,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    NoOp,
    Job(Vec<u8>),
    Error(u32, Option<String>),
}

impl Reply {
    /// The reply's bytes; panics if it is an error.
    pub fn into_job(self) -> Vec<u8> {
        match self.said {
            Said::Job(bytes) => bytes,
            other => panic!("a reply was expected, not {other:?}"),
        }
    }

    /// The error's status; panics if it is none.
    pub fn status(&self) -> u32 {
        match &self.said {
            Said::Error(status, _) => *status,
            other => panic!("an error was expected, not {other:?}"),
        }
    }
}

pub struct Caller<S> {
    pub stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Caller<S> {
    pub fn new(stream: S) -> Self {
        Self { stream }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        soon(self.stream.write_all(bytes)).await.expect("the machine takes it");
        soon(self.stream.flush()).await.expect("the machine takes it");
    }

    /// The next message's body.
    pub async fn receive_body(&mut self) -> Vec<u8> {
        let length = soon(self.stream.read_u32_le()).await.expect("a reply comes");
        let mut body = vec![0; length as usize];
        soon(self.stream.read_exact(&mut body)).await.expect("all of the reply comes");
        body
    }

    pub async fn receive(&mut self) -> Reply {
        let body = self.receive_body().await;
        let word = |index: usize| {
            let bytes = body[index * 4..index * 4 + 4].try_into().expect("four bytes");
            u32::from_le_bytes(bytes)
        };
        let first_block = || {
            let len = word(4) as usize;
            assert_eq!(body.len(), 20 + len.next_multiple_of(4), "the length is what the fields add up to");
            assert!(body[20 + len..].iter().all(|byte| *byte == 0), "padding is zero");
            body[20..20 + len].to_vec()
        };
        let said = match (word(1), word(2), word(3)) {
            (NO_OP, 0, 0) => Said::NoOp,
            (SEE_JOB, 0, 0) => Said::Job(first_block()),
            (0, status, 0) if status != 0 => Said::Error(status, None),
            (0, status, 1) if status != 0 => {
                Said::Error(status, Some(String::from_utf8(first_block()).expect("errorinfo is text")))
            }
            other => panic!("no machine says {other:?}"),
        };
        Reply { tag: word(0), said }
    }

    /// Sends a job and waits for its reply, which is the next one.
    pub async fn run(&mut self, tag: u32, bytes: &[u8]) -> Reply {
        self.send(&job(tag, bytes)).await;
        let reply = self.receive().await;
        assert_eq!(reply.tag, tag);
        reply
    }

    /// Returns once the machine has closed the stream, without having said anything more.
    pub async fn closed(&mut self) {
        let mut byte = [0];
        // A reset says the same.
        let read = soon(self.stream.read(&mut byte)).await.unwrap_or(0);
        assert_eq!(read, 0, "the stream was expected to be closed, and has more to say");
    }
}
