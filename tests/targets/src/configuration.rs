//! Whatever a configuration file says, reading it ends with a value or with problems that have a place, and shows no key.
//!
//! Lines that begin with `#env ` are variables of the environment: `#env SEEWAY_LISTEN__GRPC=127.0.0.1:1`. Relative names are of files in
//! a folder with an identity, known hosts, certificates and a profile of the wire.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::LazyLock;

use rcgen::{CertificateParams, KeyPair};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, key::safe_rng};
use seeway::config::{Config, Place};
use seeway_proto::wire::OPEN_1;
use tempfile::TempDir;

use crate::seeds::{Seeds, seed};

/// What a private key begins with, on its own line and after that: whoever pasted one must not find it in a log.
const KEY_HEAD: &str = "PRIVATE KEY-----";
const KEY_BODY: &str = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ";

/// The folder that configurations stand in. It is gone with the process, where that ends by itself.
static SITE: LazyLock<TempDir> = LazyLock::new(|| {
    let site = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = site.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    };
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).expect("a key");
    write("id", &key.to_openssh(LineEnding::LF).expect("encoded"));
    let public = key.public_key().to_openssh().expect("encoded");
    write("id.pub", &public);
    write("known_hosts", &format!("hsm-a.example {public}\n[hsm-b.example]:2222 {public}\n"));
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["gateway.example".to_owned()]).expect("parameters");
    write("tls.pem", &params.self_signed(&key).expect("signed").pem());
    write("tls.key", &key.serialize_pem());
    write("profile.toml", OPEN_1);
    site
});

/// Reads a configuration.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let environment: Vec<(String, String)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("#env ")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let file = SITE.path().join("seeway.toml");
    let read = || Config::read(text, &file, environment.clone());
    let (first, second) = (read(), read());
    match (&first, &second) {
        // What is shown of a good one has no more in it than names.
        (Ok(config), Ok(_)) => assert!(!format!("{config:?}").contains(KEY_HEAD), "a key is shown"),
        (Err(problems), Err(again)) => {
            assert_eq!(problems, again, "the same text has the same problems");
            let shown = problems.to_string();
            shows_no_key(&shown);
            shows_no_key(&problems.to_json().to_string());
            shows_no_key(&format!("{problems:?}"));
            assert!(!problems.list.is_empty() && shown.lines().count() >= problems.list.len());
            let lines = text.split('\n').count();
            for problem in &problems.list {
                assert!(!problem.what.is_empty() && !problem.fix.is_empty(), "{problem:?}");
                if let Place::File { line, column } = problem.place {
                    assert!((1..=lines).contains(&line) && column > 0, "{problem:?}: there are {lines} lines");
                }
            }
        }
        _ => panic!("the same text is read twice, and once it is good"),
    }
}

fn shows_no_key(shown: &str) {
    assert!(!shown.contains(KEY_HEAD) && !shown.contains(KEY_BODY), "a key is shown");
}

/// What the documentation shows, what the package installs, and files with mistakes in them.
pub fn seeds() -> Seeds {
    let whole = "\
[listen]
grpc = \"127.0.0.1:7878\"
hardserver = [\"unix:/run/seeway/socket\", \"127.0.0.1:9000\"]
admin = \"127.0.0.1:9878\"

[tls]
certificate = \"tls.pem\"
key = \"tls.key\"
client_ca = \"tls.pem\"

[limits]
max_job_bytes = 65536

[[machine]]
name = \"hsm-a\"
address = \"hsm-a.example:22\"
identity = \"id\"
known_hosts = \"known_hosts\"

[[machine]]
name = \"hsm-b\"
address = \"hsm-b.example:2222\"
identity = \"id\"
known_hosts = \"known_hosts\"

[[world]]
name = \"signer\"
machines = [\"hsm-a\", \"hsm-b\"]
";
    let rules = "
[[permission]]
who = [\"user:alice\", \"group:staff\"]
may = [\"submit\", \"pipe\"]
worlds = [\"sign*\"]
jobs_per_second = 100

[[permission]]
name = \"operators\"
who = [\"certificate:spiffe://bank.example/ops/*\"]
may = [\"admin\"]
";
    let profile = "\n[wire]\nprofile = \"profile.toml\"\n";
    let pasted = format!("-----BEGIN OPENSSH {KEY_HEAD}\\n{KEY_BODY}");
    let mut seeds = vec![
        seed("whole", whole),
        seed("with-rules", format!("{whole}{rules}")),
        seed("with-a-profile", format!("{whole}{profile}")),
        seed(
            "environment",
            format!("#env SEEWAY_MACHINE__0__ADDRESS=127.0.0.1:22\n#env SEEWAY_LISTEN__GRPC=\n{whole}"),
        ),
        seed("wrong-environment", format!("#env SEEWAY_MACHINE__7__ADDRES=x\n#env SEEWAY_LIMIT__X=1\n{whole}")),
        seed("misspelled", whole.replace("address", "adress").replace("[limits]", "[limit]")),
        seed("no-toml", whole.replace("[[world]]", "[[world]")),
        seed("wrong-kinds", whole.replace("65536", "\"64 KiB\"").replace("\"id\"", "[1, 2.5, 1979-05-27, {a = true}]")),
        seed("names-taken", whole.replace("hsm-b", "hsm-a")),
        seed("empty", ""),
        seed("pasted-identity", whole.replace("\"id\"", &format!("\"{pasted}\""))),
        seed("pasted-name", whole.replace("\"signer\"", &format!("\"{pasted}\""))),
    ];
    seeds.extend(examples());
    seeds
}

/// The examples of the book, and the package's file.
fn examples() -> Seeds {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |name: &str| fs::read_to_string(root.join(name)).expect("it is in the repository");
    let mut seeds = vec![seed("package", read("deploy/seeway.toml"))];
    for page in ["tutorial", "operations", "configuration"] {
        let text = read(&format!("docs/{page}.md"));
        let blocks = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        seeds.extend(blocks.enumerate().map(|(number, block)| seed(&format!("{page}-{}", number + 1), block)));
    }
    seeds
}
