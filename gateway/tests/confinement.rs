//! What a gateway that runs can do no more, tried in a process that has confined itself, and seen from outside on a real one.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // A test waits for real processes.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// For what takes milliseconds on an idle computer.
const BOUND: Duration = Duration::from_secs(60);

fn seeway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seeway"));
    command.env_remove("SEEWAY_LOG");
    command
}

/// A child that ends with its guard, and what it writes to its standard output.
struct Running(Child, #[allow(dead_code)] BufReader<ChildStdout>); // Kept open for it to write to.

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts a command; gives its lines up to the one that says that it is ready.
    fn start(command: &mut Command) -> (Self, String) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let mut lines = String::new();
        while !lines.lines().any(|line| line.starts_with("ready ")) && out.read_line(&mut lines).expect("text") > 0 {}
        let running = Self(child, out);
        assert!(lines.contains("ready "), "{lines}{}", running.log());
        (running, lines.trim().to_owned())
    }

    /// Ends it, and gives what it wrote to its standard error.
    fn log(mut self) -> String {
        let err = self.0.stderr.take().expect("piped");
        let _ = self.0.kill();
        BufReader::new(err).lines().map_while(Result::ok).collect::<Vec<_>>().join("\n")
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A folder with an identity, a configuration and, in another folder, a file that is nobody's business.
struct Site {
    folder: tempfile::TempDir,
    elsewhere: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let site =
            Self { folder: tempfile::tempdir().expect("a folder"), elsewhere: tempfile::tempdir().expect("a folder") };
        std::fs::write(site.other(), "secret").expect("written");
        // Of a user that is not privileged, where there is one.
        std::fs::set_permissions(site.folder.path(), std::fs::Permissions::from_mode(0o755)).expect("set");
        assert!(seeway().arg("keygen").arg(site.folder.path()).output().expect("it runs").status.success());
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn other(&self) -> PathBuf {
        self.elsewhere.path().join("other")
    }

    /// Writes a configuration whose only machine is at `address`, with this host key, and `further` lines.
    fn write(&self, address: &str, host_key: &str, identity: &str, further: &str) -> PathBuf {
        let text = format!(
            "{further}\n[listen]\ngrpc = \"127.0.0.1:0\"\nhardserver = [\"unix:nserver\"]\nadmin = \"127.0.0.1:0\"\n[[machine]]\n\
             name = \"hsm\"\naddress = \"{address}\"\nidentity = \"{identity}\"\nhost_key = \"{host_key}\"\n[[world]]\nname = \"w\"\n\
             machines = [\"hsm\"]\n"
        );
        std::fs::write(self.path("seeway.toml"), text).expect("written");
        self.path("seeway.toml")
    }

    /// One with a machine that is not asked for anything.
    fn write_alone(&self, further: &str) -> PathBuf {
        let key = std::fs::read_to_string(self.path("id_ed25519.pub")).expect("there");
        self.write("127.0.0.1:22", key.trim(), "id_ed25519", further)
    }

    /// What the example `confined` could do, by thread and deed.
    fn attempts(&self, further: &str, port: u16) -> BTreeMap<String, String> {
        let config = self.write_alone(further);
        // target/PROFILE/deps/TEST
        let test = std::env::current_exe().expect("a running test has a path");
        let example = test.ancestors().nth(2).expect("three folders deep").join("examples/confined");
        assert!(example.is_file(), "{} is missing: build all targets", example.display());
        let run = Command::new(example).arg(config).arg(self.other()).arg(port.to_string()).output();
        let Output { stdout, stderr, .. } = run.expect("it runs");
        let out = String::from_utf8(stdout).expect("text");
        let found: BTreeMap<String, String> = out
            .lines()
            .map(|line| {
                let at = if ["confined", "refused"].iter().any(|word| line.starts_with(word)) {
                    line.find(' ')
                } else {
                    line.rfind(' ')
                };
                let (what, how) = line.split_at(at.expect("two words"));
                (what.to_owned(), how.trim().to_owned())
            })
            .collect();
        assert!(!found.is_empty(), "{}", String::from_utf8_lossy(&stderr));
        found
    }
}

/// Every deed of the example that a gateway has no use for.
const TAKEN_AWAY: [&str; 15] = [
    "read-other",
    "read-shadow",
    "list-root",
    "write-beside",
    "listen",
    "listen-unbound",
    "multipath-socket",
    "set-mode",
    "start-program",
    "ptrace",
    "mount",
    "unshare",
    "signal-parent",
    "become-other",
    "packet-socket",
];

#[test]
fn a_confined_process_can_do_nothing_that_a_gateway_has_no_use_for() {
    let site = Site::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = listener.local_addr().expect("bound").port();
    let found = site.attempts("process.sandbox = \"require\"", port);
    assert_eq!(found["confined"], "files and ports taken away, system calls taken away", "{found:?}");
    for thread in ["first", "second"] {
        for deed in TAKEN_AWAY {
            assert_eq!(found[&format!("{thread} {deed}")], "PermissionDenied", "{thread} {deed}: {found:?}");
        }
        for deed in ["read-configuration", "resolve-name", "connect"] {
            assert_eq!(found[&format!("{thread} {deed}")], "done", "{thread} {deed}: {found:?}");
        }
    }
    assert_eq!(found["first execve"], "PermissionDenied", "{found:?}");
    assert!(!site.path("made-by-first").exists());
}

/// Otherwise the test above might pass because the deeds fail for other reasons.
#[test]
fn an_unconfined_process_can_do_them() {
    let site = Site::new();
    let found = site.attempts("process.sandbox = \"off\"", 1);
    assert_eq!(found["confined"], "files left, system calls left");
    let mut possible =
        vec!["read-other", "list-root", "write-beside", "listen", "listen-unbound", "set-mode", "start-program"];
    possible.extend(["signal-parent", "become-other"]);
    if std::fs::read_to_string("/proc/sys/net/mptcp/enabled").is_ok_and(|enabled| enabled.trim() == "1") {
        possible.push("multipath-socket");
    }
    if nix::unistd::Uid::effective().is_root() {
        possible.extend(["read-shadow", "unshare"]);
    }
    for deed in possible {
        assert_eq!(found[&format!("second {deed}")], "done", "{deed}: {found:?}");
    }
    assert!(!found.contains_key("first execve"), "it became another program");
}

#[test]
fn only_the_ports_that_are_named_can_be_connected_to() {
    let site = Site::new();
    let (one, other) =
        (TcpListener::bind("127.0.0.1:0").expect("bound"), TcpListener::bind("127.0.0.1:0").expect("bound"));
    let port = |listener: &TcpListener| listener.local_addr().expect("bound").port();
    let only = format!("process.connect_ports = [\"22\", \"{}\"]", port(&one));
    assert_eq!(site.attempts(&only, port(&one))["second connect"], "done");
    assert_eq!(site.attempts(&only, port(&other))["second connect"], "PermissionDenied");
}

#[test]
fn memory_is_locked_where_that_is_wanted_and_possible() {
    let site = Site::new();
    let found = site.attempts("process.lock_memory = \"require\"\nprocess.sandbox = \"off\"", 1);
    match found.get("locked") {
        Some(kilobytes) => assert!(kilobytes.parse::<u64>().expect("a number") > 1000, "{found:?}"),
        // Without root, and with a limit.
        None => assert!(found["refused"].contains("LimitMEMLOCK=infinity"), "{found:?}"),
    }
    let found = site.attempts("process.lock_memory = \"off\"\nprocess.sandbox = \"off\"", 1);
    assert_eq!(found["locked"], "0");
}

/// An emulated HSM behind an SSH server of its own: its address and host key.
fn emulate(site: &Site) -> (Running, String, String) {
    let mut command = seeway();
    command.args(["emulate", "--app", "echo", "--ssh", "127.0.0.1:0", "--authorized-keys"]);
    command.arg(site.path("authorized_keys")).arg("--state").arg(site.elsewhere.path());
    let (running, lines) = Running::start(&mut command);
    let after = |what: &str| lines.split(what).nth(1).unwrap_or_else(|| panic!("no {what} in {lines}")).to_owned();
    let host_key = after("host_key = \"").split('"').next().expect("a key").to_owned();
    (running, after("ssh=").split_whitespace().next().expect("an address").to_owned(), host_key)
}

fn status(process: u32, thread: Option<&str>, key: &str) -> String {
    let file = match thread {
        Some(thread) => format!("/proc/{process}/task/{thread}/status"),
        None => format!("/proc/{process}/status"),
    };
    let text = std::fs::read_to_string(file).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
    line.unwrap_or_else(|| panic!("no {key}")).trim().to_owned()
}

fn job(site: &Site) -> bool {
    let to = format!("unix:{}", site.path("nserver").display());
    let ran =
        seeway().args(["job", &to, "--world", "w", "--data", "hello", "--timeout", "5s"]).output().expect("it runs");
    ran.status.success() && ran.stdout.starts_with(b"hello")
}

/// The page of metrics of a gateway that has said that it is ready.
fn metrics(ready: &str) -> String {
    let admin = ready.split("admin=").nth(1).expect("an address").trim();
    let mut stream = TcpStream::connect(admin).expect("it listens");
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").expect("sent");
    let mut page = String::new();
    stream.read_to_string(&mut page).expect("text");
    page
}

/// What a page of metrics says of the process, by the metric's name.
fn figure(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}: {page}")).parse().expect("a number")
}

fn threads(process: u32) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    tasks.map(|task| task.expect("readable").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_gateway_is_confined_in_all_its_threads_and_reloads_new_keys_and_carries_jobs_all_the_same() {
    let site = Site::new();
    let fresh = tempfile::tempdir().expect("a folder");
    assert!(seeway().arg("keygen").arg(fresh.path()).output().expect("it runs").status.success());
    let public = |folder: &Path| std::fs::read_to_string(folder.join("id_ed25519.pub")).expect("there");
    std::fs::write(site.path("authorized_keys"), public(site.folder.path()) + &public(fresh.path())).expect("written");
    let (_hsm, address, host_key) = emulate(&site);
    let config = site.write(&address, &host_key, "id_ed25519", "process.sandbox = \"require\"");
    let (gateway, ready) = Running::start(seeway().arg("serve").arg("--config").arg(&config));
    let process = gateway.0.id();
    until("a job has a reply", || job(&site));

    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).expect("it runs");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a line");
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    let all = threads(process);
    assert!(all.len() >= 2, "the control plane and a shard: {all:?}");
    for thread in all {
        assert_eq!(status(process, Some(&thread), "Seccomp"), "2", "thread {thread} has filters");
        assert_eq!(status(process, Some(&thread), "NoNewPrivs"), "1", "thread {thread}");
    }

    // A new key beside the old one, and the old one gone.
    std::fs::copy(fresh.path().join("id_ed25519"), site.path("id_new")).expect("copied");
    std::fs::set_permissions(site.path("id_new"), std::fs::Permissions::from_mode(0o600)).expect("set");
    std::fs::remove_file(site.path("id_ed25519")).expect("removed");
    site.write(&address, &host_key, "id_new", "process.sandbox = \"require\"");
    let admin = ready.split("admin=").nth(1).expect("an address").to_owned();
    let reload = || seeway().args(["reload", "--admin", &admin]).output().expect("it runs");
    let reloaded = reload();
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    until("a job has a reply", || job(&site));

    // A key from elsewhere is refused, and it is said why.
    site.write(
        &address,
        &host_key,
        &fresh.path().join("id_ed25519").display().to_string(),
        "process.sandbox = \"require\"",
    );
    let refused = reload();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stdout) + String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("only from the folders of those that it was started with"), "{said}");
    assert!(job(&site), "nothing has changed");
}

#[test]
fn root_becomes_the_user_that_is_named_and_nobody_else_can() {
    let site = Site::new();
    let config = site.write_alone("process.user = \"nobody\"");
    if !nix::unistd::Uid::effective().is_root() {
        let Output { status, stderr, .. } =
            seeway().arg("serve").arg("--config").arg(&config).output().expect("it runs");
        assert_eq!(status.code(), Some(1));
        assert!(String::from_utf8_lossy(&stderr).contains("can not become the user `nobody`"));
        return;
    }
    let (gateway, ready) = Running::start(seeway().arg("serve").arg("--config").arg(&config));
    let process = gateway.0.id();
    let page = metrics(&ready);
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).expect("it runs").count();
    #[allow(clippy::cast_precision_loss)] // A few files.
    let difference = figure(&page, "process_open_fds") - open as f64;
    assert!(difference.abs() < 10.0, "{difference} beside {open}: /proc was root's when it was opened");
    assert!(figure(&page, "process_threads") > 1.5 && figure(&page, "process_cpu_seconds_total") > 0.0);
    let nobody = nix::unistd::User::from_name("nobody").expect("looked up").expect("there");
    for (key, number) in [("Uid", nobody.uid.as_raw()), ("Gid", nobody.gid.as_raw())] {
        assert_eq!(status(process, None, key), vec![number.to_string(); 4].join("\t"));
        for thread in threads(process) {
            assert_eq!(status(process, Some(&thread), key), vec![number.to_string(); 4].join("\t"));
        }
    }
    assert_eq!(status(process, None, "Groups"), "");
    for key in ["CapEff", "CapPrm"] {
        assert_eq!(status(process, None, key), "0000000000000000");
    }
    // Its key belongs to root: that a reload can't read it any more is said at once.
    let log = gateway.log();
    assert!(log.contains("a reload will not be able to read this file") && log.contains("id_ed25519"), "{log}");
}
