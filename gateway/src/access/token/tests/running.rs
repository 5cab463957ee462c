//! Tokens in a gateway that runs: keys that come over the network or from a file, change, and fail to come.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::config::Token;

/// For what takes milliseconds on an idle computer.
const BOUND: Duration = Duration::from_secs(20);

/// An HTTP server with one answer, which can be changed, that counts how often it was asked.
struct Server {
    address: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
    asked: Arc<AtomicUsize>,
    certificate: Option<String>,
    _task: JoinSet<()>,
}

fn ok(body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: Vec<u8>) {
    let mut request = Vec::new();
    // 22 begins a TLS handshake, which a server without TLS has no use for.
    while !request.ends_with(b"\r\n\r\n")
        && !request.starts_with(&[22])
        && stream.read_buf(&mut request).await.is_ok_and(|count| count > 0)
    {}
    let _ = stream.write_all(&answer).await;
    let _ = stream.shutdown().await;
}

impl Server {
    async fn start(first: Vec<u8>, with_tls: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let made = with_tls.then(|| generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate"));
        let certificate = made.as_ref().map(|made| made.cert.pem());
        let acceptor = made.map(|CertifiedKey { cert, signing_key }| {
            let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
            let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(vec![cert.der().clone()], key)
                .expect("a certificate and its key");
            TlsAcceptor::from(Arc::new(config))
        });
        let current = Arc::new(Mutex::new(first));
        let asked = Arc::new(AtomicUsize::new(0));
        let mut task = JoinSet::new();
        let (answers, count) = (current.clone(), asked.clone());
        task.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let now = answers.lock().expect("no panic").clone();
                match &acceptor {
                    None => answer(stream, now).await,
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            answer(stream, now).await;
                        }
                    }
                }
            }
        });
        Self { address, answer: current, asked, certificate, _task: task }
    }

    fn says(&self, answer: Vec<u8>) {
        *self.answer.lock().expect("no panic") = answer;
    }

    fn url(&self, scheme: &str) -> KeySource {
        let text = format!("{scheme}://{}/keys?of=seeway", self.address);
        KeySource::parse(&text, |file| file.into()).expect("an address")
    }
}

fn token_config(keys: KeySource) -> Token {
    let (refresh, stale) = (Duration::from_secs(3600), Duration::from_secs(7200));
    Token { keys, settings: settings(), rsa_min_bits: 3072, refresh, stale, ca: None }
}

/// The header of a good token, by the real clock.
fn header(signer: &Signer) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = with(json!({"exp": now + 600, "nbf": now, "iat": now}));
    format!("Bearer {}", signer.token(&json!({"alg": "EdDSA", "kid": signer.kid}), &claims))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let reached = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, reached).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

fn keep_fresh(tokens: &Tokens) -> JoinSet<()> {
    let mut task = JoinSet::new();
    task.spawn(tokens.clone().keep_fresh());
    task
}

#[tokio::test]
async fn keys_come_over_http_and_a_changed_key_is_fetched_for_the_first_token_of_it() {
    let (old, new) = (Signer::new(Kind::Ed25519, Some("old")), Signer::new(Kind::Ed25519, Some("new")));
    let server = Server::start(ok(&jwks(&[&old])), false).await;
    let tokens = Tokens::hasty(Some(token_config(server.url("http"))));
    assert_eq!(tokens.identify(&header(&old)), Err(TokenError::NoKeys));
    assert!(TokenError::NoKeys.is_ours());
    let _task = keep_fresh(&tokens);
    until("the keys are there", || tokens.identify(&header(&old)).is_ok()).await;
    let identity = tokens.identify(&header(&old)).expect("good").identity;
    assert_eq!((identity.name(), identity.means()), ("payments", Means::Token));

    server.says(ok(&jwks(&[&new])));
    let header_of_new = header(&new);
    assert_eq!(tokens.identify(&header_of_new), Err(TokenError::UnknownKey));
    until("the new key is there", || tokens.identify(&header_of_new).is_ok()).await;
    assert_eq!(
        tokens.identify(&header(&old)),
        Err(TokenError::UnknownKey),
        "the old key is gone, with all that it signed"
    );
    let counts = tokens.counts();
    assert_eq!((counts.keys, counts.failed_reads), (1, 0));
    assert!(counts.accepted >= 3 && counts.refused >= 3 && counts.age.is_some(), "{counts:?}");
}

#[tokio::test]
async fn tokens_with_unknown_keys_can_not_have_the_provider_asked_often() {
    let signer = Signer::new(Kind::Ed25519, Some("k"));
    let server = Server::start(ok(&jwks(&[&signer])), false).await;
    let tokens = Tokens::new(Some(token_config(server.url("http"))));
    let _task = keep_fresh(&tokens);
    until("the keys are there", || tokens.identify(&header(&signer)).is_ok()).await;
    let stranger = header(&Signer::new(Kind::Ed25519, Some("stranger")));
    for _ in 0..200 {
        assert_eq!(tokens.identify(&stranger), Err(TokenError::UnknownKey));
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.asked.load(Ordering::SeqCst), 1, "the next time is 30 s after the first");
}

#[tokio::test]
async fn the_last_good_keys_outlast_an_outage_until_they_are_stale() {
    let signer = Signer::new(Kind::Ed25519, Some("k"));
    let server = Server::start(ok(&jwks(&[&signer])), false).await;
    let config =
        Token { refresh: Duration::from_millis(20), stale: Duration::from_secs(2), ..token_config(server.url("http")) };
    let tokens = Tokens::hasty(Some(config));
    let _task = keep_fresh(&tokens);
    let header = header(&signer);
    until("the keys are there", || tokens.identify(&header).is_ok()).await;
    server.says(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec());
    let before = tokens.counts().failed_reads;
    until("reading has failed often", || tokens.counts().failed_reads > before + 3).await;
    tokens.identify(&header).expect("the last keys stay in use");
    until("they are stale", || tokens.identify(&header) == Err(TokenError::StaleKeys)).await;
    assert!(tokens.counts().age.is_some_and(|age| age >= Duration::from_secs(2)));
    // And back.
    server.says(ok(&jwks(&[&signer])));
    until("the provider is back", || tokens.identify(&header).is_ok()).await;
}

#[tokio::test]
async fn keys_that_never_came_are_as_old_as_the_wish_for_them() {
    let server = Server::start(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".to_vec(), false).await;
    let config = token_config(server.url("http"));
    let tokens = Tokens::hasty(Some(config.clone()));
    let _task = keep_fresh(&tokens);
    until("reading has failed often", || tokens.counts().failed_reads > 3).await;
    let before = tokens.counts();
    let age = before.age.expect("they are wanted");
    assert!(before.keys == 0 && age > Duration::ZERO, "{before:?}");
    // A reload that wants them from the same place is no new wish.
    tokens.reconfigure(Some(Token { stale: Duration::from_secs(1), ..config }));
    assert!(tokens.counts().age.is_some_and(|now| now >= age));
    tokens.reconfigure(None);
    assert_eq!(tokens.counts().age, None);
}

#[tokio::test]
async fn what_is_no_key_set_is_said_and_not_taken() {
    let big = vec![b' '; (1 << 20) + 1];
    let server = Server::start(ok(b"{}"), false).await;
    let url = server.url("http");
    let mut said = Vec::new();
    for answer in [
        ok(b"{}"),
        ok(&big),
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}".to_vec(),
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(300_000)).into_bytes(),
        b"SSH-2.0-OpenSSH\r\n".to_vec(),
        Vec::new(),
    ] {
        server.says(answer);
        said.push(url.read(None, 3072).await.expect_err("no keys").to_string());
    }
    let wanted = [
        "not a JSON Web Key Set",
        "larger than 1 MiB",
        "status 302",
        "broke off",
        "could not be read",
        "could not be read",
        "could not be read",
    ];
    for (said, wanted) in said.iter().zip(wanted) {
        assert!(said.contains(wanted), "{said}\n{wanted}");
    }
    drop(server);
    let error = url.read(None, 3072).await.expect_err("nobody is there").to_string();
    assert!(error.contains("can not be reached"), "{error}");
}

#[tokio::test]
async fn https_is_taken_from_whom_the_ca_file_trusts_and_from_nobody_else() {
    let signer = Signer::new(Kind::Ed25519, Some("k"));
    let server = Server::start(ok(&jwks(&[&signer])), true).await;
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let own = write("own.pem", server.certificate.as_deref().expect("with TLS"));
    let url = server.url("https");
    assert_eq!(url.read(Some(&own), 3072).await.expect("trusted").len(), 1);

    let other = generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("a certificate");
    let other = write("other.pem", &other.cert.pem());
    let error = url.read(Some(&other), 3072).await.expect_err("not trusted").to_string();
    assert!(error.contains("could not be trusted") && error.contains("token.ca"), "{error}");
    // A certificate for another name.
    let named = KeySource::parse(&format!("https://localhost:{}/", server.address.port()), |file| file.into())
        .expect("an address");
    let error = named.read(Some(&own), 3072).await.expect_err("another name").to_string();
    assert!(error.contains("could not be trusted") || error.contains("can not be reached"), "{error}");
    // No TLS at all.
    let plain = Server::start(ok(b"{}"), false).await;
    let error = plain.url("https").read(Some(&own), 3072).await.expect_err("no TLS").to_string();
    assert!(error.contains("could not be trusted"), "{error}");
    for (name, text) in [("empty.pem", ""), ("none.pem", "no certificate")] {
        let error = url.read(Some(&write(name, text)), 3072).await.expect_err(name).to_string();
        assert!(error.contains(name) && error.contains("no certificate in PEM form"), "{error}");
    }
    let error = url.read(Some(Path::new("/nowhere/ca.pem")), 3072).await.expect_err("not there").to_string();
    assert!(error.contains("/nowhere/ca.pem"), "{error}");
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes_or_is_replaced() {
    let (old, new, newer) = (
        Signer::new(Kind::Ed25519, Some("a")),
        Signer::new(Kind::Ed25519, Some("b")),
        Signer::new(Kind::Ed25519, Some("c")),
    );
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys.json");
    std::fs::write(&file, jwks(&[&old])).expect("written");
    let tokens = Tokens::hasty(Some(token_config(KeySource::File(file.clone()))));
    let _task = keep_fresh(&tokens);
    until("the keys are there", || tokens.identify(&header(&old)).is_ok()).await;
    std::fs::write(&file, jwks(&[&new, &old])).expect("written");
    until("the new key is there", || tokens.identify(&header(&new)).is_ok()).await;
    tokens.identify(&header(&old)).expect("both are");
    // Gone, and then there again: the last keys stay.
    std::fs::remove_file(&file).expect("removed");
    tokens.identify(&header(&new)).expect("the last keys stay");
    let next = folder.path().join("next");
    std::fs::write(&next, jwks(&[&newer])).expect("written");
    std::fs::rename(&next, &file).expect("replaced");
    until("the newest key is there", || tokens.identify(&header(&newer)).is_ok()).await;
    assert_eq!(tokens.identify(&header(&old)), Err(TokenError::UnknownKey));
}

#[tokio::test]
async fn a_reload_changes_what_is_taken() {
    let signer = Signer::new(Kind::Ed25519, Some("k"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys.json");
    std::fs::write(&file, jwks(&[&signer])).expect("written");
    let config = token_config(KeySource::File(file));
    let tokens = Tokens::hasty(None);
    let _task = keep_fresh(&tokens);
    let header = header(&signer);
    assert_eq!((tokens.is_on(), tokens.identify(&header)), (false, Err(TokenError::NotTaken)));
    tokens.reconfigure(Some(config.clone()));
    until("tokens are taken", || tokens.identify(&header).is_ok()).await;
    // The same keys, another audience: at once, and what the cache has is forgotten.
    let mut other = config.clone();
    other.settings.audience = "another".to_owned();
    tokens.reconfigure(Some(other));
    assert_eq!(tokens.identify(&header), Err(TokenError::Audience));
    tokens.reconfigure(Some(config));
    tokens.identify(&header).expect("as before");
    tokens.reconfigure(None);
    assert_eq!(tokens.identify(&header), Err(TokenError::NotTaken));
}

#[tokio::test]
async fn headers_other_than_bearer_are_no_tokens() {
    let signer = Signer::new(Kind::Ed25519, Some("k"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys.json");
    std::fs::write(&file, jwks(&[&signer])).expect("written");
    let tokens = Tokens::hasty(Some(token_config(KeySource::File(file))));
    let _task = keep_fresh(&tokens);
    let good = header(&signer);
    until("the keys are there", || tokens.identify(&good).is_ok()).await;
    let token = good.strip_prefix("Bearer ").expect("a header");
    tokens.identify(&format!("bEARER  {token} ")).expect("in any case, and with blanks");
    for header in
        ["", "Bearer", "Bearer ", "Basic dXNlcjpwYXNz", token, &format!("Token {token}"), &format!("Bearer\t{token}")]
    {
        assert_eq!(tokens.identify(header), Err(TokenError::NotBearer), "{header}");
    }
    let long = format!("Bearer {}", "x".repeat(TOKEN_LIMIT + 1));
    assert_eq!(tokens.identify(&long), Err(TokenError::TooLong(TOKEN_LIMIT + 1)));
}

#[test]
fn addresses_are_https_or_of_this_computer() {
    for text in [
        "https://login.example/keys",
        "https://[2001:db8::1]:8443/",
        "http://127.0.0.1:80/k",
        "http://[::1]/",
        "http://localhost:1/",
    ] {
        assert!(matches!(KeySource::parse(text, |file| file.into()), Ok(KeySource::Url(_))), "{text}");
    }
    for text in [
        "http://login.example/keys",
        "http://10.0.0.1/",
        "ftp://x/",
        "https://",
        "https://user:pass@x/",
        "http://localhost.example/",
        "https:///x",
        "https://x:0/",
    ] {
        assert!(KeySource::parse(text, |file| file.into()).is_err(), "{text}");
    }
    assert_eq!(KeySource::parse("keys.json", |file| file.into()), Ok(KeySource::File("keys.json".into())));
}
