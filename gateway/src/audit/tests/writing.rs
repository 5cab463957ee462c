//! The thread, its buffer and its sinks, with real files, devices and sockets.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::buffer::Buffer;
use super::super::record::{JobRecord, Names, Record, now};
use super::super::sink::Target;
use super::super::verify::{Report, Verifier};
use super::super::{Actor, Audit, AuditError, Event, ListenerKind, Settings, WhenFull};
use crate::access::Identity;

/// For what takes milliseconds on an idle computer.
const BOUND: Duration = Duration::from_secs(20);

fn settings(to: Target) -> Settings {
    Settings {
        to,
        when_full: WhenFull::Stop,
        must_sync: true,
        buffer: 1000,
        job_digest: false,
        rotate_bytes: 0,
        key: None,
        key_file: None,
    }
}

fn start(settings: &Settings) -> Audit {
    Audit::start_with(settings, 1, Names::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn job(number: u64) -> Record {
    let actor = Arc::new(Actor::new(Identity::anonymous(), ListenerKind::Grpc, None));
    Record::Job(JobRecord {
        at: now(),
        actor,
        caller: 1,
        ticket: number,
        world: 0,
        machine: None,
        job_bytes: 8,
        reply_bytes: 8,
        outcome: "replied",
        reason: "",
        status: None,
        may_have_run: true,
        queue_micros: 0,
        machine_micros: 0,
        digest: None,
    })
}

/// As a shard hands over so many jobs' records.
fn push(buffer: &Buffer, count: u64) {
    buffer.push(0, &mut (0..count).map(job).collect());
}

fn verified(files: &[&Path]) -> Report {
    let mut verifier = Verifier::new(None, None);
    for file in files {
        let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        verifier.file(&file.display().to_string(), bytes.as_slice()).expect("memory");
    }
    verifier.finish()
}

fn records(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn of_event<'r>(records: &'r [serde_json::Value], event: &str) -> Vec<&'r serde_json::Value> {
    records.iter().filter(|record| record["event"] == event).collect()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[test]
fn a_log_goes_on_where_the_one_before_ended_whole_or_torn() {
    let folder = Folder::new();
    let path = folder.path("log");
    let settings = settings(Target::File(path.clone()));
    for _ in 0..2 {
        let audit = start(&settings);
        push(&audit.buffer, 10);
        audit.end();
        let status = audit.status();
        assert_eq!((status.waiting, status.dropped, status.written), (0, 0, 13));
        assert_eq!(verified(&[&path]).head, Some(status.head));
    }
    let before = std::fs::read(&path).expect("there");
    // As a process leaves it that is killed.
    std::fs::write(&path, &before[..before.len() - 7]).expect("written");
    let audit = start(&settings);
    push(&audit.buffer, 1);
    drop(audit);
    let report = verified(&[&path]);
    assert!(report.holds() && report.torn == 1, "{report:?}");
    assert_eq!(report.records, 25 + 4, "the torn one is none");
    let records = records(&path);
    assert_eq!(of_event(&records, "opened").len(), 3);
    assert_eq!(of_event(&records, "gateway_stopped").len(), 2, "the torn one was the second's");
}

#[test]
fn a_file_that_was_moved_away_is_closed_and_the_chain_goes_on_in_the_next() {
    let folder = Folder::new();
    let (path, moved) = (folder.path("log"), folder.path("log.1"));
    let audit = start(&settings(Target::File(path.clone())));
    push(&audit.buffer, 5);
    until("they are written", || audit.status().waiting == 0);
    std::fs::rename(&path, &moved).expect("moved");
    push(&audit.buffer, 5);
    until("they are written", || audit.status().waiting == 0);
    assert!(!path.exists(), "nobody has asked for another file yet");
    audit.reopen();
    until("there is another file", || path.exists());
    push(&audit.buffer, 5);
    drop(audit);
    let report = verified(&[&moved, &path]);
    assert!(report.holds(), "{report:?}");
    assert_eq!(report.records, 2 + 5 + 5 + 1 + 5 + 1);
    let report = verified(&[&path]);
    assert_eq!(report.goes_on_from.map(|head| head.sequence), Some(12));
}

#[test]
fn a_large_file_is_rotated_and_all_files_are_one_chain() {
    let folder = Folder::new();
    let path = folder.path("log");
    let audit = start(&Settings { rotate_bytes: 4000, ..settings(Target::File(path.clone())) });
    for _ in 0..10 {
        push(&audit.buffer, 20);
        until("they are written", || audit.status().waiting == 0);
    }
    drop(audit);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder.0.path()).expect("a folder").map(|file| file.expect("one").path()).collect();
    files.sort();
    // The one without a number sorts first, and is the last.
    files.rotate_left(1);
    assert!(files.len() > 5, "{files:?}");
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let report = verified(&files);
    assert!(report.holds() && report.goes_on_from.is_none(), "{report:?}");
    assert_eq!(report.records, 200 + 2 + files.len() as u64);
}

#[test]
fn a_full_disk_stops_jobs_and_keeps_the_records_of_those_in_hand() {
    let settings = Settings { buffer: 10, ..settings(Target::File("/dev/full".into())) };
    let audit = start(&settings);
    until("it is noticed", || audit.status().is_failing);
    assert!(audit.status().refuses_jobs && audit.status().failures > 0);
    // Jobs that were in hand, beyond what the buffer holds, and what is no job.
    push(&audit.buffer, 15);
    for _ in 0..5 {
        audit.event(Event::new("refused"));
    }
    let status = audit.status();
    assert_eq!((status.waiting, status.dropped), (1 + 15, 5));
    let begun = Instant::now();
    drop(audit);
    assert!(begun.elapsed() < BOUND / 2, "a disk that is full does not keep the gateway from ending");
}

#[test]
fn a_full_disk_drops_what_there_is_no_room_for_and_no_more() {
    let settings = Settings { buffer: 10, when_full: WhenFull::Drop, ..settings(Target::File("/dev/full".into())) };
    let audit = start(&settings);
    until("it is noticed", || audit.status().is_failing);
    assert!(!audit.status().refuses_jobs);
    assert_eq!(audit.status().waiting, 1, "the gateway's start");
    push(&audit.buffer, 9);
    assert_eq!((audit.status().waiting, audit.status().dropped), (10, 0), "at the limit");
    push(&audit.buffer, 1);
    assert_eq!((audit.status().waiting, audit.status().dropped), (10, 1), "one past it");
    push(&audit.buffer, 100);
    assert_eq!((audit.status().waiting, audit.status().dropped), (10, 101));
}

#[test]
fn a_server_that_comes_back_gets_what_waited_and_how_much_was_lost() {
    let folder = Folder::new();
    for (kind, target) in
        [("journald", Target::Journald as fn(PathBuf) -> Target), ("syslog", Target::Syslog as fn(PathBuf) -> Target)]
    {
        let path = folder.path(kind);
        let server = UnixDatagram::bind(&path).expect("bound");
        server.set_read_timeout(Some(BOUND)).expect("set");
        let audit = start(&Settings { buffer: 10, when_full: WhenFull::Drop, ..settings(target(path.clone())) });
        let mut lines = Vec::new();
        let mut receive = |server: &UnixDatagram| {
            let mut datagram = [0; 8192];
            let count = server.recv(&mut datagram).unwrap_or_else(|error| panic!("{kind}: {error}"));
            let text = String::from_utf8(datagram[..count].to_vec()).expect("ASCII");
            let (_, line) = text.split_once("MESSAGE=").or_else(|| text.split_once(" audit - ")).expect("a message");
            let line = line.trim_end().to_owned();
            let record: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            lines.push(line);
            record
        };
        assert_eq!(receive(&server)["event"], "opened");
        assert_eq!(receive(&server)["event"], "gateway_started");
        // It goes away.
        drop(server);
        std::fs::remove_file(&path).expect("removed");
        push(&audit.buffer, 1);
        until("it is noticed", || audit.status().is_failing);
        push(&audit.buffer, 12);
        assert_eq!(audit.status().dropped, 3);
        let server = UnixDatagram::bind(&path).expect("bound");
        server.set_read_timeout(Some(BOUND)).expect("set");
        for _ in 0..10 {
            assert_eq!(receive(&server)["event"], "job");
        }
        let gap = receive(&server);
        assert_eq!((&gap["event"], &gap["records_dropped_of_jobs"]), (&"unrecorded".into(), &3.into()));
        assert!(gap["error"].as_str().is_some_and(|error| !error.is_empty()));
        until("all is well", || !audit.status().is_failing);
        drop(audit);
        assert_eq!(receive(&server)["event"], "gateway_stopped");
        let mut verifier = Verifier::new(None, None);
        verifier.file(kind, lines.join("\n").as_bytes()).expect("memory");
        let report = verifier.finish();
        assert!(report.holds() && report.records == 14, "{report:?}");
    }
}

#[test]
fn a_server_that_takes_nothing_does_not_hang_the_gateway() {
    let folder = Folder::new();
    let path = folder.path("socket");
    // It reads nothing: the kernel takes a few datagrams, and then no more.
    let _server = UnixDatagram::bind(&path).expect("bound");
    let audit = start(&Settings { buffer: 100_000, ..settings(Target::Syslog(path)) });
    push(&audit.buffer, 50_000);
    until("it is noticed", || audit.status().is_failing);
    assert!(audit.status().refuses_jobs);
    let begun = Instant::now();
    drop(audit);
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
}

#[test]
fn what_can_not_be_opened_is_said_with_its_name() {
    let folder = Folder::new();
    let failure =
        |to: Target| Audit::start_with(&settings(to), 1, Names::default()).err().map(|error| error.to_string());
    let none = failure(Target::Journald(folder.path("none"))).expect("an error");
    assert!(none.contains("journald:") && none.contains("none") && none.contains("audit.to"), "{none}");
    let missing = failure(Target::File(folder.path("no/log"))).expect("an error");
    assert!(missing.contains("no/log"), "{missing}");
    let running = start(&settings(Target::File(folder.path("log"))));
    let twice = Audit::start_with(&settings(Target::File(folder.path("log"))), 1, Names::default());
    assert!(matches!(twice, Err(AuditError::InUse(_))));
    drop(running);
}

#[test]
fn a_flood_of_connections_is_no_flood_of_records() {
    let folder = Folder::new();
    let path = folder.path("log");
    let audit = start(&settings(Target::File(path.clone())));
    for _ in 0..5000 {
        audit.refused_caller();
    }
    until("they are told of", || !of_event(&records(&path), "callers_refused").is_empty());
    drop(audit);
    let records = records(&path);
    let told: Vec<u64> =
        of_event(&records, "callers_refused").iter().filter_map(|record| record["connections"].as_u64()).collect();
    assert!(told.len() <= 2 && told.iter().sum::<u64>() == 5000, "{told:?}");
}
