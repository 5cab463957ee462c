//! The Python peers in `tests/python/`: clients and a machine that share no code with Seeway.

use std::{env, path::PathBuf, process::Command, time::Duration};

use crate::process::Process;

/// How long one of the scripts may run.
const BOUND: Duration = Duration::from_secs(300);

/// Runs `tests/python/SCRIPT` with these arguments. Panics with what it printed unless it ends with 0; gives its output.
pub fn run<S: AsRef<std::ffi::OsStr>>(script: &str, arguments: impl IntoIterator<Item = S>) -> String {
    finish(start(script, arguments))
}

/// Starts one of the scripts, to be [finished](finish).
pub fn start<S: AsRef<std::ffi::OsStr>>(script: &str, arguments: impl IntoIterator<Item = S>) -> Process {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("python");
    let mut command = Command::new(interpreter());
    command.arg("-u").arg(folder.join(script)).args(arguments).env("PYTHONDONTWRITEBYTECODE", "1");
    Process::start(script, &mut command)
}

/// Waits for a script's end. Panics with what it printed unless it ends with 0; gives its output.
pub fn finish(mut script: Process) -> String {
    let status = script.exit(BOUND);
    let log = script.log();
    assert!(status.success(), "{} ended with {status}", script.name());
    println!("{log}");
    log
}

/// The interpreter of the environment that tests/run makes.
fn interpreter() -> PathBuf {
    let path = env::var_os("SEEWAY_PYTHON")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python"), PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing: tests/run makes this environment, with the gRPC packages in it",
        path.display()
    );
    path
}
