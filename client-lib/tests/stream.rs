//! Many jobs on one stream, against the answering mux over an in-memory pipe.

#![allow(clippy::unwrap_used)] // In a test it is an assertion.

mod support;

use std::time::Duration;

use seeway_client::stream::{Connection, IoTransport, Options, Pipelined, StreamEnd};
use seeway_client::{JobError, JobErrorKind};
use seeway_proto::outcome::{NotSent, Rejected, Unknown};
use seeway_proto::wire::{Limits, ReplyBody};
use support::machine::{APPLICATION_STATUS, Machine, WORLD};
use support::{until, within};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

fn connect(pipe_size: usize, options: Options) -> (Connection, Machine<DuplexStream>) {
    let (here, there) = tokio::io::duplex(pipe_size);
    (Connection::open(IoTransport(here), "hsm-a", options), Machine::new(there))
}

fn submit(connection: &Connection, job: impl Into<Vec<u8>>) -> JoinHandle<Result<Vec<u8>, JobError>> {
    let (connection, job) = (connection.clone(), job.into());
    tokio::spawn(async move { Ok(connection.submit_within(0, &job, LONG).await?.to_vec()) })
}

async fn outcome(submitted: JoinHandle<Result<Vec<u8>, JobError>>) -> Result<Vec<u8>, JobError> {
    within("an outcome", submitted).await.unwrap()
}

#[tokio::test]
async fn every_reply_comes_to_its_job() {
    let (connection, machine) = connect(4096, Options::default());
    tokio::spawn(machine.echo());
    let jobs: Vec<_> =
        (0..3000_usize).map(|n| vec![u8::try_from(n % 251).unwrap(); if n % 500 == 0 { 262_100 } else { n }]).collect();
    let submitted: Vec<_> = jobs.iter().map(|job| submit(&connection, job.clone())).collect();
    for (job, submitted) in jobs.into_iter().zip(submitted) {
        assert!(outcome(submitted).await.unwrap() == job);
    }
    assert_eq!(connection.in_flight(), 0);
}

#[tokio::test]
async fn what_is_submitted_at_the_same_time_leaves_in_one_write() {
    let (connection, mut machine) = connect(1024 * 1024, Options::default());
    let submitted: Vec<_> = (0..100).map(|_| submit(&connection, *b"job")).collect();
    let jobs = within("the jobs", machine.jobs()).await;
    assert_eq!((jobs.len(), machine.reads), (100, 1));
    for job in &jobs {
        machine.reply(job, b"done");
    }
    machine.flush().await;
    for submitted in submitted {
        assert_eq!(outcome(submitted).await.unwrap(), b"done");
    }
}

#[tokio::test]
async fn worlds_and_no_ops_are_answered() {
    let (connection, machine) = connect(4096, Options::default());
    tokio::spawn(machine.echo());
    within("the no-op", connection.no_op(LONG)).await.unwrap();
    assert_eq!(within("the world", connection.published_object(WORLD.0, LONG)).await.unwrap(), WORLD.1);
    let error = within("the refusal", connection.published_object("nobody", LONG)).await.unwrap_err();
    assert_eq!(error.kind(), JobErrorKind::Rejected(Rejected::NoSuchWorld));
    assert_eq!(error.info(), Some("no such world"));
}

#[tokio::test]
async fn a_machines_status_is_the_jobs() {
    let (connection, machine) = connect(4096, Options::default());
    tokio::spawn(machine.echo());
    let error = outcome(submit(&connection, *b"fail")).await.unwrap_err();
    assert_eq!(error.kind(), JobErrorKind::MachineStatus);
    assert_eq!((error.status(), error.info()), (Some(APPLICATION_STATUS), Some("as it was told to")));
    assert!(error.may_have_run());
    assert_eq!(outcome(submit(&connection, *b"next")).await.unwrap(), b"next");
}

#[tokio::test]
async fn a_job_that_is_too_large_does_not_leave() {
    let options = Options { limits: Limits { max_job_bytes: 1000 }, ..Options::default() };
    let (connection, machine) = connect(4096, options);
    tokio::spawn(machine.echo());
    let error = outcome(submit(&connection, vec![0; 1001])).await.unwrap_err();
    assert_eq!(error.kind(), JobErrorKind::Rejected(Rejected::JobTooLarge));
    assert_eq!(outcome(submit(&connection, vec![1; 1000])).await.unwrap(), vec![1; 1000]);
}

#[tokio::test]
async fn a_job_that_left_and_is_late_may_have_run_and_keeps_its_place() {
    let (connection, mut machine) = connect(4096, Options { max_in_flight: 1, ..Options::default() });
    let (late, jobs) = tokio::join!(connection.submit_within(0, b"slow", SHORT), machine.jobs());
    let late = late.unwrap_err();
    assert_eq!(late.kind(), JobErrorKind::Unknown(Unknown::TooLate));
    assert!(late.may_have_run());
    // Its place is taken until the reply comes.
    let next = within("the timeout", connection.submit_within(0, b"next", SHORT)).await.unwrap_err();
    assert_eq!(next.kind(), JobErrorKind::NotSent(NotSent::TooLate));
    assert!(!next.may_have_run());
    machine.reply(&jobs[0], b"at last");
    machine.flush().await;
    tokio::spawn(machine.echo());
    assert_eq!(outcome(submit(&connection, *b"after")).await.unwrap(), b"after");
}

#[tokio::test]
async fn a_job_that_is_given_up_before_it_leaves_never_does() {
    // The pipe takes 64 bytes, so that the first job is still leaving while the others wait.
    let (connection, mut machine) = connect(64, Options::default());
    let first = submit(&connection, vec![1; 1000]);
    until("the first job", || connection.in_flight() == 1).await;
    tokio::task::yield_now().await;
    let late = within("the timeout", connection.submit_within(0, b"late", SHORT)).await.unwrap_err();
    assert_eq!(late.kind(), JobErrorKind::NotSent(NotSent::TooLate));
    let cancelled = submit(&connection, *b"cancelled");
    until("the cancelled job", || connection.in_flight() == 2).await;
    cancelled.abort();
    until("its end", || connection.in_flight() == 1).await;
    let last = submit(&connection, *b"last");
    let mut seen = Vec::new();
    while seen.len() < 2 {
        for job in within("the jobs", machine.jobs()).await {
            machine.reply(&job, &job.bytes);
            seen.push(job.bytes);
        }
        machine.flush().await;
    }
    assert_eq!(seen, [vec![1; 1000], b"last".to_vec()]);
    outcome(first).await.unwrap();
    outcome(last).await.unwrap();
}

/// A connection whose stream takes no more until the machine reads: the job that is leaving, and no byte is staged.
async fn held_up(options: Options) -> (Connection, Machine<DuplexStream>, JoinHandle<Result<Vec<u8>, JobError>>) {
    let (connection, machine) = connect(64, options);
    let leaving = submit(&connection, vec![0; 1000]);
    until("the job that leaves", || connection.in_flight() == 1).await;
    tokio::task::yield_now().await;
    (connection, machine, leaving)
}

#[tokio::test]
async fn as_many_bytes_as_allowed_are_staged_and_not_one_more() {
    let limits = Limits { max_job_bytes: 1000 };
    let options = Options { limits, max_staged_bytes: 1500, ..Options::default() };
    let (connection, machine, leaving) = held_up(options).await;
    let staged = [submit(&connection, vec![1; 900]), submit(&connection, vec![2; 600])];
    until("what is staged", || connection.in_flight() == 3).await;

    let late = within("the timeout", connection.submit_within(0, b"3", SHORT)).await.unwrap_err();
    assert_eq!(late.kind(), JobErrorKind::NotSent(NotSent::TooLate));
    assert!(!late.may_have_run());
    assert_eq!(connection.in_flight(), 3);

    // One that is given up makes room for as much as it was.
    let [first, second] = staged;
    second.abort();
    until("its end", || connection.in_flight() == 2).await;
    let third = submit(&connection, vec![3; 600]);
    until("the next one", || connection.in_flight() == 3).await;
    // And so does what leaves.
    let waiting = submit(&connection, *b"waits");
    tokio::task::yield_now().await;
    assert_eq!(connection.in_flight(), 3);
    tokio::spawn(machine.echo());
    for (submitted, job) in
        [(leaving, vec![0; 1000]), (first, vec![1; 900]), (third, vec![3; 600]), (waiting, b"waits".to_vec())]
    {
        assert!(outcome(submitted).await.unwrap() == job);
    }
}

#[tokio::test]
async fn the_largest_job_can_always_be_staged() {
    let limits = Limits { max_job_bytes: 1000 };
    let (connection, machine, leaving) = held_up(Options { limits, max_staged_bytes: 0, ..Options::default() }).await;
    let largest = submit(&connection, vec![1; 1000]);
    until("the largest job", || connection.in_flight() == 2).await;
    let late = within("the timeout", connection.submit_within(0, b"3", SHORT)).await.unwrap_err();
    assert_eq!(late.kind(), JobErrorKind::NotSent(NotSent::TooLate));
    tokio::spawn(machine.echo());
    outcome(leaving).await.unwrap();
    assert_eq!(outcome(largest).await.unwrap(), vec![1; 1000]);
}

#[tokio::test]
async fn jobs_that_wait_to_be_staged_were_not_sent_when_the_stream_ends() {
    let limits = Limits { max_job_bytes: 1000 };
    let (connection, machine, leaving) =
        held_up(Options { limits, max_staged_bytes: 1000, ..Options::default() }).await;
    let staged = submit(&connection, vec![1; 1000]);
    until("what is staged", || connection.in_flight() == 2).await;
    let waiting = submit(&connection, *b"waits");
    tokio::task::yield_now().await;
    drop(machine);
    assert_eq!(outcome(leaving).await.unwrap_err().kind(), JobErrorKind::Unknown(Unknown::TunnelLost));
    for unsent in [staged, waiting] {
        assert_eq!(outcome(unsent).await.unwrap_err().kind(), JobErrorKind::NotSent(NotSent::NowhereToGo));
    }
}

#[tokio::test]
async fn when_the_stream_ends_what_left_is_unknown_and_what_waited_was_not_sent() {
    let (connection, mut machine) = connect(64, Options { max_in_flight: 3, ..Options::default() });
    let answered = submit(&connection, *b"first");
    let jobs = within("the job", machine.jobs()).await;
    machine.reply(&jobs[0], b"answered");
    machine.flush().await;
    assert_eq!(outcome(answered).await.unwrap(), b"answered");

    let leaving = submit(&connection, vec![1; 1000]);
    until("the job that leaves", || connection.in_flight() == 1).await;
    tokio::task::yield_now().await;
    let staged = [submit(&connection, *b"staged"), submit(&connection, *b"staged")];
    until("the jobs that are staged", || connection.in_flight() == 3).await;
    let waiting = submit(&connection, *b"waits for room");
    tokio::task::yield_now().await;
    drop(machine);

    let error = outcome(leaving).await.unwrap_err();
    assert_eq!(error.kind(), JobErrorKind::Unknown(Unknown::TunnelLost));
    assert!(error.may_have_run());
    for unsent in staged.into_iter().chain([waiting, submit(&connection, *b"too late")]) {
        let error = outcome(unsent).await.unwrap_err();
        assert_eq!(error.kind(), JobErrorKind::NotSent(NotSent::NowhereToGo), "{error}");
        assert!(!error.may_have_run());
        assert!(error.to_string().contains("hsm-a") && error.info().is_some(), "{error}");
    }
    assert!(connection.end().is_some());
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_left() {
    // A NoOp's reply with a tag that nobody has; and a length that can not be.
    for bytes in [&b"\x10\0\0\0\x63\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0"[..], b"\x01\0\0\0"] {
        let (connection, mut machine) = connect(4096, Options::default());
        let submitted = submit(&connection, *b"job");
        within("the job", machine.jobs()).await;
        machine.write_raw(bytes).await;
        let error = outcome(submitted).await.unwrap_err();
        assert_eq!(error.kind(), JobErrorKind::Unknown(Unknown::TunnelLost));
        assert!(error.to_string().contains("broke the protocol"), "{error}");
        assert!(within("the end", machine.jobs()).await.is_empty());
    }
}

#[tokio::test]
async fn the_last_handle_closes_the_stream() {
    let (connection, mut machine) = connect(4096, Options::default());
    let clone = connection.clone();
    drop(connection);
    let submitted = submit(&clone, *b"job");
    let jobs = within("the job", machine.jobs()).await;
    machine.reply(&jobs[0], b"done");
    machine.flush().await;
    outcome(submitted).await.unwrap();
    drop(clone);
    assert!(within("the end", machine.jobs()).await.is_empty());
}

#[tokio::test]
async fn one_owner_drives_many_jobs() {
    let (here, there) = tokio::io::duplex(64 * 1024);
    tokio::spawn(Machine::new(there).echo());
    let mut pipelined = Pipelined::new(IoTransport(here), &Options { max_in_flight: 64, ..Options::default() });
    let (mut next, mut answered) = (0_u32, vec![false; 20_000]);
    while answered.contains(&false) {
        while pipelined.has_room() && (next as usize) < answered.len() {
            pipelined.stage_job(0, &next.to_le_bytes(), next).unwrap();
            next += 1;
        }
        let turn = pipelined.turn(|number, reply| {
            let ReplyBody::Job(reply) = reply else { panic!("{reply:?}") };
            assert_eq!(reply.0, number.to_le_bytes());
            assert!(!std::mem::replace(&mut answered[number as usize], true), "answered twice");
        });
        within("an answer", turn).await.unwrap();
    }
    assert_eq!(pipelined.in_flight(), 0);
}

#[tokio::test]
async fn what_an_owner_gives_up_comes_back_as_sent_or_not() {
    let (here, there) = tokio::io::duplex(64 * 1024);
    let mut machine = Machine::new(there);
    let mut pipelined = Pipelined::new(IoTransport(here), &Options { max_in_flight: 2, ..Options::default() });
    pipelined.stage_job(0, b"sent", 'a').unwrap();
    tokio::select! {
        turn = pipelined.turn(|_, _| ()) => panic!("nobody has answered: {turn:?}"),
        jobs = within("the job", machine.jobs()) => assert_eq!(jobs[0].bytes, b"sent"),
    }
    pipelined.stage_job(0, b"staged", 'b').unwrap();
    assert_eq!(pipelined.stage_job(0, b"no room", 'c').unwrap_err().0, 'c');
    let (mut unsent, mut sent) = (Vec::new(), Vec::new());
    pipelined.close(|token| unsent.push(token), |token| sent.push(token));
    assert_eq!((unsent, sent), (vec!['b'], vec!['a']));

    let (here, there) = tokio::io::duplex(64);
    drop(there);
    let mut pipelined: Pipelined<_, ()> = Pipelined::new(IoTransport(here), &Options::default());
    let end = within("the end", pipelined.turn(|(), _| ())).await.unwrap_err();
    assert!(matches!(end, StreamEnd::Closed), "{end}");
}
