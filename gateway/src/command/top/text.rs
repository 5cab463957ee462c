//! How numbers and times look on a terminal. `tables` and `draw` use it.

use std::time::Duration;

/// What stands for what is not known.
pub(super) const NONE: &str = "-";

/// What a plot is made of, from the lowest to the highest.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Something for each second.
pub(super) fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 1e6 => format!("{:.2}M", rate / 1e6),
        rate if rate > 0.0 && rate < 9.95 => format!("{rate:.1}"),
        rate => format!("{rate:.0}"),
    }
}

/// A time that a job took.
pub(super) fn seconds(seconds: f64) -> String {
    match seconds {
        time if time < 0.001 => format!("{:.0} µs", time * 1e6),
        time if time < 0.01 => format!("{:.2} ms", time * 1e3),
        time if time < 0.1 => format!("{:.1} ms", time * 1e3),
        time if time < 1.0 => format!("{:.0} ms", time * 1e3),
        time => format!("{time:.1} s"),
    }
}

/// Bytes, in the unit that needs the fewest digits.
#[allow(clippy::cast_precision_loss)] // Three digits are shown.
pub(super) fn bytes(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    if unit == "B" || value >= 100.0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

/// How long something lasts, in its two largest units at most.
pub(super) fn lasting(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, seconds) => format!("{seconds} s"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, hours, ..) => format!("{days} d {hours} h"),
    }
}

/// When something was: seconds since 1970 as a date and a time in UTC.
pub(super) fn moment(seconds: f64) -> String {
    #[allow(clippy::cast_possible_truncation)] // What is too large becomes the largest, which is no date.
    match time::OffsetDateTime::from_unix_timestamp(seconds as i64) {
        Ok(at) => format!(
            "{:02}-{:02} {:02}:{:02}:{:02}Z",
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second()
        ),
        Err(_) => NONE.to_owned(),
    }
}

/// The last `width` values as bars between 0 and the largest of them; nothing where there was none.
pub(super) fn plot(values: &[Option<f64>], width: usize) -> String {
    let shown = &values[values.len().saturating_sub(width)..];
    let most = shown.iter().flatten().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
    let bars = shown.iter().map(|value| match value {
        Some(value) if most > 0.0 => {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Between 0 and 7.
            let bar = (value / most * 7.0).round().clamp(0.0, 7.0) as usize;
            BARS[bar]
        }
        Some(_) => BARS[0],
        None => ' ',
    });
    std::iter::repeat_n(' ', width - shown.len()).chain(bars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.4, 12.3, 31_085.0, 2.5e6].map(rate), ["0", "0.4", "12", "31085", "2.50M"]);
        assert_eq!(
            [0.000_05, 0.003_02, 0.0412, 0.25, 60.0].map(seconds),
            ["50 µs", "3.02 ms", "41.2 ms", "250 ms", "60.0 s"]
        );
        assert_eq!([17, 2048, 300 << 20].map(bytes), ["17 B", "2.0 KiB", "300 MiB"]);
        let times = [5, 65, 7_260, 90_000].map(|seconds| lasting(Duration::from_secs(seconds)));
        assert_eq!(times, ["5 s", "1 min 5 s", "2 h 1 min", "1 d 1 h"]);
        assert_eq!(moment(1_800_000_000.5), "01-15 08:00:00Z");
        assert_eq!(moment(f64::MAX), NONE);
    }

    #[test]
    fn a_plot_has_its_width_and_the_newest_at_its_right() {
        assert_eq!(plot(&[Some(0.0), None, Some(4.0), Some(8.0)], 6), "  ▁ ▅█");
        assert_eq!(plot(&[Some(9.0), Some(0.0), Some(0.0)], 2), "▁▁");
        assert_eq!(plot(&[Some(f64::NAN), Some(f64::INFINITY), Some(-1.0)], 3).chars().count(), 3);
        assert_eq!(plot(&[], 2), "  ");
        assert_eq!(plot(&[Some(1.0)], 0), "");
    }
}
