//! `seeway metrics`: says what a gateway shows on `/metrics`, without one.

use std::io::Write;

use super::Failure;
use super::table::write_table;
use crate::admin::catalogue;

/// Say what metrics a gateway shows
///
/// Prints each metric's name, type, labels and meaning. What a gateway shows now is at /metrics on its admin port.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seeway metrics | grep tunnels
  seeway metrics --reference > metrics.md
  curl -s http://127.0.0.1:9464/metrics")]
pub struct Args {
    /// Print all that is said of them, with what to do when each moves, in Markdown
    #[arg(long)]
    reference: bool,
}

/// Prints the catalogue.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    if args.reference {
        write!(out, "{}", catalogue::reference())?;
        return Ok(());
    }
    let rows: Vec<_> = catalogue::all()
        .map(|metric| {
            let labels: Vec<_> = metric.labels.iter().map(|label| label.name).collect();
            [metric.name.to_owned(), metric.kind.name().to_owned(), labels.join(","), metric.help.to_owned()]
        })
        .collect();
    write_table(out, ["metric", "type", "labels", "what it is"], &rows)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(reference: bool) -> String {
        let mut out = Vec::new();
        run(&Args { reference }, &mut out).expect("printed");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn every_metric_has_a_line_and_a_row() {
        let (table, page) = (printed(false), printed(true));
        assert_eq!(table.lines().count(), catalogue::all().count() + 1, "and the heads");
        for metric in catalogue::all() {
            assert!(table.lines().any(|line| line.split_whitespace().next() == Some(metric.name)), "{}", metric.name);
            assert_eq!(page.matches(&format!("\n| `{}` |", metric.name)).count(), 1, "{}", metric.name);
        }
    }
}
