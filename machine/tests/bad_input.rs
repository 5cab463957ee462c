//! Every row of the wire's table of bad input, and its test vectors, against a machine.

mod support;

use seeway_machine::apps::App;
use seeway_machine::runtime::Machine;
use support::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

fn start(app: &str) -> Machine {
    let app: App = app.parse().expect("an application");
    app.start(app.config()).expect("starts")
}

fn connect(machine: &Machine) -> Caller<DuplexStream> {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let machine = machine.clone();
    tokio::spawn(async move { machine.serve(theirs, "test").await });
    Caller::new(ours)
}

/// The stream goes on as if nothing had been.
async fn goes_on(caller: &mut Caller<DuplexStream>) {
    assert_eq!(caller.run(0xfeed, b"still here").await.into_job(), b"still here");
}

#[tokio::test]
async fn the_specifications_test_vectors() {
    let hex = |text: &str| -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect()
    };
    let mut caller = connect(&start("echo"));
    for (sent, expected) in [
        ("0c000000 07000000 01000000 00000000", "10000000 07000000 01000000 00000000 00000000"),
        (
            "1c000000 01000000 02000000 00000000 00000000 05000000 68656c6c6f000000",
            "1c000000 01000000 02000000 00000000 00000000 05000000 68656c6c6f000000",
        ),
        // Its answer is the specification's example of an ErrorReturn.
        (
            "18000000 09000000 02000000 00000000 01000000 04000000 6a6f6221",
            "24000000 09000000 00000000 04000000 01000000 0d000000 6e6f2073756368 20776f726c64 000000",
        ),
    ] {
        caller.send(&hex(sent)).await;
        assert_eq!(message(&caller.receive_body().await), hex(expected), "the answer to {sent}");
    }
}

#[tokio::test]
async fn a_message_past_the_limit_is_dropped_and_answered_with_buffer_full() {
    let mut caller = connect(&start("echo"));
    for length in [262_145, 300_000, 16 * 1024 * 1024] {
        let mut body = words(&[77, SEE_JOB, 0]);
        body.resize(length, 0xab);
        caller.send(&message(&body)).await;
        let reply = caller.receive().await;
        assert_eq!((reply.tag, reply.status()), (77, BUFFER_FULL), "{length} bytes");
    }
    goes_on(&mut caller).await;
}

#[tokio::test]
async fn a_job_past_the_limit_in_a_message_within_it_gets_buffer_full() {
    let mut caller = connect(&start("echo"));
    assert_eq!(caller.run(1, &vec![7; 262_100]).await.into_job(), vec![7; 262_100]);
    assert_eq!(caller.run(2, &vec![7; 262_101]).await.status(), BUFFER_FULL);
    goes_on(&mut caller).await;
}

#[tokio::test]
async fn a_length_that_can_not_be_closes_the_stream() {
    let machine = start("echo");
    for length in [0, 1, 11, 16 * 1024 * 1024 + 1, u32::MAX] {
        let mut caller = connect(&machine);
        goes_on(&mut caller).await;
        caller.send(&words(&[length, 5, NO_OP, 0])).await;
        caller.closed().await;
    }
    until("no stream is left", || machine.streams() == 0).await;
}

#[tokio::test]
async fn jobs_before_a_broken_message_run() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let journal = folder.path().join("journal");
    let mut config = App::Counter.config();
    config.journal = Some(journal.clone());
    let machine = App::Counter.start(config).expect("starts");
    let mut caller = connect(&machine);
    let mut bytes = job(1, b"came-whole");
    bytes.extend(words(&[3]));
    caller.send(&bytes).await;
    until("the job has run", || std::fs::read_to_string(&journal).expect("is there") == "came-whole\n").await;
}

#[tokio::test]
async fn a_body_that_does_not_parse_is_malformed() {
    let mut caller = connect(&start("echo"));
    let mut non_zero_padding = job(4, b"hello");
    *non_zero_padding.last_mut().expect("not empty") = 1;
    let mut left_over = words(&[5, SEE_JOB, 0, 0]);
    left_over.extend(block(b"hello"));
    left_over.extend(words(&[0]));
    for (what, sent, tag) in [
        ("a NoOp with arguments", command(1, NO_OP, 0, &words(&[0])), 1),
        ("a SEEJob without arguments", command(2, SEE_JOB, 0, &[]), 2),
        ("a block that is longer than the body", command(3, SEE_JOB, 0, &words(&[0, 100, 0])), 3),
        ("padding that is not zero", non_zero_padding, 4),
        ("bytes left over", message(&left_over), 5),
        ("a block length near 4 GiB", command(6, SEE_JOB, 0, &words(&[0, u32::MAX])), 6),
        ("a length that is no multiple of 4", command(7, NO_OP, 0, &[0]), 7),
        ("a block without its padding", command(8, SEE_JOB, 0, &[0, 0, 0, 0, 1, 0, 0, 0, 9]), 8),
    ] {
        caller.send(&sent).await;
        let reply = caller.receive().await;
        assert_eq!((reply.tag, reply.status()), (tag, MALFORMED), "{what}");
        goes_on(&mut caller).await;
    }
}

#[tokio::test]
async fn unknown_commands_flags_and_worlds_are_named() {
    let mut caller = connect(&start("echo"));
    for (what, sent, tag, status) in [
        ("an unknown command", command(1, 4, 0, &[]), 1, UNKNOWN_COMMAND),
        ("ErrorReturn as a command", command(2, 0, 0, &[]), 2, UNKNOWN_COMMAND),
        ("what a machine does not know", command(3, GET_PUBLISHED_OBJECT, 0, &block(b"signer")), 3, UNKNOWN_COMMAND),
        ("a flag on a NoOp", command(4, NO_OP, 1, &[]), 4, INVALID_PARAMETER),
        ("flags on a SEEJob", command(5, SEE_JOB, 0x8000_0000, &words(&[0, 0])), 5, INVALID_PARAMETER),
    ] {
        caller.send(&sent).await;
        let reply = caller.receive().await;
        assert_eq!((reply.tag, reply.status()), (tag, status), "{what}");
        goes_on(&mut caller).await;
    }
    caller.send(&job_for(1, 9, b"for another world")).await;
    let expected = Reply { tag: 9, said: Said::Error(UNKNOWN_ID, Some("no such world".to_owned())) };
    assert_eq!(caller.receive().await, expected);
    goes_on(&mut caller).await;
}

#[tokio::test]
async fn a_tag_in_use_is_refused_and_its_first_job_not_disturbed() {
    let mut caller = connect(&start("slow:100"));
    let mut both = job(7, b"first");
    both.extend(job(7, b"second"));
    both.extend(command(7, NO_OP, 0, &[]));
    caller.send(&both).await;
    let refused = Reply { tag: 7, said: Said::Error(INVALID_PARAMETER, Some("tag in use".to_owned())) };
    assert_eq!(caller.receive().await, refused);
    assert_eq!(caller.receive().await, refused);
    assert_eq!(caller.receive().await, Reply { tag: 7, said: Said::Job(b"first".to_vec()) });
    assert_eq!(caller.run(7, b"free again").await.into_job(), b"free again");
}

#[tokio::test]
async fn a_caller_that_ends_within_a_message_or_half_closes_has_gone() {
    let machine = start("echo");
    for sent in [&job(1, b"whole")[..], &job(1, b"not whole")[..20], &[][..]] {
        let mut caller = connect(&machine);
        goes_on(&mut caller).await;
        caller.send(sent).await;
        caller.stream.shutdown().await.expect("half-closes");
        // What was answered before may still come; then the stream ends.
        let mut rest = Vec::new();
        soon(caller.stream.read_to_end(&mut rest)).await.expect("ends");
    }
    until("nothing is left", || machine.streams() == 0 && machine.jobs() == 0).await;
}

#[tokio::test]
async fn every_cut_of_a_batch_gives_the_same_answers() {
    let machine = start("echo");
    let mut bytes = Vec::new();
    for tag in 0..5 {
        bytes.extend(job(tag, &vec![b'x'; tag as usize * 3]));
        bytes.extend(no_op(100 + tag));
    }
    for cut in 1..bytes.len() {
        let mut caller = connect(&machine);
        caller.send(&bytes[..cut]).await;
        tokio::task::yield_now().await;
        caller.send(&bytes[cut..]).await;
        let mut replies = Vec::new();
        for _ in 0..10 {
            replies.push(caller.receive().await);
        }
        replies.sort_by_key(|reply| reply.tag);
        for (tag, reply) in (0..5).zip(&replies) {
            assert_eq!(*reply, Reply { tag, said: Said::Job(vec![b'x'; tag as usize * 3]) }, "cut at {cut}");
        }
        assert!(replies[5..].iter().all(|reply| reply.said == Said::NoOp), "cut at {cut}");
    }
}
