//! The Debian package, made from the program under test, by real `dpkg` in a copy of this machine: installed, upgraded, removed, purged; and lintian's word on it.
//! On a bare Debian, too, with all that `apt` has to bring along.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use seeway_tests::{
    machine::seeway,
    repository::{root, run},
    turn::Turn,
};
use tempfile::TempDir;

/// Makes the package from the program under test, as this version.
fn build(folder: &Path, version: &str) -> PathBuf {
    let mut command = Command::new(root().join("deploy/debian/build"));
    command.arg("--fast").arg("--binary").arg(seeway().get_program()).arg("--output").arg(folder);
    run(command.args(["--deb-version", version]));
    let packages: Vec<_> = fs::read_dir(folder)
        .expect("it made the folder")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.to_string_lossy().contains(&format!("_{version}_")))
        .collect();
    let [package] = &packages[..] else { panic!("version {version} is {packages:?}") };
    package.clone()
}

/// What a copy of this machine is given: two versions of the package, the program with the emulator, and the steps.
fn prepare(folder: &Path) -> [PathBuf; 2] {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root, for a copy of this machine: run tests/run as root"
    );
    let version = env!("CARGO_PKG_VERSION");
    let packages = ["1", "2"].map(|revision| build(&folder.join(revision), &format!("{version}-{revision}")));
    let test = folder.join("test");
    fs::create_dir(&test).expect("written");
    for (from, to) in packages.iter().zip(["first.deb", "second.deb"]) {
        fs::copy(from, test.join(to)).expect("copied");
    }
    fs::copy(seeway().get_program(), test.join("seeway")).expect("copied");
    for file in ["common", "steps", "steps-bare", "steps-booted"] {
        fs::copy(scripts().join(file), test.join(file)).expect("copied");
    }
    fs::create_dir(folder.join("copy")).expect("written");
    packages
}

fn scripts() -> PathBuf {
    root().join("tests/package")
}

/// Runs steps in a copy of this machine.
fn in_a_copy(folder: &Path, namespaces: &[&str], steps: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child"]).args(namespaces).arg("sh");
    // What an operator's shell may have.
    command.env_remove("PRODUCTION").env_remove("LOWER");
    command.arg(scripts().join("in-a-copy")).arg(folder.join("test")).arg(folder.join("copy")).args(steps);
    command
}

#[test]
fn the_package_is_installed_upgraded_removed_and_purged() {
    let _turn = Turn::alone();
    let folder = TempDir::new().expect("the temporary folder can be written");
    let [first, _] = prepare(folder.path());
    let said = run(Command::new("lintian")
        .args(["--allow-root", "--fail-on", "error", "--tag-display-limit", "0"])
        .arg(&first));
    assert!(!said.contains("E: "), "lintian:\n{said}");
    println!("{said}");

    let said = run(&mut in_a_copy(folder.path(), &[], &["steps"]));
    assert!(said.contains("all steps done"), "{said}");
    println!("{said}");
}

/// docs/walkthrough.md by its own commands.
#[test]
fn on_a_bare_debian_from_the_package_to_the_cause_of_a_broken_tunnel() {
    let _turn = Turn::alone();
    let folder = TempDir::new().expect("the temporary folder can be written");
    prepare(folder.path());
    let bare = root().join("target/bare-debian");
    let packages = ["first.deb", "second.deb"].map(|package| folder.path().join("test").join(package));
    run(Command::new(scripts().join("bare-debian")).arg(&bare).args(packages));
    let said = run(in_a_copy(folder.path(), &[], &["steps-bare"]).env("LOWER", bare.join("root")));
    assert!(said.contains("all steps done"), "{said}");
    println!("{said}");
}

#[test]
fn where_systemd_runs_the_package_is_started_upgraded_under_load_and_watched_over() {
    let _turn = Turn::alone();
    let folder = TempDir::new().expect("the temporary folder can be written");
    prepare(folder.path());
    let booted = in_a_copy(folder.path(), &["--cgroup", "--ipc", "--uts"], &["steps-booted", "booted"]).output();
    let booted = booted.unwrap_or_else(|error| panic!("unshare: {error}"));
    let said = fs::read_to_string(folder.path().join("test/said")).unwrap_or_default();
    assert!(
        said.contains("all steps done"),
        "{said}\nsystemd: {}{}",
        String::from_utf8_lossy(&booted.stdout),
        String::from_utf8_lossy(&booted.stderr)
    );
    println!("{said}");
}
