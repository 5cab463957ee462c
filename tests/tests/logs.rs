//! The log while the gateway runs: another filter for it, and how much a fault that repeats can fill it.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use seeway_bench::Target;
use seeway_tests::audit::AuditLog;
use seeway_tests::callers;
use seeway_tests::machine::seeway;
use seeway_tests::{Config, Door, Gateway, Identity, Machine, ports, turn::Turn, wait};
use serde_json::Value;

/// A fault is told once in so long, and what was held back as often.
const PERIOD: Duration = Duration::from_secs(10);

/// What `seeway log` prints with these arguments, and whether it succeeded.
fn seeway_log(gateway: &Gateway, arguments: &[&str]) -> (bool, String) {
    let mut command = seeway();
    let output = command.args(["log", "--admin", &gateway.admin().to_string()]).args(arguments).output();
    let output = output.expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).expect("text"))
}

fn filter(gateway: &Gateway) -> Value {
    let (status, answer) = gateway.get("/log");
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(&answer).expect("JSON")
}

/// Lines below INFO, each with its target.
fn fine_lines(log: &str) -> Vec<(String, String)> {
    let fine = log.lines().filter_map(|line| {
        let (_, rest) = line.split_once(" DEBUG ").or_else(|| line.split_once(" TRACE "))?;
        Some((rest.split_once(": ")?.0.trim().to_owned(), line.to_owned()))
    });
    fine.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_shows_more_while_it_is_asked_to_and_never_what_libraries_say_below_info() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let machine = Machine::start_with_ssh("echo", &identity, "127.0.0.1:0");
    let folder = tempfile::TempDir::new().expect("a folder");
    let audit = folder.path().join("audit.log");
    let config = Config::new()
        .machine("hsm", machine.door(), machine.seejobs(), &identity, "")
        .world("w", &["hsm"], "")
        .line("audit", &format!("to = \"file:{}\"", audit.display()));
    let mut gateway = Gateway::ready(&config);
    assert_eq!(filter(&gateway), serde_json::json!({ "filter": "info" }));
    assert_eq!(seeway_log(&gateway, &[]), (true, "info\n".to_owned()));
    let provoke = |gateway: &Gateway| {
        // A connection that is none, which is told at DEBUG.
        let mut stream = TcpStream::connect(gateway.admin()).expect("connected");
        stream.write_all(b"\0\r\n\r\n").expect("sent");
    };
    provoke(&gateway);

    let (done, said) = seeway_log(&gateway, &["trace,russh=trace,h2=trace"]);
    assert!(done && said == "trace,russh=trace,h2=trace\n", "{said}");
    for way in [gateway.unix(), gateway.grpc()] {
        let mut job = Some((1, b"job".to_vec()));
        callers::run(&way, "w", 1, || job.take(), |_, _| {}).await.unwrap_or_else(|error| panic!("{error}"));
    }
    // New tunnels, so that the SSH library has something to say.
    gateway.rewrite(&config.clone().line("ssh", "rekey_after = \"59m\""));
    assert_eq!(gateway.post("/reload").0, 200);
    wait::until("a new tunnel is up", wait::BOUND, || {
        (gateway.metrics().sum("seeway_tunnels_made_total") > 1.5).then_some(())
    });
    provoke(&gateway);
    let fine = wait::until("the log shows more", wait::BOUND, || {
        let fine = fine_lines(&gateway.log());
        fine.iter().any(|(_, line)| line.contains("admin port ended badly")).then_some(fine)
    });
    let others: Vec<_> = fine.iter().filter(|(target, _)| !target.starts_with("seeway")).collect();
    assert!(others.is_empty(), "{others:?}");

    let (done, said) = seeway_log(&gateway, &["--reset", "--json"]);
    assert!(done && said.contains("{\"filter\":\"info\"}"), "{said}");
    let before = fine_lines(&gateway.log()).len();
    provoke(&gateway);
    // The next request is answered after that one has ended.
    let (done, said) = seeway_log(&gateway, &["seeway=debug", "--for", "2s"]);
    assert!(done && said == "seeway=debug for 2s, then info\n", "{said}");
    assert_eq!(filter(&gateway)["then"], "info");
    let back = wait::until("it goes by itself", wait::BOUND, || {
        let now = filter(&gateway);
        (now["filter"] == "info").then_some(now)
    });
    assert_eq!(back.get("then"), None);
    wait::until("that is in the log", wait::BOUND, || {
        gateway.log().contains("the log shows what it showed before").then_some(())
    });
    let between = fine_lines(&gateway.log()).split_off(before);
    assert!(between.len() < 100, "{between:?}");

    for (asked, wrong) in [
        ("/log?filter=seeway%3Dloud", "not understood"),
        ("/log?filter=", "name a filter"),
        ("/log?filter=debug&for=25h", "at most 24h"),
        ("/log?level=debug", "the parameters are"),
        (&format!("/log?filter={}", "a".repeat(2000)), "bytes"),
    ] {
        let (status, answer) = gateway.post(asked);
        assert!(status == 400 && answer.contains(wrong), "{asked}: {status} {answer}");
    }
    let host = gateway.admin();
    let (status, answer) = gateway.ask("POST", "/log?filter=debug", &format!("Host: {host}\r\nOrigin: http://x\r\n"));
    assert_eq!(status, 403, "{answer}");
    let (done, said) = seeway_log(&gateway, &["seeway=loud"]);
    assert!(!done && said.contains("not understood"), "{said}");
    assert_eq!(filter(&gateway), serde_json::json!({ "filter": "info" }));

    gateway.terminate();
    assert!(gateway.exit(wait::BOUND).success());
    let log = AuditLog::of(&[&audit]);
    let told: Vec<_> = log.of_event("log");
    let asked: Vec<_> = told
        .iter()
        .map(|event| {
            (event["filter"].as_str(), event["seconds"].as_u64(), event["result"].as_str(), event["who"].as_str())
        })
        .collect();
    assert_eq!(
        asked[..3],
        [
            (Some("trace,russh=trace,h2=trace"), None, Some("ok"), Some("anonymous")),
            (None, None, Some("ok"), Some("anonymous")),
            (Some("seeway=debug"), Some(2), Some("ok"), Some("anonymous")),
        ]
    );
    assert!(asked[3..].iter().all(|(.., result, _)| *result == Some("refused")), "{told:?}");
    assert_eq!(log.of_event("admin_refused").len(), 1);
}

#[test]
fn whoever_may_change_nothing_may_not_change_the_log() {
    let _turn = Turn::beside_others();
    let (identity, door) = (Identity::generate(), nobody());
    let config = Config::new()
        .machine("hsm", &door, (Ipv4Addr::LOCALHOST, 1).into(), &identity, "")
        .world("w", &["hsm"], "")
        .permission("who = [\"user:nobody-here\"]\nmay = [\"admin\"]");
    let gateway = Gateway::start(&config);
    let (status, answer) = gateway.post("/log?filter=trace");
    assert!(status == 403 && answer.contains("no [[permission]] gives it `admin`"), "{status} {answer}");
    assert_eq!(filter(&gateway)["filter"], "info");
}

/// An SSH server that is not there.
fn nobody() -> Door {
    let address = (Ipv4Addr::LOCALHOST, ports::free(Ipv4Addr::LOCALHOST.into())).into();
    let host_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ".to_owned();
    Door { address, user: "codesafe".to_owned(), host_key }
}

/// The number of a field of a line.
fn number(line: &str, field: &str) -> u64 {
    let of_field = line.split_whitespace().find_map(|word| word.strip_prefix(field)?.strip_prefix('='));
    of_field.map_or(0, |number| number.parse().unwrap_or_else(|_| panic!("{line}")))
}

/// The lines that say something, and how many such events they tell of altogether.
fn told(log: &str, says: &str) -> (u64, u64) {
    let lines: Vec<_> = log.lines().filter(|line| line.contains(says)).collect();
    let said = lines.iter().filter(|line| !line.contains("more of the same was not told")).count() as u64;
    (lines.len() as u64, said + lines.iter().map(|line| number(line, "untold")).sum::<u64>())
}

/// As many lines as may tell of one fault that lasts so long.
fn most(lasts: Duration) -> u64 {
    // One at once; then a line, or a sum, in each period; and one at the end.
    2 * (lasts.as_secs() / PERIOD.as_secs() + 1) + 1
}

#[test]
fn a_machine_that_refuses_a_thousand_connects_is_told_of_in_a_few_lines_that_count_them() {
    const CONNECTS: u32 = 1000;
    let _turn = Turn::beside_others();
    let (identity, door) = (Identity::generate(), nobody());
    let config = Config::new()
        .machine("hsm", &door, (Ipv4Addr::LOCALHOST, 1).into(), &identity, "tunnels = 8")
        .world("w", &["hsm"], "")
        .line("ssh", "connect_retry = \"1ms\"\nretry_max = \"1ms\"\nconnect_pace = \"0s\"");
    let begun = Instant::now();
    let mut gateway = Gateway::start(&config);
    wait::until("so many connects failed", 3 * wait::BOUND, || {
        (gateway.metrics().sum("seeway_connects_failed_total") > CONNECTS.into()).then_some(())
    });
    gateway.terminate();
    assert!(gateway.exit(wait::BOUND).success());
    let (lines, events) = told(&gateway.log(), "no tunnel");
    assert!(lines <= most(begun.elapsed()), "{lines} lines:\n{}", gateway.log());
    assert!(events >= CONNECTS.into(), "{events} are told of");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_sends_garbage_ten_thousand_times_is_told_of_in_a_few_lines_that_count_them() {
    const TIMES: u32 = 10_000;
    let _turn = Turn::beside_others();
    let (identity, door) = (Identity::generate(), nobody());
    let config =
        Config::new().machine("hsm", &door, (Ipv4Addr::LOCALHOST, 1).into(), &identity, "").world("w", &["hsm"], "");
    let begun = Instant::now();
    let mut gateway = Gateway::start(&config);
    let Target::Unix(path) = gateway.unix() else { panic!("a Unix socket") };
    tokio::task::spawn_blocking(move || {
        for _ in 0..TIMES {
            let mut stream = std::os::unix::net::UnixStream::connect(&path).expect("accepted");
            // A message of no bytes.
            stream.write_all(&[0; 4]).expect("sent");
            // It is closed, before the next one comes: there are limits for those, too.
            let closed = std::io::Read::read(&mut stream, &mut [0; 64]);
            assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
        }
    })
    .await
    .expect("no panic");
    let metrics = gateway.metrics();
    assert!((metrics.sum("seeway_callers_broken_total") - f64::from(TIMES)).abs() < 0.5);
    gateway.terminate();
    assert!(gateway.exit(wait::BOUND).success());
    let (lines, events) = told(&gateway.log(), "a legacy connection was closed");
    assert!(lines <= most(begun.elapsed()), "{lines} lines:\n{}", gateway.log());
    assert_eq!(events, u64::from(TIMES), "{}", gateway.log());
}
