//! A caller's ledger: a file with a line for each thing that happened to it, each written before the next thing is done, so that it
//! tells the truth up to the moment at which its caller is killed.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// Milliseconds since 1970: the one clock that all processes of the test share.
pub type Millis = u64;

/// The time.
pub fn now() -> Millis {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    elapsed.as_millis().try_into().expect("64 bits hold 500 million years")
}

/// What is written in a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A connection stands.
    Connected,
    /// A job is about to be handed over.
    Submitted(String),
    /// The job has a reply: the counter's value and, where that is told, the machine.
    Replied(String, u64, String),
    /// The job has no reply; what its caller was told: the reason, and whether it may have run.
    Failed(String, String, bool),
    /// Nothing was told of the job and nothing will be: its connection is lost, for this reason.
    Lost(String, String),
    /// The caller stopped listening at its own deadline.
    GaveUp(String),
    /// The connection is lost, for this reason.
    Disconnected(String),
}

/// Writes a ledger.
pub struct Ledger(File);

impl Ledger {
    /// Makes the file.
    pub fn create(path: &Path) -> Self {
        let file = File::options().append(true).create_new(true).open(path);
        Self(file.unwrap_or_else(|error| panic!("can't make the ledger {}: {error}", path.display())))
    }

    /// Adds an event.
    pub fn note(&self, event: &Event) {
        let text = match event {
            Event::Connected => "connected".to_owned(),
            Event::Submitted(job) => format!("submitted {job}"),
            Event::Replied(job, value, machine) => format!("replied {job} {value} {machine}"),
            Event::Failed(job, reason, may_have_run) => format!("failed {job} {may_have_run} {reason}"),
            Event::Lost(job, why) => format!("lost {job} {}", why.replace('\n', " ")),
            Event::GaveUp(job) => format!("gave-up {job}"),
            Event::Disconnected(why) => format!("disconnected {}", why.replace('\n', " ")),
        };
        let line = format!("{} {text}\n", now());
        (&self.0).write_all(line.as_bytes()).expect("the temporary folder can be written");
    }
}

/// Reads a ledger. A last line that its caller had no time to finish counts as not written.
pub fn read(path: &Path) -> Vec<(Millis, Event)> {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("can't read the ledger {}: {error}", path.display()));
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| parse(line).unwrap_or_else(|| panic!("{}: {line:?} is no event", path.display())))
        .collect()
}

fn parse(line: &str) -> Option<(Millis, Event)> {
    let (time, text) = line.split_once(' ')?;
    let (kind, rest) = text.split_once(' ').unwrap_or((text, ""));
    let job = rest.to_owned();
    let event = match kind {
        "connected" => Event::Connected,
        "submitted" => Event::Submitted(job),
        "replied" => {
            let mut words = rest.splitn(3, ' ');
            Event::Replied(words.next()?.to_owned(), words.next()?.parse().ok()?, words.next()?.to_owned())
        }
        "failed" => {
            let mut words = rest.splitn(3, ' ');
            let (job, may_have_run) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
            Event::Failed(job, words.next()?.to_owned(), may_have_run)
        }
        "lost" => {
            let (job, why) = rest.split_once(' ')?;
            Event::Lost(job.to_owned(), why.to_owned())
        }
        "gave-up" => Event::GaveUp(job),
        "disconnected" => Event::Disconnected(job),
        _ => return None,
    };
    Some((time.parse().ok()?, event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::TempDir::new().expect("the temporary folder can be written");
        let path = folder.path().join("ledger");
        let job = || "unix-3.1/n/7".to_owned();
        let events = [
            Event::Connected,
            Event::Submitted(job()),
            Event::Replied(job(), 17, "hsm-a".to_owned()),
            Event::Failed(job(), "OUTCOME_UNKNOWN".to_owned(), true),
            Event::Lost(job(), "early end of file".to_owned()),
            Event::GaveUp(job()),
            Event::Disconnected("early end of file".to_owned()),
        ];
        let ledger = Ledger::create(&path);
        for event in &events {
            ledger.note(event);
        }
        (&ledger.0).write_all(b"17 subm").expect("the file can be written");
        let read: Vec<_> = read(&path).into_iter().map(|(_, event)| event).collect();
        assert_eq!(read, events);
    }
}
