//! `seeway job` by all four ways in, to the same machine.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use seeway_tests::{Config, Gateway, Identity, Machine, machine::seeway, turn::Turn};
use tempfile::TempDir;

#[test]
fn all_four_ways_get_the_same_reply() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let machine = Machine::start_with_ssh("sign", &identity, "127.0.0.1:0");
    let config =
        Config::new().machine("hsm", machine.door(), machine.seejobs(), &identity, "").world("signer", &["hsm"], "");
    let gateway = Gateway::ready(&config);
    let ways = [gateway.unix(), gateway.tcp4(), gateway.tcp6(), gateway.grpc()];

    let job = |what: &[&str]| -> Vec<Vec<u8>> {
        let door = machine.door();
        let mut direct = seeway();
        direct.args(["job", &format!("ssh://{}@{}", door.user, door.address), "--world", "signer"]);
        direct.arg("--identity").arg(identity.private()).args(["--host-key", &door.host_key]);
        direct.args(["--seejobs", &machine.seejobs().to_string()]).args(what);
        let through_the_gateway = ways.iter().map(|way| {
            let mut command = seeway();
            command.args(["job", &way.to_string(), "--world", "signer"]).args(what);
            command
        });
        through_the_gateway.chain([direct]).map(|mut command| reply_to(&mut command, b"a document")).collect()
    };

    let keys = job(&["--data", "pubkey"]);
    assert!(keys.iter().all(|key| *key == keys[0] && key.len() == 32), "public keys: {keys:?}");
    // Ed25519 signs deterministically: the same machine signs the same bytes the same way.
    let signatures = job(&["--data", "a document"]);
    assert!(signatures.iter().all(|one| *one == signatures[0] && one.len() == 64), "signatures: {signatures:?}");
    let folder = TempDir::new().expect("the temporary folder can be written");
    let file = folder.path().join("document");
    fs::write(&file, "a document").expect("the temporary folder can be written");
    assert_eq!(job(&["--file", &file.to_string_lossy()]), signatures);
    assert_eq!(job(&["--hex", "6120646f63756d656e74"]), signatures);
    assert_eq!(job(&["-"]), signatures, "the job comes from standard input");
}

#[test]
fn a_job_that_fails_says_why_and_ends_with_1() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let machine = Machine::start_with_ssh("slow:5000", &identity, "127.0.0.1:0");
    let config =
        Config::new().machine("hsm", machine.door(), machine.seejobs(), &identity, "").world("slow", &["hsm"], "");
    let gateway = Gateway::ready(&config);
    for way in [gateway.unix(), gateway.grpc()] {
        let way = way.to_string();
        let failed = |arguments: &[&str]| {
            let output = seeway().args(["job", &way]).args(arguments).output().expect("the binary runs");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.stdout.is_empty(), "a failure prints no data: {output:?}");
            (output.status.code(), said)
        };
        let (status, said) = failed(&["--world", "slow", "--data", "x", "--timeout", "300ms"]);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("may have run"), "{way}: {said}");
        let (status, said) = failed(&["--world", "nowhere", "--data", "x"]);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("nowhere"), "{way}: {said}");
        let (status, said) = failed(&["--world", "slow", "--data", "x", "--hex", "00"]);
        assert_eq!(status, Some(2), "asked wrongly: {said}");
    }
}

/// What a command that must succeed prints, byte for byte.
fn reply_to(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the binary runs");
    // One that takes its job from elsewhere may have ended already.
    let _ = child.stdin.take().expect("it was piped").write_all(input);
    let output = child.wait_with_output().expect("the child can be waited for");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}: {said}", output.status);
    output.stdout
}
