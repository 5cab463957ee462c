//! `[audit]`: where records go, what is refused, and what a reload can't change.

use super::*;
use crate::audit::{Target, WhenFull};

fn file(audit: &str) -> String {
    format!(
        "listen.hardserver = []\n[audit]\n{audit}\n[[machine]]\nname = \"a\"\naddress = \"a.example:22\"\nidentity = \"id\"\n\
         host_key = \"{HOST_KEY}\"\n[[world]]\nname = \"w\"\nmachines = [\"a\"]\n"
    )
}

#[test]
fn records_go_where_it_says() {
    let site = Site::new();
    let read = |audit: &str| site.read(&file(audit)).unwrap_or_else(|problems| panic!("{problems}")).audit;
    assert!(read("").is_none(), "nothing is recorded unless it is asked for");
    for (to, target) in [
        ("file:audit.jsonl", Target::File(site.path("audit.jsonl"))),
        ("journald", Target::Journald("/run/systemd/journal/socket".into())),
        ("journald:socket", Target::Journald(site.path("socket"))),
        ("syslog", Target::Syslog("/dev/log".into())),
        ("syslog:/run/other", Target::Syslog("/run/other".into())),
    ] {
        assert_eq!(read(&format!("to = \"{to}\"")).expect("a log").to, target);
    }
    let audit = read("to = \"journald\"").expect("a log");
    assert_eq!((audit.when_full, audit.must_sync, audit.buffer), (WhenFull::Stop, true, 65_536));
    assert!(!audit.job_digest && audit.rotate_bytes == 0 && audit.key.is_none());
    let audit =
        read("to = \"syslog\"\nwhen_full = \"drop\"\nsync = \"never\"\nbuffer = 1\njob_digest = true").expect("a log");
    assert_eq!((audit.when_full, audit.must_sync, audit.buffer, audit.job_digest), (WhenFull::Drop, false, 1, true));
}

#[test]
fn what_can_not_work_is_said() {
    let site = Site::new();
    site.write("open", "0123456789abcdef0123456789abcdef", 0o644);
    site.write("short", "0123456789abcde\n", 0o600);
    site.write("good", "0123456789abcdef", 0o600);
    for (audit, word) in [
        ("to = \"\"", "audit.to: `` is no place"),
        ("to = \"file\"", "audit.to: `file` is no place"),
        ("to = \"file:\"", "audit.to: `file:` names no path"),
        ("to = \"file:none/audit.jsonl\"", "the folder"),
        ("to = \"http://example\"", "no place"),
        ("to = \"journald\"\nwhen_full = \"wait\"", "audit.when_full: `wait` is neither; write \"stop\" or \"drop\""),
        ("to = \"journald\"\nsync = \"always\"", "audit.sync: `always` is neither"),
        ("to = \"journald\"\nbuffer = 0", "audit.buffer: is 0, below 1"),
        ("to = \"journald\"\nkey = \"none\"", "is not there"),
        ("to = \"journald\"\nkey = \"open\"", "can be read or written by others (mode 0644)"),
        ("to = \"journald\"\nkey = \"short\"", "the key has 15 bytes, and must have 16"),
        ("job_digest = true", "audit.to: is missing, and job_digest is there"),
    ] {
        let problems = site.problems(&file(audit));
        let [problem] = problems.as_slice() else { panic!("{audit}: {problems:?}") };
        assert!(problem.contains(word), "{audit}: {problem}");
        assert!(!problem.contains("0123456789"), "{problem}");
    }
    let config = site.read(&file("to = \"journald\"\nkey = \"good\"")).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(!format!("{config:?}").contains("0123456789"), "no key is shown");
}

#[test]
fn a_log_that_runs_is_changed_by_a_restart_only() {
    let site = Site::new();
    site.write("key", "0123456789abcdef", 0o600);
    let running = site.read(&file("to = \"file:log\"")).unwrap_or_else(|problems| panic!("{problems}"));
    for (audit, key) in [
        ("to = \"journald\"", "audit.to"),
        ("", "audit.to"),
        ("to = \"file:log\"\nwhen_full = \"drop\"", "audit.when_full"),
        ("to = \"file:log\"\nsync = \"never\"", "audit.sync"),
        ("to = \"file:log\"\nbuffer = 10", "audit.buffer"),
        ("to = \"file:log\"\njob_digest = true", "audit.job_digest"),
        ("to = \"file:log\"\nrotate_bytes = 1000", "audit.rotate_bytes"),
        ("to = \"file:log\"\nkey = \"key\"", "audit.key"),
    ] {
        let again = running.read_again(&file(audit), &site.path("seeway.toml"), []);
        let problems = again.expect_err("it needs a restart");
        assert!(problems.need_restart(), "{problems}");
        assert_eq!(problems.list.iter().map(|problem| problem.key.as_str()).collect::<Vec<_>>(), [key]);
    }
    running
        .read_again(&file("to = \"file:log\""), &site.path("seeway.toml"), [])
        .unwrap_or_else(|problems| panic!("{problems}"));
}
