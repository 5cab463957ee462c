//! Log lines go to stderr. Which ones, `SEEWAY_LOG` says; that no job's bytes are among them, this module sees to.

use std::io;

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, filter, fmt};

use super::Failure;

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

/// Starts logging, once in a process's life. `default` stands in for an unset `SEEWAY_LOG`.
pub fn start(format: Format, default: &str) -> Result<(), Failure> {
    let directives = std::env::var(VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let directives = directives.as_deref().unwrap_or(default);
    let wanted = EnvFilter::try_new(directives)
        .map_err(|error| Failure::Misused(format!("{VARIABLE}={directives} is not understood: {error}; write a level or more, such as debug or seeway::upstream=trace")))?;
    // What libraries say below this level may repeat the bytes that pass through them.
    let harmless =
        filter::filter_fn(|metadata| metadata.target().starts_with("seeway") || *metadata.level() <= LevelFilter::INFO);
    let layer = fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry();
    let started = match format {
        Format::Text => {
            let color = io::IsTerminal::is_terminal(&io::stderr());
            registry.with(layer.with_ansi(color).with_filter(harmless).with_filter(wanted)).try_init()
        }
        Format::Json => registry.with(layer.json().with_filter(harmless).with_filter(wanted)).try_init(),
    };
    started.map_err(|error| Failure::Failed(format!("logging can not start: {error}; report this: it is started once")))
}
