//! Jobs to a hardserver's socket, against the answering mux.

#![allow(clippy::unwrap_used)] // In a test it is an assertion.

mod support;

use std::time::Duration;

use seeway_client::JobErrorKind;
use seeway_client::hardserver::{Address, Hardserver};
use seeway_client::stream::Options;
use seeway_proto::outcome::{NotSent, Rejected};
use support::machine::{Machine, WORLD};
use support::within;
use tokio::net::{TcpListener, UnixListener};

async fn use_it(address: &str) {
    let address: Address = address.parse().unwrap();
    let hardserver = within("connecting", Hardserver::connect(&address, Options::default())).await.unwrap();
    within("the no-op", hardserver.no_op(Duration::from_secs(10))).await.unwrap();
    let world = within("the world", hardserver.world(WORLD.0)).await.unwrap();
    assert_eq!((world.name(), world.handle()), WORLD);
    // The world keeps the connection.
    drop(hardserver);
    for job in [&b""[..], b"job", &[7; 10_000]] {
        assert!(*within("the reply", world.submit(job)).await.unwrap() == *job);
    }
}

#[tokio::test]
async fn jobs_go_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nserver");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move { Machine::new(listener.accept().await.unwrap().0).echo().await });
    use_it(&format!("unix:{}", path.display())).await;
}

#[tokio::test]
async fn jobs_go_over_ipv4_and_ipv6() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { Machine::new(listener.accept().await.unwrap().0).echo().await });
        use_it(&format!("tcp:{address}")).await;
    }
}

/// As a gateway does that is being stopped.
#[tokio::test]
async fn a_connection_that_ends_while_a_world_is_looked_up_has_run_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Address = format!("tcp:{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        stream.readable().await.unwrap();
    });
    let hardserver = Hardserver::connect(&address, Options::default()).await.unwrap();
    let error = within("the end", hardserver.world("signer")).await.unwrap_err();
    assert_eq!(error.kind(), JobErrorKind::NotSent(NotSent::NowhereToGo));
    assert!(!error.may_have_run());
}

#[tokio::test]
async fn a_world_that_is_not_there_and_a_socket_that_is_not_are_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: Address = format!("tcp:{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { Machine::new(listener.accept().await.unwrap().0).echo().await });
    let hardserver = Hardserver::connect(&address, Options::default()).await.unwrap();
    let error = within("the refusal", hardserver.world("nobody")).await.unwrap_err();
    assert_eq!(error.kind(), JobErrorKind::Rejected(Rejected::NoSuchWorld));
    assert!(error.to_string().contains(&address.to_string()), "{error}");

    let address: Address = "unix:/nonexistent/nserver".parse().unwrap();
    let error = Hardserver::connect(&address, Options::default()).await.unwrap_err();
    assert!(error.to_string().contains("unix:/nonexistent/nserver"), "{error}");
}
