//! What is in the repository besides the tests: pages, samples, schemas, and the programs that make and check them.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// Its folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate's folder is in the repository's")
}

/// A file's text.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What a command that must end well prints on stdout. Panics with all that it printed where it does not.
pub fn run(command: &mut Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = String::from_utf8_lossy(&stdout);
    assert!(status.success(), "{program} ended with {status}:\n{text}{}", String::from_utf8_lossy(&stderr));
    text.into_owned()
}
