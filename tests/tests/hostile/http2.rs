//! Abuse of HTTP/2: what is cheap to send and dear to serve.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use seeway_tests::hostile::cost::Cost;
use seeway_tests::hostile::http2::{self, CALM, Http2, REFUSED, SUBMIT, call, flag, frame, kind};
use seeway_tests::hostile::{Assault, Pace, Scene, Tally};
use seeway_tests::{turn::Turn, wait};

/// How connections ended, by GOAWAY's code.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<HashMap<Option<u32>, u64>>>);

impl Ends {
    fn note(&self, code: Option<u32>) {
        *self.0.lock().expect("no panic").entry(code).or_default() += 1;
    }

    fn with(&self, code: u32) -> u64 {
        self.0.lock().expect("no panic").get(&Some(code)).copied().unwrap_or_default()
    }
}

/// Sends what `blow` writes for each that is due, a stream's number at hand, on one connection, and on the next one where the gateway
/// closes it.
async fn hammer(
    address: String,
    per_second: u32,
    settings: &'static [(u16, u32)],
    tally: Tally,
    ends: Ends,
    mut blow: impl FnMut(&mut Vec<u8>, u32),
) {
    let mut pace = Pace::per_second(per_second);
    loop {
        let Ok(mut caller) = Http2::open(&address, settings).await else { continue };
        let mut stream = 1;
        loop {
            let due = pace.due().await;
            let mut bytes = Vec::new();
            for _ in 0..due {
                blow(&mut bytes, stream);
                stream += 2;
            }
            if caller.answer().await.is_err() || caller.send(&bytes).await.is_err() || caller.heard().goaway().is_some()
            {
                break;
            }
            tally.add(due);
        }
        // What it was closed with may come after the write failed.
        tokio::time::sleep(Duration::from_millis(5)).await;
        ends.note(caller.heard().goaway());
    }
}

fn assault(name: &'static str, rate: &'static str) -> Assault {
    Assault { name, rate, memory: 24 * 1024, files: 30, cpu: 90 }
}

/// [`hammer`], measured.
async fn hammered<B: FnMut(&mut Vec<u8>, u32) + Send + 'static>(
    scene: &Scene,
    assault: &Assault,
    per_second: u32,
    blow: impl Fn() -> B,
) -> Ends {
    let (address, ends) = (scene.grpc(), Ends::default());
    scene
        .under(assault, |tally| -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(hammer(address.clone(), per_second, &[], tally, ends.clone(), blow()))
        })
        .await;
    println!("  (connections ended: {:?})", ends.0.lock().expect("no panic"));
    ends
}

async fn closed(caller: &Http2) -> Option<u32> {
    let heard = caller.heard().clone();
    wait::until_async("the gateway closes the connection", wait::BOUND, || {
        std::future::ready((heard.is_closed() || heard.goaway().is_some()).then_some(()))
    })
    .await;
    heard.goaway()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_reset() {
    let _turn = Turn::alone();
    let scene = Scene::new(|config, _| config);
    // Many in one write: a few are enough, and no more are looked at.
    let mut caller = Http2::open(&scene.grpc(), &[]).await.expect("accepted");
    let mut bytes = Vec::new();
    for stream in (1..2000).step_by(2) {
        frame(&mut bytes, kind::HEADERS, flag::END_HEADERS, stream, &call(SUBMIT));
        frame(&mut bytes, kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    }
    caller.send(&bytes).await.expect("sent");
    assert_eq!(closed(&caller).await, Some(CALM));
    drop(caller);
    let headers = call(SUBMIT);
    let ends = hammered(&scene, &assault("HTTP/2 rapid reset", "10 000 streams/s"), 10_000, || {
        let headers = headers.clone();
        move |bytes: &mut Vec<u8>, stream| {
            frame(bytes, kind::HEADERS, flag::END_HEADERS, stream, &headers);
            frame(bytes, kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        }
    })
    .await;
    assert!(ends.with(CALM) > 0, "it is told to calm down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_the_gateway_has_to_reset() {
    let _turn = Turn::alone();
    let scene = Scene::new(|config, _| config);
    // A window update of nothing is an error of its stream, which the gateway resets: "MadeYouReset".
    let headers = call(SUBMIT);
    let ends = hammered(&scene, &assault("HTTP/2 streams that have to be reset", "10 000 streams/s"), 10_000, || {
        let headers = headers.clone();
        move |bytes: &mut Vec<u8>, stream| {
            frame(bytes, kind::HEADERS, flag::END_HEADERS, stream, &headers);
            frame(bytes, kind::WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes());
        }
    })
    .await;
    assert!(ends.with(CALM) + ends.with(http2::PROTOCOL) > 0, "it is told to stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn continuation_flood() {
    let _turn = Turn::alone();
    let scene = Scene::new(|config, _| config);
    let ends = hammered(&scene, &assault("CONTINUATION flood", "10 000 frames/s"), 10_000, || {
        let mut has_begun = false;
        let mut header = Vec::new();
        http2::literal(&mut header, "x", &[b'a'; 50]);
        move |bytes: &mut Vec<u8>, stream| {
            if stream == 1 || !has_begun {
                frame(bytes, kind::HEADERS, 0, 1, &call(SUBMIT));
            }
            has_begun = true;
            frame(bytes, kind::CONTINUATION, 0, 1, &header);
        }
    })
    .await;
    assert!(ends.with(CALM) + ends.with(http2::PROTOCOL) > 0, "it is told to calm down");
    // And empty ones.
    let mut caller = Http2::open(&scene.grpc(), &[]).await.expect("accepted");
    let mut bytes = Vec::new();
    frame(&mut bytes, kind::HEADERS, 0, 1, &call(SUBMIT));
    for _ in 0..10_000 {
        frame(&mut bytes, kind::CONTINUATION, 0, 1, &[]);
    }
    let _ = caller.send(&bytes).await;
    assert!(closed(&caller).await.is_none_or(|code| code == CALM));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_streams() {
    let _turn = Turn::alone();
    let scene = Scene::new(|config, _| config);
    // One after the other, each answered: what a busy caller does. None may leave anything behind.
    let (address, headers) = (scene.grpc(), call(SUBMIT));
    let message = http2::submit_message("none", b"");
    let wanted = 100_000;
    let before = Cost::of(scene.gateway.id());
    let mut caller = Http2::open(&address, &[(4, 1 << 30)]).await.expect("accepted");
    let heard = caller.heard().clone();
    let begun = Instant::now();
    let mut sent = 0_u32;
    while sent < wanted {
        let mut bytes = Vec::new();
        for _ in 0..500 {
            frame(&mut bytes, kind::HEADERS, flag::END_HEADERS, 2 * sent + 1, &headers);
            frame(&mut bytes, kind::DATA, flag::END_STREAM, 2 * sent + 1, &message);
            sent += 1;
        }
        caller.send(&bytes).await.expect("open");
        caller.answer().await.expect("open");
        // No more than may be open at once.
        wait::until_async("streams are answered", wait::BOUND, || {
            std::future::ready((heard.ended() + 500 >= u64::from(sent)).then_some(()))
        })
        .await;
    }
    wait::until_async("all are answered", wait::BOUND, || {
        std::future::ready((heard.ended() >= u64::from(wanted)).then_some(()))
    })
    .await;
    assert_eq!(heard.resets().0, 0);
    let after = Cost::of(scene.gateway.id());
    let grown = after.resident.saturating_sub(before.resident);
    println!(
        "| 100 000 HTTP/2 streams in sequence | {:.1} s | +{grown} KiB | {} µs of a core for each |",
        begun.elapsed().as_secs_f64(),
        (after.cpu - before.cpu).as_micros() / u128::from(wanted)
    );
    assert!(grown < 16 * 1024, "{grown} KiB are left behind");
    drop(caller);

    // As many as may be at once, and one more.
    let mut caller = Http2::open(&address, &[]).await.expect("accepted");
    let mut bytes = Vec::new();
    for stream in 0..1024 {
        frame(&mut bytes, kind::HEADERS, flag::END_HEADERS, 2 * stream + 1, &headers);
    }
    caller.send(&bytes).await.expect("open");
    let mut past = Vec::new();
    frame(&mut past, kind::HEADERS, flag::END_HEADERS, 2 * 1024 + 1, &headers);
    caller.send(&past).await.expect("open");
    let heard = caller.heard().clone();
    wait::until_async("the one past the limit is refused", wait::BOUND, || {
        std::future::ready((heard.resets().0 > 0).then_some(()))
    })
    .await;
    assert_eq!(heard.resets(), (1, REFUSED));
    drop(caller);

    hammered(&scene, &assault("HTTP/2 streams for no world, each answered", "5 000 streams/s"), 5000, || {
        let (headers, message) = (headers.clone(), message.clone());
        move |bytes: &mut Vec<u8>, stream| {
            frame(bytes, kind::HEADERS, flag::END_HEADERS, stream, &headers);
            frame(bytes, kind::DATA, flag::END_STREAM, stream, &message);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn giant_metadata() {
    let _turn = Turn::alone();
    let scene = Scene::new(|config, _| config);
    let address = scene.grpc();
    let of_size = |size: usize| {
        let mut headers = call(SUBMIT);
        http2::literal(&mut headers, "x-padding", &vec![b'a'; size]);
        headers
    };
    let in_frames = |bytes: &mut Vec<u8>, stream: u32, headers: &[u8]| {
        let mut chunks = headers.chunks(16_000).peekable();
        let mut first = true;
        while let Some(chunk) = chunks.next() {
            let flags = if chunks.peek().is_none() { flag::END_HEADERS } else { 0 };
            frame(bytes, if first { kind::HEADERS } else { kind::CONTINUATION }, flags, stream, chunk);
            first = false;
        }
    };
    // Below 32 KiB and at it, counted as HTTP/2 counts: names, values, and 32 for each. The other headers take some of it.
    let others = 7 * 32
        + ":methodPOST:schemehttp:path:authoritygatewaycontent-typeapplication/grpctetrailersx-padding".len()
        + SUBMIT.len();
    for (size, is_let_in) in [(32 * 1024 - others - 1, true), (32 * 1024 - others, false)] {
        let mut caller = Http2::open(&address, &[]).await.expect("accepted");
        let mut bytes = Vec::new();
        in_frames(&mut bytes, 1, &of_size(size));
        frame(&mut bytes, kind::DATA, flag::END_STREAM, 1, &http2::submit_message("w", b"job"));
        caller.send(&bytes).await.expect("open");
        let heard = caller.heard().clone();
        wait::until_async("it is answered", wait::BOUND, || {
            std::future::ready((heard.ended() + heard.resets().0 > 0).then_some(()))
        })
        .await;
        assert_eq!(heard.data() > 0, is_let_in, "{size} bytes: {:?}", heard.resets());
    }
    hammered(&scene, &assault("HTTP/2 headers of 40 kB", "500 streams/s, 20 MB/s"), 500, || {
        let headers = of_size(40_000);
        move |bytes: &mut Vec<u8>, stream| in_frames(bytes, stream, &headers)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_and_settings() {
    let _turn = Turn::alone();
    let scene = Scene::new(|config, _| config);
    hammered(&scene, &assault("PING and SETTINGS flood", "20 000 frames/s"), 20_000, || {
        |bytes: &mut Vec<u8>, stream| match stream % 4 {
            1 => frame(bytes, kind::PING, 0, 0, &[7; 8]),
            _ => frame(bytes, kind::SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        }
    })
    .await;
    // Answers that nobody reads: the gateway reads no more either, and keeps none.
    let mut caller = tokio::net::TcpStream::connect(scene.grpc()).await.expect("accepted");
    let mut bytes = http2::PREFACE.to_vec();
    frame(&mut bytes, kind::SETTINGS, 0, 0, &[]);
    for _ in 0..500_000 {
        frame(&mut bytes, kind::PING, 0, 0, &[7; 8]);
    }
    let before = Cost::of(scene.gateway.id()).resident;
    let write = tokio::io::AsyncWriteExt::write_all(&mut caller, &bytes);
    let written = tokio::time::timeout(Duration::from_secs(1), write).await;
    let grown = Cost::of(scene.gateway.id()).resident.saturating_sub(before);
    println!("  (8.5 MB of PINGs whose answers are not read: taken in {}, +{grown} KiB)", written.is_ok());
    assert!(grown < 4 * 1024, "{grown} KiB for answers that nobody reads");
    drop(caller);
    scene.until_at_rest();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn window_updates() {
    let _turn = Turn::alone();
    let scene = Scene::new(|config, _| config);
    for (by, what) in [(0_u32, "nothing"), (0x7fff_ffff, "more than there may be")] {
        let mut caller = Http2::open(&scene.grpc(), &[]).await.expect("accepted");
        let mut bytes = Vec::new();
        frame(&mut bytes, kind::WINDOW_UPDATE, 0, 0, &by.to_be_bytes());
        caller.send(&bytes).await.expect("open");
        let code = closed(&caller).await;
        assert!(matches!(code, Some(http2::PROTOCOL | http2::FLOW_CONTROL)), "an update by {what}: {code:?}");
    }
    hammered(&scene, &assault("WINDOW_UPDATE flood", "20 000 frames/s"), 20_000, || {
        |bytes: &mut Vec<u8>, _| frame(bytes, kind::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())
    })
    .await;
}

/// Many jobs with large replies, and a window that is never opened.
async fn never_reads(address: String, path: &'static str, tally: Tally) {
    let message = http2::submit_message("w", &vec![7; 200_000]);
    // No stream may send anything: SETTINGS_INITIAL_WINDOW_SIZE.
    let mut caller = Http2::open(&address, &[(4, 0)]).await.expect("accepted");
    let mut pace = Pace::per_second(200);
    let mut stream = 1;
    loop {
        for _ in 0..pace.due().await {
            let mut bytes = Vec::new();
            frame(&mut bytes, kind::HEADERS, flag::END_HEADERS, stream, &call(path));
            if caller.send(&bytes).await.is_err() {
                return;
            }
            let mut chunks = message.chunks(16_000).peekable();
            while let Some(chunk) = chunks.next() {
                let flags = if chunks.peek().is_none() { flag::END_STREAM } else { 0 };
                // The gateway's window for the connection may hold it up, which is as it should be.
                if caller.data(flags, stream, chunk).await.is_err() {
                    return;
                }
            }
            stream += 2;
            tally.add(1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_that_nobody_reads() {
    let _turn = Turn::alone();
    let scene =
        Scene::new(|config, _| config.line("limits", "connection_buffer_bytes = 8388608\nbulk_above = 1000000"));
    let address = scene.grpc();
    // 1 000 replies of 200 kB on one connection would be 200 MB.
    let mut assault = assault("HTTP/2 windows never opened for replies of 200 kB", "200 jobs/s, 40 MB/s");
    assault.memory = 48 * 1024;
    scene.under(&assault, |tally| never_reads(address.clone(), SUBMIT, tally)).await;
    // And for as long as it takes to have asked for a thousand.
    let before = Cost::of(scene.gateway.id()).resident;
    let tally = Tally::default();
    let attack = tokio::spawn(never_reads(address, SUBMIT, tally.clone()));
    let begun = Instant::now();
    let mut most = 0;
    while tally.count() < 1000 && begun.elapsed() < Duration::from_secs(4) && !attack.is_finished() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        most = most.max(Cost::of(scene.gateway.id()).resident.saturating_sub(before));
    }
    let replied = scene.metric("seeway_jobs_total", "outcome=\"replied\"");
    println!("  ({} calls whose replies are not read: +{most} KiB)", tally.count());
    assert!(replied > 40.0, "as many replies as may be unread");
    assert!(most < 48 * 1024, "+{most} KiB for replies that nobody reads");
    attack.abort();
    let _ = attack.await;
    scene.until_at_rest();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_and_jobs_of_no_bytes() {
    let _turn = Turn::alone();
    let scene = Scene::new(|config, _| config);
    let ends = hammered(&scene, &assault("DATA frames of no bytes", "20 000 frames/s"), 20_000, || {
        move |bytes: &mut Vec<u8>, stream| {
            if stream == 1 {
                frame(bytes, kind::HEADERS, flag::END_HEADERS, 1, &call(http2::STREAM));
            }
            frame(bytes, kind::DATA, 0, 1, &[]);
        }
    })
    .await;
    println!("  ({} connections were told to calm down)", ends.with(CALM));
    let jobs = AtomicU64::new(0);
    hammered(&scene, &assault("gRPC jobs of no bytes, on one stream", "4 000 jobs/s"), 4_000, || {
        jobs.fetch_add(1, Ordering::Relaxed);
        move |bytes: &mut Vec<u8>, stream| {
            if stream == 1 {
                frame(bytes, kind::HEADERS, flag::END_HEADERS, 1, &call(http2::STREAM));
            }
            frame(bytes, kind::DATA, 0, 1, &http2::stream_message(stream as usize, "w", b""));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_unfinished_messages() {
    let _turn = Turn::alone();
    let scene = Scene::new(|config, _| config.line("limits", "connection_buffer_bytes = 8388608"));
    let (address, half) = (scene.grpc(), http2::submit_message("w", &vec![7; 200_000])[..100_000].to_vec());
    let half = Arc::<[u8]>::from(half);
    let mut jobs = assault("1 000 unfinished jobs on one connection", "2 000 calls/s, as far as windows allow");
    jobs.memory = 40 * 1024;
    scene.under(&jobs, |tally| unfinished(address.clone(), SUBMIT, half.clone(), tally)).await;
    for path in [
        "/seeway.v1.SeeJobService/ListWorlds",
        "/seeway.v1.SeeJobService/Pipe",
        "/grpc.health.v1.Health/Check",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ] {
        let before = Cost::of(scene.gateway.id()).resident;
        let tally = Tally::default();
        let attack = tokio::spawn(unfinished(address.clone(), path, half.clone(), tally.clone()));
        let (begun, mut most) = (Instant::now(), 0);
        while tally.count() < 1000 && begun.elapsed() < Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            most = most.max(Cost::of(scene.gateway.id()).resident.saturating_sub(before));
        }
        println!("| {} unfinished calls of {path} | | +{most} KiB |", tally.count());
        assert!(most < 40 * 1024, "{path}: +{most} KiB");
        attack.abort();
        let _ = attack.await;
        scene.until_at_rest();
    }
}

/// A thousand calls on one connection, each of which stops in the midst of its message.
async fn unfinished(address: String, path: &'static str, half: Arc<[u8]>, tally: Tally) {
    let mut caller = Http2::open(&address, &[]).await.expect("accepted");
    let mut pace = Pace::per_second(2000);
    let mut stream = 1;
    while stream < 2000 {
        for _ in 0..pace.due().await {
            let mut bytes = Vec::new();
            frame(&mut bytes, kind::HEADERS, flag::END_HEADERS, stream, &call(path));
            if caller.send(&bytes).await.is_err() {
                return;
            }
            for chunk in half.chunks(16_000) {
                if caller.data(0, stream, chunk).await.is_err() {
                    return;
                }
            }
            stream += 2;
            tally.add(1);
        }
    }
    std::future::pending().await
}
