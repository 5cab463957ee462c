//! Callers that behave: one on the legacy wire and one on gRPC, with one small job at a time each. What they wait is what an attack
//! is judged by.
//!
//! Each has a thread and a runtime of its own, so that an attacker's tasks do not hold it up in this process.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use seeway_bench::{Target, grpc::GrpcCaller, wire::WireCaller};
use seeway_proto::v1::stream_response::Result as JobResult;
use seeway_proto::wire::ReplyBody;

/// Between an answer and the next job: so that the machine is not busy with these alone.
const PAUSE: Duration = Duration::from_micros(700);

/// Latencies of one window, in microseconds, in order.
pub struct Latencies(Vec<u64>);

impl Latencies {
    fn new(mut latencies: Vec<u64>) -> Self {
        latencies.sort_unstable();
        Self(latencies)
    }

    /// How many jobs there were.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// That which this share of all stay below, in thousandths.
    pub fn permille(&self, share: usize) -> u64 {
        let last = self.0.len().checked_sub(1).expect("a window has jobs");
        self.0[(self.0.len() * share / 1000).min(last)]
    }
}

/// A caller on a thread of its own.
pub struct Victim {
    windows: Option<Sender<Duration>>,
    measured: Receiver<Latencies>,
    thread: Option<JoinHandle<()>>,
}

impl Victim {
    /// Connects to a front end, and sends its jobs to this world.
    pub fn start(target: Target, world: &'static str) -> Self {
        let (windows, wanted) = channel::<Duration>();
        let (results, measured) = channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut caller = Caller::connect(&target, world).await;
                while let Ok(window) = wanted.recv() {
                    let measured = measure(&mut caller, window).await;
                    if results.send(measured).is_err() {
                        return;
                    }
                }
            });
        });
        Self { windows: Some(windows), measured, thread: Some(thread) }
    }

    /// Begins a window.
    pub fn begin(&self, window: Duration) {
        let windows = self.windows.as_ref().expect("it is there until it is dropped");
        windows.send(window).expect("a caller that behaves has lost its connection");
    }

    /// What the window has shown, once it is over.
    pub fn end(&self) -> Latencies {
        self.measured.recv().expect("a caller that behaves had a job that failed")
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        drop(self.windows.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a caller that behaves was harmed");
        }
    }
}

enum Caller {
    Wire(Box<WireCaller<u64>>, u32),
    Grpc(GrpcCaller, &'static str),
}

impl Caller {
    async fn connect(target: &Target, world: &'static str) -> Self {
        if let Target::Grpc(address) = target {
            return Self::Grpc(GrpcCaller::connect(address, 4).await.unwrap_or_else(|error| panic!("{error}")), world);
        }
        let mut caller = WireCaller::connect(target, 4).await.unwrap_or_else(|error| panic!("{error}"));
        let handle = caller.open_world(world, 0).await.unwrap_or_else(|error| panic!("{error}"));
        Self::Wire(Box::new(caller), handle)
    }

    async fn job(&mut self, number: u64) {
        match self {
            Self::Wire(caller, world) => {
                caller.stage(*world, &number.to_le_bytes(), number).expect("one at a time");
                let answer = caller.exchange(|answered, reply| {
                    let right = matches!(reply, ReplyBody::Job(reply) if reply.0 == number.to_le_bytes());
                    assert!(right && answered == number, "the reply to job {number}: {reply:?}");
                });
                answer.await.unwrap_or_else(|error| panic!("{error}"));
            }
            Self::Grpc(caller, world) => {
                let job = Bytes::copy_from_slice(&number.to_le_bytes());
                caller.send(number, world, job.clone()).await.unwrap_or_else(|error| panic!("{error}"));
                let answer = caller.next().await.unwrap_or_else(|error| panic!("{error}"));
                let right = matches!(&answer.result, Some(JobResult::Reply(reply)) if reply.reply == job);
                assert!(right && answer.id == number, "the reply to job {number}: {answer:?}");
            }
        }
    }
}

async fn measure(caller: &mut Caller, window: Duration) -> Latencies {
    let mut latencies = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < window {
        let sent = Instant::now();
        caller.job(latencies.len() as u64).await;
        latencies.push(u64::try_from(sent.elapsed().as_micros()).expect("tests are short"));
        std::thread::sleep(PAUSE);
    }
    Latencies::new(latencies)
}
