//! Log lines go to stderr. Which ones, `SEEWAY_LOG` says; that no job's bytes are among them, `log_filter` sees to.

use std::io;

use clap::ValueEnum;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::Failure;
use crate::log_filter::filtered;

/// The environment variable that says which log lines are shown.
pub const VARIABLE: &str = "SEEWAY_LOG";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object for each line.
    Json,
}

impl Format {
    /// As the command line has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Starts logging, once in a process's life. `default` stands in for an unset `SEEWAY_LOG`.
pub fn start(format: Format, default: &str) -> Result<(), Failure> {
    let directives = std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let directives = directives.as_deref().unwrap_or(default);
    let misused = |error| Failure::Misused(format!("{VARIABLE}={directives}: {error}"));
    let layer = fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry();
    let (filter, started) = match format {
        Format::Text => {
            let layer = layer.with_ansi(io::IsTerminal::is_terminal(&io::stderr()));
            let (layer, filter) = filtered(layer, directives).map_err(misused)?;
            (filter, registry.with(layer).try_init())
        }
        Format::Json => {
            let (layer, filter) = filtered(layer.json(), directives).map_err(misused)?;
            (filter, registry.with(layer).try_init())
        }
    };
    started.map_err(|error| Failure::Failed(format!("logging can not start: {error}")))?;
    filter.install();
    Ok(())
}
