//! The certificates that `seeway keygen --tls` makes: what OpenSSL says of them, and what nobody may do with them.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn keygen(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seeway"));
    let Output { status, stdout, stderr } =
        command.arg("keygen").arg(folder).args(arguments).output().expect("the binary runs");
    (status.code(), String::from_utf8(stdout).expect("text"), String::from_utf8(stderr).expect("text"))
}

fn made(folder: &Path, arguments: &[&str]) -> String {
    let (status, out, err) = keygen(folder, arguments);
    assert_eq!((status, err.as_str()), (Some(0), ""), "{arguments:?}");
    out
}

fn openssl(folder: &Path, arguments: &[&str]) -> (bool, String) {
    let ran = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl is installed");
    (ran.status.success(), String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr))
}

fn files(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).expect("there");
    entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn openssl_accepts_each_certificate_for_its_purpose_and_for_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    made(folder, &["--tls", "--client", "payments", "--server-name", "seeway.example", "--server-name", "192.0.2.7"]);
    let verify = |purpose: &str, ca: &str, certificate: &str| {
        let arguments = ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", ca, certificate];
        openssl(folder, &arguments).0
    };
    for (purpose, ca, certificate, is_good) in [
        ("sslserver", "ca.pem", "server.pem", true),
        ("sslclient", "ca.pem", "client-payments.pem", true),
        ("sslclient", "admin-ca.pem", "admin.pem", true),
        ("sslclient", "ca.pem", "server.pem", false),
        ("sslserver", "ca.pem", "client-payments.pem", false),
        ("sslclient", "admin-ca.pem", "client-payments.pem", false),
        ("sslclient", "ca.pem", "admin.pem", false),
    ] {
        assert_eq!(verify(purpose, ca, certificate), is_good, "{certificate} of {ca} as {purpose}");
    }
    for (name, is_its_own) in [("seeway.example", true), ("localhost", false)] {
        let arguments = ["verify", "-CAfile", "ca.pem", "-verify_hostname", name, "server.pem"];
        assert_eq!(openssl(folder, &arguments).0, is_its_own, "{name}");
    }
    assert!(openssl(folder, &["verify", "-CAfile", "ca.pem", "-verify_ip", "192.0.2.7", "server.pem"]).0);
    let text = |certificate: &str| openssl(folder, &["x509", "-noout", "-text", "-in", certificate]).1;
    for (certificate, wanted) in [
        ("client-payments.pem", "URI:spiffe://seeway/payments"),
        ("client-payments.pem", "CN = payments"),
        ("client-payments.pem", "NIST CURVE: P-256"),
        ("admin.pem", "URI:spiffe://seeway/admin"),
        ("ca.pem", "CA:TRUE, pathlen:0"),
        ("ca.pem", "Certificate Sign, CRL Sign"),
    ] {
        assert!(text(certificate).contains(wanted), "{certificate} has {wanted}:\n{}", text(certificate));
    }
    // 365 days from now, and ten years.
    for (certificate, days, is_good) in [("server.pem", 364, true), ("server.pem", 366, false), ("ca.pem", 3652, true)]
    {
        let seconds = (days * 86_400).to_string();
        assert_eq!(
            openssl(folder, &["x509", "-noout", "-checkend", &seconds, "-in", certificate]).0,
            is_good,
            "{days}"
        );
    }
    for file in files(folder) {
        let mode = std::fs::metadata(folder.join(&file)).expect("there").permissions().mode() & 0o777;
        let is_private = Path::new(&file).extension().is_none_or(|kind| kind == "key");
        assert_eq!(mode, if is_private { 0o600 } else { 0o644 }, "{file}");
    }
}

#[test]
fn what_is_there_stays_and_signs_what_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let said = made(folder, &["--tls"]);
    for part in [
        "[tls]",
        "[management_tls]",
        "server.pem",
        "client_ca = ",
        "admin-ca.pem",
        "client-client.pem",
        "spiffe://seeway/client",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("PRIVATE KEY"), "{said}");
    let all = [
        "admin-ca.key",
        "admin-ca.pem",
        "admin.key",
        "admin.pem",
        "ca.key",
        "ca.pem",
        "client-client.key",
        "client-client.pem",
        "id_ed25519",
        "id_ed25519.pub",
        "server.key",
        "server.pem",
    ];
    assert_eq!(files(folder), all.map(str::to_owned).into());
    let read = |name: &str| std::fs::read(folder.join(name)).expect("there");
    let before: Vec<_> = all.iter().map(|name| read(name)).collect();

    let made_again: Value =
        serde_json::from_str(&made(folder, &["--tls", "--client", "batch", "--json"])).expect("JSON");
    assert_eq!(made_again["tls"]["clients"][0]["identity"], "spiffe://seeway/batch");
    assert_eq!(all.iter().map(|name| read(name)).collect::<Vec<_>>(), before, "nothing was overwritten");
    let arguments = ["verify", "-purpose", "sslclient", "-CAfile", "ca.pem", "client-batch.pem"];
    assert!(openssl(folder, &arguments).0, "the same authority signed it");

    // A lost server certificate is made anew; a client that is there is a mistake, and found before anything is made.
    std::fs::remove_file(folder.join("server.pem")).expect("removed");
    let (status, _, err) = keygen(folder, &["--tls"]);
    assert!(status == Some(1) && err.contains("server.key is there without"), "{err}");
    std::fs::remove_file(folder.join("server.key")).expect("removed");
    let (status, _, err) = keygen(folder, &["--tls", "--client", "new", "--client", "batch"]);
    assert!(status == Some(1) && err.contains("never overwritten"), "{err}");
    assert!(!folder.join("server.pem").exists() && !folder.join("client-new.pem").exists());
    made(folder, &["--tls"]);
    assert!(openssl(folder, &["verify", "-purpose", "sslserver", "-CAfile", "ca.pem", "server.pem"]).0);
}

#[test]
fn another_authority_does_not_sign() {
    let (own, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    made(own.path(), &["--tls"]);
    made(other.path(), &["--tls"]);
    std::fs::copy(other.path().join("ca.pem"), own.path().join("ca.pem")).expect("copied");
    let (status, _, err) = keygen(own.path(), &["--tls", "--client", "x"]);
    assert!(status == Some(1) && err.contains("was not made by `seeway keygen`"), "{err}");
    assert!(!own.path().join("client-x.pem").exists());
}

#[test]
fn what_makes_no_sense_is_asked_wrongly() {
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [
        &["--client", "x"][..],
        &["--tls", "--client", "../x"],
        &["--tls", "--client", ""],
        &["--tls", "--client", "a b"],
        &["--tls", "--days", "0"],
        &["--tls", "--days", "3651"],
    ] {
        assert_eq!(keygen(folder.path(), arguments).0, Some(2), "{arguments:?}");
    }
    assert!(files(folder.path()).is_empty());
}
