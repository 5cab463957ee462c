//! What `seeway check` prints, for files with problems and machines of every kind.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::super::test_peers::{ClosedPort, Machine, Manner, SshServer, line, new_key, write_identity};
use super::*;

struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    fn write(&self, text: &str) -> PathBuf {
        let file = self.directory.path().join("seeway.toml");
        std::fs::write(&file, text).expect("written");
        file
    }
}

fn check(file: PathBuf, connect: bool, json: bool) -> (Result<(), Failure>, String) {
    let mut out = Vec::new();
    let (who, groups) = (None, Vec::new());
    let args = Args { config: Some(file), connect, json, reference: false, algorithms: false, who, groups };
    let done = run(&args, &mut out);
    (done, String::from_utf8(out).expect("text"))
}

/// A `[[machine]]` for each (name, address, user, host key, SEEJobs port), all in one world.
fn config(machines: &[(&str, String, &str, &str, u16)]) -> String {
    let mut text = "[listen]\nhardserver = []\n[ssh]\nconnect_timeout = \"20s\"\n".to_owned();
    for (name, address, user, host_key, port) in machines {
        write!(
            text,
            "[[machine]]\nname = \"{name}\"\naddress = \"{address}\"\nuser = \"{user}\"\nidentity = \"identity\"\n\
             host_key = \"{host_key}\"\nseejobs_port = {port}\n"
        )
        .expect("written");
    }
    let names: Vec<_> = machines.iter().map(|(name, ..)| format!("\"{name}\"")).collect();
    write!(text, "[[world]]\nname = \"signer\"\nmachines = [{}]\n", names.join(", ")).expect("written");
    text
}

#[test]
fn every_problem_is_printed_and_the_status_is_1() {
    let site = Site::new();
    let file = site.write("[listen]\ngrpc = 5\nhardserver = []\n[limits]\nqueue = 0\n");
    let (done, out) = check(file.clone(), true, false);
    assert_eq!(done, Err(Failure::Said));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 5, "{out}");
    assert_eq!(
        lines[2],
        format!("{}:2:8: listen.grpc: is an integer; write a string in double quotes", file.display())
    );
    assert_eq!(lines[4], "4 problems");

    let (done, out) = check(file, false, true);
    assert_eq!(done, Err(Failure::Said));
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(found["problems"].as_array().map(Vec::len), Some(4));
    assert_eq!(found["problems"][3]["line"], 5);
    assert_eq!(found["problems"][3]["key"], "limits.queue");
}

#[test]
fn a_good_file_is_summed_up() {
    let site = Site::new();
    let key = new_key();
    write_identity(site.directory.path(), &key);
    let file = site.write(&config(&[("hsm-a", "hsm-a.example:22".to_owned(), "codesafe", &line(&key), 8888)]));
    let (done, out) = check(file.clone(), false, false);
    assert_eq!(done, Ok(()));
    for part in ["hsm-a.example:22", "SHA256:", "signer", "grpc=127.0.0.1:50051", "no problems"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (done, out) = check(file, false, true);
    assert_eq!(done, Ok(()));
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(found["worlds"][0]["machines"][0], "hsm-a");
    assert_eq!(found["machines"][0]["worlds"][0], "signer");
    assert!(found.get("connect").is_none());
}

#[test]
fn connect_says_which_step_fails_and_why() {
    let site = Site::new();
    let identity = new_key();
    write_identity(site.directory.path(), &identity);
    let server = SshServer::start(&identity);
    let stranger = SshServer::start(&new_key());
    let machine = Machine::start(Manner::Reverse);
    let closing = Machine::start(Manner::Close);
    let babbling = Machine::start(Manner::Babble);
    let (closed, nowhere) = (ClosedPort::new(), ClosedPort::new());
    let ssh = server.address.to_string();
    let other_key = line(&new_key());
    let good_port = machine.address.port();
    let file = site.write(&config(&[
        ("good", ssh.clone(), "codesafe", &server.host_key, good_port),
        ("wrong-host-key", ssh.clone(), "codesafe", &other_key, good_port),
        ("wrong-user", ssh.clone(), "nobody", &server.host_key, good_port),
        ("wrong-key", stranger.address.to_string(), "codesafe", &stranger.host_key, good_port),
        ("closed-port", format!("127.0.0.1:{}", closed.port()), "codesafe", &server.host_key, good_port),
        ("no-name", "no-such-host.invalid:22".to_owned(), "codesafe", &server.host_key, good_port),
        ("no-ssh", babbling.address.to_string(), "codesafe", &server.host_key, good_port),
        ("to-nowhere", ssh.clone(), "codesafe", &server.host_key, nowhere.port()),
        ("closing", ssh.clone(), "codesafe", &server.host_key, closing.address.port()),
        ("babbling", ssh.clone(), "codesafe", &server.host_key, babbling.address.port()),
    ]));

    let (done, out) = check(file.clone(), true, false);
    assert_eq!(done, Err(Failure::Said));
    for (name, stage, why) in [
        ("wrong-host-key", "host key", "SHA256:"),
        ("wrong-user", "login", "user \"nobody\""),
        ("wrong-key", "login", "authorized keys"),
        ("closed-port", "TCP", "refused"),
        ("no-name", "TCP", "can not be resolved"),
        ("no-ssh", "SSH", "is no SSH server"),
        ("to-nowhere", "port", "could not connect"),
        ("closing", "NoOp", "closed the stream"),
        ("babbling", "NoOp", "does not speak SEEJobs"),
    ] {
        let begins = format!("{name}: {stage} failed: ");
        let said = out.lines().find(|line| line.starts_with(&begins));
        assert!(said.is_some_and(|said| said.contains(why)), "{begins} … {why}\n{out}");
    }
    let good = out.lines().find(|line| line.starts_with("good ") && line.contains(" ok ")).expect("a row");
    assert_eq!(good.matches(" ok ").count(), 6, "{good}");
    assert!(out.ends_with("1 of 10 machines reached\n"), "{out}");

    let (_, out) = check(file, true, true);
    let found: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(found["connect"][0]["ok"], true);
    assert_eq!(found["connect"][1]["failed_stage"], "host key");
}

#[test]
fn a_machine_that_answers_ends_with_success() {
    let site = Site::new();
    let identity = new_key();
    write_identity(site.directory.path(), &identity);
    let server = SshServer::start(&identity);
    let machine = Machine::start(Manner::Reverse);
    let text = config(&[("a", server.address.to_string(), "codesafe", &server.host_key, machine.address.port())]);
    let (done, out) = check(site.write(&text), true, false);
    assert_eq!(done, Ok(()), "{out}");
    assert!(out.ends_with("1 of 1 machine reached\n"), "{out}");
}

#[test]
fn the_page_of_algorithms_is_what_the_policies_allow() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/algorithms.md")).expect("the page");
    let mut out = Vec::new();
    let (who, groups) = (None, Vec::new());
    let args = Args { config: None, connect: false, json: false, reference: false, algorithms: true, who, groups };
    assert_eq!(run(&args, &mut out), Ok(()));
    let hint = "write it anew: cargo run -p seeway -- check --algorithms > docs/algorithms.md";
    assert!(page.as_bytes() == out, "{hint}");

    let mut out = Vec::new();
    assert_eq!(run(&Args { json: true, ..args }, &mut out), Ok(()));
    let found: Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(found["modern"]["key exchange"][0], "mlkem768x25519-sha256");
    assert_eq!(found["fips"]["key exchange"][0], "ecdh-sha2-nistp256");
}
