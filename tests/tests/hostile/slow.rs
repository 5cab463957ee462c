//! Senders that begin and do not go on.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use seeway_bench::wire::WireCaller;
use seeway_proto::wire::ReplyBody;
use seeway_tests::authority::Authority;
use seeway_tests::hostile::http2::{self, Http2, flag, frame, kind};
use seeway_tests::hostile::{Assault, Pace, Scene, Tally};
use seeway_tests::{turn::Turn, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Slow senders at once.
const SENDERS: u32 = 100;

/// [`SENDERS`] connections, each of which gets a byte of `bytes` twenty times a second, over and over: faster than a header byte every ten
/// seconds, as `limits.message_timeout` is shorter in a test. Connections that are closed are made again.
async fn trickle(address: String, bytes: Arc<[u8]>, tally: Tally) {
    let mut senders = tokio::task::JoinSet::new();
    for index in 0..SENDERS {
        let (address, bytes, tally) = (address.clone(), bytes.clone(), tally.clone());
        senders.spawn(async move {
            let mut pace = Pace::out_of_step(20, index, SENDERS);
            loop {
                let Ok(mut stream) = TcpStream::connect(&address).await else { continue };
                for byte in bytes.iter() {
                    pace.due().await;
                    if stream.write_all(&[*byte]).await.is_err() {
                        break;
                    }
                    tally.add(1);
                }
                // What has said all that it wanted to keeps its connection until it is closed.
                let _ = stream.read(&mut [0]).await;
            }
        });
    }
    pending::<()>().await;
}

/// How long the gateway keeps a connection on which these bytes came, one in every `between`; panics where it does not close it.
async fn kept_for(address: String, bytes: Vec<u8>, between: Duration) -> Duration {
    // The gateway counts from when it accepts, which may be before this caller hears of it.
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).await.expect("accepted");
    let closed = async {
        for byte in bytes {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            let mut said = [0; 256];
            // What it says is of no interest, only that it ends.
            if let Ok(Ok(0) | Err(_)) = tokio::time::timeout(between, stream.read(&mut said)).await {
                return;
            }
        }
        while stream.read(&mut [0; 256]).await.is_ok_and(|count| count > 0) {}
    };
    tokio::time::timeout(wait::BOUND, closed).await.expect("the gateway closes it");
    begun.elapsed()
}

/// [`kept_for`] for connections side by side, of which each has to be closed after a second.
async fn closed_after_a_second(address: &str, all: &[&[u8]]) {
    let mut closed = tokio::task::JoinSet::new();
    for bytes in all {
        closed.spawn(kept_for(address.to_owned(), bytes.to_vec(), Duration::from_millis(50)));
    }
    for kept in closed.join_all().await {
        assert!(kept >= Duration::from_millis(990) && kept < Duration::from_millis(2500), "kept for {kept:?}");
    }
}

/// A legacy message of 64 bytes, as far as its 60th.
fn unfinished_command() -> Vec<u8> {
    let mut command = 64_u32.to_le_bytes().to_vec();
    command.resize(60, 0);
    command
}

fn assault(name: &'static str) -> Assault {
    Assault { name, rate: "100 connections, 20 bytes/s each", memory: 16 * 1024, files: 200, cpu: 60 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_legacy_header_byte_by_byte() {
    let _turn = Turn::alone();
    let scene = Scene::new(|config, _| config.line("limits", "message_timeout = \"1s\""));
    // Not one, however slow: it has said nothing, and may do so for as long as it likes.
    let mut idle = WireCaller::connect(&scene.gateway.tcp4(), 1).await.expect("accepted");
    let begun = Instant::now();
    let too_long = [&16_000_000_u32.to_le_bytes()[..], &[0; 60]].concat();
    closed_after_a_second(&scene.legacy(), &[&unfinished_command(), &[1], &too_long]).await;
    assert!((scene.metric("seeway_callers_late_total", "hardserver") - 3.0).abs() < 0.5);
    assert!(begun.elapsed() > Duration::from_millis(990), "as long as a message may take");
    let world = idle.open_world("w", 0).await.expect("an idle caller keeps its connection");
    idle.stage(world, b"job", 1).expect("room");
    idle.exchange(|_, reply| assert!(matches!(reply, ReplyBody::Job(_)))).await.expect("answered");
    drop(idle);
    let (address, bytes) = (scene.legacy(), Arc::from(unfinished_command()));
    scene
        .under(&assault("legacy header byte by byte"), |tally| trickle(address.clone(), Arc::clone(&bytes), tally))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http2_preface_byte_by_byte() {
    let _turn = Turn::alone();
    let scene = Scene::new(|config, _| config.line("limits", "message_timeout = \"1s\""));
    let preface = http2::PREFACE;
    // Slowly, with the beginning of a frame, and nothing at all: whoever speaks HTTP/2 speaks first.
    closed_after_a_second(&scene.grpc(), &[preface, &preface[..1], &[preface, &[0; 8]].concat(), &[]]).await;
    assert!((scene.metric("seeway_callers_late_total", "grpc") - 4.0).abs() < 0.5);
    // Within a frame nobody can answer a PING: the connection is closed after one and the time for its answer.
    let mut within = Vec::new();
    for is_whole in [true, false] {
        let mut caller = Http2::open(&scene.grpc(), &[]).await.expect("accepted");
        let mut bytes = Vec::new();
        frame(&mut bytes, kind::HEADERS, 0, 1, &http2::call(http2::SUBMIT));
        caller.send(&bytes[..if is_whole { bytes.len() } else { 20 }]).await.expect("open");
        within.push(caller);
    }
    let begun = Instant::now();
    wait::until_async("they are closed", wait::BOUND, || {
        std::future::ready(within.iter().all(|caller| caller.heard().is_closed()).then_some(()))
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(4), "kept for {:?}", begun.elapsed());
    let (address, bytes) = (scene.grpc(), Arc::from(preface));
    scene
        .under(&assault("HTTP/2 preface byte by byte"), |tally| trickle(address.clone(), Arc::clone(&bytes), tally))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_message_byte_by_byte() {
    let _turn = Turn::alone();
    let scene = Scene::new(|config, _| config.line("limits", "message_timeout = \"1s\""));
    let mut caller = Http2::open(&scene.grpc(), &[]).await.expect("accepted");
    let message = http2::submit_message("w", &[7; 100]);
    let mut begin = Vec::new();
    // Three calls: one in the midst of its message, one that has not begun it, and a stream that need not begin one.
    for (stream, path) in [(1, http2::SUBMIT), (3, http2::SUBMIT), (5, http2::STREAM), (7, http2::STREAM)] {
        frame(&mut begin, kind::HEADERS, flag::END_HEADERS, stream, &http2::call(path));
    }
    let begun = Instant::now();
    caller.send(&begin).await.expect("open");
    let mut sent = message.iter();
    let heard = caller.heard().clone();
    while heard.ended() + heard.resets().0 < 3 {
        assert!(begun.elapsed() < Duration::from_millis(3500), "{} ended", heard.ended());
        let mut bytes = Vec::new();
        let byte = [*sent.next().expect("the message is long enough")];
        frame(&mut bytes, kind::DATA, 0, 1, &byte);
        frame(&mut bytes, kind::DATA, 0, 7, &byte);
        caller.send(&bytes).await.expect("open");
        caller.answer().await.expect("open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(990));
    // The idle stream, 5, and the connection are still there.
    let mut job = Vec::new();
    frame(&mut job, kind::DATA, flag::END_STREAM, 5, &http2::stream_message(9, "w", b"job"));
    let before = heard.data();
    caller.send(&job).await.expect("open");
    wait::until_async("the job is answered", wait::BOUND, || std::future::ready((heard.data() > before).then_some(())))
        .await;
    assert!((scene.metric("seeway_callers_late_total", "grpc") - 3.0).abs() < 0.5);
    drop(caller);

    let address = scene.grpc();
    let assault =
        Assault { rate: "50 connections × 20 calls, 50 bytes/s each", ..assault("gRPC messages byte by byte") };
    scene
        .under(&assault, |tally| {
            let (address, message) = (address.clone(), message.clone());
            async move {
                let mut senders = tokio::task::JoinSet::new();
                for index in 0..CALLERS {
                    let (address, message, tally) = (address.clone(), message.clone(), tally.clone());
                    senders.spawn(async move { trickle_calls(&address, &message, index, &tally).await });
                }
                pending::<()>().await;
            }
        })
        .await;
}

/// Callers that send slowly at once, with twenty calls each.
const CALLERS: u32 = 50;

/// Twenty calls on a connection, of which each is sent a byte at a time.
async fn trickle_calls(address: &str, message: &[u8], index: u32, tally: &Tally) {
    let streams = (0..20).map(|stream| 2 * stream + 1);
    let mut caller = Http2::open(address, &[]).await.expect("accepted");
    let mut begin = Vec::new();
    for stream in streams.clone() {
        frame(&mut begin, kind::HEADERS, flag::END_HEADERS, stream, &http2::call(http2::SUBMIT));
    }
    caller.send(&begin).await.expect("open");
    let mut pace = Pace::out_of_step(10, index, CALLERS);
    for byte in message.iter().cycle() {
        pace.due().await;
        let mut bytes = Vec::new();
        for stream in streams.clone() {
            frame(&mut bytes, kind::DATA, 0, stream, &[*byte]);
            tally.add(1);
        }
        if caller.send(&bytes).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_hello_byte_by_byte() {
    let _turn = Turn::alone();
    let authority = Authority::new("callers");
    let tls = format!("{}\nhandshake_timeout = \"1s\"", authority.tls(&authority.server()));
    // gRPC would be TLS, too, and the caller that behaves there speaks none.
    let scene =
        Scene::new(|config, _| config.line("management_tls", &tls).line("listen", "management = \"tls:127.0.0.1:0\""));
    let address = scene.gateway.management().trim_start_matches("tls:").to_owned();
    // A record of a ClientHello, and no more than its beginning.
    let hello = [0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7];
    closed_after_a_second(&address, &[&hello, &hello[..1], &[]]).await;
    let late = scene.metric("seeway_tls_handshakes_total", "listener=\"management\",result=\"late\"");
    assert!((late - 3.0).abs() < 0.5, "{late}");
    let bytes = Arc::from(hello);
    scene.under(&assault("TLS hello byte by byte"), |tally| trickle(address.clone(), Arc::clone(&bytes), tally)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_request_byte_by_byte() {
    let _turn = Turn::alone();
    let scene = Scene::new(|config, _| config);
    let address = scene.gateway.admin().to_string();
    let request =
        b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Padding: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let kept = kept_for(address.clone(), request.to_vec(), Duration::from_millis(100)).await;
    assert!(kept > Duration::from_millis(4500) && kept < Duration::from_secs(8), "kept for {kept:?}");
    let bytes = Arc::from(&request[..]);
    scene
        .under(&assault("admin request byte by byte"), |tally| trickle(address.clone(), Arc::clone(&bytes), tally))
        .await;
    // Those that ask nothing make room for one that does.
    wait::until("the admin port answers again", wait::BOUND, || (scene.gateway.get("/healthz").0 == 200).then_some(()));
}
