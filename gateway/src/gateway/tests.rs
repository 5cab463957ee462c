use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use seeway_proto::v1::SubmitRequest;
use seeway_proto::v1::see_job_service_client::SeeJobServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::schedule::WorldId;
use crate::shard::{Handed, WorldChange as _};

/// For what takes milliseconds on an idle computer. Far below the time-outs of [`config`].
const BOUND: Duration = Duration::from_secs(20);

/// One world `w`, on a machine at `address`, as `seeway.toml` in the folder has it. Jobs wait for longer than a test.
fn config(folder: &Path, address: SocketAddr) -> Config {
    let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).expect("a key");
    let mut identity = std::fs::OpenOptions::new();
    let mut identity = identity.write(true).create_new(true).mode(0o600).open(folder.join("identity")).expect("new");
    let text = key.to_openssh(LineEnding::LF).expect("encoded");
    io::Write::write_all(&mut identity, text.as_bytes()).expect("written");
    let host_key = key.public_key().to_openssh().expect("encoded");
    let text = format!(
        "[listen]
grpc = \"127.0.0.1:0\"
hardserver = []
admin = \"127.0.0.1:0\"
[runtime]
shards = 1
drain_timeout = \"5m\"
[limits]
hold = \"5m\"
default_timeout = \"5m\"
[[machine]]
name = \"hsm\"
address = \"{address}\"
identity = \"identity\"
host_key = \"{host_key}\"
[[world]]
name = \"w\"
machines = [\"hsm\"]
"
    );
    std::fs::write(folder.join("seeway.toml"), &text).expect("written");
    Config::read(&text, &folder.join("seeway.toml"), []).unwrap_or_else(|problems| panic!("{problems}"))
}

async fn status(health: &mut HealthClient<Channel>, service: &str) -> ServingStatus {
    let checked = health.check(HealthCheckRequest { service: service.into() }).await;
    checked.unwrap_or_else(|error| panic!("{service}: {error}")).into_inner().status()
}

/// The answer to a request that does not ask for the connection's end.
async fn get(admin: SocketAddr, page: &str) -> String {
    let asked = async {
        let mut stream = TcpStream::connect(admin).await?;
        stream.write_all(format!("GET {page} HTTP/1.1\r\nHost: gateway\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    };
    let answer = tokio::time::timeout(BOUND, asked).await;
    answer.unwrap_or_else(|_| panic!("{page} has no end")).unwrap_or_else(|error| panic!("{page}: {error}"))
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let reached = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(BOUND, reached).await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

#[tokio::test]
async fn a_gateway_that_drains_says_so_everywhere_until_it_ends() {
    let folder = tempfile::tempdir().expect("a folder");
    // Takes connections and never says a word.
    let machine = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let config = config(folder.path(), machine.local_addr().expect("bound"));
    let gateway = Gateway::start(Arc::new(config)).await.unwrap_or_else(|error| panic!("{error}"));
    let Addresses { grpc: Some(grpc), admin: Some(admin), .. } = *gateway.addresses() else {
        panic!("{:?}", gateway.addresses())
    };
    let channel = Endpoint::from_shared(format!("http://{grpc}")).expect("an address");
    let channel = channel.connect().await.unwrap_or_else(|error| panic!("{error}"));
    let mut health = HealthClient::new(channel.clone());
    let names = ["", "seeway.v1.SeeJobService", "world/w"];

    // As a shard says it.
    let control = gateway.control().clone();
    let board = control.board();
    board.world_ready(WorldId(0), true);
    for name in names {
        until(name, async || status(&mut health, name).await == ServingStatus::Serving).await;
    }
    let mut jobs = SeeJobServiceClient::new(channel);
    let job = tokio::spawn(async move {
        let job = SubmitRequest { world: "w".into(), job: "job".into(), ..Default::default() };
        jobs.submit(job).await
    });
    until("the job is in hand", async || get(admin, "/metrics").await.contains("\nseeway_jobs 1\n")).await;

    let drained = tokio::spawn(gateway.drain());
    for name in names {
        until(name, async || status(&mut health, name).await == ServingStatus::NotServing).await;
    }
    // A tunnel that comes back meanwhile changes nothing.
    board.world_ready(WorldId(0), true);
    let page = get(admin, "/metrics").await;
    assert!(page.contains("\nseeway_jobs 1\n"), "the shard answers while it drains:\n{page}");
    assert!(page.contains("\nseeway_queue_seconds_count{world=\"w\"} 0\n"), "{page}");
    assert!(get(admin, "/readyz").await.starts_with("HTTP/1.1 503 "));
    for name in names {
        assert_eq!(status(&mut health, name).await, ServingStatus::NotServing, "{name}");
    }
    assert!(!drained.is_finished(), "a job is still in hand");

    job.abort();
    let drained = tokio::time::timeout(BOUND, drained).await.expect("nothing is in hand any more");
    drained.expect("no panic").unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn worlds_that_come_and_go_are_seen_everywhere_or_nowhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let machine = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let first = config(folder.path(), machine.local_addr().expect("bound"));
    let file = folder.path().join("seeway.toml");
    let text = std::fs::read_to_string(&file).expect("written by config()");
    let gateway = Gateway::start_from(Arc::new(first), Some(file.clone())).await;
    let gateway = gateway.unwrap_or_else(|error| panic!("{error}"));
    let Addresses { grpc: Some(grpc), admin: Some(admin), .. } = *gateway.addresses() else {
        panic!("{:?}", gateway.addresses())
    };
    let channel = Endpoint::from_shared(format!("http://{grpc}")).expect("an address");
    let channel = channel.connect().await.unwrap_or_else(|error| panic!("{error}"));
    let mut health = HealthClient::new(channel.clone());
    assert_eq!(status(&mut health, "world/w").await, ServingStatus::NotServing);

    std::fs::write(&file, text.replace("name = \"w\"", "name = \"v\"")).expect("written");
    let reloaded = gateway.control().reload().await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((reloaded.worlds_added, reloaded.worlds_removed), (vec!["v".to_owned()], vec!["w".to_owned()]));
    let gone = health.check(HealthCheckRequest { service: "world/w".into() }).await.expect_err("gone");
    assert_eq!(gone.code(), tonic::Code::NotFound);
    assert_eq!(status(&mut health, "world/v").await, ServingStatus::NotServing);
    let board = gateway.control().board();
    // As a shard says it of the world that is new, and of the one that is gone.
    board.world_ready(WorldId(1), true);
    board.world_ready(WorldId(0), true);
    until("v is ready", async || status(&mut health, "world/v").await == ServingStatus::Serving).await;
    let page = get(admin, "/readyz").await;
    assert!(page.contains("world v: ready") && !page.contains("world w"), "{page}");
    let page = get(admin, "/metrics").await;
    assert!(page.contains("{world=\"v\"") && !page.contains("world=\"w\""), "{page}");
    assert!(health.check(HealthCheckRequest { service: "world/w".into() }).await.is_err(), "it stays gone");

    let drained = gateway.control().set_draining(None, true).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((drained.is_draining, drained.jobs), (true, 0));
    for name in ["", "seeway.v1.SeeJobService", "world/v"] {
        assert_eq!(status(&mut health, name).await, ServingStatus::NotServing, "{name}, when the change is done");
    }
    gateway.control().set_draining(None, false).await.unwrap_or_else(|error| panic!("{error}"));
    for name in ["", "seeway.v1.SeeJobService", "world/v"] {
        assert_eq!(status(&mut health, name).await, ServingStatus::Serving, "{name}, when the change is done");
    }

    std::fs::write(&file, text).expect("written");
    gateway.control().reload().await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(status(&mut health, "world/w").await, ServingStatus::Serving, "as its shard has said");
    let control = gateway.control().clone();
    gateway.drain().await.unwrap_or_else(|error| panic!("{error}"));
    assert!(matches!(control.reload().await, Err(admin::ReloadError::Stopping)));
    assert!(matches!(control.set_draining(None, false).await, Err(admin::DrainError::Stopping)));
    // Every shard has ended, and none of what they counted is lost.
    let page = control.metrics().await;
    assert!(page.contains("\nseeway_shards 1\n") && page.contains("seeway_jobs_total{world=\"w\""), "{page}");
}

#[tokio::test]
async fn the_shards_are_asked_as_long_as_somebody_looks_and_no_longer() {
    let folder = tempfile::tempdir().expect("a folder");
    let machine = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let config = config(folder.path(), machine.local_addr().expect("bound"));
    let gateway = Gateway::start(Arc::new(config)).await.unwrap_or_else(|error| panic!("{error}"));
    let admin = gateway.addresses().admin.expect("on");
    let is_looked_at = || gateway.control().is_looked_at();
    assert!(get(admin, "/metrics").await.contains("seeway_build_info"));
    assert!(!is_looked_at(), "nobody looks every second");
    let mut stream = TcpStream::connect(admin).await.expect("accepted");
    let asks = format!("GET /api/events HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    stream.write_all(asks.as_bytes()).await.expect("sent");
    let mut heard = Vec::new();
    while String::from_utf8_lossy(&heard).matches("event: state").count() < 3 {
        let read = tokio::time::timeout(BOUND, stream.read_buf(&mut heard)).await.expect("each second");
        assert!(read.expect("it goes on") > 0, "{}", String::from_utf8_lossy(&heard));
    }
    assert!(is_looked_at());
    drop(stream);
    until("nobody is asked any more", async || !is_looked_at()).await;
    // And whoever comes then hears what is so then.
    let ask = async |what: &str| {
        let mut stream = TcpStream::connect(admin).await.expect("accepted");
        stream.write_all(asks.replace("events", what).as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
    };
    let state = ask("state").await;
    assert!(state.contains("\"interval\":0.0,"), "{state}");
    assert!(is_looked_at());
    // Where nobody had looked a second before a plot has no rate: a 0 would look like an outage.
    let points: Vec<serde_json::Value> = serde_json::from_str(&ask("history").await).expect("points");
    let rates: Vec<_> = points.iter().map(|point| point["all"][0].as_f64()).collect();
    assert!(rates[0].is_none() && rates[1].is_some(), "{rates:?}");
    assert_eq!(rates.iter().filter(|rate| rate.is_none()).count(), 2, "{rates:?}");
    for (point, rate) in points.iter().zip(rates) {
        for of in [&point["worlds"]["w"], &point["machines"]["hsm"]] {
            assert_eq!(of[0].as_f64().is_some(), rate.is_some(), "{point}");
        }
    }
}

#[tokio::test]
async fn a_gateway_whose_shard_hangs_is_not_healthy() {
    let folder = tempfile::tempdir().expect("a folder");
    let machine = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let config = config(folder.path(), machine.local_addr().expect("bound"));
    let gateway = Gateway::start(Arc::new(config)).await.unwrap_or_else(|error| panic!("{error}"));
    let admin = gateway.addresses().admin.expect("on");
    let control = gateway.control().clone();
    assert!(control.shards_answer(BOUND).await);
    assert!(get(admin, "/healthz").await.starts_with("HTTP/1.1 200 "));

    let (goes_on, until_then) = std::sync::mpsc::channel();
    gateway.shards[0].hand(Handed::Hang(until_then)).await.expect("it is there");
    assert!(!control.shards_answer(Duration::from_millis(100)).await, "which the service manager's watchdog goes by");
    let said = get(admin, "/healthz").await;
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("a shard has not answered"), "{said}");
    drop(goes_on);
    until("it is healthy again", async || get(admin, "/healthz").await.starts_with("HTTP/1.1 200 ")).await;
}

#[tokio::test]
async fn connections_that_ask_nothing_do_not_keep_an_operator_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    let machine = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let config = config(folder.path(), machine.local_addr().expect("bound"));
    let gateway = Gateway::start(Arc::new(config)).await.unwrap_or_else(|error| panic!("{error}"));
    let admin = gateway.addresses().admin.expect("on");
    assert!(get(admin, "/healthz").await.ends_with("\r\n\r\nok\n"), "and its connection has ended");

    let mut idle = Vec::new();
    for _ in 0..admin::MAX_CONNECTIONS {
        idle.push(TcpStream::connect(admin).await.expect("accepted"));
    }
    // The connections before it are accepted before it.
    let mut past = TcpStream::connect(admin).await.expect("the system accepts it");
    let end = tokio::time::timeout(BOUND, past.read(&mut [0])).await.expect("closed at once");
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    // Those that ask nothing are closed as well, soon.
    for connection in &mut idle {
        let end = tokio::time::timeout(BOUND, connection.read_to_end(&mut Vec::new())).await;
        assert!(end.is_ok(), "an idle connection is still open");
    }
    until("there is room", async || get(admin, "/healthz").await.starts_with("HTTP/1.1 200 ")).await;
}
