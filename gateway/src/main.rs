//! The binary `seeway`: reads the command line, starts logging, runs the command, and ends with its exit status.
#![forbid(unsafe_code)]

use std::alloc::System;
use std::io;
use std::process::ExitCode;

use clap::Parser as _;
use seeway::command::{Cli, logging};
use zeroizing_alloc::ZeroAlloc;

/// Wipes what is freed, whoever had it: the buffers of the libraries that carry jobs (SSH, TLS, HTTP/2) as well as our own.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = io::stdout();
    let done = logging::Format::chosen(cli.log_format).and_then(|format| {
        logging::start(format, cli.command.default_log())?;
        cli.command.run(format, &mut out)
    });
    let Err(failure) = done else { return ExitCode::SUCCESS };
    let why = failure.to_string();
    if !why.is_empty() {
        logging::tell_failure(&why);
    }
    ExitCode::from(failure.exit_status())
}
