//! The command line: what each command of `seeway` takes, and how it ends.
//!
//! A command is a module with its `Args` and a `run` that writes data to the output it is given and says in a [`Failure`] why it did
//! not do what it was asked to. `main` turns that into the exit status: 0 done, 1 failed, 2 asked wrongly.

pub mod audit;
pub mod check;
pub mod completions;
pub mod config;
#[cfg(feature = "emulator")]
pub mod demo;
pub mod doctor;
pub mod drain;
#[cfg(feature = "emulator")]
pub mod emulate;
pub mod forward;
pub mod job;
pub mod keygen;
pub mod log;
pub mod logging;
pub mod man;
pub mod metrics;
mod operator;
mod reach;
pub mod reload;
pub mod serve;
mod supervisor;
mod table;
#[cfg(test)]
mod test_peers;
mod tls_files;
pub mod top;
pub mod upgrade;

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use clap::{Parser, Subcommand};

/// Sends SEEJobs through SSH tunnels to CodeSafe machines.
#[derive(Debug, Parser)]
#[allow(clippy::doc_markdown)] // These texts are help on a terminal.
#[command(name = "seeway", version, about, max_term_width = 120, propagate_version = true)]
pub struct Cli {
    /// How log lines look, which go to stderr: text or json. SEEWAY_LOG says which ones, such as debug or seeway::upstream=trace
    ///
    /// Without it SEEWAY_LOG_FORMAT says it, and else it is text.
    #[arg(long, global = true, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    pub log_format: Option<logging::Format>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `seeway` can be asked to do. Each command's help is the documentation of its `Args`.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)] // A text here would hide that one.
pub enum Command {
    Audit(audit::Args),
    Check(check::Args),
    Completions(completions::Args),
    Config(config::Args),
    #[cfg(feature = "emulator")]
    Demo(demo::Args),
    Doctor(doctor::Args),
    Drain(drain::DrainArgs),
    #[cfg(feature = "emulator")]
    Emulate(emulate::Args),
    Forward(forward::Args),
    Job(Box<job::Args>),
    Keygen(keygen::Args),
    Log(log::Args),
    Metrics(metrics::Args),
    Man(man::Args),
    Reload(reload::Args),
    Resume(drain::ResumeArgs),
    Serve(serve::Args),
    Top(top::Args),
    Upgrade(upgrade::Args),
}

impl Command {
    /// The log lines that are shown where `SEEWAY_LOG` does not say.
    pub fn default_log(&self) -> &'static str {
        match self {
            Self::Audit(_) | Self::Check(_) | Self::Job(_) | Self::Keygen(_) | Self::Metrics(_) => "warn",
            Self::Completions(_) | Self::Config(_) | Self::Doctor(_) | Self::Man(_) => "warn",
            Self::Drain(_) | Self::Log(_) | Self::Reload(_) | Self::Resume(_) | Self::Upgrade(_) => "warn",
            #[cfg(feature = "emulator")]
            Self::Emulate(_) => "warn",
            // What it breaks on purpose is in its tables.
            #[cfg(feature = "emulator")]
            Self::Demo(_) => "error",
            Self::Forward(_) => "warn",
            // Its screen is where log lines would go.
            Self::Top(_) => "off",
            Self::Serve(_) => "info",
        }
    }

    /// Does it; data goes to `out`. `log_format` is for a process that it starts.
    pub fn run(&self, log_format: logging::Format, out: &mut dyn Write) -> Result<(), Failure> {
        let done = match self {
            Self::Audit(args) => audit::run(args, out),
            Self::Check(args) => check::run(args, out),
            Self::Completions(args) => completions::run(args, out),
            Self::Config(args) => config::run(args, out),
            #[cfg(feature = "emulator")]
            Self::Demo(args) => demo::run(args, out),
            Self::Doctor(args) => doctor::run(args, out),
            Self::Drain(args) => drain::drain(args, out),
            #[cfg(feature = "emulator")]
            Self::Emulate(args) => emulate::run(args, out),
            Self::Forward(args) => forward::run(args, out),
            Self::Job(args) => job::run(args, out),
            Self::Keygen(args) => keygen::run(args, out),
            Self::Log(args) => log::run(args, out),
            Self::Metrics(args) => metrics::run(args, out),
            Self::Man(args) => man::run(args, out),
            Self::Reload(args) => reload::run(args, out),
            Self::Resume(args) => drain::resume(args, out),
            // It flushes what it has to say when it says it: that nobody reads it any more at the end ends nothing badly.
            Self::Serve(args) => return serve::run(args, out),
            Self::Top(args) => top::run(args, out),
            Self::Upgrade(args) => upgrade::run(args, log_format, out),
        };
        done.and_then(|()| Ok(out.flush()?))
    }
}

/// Why a command did not do what it was asked to.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It failed, for this reason: exit status 1.
    Failed(String),
    /// It failed, and its output says why already: exit status 1.
    Said,
    /// It was asked wrongly: exit status 2.
    Misused(String),
}

impl Failure {
    /// The process's exit status.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Said => 1,
            Self::Misused(_) => 2,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) | Self::Misused(why) => f.write_str(why),
            Self::Said => Ok(()),
        }
    }
}

/// The output is gone or full. One who stopped reading (`| head`) knows that, and is told nothing.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Said,
            _ => Self::Failed(format!("the output can not be written: {error}; see that there is room for it")),
        }
    }
}

/// How long the end waits for what blocks.
const LAST_BLOCKING: Duration = Duration::from_millis(500);

/// Runs an async command on a runtime of its own, one thread and no more.
pub(crate) fn block_on<T>(task: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        Failure::Failed(format!(
            "the system gave no event queue to wait with: {error}; let the process have more open files (ulimit -n)"
        ))
    })?;
    let done = runtime.block_on(task);
    // Whoever blocks on what may never come (another gateway's word, a name service) does not hold up the end.
    runtime.shutdown_timeout(LAST_BLOCKING);
    Ok(done)
}

/// Writes a value as one line of JSON.
pub(crate) fn write_json(out: &mut dyn Write, value: &serde_json::Value) -> Result<(), Failure> {
    writeln!(out, "{value}").map_err(Failure::from)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_command_has_an_example() {
        let command = Cli::command();
        command.clone().debug_assert();
        for subcommand in command.get_subcommands() {
            let after = subcommand.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains("seeway "), "{} has no example", subcommand.get_name());
        }
    }

    #[test]
    fn exit_statuses_are_the_documented_ones() {
        assert_eq!(Failure::Failed(String::new()).exit_status(), 1);
        assert_eq!(Failure::Said.exit_status(), 1);
        assert_eq!(Failure::Misused(String::new()).exit_status(), 2);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)), Failure::Said);
    }
}
