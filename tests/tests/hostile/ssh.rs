//! SSH servers that are none, or that do what no server should. Another machine of the same world goes on.

use std::sync::Arc;

use seeway_tests::hostile::ssh::{Abuse, HostileServer};
use seeway_tests::hostile::{Assault, Scene, Tally};
use seeway_tests::{Config, Identity, turn::Turn, wait};

/// A machine `bad` behind the server, with tunnels that are tried again at once.
pub fn with_bad(config: Config, server: &HostileServer, identity: &Identity) -> Config {
    config
        .machine("bad", &server.door(), "127.0.0.1:8888".parse().expect("an address"), identity, "channels = 1")
        .line(
            "ssh",
            "connect_timeout = \"500ms\"\nconnect_retry = \"50ms\"\nretry_max = \"100ms\"\nconnect_pace = \"0s\"",
        )
        .line("ssh", "refused_retry = \"100ms\"")
}

fn assault(name: &'static str, rate: &'static str) -> Assault {
    Assault { name, rate, memory: 24 * 1024, files: 20, cpu: 80 }
}

/// Before there is a tunnel: jobs of the world go to the machine that behaves.
async fn no_tunnel(abuse: Abuse, name: &'static str, rate: &'static str) {
    let _turn = Turn::alone();
    let server = HostileServer::bind().await;
    let scene = Scene::of(&["good", "bad"], |config, identity| with_bad(config, &server, identity));
    scene.under(&assault(name, rate), |tally| Arc::clone(&server).serve(abuse, tally)).await;
    // Whatever it says, a connect ends in time.
    let failed = || scene.metric("seeway_connects_failed_total", "machine=\"bad\"");
    let before = failed();
    let serving = tokio::spawn(Arc::clone(&server).serve(abuse, Tally::default()));
    wait::until_async("two more connects have failed", wait::BOUND, || {
        std::future::ready((failed() > before + 1.5).then_some(()))
    })
    .await;
    assert!(scene.metric("seeway_channels", "machine=\"bad\"") < 0.5);
    serving.abort();
}

/// On a tunnel that stands. Jobs of the other world go on.
async fn on_a_tunnel(abuse: Abuse, name: &'static str, rate: &'static str) -> (Scene, Arc<HostileServer>) {
    let server = HostileServer::bind().await;
    let scene =
        Scene::of(&["good"], |config, identity| with_bad(config, &server, identity).world("other", &["bad"], ""));
    let mut assault = assault(name, rate);
    // A window of 8 MiB for each of two channels, and as much in the kernel.
    assault.memory = 48 * 1024;
    let blows = scene.under(&assault, |tally| Arc::clone(&server).serve(abuse, tally)).await.blows;
    // Where the gateway cuts the tunnel at once there are few in the time that was measured: as many as it makes tunnels meanwhile.
    let further = Tally::default();
    let serving = tokio::spawn(Arc::clone(&server).serve(abuse, further.clone()));
    wait::until_async("it has struck more than twenty times", wait::BOUND, || {
        std::future::ready((blows + further.count() > 20).then_some(()))
    })
    .await;
    serving.abort();
    (scene, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_behaves_lets_the_gateway_in() {
    let _turn = Turn::alone();
    let server = HostileServer::bind().await;
    let scene = Scene::of(&["good", "bad"], |config, identity| with_bad(config, &server, identity));
    let serving = tokio::spawn(Arc::clone(&server).serve(Abuse::None, Tally::default()));
    wait::until_async("the machine has a channel", wait::BOUND, || {
        std::future::ready((scene.metric("seeway_channels", "machine=\"bad\"") > 0.5).then_some(()))
    })
    .await;
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage() {
    no_tunnel(Abuse::Garbage, "SSH: noise instead of a version", "4 MB/s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_banner() {
    no_tunnel(Abuse::Banner, "SSH: lines before the version without end", "1 000 lines/s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_without_end() {
    no_tunnel(Abuse::Version, "SSH: a version line without end", "64 kB/s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence() {
    no_tunnel(Abuse::Silence, "SSH: accepted, and not a word", "each connect").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offers_without_end() {
    no_tunnel(Abuse::Offers, "SSH: KEXINIT over and over", "1 000/s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ignores_before_keys() {
    no_tunnel(Abuse::Ignores, "SSH: IGNORE without end before there are keys", "1 000/s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_packet() {
    no_tunnel(Abuse::Giant, "SSH: a packet of 4 GiB", "4 MB/s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_without_an_answer() {
    no_tunnel(Abuse::SilentLogin, "SSH: keys, and no answer to the login", "each connect").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn login_banners_without_end() {
    no_tunnel(Abuse::LoginBanners, "SSH: login banners without end", "1 000/s, 1 MB/s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_past_the_window() {
    let _turn = Turn::alone();
    on_a_tunnel(Abuse::PastWindow, "SSH: data past the channel's window of 8 MiB", "12 MiB at once, then 16 MB/s")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_for_no_channel() {
    let _turn = Turn::alone();
    on_a_tunnel(Abuse::NoSuchChannel, "SSH: data for channels that there are not", "1 000/s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_nobody_asked_for() {
    let _turn = Turn::alone();
    on_a_tunnel(Abuse::Opens, "SSH: channels opened unasked", "1 000/s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rekeys_in_a_loop() {
    let _turn = Turn::alone();
    on_a_tunnel(Abuse::Rekeys, "SSH: other keys in a loop", "100/s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rekey_that_never_ends() {
    let _turn = Turn::alone();
    on_a_tunnel(Abuse::HalfRekey, "SSH: a rekey that never ends, and data meanwhile", "1 000 packets/s, 16 MB/s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_want_an_answer() {
    let _turn = Turn::alone();
    on_a_tunnel(Abuse::Requests, "SSH: requests that want an answer", "1 000/s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ignores_on_a_tunnel() {
    let _turn = Turn::alone();
    on_a_tunnel(Abuse::LateIgnores, "SSH: IGNORE without end on a tunnel", "1 000/s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_wider_than_there_are_numbers() {
    let _turn = Turn::alone();
    on_a_tunnel(Abuse::Windows, "SSH: WINDOW_ADJUST past 4 GiB", "1 000/s").await;
}
