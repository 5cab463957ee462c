//! The binary as a script sees it: exit statuses, what goes to stdout and what to stderr.

use std::path::Path;
use std::process::{Command, Output};

fn seeway(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seeway"));
    command.args(arguments).env_remove("SEEWAY_LOG");
    command
}

fn ran(mut command: Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

/// A directory with an identity of `seeway keygen`'s, and a configuration that names it.
fn site(listen: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let (status, out, err) = ran(seeway(&["keygen", &path.display().to_string()]));
    assert_eq!(status, Some(0), "{err}");
    assert!(out.contains("restrict,port-forwarding,permitopen=\"127.0.0.1:8888\" ssh-ed25519 "), "{out}");
    let public = std::fs::read_to_string(path.join("id_ed25519.pub")).expect("there");
    let text = format!(
        "[listen]\n{listen}\n[[machine]]\nname = \"hsm-a\"\naddress = \"127.0.0.1:22\"\nidentity = \"id_ed25519\"\n\
         host_key = \"{}\"\n[[world]]\nname = \"signer\"\nmachines = [\"hsm-a\"]\n",
        public.trim()
    );
    std::fs::write(path.join("seeway.toml"), text).expect("written");
    directory
}

fn config(directory: &Path) -> String {
    directory.join("seeway.toml").display().to_string()
}

#[test]
fn help_is_data_and_misuse_is_status_2() {
    let (status, out, err) = ran(seeway(&["--help"]));
    assert_eq!((status, err.as_str()), (Some(0), ""));
    assert!(out.contains("check") && out.contains("keygen") && out.contains("job"), "{out}");
    for arguments in [
        &["nonsense"][..],
        &["check"],
        &["job", "http://127.0.0.1:1"],
        &["job", "grpc://127.0.0.1:1", "--data", "x"],
        &["job", "ssh://user@127.0.0.1:1", "--data", "x"],
        &["job", "grpc://127.0.0.1:1", "--world", "w", "--data", "x", "--hex", "00"],
        &["job", "grpc://127.0.0.1:1", "--world", "w", "--hex", "0"],
        &["job", "grpc://127.0.0.1:1", "--world", "w", "--timeout", "5"],
    ] {
        let (status, out, err) = ran(seeway(arguments));
        assert_eq!((status, out.as_str()), (Some(2), ""), "{arguments:?}\n{err}");
        assert!(!err.is_empty());
    }
}

#[test]
fn check_says_each_problem_and_ends_with_1() {
    let directory = site("hardserver = []\ngrpc = \"0.0.0.0:50051\"\nadmin = 9464");
    let file = config(directory.path());
    let (status, out, _) = ran(seeway(&["check", "--config", &file]));
    assert_eq!(status, Some(1));
    assert!(out.contains(&format!("{file}:3:8: listen.grpc: 0.0.0.0:50051 is not a loopback address")), "{out}");
    assert!(out.contains(&format!("{file}:4:9: listen.admin: is an integer")), "{out}");

    let mut mended = seeway(&["check", "--config", &file]);
    mended.env("SEEWAY_LISTEN__GRPC", "[::1]:50051").env("SEEWAY_LISTEN__ADMIN", "");
    let (status, out, err) = ran(mended);
    assert_eq!(status, Some(0), "{out}{err}");
    assert!(out.contains("grpc=[::1]:50051"), "{out}");
}

#[test]
fn a_configuration_that_is_not_there_is_said_so() {
    let (status, out, _) = ran(seeway(&["check", "--config", "/no/such/seeway.toml"]));
    assert_eq!(status, Some(1));
    assert!(out.starts_with("/no/such/seeway.toml: can not be read: "), "{out}");
}

#[test]
fn a_filter_that_is_no_filter_is_misuse() {
    let mut command = seeway(&["check", "--reference"]);
    command.env("SEEWAY_LOG", "seeway=loud");
    let (status, out, err) = ran(command);
    assert_eq!((status, out.as_str()), (Some(2), ""));
    assert!(err.contains("SEEWAY_LOG=seeway=loud"), "{err}");
}

#[test]
fn keygen_does_not_overwrite() {
    let directory = site("");
    let before = std::fs::read(directory.path().join("id_ed25519")).expect("there");
    let (status, out, err) = ran(seeway(&["keygen", &directory.path().display().to_string()]));
    assert_eq!((status, out.as_str()), (Some(1), ""));
    assert!(err.contains("never overwritten"), "{err}");
    assert_eq!(std::fs::read(directory.path().join("id_ed25519")).expect("there"), before);
}

/// What happened, where, and what to try, on one line of stderr.
#[test]
fn every_command_that_fails_says_what_and_where_and_what_to_try() {
    let site = site("hardserver = []");
    let no_handover = config(site.path());
    for (arguments, place, fix) in [
        (&["serve", "--config", "/no/such"][..], "/no/such", "--config"),
        (&["serve", "--take-over", "--config", "/no/such"], "/no/such", "--config"),
        (&["upgrade", "--config", "/no/such"], "/no/such", "--config"),
        (&["upgrade", "--config", &no_handover], "listen.handover", "restart the gateway once"),
        (&["audit", "verify", "/no/such"], "/no/such", "audit.to"),
        (&["config", "import", "/no/such"], "/no/such", "name the hardserver's configuration"),
        (&["keygen", "/proc/none"], "/proc/none", "choose a directory"),
        (&["man", "--output", "/proc/none"], "/proc/none", "name a folder"),
        (&["drain", "--admin", "127.0.0.1:1"], "127.0.0.1:1", "--admin"),
        (&["resume", "--admin", "unix:/no/such"], "unix:/no/such", "--admin"),
        (&["reload", "--admin", "127.0.0.1:1"], "127.0.0.1:1", "--admin"),
        (&["log", "--admin", "127.0.0.1:1"], "127.0.0.1:1", "--admin"),
        (&["top", "--once", "--admin", "127.0.0.1:1"], "127.0.0.1:1", "--admin"),
        (&["forward", "--config", "/no/such", "--world", "w", "127.0.0.1:0"], "/no/such", "--config"),
        (&["job", "grpc://127.0.0.1:1", "--world", "w", "--data", "x"], "grpc://127.0.0.1:1", "check the address"),
        (&["job", "unix:/no/such", "--world", "w", "--data", "x"], "unix:/no/such", "check the address"),
    ] {
        let (status, out, err) = ran(seeway(arguments));
        assert_eq!((status, out.as_str()), (Some(1), ""), "{arguments:?}\n{err}");
        let line = err.trim_end();
        assert!(line.starts_with("seeway: ") && line.lines().count() == 1, "{arguments:?}\n{err}");
        let (what, hint) =
            line.rsplit_once("; ").unwrap_or_else(|| panic!("{arguments:?} says nothing to try:\n{err}"));
        assert!(what.contains(place) && hint.contains(fix), "{arguments:?}\n{err}");
    }
}

#[test]
fn job_says_that_nobody_is_there_and_ends_with_1() {
    for to in ["grpc://127.0.0.1:1", "tcp:127.0.0.1:1", "unix:/no/such/socket"] {
        let (status, out, err) = ran(seeway(&["job", to, "--world", "signer", "--data", "SECRET", "--timeout", "20s"]));
        assert_eq!((status, out.as_str()), (Some(1), ""), "{to}\n{err}");
        assert!(err.starts_with("seeway: ") && !err.contains("SECRET"), "{err}");
    }
}
