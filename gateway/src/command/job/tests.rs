//! The four ways, and what a script sees of each.

use std::path::PathBuf;

use clap::Parser as _;
use serde_json::Value;

use super::super::test_peers::{
    Grpc, Machine, Manner, PUBLISHED_AS, SshServer, USER, UnixMachine, WORLD, line, new_key, write_identity,
};
use super::super::{Cli, Command};
use super::*;

/// A peer for each way, and the arguments that lead there.
struct Peers {
    directory: tempfile::TempDir,
    grpc: Grpc,
    machine: Machine,
    _unix: UnixMachine,
    ssh: SshServer,
    identity: PathBuf,
}

impl Peers {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let key = new_key();
        let identity = write_identity(directory.path(), &key);
        let unix = Machine::start_at(directory.path().join("s"));
        Self {
            grpc: Grpc::start(),
            machine: Machine::start(Manner::Reverse),
            _unix: unix,
            ssh: SshServer::start(&key),
            identity,
            directory,
        }
    }

    fn ways(&self) -> [Vec<String>; 4] {
        let owned = |arguments: &[&str]| arguments.iter().map(|argument| (*argument).to_owned()).collect();
        [
            owned(&[&format!("grpc://{}", self.grpc.address), "--world", WORLD]),
            owned(&[&format!("tcp:{}", self.machine.address), "--world", PUBLISHED_AS]),
            owned(&[&format!("unix:{}", self.directory.path().join("s").display()), "--world", PUBLISHED_AS]),
            owned(&[
                &format!("ssh://{USER}@{}", self.ssh.address),
                "--identity",
                &self.identity.display().to_string(),
                "--host-key",
                &self.ssh.host_key,
                "--seejobs",
                &self.machine.address.to_string(),
            ]),
        ]
    }
}

/// What `seeway job` does with these arguments, not on a terminal: how it ends, stdout, stderr.
fn job(way: &[String], more: &[&str]) -> (Result<(), Failure>, Vec<u8>, String) {
    let arguments = ["seeway", "job"].into_iter().chain(way.iter().map(String::as_str)).chain(more.iter().copied());
    let cli = Cli::try_parse_from(arguments).expect("a command line");
    let Command::Job(args) = cli.command else { panic!("another command") };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let done = send(&args, &mut out, &mut err, false);
    (done, out, String::from_utf8(err).expect("text"))
}

#[test]
fn every_way_brings_the_same_bytes() {
    let peers = Peers::start();
    let file = peers.directory.path().join("job");
    let large: Vec<u8> = (0..262_100_u32).map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[1]).collect();
    std::fs::write(&file, &large).expect("written");
    let reversed: Vec<u8> = large.iter().rev().copied().collect();
    for way in peers.ways() {
        for (input, reply) in [
            (["--data", "hello"], b"olleh".as_slice()),
            (["--data", ""], b""),
            (["--hex", "00ff0a"], b"\x0a\xff\x00"),
            (["--file", &file.display().to_string()], &reversed),
        ] {
            let (done, out, err) = job(&way, &input);
            assert_eq!((done, err.as_str()), (Ok(()), ""), "{way:?}");
            assert!(out == reply, "{way:?} {input:?}: {} bytes instead of {}", out.len(), reply.len());
        }
        let (done, out, _) = job(&way, &["--data", "hello", "--output", "hex"]);
        assert_eq!((done, out.as_slice()), (Ok(()), b"6f6c6c6568\n".as_slice()));
    }
}

#[test]
fn many_replies_are_lines_in_order() {
    let peers = Peers::start();
    for way in peers.ways() {
        let (done, out, err) = job(&way, &["--data", "ab", "--count", "300"]);
        assert_eq!((done, err.as_str()), (Ok(()), ""), "{way:?}");
        assert_eq!(out, b"ba\n".repeat(300));
    }
}

#[test]
fn a_job_without_a_reply_is_told_with_its_reason_and_whether_it_may_have_run() {
    let peers = Peers::start();
    for way in peers.ways() {
        let (done, out, err) = job(&way, &["--data", "fail SECRET", "--count", "2"]);
        assert_eq!((done, out.as_slice()), (Err(Failure::Said), b"".as_slice()), "{way:?}");
        let lines: Vec<&str> = err.lines().collect();
        assert_eq!(lines.len(), 2, "{err}");
        assert!(lines[1].starts_with("seeway: job 2 has no reply: "), "{err}");
        for part in ["reason=MACHINE_STATUS", "may_have_run=true", "status=65536"] {
            assert!(lines[1].contains(part), "{way:?}: {err}");
        }
        assert!(!err.contains("SECRET"), "{err}");
    }
}

#[test]
fn a_job_that_is_not_answered_in_time_may_have_run() {
    let peers = Peers::start();
    for way in peers.ways() {
        let (done, _, err) = job(&way, &["--data", "hush", "--timeout", "300ms"]);
        assert_eq!(done, Err(Failure::Said), "{way:?}");
        assert!(err.contains("reason=OUTCOME_UNKNOWN") && err.contains("may_have_run=true"), "{way:?}: {err}");
    }
}

#[test]
fn json_has_an_object_for_each_job() {
    let peers = Peers::start();
    for way in peers.ways() {
        let (done, out, _) = job(&way, &["--data", "ab", "--count", "2", "--json"]);
        assert_eq!(done, Ok(()));
        let lines: Vec<Value> = String::from_utf8(out)
            .expect("text")
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[1]["job"], &lines[1]["ok"]), (&Value::from(2), &Value::from(true)));
        assert_eq!((&lines[1]["reply_hex"], &lines[1]["reply_text"]), (&Value::from("6261"), &Value::from("ba")));
        let (done, out, err) = job(&way, &["--data", "fail", "--json"]);
        assert_eq!((done, err.as_str()), (Err(Failure::Said), ""));
        let failed: Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!((&failed["ok"], &failed["reason"]), (&Value::from(false), &Value::from("MACHINE_STATUS")));
        assert_eq!((&failed["status"], &failed["may_have_run"]), (&Value::from(0x1_0000), &Value::from(true)));
    }
}

#[test]
fn a_world_that_is_not_there_is_named() {
    let peers = Peers::start();
    for way in peers.ways().iter_mut().take(3) {
        *way.last_mut().expect("the world's name") = "nowhere".to_owned();
        let (done, out, err) = job(way, &["--data", "x"]);
        let said = format!("{}{err}", done.as_ref().expect_err("no such world"));
        assert_eq!((done.expect_err("no such world").exit_status(), out.len()), (1, 0));
        assert!(said.contains("nowhere") || said.contains("NO_SUCH_WORLD"), "{way:?}: {said}");
    }
}

#[test]
fn what_ssh_needs_is_asked_for() {
    let peers = Peers::start();
    let [_, _, _, ssh] = peers.ways();
    let without = |name: &str| {
        let position = ssh.iter().position(|argument| argument == name).expect("there");
        [&ssh[..position], &ssh[position + 2..]].concat()
    };
    for name in ["--identity", "--host-key"] {
        let (done, _, _) = job(&without(name), &["--data", "x"]);
        let failure = done.expect_err("misused");
        assert_eq!(failure.exit_status(), 2);
        assert!(failure.to_string().contains(name), "{failure}");
    }
    let (done, _, _) = job(&peers.ways()[0], &["--data", "x", "--identity", "id"]);
    assert_eq!(done.expect_err("misused").exit_status(), 2);
    let (done, _, _) = job(&["grpc://127.0.0.1:1".to_owned()], &["--data", "x"]);
    assert!(done.expect_err("misused").to_string().contains("--world"));
}

#[test]
fn another_host_key_than_the_pinned_one_sends_nothing() {
    let peers = Peers::start();
    let [_, _, _, mut ssh] = peers.ways();
    let position = ssh.iter().position(|argument| argument == "--host-key").expect("there");
    ssh[position + 1] = line(&new_key());
    let (done, out, _) = job(&ssh, &["--data", "x"]);
    let failure = done.expect_err("another host key");
    assert_eq!((failure.exit_status(), out.len()), (1, 0));
    assert_eq!(failure.to_string().matches("SHA256:").count(), 2, "{failure}");
}

#[test]
fn known_hosts_will_do_for_a_host_key() {
    let peers = Peers::start();
    let [_, _, _, mut ssh] = peers.ways();
    let position = ssh.iter().position(|argument| argument == "--host-key").expect("there");
    let file = peers.directory.path().join("known_hosts");
    let text = format!("[127.0.0.1]:{} {}\n", peers.ssh.address.port(), peers.ssh.host_key);
    std::fs::write(&file, text).expect("written");
    ssh[position] = "--known-hosts".to_owned();
    ssh[position + 1] = file.display().to_string();
    let (done, out, _) = job(&ssh, &["--data", "ab"]);
    assert_eq!((done, out.as_slice()), (Ok(()), b"ba".as_slice()));
}
