//! The audit log's own thread: makes lines of what waits, seals them, and has the sink take them.
//!
//! It is the only one that blocks for the log's sake. A sink that fails is tried again, with the same bytes, until it takes them; what
//! that means to jobs is said by [`WhenFull`] and seen by the shards in the [`Buffer`].

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::buffer::{Buffer, Unrecorded};
use super::chain::{Chain, Head};
use super::record::{Event, Micros, Record, now};
use super::sink::{Chunk, Sink, Tail};
use super::{Settings, WhenFull};
use crate::seldom::{Seldom, Tell};

/// Records that are sealed, written and synced together, about 3 MB of them. Syncs take milliseconds: few small ones could not keep up.
const CHUNK_RECORDS: usize = 8192;

/// How long it waits for more records after it was woken. So it is woken, and shards have to wake it, at most some hundred times in a
/// second; and so much of the log is lost, besides what is being written, where the process is killed.
const GATHER: Duration = Duration::from_millis(2);

/// How long it sleeps where nobody wakes it.
const IDLE: Duration = Duration::from_secs(1);

/// How soon a sink that failed is tried again.
const RETRY: Duration = Duration::from_millis(250);

/// How soon a file that could not be rotated is tried again.
const ROTATE_RETRY: Duration = Duration::from_secs(10);

/// How long a sink that fails may keep the gateway from ending.
pub(super) const LAST_TRIES: Duration = Duration::from_secs(2);

/// The thread's state.
pub(super) struct Writer {
    buffer: Arc<Buffer>,
    sink: Sink,
    to: &'static str,
    rotate_bytes: u64,
    chain: Chain,
    chunk: Chunk,
    /// Whether all of the chunk is in the log, as safely as is wanted.
    is_written: bool,
    /// A file has been opened, and its first record is to say so.
    owes_beginning: Option<Tail>,
    /// Records of the chunk, and how many of them were in the buffer.
    in_chunk: (usize, usize),
    /// Taken out of the buffer; those before `next` have been sealed.
    taken: Vec<Record>,
    next: usize,
    /// The slot that is looked into next.
    slot: usize,
    trouble: Option<Trouble>,
    /// A trouble that is over, and that no record tells of yet.
    over: Option<Trouble>,
    /// What the last record about it said was not recorded.
    told: Unrecorded,
    /// When refused connections may be told of again.
    tells_refusals_from: Instant,
    /// Whether the last record of all has been made.
    has_said_end: bool,
    /// When a file may be rotated again, after it could not be.
    rotates_from: Instant,
}

/// A sink that takes nothing.
struct Trouble {
    since: Micros,
    error: String,
    tries: u64,
}

impl Writer {
    /// For a sink that was opened, with what was found there.
    pub(super) fn new(buffer: Arc<Buffer>, settings: &Settings, sink: Sink, tail: Tail) -> Self {
        let mut writer = Self {
            buffer,
            sink,
            to: settings.to.kind(),
            rotate_bytes: settings.rotate_bytes,
            chain: Chain::from(tail.head.unwrap_or_default(), settings.key.clone()),
            chunk: Chunk::default(),
            is_written: false,
            owes_beginning: None,
            in_chunk: (0, 0),
            taken: Vec::new(),
            next: 0,
            slot: 0,
            trouble: None,
            over: None,
            told: Unrecorded::default(),
            tells_refusals_from: Instant::now(),
            has_said_end: false,
            rotates_from: Instant::now(),
        };
        writer.begin(&tail);
        writer
    }

    /// Writes until it is told to end.
    pub(super) fn run(mut self) {
        let mut end_by = None;
        loop {
            // Looked at first: what was handed over before it was said is written.
            let is_ending = self.buffer.wants_end();
            if self.buffer.wants_reopen() {
                self.reopen();
            }
            if self.is_written {
                self.account();
                self.rotate_if_large();
                if let Some(tail) = self.owes_beginning.take() {
                    self.begin(&tail);
                }
                let is_all = self.fill();
                if is_ending && is_all && !std::mem::replace(&mut self.has_said_end, true) {
                    // Here and not by whoever ends the log, so that it is the last record, whichever slot others wait in.
                    let stopped = Event::new("gateway_stopped").number("pid", std::process::id().into());
                    self.seal(&Record::Event(stopped.into()));
                }
                self.is_written = self.chunk.bytes.is_empty();
            }
            if self.is_written {
                if is_ending {
                    return;
                }
                self.buffer.sleep(IDLE);
                if !self.buffer.wants_end() {
                    std::thread::sleep(GATHER);
                }
                continue;
            }
            match self.sink.write(&mut self.chunk) {
                Ok(()) => {
                    self.is_written = true;
                    self.recovered();
                }
                Err(error) => {
                    self.failed(&error);
                    if is_ending && Instant::now() >= *end_by.get_or_insert_with(|| Instant::now() + LAST_TRIES) {
                        let lost = self.buffer.pending();
                        tracing::error!(records = lost, "the gateway ends, and these records are in no audit log");
                        return;
                    }
                    std::thread::park_timeout(RETRY);
                }
            }
        }
    }

    /// The first record of a file, or of what goes to a server: what it goes on from, and what was found there.
    fn begin(&mut self, tail: &Tail) {
        let mut event = Event::new("opened").text("to", self.to).text("hashes", self.chain.algorithm());
        event = event.text("version", env!("CARGO_PKG_VERSION"));
        if self.chain.head != Head::default() {
            let Head { sequence, hash } = self.chain.head;
            event = event.number("continues_seq", sequence).hash("continues_hash", hash.0);
        }
        if let Some((bytes, hash)) = tail.torn {
            tracing::warn!(bytes, "the audit log ends with an unfinished line, as a process leaves it that is killed");
            event = event.number("torn_bytes", bytes).hash("torn_sha256", hash.0);
        }
        if tail.needs_line_end {
            self.chunk.bytes.push(b'\n');
        }
        self.seal(&Record::Event(event.into()));
    }

    /// Appends a record to the chunk.
    fn seal(&mut self, record: &Record) {
        let start = self.chunk.bytes.len();
        let names = self.buffer.names.read().unwrap_or_else(PoisonError::into_inner);
        record.write(&mut self.chunk.bytes, self.chain.next_sequence(), &names);
        drop(names);
        self.chain.seal(&mut self.chunk.bytes, start);
        self.chunk.lines.push((self.chunk.bytes.len(), record.at()));
        self.in_chunk.0 += 1;
    }

    /// The chunk is in the log.
    fn account(&mut self) {
        let (records, of_buffer) = std::mem::take(&mut self.in_chunk);
        if records > 0 {
            self.buffer.wrote(records, of_buffer, self.chain.head);
        }
        self.chunk.clear();
    }

    /// Makes a chunk of what waits; says whether that is all of it.
    fn fill(&mut self) -> bool {
        while self.in_chunk.0 < CHUNK_RECORDS {
            if self.next == self.taken.len() && !self.take_more() {
                self.tell_the_rest();
                return true;
            }
            let end = self.taken.len().min(self.next + CHUNK_RECORDS - self.in_chunk.0);
            let taken = std::mem::take(&mut self.taken);
            for record in &taken[self.next..end] {
                self.seal(record);
            }
            self.taken = taken;
            self.in_chunk.1 += end - self.next;
            self.next = end;
        }
        false
    }

    /// Takes what waits in the next slot that has something; false where all are empty.
    fn take_more(&mut self) -> bool {
        self.taken.clear();
        self.next = 0;
        for _ in 0..self.buffer.slots() {
            self.buffer.take(self.slot, &mut self.taken);
            self.slot = (self.slot + 1) % self.buffer.slots();
            if !self.taken.is_empty() {
                return true;
            }
        }
        false
    }

    /// Once all is written that waited: what was not recorded meanwhile.
    fn tell_the_rest(&mut self) {
        let now_unrecorded = self.buffer.unrecorded();
        if self.over.is_some() || now_unrecorded != self.told {
            let told = std::mem::replace(&mut self.told, now_unrecorded);
            let mut event = Event::new("unrecorded")
                .number("records_dropped_of_jobs", now_unrecorded.dropped_jobs - told.dropped_jobs)
                .number("records_dropped_of_others", now_unrecorded.dropped_others - told.dropped_others)
                .number("jobs_refused", now_unrecorded.jobs_refused - told.jobs_refused);
            if let Some(Trouble { since, error, tries }) = self.over.take() {
                let lasted = now().saturating_sub(since);
                event = event.text("error", &error).number("tries", tries).number("lasted_us", lasted);
            }
            self.seal(&Record::Event(event.into()));
        }
        if self.tells_refusals_from <= Instant::now() {
            let refused = self.buffer.counts.callers_refused.swap(0, Ordering::Relaxed);
            if refused > 0 {
                // A flood of connections is no flood of records.
                self.tells_refusals_from = Instant::now() + IDLE;
                let event = Event::new("callers_refused").number("connections", refused);
                self.seal(&Record::Event(event.text("reason", "limits.callers").into()));
            }
        }
    }

    fn failed(&mut self, error: &std::io::Error) {
        static FAILING: Seldom = Seldom::new("the audit log takes no records");
        self.buffer.set_failing(true);
        if let Some(trouble) = &mut self.trouble {
            trouble.tries += 1;
            return;
        }
        let jobs = match self.buffer.when_full {
            WhenFull::Stop => "new jobs are refused until it does",
            WhenFull::Drop => "jobs go on; records past audit.buffer will be dropped",
        };
        if let Some(Tell { untold }) = FAILING.tell("") {
            tracing::error!(%error, to = self.to, untold, "the audit log takes no records: {jobs}");
        }
        self.trouble = Some(Trouble { since: now(), error: error.to_string(), tries: 1 });
    }

    fn recovered(&mut self) {
        if let Some(trouble) = self.trouble.take() {
            static AGAIN: Seldom = Seldom::new("the audit log takes records again");
            if let Some(Tell { untold }) = AGAIN.tell("") {
                tracing::info!(to = self.to, tries = trouble.tries, untold, "the audit log takes records again");
            }
            self.over = Some(trouble);
            self.account();
            self.buffer.set_failing(false);
        }
    }

    fn reopen(&mut self) {
        match self.sink.reopen(&mut self.chunk) {
            // After what is on its way, which goes on to the new file.
            Ok(tail) => self.owes_beginning = tail.or(self.owes_beginning),
            Err(error) => tracing::error!(%error, "the audit log goes on to the file that was open"),
        }
    }

    fn rotate_if_large(&mut self) {
        if self.rotate_bytes == 0 || self.sink.size() < self.rotate_bytes || Instant::now() < self.rotates_from {
            return;
        }
        match self.sink.rotate(self.chain.head.sequence) {
            Ok(tail) => self.owes_beginning = tail.or(self.owes_beginning),
            Err(error) => {
                self.rotates_from = Instant::now() + ROTATE_RETRY;
                tracing::error!(%error, "the audit log can not be rotated, and goes on to the file that was open");
            }
        }
    }
}
