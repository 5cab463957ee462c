//! docs/walkthrough.md from the second step on, in one go: a hardserver's configuration is imported, filled in, started by the unit's
//! command, watched, drained, upgraded, and its broken tunnel explained. What each step does under load has tests of its own, which
//! the page names; the package is installed by package.rs.
//!
//! In a network namespace, since what an imported configuration leaves at its default are fixed ports.

use std::{fs, path::Path, process::Command};

use seeway_tests::{chaos::namespace, machine::seeway, process::Process, turn::Turn, wait};
use tempfile::TempDir;

const HARDSERVER: &str = "syntax-version=1

[server_settings]
connect_retry=1

[nethsm_imports]
local_module=1
remote_ip=127.0.0.1
remote_port=9004
remote_esn=1111-2222-3333

[codesafe]
esn=1111-2222-3333
worldid_pubname=signer
";

fn command(folder: &Path, words: &[&str]) -> Command {
    let mut command = seeway();
    command.args(words).current_dir(folder);
    command
}

/// What it printed on both streams, and whether it ended well.
fn run(folder: &Path, words: &[&str]) -> (bool, String) {
    let output = command(folder, words).output().expect("the binary runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), said)
}

/// The same, of what must end well.
fn done(folder: &Path, words: &[&str]) -> String {
    let (is_well, said) = run(folder, words);
    assert!(is_well, "seeway {}:\n{said}", words.join(" "));
    said
}

/// As with an editor: what is to be filled in, where this machine listens, and what a hardserver knows nothing of.
fn filled_in(imported: &str, address: &str, host_key: &str) -> String {
    let line = |line: &str| match line.split_once(" = ") {
        Some(("user", _)) => "user = \"codesafe\"".to_owned(),
        Some(("host_key", _)) => format!("host_key = {host_key}"),
        Some(("address", _)) => format!("address = \"{address}\""),
        Some(("hardserver", _)) => "hardserver = [\"unix:nserver\"]".to_owned(),
        Some(("handover", _)) => "handover = \"unix:handover\"".to_owned(),
        _ => line.to_owned(),
    };
    imported.lines().map(|text| line(text) + "\n").collect()
}

fn walk() {
    let place = TempDir::new().expect("the temporary folder can be written");
    let folder = place.path();
    done(folder, &["keygen", "."]);
    let emulate = ["emulate", "--app", "echo", "--ssh", "127.0.0.1:2222", "--authorized-keys", "id_ed25519.pub"];
    let mut machine = Process::start("the HSM", &mut command(folder, &emulate));
    let host_key = machine.line("host_key = ");
    machine.line("ready ");

    // 2. Import, and fill in what is asked for.
    fs::write(folder.join("config"), HARDSERVER).expect("the folder can be written");
    let said = done(folder, &["config", "import", "config", "--output", "seeway.toml"]);
    assert!(said.contains("machine[1111-2222-3333].host_key"), "{said}");
    let (is_well, said) = run(folder, &["check", "--config", "seeway.toml"]);
    assert!(!is_well && said.contains(".user") && said.contains(".host_key"), "{said}");
    let imported = fs::read_to_string(folder.join("seeway.toml")).expect("it was made");
    let text = filled_in(&imported, "127.0.0.1:2222", &host_key);
    fs::write(folder.join("seeway.toml"), text).expect("the folder can be written");
    let said = done(folder, &["check", "--config", "seeway.toml", "--connect"]);
    assert!(said.contains("1 of 1 machine reached"), "{said}");

    // 3. Start it.
    let mut gateway = Process::start("the gateway", &mut command(folder, &["serve", "--config", "seeway.toml"]));
    gateway.line("ready ");
    let job = ["job", "unix:nserver", "--world", "signer", "--data", "hello", "--output", "raw"];
    assert_eq!(done(folder, &job), "hello");

    // 4. See jobs.
    let ask = |path: &str| {
        let output = Command::new("curl").args(["-sS", &format!("http://127.0.0.1:9464{path}")]).output();
        String::from_utf8_lossy(&output.expect("curl can be started").stdout).into_owned()
    };
    assert!(ask("/").contains("<title>"), "the console is there");
    let state: serde_json::Value = serde_json::from_str(&ask("/api/state")).expect("JSON");
    assert_eq!(state["worlds"][0]["outcomes"]["replied"]["total"], 1, "{state}");

    // 5. Drain a machine, and take it back.
    let named = ["--machine", "1111-2222-3333"];
    let said = done(folder, &[&["drain", "--wait", "30s"], &named[..]].concat());
    assert!(said.contains("takes no new jobs; jobs in hand: 0"), "{said}");
    assert!(ask("/readyz").starts_with("not ready"));
    done(folder, &[&["resume"], &named[..]].concat());
    assert_eq!(done(folder, &job), "hello");

    // 6. Upgrade it: another process takes over, and the old one ends by itself.
    let mut next =
        Process::start("the next gateway", &mut command(folder, &["serve", "--take-over", "--config", "seeway.toml"]));
    next.line("ready ");
    assert_eq!(gateway.exit(wait::BOUND).code(), Some(0), "{}", gateway.log());
    assert_eq!(done(folder, &job), "hello");

    // 7. The HSM is gone: the doctor says which step fails, and what to do.
    machine.kill();
    let (is_well, said) = run(folder, &["doctor", "--config", "seeway.toml"]);
    let failed = said.lines().any(|line| line.starts_with("failed") && line.contains("1111-2222-3333"));
    assert!(!is_well && failed && said.contains("127.0.0.1:2222: refused") && said.contains("fix: "), "{said}");
}

#[test]
fn from_a_hardservers_configuration_to_the_cause_of_a_broken_tunnel() {
    if namespace::is_inside() {
        return walk();
    }
    let _turn = Turn::beside_others();
    if let Err(why) = namespace::are_there() {
        panic!("the ports are fixed, so this test needs a network namespace: {why}; run it as root");
    }
    let status = namespace::run_inside("from_a_hardservers_configuration_to_the_cause_of_a_broken_tunnel");
    assert!(status.success(), "see above: {status}");
}
