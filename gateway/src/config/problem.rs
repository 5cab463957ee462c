//! What can be wrong with a configuration file: where, what, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Where something was configured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    Whole,
    /// In the file; both count from 1, columns in characters.
    File {
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// In the environment variable of this name.
    Environment(String),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The key's path, such as `machine[hsm-a].address`; empty where no key is to blame.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

/// Everything that is wrong with one file, in the file's order; never empty.
///
/// Displayed as one line for each problem: `FILE:LINE:COLUMN: key: what; what to do`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems {
    /// The configuration file.
    pub file: PathBuf,
    /// Its problems.
    pub list: Vec<Problem>,
}

impl Problems {
    /// The list, as `seeway check --json` and the admin port have it.
    pub fn to_json(&self) -> Value {
        self.list
            .iter()
            .map(|problem| {
                let (line, column, variable) = match &problem.place {
                    Place::Whole => (None, None, None),
                    Place::File { line, column } => (Some(line), Some(column), None),
                    Place::Environment(variable) => (None, None, Some(variable)),
                };
                json!({
                    "line": line,
                    "column": column,
                    "variable": variable,
                    "key": problem.key,
                    "what": problem.what,
                    "fix": problem.fix,
                })
            })
            .collect()
    }

    /// Whether the file would do for a gateway that starts, and only the one that runs can't take it over.
    pub fn need_restart(&self) -> bool {
        self.list.iter().all(|problem| problem.what == super::reload::NEEDS_RESTART)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.list.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            match &problem.place {
                Place::Whole => write!(f, "{}: ", self.file.display())?,
                Place::File { line, column } => {
                    write!(f, "{}:{line}:{column}: ", self.file.display())?;
                }
                Place::Environment(variable) => write!(f, "{variable}: ")?,
            }
            if !problem.key.is_empty() {
                write!(f, "{}: ", problem.key)?;
            }
            write!(f, "{}; {}", problem.what, problem.fix)?;
        }
        Ok(())
    }
}

/// What stands in a private key's text: PEM's first line, and what every key in OpenSSH's form begins with.
const SIGNS_OF_A_KEY: [&str; 2] = ["PRIVATE KEY", "b3BlbnNzaC1rZXkt"];

/// Problems repeat what was written. Whoever pasted a key into some other place than a file of its own must not find it in a log.
fn without_key(text: String, instead: &str) -> String {
    if SIGNS_OF_A_KEY.iter().any(|sign| text.contains(sign)) { instead.to_owned() } else { text }
}

/// Gathers problems while a file is read, so that the first does not hide the others.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    list: Vec<Problem>,
}

impl Gathered {
    /// Notes a problem.
    pub(super) fn add(
        &mut self,
        place: &Place,
        key: impl Into<String>,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let key = without_key(key.into(), "a private key's text");
        let what = without_key(what.into(), "is wrong, and has a private key's text in it");
        let fix = without_key(fix.into(), "put the key into a file of its own, with mode 0600");
        let place = match place {
            Place::Environment(variable) => Place::Environment(without_key(
                variable.clone(),
                "an environment variable with a private key's text for a name",
            )),
            Place::Whole | Place::File { .. } => place.clone(),
        };
        self.list.push(Problem { place, key, what, fix });
    }

    /// The value, if nothing was wrong; else the problems in the file's order.
    pub(super) fn verdict<T>(mut self, file: &Path, value: Option<T>) -> Result<T, Problems> {
        match value {
            Some(value) if self.list.is_empty() => Ok(value),
            _ => {
                self.list.sort_by(|one, other| one.place.cmp(&other.place));
                Err(Problems { file: file.to_owned(), list: self.list })
            }
        }
    }
}
