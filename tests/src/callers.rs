//! Callers that keep a ledger: each job they hand over gets exactly one answer, and they note what it claims.

use std::{collections::HashSet, time::Duration};

use seeway_bench::{CallerError, Target, grpc::GrpcCaller, wire::WireCaller};
use seeway_client::grpc::{Gateway, SubmitOptions};
use seeway_proto::{
    v1::stream_response,
    wire::{Profile, ReplyBody},
};

/// What a caller was told of one of its jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told<'a> {
    /// It ran; these bytes are its reply.
    Replied(&'a [u8]),
    /// It has no reply.
    Failed {
        /// The status' name on the SEEJob wire, or the reason in gRPC.
        reason: &'a str,
        /// Whether the answer leaves it open that the job ran.
        may_have_run: bool,
    },
}

/// A job of a caller: the number by which the caller knows it, and its bytes.
pub type Job = (u64, Vec<u8>);

/// Connects to `target` and hands it the jobs that `next` gives, `in_flight` at a time, until it gives none; every job's answer
/// goes to `on_answer`, once. Panics when a job gets none, or two.
pub async fn run(
    target: &Target,
    world: &str,
    in_flight: usize,
    next: impl FnMut() -> Option<Job>,
    on_answer: impl FnMut(u64, Told<'_>),
) -> Result<(), CallerError> {
    match target {
        Target::Grpc(address) => run_grpc(address, world, in_flight, next, on_answer).await,
        Target::Unix(_) | Target::Tcp(_) => run_wire(target, world, in_flight, next, on_answer).await,
    }
}

async fn run_wire(
    target: &Target,
    world: &str,
    in_flight: usize,
    mut next: impl FnMut() -> Option<Job>,
    mut on_answer: impl FnMut(u64, Told<'_>),
) -> Result<(), CallerError> {
    let profile = Profile::open_1();
    let mut caller = WireCaller::connect(target, in_flight).await?;
    let handle = caller.open_world(world, 0).await?;
    loop {
        while caller.in_flight() < in_flight
            && let Some((number, bytes)) = next()
        {
            caller.stage(handle, &bytes, number).expect("fewer are in flight than the caller allows itself");
        }
        if caller.in_flight() == 0 {
            return Ok(());
        }
        // A second answer to a tag is a stray one to the caller's mux, which then fails here.
        caller
            .exchange(|number, reply| match reply {
                ReplyBody::Job(bytes) => on_answer(number, Told::Replied(bytes.0)),
                ReplyBody::Error { status, info } => {
                    let reason = profile.statuses.name(status).unwrap_or("a status of the application");
                    on_answer(number, Told::Failed { reason, may_have_run: wire_may_have_run(reason, info) });
                }
                ReplyBody::NoOp | ReplyBody::Object(_) => panic!("job {number} was answered as if it were none"),
            })
            .await?;
    }
}

/// The last column of the wire description's table of statuses: whether the job may have run.
pub(crate) fn wire_may_have_run(status: &str, info: Option<&str>) -> bool {
    match status {
        "UnknownCommand" | "Malformed" | "InvalidParameter" | "UnknownID" | "AccessDenied" | "BufferFull"
        | "QueueFull" | "NotAvailable" => false,
        "Timeout" => info != Some("not sent"),
        _ => true,
    }
}

async fn run_grpc(
    address: &str,
    world: &str,
    in_flight: usize,
    mut next: impl FnMut() -> Option<Job>,
    mut on_answer: impl FnMut(u64, Told<'_>),
) -> Result<(), CallerError> {
    let mut caller = GrpcCaller::connect(address, in_flight).await?;
    let mut waiting: HashSet<u64> = HashSet::new();
    let mut world = world;
    loop {
        while waiting.len() < in_flight
            && let Some((number, bytes)) = next()
        {
            assert!(waiting.insert(number), "the test gave two jobs the number {number}");
            caller.send(number, world, bytes.into()).await?;
            // From now on the stream knows which world is meant.
            world = "";
        }
        if waiting.is_empty() {
            return Ok(());
        }
        let answer = caller.next().await?;
        let number = answer.id;
        assert!(waiting.remove(&number), "an answer came to id {number}, which is not outstanding");
        match answer.result.expect("every answer has a result") {
            stream_response::Result::Reply(reply) => on_answer(number, Told::Replied(&reply.reply)),
            stream_response::Result::Failure(failure) => {
                on_answer(number, Told::Failed { reason: &failure.reason, may_have_run: failure.may_have_run });
            }
        }
    }
}

/// The bytes of a caller's job: `size` of them, unlike those of any other job. From 16 bytes on they begin with the caller and the
/// number, so that a mix-up names both jobs.
pub fn payload(caller: u64, number: u64, size: usize) -> Vec<u8> {
    let mut state = caller << 40 | number;
    let mut bytes = Vec::with_capacity(size + 8);
    if size >= 16 {
        bytes.extend_from_slice(&caller.to_le_bytes());
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    while bytes.len() < size {
        state = mixed(state);
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// The size of a caller's job, `0..=max`: nine in ten are small, and the extremes come often enough to meet each other.
pub fn size(caller: u64, number: u64, max: usize) -> usize {
    let draw = mixed(mixed(caller << 40 | number) ^ 0x5eed);
    let within = |limit: usize| usize::try_from(draw >> 16).expect("48 bits fit") % limit.min(max + 1);
    match draw % 1_000 {
        0..10 => 0,
        10 => max,
        11..13 => within(max + 1),
        13..20 => within(65_536),
        20..100 => within(8_192),
        _ => within(512),
    }
}

/// One step of a splitmix64 generator.
fn mixed(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Sends one job to a world whose machine echoes; why there is no reply to it, if there is none, with the reason before the rest.
pub async fn ask(client: &Gateway, world: &str) -> Result<(), String> {
    let options = SubmitOptions { timeout: Some(Duration::from_secs(20)), ..SubmitOptions::default() };
    match client.submit(world, "job", &options).await {
        Ok(done) => {
            assert_eq!(done.reply.as_bytes(), b"job");
            Ok(())
        }
        Err(error) => Err(format!("{} {error}", error.reason())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_name_their_job_and_differ() {
        let one = payload(3, 7, 100);
        assert_eq!(&one[..16], [3u64.to_le_bytes(), 7u64.to_le_bytes()].concat());
        assert_ne!(payload(3, 7, 8), payload(7, 3, 8));
        assert!(payload(3, 7, 0).is_empty());
    }

    #[test]
    fn sizes_reach_both_extremes() {
        let sizes: Vec<usize> = (0..10_000).map(|number| size(1, number, 262_100)).collect();
        assert!(sizes.contains(&0) && sizes.contains(&262_100));
        assert!(sizes.iter().all(|size| *size <= 262_100));
        assert!(sizes.iter().filter(|size| **size < 512).count() > 8_000);
    }
}
