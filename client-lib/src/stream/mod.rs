//! Many jobs on one byte stream, for a client: the SEEJob wire over a socket or a tunnel's channel.
//!
//! [`Connection`] is a handle that any number of tasks submit jobs through; a task of its own drives the stream, and what
//! several of them submit at the same time leaves in one write. [`Pipelined`] is the same without that task, for one owner
//! that wants every job per second. [`direct`](crate::direct) and [`hardserver`](crate::hardserver) are made of the former.

mod connection;
mod engine;
mod pipelined;
mod status;
mod transport;

use std::sync::Arc;

use seeway_proto::wire::{Limits, Profile};

pub use connection::Connection;
pub use engine::StreamEnd;
pub use pipelined::Pipelined;
pub use transport::{IoTransport, Transport};

/// What both ends of a stream must agree on, and how much may be under way.
#[derive(Clone, Debug)]
pub struct Options {
    /// The numbers of the wire; `open-1`.
    pub profile: Arc<Profile>,
    /// The largest job and reply; 262 100 bytes.
    pub limits: Limits,
    /// How many jobs may be unanswered at once; 1024. More wait.
    pub max_in_flight: usize,
    /// How many bytes of jobs a [`Connection`] stages while the stream takes no more; 4 MiB, and never less than the largest
    /// job. More wait. What is being written meanwhile may be as much again. The owner of a [`Pipelined`] stages what it
    /// likes, up to `max_in_flight` jobs.
    pub max_staged_bytes: u32,
}

impl Options {
    /// What `max_staged_bytes` comes to.
    fn staging_limit(&self) -> u32 {
        let countable = u32::try_from(tokio::sync::Semaphore::MAX_PERMITS).unwrap_or(u32::MAX);
        self.max_staged_bytes.max(self.limits.max_job_bytes).min(countable)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: Profile::open_1(),
            limits: Limits::default(),
            max_in_flight: 1024,
            max_staged_bytes: 4 * 1024 * 1024,
        }
    }
}
