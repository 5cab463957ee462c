//! A caller's time-out holds whatever the gateway does.

#![cfg(feature = "grpc")]
#![allow(clippy::unwrap_used)] // In a test it is an assertion.

use std::time::Duration;

use seeway_client::grpc::{Gateway, SubmitOptions};
use tokio::net::TcpListener;

/// A gateway that takes the connection and then reads nothing: the stream's window fills up, and more jobs wait here.
#[tokio::test]
async fn a_job_on_a_stream_that_is_held_back_ends_at_its_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::connect(&listener.local_addr().unwrap().to_string()).await.unwrap();
    let stream = gateway.stream();
    let options = SubmitOptions { timeout: Some(Duration::from_millis(200)), ..SubmitOptions::default() };
    let jobs: Vec<_> = (0..200)
        .map(|_| {
            let (stream, options) = (stream.clone(), options.clone());
            tokio::spawn(async move { stream.submit("signer", vec![7; 1000], &options).await })
        })
        .collect();
    for (number, job) in jobs.into_iter().enumerate() {
        let ended = tokio::time::timeout(Duration::from_secs(5), job).await;
        assert!(ended.is_ok(), "job {number} has a time-out of 200 ms, and waits for 5 s already");
    }
}
