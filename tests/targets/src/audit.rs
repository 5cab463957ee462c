//! The reader of audit logs: any bytes are read to a report; a log that was written holds, and what is done to it shows.
//!
//! The first byte says whether the rest is a log as it stands or the content of records that are sealed here first, and whether there is
//! a key.

use std::io::BufReader;

use aws_lc_rs::{digest, hmac};
use seeway::audit::{Key, MAX_FAULTS, Report, Verifier, verify};
use zeroize::Zeroizing;

use crate::Script;
use crate::seeds::{Seeds, seed};

const KEY: &[u8] = b"a key of the test, 32 bytes long";

/// Records at most, and the most bytes of content in one.
const MOST_RECORDS: usize = 40;
const MOST_CONTENT: usize = 2000;

/// What begins the content of records that say how the log goes on.
const OPENED: &[u8] = b",\"event\":\"opened\"";

/// Reads a log.
pub fn run(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mode = script.below(4);
    let has_key = mode & 1 == 1;
    if mode < 2 {
        let log = script.rest();
        let report = verify(log, key(has_key));
        is_sound(&report, log);
        for capacity in [1, 7, 64] {
            let mut verifier = Verifier::new(key(has_key), None);
            verifier.file("log", BufReader::with_capacity(capacity, log)).expect("memory can be read");
            assert_eq!(verifier.finish(), report, "pieces of {capacity} bytes make a difference");
        }
    } else {
        let (how, at) = (script.below(4), script.below(256));
        sealed(has_key, how, at, script.rest());
    }
}

fn key(has_key: bool) -> Option<Key> {
    has_key.then(|| Key::new(&Zeroizing::new(KEY.to_vec())).expect("long enough"))
}

fn is_sound(report: &Report, log: &[u8]) {
    assert!(report.records <= log.split(|byte| *byte == b'\n').count() as u64);
    assert_eq!(report.faults.len() as u64, report.fault_count.min(MAX_FAULTS as u64));
    assert_eq!(report.head.is_some(), report.records > 0);
    assert!(!report.holds() || report.fault_count == 0);
    for fault in &report.faults {
        assert!(!fault.to_string().is_empty());
    }
}

/// Writes a log with this content, reads it, does something to it, and reads it again.
fn sealed(has_key: bool, how: usize, at: usize, content: &[u8]) {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut before = [0; 32];
    let first: &[u8] = b",\"event\":\"opened\",\"to\":\"file\"";
    for text in [first].into_iter().chain(content.split(|byte| *byte == b'\n')).take(MOST_RECORDS) {
        let is_about_files = !lines.is_empty() && text.windows(OPENED.len()).any(|window| window == OPENED);
        if is_about_files || text.len() > MOST_CONTENT {
            return;
        }
        // The number ends where the content begins.
        let comma: &[u8] = if text.first().is_none_or(u8::is_ascii_digit) { b"," } else { b"" };
        let body = [format!("{{\"seq\":{}", lines.len() + 1).as_bytes(), comma, text].concat();
        before = hash(has_key, before, &body);
        let digits = hex(&before);
        lines.push([&body[..], b",\"hash\":\"", digits.as_bytes(), b"\"}\n"].concat());
    }
    let count = lines.len() as u64;
    let report = verify(&lines.concat(), key(has_key));
    assert!(report.holds(), "what was written holds: {report:?}");
    assert_eq!((report.records, report.head.map(|head| head.sequence)), (count, Some(count)));
    assert_eq!(report.head.map(|head| head.hash.0), Some(before));
    assert!(!verify(&lines.concat(), key(!has_key)).holds(), "another key, or none, does not do");
    // The log's end can not be missed by the log itself: the last line stays.
    let place = at % lines.len();
    if place + 1 == lines.len() {
        return;
    }
    match how {
        0 => {
            lines.remove(place);
        }
        1 => lines.swap(place, place + 1),
        2 => {
            let byte = at * 31 % lines[place].len();
            lines[place][byte] ^= 1;
        }
        _ => {
            let again = lines[place].clone();
            lines.insert(place + 1, again);
        }
    }
    let report = verify(&lines.concat(), key(has_key));
    assert!(!report.holds(), "what was done to line {place} does not show: {report:?}");
    is_sound(&report, &lines.concat());
}

fn hash(has_key: bool, before: [u8; 32], body: &[u8]) -> [u8; 32] {
    let content = [&before[..], body].concat();
    let hash = if has_key {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), &content).as_ref().to_vec()
    } else {
        digest::digest(&digest::SHA256, &content).as_ref().to_vec()
    };
    hash.try_into().expect("SHA-256 has 32 bytes")
}

/// Logs that hold, that were cut, and contents of records.
pub fn seeds() -> Seeds {
    let records = ",\"event\":\"job\",\"caller\":\"user:alice\",\"world\":\"signer\",\"bytes\":120,\"outcome\":\"replied\"\n\
                   ,\"event\":\"refused\",\"caller\":\"anonymous\",\"reason\":\"NO_SUCH_WORLD\"\n\
                   ,\"event\":\"reload\"";
    let log = |has_key| {
        let mut log = Vec::new();
        let mut before = [0; 32];
        for (number, text) in [",\"event\":\"opened\",\"to\":\"file\""].into_iter().chain(records.lines()).enumerate() {
            let body = format!("{{\"seq\":{}{text}", number + 1);
            before = hash(has_key, before, body.as_bytes());
            let digits = hex(&before);
            log.extend(format!("{body},\"hash\":\"{digits}\"}}\n").into_bytes());
        }
        log
    };
    let with = |head: &[u8], rest: &[u8]| [head, rest].concat();
    let whole = log(false);
    let half = whole.len() / 2;
    vec![
        seed("whole", with(&[0], &whole)),
        seed("with-a-key", with(&[1], &log(true))),
        seed("cut", with(&[0], &whole[..whole.len() - 20])),
        seed("torn", with(&[0], &[&whole[..half], b"\n", &whole[half..]].concat())),
        seed("twice", with(&[0], &[&whole[..], &whole].concat())),
        seed("without-its-beginning", with(&[0], whole.splitn(2, |byte| *byte == b'\n').nth(1).expect("lines"))),
        seed("no-lines", with(&[0], b"\n\n{\"seq\":0}\n{\"seq\":1,\"hash\":\"\"}\n")),
        seed("removed", with(&[2, 0, 1], records.as_bytes())),
        seed("swapped", with(&[2, 1, 1], records.as_bytes())),
        seed("changed", with(&[3, 2, 2], records.as_bytes())),
        seed("repeated", with(&[3, 3, 0], records.as_bytes())),
    ]
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
