//! A gateway's audit log, read back: its records, and what `seeway audit verify` says of it.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use aws_lc_rs::digest;
use serde_json::Value;

use crate::machine::seeway;

/// The log's files, oldest first.
pub struct AuditLog {
    files: Vec<PathBuf>,
}

impl AuditLog {
    /// Of these files.
    pub fn of(files: &[&Path]) -> Self {
        Self { files: files.iter().map(|file| (*file).to_owned()).collect() }
    }

    /// All whole records, in order.
    pub fn records(&self) -> Vec<Value> {
        let text =
            |file: &PathBuf| fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let lines: String = self.files.iter().map(text).collect();
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The records of one kind of event.
    pub fn of_event(&self, event: &str) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["event"] == event).collect()
    }

    /// The records of jobs, by what the job's SHA-256 is; panics where a job has two, or none has a hash.
    pub fn jobs(&self) -> HashMap<String, Value> {
        let mut jobs = HashMap::new();
        for record in self.of_event("job") {
            let digest = record["job_sha256"].as_str().unwrap_or_else(|| panic!("{record} has no hash")).to_owned();
            if let Some(other) = jobs.insert(digest, record.clone()) {
                panic!("one job has two records: {other} and {record}");
            }
        }
        jobs
    }

    /// `seeway audit verify` with further arguments: whether it ended well, and what it printed.
    pub fn verify(&self, further: &[&str]) -> (bool, Value) {
        let mut command: Command = seeway();
        command.args(["audit", "verify", "--json"]).args(further).args(&self.files);
        let Output { status, stdout, stderr } = command.output().expect("the binary runs");
        let said = serde_json::from_slice(&stdout);
        let said = said.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr)));
        (status.success(), said)
    }

    /// The head and the count of records of a log whose chain holds; panics where it does not.
    #[track_caller]
    pub fn verified(&self) -> (String, u64) {
        let (is_well, said) = self.verify(&[]);
        assert!(is_well, "{said:#}");
        (said["head"].as_str().expect("a head").to_owned(), said["records"].as_u64().expect("a count"))
    }
}

/// SHA-256, as records have it.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
