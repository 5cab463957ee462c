//! Writes `docs/metrics.md` from the catalogue.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use super::{Label, Metric, PARTS, Values, all};
use crate::schedule::Histogram;

const INTRODUCTION: &str = "\
# Metrics

*Written by `seeway metrics --reference`; tests compare this page with the program's own catalogue, and that with what a gateway shows.*

`/metrics` on the admin port (`listen.admin`) has them in Prometheus's text form. Nothing is summed up before somebody asks, so it
costs a job no more than counting, however often it is read. What to alert on is in [operations](operations.md#what-to-alert-on).

- A counter only grows until the gateway is started again. It is shown as 0 from the start, so that its first increase is seen.
- A world or a machine that the configuration has no more is not shown; a machine is as long as it has channels or jobs. Its counts go on
  where they were if it comes back.
- Where there is no `/proc`, the process's figures are missing, and the log says so.
";

/// The page, in Markdown.
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    write_page(&mut page).expect("a string takes all that is written to it");
    page
}

fn write_page(page: &mut String) -> fmt::Result {
    let [first, .., last] = Histogram::bounds();
    let buckets = Histogram::BUCKETS;
    writeln!(
        page,
        "- A histogram has {buckets} buckets, whose bounds double from {} µs; the last two are {last} s and +Inf. So a quantile is \
         exact to a factor of 2; `_sum` is exact.\n- Its parts are `_bucket` with the label `le`, `_sum` and `_count`: {} series for \
         each combination of its labels.",
        (first * 1e6).round(),
        buckets + 2,
    )?;
    for part in PARTS {
        writeln!(page, "\n## {}\n", part.title)?;
        writeln!(
            page,
            "| metric | type | unit | labels | what it is | when it moves |\n| --- | --- | --- | --- | --- | --- |"
        )?;
        for metric in part.metrics {
            let Metric { name, kind, help, when, labels } = metric;
            let labels: Vec<_> = labels.iter().map(|label| format!("`{}`", label.name)).collect();
            let (unit, labels) = (metric.unit().unwrap_or_default(), labels.join(", "));
            writeln!(page, "| `{name}` | {} | {unit} | {labels} | {help} | {when} |", kind.name())?;
        }
    }
    write_labels(page)
}

/// Where each label's values come from, with the metrics that have them.
fn write_labels(page: &mut String) -> fmt::Result {
    writeln!(
        page,
        "\n## Labels\n\nEvery value is a name from the configuration or one of a fixed list, so no caller can make series. A world has 20 \
         series of `seeway_jobs_total` for each machine that it may go to, and 20 more.\n\n\
         | label | values | in |\n| --- | --- | --- |"
    )?;
    let mut rows: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
    for metric in all() {
        for label in metric.labels {
            rows.entry((label.name, values(label))).or_default().push(metric.name);
        }
    }
    for ((label, values), metrics) in rows {
        let metrics: Vec<_> = metrics.into_iter().map(|name| format!("`{name}`")).collect();
        writeln!(page, "| `{label}` | {values} | {} |", metrics.join(", "))?;
    }
    Ok(())
}

fn values(label: &Label) -> String {
    match label.values {
        Values::Configured(whose) => whose.to_owned(),
        Values::ConfiguredOr(other, whose) => format!("`{other}`; {whose}"),
        Values::Fixed(values) => {
            let values: Vec<_> = values().into_iter().map(|value| format!("`{value}`")).collect();
            values.join(", ")
        }
    }
}
