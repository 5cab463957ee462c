//! What ran inside a machine, by its own account: the truth that callers' ledgers are compared with.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

/// The file that `seeway emulate --journal` appends a line to for each job that ran.
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How often each job ran, by the id that its caller gave it.
    pub fn runs(&self) -> HashMap<String, usize> {
        let text = fs::read_to_string(&self.path)
            .unwrap_or_else(|error| panic!("can't read {}: {error}", self.path.display()));
        let mut runs = HashMap::new();
        for line in text.lines() {
            *runs.entry(line.to_owned()).or_default() += 1;
        }
        runs
    }
}
