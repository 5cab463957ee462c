//! Log lines go to stderr. Which ones, `SEEWAY_LOG` says; that no job's bytes are among them, `log_filter` sees to.
//!
//! Where stderr is the journal, each line begins with its priority, as `sd-daemon(3)` has it: the journal takes it off, and
//! `journalctl -p warning` finds the line.

use std::io::{self, Write as _};
use std::os::fd::AsFd;

use clap::ValueEnum;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{self, FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::Failure;
use crate::log_filter::filtered;

/// The environment variable that says which log lines are shown.
pub const VARIABLE: &str = "SEEWAY_LOG";

/// The environment variable that says how they look, where the command line does not.
const FORMAT_VARIABLE: &str = "SEEWAY_LOG_FORMAT";

/// The environment variable in which systemd says which stream is the journal's, as `systemd.exec(5)` has it.
const JOURNAL: &str = "JOURNAL_STREAM";

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
    /// What the command line says, else the environment, else text.
    ///
    /// # Errors
    /// The environment says something else than there is.
    pub fn chosen(said: Option<Self>) -> Result<Self, Failure> {
        let variable = std::env::var(FORMAT_VARIABLE).ok().filter(|text| !text.is_empty());
        match (said, variable.as_deref()) {
            (Some(said), _) => Ok(said),
            (None, None | Some("text")) => Ok(Self::Text),
            (None, Some("json")) => Ok(Self::Json),
            (None, Some(other)) => {
                Err(Failure::Misused(format!("{FORMAT_VARIABLE}={other} is no format of a log; write text or json")))
            }
        }
    }

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
    let has_priority = is_to_journal();
    let layer = fmt::layer().with_writer(io::stderr);
    let registry = tracing_subscriber::registry();
    let (filter, started) = match format {
        Format::Text => {
            let layer = layer.with_ansi(io::IsTerminal::is_terminal(&io::stderr()));
            let layer = layer.map_event_format(|inner| Prioritized { inner, has_priority });
            let (layer, filter) = filtered(layer, directives).map_err(misused)?;
            (filter, registry.with(layer).try_init())
        }
        Format::Json => {
            let layer = layer.json().map_event_format(|inner| Prioritized { inner, has_priority });
            let (layer, filter) = filtered(layer, directives).map_err(misused)?;
            (filter, registry.with(layer).try_init())
        }
    };
    started.map_err(|error| Failure::Failed(format!("logging can not start: {error}")))?;
    filter.install();
    Ok(())
}

/// Says on stderr why a command has failed: where the journal reads it, with an error's priority before each line.
pub fn tell_failure(why: &str) {
    let said = failure(why, is_to_journal());
    // There is nobody else to tell.
    let _ = io::stderr().write_all(said.as_bytes());
}

fn failure(why: &str, has_priority: bool) -> String {
    let priority = if has_priority { priority(Level::ERROR) } else { "" };
    format!("{priority}seeway: {}\n", why.trim_end().replace('\n', &format!("\n{priority}")))
}

fn is_to_journal() -> bool {
    is_journal(std::env::var(JOURNAL).ok().as_deref(), io::stderr())
}

/// Whether a stream is the one that `JOURNAL_STREAM` names by device and inode. Whoever starts this process can have been given one, and
/// have sent our lines elsewhere.
fn is_journal(named: Option<&str>, stream: impl AsFd) -> bool {
    let Some(named) = named else { return false };
    rustix::fs::fstat(stream).is_ok_and(|file| format!("{}:{}", file.st_dev, file.st_ino) == named)
}

/// The same lines, each with its priority before it where the journal reads them.
struct Prioritized<E> {
    inner: E,
    has_priority: bool,
}

impl<S, N, E> FormatEvent<S, N> for Prioritized<E>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
    E: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> std::fmt::Result {
        if !self.has_priority {
            return self.inner.format_event(context, writer, event);
        }
        // The writer that the inner format is given has no colours: the journal is no terminal.
        let mut lines = Lines { writer, priority: priority(*event.metadata().level()), begins: true };
        self.inner.format_event(context, Writer::new(&mut lines), event)
    }
}

/// A level's priority.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Writes the priority before each line. The journal makes an entry of each, so that what has several must not lose it; nor can a value
/// with a line break in it choose the priority of its rest.
struct Lines<'w> {
    writer: Writer<'w>,
    priority: &'static str,
    /// Whether what comes next begins a line.
    begins: bool,
}

impl std::fmt::Write for Lines<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for piece in text.split_inclusive('\n') {
            if self.begins {
                self.writer.write_str(self.priority)?;
            }
            self.writer.write_str(piece)?;
            self.begins = piece.ends_with('\n');
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _};
    use std::os::unix::fs::MetadataExt as _;
    use std::sync::Arc;

    use tracing::subscriber::with_default;

    use super::*;

    #[test]
    fn each_line_of_a_failure_has_its_priority_where_the_journal_reads_it() {
        assert_eq!(failure("one\ntwo", true), "<3>seeway: one\n<3>two\n");
        assert_eq!(failure("one\ntwo", false), "seeway: one\ntwo\n");
    }

    fn say() {
        tracing::error!("one");
        tracing::warn!("two\n<0>three");
        tracing::info!("four");
        tracing::debug!("five");
        tracing::trace!("six");
    }

    /// What is written of that.
    fn said(format: Format, has_priority: bool) -> String {
        let mut file = tempfile::tempfile().expect("a file");
        let writer: Arc<File> = Arc::new(file.try_clone().expect("a descriptor"));
        let layer = fmt::layer().with_writer(writer).with_ansi(false);
        let registry = tracing_subscriber::registry();
        match format {
            Format::Text => {
                let layer = layer.map_event_format(|inner| Prioritized { inner, has_priority });
                with_default(registry.with(layer), say);
            }
            Format::Json => {
                let layer = layer.json().map_event_format(|inner| Prioritized { inner, has_priority });
                with_default(registry.with(layer), say);
            }
        }
        let mut text = String::new();
        file.rewind().expect("a file");
        file.read_to_string(&mut text).expect("text");
        text
    }

    /// The three bytes that each line begins with.
    fn beginnings(text: &str) -> Vec<&str> {
        text.lines().map(|line| &line[..3]).collect()
    }

    #[test]
    fn for_the_journal_each_line_begins_with_its_priority() {
        let text = said(Format::Text, true);
        assert_eq!(beginnings(&text), ["<3>", "<4>", "<4>", "<6>", "<7>", "<7>"], "{text}");
        assert_eq!(text.lines().nth(2), Some("<4><0>three"), "a value does not choose it");

        let text = said(Format::Json, true);
        assert_eq!(beginnings(&text), ["<3>", "<4>", "<6>", "<7>", "<7>"], "{text}");
        for line in text.lines() {
            let object: serde_json::Value = serde_json::from_str(&line[3..]).expect("an object");
            assert!(object["level"].is_string(), "{line}");
        }
    }

    #[test]
    fn elsewhere_lines_begin_as_ever() {
        let text = said(Format::Text, false);
        let warning = text.lines().nth(1).expect("a warning");
        assert!(warning.contains("WARN") && !warning.starts_with('<'), "{text}");
        let text = said(Format::Json, false);
        assert!(text.lines().all(|line| line.starts_with('{')), "{text}");
    }

    #[test]
    fn the_journal_is_the_stream_that_systemd_names() {
        let file = tempfile::tempfile().expect("a file");
        let about = file.metadata().expect("it is open");
        let named = format!("{}:{}", about.dev(), about.ino());
        assert!(is_journal(Some(&named), &file));
        assert!(!is_journal(None, &file), "systemd has not started this process");
        for another in [format!("{}:{}", about.dev(), about.ino() + 1), format!("{named}0"), String::new()] {
            assert!(!is_journal(Some(&another), &file), "{another}");
        }
    }
}
