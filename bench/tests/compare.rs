//! The comparison as it is run, for so short that its figures say nothing: what it starts, what it prints, how it ends.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// The gateway's program: of this build where it is there, else the comparison has cargo build it.
fn seeway() -> Vec<String> {
    let own = Path::new(env!("CARGO_BIN_EXE_seeway-bench"));
    let program = own.with_file_name("seeway");
    if program.is_file() { vec!["--seeway".to_owned(), program.display().to_string()] } else { Vec::new() }
}

#[test]
fn it_starts_everything_and_says_what_is_missed() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_seeway-bench"))
        .args(["compare", "--json", "--rounds", "2", "--seconds", "0.1", "--only", "3", "4", "8", "10", "11", "16"])
        .arg("--output")
        .arg(folder.path())
        .args(seeway())
        .output()
        .expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    assert!(said["machine"]["cores"].as_u64().is_some_and(|cores| cores > 0), "{said}");
    let measurements = said["measurements"].as_array().expect("a list");
    let rounds = |measurement: &Value| measurement["rounds"].as_array().map(Vec::len);
    assert!(measurements.len() > 8 && measurements.iter().all(|measurement| rounds(measurement) == Some(2)), "{said}");
    let bars = said["bars"].as_array().expect("a list");
    let rows: Vec<u64> = bars.iter().filter_map(|bar| bar["row"].as_u64()).collect();
    assert_eq!(rows, [3, 3, 4, 4, 8, 10, 11, 16], "{said}");
    for bar in bars {
        let (measured, required) = (bar["measured"].as_f64(), bar["required"].as_f64().expect("a figure"));
        let measured = measured.unwrap_or_else(|| panic!("{bar} was not measured: {errors}"));
        let passes = if bar["sense"] == "at_least" { measured >= required } else { measured <= required };
        assert_eq!(bar["pass"].as_bool(), Some(passes), "{bar}");
    }
    let all_pass = bars.iter().all(|bar| bar["pass"] == true);
    assert_eq!(output.status.code(), Some(i32::from(!all_pass)), "{errors}");
    let page = std::fs::read_to_string(folder.path().join("README.md")).expect("the report");
    assert!(bars.iter().all(|bar| page.contains(bar["name"].as_str().expect("a name"))), "{page}");
}

/// Processes that name this folder, as all do that the comparison starts with a configuration or a key.
fn naming(folder: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").expect("Linux has it");
    let commands = all.filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("cmdline")).ok());
    commands.filter(|command| command.contains(folder)).collect()
}

#[test]
fn a_signal_ends_what_it_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_seeway-bench"));
    command.args(["compare", "--only", "3", "--seconds", "60", "--output"]).arg(folder.path()).args(seeway());
    let mut compare = command.env("TMPDIR", folder.path()).stderr(Stdio::null()).spawn().expect("it starts");
    let place = folder.path().join("seeway-bench-").display().to_string();
    // sshd, ssh and the gateway.
    until("it has started everything", || naming(&place).len() >= 3);
    let id = i32::try_from(compare.id()).ok().and_then(Pid::from_raw).expect("a process");
    kill_process(id, Signal::TERM).expect("it runs");
    let ended = compare.wait().expect("it ends");
    assert_eq!(ended.code(), Some(1));
    until("everything has ended", || naming(&place).is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0, "the folder is gone, too");
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_can_not_be_compared_is_said() {
    let output = Command::new(env!("CARGO_BIN_EXE_seeway-bench"))
        .args(["compare", "--only", "16", "--seeway", "/nonexistent/seeway"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/seeway"));
    let output = Command::new(env!("CARGO_BIN_EXE_seeway-bench")).args(["compare", "--only", "17"]).output();
    assert_eq!(output.expect("it runs").status.code(), Some(2), "there is no such row");
}
