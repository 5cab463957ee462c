//! A call's deadline, from its `grpc-timeout` header.

use std::time::{Duration, Instant};

use http::HeaderMap;

/// How much earlier than its caller's deadline a job's is, at most. The caller stops listening at its deadline, so an outcome
/// that says whether the job had left has to be on its way before.
const HEAD_START: Duration = Duration::from_millis(20);

/// The caller's deadline less the head start; `None` where it has set none, or one that does not parse.
pub(super) fn of_call(now: Instant, headers: &HeaderMap) -> Option<Instant> {
    let timeout = parse(headers.get("grpc-timeout")?.to_str().ok()?)?;
    let head_start = HEAD_START.min(timeout / 10);
    now.checked_add(timeout.saturating_sub(head_start))
}

/// At most eight digits and a unit, as gRPC over HTTP/2 has it.
fn parse(header: &str) -> Option<Duration> {
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 60 * 60)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_and_nothing_else() {
        let cases = [
            ("3H", Some(Duration::from_secs(3 * 3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("5S", Some(Duration::from_secs(5))),
            ("100m", Some(Duration::from_millis(100))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("7n", Some(Duration::from_nanos(7))),
            ("999999999n", None),
            ("5", None),
            ("S", None),
            ("", None),
            ("-1S", None),
            ("1s", None),
            ("1µ", None),
        ];
        for (header, expected) in cases {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    #[test]
    fn the_outcome_gets_a_head_start() {
        let now = Instant::now();
        let mut headers = HeaderMap::new();
        assert_eq!(of_call(now, &headers), None);
        headers.insert("grpc-timeout", "10S".parse().expect("ascii"));
        assert_eq!(of_call(now, &headers), Some(now + Duration::from_millis(9980)));
        headers.insert("grpc-timeout", "100m".parse().expect("ascii"));
        assert_eq!(of_call(now, &headers), Some(now + Duration::from_millis(90)));
    }
}
