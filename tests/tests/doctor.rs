//! `seeway doctor` against real SSH servers, as they are misconfigured in earnest.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::{fs, process::Command};

use seeway_tests::{Config, Door, Dropbear, Identity, Machine, Sshd, keys, machine::seeway, ports::Nobody, turn::Turn};
use serde_json::Value;
use tempfile::TempDir;

/// How it ended, and its findings.
struct Seen {
    status: Option<i32>,
    findings: Vec<Value>,
    text: String,
}

impl Seen {
    /// The one finding of a check that is not ok.
    fn bad(&self, check: &str) -> (&str, &str, &str) {
        let is_it = |finding: &&Value| finding["check"] == check && finding["result"] != "ok";
        let found: Vec<&Value> = self.findings.iter().filter(is_it).collect();
        let [finding] = found[..] else { panic!("one finding of {check} is wanted:\n{}", self.text) };
        let text = |key: &str| finding[key].as_str().unwrap_or_default();
        (text("result"), text("what"), text("fix"))
    }

    fn is_ok(&self, check: &str) -> bool {
        let mut of_check = self.findings.iter().filter(|finding| finding["check"] == check).peekable();
        of_check.peek().is_some() && of_check.all(|finding| finding["result"] == "ok")
    }
}

fn doctor_by(command: &mut Command, text: &str) -> Seen {
    let folder = TempDir::new().expect("the temporary folder can be written");
    let file = folder.path().join("seeway.toml");
    fs::write(&file, text).expect("the temporary folder can be written");
    let output = command.arg("doctor").arg("--json").arg("--config").arg(&file).output().expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let found: Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    Seen { status: output.status.code(), findings: found["findings"].as_array().expect("a list").clone(), text }
}

fn doctor(text: &str) -> Seen {
    doctor_by(&mut seeway(), text)
}

fn config(door: &Door, identity: &Identity, seejobs: SocketAddr, folder: &Path) -> String {
    let config = Config::new().machine("hsm-a", door, seejobs, identity, "").world("echo", &["hsm-a"], "");
    config.text(&folder.join("nserver").to_string_lossy())
}

#[test]
fn each_server_that_is_misconfigured_is_told_its_own_fix() {
    let _turn = Turn::beside_others();
    let (identity, stranger) = (Identity::generate(), Identity::generate());
    let machine = Machine::start("echo");
    let folder = TempDir::new().expect("the temporary folder can be written");
    let ip = Ipv4Addr::LOCALHOST.into();
    let sshd = Sshd::start(&identity);
    let look = |door: &Door, identity: &Identity, seejobs| doctor(&config(door, identity, seejobs, folder.path()));

    let good = look(sshd.door(), &identity, machine.seejobs());
    assert_eq!(good.status, Some(0), "{}", good.text);
    for check in ["machine", "algorithms", "MTU"] {
        assert!(good.is_ok(check), "{check}: {}", good.text);
    }
    assert!(good.text.contains("SSH-2.0-OpenSSH_"), "{}", good.text);

    let prohibiting = Sshd::start_with(&identity, ip, "PermitOpen none");
    let seen = look(prohibiting.door(), &identity, machine.seejobs());
    assert_eq!(seen.status, Some(1));
    let (result, what, fix) = seen.bad("port");
    assert!(result == "failed" && what.contains("prohibits") && fix.contains("PermitOpen"), "{}", seen.text);

    let nobody = Nobody::on_loopback();
    let seen = look(sshd.door(), &identity, nobody.address());
    let (_, what, fix) = seen.bad("port");
    assert!(what.contains("could not connect") && fix.contains("machine.seejobs_port"), "{}", seen.text);

    // An SSH server is something that takes connections and speaks no SEEJobs.
    let seen = look(sshd.door(), &identity, sshd.door().address);
    let (_, what, fix) = seen.bad("NoOp");
    assert!(what.contains("does not speak SEEJobs") && fix.contains("something else"), "{}", seen.text);

    let old = Sshd::start_with(&identity, ip, "KexAlgorithms diffie-hellman-group14-sha1");
    let seen = look(old.door(), &identity, machine.seejobs());
    let (_, what, fix) = seen.bad("SSH");
    assert!(what.contains("diffie-hellman-group14-sha1") && what.contains("curve25519-sha256"), "{}", seen.text);
    assert!(fix.contains("KexAlgorithms"), "{}", seen.text);

    let other_key = keys::host_key(&folder.path().join("other_key"));
    let seen = look(&Door { host_key: other_key, ..sshd.door().clone() }, &identity, machine.seejobs());
    let (_, what, fix) = seen.bad("host key");
    assert!(what.matches("SHA256:").count() == 2 && fix.contains("ssh-keygen -lf"), "{}", seen.text);

    let seen = look(sshd.door(), &stranger, machine.seejobs());
    let (_, what, fix) = seen.bad("login");
    assert!(what.contains("refused the login") && fix.contains("authorized keys"), "{}", seen.text);

    let closed = Door { address: nobody.address(), ..sshd.door().clone() };
    let seen = look(&closed, &identity, machine.seejobs());
    let (_, what, fix) = seen.bad("TCP");
    assert!(what.contains("refused") && fix.contains("ss -ltn"), "{}", seen.text);
}

#[test]
fn a_dropbear_server_has_nothing_wrong() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let machine = Machine::start("echo");
    let folder = TempDir::new().expect("the temporary folder can be written");
    let dropbear = Dropbear::start(&identity, Ipv4Addr::LOCALHOST.into());
    let seen = doctor(&config(dropbear.door(), &identity, machine.seejobs(), folder.path()));
    assert_eq!(seen.status, Some(0), "{}", seen.text);
    assert!(seen.is_ok("machine") && seen.is_ok("MTU") && seen.text.contains("dropbear"), "{}", seen.text);
}

/// A way on which large packets are lost, as one whose MTU nobody tells: once the server lets in, what comes at once in more than
/// a small packet's bytes is dropped, and all after it with it.
fn black_hole(server: SocketAddr) -> SocketAddr {
    const LARGEST: usize = 1300;
    /// More than a handshake and a login, with one NoOp behind it.
    const PASSED: usize = 6000;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("bound");
    let carry = |mut from: TcpStream, mut to: TcpStream| {
        let mut buffer = vec![0; 1 << 16];
        let mut passed = 0;
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            passed += count;
            if passed > PASSED && count > LARGEST {
                // Held open: nobody is told.
                while from.read(&mut buffer).is_ok_and(|count| count > 0) {}
                return;
            }
            if to.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
    };
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(server) else { continue };
            let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) else { continue };
            thread::spawn(move || carry(near, far));
            thread::spawn(move || carry(far_too, near_too));
        }
    });
    address
}

#[test]
fn a_way_that_loses_full_packets_is_found() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let machine = Machine::start("echo");
    let sshd = Sshd::start(&identity);
    let folder = TempDir::new().expect("the temporary folder can be written");
    let door = Door { address: black_hole(sshd.door().address), ..sshd.door().clone() };
    let text = config(&door, &identity, machine.seejobs(), folder.path());
    let seen = doctor(&format!("{text}\n[ssh]\nconnect_timeout = \"3s\"\n"));
    assert_eq!(seen.status, Some(1), "{}", seen.text);
    let (result, what, fix) = seen.bad("MTU");
    assert!(result == "failed" && what.contains("Full packets") && fix.contains("tcp_mtu_probing"), "{}", seen.text);
    assert!(seen.is_ok("machine"), "{}", seen.text);
}

#[test]
fn an_address_in_use_a_low_limit_and_an_old_certificate_are_found() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let machine = Machine::start("echo");
    let sshd = Sshd::start(&identity);
    let folder = TempDir::new().expect("the temporary folder can be written");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("bound");
    let text = config(sshd.door(), &identity, machine.seejobs(), folder.path());
    let text = text.replace("admin = \"127.0.0.1:0\"", &format!("admin = \"{address}\""));
    let text = format!("{text}\n[tls]\n{}", old_certificate(folder.path()));
    let mut limited = Command::new("prlimit");
    limited.args(["--nofile=256:256"]).arg(seeway().get_program());
    let seen = doctor_by(&mut limited, &text);
    assert_eq!(seen.status, Some(1), "{}", seen.text);
    let (_, what, fix) = seen.bad("listener");
    assert!(
        what.contains(&format!("process {}", std::process::id())) && fix.contains("another address"),
        "{}",
        seen.text
    );
    let (result, what, fix) = seen.bad("open files");
    assert!(result == "warning" && what.contains("256 files") && fix.contains("LimitNOFILE="), "{}", seen.text);
    let (result, what, _) = seen.bad("certificate");
    assert!(result == "failed" && what.contains("has been of no use since 2020-02-01"), "{}", seen.text);
}

/// The keys of `[tls]` for a certificate of the last decade.
fn old_certificate(folder: &Path) -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut asked = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    asked.not_before = rcgen::date_time_ymd(2020, 1, 1);
    asked.not_after = rcgen::date_time_ymd(2020, 2, 1);
    let certificate = asked.self_signed(&key).expect("signed");
    let (certificate_file, key_file) = (folder.join("server.pem"), folder.join("server.key"));
    fs::write(&certificate_file, certificate.pem()).expect("the temporary folder can be written");
    fs::write(&key_file, key.serialize_pem()).expect("the temporary folder can be written");
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).expect("it is ours");
    format!("certificate = \"{}\"\nkey = \"{}\"\n", certificate_file.display(), key_file.display())
}
