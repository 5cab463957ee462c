//! Every seed, and everything that a fuzzer ever found, through the same functions that the fuzzer calls.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use seeway_targets::{TARGETS, seeds};

/// The most that all seeds and findings may take: they are cloned with the repository.
const MOST_BYTES: u64 = 200 * 1024;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus")
}

/// The seeds and findings in a target's folder; what a fuzzer added on the way is its own business.
fn files(target: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(corpus().join(target))
        .unwrap_or_else(|error| panic!("the seeds of {target}: {error}"))
        .map(|entry| entry.expect("readable").path())
        .filter(|path| {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            name.starts_with(seeds::PREFIX) || name.starts_with("found-")
        })
        .collect();
    files.sort();
    files
}

#[test]
fn no_seed_and_no_finding_breaks_a_promise() {
    let mut failed = Vec::new();
    for target in TARGETS {
        let files = files(target.name);
        assert!(files.len() >= 5, "{} has {} seeds", target.name, files.len());
        for file in files {
            let bytes = fs::read(&file).expect("readable");
            // Each of them is tried, so that one run tells of all.
            if std::panic::catch_unwind(|| (target.run)(&bytes)).is_err() {
                failed.push(file);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn seeds_are_small_and_each_target_has_its_program() {
    let bytes: u64 = TARGETS
        .iter()
        .flat_map(|target| files(target.name))
        .map(|file| fs::metadata(file).expect("readable").len())
        .sum();
    assert!(bytes <= MOST_BYTES, "{bytes} bytes");
    let manifest = fs::read_to_string(corpus().join("../Cargo.toml")).expect("readable");
    let programs: BTreeSet<String> = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""))
        .map(str::to_owned)
        .collect();
    assert_eq!(programs, TARGETS.iter().map(|target| target.name.to_owned()).collect());
}

/// What is cut or has a byte changed is what fuzzers begin with; this much of it runs everywhere.
#[test]
fn no_seed_breaks_a_promise_where_it_is_cut_or_changed() {
    for target in TARGETS {
        for file in files(target.name) {
            let bytes = fs::read(&file).expect("readable");
            let steps = (bytes.len() / 12).max(1);
            for place in (0..bytes.len()).step_by(steps) {
                (target.run)(&bytes[..place]);
                let mut changed = bytes.clone();
                changed[place] ^= 1 << (place % 8);
                (target.run)(&changed);
            }
        }
    }
}
