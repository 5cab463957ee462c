//! The tunnel, against a small SSH server. (Against OpenSSH and dropbear: the workspace's `tests`.)

#![allow(clippy::unwrap_used)] // In a test it is an assertion.

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use russh::Limits;
use russh::keys::Algorithm;
use seeway_client::tunnel::{
    Algorithms, ChannelRefusal, ErrorKind, HostKey, Identity, Options, ReadHalf, Tunnel, TunnelError,
};
use support::proxy::Proxy;
use support::ssh_server::{
    CLOSING, ECHO, LATE, NOBODY, PROHIBITED, STUCK, SshServer, fingerprint, new_key, write_identity,
};
use support::{until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Handle;

const HOST: &str = "127.0.0.1";

async fn connect(options: &Options) -> Tunnel {
    within("connecting", Tunnel::connect(options)).await.unwrap()
}

async fn refusal(options: &Options) -> TunnelError {
    within("being refused", Tunnel::connect(options)).await.expect_err("it must not get in")
}

/// Bytes that show when they come in another order.
fn pattern(length: usize) -> Bytes {
    (0..length.div_ceil(8)).flat_map(usize::to_le_bytes).take(length).collect::<Vec<u8>>().into()
}

async fn read_exactly(read: &mut ReadHalf, length: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(length);
    while all.len() < length {
        all.extend_from_slice(&within("data", read.read()).await.expect("the stream goes on"));
    }
    all
}

/// Waits until the runtime runs nothing but the test itself.
async fn until_no_task_is_left() {
    until("the end of all tasks", || Handle::current().metrics().num_alive_tasks() == 0).await;
}

#[tokio::test]
async fn a_channel_carries_bytes_both_ways_in_order() {
    let server = SshServer::start();
    let tunnel = connect(&server.options()).await;
    assert!(tunnel.server_version().starts_with("SSH-2.0-"), "{}", tunnel.server_version());
    let (mut read, mut write) = tunnel.open(HOST, ECHO).await.unwrap().split();
    let sent = pattern(10 * 1024 * 1024);
    let writing = {
        let sent = sent.clone();
        tokio::spawn(async move {
            write.write(Bytes::from_static(b"")).await.unwrap();
            write.write(sent).await.unwrap();
            write.eof().await.unwrap();
            write
        })
    };
    assert!(read_exactly(&mut read, sent.len()).await == sent, "the bytes came back in another order");
    assert_eq!(within("the end", read.read()).await, None);
    drop(within("the writer", writing).await.unwrap());
    assert!(!tunnel.is_closed());
}

#[tokio::test]
async fn a_channel_is_a_stream_too() {
    let server = SshServer::start();
    let tunnel = connect(&server.options()).await;
    let (mut read, mut write) = tokio::io::split(tunnel.open(HOST, ECHO).await.unwrap().into_stream());
    let sent = pattern(3 * 1024 * 1024 + 1);
    let writing = {
        let sent = sent.clone();
        tokio::spawn(async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
            write
        })
    };
    let mut back = Vec::new();
    within("the echo", read.read_to_end(&mut back)).await.unwrap();
    assert!(back == sent, "the bytes came back in another order");
    within("the writer", writing).await.unwrap();
}

#[tokio::test]
async fn keys_are_exchanged_anew_under_load() {
    let limits = Limits::new(1 << 20, 1 << 20, Duration::from_secs(3600));
    let server = SshServer::start_with(vec![new_key(Algorithm::Ed25519)], limits);
    let tunnel = connect(&server.options()).await;
    let (mut read, mut write) = tunnel.open(HOST, ECHO).await.unwrap().split();
    let sent = pattern(16 * 1024 * 1024);
    let writing = {
        let sent = sent.clone();
        tokio::spawn(async move {
            let mut rest = sent;
            while !rest.is_empty() {
                write.write(rest.split_to(rest.len().min(100_000))).await.unwrap();
            }
            write
        })
    };
    assert!(read_exactly(&mut read, sent.len()).await == sent, "the bytes came back in another order");
    within("the writer", writing).await.unwrap();
}

/// One write of many packets, over which keys change many times; and its end does not overtake it.
#[tokio::test]
async fn a_write_across_key_exchanges_arrives_whole_and_ends_after_its_last_byte() {
    let server = SshServer::start();
    let options = Options { rekey_bytes: 1 << 16, ..server.options() };
    let tunnel = connect(&options).await;
    for _ in 0..4 {
        let (mut read, mut write) = tunnel.open(HOST, ECHO).await.unwrap().split();
        let sent = pattern(3 * 1024 * 1024 + 1);
        let rest = sent.clone();
        let writing = tokio::spawn(async move {
            write.write(rest).await.unwrap();
            write.eof().await.unwrap();
            write
        });
        assert!(read_exactly(&mut read, sent.len()).await == sent, "the bytes came back in another order");
        assert_eq!(within("the end", read.read()).await, None);
        within("the writer", writing).await.unwrap();
    }
    assert!(tunnel.rekeys() >= 4, "only {} key exchanges", tunnel.rekeys());
    assert!(!tunnel.is_closed());
}

#[tokio::test]
async fn keys_are_exchanged_anew_after_a_time() {
    let server = SshServer::start();
    let tunnel = connect(&Options { rekey_after: Duration::from_millis(5), ..server.options() }).await;
    until("keys are exchanged without any traffic", || tunnel.rekeys() >= 3).await;
    assert!(!tunnel.is_closed());
}

#[tokio::test]
async fn two_sides_that_write_before_they_read_do_not_block_each_other() {
    let server = SshServer::start();
    let tunnel = connect(&server.options()).await;
    let sent = pattern(8 * 1024 * 1024);
    let mut channels = Vec::new();
    for _ in 0..8 {
        let (mut read, mut write) = tunnel.open(HOST, ECHO).await.unwrap().split();
        let sent = sent.clone();
        channels.push(tokio::spawn(async move {
            tokio::join!(async { write.write(sent.clone()).await.unwrap() }, async {
                assert!(read_exactly(&mut read, sent.len()).await == sent, "the bytes came back in another order");
            });
        }));
    }
    for channel in channels {
        within("a channel", channel).await.unwrap();
    }
}

#[tokio::test]
async fn another_host_key_is_refused_and_both_are_named() {
    let server = SshServer::start();
    let pinned = new_key(Algorithm::Ed25519);
    let host_key = HostKey::from_line(&pinned.public_key().to_openssh().unwrap()).unwrap();
    let error = refusal(&Options { host_key, ..server.options() }).await;
    assert!(matches!(error, TunnelError::HostKeyMismatch { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Permanent);
    let text = error.to_string();
    assert!(text.contains(&fingerprint(pinned.public_key())), "{text}");
    assert!(text.contains(&fingerprint(server.host_keys[0].public_key())), "{text}");
    assert!(text.contains(&server.address.to_string()), "{text}");
    until_no_task_is_left().await;
}

#[tokio::test]
async fn a_server_with_several_host_keys_shows_the_pinned_one() {
    let keys = vec![new_key(Algorithm::Ed25519), new_key(Algorithm::Rsa { hash: None })];
    let server = SshServer::start_with(keys, Limits::default());
    for index in 0..server.host_keys.len() {
        connect(&Options { host_key: server.host_key(index), ..server.options() }).await;
    }
    // And a server that has no key of the pinned type shows what it has.
    let pinned = new_key(Algorithm::Ecdsa { curve: russh::keys::EcdsaCurve::NistP256 });
    let host_key = HostKey::from_line(&pinned.public_key().to_openssh().unwrap()).unwrap();
    let error = refusal(&Options { host_key, ..server.options() }).await;
    assert!(matches!(error, TunnelError::HostKeyMismatch { .. }), "{error}");
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum_where_the_server_knows_it_and_strict() {
    let server = SshServer::start();
    let tunnel = connect(&server.options()).await;
    let agreed = tunnel.negotiated().expect("it was agreed on").clone();
    assert_eq!(agreed.key_exchange, "mlkem768x25519-sha256");
    assert_eq!(agreed.host_key, "ssh-ed25519");
    assert!(agreed.cipher.contains("gcm") || agreed.cipher.contains("chacha20"), "{agreed:?}");
    assert!(agreed.is_strict);

    // This server has no key exchange that is approved.
    let error = refusal(&Options { algorithms: Algorithms::Fips, ..server.options() }).await;
    assert!(matches!(error, TunnelError::NoCommonAlgorithm { policy: "fips", kind: "key exchange", .. }), "{error}");
    assert!(error.is_permanent());
    let text = error.to_string();
    assert!(text.contains("it has mlkem768x25519-sha256") && text.contains("allowed are ecdh-sha2-nistp256"), "{text}");
    drop(tunnel);
    until_no_task_is_left().await;
}

#[tokio::test]
async fn a_known_hosts_file_names_the_server() {
    let server = SshServer::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    let key = server.host_keys[0].public_key().to_openssh().unwrap();
    std::fs::write(file.path(), format!("[127.0.0.1]:{} {key}\n", server.address.port())).unwrap();
    let options = server.options();
    let host_key = HostKey::from_known_hosts(file.path(), &options.server).unwrap();
    connect(&Options { host_key, ..options }).await;
}

#[tokio::test]
async fn a_refused_login_names_user_key_and_methods() {
    let server = SshServer::start();
    let dir = tempfile::tempdir().unwrap();
    let stranger = new_key(Algorithm::Ed25519);
    let identity = Identity::load(write_identity(dir.path().join("stranger"), &stranger)).unwrap();
    let wrong_key = refusal(&Options { identity, ..server.options() }).await;
    let wrong_user = refusal(&Options { user: "root".into(), ..server.options() }).await;
    for (error, user, key) in [
        (wrong_key, "codesafe", fingerprint(stranger.public_key())),
        (wrong_user, "root", server.identity().fingerprint()),
    ] {
        assert!(matches!(error, TunnelError::LoginRefused { .. }), "{error}");
        assert!(error.is_permanent());
        let text = error.to_string();
        assert!(text.contains(user) && text.contains(&key) && text.contains("publickey"), "{text}");
    }
    until_no_task_is_left().await;
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_told_from_one_that_is_prohibited() {
    let server = SshServer::start();
    let tunnel = connect(&server.options()).await;
    for (port, expected, kind) in [
        (NOBODY, ChannelRefusal::ConnectFailed, ErrorKind::Transient),
        (PROHIBITED, ChannelRefusal::Prohibited, ErrorKind::Permanent),
    ] {
        let error = within("the refusal", tunnel.open(HOST, port)).await.unwrap_err();
        assert!(matches!(&error, TunnelError::ChannelRefused { reason, .. } if *reason == expected), "{error}");
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(&format!("127.0.0.1 port {port}")), "{error}");
    }
    assert!(!tunnel.is_closed());
    assert_eq!(tunnel.channels(), 0);
}

#[tokio::test]
async fn what_is_no_ssh_server_is_told_from_one_that_hangs_up() {
    let server = SshServer::start();
    for greeting in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b""] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = server.options_through(listener.local_addr().unwrap());
        let (error, ()) = tokio::join!(refusal(&options), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The client's greeting is read, so that closing does not reset the connection.
            let mut byte = [0];
            while byte != *b"\n" {
                stream.read_exact(&mut byte).await.unwrap();
            }
            stream.write_all(greeting).await.unwrap();
        });
        match error {
            TunnelError::NotSsh { greeting, .. } => assert_eq!(greeting, "HTTP/1.1 400 Bad Request"),
            TunnelError::Handshake { why, .. } => {
                assert!(greeting.is_empty() && why.contains("before it said anything"), "{why}");
            }
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_in_time() {
    let server = SshServer::start();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Options {
        connect_timeout: Duration::from_millis(100),
        ..server.options_through(listener.local_addr().unwrap())
    };
    let error = refusal(&options).await;
    assert!(matches!(error, TunnelError::TimedOut { what: "the SSH handshake", .. }), "{error}");
    assert!(!error.is_permanent());
    until_no_task_is_left().await;
}

#[tokio::test]
async fn a_closed_port_and_a_name_without_address_say_so() {
    let server = SshServer::start();
    let closed = std::net::TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap();
    let error = refusal(&server.options_through(closed)).await;
    assert!(matches!(&error, TunnelError::Connect { attempts, .. } if attempts.len() == 1), "{error}");
    assert!(error.to_string().contains(&format!("{closed}: refused")), "{error}");

    let options = Options { server: "no-such-host.invalid:22".parse().unwrap(), ..server.options() };
    let error = refusal(&options).await;
    // Where there is no name service at all it may also not answer in time.
    assert!(matches!(&error, TunnelError::Resolve { .. } | TunnelError::TimedOut { .. }), "{error}");
    assert!(error.to_string().contains("no-such-host.invalid:22"), "{error}");
}

#[tokio::test]
async fn a_write_ends_when_the_tunnel_is_lost() {
    let server = SshServer::start();
    let proxy = Proxy::to(server.address);
    let tunnel = connect(&server.options_through(proxy.address)).await;
    let (mut read, mut write) = tunnel.open(HOST, STUCK).await.unwrap().split();
    let writing = tokio::spawn(async move {
        let first = write.write(pattern(10 * 1024 * 1024)).await;
        (first, write.write(pattern(1)).await)
    });
    // It can not end: the window is smaller than that.
    assert!(tokio::time::timeout(Duration::from_millis(100), tunnel.closed()).await.is_err());
    assert!(!writing.is_finished());
    proxy.cut();
    let (first, second) = within("the end of the write", writing).await.unwrap();
    let lost = first.unwrap_err();
    assert_eq!(lost.server(), proxy.address.to_string());
    assert_eq!(lost, second.unwrap_err());
    assert_eq!(within("the end of the stream", read.read()).await, None);
    assert_eq!(read.lost(), Some(lost.clone()));
    assert_eq!(within("the loss", tunnel.closed()).await, lost);
    let error = within("the refusal", tunnel.open(HOST, ECHO)).await.unwrap_err();
    assert!(matches!(error, TunnelError::Lost(_)), "{error}");
    until_no_task_is_left().await;
}

#[tokio::test]
async fn dropping_the_tunnel_ends_its_channels_and_tasks() {
    let server = SshServer::start();
    let tunnel = connect(&server.options()).await;
    let (mut read, mut write) = tunnel.open(HOST, STUCK).await.unwrap().split();
    let writing = tokio::spawn(async move { write.write(pattern(10 * 1024 * 1024)).await });
    tokio::task::yield_now().await;
    drop(tunnel);
    within("the end of the write", writing).await.unwrap().unwrap_err();
    assert_eq!(within("the end of the stream", read.read()).await, None);
    until_no_task_is_left().await;
    until("the server's end", || server.watched.open_channels.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn closing_the_tunnel_says_goodbye() {
    let server = SshServer::start();
    let tunnel = connect(&server.options()).await;
    let (mut read, _write) = tunnel.open(HOST, ECHO).await.unwrap().split();
    within("the goodbye", tunnel.close()).await;
    assert_eq!(tunnel.lost().unwrap().why(), "it was closed from here");
    assert_eq!(within("the end of the stream", read.read()).await, None);
    until_no_task_is_left().await;
}

fn impatient(options: Options) -> Options {
    Options {
        keepalive_idle: Duration::from_millis(200),
        keepalive: Duration::from_millis(100),
        broken_after: Duration::from_secs(1),
        ..options
    }
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed() {
    let server = SshServer::start();
    let proxy = Proxy::to(server.address);
    let tunnel = connect(&impatient(server.options_through(proxy.address))).await;
    let round_trips = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = round_trips.clone();
    tunnel.on_keepalive(move |took| told.lock().unwrap().push(took));
    // Keepalives keep it, for longer than silence may last.
    assert!(tokio::time::timeout(Duration::from_millis(2500), tunnel.closed()).await.is_err());
    let before = round_trips.lock().unwrap().clone();
    assert!(before.len() >= 3, "a keepalive each 200 ms at most: {before:?}");
    assert!(before.iter().all(|took| !took.is_zero() && *took < Duration::from_secs(1)), "{before:?}");
    proxy.fall_silent();
    let lost = within("the loss", tunnel.closed()).await;
    assert_eq!(lost.why(), "nothing heard for 1s");
    // One may have been answered just before.
    let after = round_trips.lock().unwrap().clone();
    assert!(after.len() <= before.len() + 1, "what stays unanswered is no round trip: {after:?}");
    until_no_task_is_left().await;
}

#[tokio::test]
async fn a_peer_that_falls_silent_in_the_middle_of_a_write_is_noticed() {
    let server = SshServer::start();
    let proxy = Proxy::to(server.address);
    let tunnel = connect(&impatient(server.options_through(proxy.address))).await;
    let mut writing = Vec::new();
    for _ in 0..8 {
        let (mut read, mut write) = tunnel.open(HOST, ECHO).await.unwrap().split();
        tokio::spawn(async move { while read.read().await.is_some() {} });
        // More than the socket buffers of both sides hold.
        writing.push(tokio::spawn(async move { write.write(pattern(64 * 1024 * 1024)).await }));
    }
    proxy.fall_silent();
    assert_eq!(within("the loss", tunnel.closed()).await.why(), "nothing heard for 1s");
    for writing in writing {
        within("the end of a write", writing).await.unwrap().unwrap_err();
    }
    until_no_task_is_left().await;
}

#[tokio::test]
async fn a_reader_that_waits_is_not_taken_for_a_dead_peer() {
    let server = SshServer::start();
    let tunnel = connect(&impatient(server.options())).await;
    let (mut read, mut write) = tunnel.open(HOST, ECHO).await.unwrap().split();
    let sent = pattern(32 * 1024 * 1024);
    let writing = {
        let sent = sent.clone();
        tokio::spawn(async move {
            write.write(sent).await.unwrap();
            write
        })
    };
    // For longer than silence may last, with the reader's limit reached.
    assert!(tokio::time::timeout(Duration::from_millis(2500), tunnel.closed()).await.is_err());
    assert!(read_exactly(&mut read, sent.len()).await == sent, "the bytes came back in another order");
    within("the writer", writing).await.unwrap();
}

#[tokio::test]
async fn a_thousand_channels_leave_nothing() {
    let server = SshServer::start();
    let tunnel = connect(&server.options()).await;
    for round in 0..1000_u32 {
        let (mut read, mut write) = within("opening", tunnel.open(HOST, ECHO)).await.unwrap().split();
        write.write(round.to_le_bytes().to_vec().into()).await.unwrap();
        assert_eq!(read_exactly(&mut read, 4).await, round.to_le_bytes());
    }
    assert_eq!(server.watched.channels_ever.load(Ordering::SeqCst), 1000);
    until("the server's end of the channels", || server.watched.open_channels.load(Ordering::SeqCst) == 0).await;
    until("this end of the channels", || tunnel.channels() == 0).await;
    assert!(!tunnel.is_closed());
    drop(tunnel);
    until_no_task_is_left().await;
}

#[tokio::test]
async fn a_channel_that_the_server_does_not_close_is_closed_on_it() {
    let server = SshServer::start();
    let tunnel = connect(&server.options()).await;
    drop(tunnel.open(HOST, STUCK).await.unwrap());
    until("the server's end of the channel", || server.watched.open_channels.load(Ordering::SeqCst) == 0).await;
    assert_eq!(tunnel.channels(), 0);
}

#[tokio::test]
async fn a_channel_that_the_server_closes_is_lost_and_the_tunnel_is_not() {
    let server = SshServer::start();
    let tunnel = connect(&server.options()).await;
    let (mut read, mut write) = tunnel.open(HOST, CLOSING).await.unwrap().split();
    assert_eq!(within("the end of the stream", read.read()).await, None);
    let lost = within("the loss", write.closed()).await;
    assert_eq!(lost.to_string(), format!("the channel to {} is lost: the other side closed it", server.address));
    // More than its window: the write must not wait for one that never opens.
    assert_eq!(within("the write", write.write(pattern(10 * 1024 * 1024))).await, Err(lost));
    assert!(!tunnel.is_closed());
    assert_eq!(tunnel.channels(), 0);
}

#[tokio::test]
async fn an_open_that_is_cancelled_leaves_no_channel() {
    let server = SshServer::start();
    let tunnel = connect(&server.options()).await;
    assert!(tokio::time::timeout(Duration::from_millis(50), tunnel.open(HOST, LATE)).await.is_err());
    until("the server's view", || server.watched.open_channels.load(Ordering::SeqCst) == 1).await;
    server.watched.late_opens.0.add_permits(1);
    until("the server's end of the channel", || server.watched.open_channels.load(Ordering::SeqCst) == 0).await;
    until("this end of the channel", || tunnel.channels() == 0).await;
}

#[tokio::test]
async fn a_write_that_was_cancelled_half_way_is_the_last() {
    let server = SshServer::start();
    let tunnel = connect(&server.options()).await;
    let (_read, mut write) = tunnel.open(HOST, STUCK).await.unwrap().split();
    let half_way = tokio::time::timeout(Duration::from_millis(50), write.write(pattern(10 * 1024 * 1024))).await;
    assert!(half_way.is_err());
    let lost = write.write(pattern(1)).await.unwrap_err();
    assert!(lost.why().contains("cancelled"), "{lost}");
}
