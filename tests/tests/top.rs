//! `seeway top` on a real terminal, tmux's: what it shows of a gateway, what its keys do, and how it leaves the terminal behind.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    process::{Command, Output},
};

use rustix::process::Signal;
use seeway_bench::family::{descendants, send};
use seeway_tests::{
    Config, Gateway, Identity, Machine, authority::Authority, load::Load, machine::seeway, ports, repository::root,
    turn::Turn, wait,
};
use serde_json::Value;
use tempfile::TempDir;

/// As many as may listen to `/api/events`.
const STREAMS: usize = 16;

/// Two machines, each behind an SSH server of its own, and a world.
struct Scene {
    _machines: [Machine; 2],
    _identity: Identity,
    config: Config,
}

impl Scene {
    fn start() -> Self {
        let identity = Identity::generate();
        let machines = Machine::pair(&identity);
        let config = Config::of_pair(&machines, &identity);
        Self { _machines: machines, _identity: identity, config }
    }
}

/// A terminal with a program in it. The shell that has started it says how it ended, and waits.
struct Terminal {
    folder: TempDir,
}

impl Terminal {
    /// `seeway top` with these arguments, on 80 columns and 24 rows.
    fn start(arguments: &str) -> Self {
        let terminal = Self { folder: TempDir::new().expect("the temporary folder can be written") };
        let program = seeway();
        let program = program.get_program().to_string_lossy();
        let script = format!("echo before; '{program}' top {arguments}; echo \"left with $?\"; stty -a; read -r wait");
        terminal.tmux(&["new-session", "-d", "-x", "80", "-y", "24", &script]);
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-u", "-f", "/dev/null", "-S"])
            .arg(self.folder.path().join("tmux"))
            .args(arguments)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("TMUX")
            .output()
            .unwrap_or_else(|error| panic!("can't start tmux: {error}; install Debian's package tmux"));
        assert!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("tmux speaks UTF-8")
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn press(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    /// Waits until the screen shows this.
    fn shows(&self, text: &str) -> String {
        self.until(&format!("{text:?} is on the screen"), |screen| screen.contains(text).then(|| screen.to_owned()))
    }

    #[track_caller]
    fn until<T>(&self, what: &str, mut probe: impl FnMut(&str) -> Option<T>) -> T {
        wait::until(what, wait::BOUND, || probe(&self.screen()))
    }

    /// Waits until the program has ended, and sees that the terminal is as it was.
    fn was_left_with(&self, status: u8) {
        let screen = self.shows(&format!("left with {status}"));
        assert!(screen.contains("before"), "the screen from before is there again:\n{screen}");
        let settings = self.until("the terminal's settings are shown", |screen| {
            screen.contains("icanon").then(|| screen.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        });
        for setting in ["icanon", "echo", "isig", "opost"] {
            assert!(settings.iter().any(|word| word == setting), "{setting} is not set: {settings:?}");
        }
        let flags = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(flags.trim(), "0 1", "no other screen, and a cursor");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the terminal:\n{}", self.screen());
        }
        // It is gone already where its program has ended; a test that fails is to say its own reason.
        let socket = self.folder.path().join("tmux");
        let _ = Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output();
    }
}

/// The number after `jobs/s` at the head of the screen.
fn jobs_per_second(screen: &str) -> Option<f64> {
    let line = screen.lines().find(|line| line.starts_with("jobs/s "))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn is_draining(gateway: &Gateway, query: &str) -> Value {
    let (status, body) = gateway.get(&format!("/drain{query}"));
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).expect("JSON")["draining"].clone()
}

fn top(arguments: &[&str]) -> Output {
    seeway().arg("top").args(arguments).output().expect("seeway can be started")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_watches_drains_and_resumes_on_a_terminal() {
    let _turn = Turn::beside_others();
    let scene = Scene::start();
    let mut gateway = Gateway::start_on_fixed_ports(&scene.config, None);
    gateway.until_up(&["hsm-a", "hsm-b"]);
    let terminal = Terminal::start(&format!("--admin {}", gateway.admin()));
    terminal.shows("› hsm-a");

    let load = Load::start(&gateway, "payments");
    let flowing = |screen: &str| jobs_per_second(screen).filter(|rate| *rate > 0.5);
    let first = terminal.until("jobs flow", flowing);
    terminal.until("the number changes", |screen| flowing(screen).filter(|rate| (rate - first).abs() > 0.01));
    // The page about it has a frame.
    if let Ok(folder) = std::env::var("SEEWAY_PICTURES") {
        let frame = terminal.shows("payments");
        std::fs::write(root().join(folder).join("top.txt"), frame).expect("the folder can be written");
    }

    // A question comes first, and no is no.
    terminal.press("d");
    terminal.shows("Drain machine hsm-a? y/n");
    terminal.press("n");
    terminal.shows("nothing was changed");
    assert_eq!(is_draining(&gateway, "?machine=hsm-a"), false);
    terminal.press("d");
    terminal.shows("Drain machine hsm-a? y/n");
    terminal.press("y");
    terminal.shows("machine hsm-a takes no new jobs");
    assert_eq!(is_draining(&gateway, "?machine=hsm-a"), true);
    assert_eq!(is_draining(&gateway, "?machine=hsm-b"), false);
    terminal.shows("■ drained");

    terminal.press("Enter");
    terminal.shows("Machine hsm-a");
    terminal.until("the history has it", |screen| screen.contains("Z           drained").then_some(()));
    terminal.press("r");
    terminal.shows("Resume machine hsm-a? y/n");
    terminal.press("y");
    terminal.shows("machine hsm-a takes jobs");
    assert_eq!(is_draining(&gateway, "?machine=hsm-a"), false);
    terminal.press("Escape");
    terminal.shows("› hsm-a");
    assert!(load.finish().await > 0, "nobody's job was lost meanwhile");

    terminal.press("D");
    terminal.shows("Drain the whole gateway? y/n");
    terminal.press("y");
    terminal.shows("the gateway takes no new jobs");
    assert_eq!(is_draining(&gateway, ""), true);

    // However small the window is, it goes on.
    for (width, height) in [("20", "5"), ("5", "2"), ("120", "40"), ("80", "24")] {
        terminal.tmux(&["resize-window", "-x", width, "-y", height]);
    }
    terminal.press("?");
    terminal.shows("this help");
    terminal.press("x");

    gateway.kill();
    terminal.shows("! nothing heard for");
    gateway.start_again();
    terminal.until("it is heard again, and not drained", |screen| {
        (!screen.contains("nothing heard") && screen.contains("  ● ready  127.")).then_some(())
    });

    terminal.press("q");
    terminal.was_left_with(0);
}

#[test]
fn it_goes_on_where_as_many_listen_as_may() {
    let _turn = Turn::beside_others();
    let scene = Scene::start();
    let gateway = Gateway::ready(&scene.config);
    let listen = || {
        let mut stream = TcpStream::connect(gateway.admin()).expect("the admin port listens");
        write!(stream, "GET /api/events HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.admin()).expect("asked");
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("answered");
        (stream, String::from_utf8_lossy(&head).into_owned())
    };
    let streams: Vec<_> = (0..STREAMS).map(|_| listen()).collect();
    assert!(streams.iter().all(|(_, head)| head == "HTTP/1.1 200"), "{streams:?}");
    assert_eq!(listen().1, "HTTP/1.1 503");
    // Those who listen must read, or they are let go.
    let readers: Vec<_> = streams
        .into_iter()
        .map(|(mut stream, _)| std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink())))
        .collect();
    let terminal = Terminal::start(&format!("--admin {}", gateway.admin()));
    terminal.shows("● ready");
    // A state that is polled changes, too.
    assert_eq!(gateway.post("/drain?machine=hsm-b").0, 200);
    terminal.shows("■ drained");
    assert!(!terminal.screen().contains("nothing heard"));
    terminal.press("C-c");
    terminal.was_left_with(0);
    drop(gateway);
    for reader in readers {
        drop(reader.join());
    }
}

#[test]
fn where_nothing_may_be_changed_it_says_why() {
    let _turn = Turn::beside_others();
    let scene = Scene::start();
    let folder = TempDir::new().expect("the temporary folder can be written");
    let socket = format!("unix:{}", folder.path().join("management").display());
    let gateway = Gateway::ready(&scene.config.line("listen", &format!("management = \"{socket}\"")));
    let terminal = Terminal::start(&format!("--admin {}", gateway.admin()));
    terminal.shows("› hsm-a");
    terminal.press("d");
    terminal.shows("! changes are asked for at listen.management");
    terminal.press("Escape");
    terminal.was_left_with(0);
    // Over the other listener it may, and that is a Unix socket.
    let managing = Terminal::start(&format!("--admin {socket}"));
    managing.shows("› hsm-a");
    managing.press("d");
    managing.shows("Drain machine hsm-a? y/n");
    managing.press("y");
    managing.shows("machine hsm-a takes no new jobs");
    assert_eq!(is_draining(&gateway, "?machine=hsm-a"), true);
    // A service manager, or a user who ends it from elsewhere, gets a whole terminal back, too.
    let shell = managing.tmux(&["display-message", "-p", "#{pane_pid}"]).trim().parse().expect("a process id");
    for process in descendants(shell) {
        send(process, Signal::TERM);
    }
    managing.was_left_with(0);
}

/// The stream of events, and a change, where operators come over TLS with a certificate.
#[test]
fn over_tls_it_follows_the_gateway_and_drains_a_machine() {
    let _turn = Turn::beside_others();
    let operators = Authority::new("operators");
    let scene = Scene::start();
    let config = scene
        .config
        .line("listen", "management = \"tls:127.0.0.1:0\"")
        .line("management_tls", &operators.tls(&operators.server()))
        .permission("who = [\"certificate:spiffe://bank.example/operator\"]\nmay = [\"admin\"]");
    let gateway = Gateway::ready(&config);
    let operator = operators.client("spiffe://bank.example/operator");
    let terminal = Terminal::start(&format!(
        "--admin {} --ca '{}' --certificate '{}' --key '{}'",
        gateway.management(),
        operators.certificate().display(),
        operator.certificate.display(),
        operator.key.display()
    ));
    terminal.shows("› hsm-a");
    terminal.press("d");
    terminal.shows("Drain machine hsm-a? y/n");
    terminal.press("y");
    terminal.shows("machine hsm-a takes no new jobs");
    terminal.shows("■ drained");
    assert_eq!(is_draining(&gateway, "?machine=hsm-a"), true);
    assert!(!terminal.screen().contains("nothing heard"));
    terminal.press("q");
    terminal.was_left_with(0);
}

#[test]
fn for_scripts_there_is_one_view_as_text_and_one_as_json() {
    let _turn = Turn::beside_others();
    let scene = Scene::start();
    let gateway = Gateway::ready(&scene.config);
    let admin = gateway.admin().to_string();
    let once = top(&["--admin", &admin, "--once"]);
    let text = String::from_utf8(once.stdout).expect("text");
    assert!(once.status.success(), "{}", String::from_utf8_lossy(&once.stderr));
    for part in
        ["● ready", "Worlds\n", "payments", "Machines\n", "hsm-a", "hsm-b", "Callers\n", "Limits\n", "open_files"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let state = top(&["--admin", &admin, "--json"]);
    let state: Value = serde_json::from_slice(&state.stdout).expect("JSON");
    assert!(state["interval"].as_f64().is_some_and(|interval| interval > 0.0), "it has rates: {state}");
    assert_eq!(state["machines"][0]["name"], "hsm-a");

    let refused = top(&["--admin", &admin]);
    assert_eq!(refused.status.code(), Some(2));
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(why.contains("no terminal") && why.contains("--once"), "{why}");

    let nobody = format!("127.0.0.1:{}", ports::free(Ipv4Addr::LOCALHOST.into()));
    let failed = top(&["--admin", &nobody, "--once"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("--admin"));
}
