//! Many connections, and many messages that carry nothing.

use std::future::pending;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use seeway_bench::wire::WireCaller;
use seeway_proto::wire::ReplyBody;
use seeway_tests::authority::Authority;
use seeway_tests::hostile::{Assault, Pace, Scene, Tally};
use seeway_tests::{Config, turn::Turn, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// Connects so often in a second and keeps what it is given.
async fn connect_and_keep(address: String, per_second: u32, tally: Tally) {
    connect_ask_and_keep(address, b"", per_second, tally).await;
}

/// Connects so often in a second from another address than this computer's usual one, says this, and reads nothing.
async fn connect_ask_and_keep(address: String, question: &'static [u8], per_second: u32, tally: Tally) {
    let address: SocketAddr = address.parse().expect("an address");
    let connect = || async move {
        let socket = TcpSocket::new_v4()?;
        if !question.is_empty() {
            // As little as the system gives, so that the answer does not fit.
            socket.set_recv_buffer_size(1)?;
            socket.bind(([127, 0, 0, 2], 0).into())?;
        }
        let mut stream = socket.connect(address).await?;
        stream.write_all(question).await?;
        std::io::Result::Ok(stream)
    };
    let mut pace = Pace::per_second(per_second);
    let mut kept = std::collections::VecDeque::new();
    loop {
        for _ in 0..pace.due().await {
            if let Ok(stream) = connect().await {
                tally.add(1);
                kept.push_back(stream);
            }
            // Those that were refused are of no use; this process has a limit, too.
            if kept.len() > 400 {
                kept.pop_front();
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_up_to_the_limit_and_past_it() {
    let _turn = Turn::alone();
    let scene = Scene::new(|config, _| config.line("limits", "callers = 200\npeer_callers = 150"));
    let assault = Assault {
        name: "flood of legacy connections from one address, past limits.peer_callers",
        rate: "1 000 connections/s",
        memory: 16 * 1024,
        files: 152 + 20,
        cpu: 60,
    };
    let address = scene.legacy();
    scene.under(&assault, |tally| connect_and_keep(address.clone(), 1000, tally)).await;

    // While one address has all the places that it may have, another caller comes in.
    let refused = || scene.metric("seeway_callers_refused_total", "");
    let before = refused();
    let flood = tokio::spawn(connect_and_keep(scene.legacy(), 1000, Tally::default()));
    // Of all that came more than a hundred: how many come while it is measured is the machine's to say.
    let wanted = (before + 50.0).max(100.0);
    wait::until_async("the flood is at its limit", wait::BOUND, || {
        std::future::ready((refused() > wanted).then_some(()))
    })
    .await;
    let mut other = WireCaller::connect(&scene.gateway.unix(), 1).await.expect("accepted");
    let world = other.open_world("w", 0).await.expect("let in");
    other.stage(world, b"job", 1).expect("room");
    other.exchange(|_, reply| assert!(matches!(reply, ReplyBody::Job(_)))).await.expect("answered");
    let callers = scene.metric("seeway_callers", "hardserver");
    assert!(callers <= 151.5, "{callers} callers, of which one address may have 150");
    flood.abort();
    drop(other);
    scene.until_at_rest();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_tls_at_the_limit_and_one_past_it() {
    let _turn = Turn::alone();
    let authority = Authority::new("callers");
    let tls = format!(
        "{}\nhandshake_timeout = \"5s\"\nhandshakes = 32\npeer_handshakes = 31",
        authority.tls(&authority.server())
    );
    let scene =
        Scene::new(|config, _| config.line("management_tls", &tls).line("listen", "management = \"tls:127.0.0.1:0\""));
    let address = scene.gateway.management().trim_start_matches("tls:").to_owned();
    let refused = || scene.metric("seeway_tls_handshakes_total", "listener=\"management\",result=\"refused\"");
    let mut held = Vec::new();
    for _ in 0..31 {
        held.push(TcpStream::connect(&address).await.expect("accepted"));
    }
    let is_closed = async |stream: &mut TcpStream| {
        let end = tokio::time::timeout(Duration::from_secs(3), stream.read(&mut [0])).await.expect("closed at once");
        assert!(matches!(end, Ok(0) | Err(_)));
    };
    is_closed(&mut TcpStream::connect(&address).await.expect("the system accepts it")).await;
    assert!((refused() - 1.0).abs() < 0.5, "one past an address's share, and only that");
    // Another address gets in, until there is no place for anybody.
    let from_elsewhere = async || {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.2:0".parse().expect("an address")).expect("free");
        socket.connect(address.parse().expect("an address")).await.expect("accepted")
    };
    let mut other = from_elsewhere().await;
    let silence = tokio::time::timeout(Duration::from_millis(300), other.read(&mut [0])).await;
    assert!(silence.is_err(), "it is waited for: {silence:?}");
    is_closed(&mut from_elsewhere().await).await;
    assert!((refused() - 2.0).abs() < 0.5, "one past the limit");
    drop(other);
    drop(held);
    let assault = Assault {
        name: "half-open TLS past tls.handshakes",
        rate: "1 000 connections/s",
        memory: 16 * 1024,
        files: 64 + 20,
        cpu: 60,
    };
    scene.under(&assault, |tally| connect_and_keep(address.clone(), 1000, tally)).await;
    // How many come while it is measured is the machine's to say.
    let flood = tokio::spawn(connect_and_keep(address, 1000, Tally::default()));
    wait::until_async("more than a hundred were refused", wait::BOUND, || {
        std::future::ready((refused() > 100.0).then_some(()))
    })
    .await;
    flood.abort();
}

/// A command of the legacy wire.
fn command(tag: u32, command: u32, rest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + rest.len()).expect("small");
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(&tag.to_le_bytes());
    bytes.extend_from_slice(&command.to_le_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_of_no_bytes_on_the_legacy_wire() {
    let _turn = Turn::alone();
    let scene = Scene::new(|config, _| config);
    let assault = Assault {
        name: "legacy jobs of no bytes",
        rate: "4 callers, 4 000 jobs/s together",
        memory: 16 * 1024,
        files: 30,
        cpu: 90,
    };
    let target = scene.gateway.tcp4();
    scene
        .under(&assault, |tally| {
            let target = target.clone();
            async move {
                let mut senders = tokio::task::JoinSet::new();
                for _ in 0..4 {
                    let (target, tally) = (target.clone(), tally.clone());
                    senders.spawn(async move {
                        let mut caller = WireCaller::connect(&target, 4096).await.expect("accepted");
                        let world = caller.open_world("w", 0).await.expect("there");
                        let mut pace = Pace::per_second(1000);
                        loop {
                            for _ in 0..pace.due().await {
                                if caller.stage(world, b"", 0).is_ok() {
                                    tally.add(1);
                                }
                            }
                            caller.exchange(|_, _| {}).await.expect("answered");
                        }
                    });
                }
                pending::<()>().await;
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_and_lengths_that_are_none_on_the_legacy_wire() {
    let _turn = Turn::alone();
    let scene = Scene::new(|config, _| config);
    let assault = Assault {
        name: "legacy garbage: lengths of 0, of 4 GiB, noise, unknown commands",
        rate: "400 connections/s",
        memory: 16 * 1024,
        files: 100,
        cpu: 60,
    };
    let address = scene.legacy();
    let garbage = [
        0_u32.to_le_bytes().to_vec(),
        u32::MAX.to_le_bytes().to_vec(),
        vec![0xa5; 4096],
        // Answered, and no reason to close.
        command(7, 0x7777_7777, &[0; 8]),
    ];
    scene
        .under(&assault, |tally| {
            let (address, garbage) = (address.clone(), garbage.clone());
            async move {
                let mut pace = Pace::per_second(400);
                let mut next = garbage.iter().cycle();
                loop {
                    for _ in 0..pace.due().await {
                        let Ok(mut stream) = TcpStream::connect(&address).await else { continue };
                        let _ = stream.write_all(next.next().expect("it has no end")).await;
                        let _ = tokio::time::timeout(Duration::from_millis(20), stream.read(&mut [0; 64])).await;
                        tally.add(1);
                    }
                }
            }
        })
        .await;
    let log = scene.gateway.log();
    let lines = log.matches("a legacy connection was closed").count();
    assert!(lines <= 20, "garbage fills the log: {lines} lines");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_port_answers_while_it_is_flooded() {
    let _turn = Turn::alone();
    // With so many worlds the metrics are more than what lies between takes.
    let worlds =
        |config: Config| (0..60).fold(config, |config, world| config.world(&format!("w{world}"), &["good"], ""));
    let scene = Scene::new(|config, _| worlds(config));
    let address = scene.gateway.admin().to_string();
    let files = scene.gateway.open_files();
    for (question, per_second) in [(&b""[..], 500), (b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 200)] {
        let tally = Tally::default();
        let flood = tokio::spawn(connect_ask_and_keep(address.clone(), question, per_second, tally.clone()));
        wait::until_async("there are as many as may be, and more want to be", wait::BOUND, || {
            std::future::ready((tally.count() > 2 * 64 && scene.gateway.open_files() >= files + 60).then_some(()))
        })
        .await;
        let probe = || tokio::task::block_in_place(|| scene.gateway.get("/healthz").0);
        let mut took = Vec::new();
        let mut cut = 0;
        for _ in 0..50 {
            let begun = Instant::now();
            let mut status = probe();
            if status == 0 {
                // A gateway that had no processor for a while takes all that came meanwhile at once, and the probe may
                // be among those that have to make room.
                cut += 1;
                status = probe();
            }
            assert_eq!(status, 200, "a probe gets no answer");
            took.push(begun.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(cut <= 1, "{cut} of 50 probes got no answer at first");
        took.sort_unstable();
        // What slows all down for a moment slows a few of them.
        assert!(took[44] < Duration::from_secs(1), "nine in ten of 50 probes took up to {:?}", took[44]);
        assert!(took[49] < Duration::from_secs(5), "a probe took {:?}", took[49]);
        flood.abort();
    }
    let assault = Assault {
        name: "flood of admin connections that ask nothing",
        rate: "500 connections/s",
        memory: 16 * 1024,
        files: 64 + 20,
        cpu: 60,
    };
    scene.under(&assault, |tally| connect_and_keep(address.clone(), 500, tally)).await;
}
