//! Callers that show a token where others show a certificate.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use seeway_client::grpc::{Credentials, Gateway as Client, SubmitOptions};
use seeway_tests::audit::AuditLog;
use seeway_tests::authority::Authority;
use seeway_tests::callers::ask;
use seeway_tests::provider::Provider;
use seeway_tests::{Config, Gateway, Identity, Machine, python, turn::Turn, wait};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const AUDIT_KEY: &str = "KEY-of-the-audit-log-and-of-nothing-else";

const HOUR: Duration = Duration::from_secs(3600);

/// A machine that echoes, in the worlds `pay` and `vault`, behind a gateway to which some callers show certificates, and some tokens.
struct Scene {
    provider: Provider,
    authority: Authority,
    gateway: Gateway,
    folder: TempDir,
    _identity: Identity,
    _machine: Machine,
}

impl Scene {
    fn new() -> Self {
        Self::logging(None)
    }

    fn logging(level: Option<&str>) -> Self {
        let (identity, authority, provider) = (Identity::generate(), Authority::new("callers"), Provider::new());
        let machine = Machine::start_with_ssh("echo", &identity, "127.0.0.1:0");
        let server = authority.server();
        let folder = TempDir::new().expect("a folder");
        let audit_key = folder.path().join("audit.key");
        std::fs::write(&audit_key, AUDIT_KEY).expect("written");
        std::fs::set_permissions(&audit_key, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
        let config = Config::new()
            .machine("hsm", machine.door(), machine.seejobs(), &identity, "")
            .world("pay", &["hsm"], "")
            .world("vault", &["hsm"], "")
            .line("tls", &authority.tls(&server))
            .line("tls", "client_certificates = \"optional\"")
            .line("token", &provider.section())
            .line("audit", &format!("to = \"file:{}\"", folder.path().join("audit.log").display()))
            .line("audit", &format!("key = \"{}\"", audit_key.display()))
            .permission("who = [\"token:payments\"]\nmay = [\"submit\", \"pipe\"]\nworlds = [\"pay\"]")
            .permission("who = [\"token-group:auditors\"]\nmay = [\"submit\"]\nworlds = [\"vault\"]");
        let gateway = Gateway::start_logging(&config, level);
        gateway.until_up(config.machines());
        Self { provider, authority, gateway, folder, _identity: identity, _machine: machine }
    }

    fn address(&self) -> String {
        self.gateway.grpc().to_string().replace("grpc://", "grpcs://")
    }

    fn trusting(&self) -> Credentials {
        Credentials::none().trust(&self.authority.certificate()).expect("readable")
    }

    async fn client(&self, credentials: Credentials) -> Client {
        Client::connect_with(&self.address(), credentials).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// A client with a token of the provider's.
    async fn with_token(&self, name: &str, lasts: Duration, further: serde_json::Value) -> Client {
        let token = self.provider.token(name, lasts, further);
        self.client(self.trusting().token(&token).expect("a token")).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_names_its_caller_and_a_bad_one_nobody() {
    let _turn = Turn::beside_others();
    let scene = Scene::new();
    let pay = scene.with_token("payments", HOUR, json!({})).await;
    assert_eq!(ask(&pay, "pay").await, Ok(()));
    assert!(ask(&pay, "vault").await.expect_err("not theirs").starts_with("NO_SUCH_WORLD"));
    let auditor = scene.with_token("a.bauer", HOUR, json!({"groups": ["staff", "auditors"]})).await;
    assert_eq!(ask(&auditor, "vault").await, Ok(()));
    assert!(ask(&auditor, "pay").await.is_err());

    let nobody = scene.client(scene.trusting()).await;
    let told = ask(&nobody, "pay").await.expect_err("nobody");
    assert!(told.contains("send a token"), "{told}");
    // A certificate's name counts before a token's.
    let certified = scene.authority.client("spiffe://bank.example/other");
    let token = scene.provider.token("payments", HOUR, json!({}));
    let both = scene.trusting().certificate(&certified.certificate, &certified.key).expect("readable");
    let both = scene.client(both.token(&token).expect("a token")).await;
    assert!(ask(&both, "pay").await.is_err(), "the certificate is nobody's who may");

    let others = Provider::new();
    let file = others.token("payments", HOUR, json!({}));
    let forged = scene.client(scene.trusting().token(&file).expect("one line")).await;
    let mut refused = vec![(forged, "of another provider with the same names")];
    for (further, what) in [
        (json!({"exp": 1_700_000_000}), "expired"),
        (json!({"aud": "another-gateway"}), "for another gateway"),
        (json!({"iss": "https://elsewhere.example"}), "of another issuer"),
        (json!({"nbf": 4_000_000_000_u64}), "not good yet"),
    ] {
        refused.push((scene.with_token("payments", HOUR, further).await, what));
    }
    for (client, what) in &refused {
        assert!(ask(client, "pay").await.is_err(), "one that is {what} is taken");
        assert!(client.list_worlds().await.is_err(), "one that is {what} is taken to list worlds");
    }
    let metrics = scene.gateway.metrics();
    assert!(metrics.sum_where("seeway_tokens_total", "result=\"ok\"") > 3.5);
    assert!(metrics.sum_where("seeway_tokens_total", "result=\"refused\"") > 9.5);
    let log = scene.gateway.log();
    let token = std::fs::read_to_string(&token).expect("there");
    for part in token.trim().split('.') {
        assert!(!log.contains(part), "the log has {part}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_names_whoever_a_token_names() {
    let _turn = Turn::beside_others();
    let scene = Scene::new();
    let pay = scene.with_token("payments", HOUR, json!({})).await;
    let options = SubmitOptions::default();
    assert_eq!(ask(&pay, "pay").await, Ok(()));
    assert!(pay.stream().submit("pay", "job", &options).await.is_ok());
    assert!(pay.pipe("pay", "", 0).await.is_ok());
    assert!(ask(&pay, "vault").await.is_err());
    assert!(pay.stream().submit("vault", "job", &options).await.is_err());
    assert!(pay.pipe("vault", "", 0).await.is_err());
    let expired = scene.with_token("payments", HOUR, json!({"exp": 1_700_000_000})).await;
    assert!(ask(&expired, "pay").await.is_err());

    let file = scene.folder.path().join("audit.log");
    let log = AuditLog::of(&[&file]);
    let of = |event: &str, who: &str| log.of_event(event).iter().filter(|record| record["who"] == who).count();
    let wanted =
        [("job", "payments", 2), ("pipe", "payments", 1), ("refused", "payments", 3), ("refused", "anonymous", 1)];
    wait::until("all records are written", wait::BOUND, || {
        wanted.iter().all(|(event, who, count)| of(event, who) >= *count).then_some(())
    });
    for (event, who, count) in wanted {
        assert_eq!(of(event, who), count, "{event} by {who}: {:?}", log.records());
    }
    assert!(log.of_event("refused").iter().any(|record| record["reason"] == "UNAUTHENTICATED"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_a_token_a_key_or_a_pipe_reaches_anything_that_is_written() {
    let _turn = Turn::beside_others();
    let mut scene = Scene::logging(Some("trace"));
    let secret = "SECRET-of-the-pipe-and-of-the-job";
    let token = scene.provider.token("payments", HOUR, json!({}));
    let pay = scene.client(scene.trusting().token(&token).expect("a token")).await;
    assert!(pay.submit("pay", secret, &SubmitOptions::default()).await.is_ok());
    assert!(pay.submit("vault", secret, &SubmitOptions::default()).await.is_err());
    let mut pipe = pay.pipe("pay", "", 0).await.expect("allowed");
    pipe.write_all(secret.as_bytes()).await.expect("taken");
    pipe.flush().await.expect("taken");
    // What is no token, one that has expired, and a TLS key that can't be used any more.
    let expired = scene.provider.token("payments", HOUR, json!({"exp": 1_700_000_000}));
    let garbage = scene.folder.path().join("garbage");
    std::fs::write(&garbage, "GARBAGE-that-somebody-took-for-a-token").expect("written");
    for file in [&expired, &garbage] {
        let client = scene.client(scene.trusting().token(file).expect("one line")).await;
        assert!(ask(&client, "pay").await.is_err());
    }
    let server = scene.authority.server();
    let tls_key = std::fs::read_to_string(&server.key).expect("there");
    std::fs::write(&server.key, tls_key.replace("-----END", "!----END")).expect("it is ours");
    scene.gateway.hang_up();
    wait::until("the key is refused", wait::BOUND, || scene.gateway.log().contains("server.key").then_some(()));

    let texts = [&token, &expired, &garbage].map(|file| std::fs::read_to_string(file).expect("there"));
    let mut secrets: Vec<&str> = texts.iter().flat_map(|text| text.trim().split('.')).collect();
    // A key's first characters are its kind's, the same for all.
    let of_key = tls_key
        .lines()
        .filter(|line| !line.starts_with('-'))
        .map(|line| &line[line.len().min(40) - 20..line.len().min(40)]);
    secrets.extend(of_key);
    secrets.extend([secret, AUDIT_KEY, "U0VDUkVULW9mLXRoZS1waXBl", "5345435245542d6f66", "83, 69, 67, 82, 69, 84"]);
    assert!(secrets.len() > 10);
    let audit = std::fs::read_to_string(scene.folder.path().join("audit.log")).expect("there");
    assert!(audit.contains("\"pipe\"") && !audit.contains("job_sha256"), "a digest that nobody asked for: {audit}");
    let written = [
        ("the log", scene.gateway.log()),
        ("the metrics", scene.gateway.get("/metrics").1),
        ("the admin port", scene.gateway.get("/audit").1),
        ("the audit log", audit),
    ];
    for (place, text) in &written {
        for secret in &secrets {
            let found: Vec<_> = text.lines().filter(|line| line.contains(secret)).collect();
            assert!(found.is_empty(), "{place} shows {secret}: {found:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_and_a_pipe_end_when_their_token_does() {
    let _turn = Turn::beside_others();
    let scene = Scene::new();
    let options = SubmitOptions::default();
    let opened = async |lasts: Duration| {
        let client = scene.with_token("payments", lasts, json!({})).await;
        let stream = client.stream();
        assert_eq!(stream.submit("pay", "job", &options).await.expect("in time").reply.as_bytes(), b"job");
        let pipe = client.pipe("pay", "", 0).await.expect("in time");
        (client, stream, pipe)
    };
    // First what is in no hurry: the time of the other one begins when its token is made.
    let (_lasting, other_stream, mut other_pipe) = opened(HOUR).await;
    let (brief, stream, mut pipe) = opened(Duration::from_secs(4)).await;

    // Nothing is sent over the pipe: its end is the token's.
    let ended = tokio::time::timeout(wait::BOUND, pipe.read_to_end(&mut Vec::new())).await.expect("it ends");
    let told = ended.expect_err("it did not end as it should").to_string();
    assert!(told.contains("the token has expired"), "{told}");
    let refused = stream.submit("pay", "job", &options).await;
    assert!(refused.expect_err("it has ended").to_string().contains("token"));
    assert!(ask(&brief, "pay").await.is_err());

    assert!(other_stream.submit("pay", "job", &options).await.is_ok());
    let nothing = tokio::time::timeout(Duration::from_millis(100), other_pipe.read_u8()).await;
    assert!(nothing.is_err(), "the other pipe is open, and silent: {nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_in_another_language_show_tokens() {
    let _turn = Turn::beside_others();
    let scene = Scene::new();
    let token = scene.provider.token("payments", HOUR, json!({}));
    let expired = scene.provider.token("payments", HOUR, json!({"exp": 1_700_000_000}));
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let path = |path: &Path| path.display().to_string();
    python::run(
        "token_test.py",
        [
            "--grpc",
            &scene.address().replace("grpcs://127.0.0.1", "localhost"),
            "--ca",
            &path(&scene.authority.certificate()),
            "--token",
            &path(&token),
            "--expired",
            &path(&expired),
            "--schema",
            &path(&schema),
        ],
    );
}
