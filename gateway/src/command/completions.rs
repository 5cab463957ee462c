//! `seeway completions`: what makes a shell complete the commands and options of `seeway`; packages install it.

use std::io::Write;

use clap::{CommandFactory as _, ValueEnum};
use clap_complete::aot::{Bash, Fish, Generator, Zsh};

use super::{Cli, Failure};

/// Print the script that makes a shell complete commands and options
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  seeway completions bash > /usr/share/bash-completion/completions/seeway
  seeway completions zsh > /usr/share/zsh/vendor-completions/_seeway
  seeway completions fish > /usr/share/fish/vendor_completions.d/seeway.fish
  source <(seeway completions bash)")]
pub struct Args {
    /// Which shell: bash, zsh or fish
    #[arg(value_enum, value_name = "SHELL", hide_possible_values = true)]
    shell: Shell,
}

/// A shell whose completion is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Prints the script.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let mut command = Cli::command();
    command.set_bin_name("seeway");
    command.build();
    match args.shell {
        Shell::Bash => Bash.try_generate(&command, out)?,
        Shell::Zsh => Zsh.try_generate(&command, out)?,
        Shell::Fish => Fish.try_generate(&command, out)?,
    }
    Ok(())
}
