//! Every metric that a gateway shows: what it is, what its labels can be, and what to do when it moves. The page that Prometheus
//! reads has its descriptions from here, and so has `docs/metrics.md`, which `seeway metrics --reference` prints.

mod gateway;
mod jobs;
mod labels;
mod machines;
mod page;

pub use page::reference;

/// What kind of numbers a metric has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the gateway is started again.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Durations, counted by how long they were.
    Histogram,
}

impl Kind {
    /// Its name in Prometheus's text form.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Where the values of a label come from, so that there is a bound for the number of series.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// The configuration.
    Configured(&'static str),
    /// The configuration, and one more, which is named first.
    ConfiguredOr(&'static str, &'static str),
    /// These and no others.
    Fixed(fn() -> Vec<&'static str>),
}

/// A label of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// What it can be.
    pub values: Values,
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, which ends with its unit and, for a counter, `_total`.
    pub name: &'static str,
    /// What kind of numbers it has.
    pub kind: Kind,
    /// What tells its series from each other.
    pub labels: &'static [Label],
    /// What it is, on one line and without Markdown.
    pub help: &'static str,
    /// What to do when it moves, in Markdown.
    pub when: &'static str,
}

impl Metric {
    const fn counter(name: &'static str, labels: &'static [Label], help: &'static str, when: &'static str) -> Self {
        Self { name, kind: Kind::Counter, labels, help, when }
    }

    const fn gauge(name: &'static str, labels: &'static [Label], help: &'static str, when: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, labels, help, when }
    }

    const fn histogram(name: &'static str, labels: &'static [Label], help: &'static str, when: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, labels, help, when }
    }

    /// The unit that its name ends with; `None` for what is counted in pieces.
    pub fn unit(&self) -> Option<&'static str> {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        ["seconds", "bytes", "ratio"].into_iter().find(|unit| name.ends_with(&format!("_{unit}")))
    }
}

/// A part of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Its heading.
    pub title: &'static str,
    /// What is in it.
    pub metrics: &'static [Metric],
}

/// The whole catalogue.
pub const PARTS: [Part; 9] = [
    Part { title: "Jobs", metrics: jobs::JOBS },
    Part { title: "Callers", metrics: jobs::CALLERS },
    Part { title: "Machines", metrics: machines::MACHINES },
    Part { title: "Limits", metrics: gateway::LIMITS },
    Part { title: "TLS and tokens", metrics: gateway::WAYS_IN },
    Part { title: "The audit log", metrics: gateway::AUDIT },
    Part { title: "Traces", metrics: gateway::TRACES },
    Part { title: "The gateway", metrics: gateway::GATEWAY },
    Part { title: "The process", metrics: gateway::PROCESS },
];

/// Every metric.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    PARTS.iter().flat_map(|part| part.metrics)
}

/// A metric by its name.
///
/// # Panics
/// If there is none: whoever writes a series takes its name from the catalogue.
pub(super) fn named(name: &str) -> &'static Metric {
    all().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name} is not in the catalogue of metrics"))
}

/// What stands above a metric's samples in Prometheus's text form.
pub(super) fn head(metric: &Metric) -> String {
    let Metric { name, kind, help, .. } = metric;
    format!("# HELP {name} {help}\n# TYPE {name} {}\n", kind.name())
}

/// Describes all of them to the recorder of this thread, but for histograms, which are written beside it.
pub(super) fn describe() {
    for metric in all() {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Histogram => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_metric_is_there_once_with_a_name_and_texts_of_the_right_form() {
        let mut names = BTreeSet::new();
        for Metric { name, kind, labels, help, when } in all() {
            assert!(names.insert(name), "{name} is there twice");
            assert!(name.starts_with("seeway_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name}: histograms are of durations");
            assert!(
                help.len() > 10 && !help.contains(['\n', '`', '|', '\\']) && !help.ends_with('.'),
                "{name}: {help}"
            );
            assert!(when.len() > 5 && !when.contains(['\n', '|']), "{name}: {when}");
            let distinct: BTreeSet<_> = labels.iter().map(|label| label.name).collect();
            assert!(distinct.len() == labels.len() && !distinct.contains("le"), "{name}: {distinct:?}");
        }
    }

    #[test]
    fn units_are_what_names_end_with() {
        assert_eq!(named("seeway_jobs_total").unit(), None);
        assert_eq!(named("seeway_job_bytes_total").unit(), Some("bytes"));
        assert_eq!(named("seeway_config_loaded_timestamp_seconds").unit(), Some("seconds"));
        assert_eq!(named("seeway_limit_used_ratio").unit(), Some("ratio"));
    }

    #[test]
    fn how_much_of_a_fault_is_in_the_log_is_as_the_log_has_it() {
        assert_eq!(crate::seldom::PERIOD.as_secs(), 10);
        assert_eq!(all().filter(|metric| metric.when.contains("one in ten seconds is in the log")).count(), 2);
    }

    #[test]
    fn every_label_of_a_fixed_list_has_values_and_none_twice() {
        for metric in all() {
            for label in metric.labels {
                let Values::Fixed(values) = label.values else { continue };
                let values = values();
                let distinct: BTreeSet<_> = values.iter().collect();
                assert!(!values.is_empty() && distinct.len() == values.len(), "{}: {values:?}", metric.name);
            }
        }
    }
}
