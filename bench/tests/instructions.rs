//! Counting under valgrind: that it counts what happens, and the same each time.

use std::path::Path;
use std::process::Command;

use seeway_bench::micro::callgrind::{CountError, Counts};

const PROGRAM: &str = env!("CARGO_BIN_EXE_seeway-instructions");

fn counts(scenario: &str, jobs: u64) -> Counts {
    let counts = Counts::of(Path::new(PROGRAM), &["run", scenario, &jobs.to_string()]);
    counts.unwrap_or_else(|error| panic!("{scenario}: {error}"))
}

#[test]
fn counts_are_the_same_each_time_and_grow_with_the_jobs() {
    let [none, one, two, again] = [0, 64, 128, 128].map(|jobs| counts("decode-job", jobs));
    // Addresses of the process's own arguments and the like move a little between runs.
    assert!(two.instructions.abs_diff(again.instructions) < 2000, "{} {}", two.instructions, again.instructions);
    let (first, second) = (one.instructions - none.instructions, two.instructions - one.instructions);
    assert!((64 * 50..64 * 5000).contains(&second), "{second} instructions for 64 jobs");
    assert!(first.abs_diff(second) < 4000, "decoding has no warm-up: {first} and {second} instructions");
    assert_eq!(none.allocations, two.allocations, "decoding allocates nothing");
}

#[test]
fn allocations_are_counted() {
    // Each caller that is set up has at least two things that its tasks wait on, and a buffer of its jobs.
    let [one, many] = ["path-1x1", "path-256x1"].map(|scenario| counts(scenario, 0).allocations);
    assert!(many >= one + 255 * 3, "{one} for one caller, {many} for 256");
}

#[test]
fn a_program_that_fails_is_reported_with_what_it_said() {
    let error = Counts::of(Path::new(PROGRAM), &["run", "nothing", "1"]).expect_err("no scenario has this name");
    assert!(matches!(&error, CountError::Failed { said, .. } if said.contains("decode-job")), "{error}");
}

#[test]
fn figures_of_a_debug_build_are_not_compared() {
    let output = Command::new(PROGRAM).args(["--check", "instructions.json"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    // The tests may be built either way.
    let expected = if cfg!(debug_assertions) { "debug build" } else { "instructions.json" };
    assert!(!output.status.success() && said.contains(expected), "{said}");
}
