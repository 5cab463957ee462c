//! Durations as the configuration and the command line write them: a number and a unit, such as `"35s"`.

use std::time::Duration;

/// The units, the largest first so that a duration is written with the largest that leaves no remainder.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The longest duration that is taken: ten years, far beyond what any key is for, far below what overflows a clock.
const LONGEST_MS: u64 = 10 * 366 * 24 * 3_600_000;

/// Reads `"500ms"`, `"35s"`, `"2m"` or `"1h"`. The error says what is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit_at = text
        .find(|letter: char| !letter.is_ascii_digit())
        .ok_or_else(|| format!("`{text}` has no unit; write a number and ms, s, m or h, such as \"35s\""))?;
    let (number, unit) = text.split_at(unit_at);
    let wrong = || format!("`{text}` is not a duration; write a number and ms, s, m or h, such as \"35s\"");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (_, unit_ms) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number
        .checked_mul(unit_ms)
        .filter(|milliseconds| *milliseconds <= LONGEST_MS)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is longer than ten years; write a shorter one"))
}

/// Writes a duration (whole milliseconds of it) so that [`parse_duration`] reads the same one.
pub fn duration_text(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if milliseconds == 0 {
        return "0s".to_owned();
    }
    let (name, unit_ms) = UNITS
        .into_iter()
        .find(|(_, unit_ms)| milliseconds.is_multiple_of(*unit_ms))
        .expect("every number is a multiple of the last unit, 1 ms");
    format!("{}{name}", milliseconds / unit_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_written_back() {
        for (text, milliseconds) in
            [("500ms", 500), ("35s", 35_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0), ("1500ms", 1_500)]
        {
            let duration = parse_duration(text).expect(text);
            assert_eq!(duration, Duration::from_millis(milliseconds));
            assert_eq!(duration_text(duration), text);
        }
        assert_eq!(duration_text(Duration::from_secs(90)), "90s");
        assert_eq!(parse_duration("0ms"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_no_duration_is_refused_with_an_example() {
        for text in ["", "s", "35", "35 s", "-1s", "1.5s", "5S", "5sec", "99999999999999999999s", "١s"] {
            let error = parse_duration(text).expect_err(text);
            assert!(error.contains(&format!("`{text}`")) && error.contains("35s"), "{error}");
        }
        for text in ["100000h", "18446744073709551615h"] {
            assert!(parse_duration(text).expect_err(text).contains("ten years"));
        }
    }
}
