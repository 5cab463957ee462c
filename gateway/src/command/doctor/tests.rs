//! Findings about files and machines as they go wrong.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use super::*;
use crate::command::test_peers::{Machine, Manner, SshServer, line, new_key, write_identity};

/// A folder with an identity and a configuration of one machine.
struct Site {
    folder: tempfile::TempDir,
    file: PathBuf,
}

impl Site {
    fn new(server: &SshServer, port: u16, further: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!(
            "[listen]\ngrpc = \"127.0.0.1:0\"\nhardserver = [\"unix:nserver\"]\nadmin = \"\"\n{further}\n[[machine]]\nname = \"hsm-a\"\n\
             address = \"{}\"\nidentity = \"identity\"\nhost_key = \"{}\"\nseejobs_port = {port}\n\
             [[world]]\nname = \"signer\"\nmachines = [\"hsm-a\"]\n",
            server.address, server.host_key
        );
        let file = folder.path().join("seeway.toml");
        std::fs::write(&file, text).expect("written");
        Self { folder, file }
    }

    fn doctor(&self) -> (Result<(), Failure>, Value) {
        let mut out = Vec::new();
        let args = Args { config: self.file.clone(), offline: false, json: true };
        let done = run(&args, &mut out);
        (done, serde_json::from_slice(&out).expect("JSON"))
    }
}

fn mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("set");
}

/// The findings of a check that are not ok.
fn bad<'f>(found: &'f Value, check: &str) -> Vec<&'f Value> {
    let list = found["findings"].as_array().expect("a list");
    list.iter().filter(|finding| finding["check"] == check && finding["result"] != "ok").collect()
}

#[test]
fn a_good_site_has_nothing_that_failed_and_each_file_mode_has_its_fix() {
    let identity = new_key();
    let server = SshServer::start(&identity);
    let machine = Machine::start(Manner::Reverse);
    let site = Site::new(&server, machine.address.port(), "");
    write_identity(site.folder.path(), &identity);
    let (done, found) = site.doctor();
    assert_eq!(done, Ok(()), "{found:#}");
    assert_eq!(found["ok"], true);
    for check in [
        "configuration",
        "machine",
        "algorithms",
        "MTU",
        "open files",
        "swap space",
        "sandbox",
        "clock",
        "listener",
        "socket",
    ] {
        assert!(
            found["findings"].as_array().expect("a list").iter().any(|finding| finding["check"] == check),
            "{check}"
        );
    }

    mode(&site.file, 0o666);
    let (done, found) = site.doctor();
    assert_eq!(done, Err(Failure::Said));
    assert_eq!(bad(&found, "configuration file")[0]["fix"], format!("run: chmod o-w {}", site.file.display()));
    mode(&site.file, 0o664);
    let (done, found) = site.doctor();
    assert_eq!((done, bad(&found, "configuration file")[0]["result"].as_str()), (Ok(()), Some("warning")), "{found:#}");
    mode(&site.file, 0o600);

    mode(site.folder.path(), 0o777);
    let (done, found) = site.doctor();
    assert_eq!(done, Err(Failure::Said));
    assert_eq!(bad(&found, "file").len(), 1, "{found:#}");
    assert_eq!(bad(&found, "socket").len(), 1, "{found:#}");
    assert_eq!(bad(&found, "configuration file").len(), 1, "{found:#}");

    std::fs::write(&site.file, "[listen]\ngrpc = 5\n").expect("written");
    let (done, found) = site.doctor();
    assert_eq!(done, Err(Failure::Said));
    assert!(bad(&found, "configuration").iter().any(|finding| finding["about"] == "listen.grpc"), "{found:#}");
}

#[test]
fn what_fails_on_the_way_has_the_fix_for_that_step() {
    let identity = new_key();
    let server = SshServer::start(&identity);
    let closing = Machine::start(Manner::Close);
    let site = Site::new(&server, closing.address.port(), "");
    write_identity(site.folder.path(), &identity);
    let (done, found) = site.doctor();
    assert_eq!(done, Err(Failure::Said));
    assert!(
        bad(&found, "NoOp")[0]["fix"].as_str().is_some_and(|fix| fix.contains("machine.seejobs_port")),
        "{found:#}"
    );

    std::fs::remove_file(site.folder.path().join("identity")).expect("removed");
    let stranger = new_key();
    write_identity(site.folder.path(), &stranger);
    let (_, found) = site.doctor();
    assert!(bad(&found, "login")[0]["fix"].as_str().is_some_and(|fix| fix.contains(&line(&stranger))), "{found:#}");
}

#[test]
fn people_get_a_table_and_the_worst_at_its_end() {
    let findings = [Finding::failed("b", "y", "is bad", "mend it"), Finding::ok("a", "x", "is good")];
    let mut out = Vec::new();
    write_findings(&mut out, &findings).expect("written");
    let text = String::from_utf8(out).expect("text");
    assert!(text.contains("ok      a      x      is good"), "{text}");
    assert!(text.ends_with("failed: b: y: is bad\n  fix: mend it\n\n1 ok, 0 warnings, 1 failed\n"), "{text}");
}
