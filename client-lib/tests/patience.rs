//! A caller's time-out holds whatever the gateway does.

#![allow(clippy::unwrap_used)] // In a test it is an assertion.

mod support;

use std::time::Duration;

use seeway_client::JobErrorKind;
use seeway_client::grpc::{Gateway, SubmitOptions};
use seeway_proto::outcome::{NotSent, Unknown};
use support::within;
use tokio::net::TcpListener;

/// A gateway whose connections are taken by the operating system, and never read.
async fn deaf_gateway() -> (Gateway, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::connect(&listener.local_addr().unwrap().to_string()).await.unwrap();
    (gateway, listener)
}

fn options(millis: u64) -> SubmitOptions {
    SubmitOptions { timeout: Some(Duration::from_millis(millis)), ..SubmitOptions::default() }
}

/// The stream's window fills up, and more jobs wait here: some in the queue behind it, the rest in their callers.
#[tokio::test]
async fn a_job_on_a_stream_that_is_held_back_ends_at_its_timeout() {
    let (gateway, _listener) = deaf_gateway().await;
    let stream = gateway.stream();
    let jobs: Vec<_> = (0..300)
        .map(|_| {
            let stream = stream.clone();
            tokio::spawn(async move { stream.submit("signer", vec![7; 1000], &options(200)).await })
        })
        .collect();
    let (mut not_sent, mut unknown) = (0, 0);
    for (number, job) in jobs.into_iter().enumerate() {
        let ended = tokio::time::timeout(Duration::from_secs(5), job).await;
        let Ok(ended) = ended else { panic!("job {number} has a time-out of 200 ms, and waits for 5 s already") };
        let error = ended.unwrap().unwrap_err();
        match error.kind() {
            JobErrorKind::NotSent(NotSent::TooLate) => not_sent += 1,
            JobErrorKind::Unknown(Unknown::TooLate) => unknown += 1,
            other => panic!("job {number}: {other:?}: {error}"),
        }
        assert_eq!(error.world(), Some("signer"));
    }
    // What fits into a window of 64 KiB has left; the queue and the callers hold the rest.
    assert!(unknown > 0 && not_sent > 100, "{unknown} unknown, {not_sent} not sent");
    assert_eq!(stream.in_flight(), 0);
}

#[tokio::test]
async fn a_call_that_nobody_reads_ends_at_its_timeout() {
    let (gateway, _listener) = deaf_gateway().await;
    let error = within("the timeout", gateway.submit("signer", "job", &options(200))).await.unwrap_err();
    assert_eq!(error.kind(), JobErrorKind::Unknown(Unknown::TooLate), "{error}");
}

#[tokio::test]
async fn a_timeout_may_be_longer_than_any_clock() {
    let (gateway, _listener) = deaf_gateway().await;
    let forever = SubmitOptions { timeout: Some(Duration::MAX), ..SubmitOptions::default() };
    let (stream, short) = (gateway.stream(), options(200));
    tokio::select! {
        call = gateway.submit("signer", "job", &forever) => panic!("nobody answers: {call:?}"),
        job = stream.submit("signer", "job", &forever) => panic!("nobody answers: {job:?}"),
        // Both calls wait by the time that this one gives up.
        late = gateway.submit("signer", "job", &short) => assert!(late.is_err(), "nobody answers: {late:?}"),
    }
}
