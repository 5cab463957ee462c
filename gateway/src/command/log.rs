//! `seeway log`: which log lines a gateway that runs shows, and another filter for them.

use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use super::operator::{At, clean};
use super::{Failure, write_json};
use crate::config::{duration_text, parse_duration};
use crate::log_filter;

/// Have a running gateway log more, or less
///
/// Without FILTER it says what is shown. Lines of libraries below INFO are never shown, since they may repeat the bytes that pass through
/// them; bytes of jobs and keys are in no line.
#[allow(clippy::doc_markdown)] // These texts are help on a terminal.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seeway log
  seeway log seeway=debug --for 10m
  seeway log seeway::upstream=trace,info
  seeway log --reset")]
pub struct Args {
    #[command(flatten)]
    at: At,
    /// What to show, as SEEWAY_LOG has it: a level (warn, info, debug, trace), or targets with levels
    #[arg(value_name = "FILTER", value_parser = filter)]
    filter: Option<String>,
    /// Go back after so long to what is shown now
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration, requires = "filter")]
    lasts: Option<Duration>,
    /// Go back to what the gateway was started with
    #[arg(long, conflicts_with_all = ["filter", "lasts"])]
    reset: bool,
}

fn filter(text: &str) -> Result<String, String> {
    log_filter::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Asks, and prints what is shown then.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let lasts = args.lasts.map(duration_text);
    let mut query = Vec::new();
    query.extend(args.filter.as_deref().map(|filter| ("filter", filter)));
    query.extend(lasts.as_deref().map(|lasts| ("for", lasts)));
    let is_change = args.reset || args.filter.is_some();
    let answer = args.at.ask(if is_change { "POST" } else { "GET" }, "/log", &query)?;
    if !answer.is_done {
        return Err(Failure::Failed(answer.refusal()));
    }
    say(args.at.json, &answer.body, out)
}

fn say(json: bool, body: &Value, out: &mut dyn Write) -> Result<(), Failure> {
    if json {
        return write_json(out, body);
    }
    let text = |key: &str| body[key].as_str().map(clean);
    write!(out, "{}", text("filter").unwrap_or_default())?;
    if let (Some(lasts), Some(then)) = (text("for"), text("then")) {
        write!(out, " for {lasts}, then {then}")?;
    }
    writeln!(out)?;
    Ok(())
}
