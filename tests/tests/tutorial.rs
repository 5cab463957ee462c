//! docs/tutorial.md, as somebody new follows it: its commands are run in a folder of their own, and print what the page says.
//!
//! In a network namespace of their own, since the page's ports are fixed. A block marked `console` has commands behind `$ `, each with
//! what it prints below it; `console stays` has one that runs until the page's end, as in another terminal; `toml` is the
//! configuration. Blocks marked otherwise are not run.

use std::{
    collections::HashMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Signal;
use seeway_tests::{chaos::namespace, machine::seeway, process::Process, turn::Turn, wait};
use tempfile::TempDir;

/// What the page has somebody do.
#[derive(Debug)]
enum Step {
    /// A command that ends, and all that it prints.
    Run(String, Vec<String>),
    /// A command that stays, and lines that it prints, among others.
    Stay(String, Vec<String>),
    /// `seeway.toml`.
    Write(String),
}

/// The page's steps, in their order.
fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match kind {
            "toml" => steps.push(Step::Write(block.join("\n") + "\n")),
            "console" => steps.extend(commands(&block).into_iter().map(|(command, wanted)| Step::Run(command, wanted))),
            "console stays" => {
                steps.extend(commands(&block).into_iter().map(|(command, wanted)| Step::Stay(command, wanted)));
            }
            _ => {}
        }
    }
    steps
}

/// The commands of a block, each with the lines below it.
fn commands(block: &[&str]) -> Vec<(String, Vec<String>)> {
    let mut commands: Vec<(String, Vec<String>)> = Vec::new();
    for line in block {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push((command.to_owned(), Vec::new()));
        } else {
            let (_, printed) = commands.last_mut().expect("a block marked `console` begins with a command");
            printed.push((*line).to_owned());
        }
    }
    commands
}

/// What may be another at each place, and is one and the same wherever the page has it again.
#[derive(Default)]
struct Alike {
    there: HashMap<String, String>,
    back: HashMap<String, String>,
}

impl Alike {
    /// Whether a line is what the page says, but for keys, signatures and times.
    fn line(&mut self, wanted: &str, printed: &str) -> bool {
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let (wanted, printed) = (words(wanted), words(printed));
        let is_duration = |at: usize| {
            let is_unit = |words: &[String]| words.get(at + 1).is_some_and(|word| ["µs", "ms", "s"].contains(&&**word));
            let is_number = |words: &[String]| words[at].parse::<f64>().is_ok();
            [&wanted, &printed].iter().all(|words| is_unit(words) && is_number(words))
        };
        wanted.len() == printed.len()
            && wanted.iter().zip(&printed).enumerate().all(|(at, (wanted, printed))| {
                let is_unit = at > 0 && is_duration(at - 1);
                is_unit || is_duration(at) || self.word(wanted, printed)
            })
    }

    fn word(&mut self, wanted: &str, printed: &str) -> bool {
        match (kind(wanted), kind(printed)) {
            (None, None) => wanted == printed,
            (Some(Kind::Time), Some(Kind::Time)) => true,
            (Some(one), Some(other)) if one == other => {
                let there = self.there.entry(wanted.to_owned()).or_insert_with(|| printed.to_owned());
                let back = self.back.entry(printed.to_owned()).or_insert_with(|| wanted.to_owned());
                there == printed && back == wanted
            }
            _ => false,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    PublicKey,
    Fingerprint,
    Signature,
    Time,
}

fn kind(word: &str) -> Option<Kind> {
    let bare = word.trim_matches('"');
    let is_hex = || bare.bytes().all(|byte| byte.is_ascii_hexdigit());
    if bare.starts_with("AAAAC3NzaC1lZDI1NTE5AAAAI") {
        Some(Kind::PublicKey)
    } else if bare.starts_with("SHA256:") {
        Some(Kind::Fingerprint)
    } else if bare.len() == 128 && is_hex() {
        Some(Kind::Signature)
    } else if bare.len() == "2026-01-01T00:00:00.000000Z".len() && bare.ends_with('Z') && bare.contains('T') {
        Some(Kind::Time)
    } else {
        None
    }
}

/// A command of the page, with the program under test in `PATH`.
fn shell(command: &str, folder: &Path) -> Command {
    let program = seeway();
    let beside = Path::new(program.get_program()).parent().expect("a program is in a folder").to_owned();
    let path = env::var_os("PATH").expect("tests have a PATH");
    let folders: Vec<PathBuf> = [beside].into_iter().chain(env::split_paths(&path)).collect();
    let mut shell = Command::new("bash");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SEEWAY_")) {
        shell.env_remove(name);
    }
    shell.args(["-o", "pipefail", "-c", command]).current_dir(folder);
    shell.env("PATH", env::join_paths(folders).expect("these came out of a PATH"));
    // As the page has it, which was written on a small computer: with more cores there are more of them.
    shell.env("SEEWAY_RUNTIME__SHARDS", "1");
    shell
}

fn follow(page: &str) {
    let folder = TempDir::new().expect("the temporary folder can be written");
    let mut alike = Alike::default();
    let mut stay: Vec<Process> = Vec::new();
    let mut ran = 0;
    for step in steps(page) {
        match step {
            Step::Write(text) => fs::write(folder.path().join("seeway.toml"), text).expect("the folder can be written"),
            Step::Stay(command, wanted) => {
                let mut process = Process::start(&command, &mut shell(&format!("exec {command}"), folder.path()));
                assert!(!wanted.is_empty(), "the page does not say what is printed by: {command}");
                for line in &wanted {
                    wait::until(&format!("`{command}` prints: {line}"), wait::BOUND, || {
                        let ended = process.try_exit();
                        let found = process.log().lines().any(|printed| alike.line(line, printed.trim_start()));
                        assert!(found || ended.is_none(), "{command}: ended with {ended:?}:\n{}", process.log());
                        found.then_some(())
                    });
                }
                stay.push(process);
            }
            Step::Run(command, wanted) => {
                let mut shell = shell(&format!("{{ {command}\n}} 2>&1"), folder.path());
                let output = shell.output().expect("bash can be started");
                let said = String::from_utf8_lossy(&output.stdout);
                let printed: Vec<&str> = said.lines().collect();
                let is_as_said = wanted.len() == printed.len()
                    && wanted.iter().zip(&printed).all(|(wanted, printed)| alike.line(wanted, printed));
                assert!(is_as_said, "$ {command}\nprinted:\n{said}\nand the page says:\n{}", wanted.join("\n"));
                let is_to_fail = wanted.iter().any(|line| line.starts_with("seeway: "));
                assert_eq!(output.status.success(), !is_to_fail, "$ {command}\n{}\n{said}", output.status);
                ran += 1;
            }
        }
    }
    assert!(ran > 10 && stay.len() == 2, "the page's commands were found: {ran}, and {} that stay", stay.len());
    // As the page says: Ctrl-C for the gateway, then for the HSM.
    while let Some(mut process) = stay.pop() {
        process.signal(Signal::INT);
        let status = process.exit(wait::BOUND);
        assert_eq!(status.code(), Some(0), "{} ended with {status}:\n{}", process.name(), process.log());
    }
    assert!(folder.path().join("seeway-hsm").is_dir(), "the emulated HSM leaves its folder");
}

#[test]
fn every_command_of_the_tutorial_does_what_the_page_says() {
    if namespace::is_inside() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tutorial.md");
        follow(&fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display())));
        return;
    }
    let _turn = Turn::beside_others();
    if let Err(why) = namespace::are_there() {
        panic!("the page's ports are fixed, so this test needs a network namespace: {why}; run it as root");
    }
    let status = namespace::run_inside("every_command_of_the_tutorial_does_what_the_page_says");
    assert!(status.success(), "see above: {status}");
}

#[test]
fn a_line_is_the_same_but_for_keys_signatures_and_times() {
    let key = |last: &str| format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{last}");
    let mut alike = Alike::default();
    assert!(alike.line("a  b", "a b") && !alike.line("a b", "a c") && !alike.line("a", "a a"));
    assert!(alike.line(&key("1"), &key("2")) && alike.line(&key("1"), &key("2")));
    assert!(!alike.line(&key("1"), &key("3")), "what is the same on the page is the same here");
    assert!(!alike.line(&key("4"), &key("2")), "what is another on the page is another here");
    assert!(!alike.line(&key("1"), "ssh-ed25519 SHA256:x"), "a fingerprint is no key");
    assert!(alike.line("took 2 ms", "took 870 µs") && !alike.line("jobs 2", "jobs 3"));
    assert!(alike.line("2026-11-26T13:53:39.519281Z INFO", "2027-01-02T03:04:05.678901Z INFO"));
    assert!(!alike.line("2026-11-26T13:53:39.519281Z INFO", "2027-01-02T03:04:05.678901Z WARN"));
}
