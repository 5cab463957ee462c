//! Machines whose replies are none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use seeway_client::grpc::{Gateway as Client, SubmitOptions};
use seeway_tests::hostile::ssh::{Abuse, HostileServer};
use seeway_tests::hostile::{Assault, Scene, Tally};
use seeway_tests::turn::Turn;

use crate::ssh::with_bad;

/// A caller asks the bad machine for something, all the while.
async fn asked(server: Arc<HostileServer>, abuse: Abuse, tally: Tally, address: String) {
    let serving = server.serve(abuse, tally);
    let asking = async {
        let client = Client::connect(&address).await.expect("let in");
        let options = SubmitOptions { timeout: Some(Duration::from_millis(300)), ..SubmitOptions::default() };
        loop {
            let _ = client.submit("other", "job", &options).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = serving => {}
        () = asking => {}
    }
}

async fn bad_replies(abuse: Abuse, name: &'static str, rate: &'static str) {
    let _turn = Turn::alone();
    let server = HostileServer::bind().await;
    let scene =
        Scene::of(&["good"], |config, identity| with_bad(config, &server, identity).world("other", &["bad"], ""));
    let assault = Assault { name, rate, memory: 32 * 1024, files: 30, cpu: 80 };
    let address = scene.gateway.grpc().to_string();
    scene.under(&assault, |tally| asked(Arc::clone(&server), abuse, tally, address.clone())).await;

    // Its caller learns in time that nobody knows; and a job for the machine that behaves is answered.
    let serving = tokio::spawn(Arc::clone(&server).serve(abuse, Tally::default()));
    let client = Client::connect(&address).await.expect("let in");
    let options = SubmitOptions { timeout: Some(Duration::from_millis(500)), ..SubmitOptions::default() };
    let begun = Instant::now();
    let answer = client.submit("other", "job", &options).await;
    println!(
        "  (its caller was told {:?} after {:?})",
        answer.as_ref().map(|_| ()).map_err(|error| error.reason().to_string()),
        begun.elapsed()
    );
    assert!(begun.elapsed() < Duration::from_secs(3));
    match answer {
        Ok(done) => {
            assert_eq!(done.reply.as_bytes(), b"job", "no reply is made up");
            assert!(!matches!(abuse, Abuse::SlowReply | Abuse::EndlessReply), "its reply has no end");
        }
        Err(error) => println!("  ({error})"),
    }
    client.submit("w", "job", &SubmitOptions::default()).await.expect("answered by the machine that behaves");
    serving.abort();
    drop(client);
    scene.until_at_rest();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_never_ends() {
    bad_replies(Abuse::SlowReply, "machine: a reply of 16 MiB, a byte every 20 ms", "50 bytes/s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_without_end() {
    bad_replies(Abuse::EndlessReply, "machine: bytes without end for a reply", "16 MB/s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_that_nobody_asked_for() {
    bad_replies(Abuse::Strays, "machine: replies under tags that are not out", "1 000/s").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reply_twice() {
    bad_replies(Abuse::Twice, "machine: every reply twice", "each job").await;
}
