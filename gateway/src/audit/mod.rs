//! The audit log: who had which job run where, when, and what became of it; and who changed the gateway. One JSON line for each,
//! chained by hashes, so that a line that is removed, changed, inserted or moved shows.
//!
//! The shards' [`Recorder`]s make records and hand them over once for each call of the shard; a thread of the log's own writes
//! them to a file, the journal or syslog. [`verify`] reads them back, for `seeway audit verify`. `docs/design/audit.md` says what the
//! chain proves and what it does not.

mod buffer;
mod chain;
mod json;
mod record;
mod recorder;
mod sink;
#[cfg(test)]
mod tests;
mod thread;
mod verify;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use chain::{Hash, Head, Key, MAX_LINE, MIN_KEY, NoHash, ShortKey};
pub use record::{Actor, Event, ListenerKind, MAX_TEXT};
pub use recorder::{Recorder, Refusals};
pub use sink::{Aside, AuditError, JOURNALD, SYSLOG, Target};
pub use verify::{Fault, MAX_FAULTS, Report, Verifier, WantedHead, Wrong, verify};

use buffer::Buffer;
use record::Names;
use sink::Sink;
use thread::{LAST_TRIES, Writer};

use crate::config::Config;

/// How long the end of the log is waited for, beyond the last tries. A disk that hangs may not hang the gateway's end.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// `[audit]`, where there is a log.
#[derive(Clone)]
pub struct Settings {
    /// `audit.to`: where records go.
    pub to: Target,
    /// `audit.when_full`: what a sink that takes no records means to jobs.
    pub when_full: WhenFull,
    /// `audit.sync`: whether each batch is synced to the disk.
    pub must_sync: bool,
    /// `audit.buffer`: how many records may wait.
    pub buffer: usize,
    /// `audit.job_digest`: whether a job's SHA-256 is recorded.
    pub job_digest: bool,
    /// `audit.rotate_bytes`: how large a file may become; 0: any size.
    pub rotate_bytes: u64,
    /// `audit.key`: what the hashes are made with.
    pub key: Option<Key>,
    /// The file that the key was read from.
    pub key_file: Option<PathBuf>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("to", &self.to).field("when_full", &self.when_full).finish_non_exhaustive()
    }
}

/// What becomes of jobs while nobody can record them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// New jobs are refused. Those in hand go on, and their records are kept.
    Stop,
    /// Jobs go on. Records that there is no room for are dropped, and counted.
    Drop,
}

/// The audit log of one gateway.
pub struct Audit {
    buffer: Arc<Buffer>,
    to: Target,
    /// Told when the thread has ended.
    ended: Mutex<Receiver<()>>,
}

/// How the log is now.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// The last record that was written.
    pub head: Head,
    /// Records written since the gateway began.
    pub written: u64,
    /// Records dropped for want of room.
    pub dropped: u64,
    /// How often the sink did not take what it was given.
    pub failures: u64,
    /// Jobs refused because nobody could record them.
    pub jobs_refused: u64,
    /// Records that wait or are being written.
    pub waiting: usize,
    /// How many may.
    pub limit: usize,
    /// Whether the sink took nothing the last time.
    pub is_failing: bool,
    /// Whether new jobs are refused now.
    pub refuses_jobs: bool,
}

impl Audit {
    /// Opens the log that a configuration asks for, and starts its thread.
    ///
    /// # Errors
    /// It can't be opened. That it takes records is not certain yet.
    pub fn start(config: &Config) -> Result<Option<Arc<Self>>, AuditError> {
        let Some(settings) = &config.audit else { return Ok(None) };
        Self::start_with(settings, config.runtime.shards, Names::of(config)).map(|audit| Some(Arc::new(audit)))
    }

    /// Does the same while another gateway writes that log: a file that it has open gets another name, under which that gateway ends it,
    /// and this one begins a chain of its own.
    ///
    /// Where this gateway does not take the other one's place after all, what is returned with the log gives that file its name back.
    ///
    /// # Errors
    /// As of [`start`](Self::start); or the file can't be renamed.
    pub fn start_beside(config: &Config) -> Result<(Option<Arc<Self>>, Option<Aside>), AuditError> {
        match Self::start(config) {
            Err(AuditError::InUse(path)) => {
                let aside = Aside::move_aside(path)?;
                Ok((Self::start(config)?, Some(aside)))
            }
            started => Ok((started?, None)),
        }
    }

    fn start_with(settings: &Settings, shards: usize, names: Names) -> Result<Self, AuditError> {
        let (sink, tail) = Sink::open(&settings.to, settings.must_sync)?;
        let buffer = Arc::new(Buffer::new(settings, shards, names));
        let writer = Writer::new(buffer.clone(), settings, sink, tail);
        let (has_ended, ended) = sync_channel(1);
        let guard = ThreadEnd(buffer.clone());
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(move || {
            let _guard = guard;
            writer.run();
            // Whoever started the log may have gone.
            let _ = has_ended.send(());
        });
        buffer.runs_on(thread.map_err(AuditError::Thread)?.thread().clone());
        let audit = Self { buffer, to: settings.to.clone(), ended: Mutex::new(ended) };
        audit.event(
            Event::new("gateway_started").number("pid", std::process::id().into()).number("shards", shards as u64),
        );
        Ok(audit)
    }

    /// The recorder of a shard. Each has one.
    pub fn recorder(&self, shard: usize) -> Recorder {
        Recorder::new(self.buffer.clone(), shard)
    }

    /// Records something that the control plane does or sees. Where there is no room, it is counted and not recorded.
    pub fn event(&self, event: Event) {
        self.buffer.push_event(event);
    }

    /// A connection was closed at once, because there are too many. Told in sum, once in a second at most.
    pub fn refused_caller(&self) {
        self.buffer.counts.callers_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Worlds and machines may have new ones among them. To be called before the shards hear of it.
    pub fn reconfigure(&self, config: &Config) {
        *self.buffer.names.write().unwrap_or_else(PoisonError::into_inner) = Names::of(config);
    }

    /// Goes on in the file that has the configured name now: whoever rotates files has moved the old one away.
    pub fn reopen(&self) {
        self.buffer.ask_to_reopen();
    }

    /// Another gateway has renamed this one's file to `aside`, and has ended: it gets its own name back. What that one has recorded is beside
    /// it. Blocks.
    pub fn back_from(&self, aside: PathBuf) {
        if let Target::File(path) = &self.to {
            drop(Aside::of(path.clone(), aside));
        }
    }

    /// Where records go.
    pub fn target(&self) -> &Target {
        &self.to
    }

    /// How it is now.
    pub fn status(&self) -> Status {
        let buffer = &self.buffer;
        let unrecorded = buffer.unrecorded();
        Status {
            head: buffer.head(),
            written: buffer.counts.written.load(Ordering::Relaxed),
            dropped: unrecorded.dropped_jobs + unrecorded.dropped_others,
            failures: buffer.counts.failures.load(Ordering::Relaxed),
            jobs_refused: unrecorded.jobs_refused,
            waiting: buffer.pending(),
            limit: buffer.limit,
            is_failing: buffer.is_failing(),
            refuses_jobs: buffer.refuses_jobs(),
        }
    }

    /// Ends the log with what waits now, and waits for that, a few seconds at most. Does nothing the second time. It blocks: not to
    /// be called where others wait.
    pub fn end(&self) {
        if self.buffer.wants_end() {
            return;
        }
        self.buffer.ask_to_end();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(LAST_TRIES + END_TIMEOUT).is_err() {
            let records = self.buffer.pending();
            tracing::error!(records, to = %self.to, "the audit log does not end; these records may not be in it");
        }
    }
}

impl Drop for Audit {
    fn drop(&mut self) {
        self.end();
    }
}

/// Says it to the shards where the thread ends unasked.
struct ThreadEnd(Arc<Buffer>);

impl Drop for ThreadEnd {
    fn drop(&mut self) {
        if !self.0.wants_end() {
            tracing::error!("the audit log's thread has ended; nothing is recorded any more");
            self.0.set_failing(true);
        }
    }
}
