//! Writes the seeds of the fuzz targets: `cargo run -p seeway-targets -- tests/fuzz/corpus`.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("name the folder: seeway-seeds tests/fuzz/corpus");
        return ExitCode::from(2);
    };
    match seeway_targets::seeds::write(&folder) {
        Ok(count) => {
            println!("{count} seeds in {}", folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the seeds can not be written to {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}
