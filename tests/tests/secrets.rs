//! What a job carries is between its caller and its machine, and keys are nobody's business.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use seeway_bench::Target;
use seeway_tests::keys::run;
use seeway_tests::{
    Config, Gateway, Identity, Machine, Sshd,
    callers::{self, Told},
    turn::Turn,
    wait,
};

const SECRET: &[u8] = b"SECRET-of-the-job";
/// The secret as text, as numbers, and as digits.
const FORMS: [&str; 4] = ["SECRET-of", "83, 69, 67, 82, 69, 84", "53454352", "53, 45, 43, 52"];

/// An OpenSSH key whose passphrase is the secret; its file, its passphrase's file and its lines of base64.
fn locked_key(folder: &Path) -> (PathBuf, PathBuf, Vec<String>) {
    let (key, passphrase) = (folder.join("key"), folder.join("passphrase"));
    let secret = std::str::from_utf8(SECRET).expect("text");
    run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-C", "", "-N", secret, "-f"]).arg(&key));
    std::fs::write(&passphrase, SECRET).expect("the temporary folder can be written");
    std::fs::set_permissions(&passphrase, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    // Without a passphrase, as it is in memory.
    let plain = folder.join("plain");
    std::fs::copy(&key, &plain).expect("the temporary folder can be written");
    run(Command::new("ssh-keygen").args(["-q", "-p", "-N", "", "-P", secret, "-f"]).arg(&plain));
    let text = std::fs::read_to_string(plain).expect("ssh-keygen wrote it");
    // The first line after the header has nothing but names; the last ones have the key.
    let lines =
        text.lines().filter(|line| !line.starts_with('-')).skip(2).map(|line| line[..20.min(line.len())].to_owned());
    (key, passphrase, lines.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_of_a_key_or_its_passphrase_reaches_the_log_or_the_metrics() {
    let _turn = Turn::beside_others();
    let folder = tempfile::TempDir::new().expect("the temporary folder can be written");
    let (key, passphrase, lines) = locked_key(folder.path());
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let public = std::fs::read_to_string(key.with_extension("pub")).expect("ssh-keygen wrote it");
    std::fs::write(identity.authorized_keys(), public).expect("the temporary folder can be written");
    let machine = Machine::start("echo");
    let keys = format!(
        "identity = \"{}\"\nidentity_passphrase = \"{}\"\nhost_key = {:?}",
        key.display(),
        passphrase.display(),
        sshd.door().host_key
    );
    let config = Config::new().machine_with("hsm", sshd.door(), machine.seejobs(), &keys).world("w", &["hsm"], "");
    let mut gateway = Gateway::start_logging(&config, Some("trace"));
    gateway.until_up(config.machines());
    // A passphrase that is wrong, too.
    std::fs::write(&passphrase, [SECRET, b"!"].concat()).expect("it is ours");
    gateway.hang_up();
    wait::until("the reload is refused", wait::BOUND, || gateway.log().contains("another passphrase").then_some(()));
    let (_, metrics) = gateway.get("/metrics");
    let log = gateway.log();
    for (place, text) in [("the log", &log), ("the metrics", &metrics)] {
        let shows = |line: &str| {
            FORMS.iter().any(|form| line.contains(form)) || lines.iter().any(|part| line.contains(part.as_str()))
        };
        let found: Vec<_> = text.lines().filter(|line| shows(line)).collect();
        assert!(found.is_empty(), "{place} shows what is secret: {found:?}");
    }
    assert!(lines.len() > 1 && log.contains("tunnel up"), "there is something to look for, and where");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_of_a_job_reaches_the_log_or_the_metrics() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let (echo, faulty) = (Machine::start("echo"), Machine::start("faulty:1"));
    let config = Config::new()
        .machine("echo", sshd.door(), echo.seejobs(), &identity, "")
        .machine("faulty", sshd.door(), faulty.seejobs(), &identity, "")
        .world("echo", &["echo"], "")
        .world("faulty", &["faulty"], "");
    let gateway = Gateway::start_logging(&config, Some("trace"));
    gateway.until_up(config.machines());
    for way in [gateway.unix(), gateway.grpc()] {
        for world in ["echo", "faulty"] {
            assert_eq!(outcomes(&way, world, SECRET.to_vec()).await, 1);
            // One that is refused for its size.
            assert_eq!(outcomes(&way, world, SECRET.repeat(20_000)).await, 1);
        }
    }
    gateway.until_idle(wait::BOUND);
    let (_, metrics) = gateway.get("/metrics");
    let log = gateway.log();
    assert!(log.contains("tunnel up"), "the gateway does not log what this test reads:\n{log}");
    for (place, text) in [("the log", &log), ("the metrics", &metrics)] {
        let found: Vec<_> = text.lines().filter(|line| FORMS.iter().any(|form| line.contains(form))).collect();
        assert!(found.is_empty(), "{place} shows what is in a job: {found:?}");
    }
}

/// How many outcomes one job has.
async fn outcomes(way: &Target, world: &str, job: Vec<u8>) -> usize {
    let mut job = Some(job);
    let mut outcomes = 0;
    let on_answer = |_, _: Told<'_>| outcomes += 1;
    let ended = callers::run(way, world, 1, || Some((1, job.take()?)), on_answer).await;
    ended.unwrap_or_else(|error| panic!("{error}"));
    outcomes
}
