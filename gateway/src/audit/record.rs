//! What is recorded, and the line that it becomes.
//!
//! Shards make a [`JobRecord`] of each job's end: of one size, without an allocation. Everything that is rare is an [`Event`].
//! The audit log's thread makes lines of both.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::json::{write_flag, write_hex, write_number, write_text, write_time};
use crate::access::{Identity, Means};
use crate::config::Config;

/// What of a text that somebody else has chosen goes into a record, in bytes.
pub const MAX_TEXT: usize = 256;

/// Microseconds since 1970.
pub(super) type Micros = u64;

/// The time now.
pub(super) fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The front end by which somebody came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// gRPC.
    Grpc,
    /// The hardserver front end, over TCP.
    HardserverTcp,
    /// The hardserver front end, over a Unix socket.
    HardserverUnix,
    /// The hardserver front end, over TLS.
    HardserverTls,
    /// `listen.admin`.
    Admin,
    /// `listen.management`.
    Management,
}

impl ListenerKind {
    /// Its name, for programs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HardserverTcp => "hardserver_tcp",
            Self::HardserverUnix => "hardserver_unix",
            Self::HardserverTls => "hardserver_tls",
            Self::Admin => "admin",
            Self::Management => "management",
        }
    }
}

/// Who does something, by which front end, and from where. Made once for each caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    identity: Identity,
    listener: ListenerKind,
    /// The other end's address, or its process.
    from: Option<Text>,
}

impl Actor {
    /// `from` is the other end's address, where it has one.
    pub fn new(identity: Identity, listener: ListenerKind, from: Option<&str>) -> Self {
        Self { identity, listener, from: from.map(Text::new) }
    }

    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The front end that it came by, as records have it.
    pub fn listener(&self) -> &'static str {
        self.listener.label()
    }

    /// The other end: its address, or its process.
    pub fn from(&self) -> Option<&str> {
        self.from.as_ref().map(|from| &*from.text)
    }

    /// How it showed who it is, as records have it.
    pub fn by(&self) -> &'static str {
        means_label(self.identity.means())
    }

    /// The same front end and the same other end, and somebody else: who sent a token with a call.
    #[must_use]
    pub fn with_identity(&self, identity: Identity) -> Self {
        Self { identity, ..self.clone() }
    }

    fn write(&self, line: &mut Line<'_>) {
        line.text("who", self.identity.name());
        line.plain("by", self.by());
        line.plain("listener", self.listener());
        if let Some(from) = &self.from {
            line.cut_text("from", from);
        }
    }
}

fn means_label(means: Means) -> &'static str {
    match means {
        Means::Anonymous => "anonymous",
        Means::Certificate => "certificate",
        Means::Token => "token",
        Means::UnixUser => "unix_user",
    }
}

/// A text that somebody else has chosen, at most [`MAX_TEXT`] bytes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    text: Box<str>,
    /// How long it was, where it was longer.
    whole_bytes: Option<usize>,
}

impl Text {
    pub(super) fn new(text: &str) -> Self {
        let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        Self { text: text[..end].into(), whole_bytes: (end < text.len()).then_some(text.len()) }
    }
}

/// A job's end.
#[derive(Clone, Debug)]
pub(super) struct JobRecord {
    pub(super) at: Micros,
    pub(super) actor: Arc<Actor>,
    /// The caller's number, which no other caller of this gateway's has had since it started.
    pub(super) caller: u64,
    /// The caller's own name for the job.
    pub(super) ticket: u64,
    /// Positions in the configuration.
    pub(super) world: usize,
    pub(super) machine: Option<usize>,
    pub(super) job_bytes: usize,
    pub(super) reply_bytes: usize,
    /// The outcome's row, or `abandoned`.
    pub(super) outcome: &'static str,
    pub(super) reason: &'static str,
    /// The machine's own status, where it has one.
    pub(super) status: Option<u32>,
    pub(super) may_have_run: bool,
    pub(super) queue_micros: u64,
    pub(super) machine_micros: u64,
    pub(super) digest: Option<[u8; 32]>,
}

/// Something else than a job's end: rare, so that it may allocate.
#[derive(Clone, Debug)]
pub struct Event {
    pub(super) at: Micros,
    name: &'static str,
    actor: Option<Arc<Actor>>,
    fields: Vec<(&'static str, Field)>,
}

#[derive(Clone, Debug)]
enum Field {
    Text(Text),
    Number(u64),
    Flag(bool),
    /// Bytes, as hexadecimal digits.
    Bytes([u8; 32]),
}

impl Event {
    /// One that happens now. Names are of this program, never of a caller.
    pub fn new(name: &'static str) -> Self {
        Self { at: now(), name, actor: None, fields: Vec::new() }
    }

    /// Who did it.
    #[must_use]
    pub fn by(mut self, actor: &Arc<Actor>) -> Self {
        self.actor = Some(actor.clone());
        self
    }

    /// A text, cut after [`MAX_TEXT`] bytes; then `KEY_bytes` says how long it was.
    #[must_use]
    pub fn text(mut self, key: &'static str, text: &str) -> Self {
        self.fields.push((key, Field::Text(Text::new(text))));
        self
    }

    /// A number.
    #[must_use]
    pub fn number(mut self, key: &'static str, number: u64) -> Self {
        self.fields.push((key, Field::Number(number)));
        self
    }

    /// Yes or no.
    #[must_use]
    pub fn flag(mut self, key: &'static str, flag: bool) -> Self {
        self.fields.push((key, Field::Flag(flag)));
        self
    }

    /// A hash.
    #[must_use]
    pub(super) fn hash(mut self, key: &'static str, hash: [u8; 32]) -> Self {
        self.fields.push((key, Field::Bytes(hash)));
        self
    }
}

/// What a shard hands to the audit log's thread.
#[derive(Clone, Debug)]
pub(super) enum Record {
    Job(JobRecord),
    Event(Box<Event>),
}

/// The names of worlds and machines, by their positions in the configuration. A position never means another name, so that it does
/// not matter when a record is written.
#[derive(Debug, Default)]
pub(super) struct Names {
    worlds: Vec<Box<str>>,
    machines: Vec<Box<str>>,
}

impl Names {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            worlds: config.worlds.iter().map(|world| world.name.as_str().into()).collect(),
            machines: config.machines.iter().map(|machine| machine.name.as_str().into()).collect(),
        }
    }
}

impl Record {
    pub(super) fn at(&self) -> Micros {
        match self {
            Self::Job(job) => job.at,
            Self::Event(event) => event.at,
        }
    }

    /// Appends the record's line, without what seals it: `{"seq":1,…`.
    pub(super) fn write(&self, out: &mut Vec<u8>, sequence: u64, names: &Names) {
        match self {
            Self::Job(job) => job.write(out, sequence, names),
            Self::Event(event) => event.write(out, sequence),
        }
    }
}

impl JobRecord {
    fn write(&self, out: &mut Vec<u8>, sequence: u64, names: &Names) {
        let mut line = Line::begin(out, sequence, self.at, "job");
        self.actor.write(&mut line);
        line.number("caller", self.caller);
        line.number("ticket", self.ticket);
        line.text("world", names.worlds.get(self.world).map_or("", |name| name));
        if let Some(machine) = self.machine {
            line.text("machine", names.machines.get(machine).map_or("", |name| name));
        }
        line.number("job_bytes", self.job_bytes as u64);
        line.number("reply_bytes", self.reply_bytes as u64);
        line.plain("outcome", self.outcome);
        line.plain("reason", self.reason);
        if let Some(status) = self.status {
            line.number("status", status.into());
        }
        line.flag("may_have_run", self.may_have_run);
        line.number("queue_us", self.queue_micros);
        line.number("machine_us", self.machine_micros);
        if let Some(digest) = &self.digest {
            line.hex("job_sha256", digest);
        }
    }
}

impl Event {
    pub(super) fn write(&self, out: &mut Vec<u8>, sequence: u64) {
        let mut line = Line::begin(out, sequence, self.at, self.name);
        if let Some(actor) = &self.actor {
            actor.write(&mut line);
        }
        for (key, field) in &self.fields {
            match field {
                Field::Text(text) => line.cut_text(key, text),
                Field::Number(number) => line.number(key, *number),
                Field::Flag(flag) => line.flag(key, *flag),
                Field::Bytes(bytes) => line.hex(key, bytes),
            }
        }
    }
}

/// A line that is being written.
struct Line<'o>(&'o mut Vec<u8>);

impl<'o> Line<'o> {
    fn begin(out: &'o mut Vec<u8>, sequence: u64, at: Micros, event: &'static str) -> Self {
        out.extend(b"{\"seq\":");
        write_number(out, sequence);
        out.extend(b",\"time\":\"");
        write_time(out, at);
        out.push(b'"');
        let mut line = Self(out);
        line.plain("event", event);
        line
    }

    fn key(&mut self, key: &str, suffix: &str) {
        self.0.extend(b",\"");
        self.0.extend(key.as_bytes());
        self.0.extend(suffix.as_bytes());
        self.0.extend(b"\":");
    }

    /// A word of this program's, which needs no escaping.
    fn plain(&mut self, key: &str, word: &'static str) {
        self.key(key, "");
        self.0.push(b'"');
        self.0.extend(word.as_bytes());
        self.0.push(b'"');
    }

    fn text(&mut self, key: &str, text: &str) {
        if text.len() > MAX_TEXT {
            return self.cut_text(key, &Text::new(text));
        }
        self.key(key, "");
        write_text(self.0, text);
    }

    fn cut_text(&mut self, key: &str, text: &Text) {
        self.key(key, "");
        write_text(self.0, &text.text);
        if let Some(bytes) = text.whole_bytes {
            self.key(key, "_bytes");
            write_number(self.0, bytes as u64);
        }
    }

    fn number(&mut self, key: &str, number: u64) {
        self.key(key, "");
        write_number(self.0, number);
    }

    fn flag(&mut self, key: &str, flag: bool) {
        self.key(key, "");
        write_flag(self.0, flag);
    }

    fn hex(&mut self, key: &str, bytes: &[u8]) {
        self.key(key, "");
        self.0.push(b'"');
        write_hex(self.0, bytes);
        self.0.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(record: &Record) -> serde_json::Value {
        let names = Names { worlds: vec!["w".into()], machines: vec!["m0".into(), "m1".into()] };
        let mut line = Vec::new();
        record.write(&mut line, 7, &names);
        line.push(b'}');
        serde_json::from_slice(&line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&line)))
    }

    #[test]
    fn a_jobs_record_says_who_where_when_how_large_and_what_became_of_it() {
        let identity = Identity::new("spiffe://bank/payments", vec!["ops".into()], Means::Certificate);
        let record = JobRecord {
            at: 1_795_667_230_123_456,
            actor: Arc::new(Actor::new(identity, ListenerKind::Grpc, Some("127.0.0.1:4242"))),
            caller: 3,
            ticket: 9,
            world: 0,
            machine: Some(1),
            job_bytes: 32,
            reply_bytes: 64,
            outcome: "replied",
            reason: "",
            status: None,
            may_have_run: true,
            queue_micros: 0,
            machine_micros: 812,
            digest: Some([0xab; 32]),
        };
        let expected = serde_json::json!({
            "seq": 7, "time": "2026-11-26T04:27:10.123456Z", "event": "job", "who": "spiffe://bank/payments", "by": "certificate",
            "listener": "grpc", "from": "127.0.0.1:4242", "caller": 3, "ticket": 9, "world": "w", "machine": "m1",
            "job_bytes": 32, "reply_bytes": 64, "outcome": "replied", "reason": "", "may_have_run": true, "queue_us": 0,
            "machine_us": 812, "job_sha256": "ab".repeat(32),
        });
        assert_eq!(parsed(&Record::Job(record)), expected);
    }

    #[test]
    fn a_name_can_neither_forge_a_field_nor_be_endless() {
        let forged = "x\",\"outcome\":\"replied\"}\n{\"seq\":8";
        let event = |name: &str| {
            let identity = Identity::new(name, Vec::new(), Means::Token);
            let actor = Arc::new(Actor::new(identity, ListenerKind::Grpc, None));
            parsed(&Record::Event(Event::new("refused").by(&actor).text("world", name).into()))
        };
        let seen = event(forged);
        assert_eq!((seen["who"].as_str(), seen["world"].as_str()), (Some(forged), Some(forged)));
        assert!(seen.get("outcome").is_none());

        let at_limit = "n".repeat(MAX_TEXT);
        let seen = event(&at_limit);
        assert_eq!(seen["who"].as_str(), Some(at_limit.as_str()));
        assert!(seen.get("who_bytes").is_none() && seen.get("world_bytes").is_none());
        let past_it = format!("{}é", "n".repeat(MAX_TEXT - 1));
        let seen = event(&past_it);
        assert_eq!(seen["who"].as_str(), Some("n".repeat(MAX_TEXT - 1).as_str()));
        assert_eq!((seen["who_bytes"].as_u64(), seen["world_bytes"].as_u64()), (Some(257), Some(257)));
    }
}
