//! Writes JSON in ASCII, so that a record is one line whatever a caller calls itself, in every pager, journal and syslog server.
//!
//! Used by [`super::record`] alone. What reads it back is `serde_json`.

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
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let mut part = |number: u64, digits: u32, after: u8| {
        for place in (0..digits).rev() {
            out.push(b'0' + (number / 10_u64.pow(place) % 10) as u8);
        }
        out.push(after);
    };
    part(year, 4, b'-');
    part(month, 2, b'-');
    part(day, 2, b'T');
    part(of_day / 3600, 2, b':');
    part(of_day / 60 % 60, 2, b':');
    part(of_day % 60, 2, b'.');
    part(micros, 6, b'Z');
}

/// Year, month and day of a day, counted from 1970-01-01. Counts from a first of March, so that a leap day is a year's last.
fn date(days: u64) -> (u64, u64, u64) {
    const OF_400_YEARS: u64 = 146_097;
    // From 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, of_era) = (days / OF_400_YEARS, days % OF_400_YEARS);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
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
