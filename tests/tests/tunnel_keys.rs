//! Keys of both sides of a tunnel, with OpenSSH's own server, agent and tools: what gets in, and what exactly is said to what does not.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use seeway_tests::keys::{key_alone, run};
use seeway_tests::machine::seeway;
use seeway_tests::{Agent, Config, Gateway, Identity, Machine, Sshd, turn::Turn, wait};
use tempfile::TempDir;

/// Every kind of key that gets in.
const KINDS: [&[&str]; 4] = [&["ed25519"], &["ecdsa", "-b", "256"], &["ecdsa", "-b", "521"], &["rsa", "-b", "3072"]];

/// A folder with keys that OpenSSH's tool has made.
struct Keys(TempDir);

impl Keys {
    fn new() -> Self {
        Self(TempDir::new().expect("the temporary folder can be written"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("the temporary folder can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        path
    }

    /// Makes a key of this kind: its file.
    fn make(&self, name: &str, kind: &[&str], passphrase: &str) -> PathBuf {
        let path = self.path(name);
        let mut keygen = Command::new("ssh-keygen");
        run(keygen.args(["-q", "-C", "", "-N", passphrase, "-t"]).args(kind).arg("-f").arg(&path));
        path
    }

    /// Has an authority sign a key, as the arguments say: the certificate's file.
    fn sign(&self, authority: &Path, key: &Path, arguments: &[&str]) -> PathBuf {
        let public = key.with_extension("pub");
        run(Command::new("ssh-keygen").arg("-q").arg("-s").arg(authority).args(arguments).arg(&public));
        let stem = key.file_name().and_then(|name| name.to_str()).expect("a name");
        self.path(&format!("{stem}-cert.pub"))
    }
}

fn public(key: &Path) -> String {
    fs::read_to_string(key.with_extension("pub")).expect("ssh-keygen wrote it").trim().to_owned()
}

/// An SSH server that lets these public keys in, and a machine behind it.
struct Hsm {
    sshd: Sshd,
    machine: Machine,
    /// Its folder has the server's list of those who may log in.
    _identity: Identity,
}

impl Hsm {
    fn start(authorized: &[String], further: &str) -> Self {
        // The server reads the file at each login.
        let identity = Identity::generate();
        let sshd = Sshd::start_with(&identity, Ipv4Addr::LOCALHOST.into(), further);
        let file = identity.authorized_keys();
        fs::write(&file, authorized.join("\n") + "\n").expect("the temporary folder can be written");
        let machine = Machine::start("echo");
        Self { sshd, machine, _identity: identity }
    }

    /// A configuration with these lines about our key, and the server's key pinned.
    fn pinned(&self, ours: &str) -> Config {
        self.with(&format!("{ours}\nhost_key = {:?}", self.sshd.door().host_key))
    }

    /// A configuration with these lines about keys.
    fn with(&self, keys: &str) -> Config {
        Config::new()
            .machine_with("hsm", self.sshd.door(), self.machine.seejobs(), keys)
            .world("w", &["hsm"], "")
            .line("ssh", "connect_timeout = \"20s\"")
    }
}

fn identity_line(key: &Path) -> String {
    format!("identity = \"{}\"", key.display())
}

/// How `seeway check` ended, and all that it said.
fn check_with(config: &Config, further: &[&str], environment: &[(&str, &Path)]) -> (Option<i32>, String) {
    let folder = TempDir::new().expect("the temporary folder can be written");
    let file = folder.path().join("seeway.toml");
    let socket = folder.path().join("nserver");
    fs::write(&file, config.text(socket.to_str().expect("UTF-8"))).expect("the temporary folder can be written");
    let mut command = seeway();
    command.arg("check").arg("--config").arg(&file).args(further).envs(environment.iter().copied());
    let output = command.output().expect("the binary runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), said)
}

#[track_caller]
fn gets_in(config: &Config) {
    let (status, said) = check_with(config, &["--connect"], &[]);
    assert_eq!(status, Some(0), "{said}");
}

/// That a tunnel is refused, and that this is said of it.
#[track_caller]
fn is_refused(config: &Config, words: &[&str]) {
    let (status, said) = check_with(config, &["--connect"], &[]);
    assert_eq!(status, Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not said:\n{said}");
    }
}

#[test]
fn a_key_with_a_passphrase_gets_in() {
    let _turn = Turn::beside_others();
    let keys = Keys::new();
    let made: Vec<PathBuf> = KINDS
        .iter()
        .enumerate()
        .map(|(index, kind)| keys.make(&format!("key-{index}"), kind, "correct horse battery staple"))
        .collect();
    let hsm = Hsm::start(&made.iter().map(|key| public(key)).collect::<Vec<_>>(), "");
    let passphrase = keys.write("passphrase", "correct horse battery staple\n");
    let with =
        |key: &Path, file: &str| hsm.pinned(&format!("{}\nidentity_passphrase = \"{file}\"", identity_line(key)));
    for key in &made {
        gets_in(&with(key, &passphrase.display().to_string()));
    }
    let wrong = keys.write("wrong", "correct horse battery stable\n");
    is_refused(&with(&made[0], &wrong.display().to_string()), &["machine[hsm].identity", "another passphrase"]);
    is_refused(&hsm.pinned(&identity_line(&made[0])), &["has a passphrase", "identity_passphrase"]);
    let (_, said) = check_with(&with(&made[0], &wrong.display().to_string()), &[], &[]);
    assert!(!said.contains("horse"), "{said}");

    // As systemd hands them over: the passphrase, and the key itself.
    let credentials = Keys::new();
    credentials.write("hsm-a", "correct horse battery staple");
    credentials.write("key", &fs::read_to_string(&made[0]).expect("ssh-keygen wrote it"));
    let config = hsm.pinned("identity = \"credential:key\"\nidentity_passphrase = \"credential:hsm-a\"");
    let (status, said) = check_with(&config, &["--connect"], &[("CREDENTIALS_DIRECTORY", credentials.0.path())]);
    assert_eq!(status, Some(0), "{said}");
    is_refused(&config, &["CREDENTIALS_DIRECTORY is not set"]);
}

#[test]
fn an_agent_signs_for_keys_that_never_leave_it() {
    let _turn = Turn::beside_others();
    let keys = Keys::new();
    let mut agent = Agent::start();
    let made: Vec<PathBuf> =
        KINDS.iter().enumerate().map(|(index, kind)| keys.make(&format!("key-{index}"), kind, "")).collect();
    let hsm = Hsm::start(&made.iter().map(|key| public(key)).collect::<Vec<_>>(), "");
    for key in &made {
        agent.add(key);
        // From now on the agent alone has it.
        fs::remove_file(key).expect("ssh-keygen wrote it");
    }
    let of = |key: &Path, agent: &str| {
        hsm.pinned(&format!("identity = \"{}\"\nagent = \"{agent}\"", key.with_extension("pub").display()))
    };
    let socket = agent.socket().display().to_string();
    for key in &made {
        gets_in(&of(key, &socket));
    }
    let (status, said) = check_with(&of(&made[0], "env"), &["--connect"], &[("SSH_AUTH_SOCK", agent.socket())]);
    assert_eq!(status, Some(0), "{said}");

    let stranger = keys.make("stranger", &["ed25519"], "");
    is_refused(&of(&stranger, &socket), &["login failed", "has 4 keys, but not ssh-ed25519 SHA256:", "ssh-add"]);
    let private = hsm.pinned(&format!("{}\nagent = \"{socket}\"", identity_line(&stranger)));
    is_refused(&private, &["is a private key", "FILE.pub"]);
    agent.kill();
    is_refused(&of(&made[0], &socket), &["login failed", "can not be reached", "start it"]);
}

#[test]
fn an_agent_that_does_not_answer_costs_no_more_than_the_time_to_connect() {
    let _turn = Turn::beside_others();
    let keys = Keys::new();
    let key = keys.make("key", &["ed25519"], "");
    let hsm = Hsm::start(&[public(&key)], "");
    let socket = keys.path("silent");
    let _silent = UnixListener::bind(&socket).expect("the temporary folder can be written");
    let config = Config::new()
        .machine_with(
            "hsm",
            hsm.sshd.door(),
            hsm.machine.seejobs(),
            &format!(
                "identity = \"{}.pub\"\nagent = \"{}\"\nhost_key = {:?}",
                key.display(),
                socket.display(),
                hsm.sshd.door().host_key
            ),
        )
        .world("w", &["hsm"], "")
        .line("ssh", "connect_timeout = \"1s\"");
    let begun = std::time::Instant::now();
    is_refused(&config, &["login failed", "did not answer in time"]);
    assert!(begun.elapsed() < wait::BOUND);
}

/// Something at an agent's socket that says this to the first question, and then hangs up.
fn false_agent(socket: PathBuf, answer: &'static [u8]) {
    use std::io::{Read, Write};
    let listener = UnixListener::bind(socket).expect("the temporary folder can be written");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut question = [0; 5];
            if stream.read_exact(&mut question).is_ok() {
                let _ = stream.write_all(answer);
            }
        }
    });
}

#[test]
fn what_is_no_agent_is_told_from_one_and_the_server_is_left_alone() {
    let _turn = Turn::beside_others();
    let keys = Keys::new();
    let key = keys.make("key", &["ed25519"], "");
    let hsm = Hsm::start(&[public(&key)], "");
    for (index, (answer, why)) in [
        (&b""[..], "hung up"),
        (b"\0\0\x01", "hung up"),
        // Longer than any message of an agent.
        (b"\xff\xff\xff\xff", "is none that is understood"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "is none that is understood"),
        (b"\0\0\0\0", "has 0 keys"),
        // "Failure", and a list of no keys.
        (b"\0\0\0\x01\x05", "has 0 keys"),
        (b"\0\0\0\x05\x0c\0\0\0\0", "has 0 keys"),
    ]
    .into_iter()
    .enumerate()
    {
        let socket = keys.path(&format!("agent-{index}"));
        let ours = format!("identity = \"{}.pub\"\nagent = \"{}\"", key.display(), socket.display());
        false_agent(socket, answer);
        is_refused(&hsm.pinned(&ours), &["login failed", why]);
    }
    // One connection is the test's own, made to see that the server is there.
    assert_eq!(hsm.sshd.log().matches("Connection from").count(), 1, "{}", hsm.sshd.log());

    // A list of four thousand million keys without one, as if it could not be parsed: the server is asked, and nobody signs.
    let socket = keys.path("agent-endless");
    let ours = format!("identity = \"{}.pub\"\nagent = \"{}\"", key.display(), socket.display());
    false_agent(socket, b"\0\0\0\x05\x0c\xff\xff\xff\xff");
    is_refused(&hsm.pinned(&ours), &["login failed", "hung up"]);
}

#[test]
fn a_key_that_an_agent_may_use_for_one_server_only_gets_in_there() {
    let _turn = Turn::beside_others();
    let keys = Keys::new();
    let agent = Agent::start();
    let key = keys.make("key", &["ed25519"], "");
    let (hsm, other) = (Hsm::start(&[public(&key)], ""), Hsm::start(&[public(&key)], ""));
    let known_hosts = keys.write("known_hosts", &format!("hsm {}\n", hsm.sshd.door().host_key));
    let known_hosts = known_hosts.display().to_string();
    agent.tell(&["-q", "-H", &known_hosts, "-h", "hsm", &key.display().to_string()]);
    let ours = format!("identity = \"{}.pub\"\nagent = \"{}\"", key.display(), agent.socket().display());
    gets_in(&hsm.pinned(&ours));
    is_refused(&other.pinned(&ours), &["login failed", "ssh-agent", "refused to sign"]);
}

#[test]
fn a_gateway_waits_for_its_agent() {
    let _turn = Turn::beside_others();
    let keys = Keys::new();
    let mut agent = Agent::start();
    agent.kill();
    let key = keys.make("key", &["ed25519"], "");
    let hsm = Hsm::start(&[public(&key)], "");
    let ours = format!("identity = \"{}.pub\"\nagent = \"{}\"", key.display(), agent.socket().display());
    let config = hsm.pinned(&ours).line("ssh", "connect_retry = \"50ms\"").line("ssh", "retry_max = \"100ms\"");
    let gateway = Gateway::start(&config);
    wait::until("it has missed its agent", wait::BOUND, || gateway.log().contains("can not be reached").then_some(()));
    agent.start_again();
    wait::until("it has missed its key", wait::BOUND, || gateway.log().contains("has 0 keys").then_some(()));
    // One connection is the test's own, made to see that the server is there.
    assert_eq!(hsm.sshd.log().matches("Connection from").count(), 1, "the server is left alone:\n{}", hsm.sshd.log());
    agent.add(&key);
    gateway.until_up(&["hsm"]);
    // A tunnel that stands has no use for the agent any more.
    agent.kill();
    assert!(gateway.metrics().sum_where("seeway_tunnels", "state=\"ready\"") > 0.5);
}

#[test]
fn a_certificate_gets_in_where_its_authority_is_trusted() {
    let _turn = Turn::beside_others();
    let keys = Keys::new();
    let authority = keys.make("authority", &["ed25519"], "");
    let trusted = format!("TrustedUserCAKeys {}", authority.with_extension("pub").display());
    let hsm = Hsm::start(&[], &trusted);
    let user = hsm.sshd.door().user.clone();
    let agent = Agent::start();
    for (index, kind) in KINDS.iter().enumerate() {
        let key = keys.make(&format!("key-{index}"), kind, "");
        agent.add(&key);
        let certificate = keys.sign(&authority, &key, &["-I", "the gateway", "-n", &user, "-V", "-5m:+1h"]);
        let certificate = format!("certificate = \"{}\"", certificate.display());
        gets_in(&hsm.pinned(&format!("{}\n{certificate}", identity_line(&key))));
        let of_agent =
            format!("identity = \"{}.pub\"\nagent = \"{}\"\n{certificate}", key.display(), agent.socket().display());
        gets_in(&hsm.pinned(&of_agent));
        is_refused(&hsm.pinned(&identity_line(&key)), &["login failed", "authorized keys"]);
    }
    let logins = || hsm.sshd.log().matches("ID the gateway (serial 0) CA ED25519").count();
    wait::until("the server has logged each", wait::BOUND, || (logins() == 2 * KINDS.len()).then_some(()));

    let key = keys.make("key", &["ed25519"], "");
    let other = keys.make("other", &["ed25519"], "");
    let signed = |key: &Path, arguments: &[&str]| {
        let arguments: Vec<_> =
            ["-I", "the gateway", "-n", &user].into_iter().chain(arguments.iter().copied()).collect();
        let certificate = keys.sign(&authority, key, &arguments);
        // One file for all of them: what is made of it is used before the next.
        hsm.pinned(&format!("{}\ncertificate = \"{}\"", identity_line(&keys.path("key")), certificate.display()))
    };
    let (status, said) = check_with(&signed(&key, &["-V", "-5m:20991231"]), &[], &[]);
    assert_eq!(status, Some(0), "{said}");
    assert!(
        said.contains("hsm: logs in with the certificate \"the gateway\"") && said.contains("until 2099-12-3"),
        "{said}"
    );
    // Known before any server is asked.
    for (key, arguments, why) in [
        (&key, &["-V", "-2h:-1h"][..], "has expired"),
        (&key, &["-V", "+1h:+2h"], "valid only from"),
        (&key, &["-h"], "for a host"),
        (&key, &["-O", "clear"], "permit-port-forwarding"),
        (&other, &[], "another key"),
    ] {
        let (status, said) = check_with(&signed(key, arguments), &[], &[]);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("machine[hsm].certificate: ") && said.contains(why), "{why}: {said}");
    }
    // One that ends within a week is spoken of at the start. For each, how long it will do is shown where it is watched.
    let gateway = Gateway::ready(&signed(&key, &["-V", "20200101:20991231"]));
    assert!(!gateway.log().contains("ends soon"), "{}", gateway.log());
    let soon = Gateway::ready(&signed(&key, &["-V", "-5m:+6d"]));
    assert!(soon.log().contains("ends soon") && soon.log().contains("serial 0"), "{}", soon.log());
    let end = gateway.metrics().sum("seeway_certificate_expires_timestamp_seconds");
    assert!((end - 4_102_358_400.0).abs() < 86_401.0, "{end} is the last day of 2099, somewhere");

    // Known to the server only.
    is_refused(&signed(&key, &["-n", "somebody-else"]), &["login failed", "principals", "TrustedUserCAKeys"]);
}

#[test]
fn a_certificate_that_has_expired_meanwhile_makes_no_tunnel_and_a_new_one_in_its_place_does() {
    let _turn = Turn::beside_others();
    let keys = Keys::new();
    let authority = keys.make("authority", &["ed25519"], "");
    let hsm = Hsm::start(&[], &format!("TrustedUserCAKeys {}", authority.with_extension("pub").display()));
    let key = keys.make("key", &["ed25519"], "");
    let user = hsm.sshd.door().user.clone();
    let sign =
        |end: &str| keys.sign(&authority, &key, &["-I", "the gateway", "-n", &user, "-V", &format!("-5m:{end}")]);
    let certificate = sign("+12s");
    let config = hsm
        .pinned(&format!("{}\ncertificate = \"{}\"", identity_line(&key), certificate.display()))
        .line("ssh", "connect_retry = \"50ms\"");
    let mut gateway = Gateway::ready(&config);
    let end = gateway.metrics().sum("seeway_certificate_expires_timestamp_seconds");
    let now = || std::time::UNIX_EPOCH.elapsed().expect("it is after 1970").as_secs_f64();
    wait::until("the certificate's end", wait::BOUND, || (now() >= end).then_some(()));
    assert!(gateway.metrics().sum("seeway_channels") > 0.5, "the tunnel outlives it");
    let before = hsm.sshd.log();
    hsm.sshd.signal_connections(rustix::process::Signal::KILL);
    wait::until("no tunnel is made", wait::BOUND, || gateway.log().contains("it has expired, on 2").then_some(()));
    assert!(gateway.metrics().sum_where("seeway_tunnels", "state=\"refused\"") > 0.5);
    let connections = |log: &str| log.matches("Connection from").count();
    assert_eq!(connections(&hsm.sshd.log()), connections(&before), "the server is not asked");
    sign("+1h");
    gateway.hang_up();
    gateway.until_up(&["hsm"]);
}

#[test]
fn a_host_certificate_of_a_trusted_authority_is_enough() {
    let _turn = Turn::beside_others();
    let keys = Keys::new();
    let ours = keys.make("ours", &["ed25519"], "");
    for (index, kind) in KINDS.iter().enumerate() {
        let authority = keys.make(&format!("authority-{index}"), kind, "");
        let host = keys.make(&format!("host-{index}"), &["ecdsa", "-b", "384"], "");
        let rsa_host = keys.make(&format!("rsa-host-{index}"), &["rsa", "-b", "3072"], "");
        for host in [host, rsa_host] {
            let certificate = keys.sign(&authority, &host, &["-I", "hsm", "-h", "-n", "127.0.0.1", "-V", "-5m:+1h"]);
            let hsm = with_certificate(&ours, &host, &certificate);
            let trusting = format!("{}\nhost_ca = \"{}\"", identity_line(&ours), key_alone(&public(&authority)));
            gets_in(&hsm.with(&trusting));
        }
    }

    let (authority, stranger) = (keys.path("authority-0"), keys.path("authority-1"));
    let host = keys.make("host", &["ecdsa", "-b", "256"], "");
    let by = |authority: &Path, arguments: &[&str]| {
        let arguments: Vec<_> = ["-I", "hsm", "-h"].into_iter().chain(arguments.iter().copied()).collect();
        let certificate = keys.sign(authority, &host, &arguments);
        with_certificate(&ours, &host, &certificate)
    };
    let trusting = format!("{}\nhost_ca = \"{}\"", identity_line(&ours), key_alone(&public(&authority)));
    let good = ["-n", "hsm.example,127.0.0.*"];
    for (signed_by, arguments, why) in [
        (&authority, &["-n", "hsm.example"][..], "is for [\"hsm.example\"], not for 127.0.0.1"),
        (&authority, &["-n", "127.0.0.1", "-V", "-2h:-1h"], "has expired"),
        (&authority, &[], "is for []"),
        (&stranger, &good, "pinned is @cert-authority"),
    ] {
        is_refused(&by(signed_by, arguments).with(&trusting), &["host key failed", why]);
    }
    let hsm = by(&authority, &good);
    gets_in(&hsm.with(&trusting));
    // Whoever trusts a key is not shown a certificate, and does not miss it.
    gets_in(&hsm.with(&format!("{}\nhost_key = \"{}\"", identity_line(&ours), key_alone(&public(&host)))));
    // A server without a certificate.
    let bare = Hsm::start(&[public(&ours)], "");
    is_refused(&bare.with(&trusting), &["host key failed", "showed the host key ssh-ed25519", "@cert-authority"]);

    let known = |lines: &str| {
        let file = keys.write("known_hosts", lines);
        hsm.with(&format!("{}\nknown_hosts = \"{}\"", identity_line(&ours), file.display()))
    };
    let (trust, host) = (format!("@cert-authority 127.0.0.* {}\n", public(&authority)), public(&host));
    gets_in(&known(&trust));
    is_refused(&known(&format!("{trust}@revoked * {host}\n")), &["host key failed", "revoked"]);
    is_refused(&known(&format!("{trust}@revoked * {}\n", public(&authority))), &["host key failed", "revoked"]);
}

/// A server whose host key has a certificate, and which lets us in.
fn with_certificate(ours: &Path, host: &Path, certificate: &Path) -> Hsm {
    let kind = public(host).split(' ').next().expect("a kind").replace("ssh-rsa", "rsa-sha2-512");
    let lines = format!(
        "HostKey {}\nHostCertificate {}\nHostKeyAlgorithms {kind}-cert-v01@openssh.com,{kind},ssh-ed25519",
        host.display(),
        certificate.display()
    );
    Hsm::start(&[public(ours)], &lines)
}

#[test]
fn servers_that_have_only_what_is_broken_are_refused_and_told_what_is_missing() {
    let _turn = Turn::beside_others();
    let keys = Keys::new();
    let ours = keys.make("ours", &["ed25519"], "");
    let short = keys.make("short", &["rsa", "-b", "2048"], "");
    let long = keys.make("long", &["rsa", "-b", "3072"], "");
    let with_key = |key: &Path, algorithm: &str| format!("HostKey {}\nHostKeyAlgorithms {algorithm}", key.display());
    for (lines, words) in [
        (
            "KexAlgorithms diffie-hellman-group14-sha1".to_owned(),
            &["no key exchange", "it has diffie-hellman-group14-sha1;", "mlkem768x25519-sha256"][..],
        ),
        ("KexAlgorithms diffie-hellman-group14-sha256".to_owned(), &["no key exchange", "curve25519-sha256"]),
        (
            "Ciphers aes128-cbc,3des-cbc".to_owned(),
            &["no cipher", "it has aes128-cbc, 3des-cbc;", "aes128-gcm@openssh.com"],
        ),
        (
            "Ciphers aes256-ctr\nMACs hmac-sha1,hmac-sha2-256".to_owned(),
            &["no MAC", "it has hmac-sha1, hmac-sha2-256;", "hmac-sha2-256-etm@openssh.com"],
        ),
        (with_key(&long, "ssh-rsa"), &["no host key", "it has ssh-rsa;", "rsa-sha2-512"]),
    ] {
        let hsm = Hsm::start(&[public(&ours)], &lines);
        let words: Vec<_> = words.iter().copied().chain(["SSH failed", "policy \"modern\""]).collect();
        is_refused(&hsm.pinned(&identity_line(&ours)), &words);
    }
    let hsm = Hsm::start(&[public(&ours)], &with_key(&short, "rsa-sha2-512"));
    is_refused(&hsm.pinned(&identity_line(&ours)), &["host key failed", "RSA key of 2048 bits"]);
    let pinned = format!("{}\nhost_key = \"{}\"", identity_line(&ours), key_alone(&public(&short)));
    is_refused(&hsm.with(&pinned), &["machine[hsm].host_key", "2048 bits"]);
    is_refused(&hsm.pinned(&identity_line(&short)), &["machine[hsm].identity", "2048 bits"]);
    let hsm = Hsm::start(&[public(&ours)], &with_key(&long, "rsa-sha2-256"));
    gets_in(&hsm.with(&format!("{}\nhost_key = \"{}\"", identity_line(&ours), key_alone(&public(&long)))));
}

#[test]
fn the_emulated_hsm_speaks_both_policies() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let machine = Machine::start_with_ssh("echo", &identity, "127.0.0.1:0");
    for (policy, key_exchange) in [("modern", "mlkem768x25519-sha256"), ("fips", "ecdh-sha2-nistp256")] {
        let config = Config::new()
            .machine("hsm", machine.door(), machine.seejobs(), &identity, "")
            .world("w", &["hsm"], "")
            .line("ssh", &format!("algorithms = \"{policy}\""));
        let gateway = Gateway::ready(&config);
        let logged = || gateway.log().contains(&format!("key_exchange=\"{key_exchange}\"")).then_some(());
        wait::until("what was agreed on is logged", wait::BOUND, logged);
    }
}

#[test]
fn fips_takes_what_is_approved_and_nothing_else() {
    let _turn = Turn::beside_others();
    let keys = Keys::new();
    let ours = keys.make("ours", &["ecdsa", "-b", "384"], "");
    for (lines, refused_with) in [
        ("KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org", Some("no key exchange")),
        ("Ciphers chacha20-poly1305@openssh.com", Some("no cipher")),
        ("KexAlgorithms ecdh-sha2-nistp256", None),
        ("KexAlgorithms ecdh-sha2-nistp384", None),
        ("KexAlgorithms ecdh-sha2-nistp521\nCiphers aes256-ctr\nMACs hmac-sha2-512-etm@openssh.com", None),
        ("Ciphers aes256-gcm@openssh.com", None),
        ("", None),
    ] {
        let hsm = Hsm::start(&[public(&ours)], lines);
        let config = hsm.pinned(&identity_line(&ours));
        gets_in(&config);
        let fips = config.line("ssh", "algorithms = \"fips\"");
        match refused_with {
            Some(what) => is_refused(&fips, &["SSH failed", what, "policy \"fips\""]),
            None => gets_in(&fips),
        }
    }
}
