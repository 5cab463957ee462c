//! Reads an audit log back and says whether its chain holds. Pure: bytes in, a report out; any bytes will do.
//!
//! Called by `seeway audit verify`, file by file, oldest first; fuzzed through [`verify`]. After a fault it goes on with what the line
//! says of itself, so that one changed line is one fault and not the end of the search.

use std::fmt;
use std::io::{self, BufRead};

use aws_lc_rs::digest;

use super::chain::{Hash, Head, Key, MAX_LINE, Sealed, hash};

/// Faults that are kept; more are counted.
pub const MAX_FAULTS: usize = 100;

/// What is wrong at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file, as it was named.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
    /// What is wrong.
    pub what: Wrong,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} line {}: {}", self.file, self.line, self.what)
    }
}

/// What can be wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is none of ours, and no record says that the gateway found it there.
    #[error("this is no record of an audit log")]
    NotARecord,
    /// Its hash is not that of what stands there.
    #[error("record {sequence} does not have its hash: it, or the hash before it, was changed{}", if *.maybe_key { ", or the key is another one" } else { "" })]
    Changed {
        /// The record.
        sequence: u64,
        /// Whether it may be the key.
        maybe_key: bool,
    },
    /// Numbers are left out.
    #[error("records {first} to {last} are missing before this one")]
    Missing {
        /// The first of them.
        first: u64,
        /// The last of them.
        last: u64,
    },
    /// The numbers go back.
    #[error("record {sequence} stands where {expected} belongs: it was moved, inserted or repeated")]
    OutOfOrder {
        /// The record.
        sequence: u64,
        /// Which one belongs here.
        expected: u64,
    },
    /// The first line of all is not a log's beginning.
    #[error(
        "the log begins with record {sequence}, in the middle: what stood before was removed, or is in a file that was not named"
    )]
    NoBeginning {
        /// The record.
        sequence: u64,
    },
    /// It says after which record it follows, and that is not the one before it.
    #[error(
        "the gateway went on from record {claimed} here, and {found} stands before it: records were removed, or files are missing or in the wrong order"
    )]
    Elsewhere {
        /// What it says.
        claimed: u64,
        /// What stands there.
        found: u64,
    },
    /// A chain begins anew within a file log, which a gateway does only where it finds no file.
    #[error("a new chain begins here: the files before it are not what the gateway found when it started")]
    NewChain,
    /// It says that an unfinished line stands before it, and none does.
    #[error("the gateway found an unfinished line here, which was removed or changed")]
    TornRemoved,
}

/// A head that was kept elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedHead {
    /// Its record's number, where it is known.
    pub sequence: Option<u64>,
    /// Its hash.
    pub hash: Hash,
}

/// What a log looks like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records that were read.
    pub records: u64,
    /// The first record's number; 0 where there is none.
    pub first: u64,
    /// The last record's number and hash; `None` where there is no record.
    pub head: Option<Head>,
    /// Where the first record goes on from one that is not among these files.
    pub goes_on_from: Option<Head>,
    /// Unfinished lines that a gateway found when it started, and said so: it, or the machine, had been killed.
    pub torn: u64,
    /// Bytes of an unfinished line at the end: it is being written, or a gateway was killed.
    pub unfinished: Option<u64>,
    /// Chains: more than one only where they went to a journal or syslog, which begin anew with each start. What a chain but the last
    /// had after its last record here can't be known.
    pub chains: u64,
    /// Whether the head that was kept elsewhere is among the records; `None` where none was asked for.
    pub has_head: Option<bool>,
    /// What is wrong, in order, at most [`MAX_FAULTS`].
    pub faults: Vec<Fault>,
    /// All that is wrong.
    pub fault_count: u64,
}

impl Report {
    /// Whether all that can be checked holds, and there is anything: a log that somebody emptied has no records, and a gateway's first
    /// one says that it was opened.
    pub fn holds(&self) -> bool {
        self.records > 0 && self.fault_count == 0 && self.has_head != Some(false)
    }
}

/// Reads a whole log that stands in memory.
pub fn verify(bytes: &[u8], key: Option<Key>) -> Report {
    let mut verifier = Verifier::new(key, None);
    verifier.file("log", bytes).expect("memory can be read");
    verifier.finish()
}

/// Reads a log's files, one after the other.
pub struct Verifier {
    key: Option<Key>,
    wanted: Option<WantedHead>,
    report: Report,
    file: String,
    line: u64,
    /// The head before the next line; `None` before the first.
    expected: Option<Head>,
    /// Lines that are no records, until it is known whether a gateway found them so.
    suspect: Option<Suspect>,
}

/// Lines that are no records.
struct Suspect {
    line: u64,
    bytes: u64,
    hash: digest::Context,
}

/// What a gateway said when it opened the log.
#[derive(Debug)]
struct Opened {
    is_file: bool,
    continues: Option<Head>,
    torn: Option<(u64, Hash)>,
}

impl Opened {
    /// `None` where the record says something else.
    fn read(body: &[u8]) -> Option<Self> {
        const MARK: &[u8] = b",\"event\":\"opened\"";
        // A text's quotes are escaped, so that no name can bring the mark in.
        if !body.windows(MARK.len()).any(|window| window == MARK) {
            return None;
        }
        let mut whole = body.to_vec();
        whole.push(b'}');
        let record: serde_json::Value = serde_json::from_slice(&whole).ok()?;
        let number = |key: &str| record[key].as_u64();
        let hash = |key: &str| record[key].as_str()?.parse::<Hash>().ok();
        let continues = number("continues_seq").zip(hash("continues_hash"));
        Some(Self {
            is_file: record["to"].as_str() == Some("file"),
            continues: continues.map(|(sequence, hash)| Head { sequence, hash }),
            torn: number("torn_bytes").zip(hash("torn_sha256")),
        })
    }
}

impl Verifier {
    /// With the key that the log was written with, and a head that was kept elsewhere.
    pub fn new(key: Option<Key>, wanted: Option<WantedHead>) -> Self {
        let report = Report { has_head: wanted.map(|_| false), ..Report::default() };
        Self { key, wanted, report, file: String::new(), line: 0, expected: None, suspect: None }
    }

    /// Reads the next file. No more of it is in memory than a line.
    ///
    /// # Errors
    /// It can't be read any further.
    pub fn file(&mut self, name: &str, mut lines: impl BufRead) -> io::Result<()> {
        name.clone_into(&mut self.file);
        self.line = 0;
        self.report.unfinished = None;
        let mut line = Vec::new();
        let mut is_long = false;
        loop {
            let read = lines.fill_buf()?;
            if read.is_empty() {
                break;
            }
            let end = read.iter().position(|byte| *byte == b'\n');
            line.extend(&read[..end.unwrap_or(read.len())]);
            let count = end.map_or(read.len(), |end| end + 1);
            lines.consume(count);
            if line.len() > MAX_LINE {
                // No line of ours: it is not kept.
                self.suspicious(&line, !is_long);
                is_long = true;
                line.clear();
            }
            if end.is_some() {
                if is_long {
                    self.suspicious(&line, false);
                } else {
                    self.whole_line(&line);
                }
                is_long = false;
                line.clear();
            }
        }
        if is_long {
            self.suspicious(&line, false);
            self.end_suspicion();
        } else if Sealed::read(&line).is_some() {
            // Only its end was not written.
            self.whole_line(&line);
        } else if line.is_empty() {
            self.end_suspicion();
        } else {
            self.end_suspicion();
            self.report.unfinished = Some(line.len() as u64);
        }
        Ok(())
    }

    /// What came of it.
    pub fn finish(mut self) -> Report {
        self.report.head = self.expected.filter(|_| self.report.records > 0);
        self.report
    }

    fn whole_line(&mut self, line: &[u8]) {
        let Some(sealed) = Sealed::read(line) else { return self.suspicious(line, true) };
        self.line += 1;
        let opened = Opened::read(sealed.body);
        self.judge_suspects(opened.as_ref());
        self.report.records += 1;
        if self.report.first == 0 {
            self.report.first = sealed.sequence;
        }
        if let Some(before) = self.before(&sealed, opened.as_ref()) {
            self.compare(before, &sealed);
        }
        self.expected = Some(sealed.head());
    }

    /// The head that the line has to follow; `None` where there is nothing to compare it with.
    fn before(&mut self, sealed: &Sealed<'_>, opened: Option<&Opened>) -> Option<Head> {
        match (self.expected, opened) {
            (None, None) => {
                self.report.chains = 1;
                self.fault(Wrong::NoBeginning { sequence: sealed.sequence });
                None
            }
            (None, Some(opened)) => {
                self.report.chains = 1;
                // What it claims to follow is not among the records: whoever made the log anew may claim anything.
                self.report.goes_on_from = opened.continues;
                Some(opened.continues.unwrap_or_default())
            }
            (Some(_), Some(Opened { continues: None, is_file, .. })) => {
                self.report.chains += 1;
                if *is_file {
                    self.fault(Wrong::NewChain);
                }
                Some(Head::default())
            }
            (Some(found), Some(Opened { continues: Some(claimed), .. })) if found != *claimed => {
                self.fault(Wrong::Elsewhere { claimed: claimed.sequence, found: found.sequence });
                Some(*claimed)
            }
            (expected @ Some(_), _) => expected,
        }
    }

    fn compare(&mut self, before: Head, sealed: &Sealed<'_>) {
        let expected = before.sequence.saturating_add(1);
        let sequence = sealed.sequence;
        if sequence > expected {
            self.fault(Wrong::Missing { first: expected, last: sequence - 1 });
        } else if sequence < expected || before.sequence == u64::MAX {
            self.fault(Wrong::OutOfOrder { sequence, expected });
        } else if hash(self.key.as_ref(), before.hash, sealed.body) != sealed.hash {
            let maybe_key = self.key.is_some() && self.report.records == 1;
            self.fault(Wrong::Changed { sequence, maybe_key });
        } else {
            self.look_for_wanted(sealed.head());
        }
    }

    fn look_for_wanted(&mut self, head: Head) {
        if let Some(wanted) = self.wanted
            && wanted.hash == head.hash
            && wanted.sequence.is_none_or(|sequence| sequence == head.sequence)
        {
            self.report.has_head = Some(true);
        }
    }

    /// A line, or a part of one, is no record's. Perhaps a gateway was killed while it wrote: the next one has said so then.
    fn suspicious(&mut self, bytes: &[u8], begins_line: bool) {
        self.line += u64::from(begins_line);
        let line = self.line;
        let new = || Suspect { line, bytes: 0, hash: digest::Context::new(&digest::SHA256) };
        let is_first = self.suspect.is_none();
        let suspect = self.suspect.get_or_insert_with(new);
        if begins_line && !is_first {
            suspect.hash.update(b"\n");
            suspect.bytes += 1;
        }
        suspect.hash.update(bytes);
        suspect.bytes += bytes.len() as u64;
    }

    fn judge_suspects(&mut self, opened: Option<&Opened>) {
        let said = opened.and_then(|opened| opened.torn);
        match (self.suspect.take(), said) {
            (None, None) => {}
            (None, Some(_)) => self.fault(Wrong::TornRemoved),
            (Some(suspect), said) => {
                let mut hash = Hash::default();
                hash.0.copy_from_slice(suspect.hash.finish().as_ref());
                match said {
                    Some(said) if said == (suspect.bytes, hash) => self.report.torn += 1,
                    Some(_) => self.fault_at(suspect.line, Wrong::TornRemoved),
                    None => self.fault_at(suspect.line, Wrong::NotARecord),
                }
            }
        }
    }

    /// No record follows in this file.
    fn end_suspicion(&mut self) {
        if let Some(suspect) = self.suspect.take() {
            self.fault_at(suspect.line, Wrong::NotARecord);
        }
    }

    fn fault(&mut self, what: Wrong) {
        self.fault_at(self.line, what);
    }

    fn fault_at(&mut self, line: u64, what: Wrong) {
        self.report.fault_count += 1;
        if self.report.faults.len() < MAX_FAULTS {
            self.report.faults.push(Fault { file: self.file.clone(), line, what });
        }
    }
}
