//! `seeway config`: an example of the configuration file, its schema, and one made from a hardserver's configuration.

mod hardserver;
mod import;

use std::io::Write;

use super::Failure;
use crate::config;

/// The whole example: what the package installs, too.
const EXAMPLE: &str = include_str!("../../../../deploy/seeway.toml");

/// Make a configuration file, or help an editor with one
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seeway config import /opt/nfast/kmdata/config/config --output seeway.toml
  seeway config example --minimal
  seeway config schema > seeway.schema.json")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Example(ExampleArgs),
    Import(import::Args),
    Schema(SchemaArgs),
}

/// Print an example of the configuration file, with each key and its default
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seeway config example > seeway.toml
  seeway config example --minimal")]
struct ExampleArgs {
    /// Print the smallest file that works instead
    #[arg(long)]
    minimal: bool,
}

/// Print the JSON Schema of the configuration file, for editors
///
/// With it an editor completes keys, shows what they mean, and marks what is wrong while it is being written. It knows types, ranges and
/// names; what keys mean to each other, and the files that they name, only `seeway check` looks at.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Editors that use taplo (Even Better TOML) take it from the first line of the configuration file:
  #:schema ./seeway.schema.json

Examples:
  seeway config schema > /etc/seeway/seeway.schema.json
  taplo check --schema file:///etc/seeway/seeway.schema.json /etc/seeway/seeway.toml")]
struct SchemaArgs {}

/// Does what is asked for.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.command {
        Command::Example(ExampleArgs { minimal }) => {
            write!(out, "{}", if *minimal { config::SMALLEST } else { EXAMPLE })?;
            Ok(())
        }
        Command::Import(args) => import::run(args, out),
        Command::Schema(SchemaArgs {}) => {
            serde_json::to_writer_pretty(&mut *out, &config::schema())
                .map_err(|error| Failure::from(std::io::Error::from(error)))?;
            writeln!(out)?;
            Ok(())
        }
    }
}
