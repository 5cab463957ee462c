//! What `deploy/` holds is accepted by the program, once the site's own keys are in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

fn deploy(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn seeway(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seeway"));
    let Output { status, stdout, stderr } = command.args(arguments).output().expect("the binary runs");
    assert_eq!(String::from_utf8_lossy(&stderr), "", "{arguments:?}");
    (status.code(), String::from_utf8(stdout).expect("text"))
}

/// The sample, and a directory that stands in for /etc/seeway and /run/seeway.
struct Site {
    directory: tempfile::TempDir,
    host_key: String,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().display().to_string();
        let (status, _) = seeway(&["keygen", &path]);
        assert_eq!(status, Some(0));
        let public = std::fs::read_to_string(directory.path().join("id_ed25519.pub")).expect("keygen wrote it");
        Self { directory, host_key: public.trim().to_owned() }
    }

    /// The sample with this site's directory and host key in it.
    fn filled_in(&self) -> String {
        let path = self.directory.path().display().to_string();
        let mut text = deploy("seeway.toml").replace("/etc/seeway/", &format!("{path}/"));
        for machine in ["A", "B"] {
            let blank = format!("ssh-ed25519 REPLACE-WITH-THE-HOST-KEY-OF-HSM-{machine}");
            assert!(text.contains(&blank), "hsm-{machine} has a blank");
            text = text.replace(&blank, &self.host_key);
        }
        text
    }

    fn write(&self, text: &str) -> PathBuf {
        let file = self.directory.path().join("seeway.toml");
        std::fs::write(&file, text).expect("written");
        file
    }

    /// What `seeway check --json` says of a configuration.
    fn check(&self, text: &str) -> (Option<i32>, Value) {
        let file = self.write(text);
        let (status, out) = seeway(&["check", "--config", &file.display().to_string(), "--json"]);
        (status, serde_json::from_str(&out).expect("JSON"))
    }

    /// `unix:/run/seeway/nserver`, which is the default and there only where the service runs, in this site's directory.
    fn with_socket_here(&self, text: &str) -> String {
        let here = format!("unix:{}/nserver", self.directory.path().display());
        let commented = "#hardserver = [\"unix:/run/seeway/nserver\"";
        assert!(text.contains(commented), "the sample shows where the socket is");
        let text = text.replace(commented, &format!("hardserver = [\"{here}\""));
        text.replace("unix:/run/seeway/handover", &format!("unix:{}/handover", self.directory.path().display()))
    }
}

fn keys_of(problems: &Value) -> BTreeSet<&str> {
    problems.as_array().expect("a list").iter().filter_map(|problem| problem["key"].as_str()).collect()
}

/// Keys without a default: what they name is a site's own, and not here.
const HAVE_NO_DEFAULT: &[&str] =
    &["socket_group", "profile", "upstream_hardserver", "jwks", "issuer", "audience", "ca", "user", "connect_ports"];

/// A line such as `#queue = 4096`: a key with its default. Prose begins with a blank after the `#`.
fn commented_key(line: &str) -> Option<&str> {
    let line = line.strip_prefix('#')?;
    let (key, _) = line.split_once(" = ")?;
    (!key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')).then_some(key)
}

#[test]
fn the_sample_has_no_problem_but_the_blanks() {
    let site = Site::new();
    let (status, found) = site.check(&deploy("seeway.toml"));
    assert_eq!(status, Some(1));
    for key in keys_of(&found["problems"]) {
        // The first four name files that are not on this machine.
        let is_blank = ["identity", "hardserver", "handover", "host_key"].iter().any(|blank| key.ends_with(blank));
        assert!(is_blank, "{key}: {found}");
    }
    assert_eq!(found.to_string().matches("is not a public key").count(), 2, "{found}");
}

#[test]
fn the_sample_with_a_sites_keys_is_accepted() {
    let site = Site::new();
    let (status, found) = site.check(&site.with_socket_here(&site.filled_in()));
    assert_eq!((status, &found["problems"]), (Some(0), &Value::Array(Vec::new())), "{found}");
    assert_eq!(found["worlds"][0]["machines"], serde_json::json!(["hsm-a", "hsm-b"]));
    assert_eq!(found["worlds"][0]["published_as"], "seeway-signer");
}

#[test]
fn every_commented_default_is_one() {
    let site = Site::new();
    let sample = site.with_socket_here(&site.filled_in());
    let uncommented: Vec<&str> = sample
        .lines()
        .map(|line| match commented_key(line) {
            Some(key) if HAVE_NO_DEFAULT.contains(&key) => line,
            None => line,
            Some(_) => &line[1..],
        })
        .collect();
    let (status, found) = site.check(&uncommented.join("\n"));
    assert_eq!(status, Some(0), "{found}");

    // Each is in the reference, with the default that the reference has.
    let (status, reference) = seeway(&["check", "--reference"]);
    assert_eq!(status, Some(0));
    let mut section = "";
    for line in sample.lines() {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']);
        }
        let Some(key) = commented_key(line).filter(|key| !HAVE_NO_DEFAULT.contains(key)) else { continue };
        let (_, value) = line.split_once(" = ").expect("a key and its value");
        let headings = [format!("`[{section}]`"), format!("`[[{section}]]`")];
        let mut tables = reference.split("\n## ");
        let table = tables.find(|table| headings.iter().any(|heading| table.starts_with(heading))).expect("a section");
        let row = table.lines().find(|row| row.starts_with(&format!("| `{key}` |")));
        let row = row.unwrap_or_else(|| panic!("[{section}] has no {key}"));
        assert!(row.contains(&format!("| `{value}` |")), "{line}: the reference has {row}");
    }
}

#[test]
fn every_key_is_in_the_sample() {
    let (_, reference) = seeway(&["check", "--reference"]);
    let sample = deploy("seeway.toml");
    let keys = reference.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(key, _)| key);
    let mut count = 0;
    for key in keys {
        let is_there = |line: &str| line.trim_start_matches('#').trim_start().contains(&format!("{key} = "));
        assert!(sample.lines().any(is_there), "{key} is not in deploy/seeway.toml");
        count += 1;
    }
    assert!(count > 30, "the reference has more than {count} keys");
}

#[test]
fn the_unit_leaves_a_drain_its_time_and_callers_their_file_descriptors() {
    let unit = deploy("systemd/seeway.service");
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
        line.unwrap_or_else(|| panic!("the unit has no {key}"))
    };
    let number = |key: &str| -> u64 { value(key).parse().unwrap_or_else(|_| panic!("{key} is a number")) };
    let site = Site::new();
    let file = site.write(&site.with_socket_here(&site.filled_in()));
    let config = seeway::config::Config::load(&file).expect("accepted");

    let last_answers = Duration::from_secs(4);
    assert!(Duration::from_secs(number("TimeoutStopSec")) > config.runtime.drain_timeout + last_answers);
    let tunnels: usize = config.machines.iter().map(|machine| machine.tunnels * config.runtime.shards).sum();
    let needed = config.limits.callers + 2 * (config.limits.pipes + tunnels) + 128;
    assert!(number("LimitNOFILE") >= needed as u64, "{needed} file descriptors may be needed");
    assert!(value("ExecStart").ends_with("/seeway serve --config /etc/seeway/seeway.toml"));
    assert_eq!(value("ExecReload"), "/usr/bin/seeway upgrade --if-replaced --config /etc/seeway/seeway.toml");
    assert_eq!(
        (value("Type"), value("NotifyAccess")),
        ("notify", "all"),
        "the next gateway tells that it is the main process"
    );
    // The socket of the default configuration is in the directory that the unit makes.
    assert_eq!(value("RuntimeDirectory"), "seeway");
    assert_eq!((value("User"), value("Group")), ("seeway", "seeway"));
    assert!(deploy("systemd/seeway.sysusers.conf").lines().any(|line| line.starts_with("u seeway ")));
}

#[test]
fn the_unit_leaves_the_gateway_what_it_confines_itself_with_and_is_as_strict_as_can_be() {
    let unit = deploy("systemd/seeway.service");
    let lines: BTreeSet<&str> = unit.lines().collect();
    for line in [
        "NotifyAccess=all",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "LimitCORE=0",
        "LimitMEMLOCK=infinity",
        "SystemCallFilter=seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    ] {
        assert!(lines.contains(line), "{line}");
    }
    // The folder of seeway.socket stays while the gateway does not run. Of a user that systemd makes up it would be where callers can't come.
    assert!(lines.contains("RuntimeDirectoryPreserve=yes") && !unit.contains("DynamicUser=yes"));

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/seeway.service");
    let analysed = Command::new("systemd-analyze").args(["security", "--offline=true"]).arg(&file).output();
    let Output { stdout, stderr, .. } = analysed.expect("systemd-analyze is installed (Debian's package systemd)");
    let said = String::from_utf8_lossy(&stdout);
    let exposure =
        said.lines().find_map(|line| line.split_once("exposure level for seeway.service:")).map(|(_, rest)| rest);
    let exposure =
        exposure.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<f64>().ok());
    let exposure = exposure.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&stderr)));
    // One tenth of it is NotifyAccess=all: the next gateway has to say that it is the main process.
    assert!(exposure < 1.6, "{exposure}: {said}");
}
