//! Writes JSON in ASCII, so that a record is one line whatever a caller calls itself, in every pager, journal and syslog server.
//!
//! Used by [`super::record`] alone. What reads it back is `serde_json`.

use std::io::Write as _;

use time::OffsetDateTime;

/// Appends text as a JSON string: everything but printable ASCII is escaped.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend([b'\\', letter as u8]),
            ' '..='~' => out.push(letter as u8),
            _ => {
                let mut halves = [0; 2];
                for half in letter.encode_utf16(&mut halves) {
                    out.extend(b"\\u");
                    write_hex(out, &half.to_be_bytes());
                }
            }
        }
    }
    out.push(b'"');
}

/// Appends a whole number.
pub(super) fn write_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend(&digits[first..]);
}

/// Appends `true` or `false`.
pub(super) fn write_flag(out: &mut Vec<u8>, flag: bool) {
    out.extend(if flag { b"true".as_slice() } else { b"false" });
}

/// Appends bytes as lower-case hexadecimal digits.
pub(super) fn write_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// Appends a time, in microseconds since 1970, as RFC 3339 has it: `2026-11-26T04:20:43.000123Z`.
pub(super) fn write_time(out: &mut Vec<u8>, micros: u64) {
    // A clock that is past the year 9999 is wrong, and no reason to lose a record.
    let nanoseconds = i128::from(micros) * 1_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (hour, minute, second, micros) = at.time().as_hms_micro();
    // Writing to a vector does not fail.
    let _ = write!(out, "{}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z", at.date());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn any_text_is_one_line_of_ascii_and_comes_back() {
        let all: String =
            (0..=0x02ff_u32).chain([0x2028, 0x202e, 0xfeff, 0x1f600, 0x10_ffff]).filter_map(char::from_u32).collect();
        let line = written(|out| write_text(out, &all));
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).expect("JSON"), all);
    }

    #[test]
    fn numbers_at_both_ends() {
        for number in [0, 9, 10, u64::MAX] {
            assert_eq!(written(|out| write_number(out, number)), number.to_string());
        }
    }

    #[test]
    fn times_as_others_write_them() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399_999_999, "2000-02-28T23:59:59.999999Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (951_868_800_000_001, "2000-03-01T00:00:00.000001Z"),
            (1_795_667_230_123_456, "2026-11-26T04:27:10.123456Z"),
            (4_107_542_399_000_000, "2100-02-28T23:59:59.000000Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(written(|out| write_time(out, micros)), text);
        }
    }
}
