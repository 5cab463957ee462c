//! A hardserver's configuration as estates have it, each kind of mistake in one, and any bytes at all.

use proptest::prelude::*;

use super::*;
use crate::command::test_peers;
use crate::config::Config;

const HARDSERVER: &str = "\
# nShield config
syntax-version=1

[server_settings]
loglevel=info
connect_retry=20
connect_keepidle=15
connect_keepalive=5
connect_broken=45
connect_command_block=0
connect_maxqueue=100000
accept_keepidle=30

[server_startup]
unix_socket_name=/opt/nfast/sockets/nserver
nonpriv_port=9000

[nethsm_imports]
local_module=1
remote_ip=192.0.2.10
remote_port=9004
remote_esn=1111-2222-3333
keyhash=000102030405060708090a0b0c0d0e0f10111213
privileged=0
-----
local_module=2
remote_ip=2001:db8::7
remote_esn=44445555-6666
-----
remote_ip=192.0.2.99
remote_esn=9999-9999-9999

[load_seemachine]
module=1
machine_file=old.sar

[codesafe]
esn=1111-2222-3333
image_file=signer.cs5
worldid_pubname=signer
-----
esn=4444-5555-6666
enabled=yes
image_file=signer.cs5
seejobs_port=8889
enable_ncoreapi=yes
worldid_pubname=signer
-----
esn=7777-8888-9999
enabled=no
worldid_pubname=signer
-----
esn=AAAA-BBBB-CCCC
worldid_pubname=a \"second\" world\\
-----
esn=AAAA-BBBB-CCCC
-----
esn=DDDD-EEEE-FFFF
seejobs_port=0
";

fn taken_over(text: &[u8]) -> Result<(Takeover, String), Vec<Problem>> {
    let takeover = hardserver::parse(text).and_then(|file| Takeover::of(&file))?;
    let page = page::write(&takeover, Path::new("config"));
    Ok((takeover, page))
}

/// What `seeway check` says of a text in a folder that has an identity.
fn checked(page: &str) -> Result<Config, crate::config::Problems> {
    let folder = tempfile::tempdir().expect("a folder");
    let key = test_peers::new_key();
    test_peers::write_identity(folder.path(), &key);
    std::fs::rename(folder.path().join("identity"), folder.path().join("id_ed25519")).expect("renamed");
    // The folder that the service has, in this one.
    let page =
        page.replace("unix:/run/seeway/nserver", "unix:nserver").replace("unix:/run/seeway/handover", "unix:handover");
    Config::read(&page, &folder.path().join("seeway.toml"), Vec::new())
}

#[test]
fn machines_worlds_and_times_are_taken_over_and_every_line_is_accounted_for() {
    let (takeover, page) = taken_over(HARDSERVER.as_bytes()).expect("taken over");
    let names: Vec<&str> = takeover.machines.iter().map(|machine| machine.name.as_str()).collect();
    assert_eq!(names, ["1111-2222-3333", "4444-5555-6666", "AAAA-BBBB-CCCC", "AAAA-BBBB-CCCC.2"]);
    for (position, line) in HARDSERVER.lines().enumerate().filter(|(_, line)| line.contains('=')).skip(1) {
        let number = position + 1;
        let taken = takeover.taken.iter().filter(|taken| taken.line == number).count();
        let left = takeover.left.iter().filter(|left| left.line == number).count();
        assert!(taken + left > 0, "line {number} is not accounted for: {line}");
        assert!(page.contains(&format!("line {number}:")), "line {number}: {line}\n{page}");
    }
}

#[test]
fn check_names_what_is_to_be_filled_in_and_nothing_else() {
    let (takeover, page) = taken_over(HARDSERVER.as_bytes()).expect("taken over");
    let problems = checked(&page).expect_err("there are blanks");
    let mut named: Vec<&str> = problems.list.iter().map(|problem| problem.key.as_str()).collect();
    let mut open: Vec<&str> = takeover.open.iter().map(|(key, _)| key.as_str()).collect();
    named.sort_unstable();
    open.sort_unstable();
    assert_eq!(named, open, "{problems}");
    assert_eq!(open.len(), 4 * 2 + 2, "user and host_key of four, address of two");

    let host_key = test_peers::line(&test_peers::new_key());
    let filled: Vec<String> = page
        .lines()
        .map(|line| match line.split_once(" = ") {
            Some(("user", _)) => "user = \"codesafe\"".to_owned(),
            Some(("host_key", _)) => format!("host_key = \"{host_key}\""),
            Some(("address", value)) if value.contains("REPLACE") => "address = \"hsm.example:22\"".to_owned(),
            _ => line.to_owned(),
        })
        .collect();
    let config = checked(&filled.join("\n")).unwrap_or_else(|problems| panic!("{problems}\n{page}"));
    assert_eq!(config.machines[0].address.to_string(), "192.0.2.10:22");
    assert_eq!(config.machines[1].address.to_string(), "[2001:db8::7]:22");
    assert_eq!((config.machines[0].seejobs_port, config.machines[1].seejobs_port), (8888, 8889));
    let worlds: Vec<_> = config.worlds.iter().map(|world| (world.published_as.as_str(), &world.machines)).collect();
    assert_eq!(worlds, [("signer", &vec![0, 1]), ("a \"second\" world\\", &vec![2])]);
    let seconds = std::time::Duration::from_secs;
    assert_eq!(config.ssh.retry_max, seconds(20));
    assert_eq!((config.ssh.keepalive_idle, config.ssh.keepalive), (seconds(15), seconds(5)));
    assert_eq!((config.ssh.broken_after, config.limits.hold), (seconds(45), seconds(0)));
    assert_eq!(config.limits.queue, 100_000);
}

#[test]
fn times_that_seeway_could_not_keep_are_mended_and_said() {
    for (settings, wanted) in [
        ("connect_broken=20", "broken_after = \"40s\""),
        ("connect_keepidle=100", "broken_after = \"110s\""),
        ("connect_retry=0", "connect_retry=0: is 0, and ssh.retry_max is at least 1"),
        ("connect_maxqueue=0", "limits.queue is at least 1"),
    ] {
        let text = format!("syntax-version=1\n[server_settings]\n{settings}\n[codesafe]\nesn=1\nworldid_pubname=a\n");
        let (_, page) = taken_over(text.as_bytes()).expect("taken over");
        assert!(page.contains(wanted), "{settings}: {page}");
        let problems = checked(&page).expect_err("there are blanks");
        assert!(problems.list.iter().all(|problem| problem.key.starts_with("machine[1].")), "{settings}: {problems}");
    }
}

#[test]
fn every_mistake_is_named_with_its_line() {
    let text = "syntax-version=1\n[codesafe]\nesn=1/2\nenabled=maybe\nseejobs_port=66000\n-----\nimage_file=x\n[server_settings]\nconnect_retry=soon\n";
    let problems = taken_over(text.as_bytes()).expect_err("refused");
    let lines: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [3, 4, 5, 7, 9], "{problems:?}");
    let said = problems_text(Path::new("config"), &problems);
    assert!(said.contains("config:5: seejobs_port is not a port; write "), "{said}");
    let none = taken_over(b"syntax-version=1\n").expect_err("no machine");
    assert!(none[0].what.contains("no enabled entry"), "{none:?}");
    let many = vec![none[0].clone(); 500];
    assert_eq!(problems_text(Path::new("c"), &many).lines().count(), PROBLEMS_LIMIT + 2);
}

#[test]
fn a_file_that_is_there_is_not_overwritten_and_one_too_large_is_not_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, output) = (folder.path().join("config"), folder.path().join("seeway.toml"));
    std::fs::write(&file, HARDSERVER).expect("written");
    let args = Args { file: file.clone(), output: Some(output.clone()), json: true };
    let mut out = Vec::new();
    assert_eq!(run(&args, &mut out), Ok(()));
    let found: Value = serde_json::from_slice(&out).expect("JSON");
    let made = std::fs::read_to_string(&output).expect("made");
    assert_eq!(found["toml"], made);
    assert_eq!(found["taken"][0]["key"], "ssh.retry_max");
    assert!(matches!(run(&args, &mut Vec::new()), Err(Failure::Failed(what)) if what.contains("never overwritten")));
    std::fs::write(&file, vec![b'#'; 1 << 21]).expect("written");
    assert!(
        matches!(run(&args, &mut Vec::new()), Err(Failure::Failed(what)) if what.contains("more than 1048576 bytes"))
    );
    let none = Args { file: folder.path().join("none"), ..args };
    assert!(matches!(run(&none, &mut Vec::new()), Err(Failure::Failed(what)) if what.contains("can not be read")));
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("-----".to_owned()),
        "\\[(codesafe|server_settings|nethsm_imports|server_startup|x)\\]",
        "(esn|remote_esn)=[A-B]{0,2}-?[12]?",
        "(enabled)=(yes|no|NO|)",
        "(worldid_pubname|image_file|unix_socket_name)=[ -~\\t]{0,40}",
        "(seejobs_port|connect_retry|connect_keepidle|connect_broken|connect_maxqueue|connect_command_block)=[0-9]{0,6}",
        "remote_ip=(10.0.0.1|fe80::1|[ -~]{0,8})",
        "[ -~]{0,30}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_give_problems_or_toml(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok((_, page)) = taken_over(&bytes) {
            prop_assert!(page.parse::<toml::Table>().is_ok(), "{page}");
        }
    }

    #[test]
    fn any_lines_give_problems_or_a_file_with_nothing_wrong_but_blanks(lines in proptest::collection::vec(line(), 0..20)) {
        let text = format!("syntax-version=1\n[codesafe]\nesn=1\n{}", lines.join("\n"));
        match taken_over(text.as_bytes()) {
            Err(problems) => prop_assert!(!problems.is_empty()),
            Ok((takeover, page)) => {
                let problems = checked(&page).expect_err("there are always blanks");
                for problem in &problems.list {
                    let is_open = takeover.open.iter().any(|(key, _)| *key == problem.key);
                    prop_assert!(is_open, "{text}\n{problems}\n{page}");
                }
            }
        }
    }
}
