//! Machines and applications: replies out of order, deaths and restarts, limits, the journal.

mod support;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use seeway_machine::apps::App;
use seeway_machine::runtime::{Application, Job, Machine, MachineConfig, MachineError, Processors, SeejobsListener};
use support::*;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;

/// An application that is a function.
struct Running<F>(F);

impl<F: Fn(Job) + Send + Sync + 'static> Application for Running<F> {
    fn run(&self, job: Job) {
        (self.0)(job);
    }
}

fn start_app(app: &str) -> Machine {
    let app: App = app.parse().expect("an application");
    app.start(app.config()).expect("starts")
}

/// A machine that runs `run` on as many threads, or inline for 0.
fn start(threads: usize, run: impl Fn(Job) + Clone + Send + Sync + 'static) -> Machine {
    start_with(MachineConfig { processors: processors(threads), ..MachineConfig::default() }, run)
}

fn start_with(config: MachineConfig, run: impl Fn(Job) + Clone + Send + Sync + 'static) -> Machine {
    Machine::start(config, move || Running(run.clone())).expect("starts")
}

fn processors(threads: usize) -> Processors {
    NonZeroUsize::new(threads).map_or(Processors::Inline, Processors::Threads)
}

fn echo(job: Job) {
    let (bytes, reply_to) = job.split();
    reply_to.reply(bytes.filled());
}

fn connect(machine: &Machine) -> Caller<DuplexStream> {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let machine = machine.clone();
    tokio::spawn(async move { machine.serve(theirs, "test").await });
    Caller::new(ours)
}

#[tokio::test]
async fn jobs_run_at_the_same_time_and_replies_come_as_they_are_ready() {
    let (first_goes_on, waits) = std::sync::mpsc::channel();
    let waits = Arc::new(Mutex::new(waits));
    let machine = start(2, move |job| {
        if job.bytes() == b"first" {
            waits.lock().expect("one waits").recv().expect("is told");
        }
        echo(job);
    });
    let mut caller = connect(&machine);
    caller.send(&job(1, b"first")).await;
    // While the first occupies one thread, the other answers all these.
    for tag in 2..100 {
        assert_eq!(caller.run(tag, &tag.to_le_bytes()).await.into_job(), tag.to_le_bytes());
    }
    first_goes_on.send(()).expect("it waits");
    assert_eq!(caller.receive().await, Reply { tag: 1, said: Said::Job(b"first".to_vec()) });
}

#[tokio::test]
async fn every_processor_thread_gets_work_from_one_batch() {
    const THREADS: usize = 4;
    // Each job waits until as many run at once.
    let all_run = Arc::new(Barrier::new(THREADS));
    let machine = start(THREADS, move |job| {
        all_run.wait();
        echo(job);
    });
    let mut caller = connect(&machine);
    let batch: Vec<u8> = (0..16).flat_map(|tag| job(tag, b"x")).collect();
    caller.send(&batch).await;
    for _ in 0..16 {
        assert_eq!(caller.receive().await.into_job(), b"x");
    }
}

#[tokio::test]
async fn slow_holds_many_jobs_and_others_pass_them() {
    let machine = start_app("slow:300");
    let mut caller = connect(&machine);
    let begun = Instant::now();
    let batch: Vec<u8> = (0..1000).flat_map(|tag| job(tag, &u32::to_le_bytes(tag))).collect();
    caller.send(&batch).await;
    caller.send(&no_op(5000)).await;
    assert_eq!(caller.receive().await, Reply { tag: 5000, said: Said::NoOp });
    let mut seen = vec![false; 1000];
    for _ in 0..1000 {
        let reply = caller.receive().await;
        assert!(!std::mem::replace(&mut seen[reply.tag as usize], true), "tag {} was answered twice", reply.tag);
        let tag = reply.tag;
        assert_eq!(reply.into_job(), tag.to_le_bytes());
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(took < Duration::from_secs(30), "a thousand at once, not one after the other: {took:?}");
}

#[tokio::test]
async fn a_job_that_is_dropped_or_dies_with_its_application_says_that_the_world_failed() {
    for threads in [0, 1, 2] {
        let instances = Arc::new(AtomicUsize::new(0));
        let made = Arc::clone(&instances);
        let holds = Arc::new(AtomicUsize::new(0));
        let held_so_far = Arc::clone(&holds);
        // Holds every job that says so, for as long as the instance lives.
        let config = MachineConfig { processors: processors(threads), ..MachineConfig::default() };
        let machine = Machine::start(config, move || {
            made.fetch_add(1, Ordering::Relaxed);
            let held = Mutex::new(Vec::new());
            let held_so_far = Arc::clone(&held_so_far);
            Running(move |job: Job| match job.bytes() {
                b"hold" => {
                    held.lock().expect("nobody panics here").push(job);
                    held_so_far.fetch_add(1, Ordering::Relaxed);
                }
                b"drop" => drop(job),
                b"die" => std::panic::resume_unwind(Box::new("dies")),
                _ => echo(job),
            })
        })
        .expect("starts");
        let mut caller = connect(&machine);

        assert_eq!(caller.run(1, b"drop").await.status(), SEE_WORLD_FAILED);
        assert_eq!(instances.load(Ordering::Relaxed), 1, "dropping a job is no death");

        caller.send(&[job(10, b"hold"), job(11, b"hold")].concat()).await;
        until("both are held", || holds.load(Ordering::Relaxed) == 2).await;
        caller.send(&job(13, b"die")).await;
        let mut failed = Vec::new();
        while failed.len() < 3 {
            let reply = caller.receive().await;
            assert_eq!(reply.status(), SEE_WORLD_FAILED);
            failed.push(reply.tag);
        }
        failed.sort_unstable();
        assert_eq!(failed, [10, 11, 13], "with {threads} threads");
        until("it is replaced", || machine.application_restarts() == 1).await;
        assert_eq!(caller.run(14, b"alive").await.into_job(), b"alive");
        assert_eq!(instances.load(Ordering::Relaxed), 2);
        assert_eq!(machine.jobs(), 0);
    }
}

#[tokio::test]
async fn faulty_answers_that_the_world_failed_and_goes_on() {
    let machine = start_app("faulty:0.5");
    let mut caller = connect(&machine);
    let (mut failed, mut echoed) = (0_u64, 0);
    for tag in 0..500 {
        match caller.run(tag, b"x").await.said {
            Said::Job(bytes) => {
                assert_eq!(bytes, b"x");
                echoed += 1;
            }
            Said::Error(SEE_WORLD_FAILED, _) => failed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(failed > 100 && echoed > 100, "{failed} failed, {echoed} echoed");
    until("each death is counted", || machine.application_restarts() == failed).await;
}

#[tokio::test]
async fn an_application_that_does_not_start_again_refuses_jobs_without_running_them() {
    let starts = Arc::new(AtomicUsize::new(0));
    let machine =
        Machine::start(MachineConfig { processors: Processors::Inline, ..MachineConfig::default() }, move || {
            // Its second and third start fail.
            let start = starts.fetch_add(1, Ordering::Relaxed);
            if start == 1 || start == 2 {
                std::panic::resume_unwind(Box::new("does not start"));
            }
            Running(
                |job: Job| if job.bytes() == b"die" { std::panic::resume_unwind(Box::new("dies")) } else { echo(job) },
            )
        })
        .expect("starts");
    let mut caller = connect(&machine);
    assert_eq!(caller.run(1, b"die").await.status(), SEE_WORLD_FAILED);
    assert_eq!(caller.run(2, b"x").await.status(), NOT_AVAILABLE);
    assert_eq!(caller.run(3, b"x").await.into_job(), b"x");
}

#[tokio::test]
async fn an_applications_own_status_passes_and_no_other() {
    let machine = start(1, |job| match job.bytes() {
        b"own" => job.fail(0x0001_0000, Some("no such key")),
        b"silent" => job.fail(u32::MAX, None),
        b"ok" => job.fail(0, None),
        _ => job.fail(7, Some("queue full")),
    });
    let mut caller = connect(&machine);
    assert_eq!(caller.run(1, b"own").await.said, Said::Error(0x0001_0000, Some("no such key".to_owned())));
    assert_eq!(caller.run(2, b"silent").await.said, Said::Error(u32::MAX, None));
    assert_eq!(caller.run(3, b"ok").await.status(), SEE_WORLD_FAILED);
    assert_eq!(caller.run(4, b"other").await.status(), SEE_WORLD_FAILED);
}

#[tokio::test]
async fn a_reply_past_the_limit_is_said_to_be() {
    let machine = start(1, |job| job.reply(&vec![0; 262_101]));
    let Said::Error(SEE_WORLD_FAILED, Some(info)) = connect(&machine).run(1, b"").await.said else {
        panic!("such a reply can not be sent");
    };
    assert!(info.contains("larger than the limit"), "{info}");
}

#[tokio::test]
async fn sign_makes_signatures_that_its_public_key_verifies() {
    let machine = start_app("sign");
    let mut caller = connect(&machine);
    let public_key = caller.run(1, b"pubkey").await.into_job();
    assert_eq!(public_key.len(), 32);
    for (tag, message) in (2..).zip([&b""[..], b"a document", b"pubkey ", &[0xff; 10_000]]) {
        let signature = caller.run(tag, message).await.into_job();
        UnparsedPublicKey::new(&ED25519, &public_key).verify(message, &signature).expect("verifies");
    }
    let signature = caller.run(9, b"a document").await.into_job();
    assert!(UnparsedPublicKey::new(&ED25519, &public_key).verify(b"another", &signature).is_err());

    machine.restart().expect("starts again");
    let same = connect(&machine).run(1, b"pubkey").await.into_job();
    assert_eq!(same, public_key, "the key outlives the machine's restart");
    let other = connect(&start_app("sign")).run(1, b"pubkey").await.into_job();
    assert_ne!(other, public_key, "each machine has a key of its own");
}

#[tokio::test]
async fn counter_counts_across_connections_and_restarts() {
    let machine = start_app("counter");
    let mut count = 0;
    for _ in 0..3 {
        for _ in 0..2 {
            let mut caller = connect(&machine);
            for _ in 0..4 {
                count += 1;
                assert_eq!(caller.run(1, b"id").await.into_job(), u64::to_le_bytes(count));
            }
        }
        machine.restart().expect("starts again");
    }
}

#[tokio::test]
async fn a_jobs_line_is_in_the_journal_before_the_application_sees_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("journal");
    for threads in [0, 2] {
        std::fs::write(&path, "").expect("empties it");
        let config =
            MachineConfig { processors: processors(threads), journal: Some(path.clone()), ..MachineConfig::default() };
        let seen = path.clone();
        let machine = start_with(config, move |job| job.reply(&std::fs::read(&seen).expect("reads")));
        let mut caller = connect(&machine);
        assert_eq!(caller.run(1, b"one").await.into_job(), b"one\n");
        assert_eq!(caller.run(2, b"\x00\x01").await.into_job(), b"one\nhex:0001\n");
        machine.restart().expect("starts again");
        let after_restart = connect(&machine).run(3, b"three").await.into_job();
        assert_eq!(after_restart, b"one\nhex:0001\nthree\n", "it is appended to");
    }
}

#[tokio::test]
async fn a_job_that_can_not_be_journalled_does_not_run() {
    // Writing to it always fails: the device is full.
    let config = MachineConfig { journal: Some(PathBuf::from("/dev/full")), ..MachineConfig::default() };
    let machine = start_with(config, |_| panic!("it must not run"));
    assert_eq!(connect(&machine).run(1, b"x").await.status(), NOT_AVAILABLE);
    assert_eq!(machine.application_restarts(), 0);
}

#[tokio::test]
async fn a_journal_that_can_not_be_opened_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let journal = Some(folder.path().join("missing/journal"));
    let config = MachineConfig { name: "signer-a".to_owned(), journal, ..MachineConfig::default() };
    let error = App::Echo.start(config).expect_err("the folder is missing");
    assert!(matches!(error, MachineError::Journal { .. }));
    let text = error.to_string();
    assert!(text.contains("missing/journal") && text.contains("signer-a"), "{text}");
}

#[tokio::test]
async fn many_callers_each_get_their_own_replies() {
    for threads in [0, 3] {
        let machine = start(threads, echo);
        let listener = SeejobsListener::start(machine.clone(), "127.0.0.1:0".parse().expect("an address"));
        let listener = listener.await.expect("listens");
        let address = listener.address();
        let callers = (0..16_u32).map(|number| {
            tokio::spawn(async move {
                let mut caller = Caller::new(TcpStream::connect(address).await.expect("connects"));
                for round in 0..20_u32 {
                    let jobs = (0..50).map(|tag| (tag, [number, round, tag]));
                    let batch: Vec<u8> = jobs.flat_map(|(tag, id)| job(tag, &words(&id))).collect();
                    caller.send(&batch).await;
                    for _ in 0..50 {
                        let reply = caller.receive().await;
                        let expected = words(&[number, round, reply.tag]);
                        assert_eq!(reply.into_job(), expected);
                    }
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            soon(caller).await.expect("no caller got another's reply");
        }
        until("nothing is left", || machine.jobs() == 0 && machine.streams() == 0).await;
        listener.stop().await;
        assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
    }
}

#[tokio::test]
async fn ipv6_is_listened_on_too() {
    let listener = SeejobsListener::start(start_app("echo"), "[::1]:0".parse().expect("an address")).await;
    let listener = listener.expect("listens");
    let mut caller = Caller::new(TcpStream::connect(listener.address()).await.expect("connects"));
    assert_eq!(caller.run(1, b"over IPv6").await.into_job(), b"over IPv6");
    let machine = start_app("echo");
    let error = SeejobsListener::start(machine, listener.address()).await.err().expect("the port is taken").to_string();
    assert!(error.contains(&listener.address().to_string()), "{error}");
}

#[tokio::test]
async fn all_limits_at_their_tightest_still_let_every_job_through() {
    for threads in [0, 1, 3] {
        let config = MachineConfig {
            processors: processors(threads),
            max_outstanding: 2,
            max_queue: 1,
            max_held_bytes: 1,
            ..MachineConfig::default()
        };
        let machine = start_with(config, echo);
        let (ours, theirs) = tokio::io::duplex(100);
        let served = machine.clone();
        tokio::spawn(async move { served.serve(theirs, "test").await });
        let (from_machine, mut to_machine) = tokio::io::split(ours);
        let sending = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            for tag in 0..200 {
                to_machine.write_all(&job(tag, &vec![b'x'; tag as usize * 7])).await.expect("is taken");
            }
            to_machine
        });
        let mut caller = Caller::new(tokio::io::join(from_machine, tokio::io::sink()));
        let mut seen = Vec::new();
        for _ in 0..200 {
            let reply = caller.receive().await;
            seen.push(reply.tag);
            let len = reply.tag as usize * 7;
            assert_eq!(reply.into_job().len(), len);
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..200));
        sending.await.expect("all was sent");
    }
}

#[tokio::test]
async fn a_caller_that_takes_no_replies_is_not_read_for_ever_and_then_closed() {
    let config = MachineConfig {
        max_held_bytes: 1024 * 1024,
        stalled_after: Duration::from_millis(200),
        processors: Processors::Inline,
        ..MachineConfig::default()
    };
    let machine = start_with(config, echo);
    let mut caller = connect(&machine);
    let message = job(1, &vec![7; 100_000]);
    let mut sent = 0;
    let refused = soon(async {
        use tokio::io::AsyncWriteExt as _;
        loop {
            match caller.stream.write(&message[sent % message.len()..]).await {
                Ok(count) => sent += count,
                Err(error) => return error,
            }
        }
    })
    .await;
    assert_eq!(refused.kind(), std::io::ErrorKind::BrokenPipe);
    assert!(sent < 2 * 1024 * 1024, "{sent} bytes were taken from a caller that takes none");
    until("nothing is left", || machine.streams() == 0 && machine.jobs() == 0).await;
}

#[tokio::test]
async fn there_are_only_so_many_streams() {
    let config = MachineConfig { max_streams: 2, ..MachineConfig::default() };
    let machine = start_with(config, echo);
    let mut first = connect(&machine);
    let mut second = connect(&machine);
    assert_eq!(first.run(1, b"x").await.into_job(), b"x");
    assert_eq!(second.run(1, b"x").await.into_job(), b"x");
    connect(&machine).closed().await;
    drop(first);
    until("there is room", || machine.streams() == 1).await;
    assert_eq!(connect(&machine).run(1, b"x").await.into_job(), b"x");
}

#[tokio::test]
async fn a_killed_machine_breaks_its_streams_loses_its_jobs_and_can_be_started_again() {
    let machine = start_app("slow:3600000");
    let mut caller = connect(&machine);
    caller.send(&job(1, b"is lost")).await;
    until("it is held", || machine.jobs() == 1).await;
    machine.kill();
    caller.closed().await;
    assert!(!machine.is_up());
    connect(&machine).closed().await;
    machine.kill();

    machine.restart().expect("starts again");
    assert!(machine.is_up());
    assert_eq!(machine.jobs(), 0);
    let mut caller = connect(&machine);
    caller.send(&no_op(2)).await;
    assert_eq!(caller.receive().await.said, Said::NoOp);
}

#[tokio::test]
async fn a_machine_that_nobody_holds_is_gone() {
    for threads in [0, 2] {
        let alive = Arc::new(());
        let seen = Arc::downgrade(&alive);
        let machine = start(threads, move |job| {
            let _ = &alive;
            echo(job);
        });
        let mut caller = connect(&machine);
        assert_eq!(caller.run(1, b"x").await.into_job(), b"x");
        assert_eq!(format!("{machine:?}"), "Machine { name: \"machine\", is_up: true }");
        drop(machine);
        // The stream's task holds it as long as the caller is there.
        assert_eq!(caller.run(2, b"x").await.into_job(), b"x");
        drop(caller);
        until("the application and its threads are gone", || seen.strong_count() == 0).await;
    }
}
