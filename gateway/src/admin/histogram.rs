//! A histogram's bucket counts as Prometheus's text. For the metrics page, which takes as long however many jobs were counted.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::catalogue::{self, Metric};
use crate::schedule::Histogram;

/// The text of one histogram metric, a series for each combination of its labels' values.
pub(super) struct HistogramText {
    metric: &'static Metric,
    text: String,
}

impl HistogramText {
    /// The head of a metric that the catalogue has.
    pub(super) fn begin(name: &str) -> Self {
        Self::of(catalogue::named(name))
    }

    fn of(metric: &'static Metric) -> Self {
        Self { metric, text: catalogue::head(metric) }
    }

    /// Adds a series: what was counted where the labels have these values, in the catalogue's order.
    pub(super) fn write(&mut self, values: &[&str], histogram: &Histogram) {
        let Self { metric, text } = self;
        let name = metric.name;
        let pairs = metric.labels.iter().zip(values);
        let pairs: Vec<_> = pairs.map(|(label, value)| format!("{}=\"{}\"", label.name, escaped(value))).collect();
        let labels = pairs.join(",");
        let mut count = 0;
        let bounds = Histogram::bounds().map(|bound| bound.to_string());
        let bounds = bounds.iter().map(String::as_str).chain(["+Inf"]);
        for (bound, in_bucket) in bounds.zip(histogram.counts()) {
            count += in_bucket;
            // Writing to a String does not fail.
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(text, "{name}_sum{{{labels}}} {}", histogram.sum().as_secs_f64());
        let _ = writeln!(text, "{name}_count{{{labels}}} {count}");
    }

    /// The whole text, and the empty line after it.
    pub(super) fn end(mut self) -> String {
        self.text.push('\n');
        self.text
    }
}

/// A label's value as it stands between double quotes.
fn escaped(value: &str) -> Cow<'_, str> {
    if !value.contains(['\\', '"', '\n']) {
        return value.into();
    }
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn text(value: &str, histogram: &Histogram) -> String {
        let mut text = HistogramText::begin("seeway_queue_seconds");
        text.write(&[value], histogram);
        text.end()
    }

    /// The series of a text and their values, in its order.
    fn samples(text: &str) -> Vec<(&str, f64)> {
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        samples
            .map(|line| line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}")))
            .map(|(series, value)| (series, value.parse().unwrap_or_else(|error| panic!("{series} {value}: {error}"))))
            .collect()
    }

    #[test]
    fn buckets_are_cumulative_and_the_last_is_the_count() {
        let mut histogram = Histogram::default();
        for milliseconds in [0, 1, 1, 20, 3_000_000] {
            histogram.record(Duration::from_millis(milliseconds));
        }
        let text = text("signer", &histogram);
        let help = catalogue::named("seeway_queue_seconds").help;
        let head = format!("# HELP seeway_queue_seconds {help}\n# TYPE seeway_queue_seconds histogram\n");
        assert!(text.starts_with(&head), "{text}");
        let samples = samples(&text);
        assert_eq!(samples.len(), Histogram::BUCKETS + 2);
        let (buckets, rest) = samples.split_at(Histogram::BUCKETS);
        let mut before = (0.0, 0.0);
        for (series, count) in buckets {
            let bound =
                series.strip_prefix("seeway_queue_seconds_bucket{world=\"signer\",le=\"").expect("the bucket's name");
            let bound: f64 = bound.trim_end_matches("\"}").parse().expect("a bound");
            assert!(bound > before.0 && *count >= before.1, "{series} {count} after {before:?}");
            // Bounds are inclusive.
            let expected = [0.0, 0.001, 0.001, 0.02, 3_000.0].iter().filter(|seconds| **seconds <= bound).count();
            assert!((count - f64::from(u32::try_from(expected).expect("few"))).abs() < 0.5, "{series} {count}");
            before = (bound, *count);
        }
        assert!(before.0.is_infinite() && (before.1 - 5.0).abs() < 0.5, "{before:?}");
        assert_eq!(rest[0].0, "seeway_queue_seconds_sum{world=\"signer\"}");
        assert!((rest[0].1 - 3_000.022).abs() < 1e-9, "{}", rest[0].1);
        assert_eq!(rest[1], ("seeway_queue_seconds_count{world=\"signer\"}", 5.0));
    }

    #[test]
    fn a_billion_jobs_are_written_at_once() {
        let mut histogram = Histogram::default();
        histogram.record(Duration::from_millis(3));
        for _ in 0..30 {
            histogram.merge(&histogram.clone());
        }
        let begin = Instant::now();
        let text = text("signer", &histogram);
        // A loop over the jobs takes seconds.
        assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
        assert!(text.contains("seeway_queue_seconds_count{world=\"signer\"} 1073741824\n"), "{text}");
        assert!(text.contains("seeway_queue_seconds_sum{world=\"signer\"} 3221225.472\n"), "{text}");
    }

    #[test]
    fn a_labels_value_can_not_end_its_quotes() {
        let text = text("a\\b\"c\nd", &Histogram::default());
        assert!(text.contains("seeway_queue_seconds_count{world=\"a\\\\b\\\"c\\nd\"} 0\n"), "{text}");
    }
}
