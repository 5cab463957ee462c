//! What was done to a log shows, each kind of change as what it is, and what a crash does is told from it.

use zeroize::Zeroizing;

use super::super::chain::{Chain, Hash, Head, Key, MAX_LINE, sha256};
use super::super::record::{Event, Names, Record};
use super::super::verify::{MAX_FAULTS, Report, Verifier, WantedHead, Wrong, verify};

fn key(text: &str) -> Key {
    Key::new(&Zeroizing::new(text.as_bytes().to_vec())).expect("long enough")
}

/// A log that is written line by line.
struct Log {
    chain: Chain,
    lines: Vec<Vec<u8>>,
}

impl Log {
    fn new(key: Option<Key>) -> Self {
        Self { chain: Chain::from(Head::default(), key), lines: Vec::new() }
    }

    fn push(&mut self, event: Event) {
        let mut line = Vec::new();
        Record::Event(event.into()).write(&mut line, self.chain.next_sequence(), &Names::default());
        self.chain.seal(&mut line, 0);
        self.lines.push(line);
    }

    fn open(&mut self, to: &str) {
        let mut event = Event::new("opened").text("to", to);
        if self.chain.head != Head::default() {
            let Head { sequence, hash } = self.chain.head;
            event = event.number("continues_seq", sequence).hash("continues_hash", hash.0);
        }
        self.push(event);
    }

    /// One that was opened, with `count` records in all.
    fn of(count: usize, key: Option<Key>) -> Self {
        let mut log = Self::new(key);
        log.open("file");
        for number in 1..count {
            log.push(Event::new("test").number("number", number as u64));
        }
        log
    }

    fn bytes(&self) -> Vec<u8> {
        self.lines.concat()
    }
}

fn wrongs(report: &Report) -> Vec<(u64, Wrong)> {
    report.faults.iter().map(|fault| (fault.line, fault.what.clone())).collect()
}

fn changed(sequence: u64) -> Wrong {
    Wrong::Changed { sequence, maybe_key: false }
}

#[test]
fn a_whole_log_holds() {
    for key in [None, Some(key("0123456789abcdef"))] {
        let log = Log::of(20, key.clone());
        let report = verify(&log.bytes(), key);
        assert!(report.holds(), "{report:?}");
        assert_eq!((report.records, report.first, report.chains), (20, 1, 1));
        assert_eq!(report.head, Some(log.chain.head));
    }
    let report = verify(b"", None);
    assert!(!report.holds() && report.head.is_none(), "an emptied log");
}

#[test]
fn any_changed_byte_shows() {
    let log = Log::of(4, None);
    let bytes = log.bytes();
    for place in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[place] ^= 1;
        let report = verify(&bytes, None);
        // The last line's end may be missing, or garbage may stand in its place, which is an unfinished line.
        let is_last = place + 1 == bytes.len();
        assert!(!report.holds() || is_last && report.unfinished.is_some(), "byte {place}");
    }
    let mut lines = log.lines.clone();
    lines[2] = String::from_utf8(lines[2].clone()).expect("ASCII").replace("\"number\":2", "\"number\":3").into_bytes();
    assert_eq!(wrongs(&verify(&lines.concat(), None)), [(3, changed(3))], "one change is one fault");
}

#[test]
fn removed_swapped_inserted_and_repeated_lines_show_as_what_they_are() {
    let log = Log::of(8, None);
    let without = |place: usize| {
        let mut lines = log.lines.clone();
        lines.remove(place);
        wrongs(&verify(&lines.concat(), None))
    };
    assert_eq!(without(0), [(1, Wrong::NoBeginning { sequence: 2 })]);
    assert_eq!(without(3), [(4, Wrong::Missing { first: 4, last: 4 })]);
    assert_eq!(without(7), [], "the end can't be missed by the log itself");

    let mut lines = log.lines.clone();
    lines.swap(3, 4);
    let moved = |line, sequence, expected| (line, Wrong::OutOfOrder { sequence, expected });
    let swapped = wrongs(&verify(&lines.concat(), None));
    assert_eq!(
        swapped,
        [(4, Wrong::Missing { first: 4, last: 4 }), moved(5, 4, 6), (6, Wrong::Missing { first: 5, last: 5 }),]
    );

    let mut lines = log.lines.clone();
    lines.insert(3, log.lines[1].clone());
    let repeated = wrongs(&verify(&lines.concat(), None));
    assert_eq!(repeated, [moved(4, 2, 4), (5, Wrong::Missing { first: 3, last: 3 })]);

    // An inserted line with the right number and a hash that somebody has made for it.
    let mut forged = Chain::from(Head { sequence: 3, hash: Hash(sha256(b"?")) }, None);
    let mut line = b"{\"seq\":4,\"event\":\"job\"".to_vec();
    forged.seal(&mut line, 0);
    let mut lines = log.lines.clone();
    lines.insert(3, line);
    assert_eq!(wrongs(&verify(&lines.concat(), None)), [(4, changed(4)), moved(5, 4, 5)]);
}

#[test]
fn garbage_and_endless_lines_show_and_cost_no_memory() {
    let log = Log::of(3, None);
    let with = |garbage: &[u8]| {
        let bytes = [&log.lines[0], &log.lines[1], garbage, b"\n", &log.lines[2]].concat();
        wrongs(&verify(&bytes, None))
    };
    for garbage in [b"".as_slice(), b"{}", b"\0\0\xff", &vec![b'x'; MAX_LINE], &vec![b'{'; 20 * MAX_LINE]] {
        assert_eq!(with(garbage), [(3, Wrong::NotARecord)]);
    }
    let report = verify(&b"x\n".repeat(3 * MAX_FAULTS), None);
    assert_eq!(report.fault_count, 1, "what belongs together is one fault");
    let mut log = Log::of(2, None);
    for _ in 0..3 * MAX_FAULTS {
        log.lines.push(b"x\n".to_vec());
        log.push(Event::new("test"));
    }
    let report = verify(&log.bytes(), None);
    assert_eq!((report.faults.len(), report.fault_count), (MAX_FAULTS, 3 * MAX_FAULTS as u64));
    // The largest number there is.
    for sequence in [u64::MAX, u64::MAX - 1] {
        let hash = "0".repeat(64);
        let line = format!("{{\"seq\":{sequence},\"x\":1,\"hash\":\"{hash}\"}}\n");
        assert!(!verify(line.repeat(3).as_bytes(), None).holds());
    }
}

#[test]
fn a_cut_line_at_the_end_is_unfinished_and_no_forgery() {
    let log = Log::of(3, None);
    let bytes = log.bytes();
    let before_last = bytes.len() - log.lines[2].len();
    for end in before_last..bytes.len() {
        let report = verify(&bytes[..end], None);
        assert!(report.holds(), "cut after {end}: {report:?}");
        // Where only the line's end is missing the record is whole.
        let is_whole = end + 1 == bytes.len();
        assert_eq!(report.records, if is_whole { 3 } else { 2 });
        assert_eq!(report.unfinished.is_some(), !is_whole && end > before_last);
    }
}

#[test]
fn what_a_gateway_found_torn_is_told_from_what_somebody_put_there() {
    let torn = b"{\"seq\":4,\"time\":\"2026-";
    let mut log = Log::of(3, None);
    let Head { sequence, hash } = log.chain.head;
    let opened = |torn: &[u8]| {
        let event = Event::new("opened").text("to", "file").number("continues_seq", sequence);
        let event = event.hash("continues_hash", hash.0).number("torn_bytes", torn.len() as u64);
        event.hash("torn_sha256", sha256(torn))
    };
    log.lines.push([torn.as_slice(), b"\n"].concat());
    log.push(opened(torn));
    log.push(Event::new("test"));
    let report = verify(&log.bytes(), None);
    assert!(report.holds(), "{report:?}");
    assert_eq!((report.torn, report.records), (1, 5));

    let without = [&log.lines[..3], &log.lines[4..]].concat();
    assert_eq!(wrongs(&verify(&without.concat(), None)), [(4, Wrong::TornRemoved)]);
    let mut other = log.lines.clone();
    other[3] = b"{\"seq\":4,\"time\":\"2027-\n".to_vec();
    assert_eq!(wrongs(&verify(&other.concat(), None)), [(4, Wrong::TornRemoved)]);

    // As a gateway leaves it that was killed twice, once while it wrote no more than a line's end; and a very long one.
    for torn in [b"{\"seq\":4\n".to_vec(), b"\n\n".to_vec(), vec![0; 3 * MAX_LINE]] {
        let mut log = Log::of(3, None);
        let Head { sequence, hash } = log.chain.head;
        log.lines.push([&torn, b"\n".as_slice()].concat());
        let event = Event::new("opened").number("continues_seq", sequence).hash("continues_hash", hash.0);
        log.push(event.number("torn_bytes", torn.len() as u64).hash("torn_sha256", sha256(&torn)));
        let report = verify(&log.bytes(), None);
        assert!(report.holds() && report.torn == 1, "{torn:?}: {report:?}");
    }
}

#[test]
fn the_chain_goes_on_from_file_to_file() {
    let mut log = Log::of(3, None);
    log.open("file");
    log.push(Event::new("test"));
    log.open("file");
    let files = [log.lines[..3].concat(), log.lines[3..5].concat(), log.lines[5..].concat()];
    let of = |order: &[usize]| {
        let mut verifier = Verifier::new(None, None);
        for file in order {
            verifier.file(&format!("file {file}"), files[*file].as_slice()).expect("memory");
        }
        verifier.finish()
    };
    let report = of(&[0, 1, 2]);
    assert!(report.holds() && report.records == 6, "{report:?}");
    let report = of(&[1, 2]);
    assert!(report.holds(), "{report:?}");
    assert_eq!(report.goes_on_from.map(|head| head.sequence), Some(3), "what is not there is said");
    let report = of(&[0, 2]);
    assert_eq!(report.faults[0].file, "file 2");
    assert_eq!(wrongs(&report), [(1, Wrong::Elsewhere { claimed: 5, found: 3 })]);
    assert!(!of(&[1, 0, 2]).holds());
    assert!(!of(&[0, 0, 1, 2]).holds());
}

#[test]
fn a_chain_that_begins_anew_is_a_fault_in_files_and_said_for_servers() {
    let two = |to: &str| {
        let mut first = Log::new(None);
        first.open(to);
        let mut second = Log::new(None);
        second.open(to);
        second.push(Event::new("test"));
        verify(&[first.bytes(), second.bytes()].concat(), None)
    };
    let report = two("file");
    assert_eq!(wrongs(&report), [(2, Wrong::NewChain)]);
    let report = two("journald");
    assert!(report.holds() && report.chains == 2, "{report:?}");
}

#[test]
fn a_head_that_was_kept_shows_a_cut_end_and_a_log_made_anew() {
    let mut log = Log::of(5, None);
    let kept = log.chain.head;
    log.push(Event::new("test"));
    let with = |bytes: &[u8], sequence, hash| {
        let mut verifier = Verifier::new(None, Some(WantedHead { sequence, hash }));
        verifier.file("log", bytes).expect("memory");
        let report = verifier.finish();
        (report.has_head, report.holds())
    };
    let whole = log.bytes();
    let cut = log.lines[..4].concat();
    assert_eq!(with(&whole, Some(5), kept.hash), (Some(true), true));
    assert_eq!(with(&whole, None, kept.hash), (Some(true), true));
    assert_eq!(with(&whole, Some(4), kept.hash), (Some(false), false));
    assert_eq!(with(&cut, None, kept.hash), (Some(false), false), "the end is cut off");
    let anew = Log::of(6, None);
    assert!(verify(&anew.bytes(), None).holds(), "without a head and a key nothing speaks against it");
    assert_eq!(with(&anew.bytes(), None, kept.hash), (Some(false), false));
}

#[test]
fn with_a_key_nobody_else_makes_a_log() {
    let ours = key("0123456789abcdef");
    let log = Log::of(3, Some(ours.clone()));
    let report = verify(&log.bytes(), None);
    assert_eq!(report.fault_count, 3, "{report:?}");
    let report = verify(&log.bytes(), Some(key("another key, as long")));
    assert_eq!(report.faults[0].what, Wrong::Changed { sequence: 1, maybe_key: true });
    let anew = Log::of(3, None);
    assert!(!verify(&anew.bytes(), Some(ours)).holds(), "a log without a key is none of ours");
}

#[test]
fn any_bytes_will_do() {
    use proptest::prelude::*;
    let log = Log::of(6, None).bytes();
    let mutated = (0..log.len(), 0..log.len(), proptest::collection::vec(any::<u8>(), 0..40), any::<bool>());
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) }, |((from, to, bytes, ours) in mutated)| {
        let (from, to) = (from.min(to), from.max(to));
        let mut input = log.clone();
        input.splice(from..to, if ours { log[from..to].iter().rev().copied().collect() } else { bytes });
        let report = verify(&input, None);
        prop_assert!(report.records <= 6 && report.faults.len() as u64 <= report.fault_count);
    });
}
