//! `seeway check`: every mistake in a file, and what exactly is wrong with a machine that can't be reached.

use std::{fs, net::Ipv4Addr, path::Path, process::Command};

use seeway_tests::{Config, Door, Identity, Machine, Sshd, keys, machine::seeway, ports::Nobody, turn::Turn};
use tempfile::TempDir;

/// How `seeway check` ended, and all that it said.
fn check(text: &str, further: &[&str]) -> (Option<i32>, String) {
    let folder = TempDir::new().expect("the temporary folder can be written");
    let file = folder.path().join("seeway.toml");
    fs::write(&file, text).expect("the temporary folder can be written");
    let output = seeway().arg("check").arg("--config").arg(&file).args(further).output().expect("the binary runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), said)
}

#[test]
fn five_mistakes_are_named_with_their_lines() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let text = format!(
        r#"[listen]
grpc = "0.0.0.0:50051"
hardserver = []

[[machine]]
name = "hsm-a"
address = "127.0.0.1:22"
identity = "{}"

[[world]]
name = "signer"
machines = ["hsm-b"]

[limits]
hold = "soon"
colour = "blue"
"#,
        identity.private().display()
    );
    let (status, said) = check(&text, &[]);
    assert_eq!(status, Some(1), "{said}");
    let problems: Vec<_> = said.lines().filter(|line| line.contains("seeway.toml:")).collect();
    assert_eq!(problems.len(), 5, "{said}");
    // Line, key, and a word of what is wrong with it.
    for (line, key, about) in [
        (2, "grpc", "loopback"),
        (5, "host_key", "hsm-a"),
        (12, "machines", "hsm-b"),
        (15, "hold", "soon"),
        (16, "colour", "[limits]"),
    ] {
        let line = format!("seeway.toml:{line}:");
        let named = problems.iter().any(|said| said.contains(&line) && said.contains(key) && said.contains(about));
        assert!(named, "{line} {key} ({about}) is not named:\n{said}");
    }
}

#[test]
fn a_file_without_mistakes_passes() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let folder = TempDir::new().expect("the temporary folder can be written");
    let host_key = keys::host_key(&folder.path().join("host_key"));
    let door = Door { address: (Ipv4Addr::LOCALHOST, 22).into(), user: "codesafe".into(), host_key };
    let config = good(&door, &identity, (Ipv4Addr::LOCALHOST, 8888).into());
    let (status, said) = check(&config.text(&socket(folder.path())), &[]);
    assert_eq!(status, Some(0), "{said}");
}

#[test]
fn connect_says_which_step_fails() {
    let _turn = Turn::beside_others();
    let (identity, stranger) = (Identity::generate(), Identity::generate());
    let sshd = Sshd::start(&identity);
    let machine = Machine::start("echo");
    let folder = TempDir::new().expect("the temporary folder can be written");
    let socket = socket(folder.path());
    let connect = |config: Config| check(&config.text(&socket), &["--connect"]);

    let (status, said) = connect(good(sshd.door(), &identity, machine.seejobs()));
    assert_eq!(status, Some(0), "{said}");

    let other_key = keys::host_key(&folder.path().join("other_key"));
    let wrong_host_key = Door { host_key: other_key.clone(), ..sshd.door().clone() };
    let (status, said) = connect(good(&wrong_host_key, &identity, machine.seejobs()));
    assert_eq!(status, Some(1), "{said}");
    let fingerprints = [fingerprint(&other_key, folder.path()), fingerprint(&sshd.door().host_key, folder.path())];
    assert!(
        said.contains("host key") && fingerprints.iter().all(|one| said.contains(one)),
        "wanted both {fingerprints:?}:\n{said}"
    );

    let wrong_user = Door { user: "nobody-at-all".into(), ..sshd.door().clone() };
    let (status, said) = connect(good(&wrong_user, &identity, machine.seejobs()));
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("nobody-at-all") && said.contains("log"), "the login is not named:\n{said}");

    let (status, said) = connect(good(sshd.door(), &stranger, machine.seejobs()));
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("log"), "the login is not named:\n{said}");

    let nobody = Nobody::on_loopback();
    let closed_port = Door { address: nobody.address(), ..sshd.door().clone() };
    let (status, said) = connect(good(&closed_port, &identity, machine.seejobs()));
    assert_eq!(status, Some(1), "{said}");
    assert!(
        said.contains(&closed_port.address.to_string()) && said.contains("refused"),
        "the closed port is not named:\n{said}"
    );

    let nowhere = nobody.address();
    let (status, said) = connect(good(sshd.door(), &identity, nowhere));
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&nowhere.port().to_string()), "the port that leads nowhere is not named:\n{said}");
}

fn good(door: &Door, identity: &Identity, seejobs: std::net::SocketAddr) -> Config {
    Config::new().machine("hsm-a", door, seejobs, identity, "").world("echo", &["hsm-a"], "")
}

fn socket(folder: &Path) -> String {
    folder.join("nserver").to_string_lossy().into_owned()
}

/// `SHA256:…` by OpenSSH's own account.
fn fingerprint(public: &str, folder: &Path) -> String {
    let file = folder.join("fingerprint.pub");
    fs::write(&file, public).expect("the temporary folder can be written");
    let printed = keys::run(Command::new("ssh-keygen").arg("-lf").arg(&file));
    printed.split_whitespace().nth(1).expect("size, fingerprint, comment").to_owned()
}
