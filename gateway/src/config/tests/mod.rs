//! What is wrong with a file is said with its exact line, and everything at once.

mod audit;
mod problems;
mod reload;
mod token;
mod trace;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};

use super::document::read;
use super::environment::Overrides;
use super::keys::{TABLES, Unset};
use super::problem::Gathered;
use super::{Config, HardserverAddress, Place, Problem, Problems, reference};

const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

/// A directory with a private key in it, for configurations to name.
struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site = Self { directory: tempfile::tempdir().expect("a directory") };
        let key = PrivateKey::random(&mut rng(), Algorithm::Ed25519).expect("a key");
        site.write("id", &key.to_openssh(LineEnding::LF).expect("encoded"), 0o600);
        site.write("id.pub", &key.public_key().to_openssh().expect("encoded"), 0o644);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).expect("written");
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("set");
    }

    fn read_with(&self, text: &str, environment: &[(&str, &str)]) -> Result<Config, Problems> {
        let environment = environment.iter().map(|(variable, value)| ((*variable).to_owned(), (*value).to_owned()));
        Config::read(text, &self.path("seeway.toml"), environment)
    }

    fn read(&self, text: &str) -> Result<Config, Problems> {
        self.read_with(text, &[])
    }

    /// The problems of a text, each as "LINE: key: what; fix".
    fn problems(&self, text: &str) -> Vec<String> {
        match self.read(text) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.list.iter().map(short).collect(),
        }
    }

    /// The only problem of a text.
    fn problem(&self, text: &str) -> String {
        let mut problems = self.problems(text);
        assert_eq!(problems.len(), 1, "{text}\n{problems:#?}");
        problems.remove(0)
    }
}

fn rng() -> impl russh::keys::ssh_key::rand_core::CryptoRng {
    russh::keys::key::safe_rng()
}

fn short(problem: &Problem) -> String {
    let place = match &problem.place {
        Place::Whole => "whole".to_owned(),
        Place::File { line, .. } => line.to_string(),
        Place::Environment(variable) => variable.clone(),
    };
    format!("{place}: {}: {}; {}", problem.key, problem.what, problem.fix)
}

/// A file without problems; its lines are counted by the tests below.
fn good() -> String {
    format!(
        "[listen]
grpc = \"127.0.0.1:0\"
hardserver = [\"unix:s\", \"tcp:[::1]:0\"]
admin = \"\"

[[machine]]
name = \"hsm-a\"
address = \"hsm-a.example:22\"
identity = \"id\"
host_key = \"{HOST_KEY}\"

[[machine]]
name = \"hsm-b\"
address = \"[2001:db8::1]:2222\"
identity = \"id\"
host_key = \"{HOST_KEY} a comment\"

[[world]]
name = \"signer\"
machines = [\"hsm-a\", \"hsm-b\"]
"
    )
}

/// The good file with one text in it replaced.
fn with(from: &str, to: &str) -> String {
    let good = good();
    assert!(good.contains(from), "{from}");
    good.replacen(from, to, 1)
}

#[test]
fn a_good_file_gives_its_values_and_the_defaults() {
    let site = Site::new();
    let config = site.read(&good()).expect("no problems");
    assert_eq!(config.listen.grpc, Some("127.0.0.1:0".parse().expect("an address")));
    assert_eq!(
        config.listen.hardserver,
        [HardserverAddress::Unix(site.path("s")), HardserverAddress::Tcp("[::1]:0".parse().expect("an address"))]
    );
    assert_eq!((config.listen.admin, config.listen.socket_mode, config.listen.socket_group), (None, 0o660, None));
    let [a, b] = config.machines.as_slice() else { panic!("two machines") };
    assert_eq!((a.name.as_str(), a.address.to_string().as_str()), ("hsm-a", "hsm-a.example:22"));
    assert_eq!((a.user.as_str(), a.identity.path()), ("codesafe", site.path("id").as_path()));
    assert_eq!(a.host_key.fingerprints(), b.host_key.fingerprints());
    assert_eq!((a.seejobs_host.as_str(), a.seejobs_port), ("127.0.0.1", 8888));
    assert_eq!((a.tunnels, a.channels, a.max_in_flight), (1, 2, 1024));
    assert_eq!((b.address.host.as_str(), b.address.port), ("2001:db8::1", 2222));
    let [world] = config.worlds.as_slice() else { panic!("one world") };
    assert_eq!((world.name.as_str(), world.published_as.as_str()), ("signer", "signer"));
    assert_eq!((world.machines.as_slice(), world.idempotent), ([0, 1].as_slice(), false));
    assert!(config.runtime.shards >= 1);
    assert_eq!(config.runtime.drain_timeout, Duration::from_secs(30));
    assert_eq!(config.limits.max_job_bytes, 262_100);
    assert_eq!((config.limits.queue, config.limits.callers, config.limits.caller_jobs), (4096, 10_000, 1024));
    assert_eq!((config.limits.caller_buffer_bytes, config.limits.channel_buffer_bytes), (4_194_304, 1_048_576));
    assert_eq!(config.limits.pipes, 256);
    assert_eq!((config.limits.hold, config.limits.default_timeout), (Duration::from_secs(35), Duration::from_secs(60)));
    assert_eq!(config.ssh.connect_timeout, Duration::from_secs(10));
    assert_eq!((config.ssh.connect_retry, config.ssh.retry_max), (Duration::from_millis(200), Duration::from_secs(10)));
    assert_eq!(config.ssh.refused_retry, Duration::from_secs(300));
    assert_eq!((config.ssh.keepalive_idle, config.ssh.keepalive), (Duration::from_secs(30), Duration::from_secs(10)));
    assert_eq!(config.ssh.broken_after, Duration::from_secs(90));
    assert_eq!(config.retry.max_attempts, 3);
    assert_eq!(config.wire.profile.name, "open-1");
}

/// The example of the command line's specification, with the names of files that are here.
#[test]
fn the_specifications_example_is_taken() {
    let site = Site::new();
    let text = format!(
        r#"
[listen]
grpc       = "127.0.0.1:50051"
hardserver = ["unix:nserver", "tcp:127.0.0.1:9000"]
admin      = "127.0.0.1:9464"        # /metrics, /healthz, /readyz
[[machine]]
name         = "hsm-a"
address      = "hsm-a.example:22"    # its SSH server: name, IPv4 or [IPv6], and port
user         = "codesafe"
identity     = "id"
host_key     = "{HOST_KEY}"
seejobs_host = "127.0.0.1"           # as the SSH server sees it
seejobs_port = 8888
tunnels      = 1                     # SSH connections, for each shard
channels     = 2                     # SEEJob streams on each
max_in_flight = 1024                 # jobs sent and unanswered, over all its channels
[[world]]
name         = "signer"
published_as = "seeway-signer"       # what GetPublishedObject finds; default: the name
machines     = ["hsm-a"]
idempotent   = false                 # are legacy callers' jobs safe to send twice?
[runtime]
shards = "auto"                      # threads of the data plane
[limits]
max_job_bytes   = 262100
queue           = 4096               # jobs waiting, for each world
hold            = "35s"
default_timeout = "60s"              # for callers that set no deadline
callers         = 10000              # connections at the front ends
[ssh]
connect_timeout = "10s"
retry_max       = "10s"              # the back-off's ceiling
keepalive_idle  = "30s"
keepalive       = "10s"
broken_after    = "90s"
"#
    );
    let config = site.read(&text).expect("no problems");
    assert_eq!(config.worlds[0].published_as, "seeway-signer");
}

#[test]
fn private_keys_with_a_passphrase_and_public_halves_are_told_apart() {
    let site = Site::new();
    let key = PrivateKey::random(&mut rng(), Algorithm::Ed25519).expect("a key");
    let encrypted = key.encrypt(&mut rng(), "secret").expect("encrypted");
    site.write("locked", &encrypted.to_openssh(LineEnding::LF).expect("encoded"), 0o600);
    let problem = site.problem(&with("\"id\"", "\"locked\""));
    assert!(problem.starts_with("9: ") && problem.contains("has a passphrase"), "{problem}");
    site.write("public", &key.public_key().to_openssh().expect("encoded"), 0o600);
    let problem = site.problem(&with("\"id\"", "\"public\""));
    assert!(problem.contains("public half"), "{problem}");
}

#[test]
fn a_key_pasted_where_a_files_name_belongs_is_not_repeated() {
    let site = Site::new();
    let key = fs::read_to_string(site.path("id")).expect("there");
    let line = key.lines().nth(1).expect("a line of the key");
    for text in [
        with("identity = \"id\"", &format!("identity = \"\"\"{key}\"\"\"")),
        with(&format!("host_key = \"{HOST_KEY}\""), &format!("host_key = \"\"\"{key}\"\"\"")),
        with("identity = \"id\"", &format!("identity = {key}")),
    ] {
        let problems = site.read(&text).expect_err("a problem").to_string();
        assert!(!problems.contains(&line[..20]), "{problems}");
    }
}

#[test]
fn known_hosts_gives_every_key_of_the_address() {
    let site = Site::new();
    let other =
        PrivateKey::random(&mut rng(), Algorithm::Ed25519).expect("a key").public_key().to_openssh().expect("encoded");
    site.write(
        "hosts",
        &format!("# a comment\n\nx.example {other}\nhsm-a.example,10.0.0.1 {HOST_KEY}\nhsm-a.example {other}\n"),
        0o644,
    );
    let text = with(&format!("host_key = \"{HOST_KEY}\""), "known_hosts = \"hosts\"");
    let config = site.read(&text).expect("no problems");
    assert_eq!(config.machines[0].host_key.fingerprints().len(), 2);
}

#[test]
fn five_mistakes_are_five_problems() {
    let site = Site::new();
    let text = with("127.0.0.1:0", "0.0.0.0:50051")
        .replace("name = \"hsm-b\"", "name = hsm-b")
        .replace("address = \"hsm-a.example:22\"", "adress = \"hsm-a.example:22\"")
        + "idempotent = \"no\"\n[limits]\nhold = \"35\"\n";
    let problems = site.problems(&text);
    let lines: Vec<_> = problems.iter().map(|problem| problem.split(':').next().expect("a line")).collect();
    // The misspelt key is one mistake, seen at two places: it is unknown, and the right one is missing.
    assert_eq!(lines, ["2", "6", "8", "13", "20", "21", "23"], "{problems:#?}");
}

#[test]
fn a_broken_header_does_not_make_its_keys_another_sections() {
    let site = Site::new();
    // It can be made out: its keys are still checked.
    let problems = site.problems(&with("[[world]]", "[[world]").replace("name = \"signer\"", "nam = \"signer\""));
    assert_eq!(problems.len(), 3, "{problems:#?}");
    for (problem, begins) in
        problems.iter().zip(["18: world[0].name: is missing", "18: : is not TOML", "19: world[0].nam: "])
    {
        assert!(problem.starts_with(begins), "{problem}");
    }
    // It can not: nothing is said to be missing that may be there.
    let problem = site.problem(&with("[[machine]]\nname = \"hsm-b\"", "[[???]]\nname = \"hsm-b\""));
    assert!(problem.starts_with("12: : is not TOML"), "{problem}");
}

#[test]
fn tables_may_be_written_in_any_form_of_toml() {
    let site = Site::new();
    let text = format!(
        "limits.queue = 5\nlimits.hold = '0s'\nlisten = {{ grpc = '', hardserver = [], admin = '' }}\n\
         world = [{{ name = 'w', machines = ['m'] }}]\n[[machine]]\n'name' = \"m\"\n\"address\" = 'h:1'\nidentity = 'id'\n\
         host_key = '''{HOST_KEY}'''\n"
    );
    let config = site.read(&text).expect("no problems");
    assert_eq!((config.limits.queue, config.limits.hold), (5, Duration::ZERO));
    assert_eq!((config.listen.grpc, config.listen.hardserver.len()), (None, 0));
    assert_eq!(config.worlds[0].machines, [0]);
}

#[test]
fn a_byte_order_mark_and_foreign_line_ends_are_no_problem() {
    let site = Site::new();
    site.read(&format!("\u{feff}{}", good().replace('\n', "\r\n"))).expect("no problems");
}

#[test]
fn an_empty_file_lacks_machines_and_worlds() {
    let site = Site::new();
    let problems = site.problems("listen.hardserver = []\n");
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].starts_with("whole: machine: there is no [[machine]]"), "{problems:#?}");
    assert!(problems[1].starts_with("whole: world: there is no [[world]]"), "{problems:#?}");
}

#[test]
fn the_environment_overrides_single_keys() {
    let site = Site::new();
    let config = site
        .read_with(
            &with("grpc = \"127.0.0.1:0\"", "grpc = 5"),
            &[
                ("SEEWAY_LISTEN__GRPC", "[::1]:0"),
                ("SEEWAY_LISTEN__HARDSERVER", "tcp:127.0.0.1:0, tcp:[::1]:0"),
                ("SEEWAY_MACHINE__1__ADDRESS", "10.0.0.9:2200"),
                ("SEEWAY_LIMITS__HOLD", "0s"),
                ("SEEWAY_RUNTIME__SHARDS", "3"),
                ("SEEWAY_WORLD__0__IDEMPOTENT", "true"),
                ("SEEWAY_LOG", "debug"),
                ("PATH", "/bin"),
            ],
        )
        .expect("no problems");
    assert_eq!(config.listen.grpc, Some("[::1]:0".parse().expect("an address")));
    assert_eq!(config.listen.hardserver.len(), 2);
    assert_eq!(config.machines[1].address.to_string(), "10.0.0.9:2200");
    assert_eq!((config.limits.hold, config.runtime.shards), (Duration::ZERO, 3));
    assert!(config.worlds[0].idempotent);
}

#[test]
fn an_override_that_is_wrong_is_named() {
    let site = Site::new();
    for (variable, value, contains) in [
        ("SEEWAY_LIMITS__QEUE", "5", "did you mean SEEWAY_LIMITS__QUEUE?"),
        ("SEEWAY_LIMIT__QUEUE", "5", "did you mean SEEWAY_LIMITS__…?"),
        ("SEEWAY_COLOURS__RED", "5", "unset it"),
        ("SEEWAY_LIMITS__QUEUE__X", "5", "overrides no key"),
        ("SEEWAY_LIMITS__QUEUE", "many", "limits.queue: is not a whole number"),
        ("SEEWAY_LIMITS__QUEUE", "0", "limits.queue: is 0"),
        ("SEEWAY_LIMITS__HOLD", "5", "limits.hold: `5` has no unit"),
        ("SEEWAY_WORLD__0__IDEMPOTENT", "1", "neither true nor false"),
        ("SEEWAY_MACHINE__ADDRESS", "h:1", "SEEWAY_MACHINE__0__KEY"),
        ("SEEWAY_MACHINE__2__ADDRESS", "h:1", "the file has 2"),
        ("SEEWAY_MACHINE__0__ADRESS", "h:1", "did you mean SEEWAY_MACHINE__0__ADDRESS?"),
        ("SEEWAY_LISTEN__GRPC", "0.0.0.0:1", "not a loopback address"),
    ] {
        let problems = site.read_with(&good(), &[(variable, value)]).expect_err(variable);
        assert_eq!(problems.list.len(), 1, "{problems}");
        let text = problems.to_string();
        assert!(text.starts_with(&format!("{variable}: ")) && text.contains(contains), "{text}");
    }
}

#[test]
fn problems_are_shown_with_file_line_and_column() {
    let site = Site::new();
    let problems = site.read(&with("\"hsm-a\", \"hsm-b\"", "\"hsm-a\", \"nowhere\"")).expect_err("a problem");
    let expected = format!(
        "{}:20:22: world[signer].machines: there is no machine `nowhere`; add a [[machine]] with name = \"nowhere\", or take it out",
        site.path("seeway.toml").display()
    );
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_said_so() {
    let site = Site::new();
    let problems = Config::load(&site.path("none.toml")).expect_err("not there");
    assert!(problems.to_string().contains("none.toml: can not be read"), "{problems}");
    let problems = Config::load(site.directory.path()).expect_err("a directory");
    assert!(problems.to_string().contains("is not a configuration file"), "{problems}");
    fs::write(site.path("latin.toml"), b"[listen]\n# gr\xfc\xdfe\n").expect("written");
    let problems = Config::load(&site.path("latin.toml")).expect_err("not UTF-8");
    assert!(problems.to_string().contains("latin.toml:2:5: is not UTF-8"), "{problems}");
}

#[test]
fn no_text_makes_reading_panic() {
    let site = Site::new();
    let good = good();
    // Every prefix, and the file with each letter replaced by one that matters to TOML.
    for (position, _) in good.char_indices() {
        let _ = site.problems(&good[..position]);
        for letter in ["\"", "[", "\n", "="] {
            let mut text = good.clone();
            text.replace_range(position..=position, letter);
            if let Err(problems) = site.read(&text) {
                assert!(!problems.list.is_empty());
            } else {
                toml::de::DeTable::parse(&text).expect("what is accepted is TOML");
            }
        }
    }
}

#[test]
fn every_default_is_of_its_keys_kind() {
    let mut gathered = Gathered::default();
    let document = read("", &Overrides::default(), &mut gathered);
    for table in TABLES.iter().filter(|table| !table.many) {
        let section = document.one(table.name);
        assert!(table.keys.iter().all(|key| section.given(key.name).is_none()));
    }
    gathered.verdict(Path::new(""), Some(())).expect("no problems");
    for key in TABLES.iter().flat_map(|table| table.keys) {
        if let Unset::Default(text) = key.unset {
            assert!(key.kind.read_text(text, &Place::Whole).is_ok(), "{key:?}");
        }
    }
}

#[test]
fn the_reference_page_is_up_to_date() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let on_disk = fs::read_to_string(&page).unwrap_or_default();
    assert_eq!(
        on_disk,
        reference(),
        "docs/configuration.md differs from the table of keys; write it with: cargo run -- check --reference > docs/configuration.md"
    );
}
