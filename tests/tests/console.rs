//! The console in the browser, `/api/…` behind it, and who may use them: a real Chromium, and requests as browsers and others send them.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read, Write},
    net::{Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

use seeway_client::grpc::{Gateway as Client, SubmitOptions};
use seeway_tests::{
    Config, Door, Gateway, Identity, Machine, Sshd, load::Load, ports::Nobody, process::Process, python,
    repository::root, turn::Turn, wait,
};
use serde_json::{Value, json};

/// How long what the browser does between two wishes may take.
const BROWSER: Duration = Duration::from_secs(240);

/// Two machines, each behind an SSH server of its own, and two worlds.
struct Scene {
    first: Machine,
    _second: Machine,
    _identity: Identity,
    config: Config,
}

impl Scene {
    fn start() -> Self {
        let identity = Identity::generate();
        let [first, second] = Machine::pair(&identity);
        let config = Config::new()
            .machine("hsm-a", first.door(), first.seejobs(), &identity, "")
            .machine("hsm-b", second.door(), second.seejobs(), &identity, "")
            .world("payments", &["hsm-a", "hsm-b"], "")
            .world("vault", &["hsm-b"], "")
            // Each connect in vain is in its machine's history, which keeps a hundred: earlier ones are to be seen.
            .line("ssh", "connect_retry = \"50ms\"\nretry_max = \"2s\"");
        Self { first, _second: second, _identity: identity, config }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_looks_and_changes_in_a_browser() {
    let _turn = Turn::beside_others();
    let mut scene = Scene::start();
    let mut gateway = Gateway::start_on_fixed_ports(&scene.config, None);
    gateway.until_up(&["hsm-a", "hsm-b"]);
    let url = format!("http://{}/", gateway.admin());
    let mut arguments = vec!["--url", &url, "--world", "payments", "--machine", "hsm-a", "--other", "hsm-b"];
    let pictures = std::env::var("SEEWAY_PICTURES").ok().map(|folder| root().join(folder).display().to_string());
    arguments.extend(pictures.iter().flat_map(|folder| ["--pictures", folder]));
    let mut browser = python::start("console_test.py", &arguments);
    let mut load = None;
    for wish in ["load", "rest", "cut", "mend", "kill", "start"] {
        assert_eq!(asked(&mut browser), wish);
        match wish {
            "load" => load = Some(Load::start(&gateway, "payments")),
            // A machine was drained and resumed meanwhile, and nobody's job was lost.
            "rest" => assert!(load.take().expect("it has begun").finish().await > 0),
            "cut" => scene.first.kill(),
            "mend" => scene.first.start_again(),
            "kill" => gateway.kill(),
            _ => gateway.start_again(),
        }
    }
    python::finish(browser);
}

#[test]
fn where_nothing_can_be_changed_the_console_says_so_and_has_no_buttons() {
    let _turn = Turn::beside_others();
    let scene = Scene::start();
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let management = folder.path().join("management");
    let config = scene.config.line("listen", &format!("management = \"unix:{}\"", management.display()));
    let gateway = Gateway::ready(&config);
    python::run("console_test.py", ["--url", &format!("http://{}/", gateway.admin()), "--read-only"]);
    let refused = gateway.ask("POST", "/drain", &console(&gateway));
    assert_eq!(refused.0, 403, "{}", refused.1);
}

#[test]
fn only_the_console_itself_changes_anything_from_a_browser() {
    let _turn = Turn::beside_others();
    let scene = Scene::start();
    let gateway = Gateway::ready(&scene.config);
    let admin = gateway.admin();
    let port = admin.port();
    let mark = "X-Seeway: console\r\n";
    for headers in [
        // Another page, and one whose origin is not to be known.
        format!("Host: {admin}\r\nOrigin: http://elsewhere.example\r\n{mark}"),
        format!("Host: {admin}\r\nOrigin: null\r\n{mark}"),
        // Nearly the same: another port, scheme or name, more of it, or two.
        format!("Host: {admin}\r\nOrigin: http://127.0.0.1\r\n{mark}"),
        format!("Host: {admin}\r\nOrigin: https://{admin}\r\n{mark}"),
        format!("Host: {admin}\r\nOrigin: http://localhost:{port}\r\n{mark}"),
        format!("Host: {admin}\r\nOrigin: http://{admin}.elsewhere.example\r\n{mark}"),
        format!("Host: {admin}\r\nOrigin: http://{admin}/\r\n{mark}"),
        format!("Host: {admin}\r\nOrigin: http://{admin}\r\nOrigin: http://{admin}\r\n{mark}"),
        format!("Host: {admin}\r\nHost: {admin}\r\nOrigin: http://{admin}\r\n{mark}"),
        // A name that somebody else gave this address: then its pages are of the same origin.
        format!("Host: rebound.example:{port}\r\nOrigin: http://rebound.example:{port}\r\n{mark}"),
        // A form can't send the mark.
        format!("Host: {admin}\r\nOrigin: http://{admin}\r\n"),
        format!("Host: {admin}\r\nOrigin: http://{admin}\r\nX-Seeway: another\r\n"),
        format!("Host: {admin}\r\nOrigin: http://{admin}\r\n{mark}{mark}"),
        // What the browser itself says of the page.
        format!("Host: {admin}\r\nOrigin: http://{admin}\r\n{mark}Sec-Fetch-Site: cross-site\r\n"),
        format!("Host: {admin}\r\nOrigin: http://{admin}\r\n{mark}Sec-Fetch-Site: same-site\r\n"),
        format!("Host: {admin}\r\n{mark}Sec-Fetch-Site: cross-site\r\n"),
        format!("Host: {admin}\r\nSec-Fetch-Site: none\r\n"),
    ] {
        for path in ["/drain", "/drain?machine=hsm-a", "/resume", "/reload"] {
            let (status, said) = gateway.ask("POST", path, &format!("{headers}Content-Length: 0\r\n"));
            assert_eq!(status, 403, "{path} {headers}: {said}");
        }
    }
    // Whoever asks whether it may is told nothing that means yes.
    let asks = format!(
        "Host: {admin}\r\nOrigin: http://elsewhere.example\r\nAccess-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: x-seeway\r\n"
    );
    let answer = whole_answer(&gateway, "OPTIONS", "/drain", &asks).to_lowercase();
    assert!(answer.starts_with("http/1.1 405") && !answer.contains("access-control-"), "{answer}");
    assert_eq!(is_drained(&gateway), (false, false), "nothing has changed");

    let (status, said) = gateway.ask("POST", "/drain?machine=hsm-a", &console(&gateway));
    assert_eq!(status, 200, "{said}");
    let own = format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\n{mark}Content-Length: 0\r\n");
    let (status, said) = gateway.ask("POST", "/drain", &own);
    assert_eq!(status, 200, "{said}");
    assert_eq!(is_drained(&gateway), (true, true));
}

#[test]
fn what_the_console_shows_is_asked_for_by_address_and_shown_as_what_it_is() {
    let _turn = Turn::beside_others();
    let scene = Scene::start();
    let gateway = Gateway::ready(&scene.config);
    let admin = gateway.admin();
    let pages = [
        ("/", "text/html; charset=utf-8"),
        ("/console/app.js", "text/javascript; charset=utf-8"),
        ("/console/style.css", "text/css; charset=utf-8"),
        ("/api/state", "application/json"),
        ("/api/history", "application/json"),
        ("/api/machines/hsm-a/history", "application/json"),
    ];
    for (path, kind) in pages {
        let answer = whole_answer(&gateway, "GET", path, &format!("Host: {admin}\r\n"));
        let (head, _) = answer.split_once("\r\n\r\n").expect("a head");
        let head = head.to_lowercase();
        for line in [
            &format!("content-type: {kind}"),
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(head.contains(line), "{path} has no {line}: {head}");
        }
        assert!(!head.contains("access-control-"), "{path}: {head}");
        if !path.starts_with("/api") {
            let policy = "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                          img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'";
            assert!(head.contains(policy), "{path}: {head}");
        }
        let rebound = gateway.ask("GET", path, "Host: rebound.example\r\n");
        assert_eq!(rebound.0, 403, "{path}: {}", rebound.1);
    }
    let asked = |path: &str, headers: &str| gateway.ask("GET", path, headers).0;
    for path in ["/api/events", "/audit", "/drain", "/drain?machine=hsm-a", "/log"] {
        assert_eq!(asked(path, "Host: rebound.example\r\n"), 403, "{path}");
    }
    assert_eq!((gateway.get("/audit").0, gateway.get("/drain").0, gateway.get("/log").0), (404, 200, 200));
    // Nor is anything for another page in the same browser, which need not read what it has asked for.
    let from = |site: &str| format!("Host: {admin}\r\nSec-Fetch-Site: {site}\r\n");
    let asked_by_pages = ["/api/state", "/api/events", "/api/history", "/api/machines/hsm-a/history", "/drain", "/log"];
    for path in asked_by_pages.into_iter().chain(["/", "/console/app.js", "/audit"]) {
        for site in ["cross-site", "same-site", "whatever"] {
            assert_eq!(asked(path, &from(site)), 403, "{path} from {site}");
        }
    }
    // A link may lead to the console, and to nothing that it shows; in a frame it is not.
    let led = |to: &str| format!("{}Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: {to}\r\n", from("cross-site"));
    assert_eq!((asked("/", &led("document")), asked("/", &led("iframe"))), (200, 403));
    assert_eq!((asked("/api/state", &led("document")), asked("/audit", &led("document"))), (403, 403));
    let rebound = led("document").replace(&admin.to_string(), "rebound.example");
    assert_eq!(asked("/", &rebound), 403);
    // The console itself, and whoever types an address.
    for site in ["same-origin", "none"] {
        for path in ["/", "/console/app.js", "/api/state", "/api/history", "/drain", "/log"] {
            assert_eq!(asked(path, &from(site)), 200, "{path} from {site}");
        }
    }
    assert_eq!(gateway.get("/api/machines/nobody/history").0, 404);
    assert_eq!(gateway.get("/api/machines/%ff/history").0, 404);
    assert_eq!(gateway.get("/console/nothing.js").0, 404);
    // Probes and Prometheus may use any name.
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(asked(path, "Host: gateway.example\r\n"), 200, "{path}");
        assert_eq!(asked(path, &from("cross-site")), 200, "{path}");
    }
    // Of what machines said they see nothing.
    let probe = gateway.ask("GET", "/readyz", "Host: gateway.example\r\nAccept: application/json\r\n");
    assert_eq!(probe, (200, "ready\nworld payments: ready\nworld vault: ready\n".to_owned()));
}

#[test]
fn readiness_has_its_reasons() {
    let _turn = Turn::beside_others();
    let mut scene = Scene::start();
    let gateway = Gateway::ready(&scene.config);
    let ready = |accept: &str| gateway.ask("GET", "/readyz", &format!("Host: {}\r\n{accept}", gateway.admin()));
    let reasons = || {
        let (status, said) = ready("Accept: text/html, application/json;q=0.9\r\n");
        (status, serde_json::from_str::<Value>(&said).unwrap_or_else(|error| panic!("{error}: {said}")))
    };
    assert_eq!(ready("Accept: */*\r\n"), (200, "ready\nworld payments: ready\nworld vault: ready\n".to_owned()));
    let (status, all) = reasons();
    assert_eq!((status, &all["ready"], all["reasons"].as_array().map(Vec::len)), (200, &true.into(), Some(0)), "{all}");

    assert_eq!(gateway.post("/drain?machine=hsm-b").0, 200);
    scene.first.kill();
    let all = wait::until("the first machine is missed", wait::BOUND, || {
        let (status, all) = reasons();
        (status == 503 && all["worlds"][0]["reason"].as_str()?.contains("no TCP connection")).then_some(all)
    });
    let of_payments = all["worlds"][0]["reason"].as_str().expect("a reason");
    assert!(
        of_payments.starts_with("hsm-a: no TCP connection") && of_payments.ends_with("; hsm-b is drained"),
        "{all}"
    );
    assert_eq!(all["worlds"][1]["reason"], "hsm-b is drained", "{all}");
    assert_eq!(all["reasons"][0], "no world can take a job", "{all}");
    assert_eq!(gateway.post("/drain").0, 200);
    let (status, all) = reasons();
    assert_eq!(status, 503);
    assert!(all["reasons"][0].as_str().is_some_and(|why| why.contains("takes no new jobs")), "{all}");
    assert!(ready("").1.starts_with("not ready: draining\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_reasons_takes_no_job_from_a_callers_rate() {
    const BURSTS: u32 = 4;
    const JOBS: u32 = 50;
    let _turn = Turn::beside_others();
    let scene = Scene::start();
    let gateway = Gateway::ready(&scene.config);
    let client = Client::connect(&gateway.grpc().to_string()).await.unwrap_or_else(|error| panic!("{error}"));
    let mut stream = TcpStream::connect(gateway.admin()).expect("connected");
    stream.set_read_timeout(Some(wait::BOUND)).expect("it can be set");
    // In this version of the protocol an answer that goes on is not cut into chunks.
    write!(stream, "GET /api/events HTTP/1.0\r\nHost: {}\r\n\r\n", gateway.admin()).expect("sent");
    let mut lines = BufReader::new(stream).lines();
    // For how many jobs of callers the rates stand since the event before.
    let mut counted = || {
        let state = lines.find_map(|line| line.expect("it goes on").strip_prefix("data: ").map(str::to_owned));
        let state: Value = serde_json::from_str(&state.expect("it goes on")).expect("a state");
        let callers = state["callers"]["busiest"].as_array().expect("a list").iter();
        let rates: f64 = callers.filter_map(|caller| caller["jobs_per_second"].as_f64()).sum();
        rates * state["interval"].as_f64().expect("a number")
    };
    assert!(counted().abs() < 0.5, "of the first second nobody knows it");
    let mut seen = 0.0;
    for _ in 0..BURSTS {
        for _ in 0..JOBS {
            let done = client.submit("payments", b"job".to_vec(), &SubmitOptions::default()).await;
            done.unwrap_or_else(|error| panic!("{error}"));
        }
        for _ in 0..3 {
            let headers = format!("Host: {}\r\nAccept: application/json\r\n", gateway.admin());
            let (status, said) = gateway.ask("GET", "/readyz", &headers);
            assert!(status == 200 && said.starts_with('{'), "{said}");
        }
        seen += counted();
    }
    // The last of them may be told with a later event only.
    let (sent, begun) = (f64::from(BURSTS * JOBS), Instant::now());
    // What goes into a rate is taken a moment apart.
    while seen < 0.7 * sent && begun.elapsed() < wait::BOUND {
        seen += counted();
    }
    assert!(seen > 0.7 * sent && seen < 1.3 * sent, "{seen} of {sent} are in the rates");
}

#[test]
fn so_many_may_listen_and_probes_are_answered_beside_them() {
    let _turn = Turn::beside_others();
    let scene = Scene::start();
    let gateway = Gateway::ready(&scene.config);
    let listen = || {
        let mut stream = TcpStream::connect(gateway.admin()).expect("connected");
        stream.set_read_timeout(Some(wait::BOUND)).expect("it can be set");
        write!(stream, "GET /api/events HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.admin()).expect("sent");
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("an answer");
        (stream, String::from_utf8_lossy(&head).into_owned())
    };
    // As many as `MAX_STREAMS`.
    let mut listeners: Vec<_> = (0..16).map(|_| listen()).collect();
    assert!(listeners.iter().all(|(_, head)| head == "HTTP/1.1 200"), "{listeners:?}");
    let one_more = whole_answer(&gateway, "GET", "/api/events", &format!("Host: {}\r\n", gateway.admin()));
    assert!(one_more.starts_with("HTTP/1.1 503") && one_more.to_lowercase().contains("retry-after: 5"), "{one_more}");
    for path in ["/healthz", "/readyz", "/metrics", "/api/state"] {
        assert_eq!(gateway.get(path).0, 200, "{path}");
    }
    // Beyond what any other connection may last they still hear something each second.
    let started = Instant::now();
    let (mut stream, _) = listeners.pop().expect("it listens");
    let mut heard = String::new();
    while started.elapsed() < Duration::from_secs(17) {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).expect("it goes on");
        assert!(read > 0, "it has ended after {:?}", started.elapsed());
        heard.push_str(&String::from_utf8_lossy(&part[..read]));
    }
    let events = heard.matches("event: state\ndata: {\"may_change\":true,").count();
    assert!(events >= 10, "{events} in 17 s");
    // Whoever has gone makes room.
    drop((stream, listeners));
    wait::until("there is room again", wait::BOUND, || (listen().1 == "HTTP/1.1 200").then_some(()));
}

#[test]
fn who_listens_and_does_not_read_is_let_go() {
    let _turn = Turn::beside_others();
    let mut scene = Scene::start();
    // As many worlds as make a state that soon fills whatever lies between.
    for number in 0..400 {
        scene.config = scene.config.world(&format!("world-{number}"), &["hsm-a", "hsm-b"], "");
    }
    let gateway = Gateway::ready(&scene.config);
    let open_before = gateway.open_files();
    let mut stream = TcpStream::connect(gateway.admin()).expect("connected");
    write!(stream, "GET /api/events HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.admin()).expect("sent");
    wait::until("it listens", wait::BOUND, || (gateway.open_files() > open_before).then_some(()));
    wait::until("it is let go", 4 * wait::BOUND, || (gateway.open_files() <= open_before).then_some(()));
    drop(stream);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_has_every_field_of_the_state_and_no_other() {
    let _turn = Turn::beside_others();
    let mut scene = Scene::start();
    let often = "keepalive_idle = \"100ms\"\nkeepalive = \"100ms\"";
    let gateway = Gateway::ready(&scene.config.clone().line("ssh", often));
    let mut seen = BTreeSet::new();
    let mut look = |done: fn(&Value) -> bool| {
        wait::until("the state has what is wanted", wait::BOUND, || {
            let (status, said) = gateway.get("/api/state");
            assert_eq!(status, 200, "{said}");
            let state = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
            gather("", &state, &mut seen);
            done(&state).then_some(state)
        })
    };
    // While there are jobs, nobody needs to ask whether a machine is there.
    look(|state| state["machines"][0]["keepalive_seconds"].is_object());
    let load = Load::start(&gateway, "payments");
    let all = look(|state| {
        let has_times = state["jobs"]["machine_seconds"].is_object() && state["worlds"][0]["queue_seconds"].is_object();
        has_times && state["callers"]["busiest"].as_array().is_some_and(|callers| callers.len() >= 3)
    });
    assert!(load.finish().await > 0);
    let sum = |of: &str| {
        all[of].as_array().into_iter().flatten().filter_map(|one| one["jobs_per_second"].as_f64()).sum::<f64>()
    };
    assert!(sum("worlds") > 0.0 && sum("machines") > 0.0, "{all}");
    let callers = all["callers"]["busiest"].as_array().expect("a list");
    let listeners: BTreeSet<_> = callers.iter().filter_map(|caller| caller["listener"].as_str()).collect();
    assert_eq!(listeners, BTreeSet::from(["grpc", "hardserver_tcp", "hardserver_unix"]), "{all}");
    scene.first.kill();
    assert_eq!(gateway.post("/drain?machine=hsm-b").0, 200);
    look(|state| {
        let [first, second] = [&state["machines"][0], &state["machines"][1]];
        first["trouble"].is_object()
            && first["state"] == "down"
            && first["states"] == json!({ "down": 1 })
            && second["draining"] == true
            && state["ready"] == false
    });
    // Nobody can be kept from changing anything here.
    assert!(seen.remove("why_not"));

    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/console.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let rows = page.split("| field of `/api/state` |").nth(1).expect("the table is there").lines();
    let named = rows.filter_map(|row| row.split(" | ").next()).flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let mut named: BTreeSet<_> = named.map(str::to_owned).collect();
    assert!(named.remove("why_not"));
    assert_eq!(named, seen, "the page, and what there is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_a_machine_is_in_its_history() {
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let start = |app| Machine::start_with_ssh(app, &identity, "127.0.0.1:0");
    let (well, weak) = (start("echo"), start("faulty:1"));
    let strict = Sshd::start_with(&identity, Ipv4Addr::LOCALHOST.into(), "PermitOpen 127.0.0.1:1");
    let another = Door { host_key: strict.door().host_key.clone(), ..well.door().clone() };
    let closed = Nobody::on_loopback();
    let nobody = Door { address: closed.address(), ..well.door().clone() };
    let config = Config::new()
        .machine("well", well.door(), well.seejobs(), &identity, "")
        .machine("weak", weak.door(), weak.seejobs(), &identity, "")
        .machine("forbidden", strict.door(), well.seejobs(), &identity, "")
        .machine("another", &another, well.seejobs(), &identity, "")
        .machine("nobody", &nobody, well.seejobs(), &identity, "")
        .world("w", &["well", "weak"], "")
        .world("dark", &["forbidden", "another", "nobody"], "")
        .line("circuit", "failures = 2\nprobe_after = \"1h\"\nprobe_max = \"1h\"")
        .line("runtime", "shards = 2");
    let gateway = Gateway::start(&config);
    gateway.until_up(&["well", "weak"]);
    let history = |machine: &str| {
        let (status, said) = gateway.get(&format!("/api/machines/{machine}/history"));
        assert_eq!(status, 200, "{said}");
        let mut all: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        all["history"].as_array_mut().map(std::mem::take).expect("a list")
    };
    let happened = |machine: &str, what: &str, text: &str| {
        let found = wait::until(&format!("{machine} has {what} in its history"), wait::BOUND, || {
            history(machine).into_iter().find(|happened| happened["what"] == what)
        });
        assert!(found["text"].as_str().is_some_and(|said| said.contains(text)), "{found}");
        found
    };
    assert!(happened("well", "tunnel_up", "SSH-2.0-")["shard"].is_u64());
    happened("forbidden", "channel_forbidden", "");
    happened("another", "refused", "host key");
    happened("nobody", "connect_failed", "refused");
    let client = Client::connect(&gateway.grpc().to_string()).await.unwrap_or_else(|error| panic!("{error}"));
    for _ in 0..1000 {
        // Half of them fail, until the machine that fails them is ejected.
        let _ = client.submit("w", b"job".to_vec(), &SubmitOptions::default()).await;
        if gateway.metrics().sum_where("seeway_ejections_total", "machine=\"weak\"") > 0.5 {
            break;
        }
    }
    happened("weak", "ejected", "failed jobs");
    for path in ["/drain?machine=well", "/drain?machine=well", "/resume?machine=well", "/reload"] {
        assert_eq!(gateway.post(path).0, 200, "{path}");
    }
    // What all shards are told is told once, and what changes nothing is not.
    let wishes: Vec<_> = history("well").into_iter().filter(|happened| happened["shard"].is_null()).collect();
    let wishes: Vec<_> = wishes.iter().filter_map(|happened| happened["what"].as_str()).collect();
    assert_eq!(wishes, ["drained", "resumed", "reloaded"]);
    // Why a world is down is said of each of its machines.
    for part in
        ["world dark: forbidden forbids the channel: ", "another refused the tunnel", "nobody: no TCP connection"]
    {
        wait::until(&format!("/readyz says {part:?}"), wait::BOUND, || {
            let (_, said) = gateway.ask("GET", "/readyz", "Host: localhost\r\nAccept: application/json\r\n");
            said.contains(part).then_some(())
        });
    }
}

/// The fields of a value, by their paths. Maps by names that operators or the program choose have `*` for each.
fn gather(path: &str, value: &Value, fields: &mut BTreeSet<String>) {
    let has_any_name = ["outcomes", "states", "tunnels"].iter().any(|map| path.ends_with(map));
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let name = if has_any_name { "*" } else { name };
                let dot = if path.is_empty() { "" } else { "." };
                gather(&format!("{path}{dot}{name}"), value, fields);
            }
        }
        Value::Array(array) => array.iter().for_each(|value| gather(&format!("{path}[]"), value, fields)),
        // What is null here is an object at another time, or was meant to be.
        Value::Null if path != "why_not" && path != "worlds[].reason" => {}
        _ => drop(fields.insert(path.to_owned())),
    }
}

/// What the console sends with a change.
fn console(gateway: &Gateway) -> String {
    let admin = gateway.admin();
    format!(
        "Host: {admin}\r\nOrigin: http://{admin}\r\nX-Seeway: console\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 0\r\n"
    )
}

/// Whether the gateway, and its machine hsm-a, are drained.
fn is_drained(gateway: &Gateway) -> (bool, bool) {
    let draining = |path: &str| {
        let (status, said) = gateway.get(path);
        assert_eq!(status, 200, "{said}");
        said.contains("\"draining\":true")
    };
    (draining("/drain"), draining("/drain?machine=hsm-a"))
}

/// An answer with its head.
fn whole_answer(gateway: &Gateway, method: &str, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(gateway.admin()).expect("connected");
    write!(stream, "{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// What the browser's test wants to happen.
fn asked(browser: &mut Process) -> String {
    tokio::task::block_in_place(|| browser.line_within("ASK ", BROWSER))
}
