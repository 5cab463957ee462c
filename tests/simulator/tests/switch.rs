//! The deliberate bugs are where they belong: in the simulator, and in nothing that is shipped.

use std::process::Command;

use seeway_proto::bug::{self, Bug};

/// The features with which a package and everything below it is built when nobody asks for any.
fn features(package: &str, more: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--offline", "--locked", "--edges", "normal,build,features", "--package", package])
        .args(more)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("seeway-proto"), "{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn a_plain_build_has_no_deliberate_bugs() {
    for more in [&[][..], &["--no-default-features"]] {
        assert!(!features("seeway", more).contains("deliberate-bugs"), "{more:?}");
    }
    for package in ["seeway-client", "seeway-machine"] {
        assert!(!features(package, &[]).contains("deliberate-bugs"), "{package}");
    }
    assert!(features("seeway-simulator", &[]).contains("deliberate-bugs"), "or the tests above could not fail");
}

#[test]
fn a_bug_is_off_until_a_thread_switches_it_on_and_in_that_thread_only() {
    assert!(Bug::ALL.into_iter().all(|bug| !bug::is_on(bug)));
    {
        let _on = bug::SwitchedOn::new(Some(Bug::LeakOnCancel));
        assert!(bug::is_on(Bug::LeakOnCancel) && !bug::is_on(Bug::DuplicateOutcome));
        let elsewhere = std::thread::spawn(|| bug::is_on(Bug::LeakOnCancel));
        assert!(!elsewhere.join().expect("no panic"));
    }
    assert!(!bug::is_on(Bug::LeakOnCancel));
}
