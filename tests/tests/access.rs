//! Who gets in, and what they may do: certificates, Unix users and rules, at every listener.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use seeway_bench::wire::WireCaller;
use seeway_client::grpc::{Credentials, Gateway as Client, SubmitOptions};
use seeway_tests::authority::{Authority, Certified};
use seeway_tests::callers::ask;
use seeway_tests::machine::seeway;
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;

use seeway_tests::{Config, Gateway, Identity, Machine, python, turn::Turn, wait};

const PAY: &str = "spiffe://bank.example/pay";
const AUDIT: &str = "spiffe://bank.example/audit";

/// Two machines that echo, in the worlds `pay` and `vault`, behind a gateway that speaks TLS and knows callers by certificate.
struct Scene {
    authority: Authority,
    config: Config,
    gateway: Gateway,
    _identity: Identity,
    _machine: Machine,
}

impl Scene {
    fn new(with: impl FnOnce(Config, &Authority) -> Config) -> Self {
        let (identity, authority) = (Identity::generate(), Authority::new("callers"));
        let machine = Machine::start_with_ssh("echo", &identity, "127.0.0.1:0");
        let server = authority.server();
        let config = Config::new()
            .machine("hsm", machine.door(), machine.seejobs(), &identity, "")
            .world("pay", &["hsm"], "")
            .world("vault", &["hsm"], "")
            .line("tls", &authority.tls(&server));
        let config = with(config, &authority);
        let gateway = Gateway::ready(&config);
        Self { authority, config, gateway, _identity: identity, _machine: machine }
    }

    fn address(&self) -> String {
        self.gateway.grpc().to_string().replace("grpc://", "grpcs://")
    }

    fn trusting(&self) -> Credentials {
        Credentials::none().trust(&self.authority.certificate()).expect("readable")
    }

    fn with(&self, certified: &Certified) -> Credentials {
        self.trusting().certificate(&certified.certificate, &certified.key).expect("readable")
    }

    async fn client(&self, uri: &str) -> Client {
        let credentials = self.with(&self.authority.client(uri));
        Client::connect_with(&self.address(), credentials).await.unwrap_or_else(|error| panic!("{uri}: {error}"))
    }
}

async fn worlds(client: &Client) -> Vec<String> {
    client.list_worlds().await.expect("listed").into_iter().map(|world| world.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_world_that_one_may_not_use_is_one_that_is_not_there() {
    let _turn = Turn::beside_others();
    let scene = Scene::new(|config, _| {
        config
            .permission(&format!("who = [\"certificate:{PAY}\"]\nmay = [\"submit\"]\nworlds = [\"pay\"]"))
            .permission(&format!("who = [\"certificate:{AUDIT}\"]\nmay = [\"pipe\"]\nworlds = [\"*\"]"))
    });
    let pay = scene.client(PAY).await;
    assert_eq!(ask(&pay, "pay").await, Ok(()));
    assert_eq!(worlds(&pay).await, ["pay"]);
    let (hidden, missing) = (ask(&pay, "vault").await, ask(&pay, "vaulx").await);
    assert_eq!(hidden.clone().map_err(|error| error.replace("vault", "vaulx")), missing, "to the last letter");
    assert!(hidden.expect_err("denied").starts_with("NO_SUCH_WORLD"));

    // Another action is another matter: who may see the world is told that it may not do that.
    let audit = scene.client(AUDIT).await;
    assert_eq!(worlds(&audit).await, ["pay", "vault"]);
    assert!(ask(&audit, "vault").await.expect_err("denied").starts_with("ACCESS_DENIED"));

    // Nor may who submits open pipes, or who opens pipes does so elsewhere.
    let piped = async |client: &Client, world: &str| client.pipe(world, "", 0).await.map(drop);
    assert_eq!(piped(&pay, "pay").await.expect_err("denied").reason(), "ACCESS_DENIED");
    assert_eq!(piped(&pay, "vault").await.expect_err("hidden").reason(), "NO_SUCH_WORLD");
    assert!(piped(&audit, "vault").await.is_ok());

    // A certificate that no rule is about.
    let stranger = scene.client("spiffe://bank.example/pay/other").await;
    assert_eq!(worlds(&stranger).await, [""; 0]);
    assert!(ask(&stranger, "pay").await.expect_err("denied").starts_with("NO_SUCH_WORLD"));

    // Callers that show nothing, where the front end does not encrypt: the legacy wire over TCP.
    let mut legacy = WireCaller::connect(&scene.gateway.tcp4(), 4).await.expect("connected");
    let refused = legacy.open_world("pay", 1).await.expect_err("there is no such world for them").to_string();
    assert!(refused.contains('4'), "UnknownID: {refused}");

    // The same in a stream, where a job that is refused ends nothing.
    let stream = pay.stream();
    let options = SubmitOptions::default();
    assert!(stream.submit("vault", "job", &options).await.is_err());
    assert_eq!(stream.submit("pay", "job", &options).await.expect("allowed").reply.as_bytes(), b"job");
}

#[test]
fn callers_in_another_language_speak_tls() {
    let _turn = Turn::beside_others();
    let rule = format!("who = [\"certificate:{PAY}\"]\nmay = [\"submit\"]\nworlds = [\"pay\"]");
    let scene = Scene::new(|config, _| config.tls_listener().permission(&rule));
    let certified = scene.authority.client(PAY);
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let at_localhost = |address: &str| address.replace("127.0.0.1", "localhost");
    let path = |path: &Path| path.display().to_string();
    python::run(
        "tls_test.py",
        [
            "--grpc",
            &at_localhost(&scene.address().replace("grpcs://", "")),
            "--hardserver",
            &at_localhost(scene.gateway.tls()),
            "--ca",
            &path(&scene.authority.certificate()),
            "--certificate",
            &path(&certified.certificate),
            "--key",
            &path(&certified.key),
            "--schema",
            &path(&schema),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_good_certificate_there_is_no_connection() {
    let _turn = Turn::beside_others();
    let scene = Scene::new(|config, authority| {
        let list = authority.revoke(&[], true);
        config.tls_listener().line("tls", &format!("crl = [\"{}\"]\nhandshake_timeout = \"2s\"", list.display()))
    });
    let refused = async |credentials: Credentials, what: &str| {
        let client = Client::connect_with(&scene.address(), credentials).await;
        // With TLS 1.3 a client learns that its certificate was refused when it first reads.
        match client {
            Err(_) => {}
            Ok(client) => assert!(client.list_worlds().await.is_err(), "{what} got in"),
        }
    };
    let good = scene.authority.client(PAY);
    let client = Client::connect_with(&scene.address(), scene.with(&good)).await.expect("let in");
    assert_eq!(ask(&client, "pay").await, Ok(()));

    refused(scene.trusting(), "nobody").await;
    let others = Authority::new("others");
    refused(scene.with(&others.client(PAY)), "a certificate of another authority").await;
    refused(scene.with(&scene.authority.server()), "a server's certificate").await;
    // And the other way round: a gateway that can't show who it is, and a plain connection to one that wants TLS.
    let distrusting = Credentials::none().trust(&others.certificate()).expect("readable");
    assert!(Client::connect_with(&scene.address(), distrusting).await.is_err());
    let plain = Client::connect(&scene.gateway.grpc().to_string()).await;
    assert!(match plain {
        Err(_) => true,
        Ok(plain) => plain.list_worlds().await.is_err(),
    });

    // The list is read again when it changes; of two callers that are connected, by each front end, the one whose certificate it has is
    // cut off, and can not come back.
    let other = scene.client(AUDIT).await;
    let (stream, other_stream) = (client.stream(), other.stream());
    let options = SubmitOptions::default();
    for stream in [&stream, &other_stream] {
        assert!(stream.submit("pay", "job", &options).await.is_ok());
    }
    let mut legacy = tls_session(&scene, &good, scene.gateway.tls());
    let mut other_legacy = tls_session(&scene, &scene.authority.client(AUDIT), scene.gateway.tls());
    let withdrawn = |listener| scene.gateway.metrics().sum_where("seeway_tls_withdrawn_total", listener);
    assert!(withdrawn("") < 0.5);
    scene.authority.revoke(&[&good], true);
    for listener in ["listener=\"grpc\"", "listener=\"hardserver\""] {
        wait::until("the connection is closed", wait::BOUND, || (withdrawn(listener) > 0.5).then_some(()));
    }
    // They are closed soon after they are counted.
    assert!(has_ended(&mut legacy, wait::BOUND), "the legacy caller is cut off");
    wait::until_async("the stream ends with its connection", wait::BOUND, || async {
        stream.submit("pay", "job", &options).await.is_err().then_some(())
    })
    .await;
    refused(scene.with(&good), "a revoked certificate").await;
    assert!(other_stream.submit("pay", "job", &options).await.is_ok(), "whoever else is connected stays");
    assert!(!has_ended(&mut other_legacy, A_WHILE));
    assert!(withdrawn("") < 2.5);
    let client = other;
    // Until when each is of use is shown, as its maker wrote it (the second days of 2100 and of 2025, and rcgen's end of all time).
    let end = |file| {
        let labels = [("listener", "grpc"), ("file", file)];
        format!("{:.0}", scene.gateway.metrics().sum_of("seeway_tls_expires_timestamp_seconds", &labels))
    };
    assert_eq!(["certificate", "client_ca", "crl"].map(end), ["67090118400", "67090118400", "4102531200"]);
    // One that is past its next update lets nobody in.
    let reloads = || scene.gateway.metrics().sum_where("seeway_tls_reloads_total", "result=\"ok\"");
    let before = reloads();
    scene.authority.revoke(&[], false);
    wait::until("the list is read again", wait::BOUND, || (reloads() > before + 1.5).then_some(()));
    refused(scene.with(&good), "somebody whose authority's list is overdue").await;
    assert_eq!(end("crl"), "1735776000", "which an alert goes by");
    assert!(!has_ended(&mut other_legacy, A_WHILE), "it cuts nobody off");
    // A file that will not do changes nothing.
    let before = scene.gateway.metrics().sum_where("seeway_tls_reloads_total", "result=\"refused\"");
    std::fs::write(scene.authority.revoke(&[], true), "no list").expect("written");
    let refusals = || scene.gateway.metrics().sum_where("seeway_tls_reloads_total", "result=\"refused\"");
    wait::until("the list is refused", wait::BOUND, || (refusals() > before + 1.5).then_some(()));
    assert_eq!(ask(&client, "pay").await, Ok(()));
    let said_so = || scene.gateway.log().contains("the last ones stay").then_some(());
    wait::until("the log says that the last ones stay", wait::BOUND, said_so);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_to_the_next_caller_and_disturbs_no_other() {
    let _turn = Turn::beside_others();
    let scene = Scene::new(|config, _| config);
    let client = scene.client(PAY).await;
    let stream = client.stream();
    let options = SubmitOptions::default();
    assert!(stream.submit("pay", "job", &options).await.is_ok());
    let before = served_by(&scene);
    scene.authority.server();
    let reloads = || scene.gateway.metrics().sum_where("seeway_tls_reloads_total", "result=\"ok\"");
    wait::until("the certificate is read again", wait::BOUND, || (reloads() > 0.5).then_some(()));
    assert_ne!(served_by(&scene).0, before.0, "another certificate");
    assert!(stream.submit("pay", "job", &options).await.is_ok(), "on the connection from before");
    assert_eq!(before.1, rustls::NamedGroup::X25519MLKEM768, "the hybrid key exchange");
}

/// The certificate that a new connection is shown, and the key exchange that was agreed on by a client that knows the hybrid one.
fn served_by(scene: &Scene) -> (Vec<u8>, rustls::NamedGroup) {
    let address = scene.address().replace("grpcs://", "");
    let (session, _) = tls_session(scene, &scene.authority.client(AUDIT), &address);
    let shown = session.peer_certificates().expect("shown")[0].to_vec();
    (shown, session.negotiated_key_exchange_group().expect("agreed").name())
}

/// A connection on which TLS has been agreed on by a client that knows the hybrid key exchange, and nothing else was said.
fn tls_session(scene: &Scene, certified: &Certified, address: &str) -> (rustls::ClientConnection, TcpStream) {
    use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
    let mut roots = rustls::RootCertStore::empty();
    let authorities = CertificateDer::from_pem_file(scene.authority.certificate()).expect("a certificate");
    roots.add(authorities).expect("an authority");
    let provider = rustls::crypto::CryptoProvider {
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519],
        ..default_provider()
    };
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_file(&certified.certificate).expect("a certificate")],
            PrivateKeyDer::from_pem_file(&certified.key).expect("a key"),
        )
        .expect("they belong together");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut session = rustls::ClientConnection::new(config.into(), name).expect("a session");
    let mut stream = TcpStream::connect(address).expect("connected");
    while session.is_handshaking() {
        session.complete_io(&mut stream).expect("agreed");
    }
    (session, stream)
}

/// Within which a connection that stays would have been closed.
const A_WHILE: Duration = Duration::from_millis(500);

/// Whether the gateway closes a connection that nothing was said on within `bound`.
fn has_ended((_, stream): &mut (rustls::ClientConnection, TcpStream), bound: Duration) -> bool {
    stream.set_read_timeout(Some(bound)).expect("a socket's option");
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// What `seeway check --as` says that somebody may do to `pay`.
fn may(gateway: &Gateway, who: &str) -> String {
    let output = seeway().args(["check", "--as", who, "--config"]).arg(gateway.config_file()).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let line = text.lines().find(|line| line.starts_with("submit  ") && line.contains(" pay "));
    line.unwrap_or_else(|| panic!("{text}")).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn me() -> String {
    let output = Command::new("id").arg("-un").output().expect("id runs");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_says_who_a_unix_caller_is_and_a_reload_takes_effect_at_once() {
    let _turn = Turn::beside_others();
    let me = me();
    let rule = format!("name = \"mine\"\nwho = [\"user:{me}\"]\nmay = [\"submit\"]\nworlds = [\"pay\"]\nin_flight = 3");
    let mut scene = Scene::new(|config, _| config.permission(&rule));
    let mut caller = WireCaller::connect(&scene.gateway.unix(), 4).await.expect("connected");
    let world = caller.open_world("pay", 1).await.expect("mine");
    assert!(
        WireCaller::connect(&scene.gateway.unix(), 4).await.expect("connected").open_world("vault", 1).await.is_err()
    );
    let status = async |caller: &mut WireCaller<i32>| {
        caller.stage(world, b"job", 2).unwrap_or_else(|_| panic!("there is room"));
        let mut status = None;
        while status.is_none() {
            let took = caller.exchange(|_, reply| {
                status = Some(match reply {
                    seeway_proto::wire::ReplyBody::Error { status, .. } => status,
                    _ => 0,
                });
            });
            took.await.expect("answered");
        }
        status.expect("answered")
    };
    assert_eq!(status(&mut caller).await, 0);
    assert_eq!(may(&scene.gateway, &format!("user:{me}")), "submit pay yes rule `mine` 3 in flight");
    assert_eq!(may(&scene.gateway, "token:x"), "submit pay no no rule allows it");
    assert_eq!(may(&scene.gateway, "anonymous"), "submit pay no no rule allows it");

    // The rule goes; the connection stays, with the handle that it has, which is good for nothing any more.
    let rule = "who = [\"user:somebody-else\"]\nmay = [\"submit\"]".to_owned();
    let with_other_rule = Scene { config: scene.config.clone().permission(&rule), ..scene };
    scene = with_other_rule;
    let text = std::fs::read_to_string(scene.gateway.config_file()).expect("there");
    scene.gateway.rewrite_as(&text.replace(&format!("user:{me}"), "user:somebody-else"));
    let loaded = scene.gateway.metrics().sum_where("seeway_reloads_total", "result=\"ok\"");
    scene.gateway.hang_up();
    let reloads = || scene.gateway.metrics().sum_where("seeway_reloads_total", "result=\"ok\"");
    wait::until("it is reloaded", wait::BOUND, || (reloads() > loaded + 0.5).then_some(()));
    assert_eq!(status(&mut caller).await, 4, "UnknownID");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_a_right_from_streams_and_pipes_that_are_open() {
    let _turn = Turn::beside_others();
    let rule = |who: &str| format!("who = [\"certificate:{who}\"]\nmay = [\"submit\", \"pipe\"]\nworlds = [\"pay\"]");
    let mut scene = Scene::new(|config, _| config.permission(&rule(PAY)).permission(&rule(AUDIT)));
    let (pay, audit) = (scene.client(PAY).await, scene.client(AUDIT).await);
    let (stream, other_stream) = (pay.stream(), audit.stream());
    let options = SubmitOptions::default();
    for stream in [&stream, &other_stream] {
        assert!(stream.submit("pay", "job", &options).await.is_ok());
    }
    let mut pipe = pay.pipe("pay", "", 0).await.expect("allowed");
    let mut other_pipe = audit.pipe("pay", "", 0).await.expect("allowed");

    let text = std::fs::read_to_string(scene.gateway.config_file()).expect("there");
    scene.gateway.rewrite_as(&text.replace(PAY, "spiffe://bank.example/somebody-else"));
    scene.gateway.hang_up();
    let ended = tokio::time::timeout(wait::BOUND, pipe.read_to_end(&mut Vec::new())).await.expect("it ends");
    assert!(ended.expect_err("not as it should").to_string().contains("rules have changed"));
    let refused = stream.submit("pay", "job", &options).await.expect_err("not allowed any more");
    assert_eq!(refused.reason(), "NO_SUCH_WORLD");
    assert!(ask(&pay, "pay").await.is_err());

    assert!(other_stream.submit("pay", "job", &options).await.is_ok());
    let nothing = tokio::time::timeout(Duration::from_millis(100), other_pipe.read_u8()).await;
    assert!(nothing.is_err(), "the other pipe is open, and silent: {nothing:?}");
}

#[test]
fn doors_that_nobody_can_have_meant_to_open_are_problems() {
    let _turn = Turn::beside_others();
    let operators = Authority::new("operators");
    let of_operators = operators.tls(&operators.server());
    let scene = Scene::new(|config, _| {
        config.line("listen", "management = \"tls:127.0.0.1:0\"").line("management_tls", &of_operators)
    });
    let text = std::fs::read_to_string(scene.gateway.config_file()).expect("there");
    let client_ca = |authority: &Authority| format!("client_ca = \"{}\"", authority.certificate().display());
    let (of_callers, of_operators) = (client_ca(&scene.authority), client_ca(&operators));
    let rule = |may: &str| format!("{text}\n[[permission]]\nwho = [\"user:x\"]\nmay = {may}\n");
    let open = text.replace("grpc = \"127.0.0.1:0\"", "grpc = \"0.0.0.0:0\"");
    let optional = format!("{of_callers}\nclient_certificates = \"optional\"");
    let said = |text: &str| {
        let file = scene.gateway.config_file().with_file_name("another.toml");
        std::fs::write(&file, text).expect("written");
        let output = seeway().args(["check", "--config"]).arg(&file).output().expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    for good in [&text, &open, &rule("[\"submit\", \"pipe\"]")] {
        let (is_good, said) = said(good);
        assert!(is_good, "{said}");
    }
    for (bad, what) in [
        (open.replace(&of_callers, &optional), "lets in everybody who reaches it"),
        (open.replace(&of_callers, ""), "lets in everybody who reaches it"),
        (text.replace(&of_callers, "client_certificates = \"required\""), "there is no client_ca"),
        (text.replace(&of_operators, ""), "does not make operators show a certificate"),
        (text.replace(&of_operators, &of_callers), "has an authority of tls.client_ca"),
        (rule("[\"submit\", \"admin\"]"), "together with other things"),
    ] {
        let (is_good, said) = said(&bad);
        assert!(!is_good && said.contains(what), "{what}: {said}");
    }
    let with_rules =
        format!("{}\n[[permission]]\nwho = [\"x\"]\nmay = [\"submit\"]\n", open.replace(&of_callers, &optional));
    assert!(said(&with_rules).0, "rules say who may what");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_user_sends_jobs_or_manages() {
    let _turn = Turn::beside_others();
    let (me, folder) = (me(), tempfile::tempdir().expect("a folder"));
    let management = format!("unix:{}", folder.path().join("management").display());
    let rule =
        |name: &str, who: &str, may: &str| format!("name = \"{name}\"\nwho = [\"user:{who}\"]\nmay = [\"{may}\"]");
    let mut scene = Scene::new(|config, _| {
        config
            .line("listen", &format!("management = \"{management}\""))
            .permission(&rule("operators", &me, "admin"))
            .permission(&rule("callers", &me, "submit"))
    });
    let drain = || {
        let output = seeway().args(["drain", "--machine", "hsm", "--admin", &management]).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, said) = drain();
    assert!(status == Some(1) && said.contains("who sends jobs changes nothing"), "{said}");
    let text = std::fs::read_to_string(scene.gateway.config_file()).expect("there");
    scene.gateway.rewrite_as(&text.replace(&rule("callers", &me, "submit"), &rule("callers", "others", "submit")));
    scene.gateway.hang_up();
    let (status, said) =
        wait::until("the rule is gone", wait::BOUND, || Some(drain()).filter(|(status, _)| *status == Some(0)));
    assert_eq!(status, Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_caller_over_tls_that_does_not_close_its_end_is_let_go() {
    let _turn = Turn::beside_others();
    let scene = Scene::new(|config, _| config.tls_listener());
    let certified = scene.authority.client(PAY);
    let callers = || scene.gateway.metrics().sum_where("seeway_callers", "hardserver");
    scene.gateway.until_idle(wait::BOUND);
    let files = scene.gateway.open_files();
    let mut kept = Vec::new();
    for _ in 0..8 {
        let (mut session, mut stream) = tls_session(&scene, &certified, scene.gateway.tls());
        // A length that no message has ends the connection, and this end stays open.
        session.writer().write_all(&u32::MAX.to_le_bytes()).expect("buffered");
        session.write_tls(&mut stream).expect("sent");
        kept.push(stream);
    }
    wait::until("nothing is left of them", wait::BOUND, || {
        (scene.gateway.open_files() <= files && callers() < 0.5).then_some(())
    });
    drop(kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_jobs_drains_nothing_and_who_drains_sends_none() {
    let _turn = Turn::beside_others();
    let operators = Authority::new("operators");
    let server = operators.server();
    let scene = Scene::new(|config, _| {
        config
            .line("listen", "management = \"tls:127.0.0.1:0\"")
            .line("management_tls", &operators.tls(&server))
            .permission("who = [\"certificate:spiffe://bank.example/*\"]\nmay = [\"submit\"]")
            .permission(
                "name = \"operators\"\nwho = [\"certificate:spiffe://bank.example/operator\"]\nmay = [\"admin\"]",
            )
    });
    let drain = |credentials: Option<(&Certified, &Authority)>, at: &str| {
        let mut command = seeway();
        command.args(["drain", "--machine", "hsm", "--admin", at]);
        if let Some((certified, authority)) = credentials {
            command.arg("--ca").arg(authority.certificate());
            command.arg("--certificate").arg(&certified.certificate).arg("--key").arg(&certified.key);
        }
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let management = scene.gateway.management();
    let operator = operators.client("spiffe://bank.example/operator");
    let caller = scene.authority.client(PAY);

    let (status, said) = drain(None, &scene.gateway.admin().to_string());
    assert!(status == Some(1) && said.contains("listen.management"), "{said}");
    let (status, said) = drain(Some((&caller, &operators)), &management);
    assert_eq!(status, Some(1), "a caller's certificate is none here: {said}");
    let (status, said) = drain(Some((&operators.client("spiffe://bank.example/guest"), &operators)), &management);
    assert!(status == Some(1) && said.contains("no [[permission]]"), "{said}");
    let pay = scene.client(PAY).await;
    assert_eq!(ask(&pay, "pay").await, Ok(()), "nothing was drained");

    let as_caller = Client::connect_with(&scene.address(), scene.with(&operator)).await;
    assert!(match as_caller {
        Err(_) => true,
        Ok(client) => client.list_worlds().await.is_err(),
    });
    let (status, said) = drain(Some((&operator, &operators)), &management);
    assert_eq!(status, Some(0), "{said}");
}

/// Sends a job by each of these clients at once.
fn ask_by(clients: Vec<Client>) -> JoinSet<Result<(), String>> {
    let mut asked = JoinSet::new();
    for client in clients {
        asked.spawn(async move { ask(&client, "pay").await });
    }
    asked
}

#[tokio::test(flavor = "multi_thread")]
async fn at_an_identitys_quota_and_one_past_it() {
    // How long the machine takes for a job.
    const TAKES: Duration = Duration::from_secs(1);
    let _turn = Turn::beside_others();
    let identity = Identity::generate();
    let app = format!("slow:{}", TAKES.as_millis());
    let mut machine = Machine::start_with_ssh(&app, &identity, "127.0.0.1:0");
    let (authority, rate) = (Authority::new("callers"), "spiffe://bank.example/rate");
    let config = Config::new()
        .machine("hsm", machine.door(), machine.seejobs(), &identity, "")
        .world("pay", &["hsm"], "")
        .line("tls", &authority.tls(&authority.server()))
        .line("runtime", "shards = 2")
        .permission(&format!("who = [\"certificate:{PAY}\"]\nmay = [\"submit\"]\nin_flight = 5"))
        .permission(&format!("who = [\"certificate:{rate}\"]\nmay = [\"submit\"]\njobs_per_second = 3"));
    let gateway = Gateway::ready(&config);
    let address = gateway.grpc().to_string().replace("grpc://", "grpcs://");
    // Over connections of its own each, which the two shards share.
    let connected = async |uri: &str, count: usize| {
        let certified = authority.client(uri);
        let mut clients = Vec::new();
        for _ in 0..count {
            let credentials = Credentials::none()
                .trust(&authority.certificate())
                .and_then(|credentials| credentials.certificate(&certified.certificate, &certified.key))
                .expect("readable");
            clients.push(Client::connect_with(&address, credentials).await.expect("let in"));
        }
        clients
    };
    let is_refused = |answer: &Result<(), String>| {
        let refused = answer.as_ref().err();
        assert!(refused.is_none_or(|error| error.starts_with("CLIENT_QUOTA")), "{refused:?}");
        refused.is_some()
    };

    // The machine is halted until four are refused: a job that ended before would leave room for one more.
    let clients = connected(PAY, 9).await;
    machine.signal(Signal::STOP);
    let mut asked = ask_by(clients);
    for _ in 0..4 {
        let answer = tokio::time::timeout(wait::BOUND, asked.join_next()).await.expect("four of nine are refused");
        assert!(is_refused(&answer.expect("nine were asked").expect("no panic")));
    }
    machine.signal(Signal::CONT);
    let answers = asked.join_all().await;
    assert!(answers.iter().all(|answer| !is_refused(answer)), "five of nine are let in: {answers:?}");

    // A second's worth at once, and then as many as come due until the last one is let in or refused. One that is let
    // in was so before the machine took its time.
    let clients = connected(rate, 9).await;
    let started = Instant::now();
    let mut asked = ask_by(clients);
    let (mut let_in, mut until) = (0_u128, Duration::ZERO);
    while let Some(answer) = asked.join_next().await {
        let elapsed = started.elapsed();
        if is_refused(&answer.expect("no panic")) {
            until = until.max(elapsed);
        } else {
            until = until.max(elapsed.saturating_sub(TAKES));
            let_in += 1;
        }
    }
    let most = 3 + 3 * until.as_nanos() / Duration::from_secs(1).as_nanos();
    assert!((3..=most).contains(&let_in), "{let_in} of nine were let in within {until:?}");

    gateway.until_idle(wait::BOUND);
    // What ended counts no more.
    let client = connected(PAY, 1).await.remove(0);
    let answers = ask_by(vec![client; 5]).join_all().await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}
