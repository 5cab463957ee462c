//! The Debian package, made from the program under test, by real `dpkg` in a copy of this machine: installed, upgraded, removed, purged; and lintian's word on it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use seeway_tests::{machine::seeway, turn::Turn};
use tempfile::TempDir;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("it is there")
}

/// What a command printed, which must end well.
fn run(command: &mut Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{program} ended with {status}:\n{said}");
    said
}

/// Makes the package from the program under test, as this version.
fn build(folder: &Path, version: &str) -> PathBuf {
    let mut command = Command::new(repository().join("deploy/debian/build"));
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

#[test]
fn the_package_is_installed_upgraded_removed_and_purged() {
    let _turn = Turn::alone();
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root, for a copy of this machine: run tests/run as root"
    );
    let folder = TempDir::new().expect("the temporary folder can be written");
    let version = env!("CARGO_PKG_VERSION");
    let first = build(&folder.path().join("first"), &format!("{version}-1"));
    let second = build(&folder.path().join("second"), &format!("{version}-2"));

    let said = run(Command::new("lintian")
        .args(["--allow-root", "--fail-on", "error", "--tag-display-limit", "0"])
        .arg(&first));
    assert!(!said.contains("E: "), "lintian:\n{said}");
    println!("{said}");

    let test = folder.path().join("test");
    fs::create_dir(&test).expect("written");
    for (from, to) in [(&first, "first.deb"), (&second, "second.deb")] {
        fs::copy(from, test.join(to)).expect("copied");
    }
    fs::copy(seeway().get_program(), test.join("seeway")).expect("copied");
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("package");
    fs::copy(scripts.join("steps"), test.join("steps")).expect("copied");
    let copy = folder.path().join("copy");
    fs::create_dir(&copy).expect("written");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh"]);
    let said = run(command.arg(scripts.join("in-a-copy")).arg(&test).arg(&copy));
    assert!(said.contains("all steps done"), "{said}");
    println!("{said}");
}
