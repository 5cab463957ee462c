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

/// What is looked for in memory: of each job its own mark, sixteen bytes that nothing else has.
fn mark(number: u8) -> Vec<u8> {
    let mut mark =
        vec![0xA5, 0x5C, 0xE7, number, 0x19, 0xD3, 0x4B, 0x86, 0xF1, 0x2E, 0x97, 0x60, 0xBC, 0x0D, 0x7A, 0xC8];
    // So that the mark as a whole is nowhere in this program's file, nor in the gateway's.
    for byte in &mut mark {
        *byte ^= 0x33;
    }
    mark
}

/// Whether `mark` is anywhere in the memory that a process can write to.
fn is_in_memory(id: u32, mark: &[u8]) -> bool {
    use std::io::{Read as _, Seek as _};
    let maps = std::fs::read_to_string(format!("/proc/{id}/maps")).expect("the gateway runs");
    let why = "its memory can be read by whoever may trace it: run this test as root, or with CAP_SYS_PTRACE";
    let mut memory = std::fs::File::open(format!("/proc/{id}/mem")).unwrap_or_else(|error| panic!("{error}: {why}"));
    let mut found = false;
    let mut looked_at = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().expect("a range"), words.next().expect("rights"));
        if !rights.starts_with("rw") || line.contains("[vvar") {
            continue;
        }
        let (from, to) = range.split_once('-').expect("from and to");
        let address = |text| u64::from_str_radix(text, 16).expect("an address");
        let (from, to) = (address(from), address(to));
        let mut bytes = Vec::new();
        memory.seek(std::io::SeekFrom::Start(from)).expect("seekable");
        // What can't be read is not there: a guard page, or one that was never touched.
        let _ = (&mut memory).take(to - from).read_to_end(&mut bytes);
        looked_at += bytes.len();
        found |= bytes.windows(mark.len()).any(|window| window == mark);
    }
    assert!(looked_at > 1 << 20, "only {looked_at} bytes could be read: {why}");
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_of_a_job_stays_in_memory() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let (sshd, echo, held) = (Sshd::start(&identity), Machine::start("echo"), Machine::start("slow:3000"));
    let config = Config::new()
        .machine("echo", sshd.door(), echo.seejobs(), &identity, "")
        .machine("held", sshd.door(), held.seejobs(), &identity, "")
        .world("echo", &["echo"], "")
        .world("held", &["held"], "");
    let gateway = Gateway::ready(&config);
    // While a job is in hand its bytes may be there: or this test could not find anything.
    let way = gateway.unix();
    let waiting = tokio::spawn(async move { outcomes(&way, "held", mark(0).repeat(20_000 / 16)).await });
    wait::until("the job in hand is in memory", wait::BOUND, || is_in_memory(gateway.id(), &mark(0)).then_some(()));
    assert_eq!(waiting.await.expect("no panic"), 1);

    for (number, size) in [(1, 32), (2, 5_000), (3, 40_000), (4, 250_000)] {
        for (place, way) in [gateway.unix(), gateway.tcp4(), gateway.grpc()].into_iter().enumerate() {
            let number = number * 10 + u8::try_from(place).expect("small");
            assert_eq!(outcomes(&way, "echo", mark(number).repeat(size / 16)).await, 1);
        }
    }
    // The SSH library keeps a buffer for each direction of an open tunnel, in which the last packets are until others take their place.
    for way in [gateway.unix(), gateway.grpc()] {
        assert_eq!(outcomes(&way, "echo", vec![0; 250_000]).await, 1);
    }
    gateway.until_idle(wait::BOUND);
    let mut found = Vec::new();
    for number in [1, 2, 3, 4] {
        for place in 0..3 {
            // The connections' own tasks end a moment after they are counted out.
            let number = number * 10 + place;
            let is_gone = (0..50).any(|_| {
                let is_gone = !is_in_memory(gateway.id(), &mark(number));
                if !is_gone {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                is_gone
            });
            if !is_gone {
                found.push(number);
            }
        }
    }
    assert!(found.is_empty(), "bytes of these jobs are still in memory: {found:?}");
}
