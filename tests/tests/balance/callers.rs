//! Callers that have jobs done, one after the other, and note what they are told of each try.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
use seeway_client::grpc::{Gateway as Client, SubmitOptions};
use seeway_tests::{process::Process, python, wait};
use tokio::task::JoinSet;

use crate::LINES;

/// How long a caller tries to get rid of one job.
const ATTEMPTS: usize = 500;

/// One try to have a job done, under a name of its own.
pub struct Attempt {
    /// Its name, which is all that the job says.
    pub id: String,
    /// What its caller was told.
    pub told: Told,
}

/// What a caller can be told; why, where there is no reply.
pub enum Told {
    Replied,
    Unknown(String),
    NotSent(String),
}

#[derive(Default)]
struct Progress {
    stop: AtomicBool,
    replies: AtomicU64,
    refusals: AtomicU64,
    ledger: Mutex<Vec<Attempt>>,
}

/// Callers in Rust that go on until they are told to stop.
pub struct Load {
    callers: JoinSet<()>,
    progress: Arc<Progress>,
}

impl Load {
    /// Starts some on each of these connections.
    pub fn start(clients: Vec<Client>) -> Self {
        let progress = Arc::new(Progress::default());
        let mut callers = JoinSet::new();
        for (connection, client) in clients.into_iter().enumerate() {
            for line in 0..LINES {
                callers.spawn(caller(client.clone(), format!("rust/{connection}/{line}"), Arc::clone(&progress)));
            }
        }
        Self { callers, progress }
    }

    /// Waits until they got so many further replies.
    pub async fn until_replies(&self, further: u64) {
        let wanted = self.progress.replies.load(Ordering::Relaxed) + further;
        let reached = || async { (self.progress.replies.load(Ordering::Relaxed) >= wanted).then_some(()) };
        wait::until_async("callers get replies", wait::BOUND, reached).await;
    }

    /// Tries in all that were told "not sent".
    pub fn refusals(&self) -> u64 {
        self.progress.refusals.load(Ordering::Relaxed)
    }

    /// Has them stop; what they were told.
    pub async fn end(self) -> Vec<Attempt> {
        self.progress.stop.store(true, Ordering::Relaxed);
        tokio::time::timeout(wait::BOUND, self.callers.join_all()).await.expect("every call ends");
        std::mem::take(&mut *self.progress.ledger.lock().expect("no caller panics while it holds this"))
    }
}

/// Has jobs done, one after the other. What was certainly not sent it sends again, until it gets rid of it.
async fn caller(client: Client, name: String, progress: Arc<Progress>) {
    let options = SubmitOptions { timeout: Some(Duration::from_secs(20)), ..SubmitOptions::default() };
    let note = |id, told| {
        progress.ledger.lock().expect("no caller panics while it holds this").push(Attempt { id, told });
    };
    for number in 1.. {
        if progress.stop.load(Ordering::Relaxed) {
            return;
        }
        for attempt in 1.. {
            let id = format!("{name}/{number}/{attempt}");
            match client.submit("pay", id.clone(), &options).await {
                Ok(done) => {
                    assert_eq!(done.reply.as_bytes(), id.as_bytes());
                    progress.replies.fetch_add(1, Ordering::Relaxed);
                    note(id, Told::Replied);
                    break;
                }
                Err(error) if error.may_have_run() => {
                    note(id, Told::Unknown(error.to_string()));
                    break;
                }
                Err(error) => {
                    assert!(attempt < ATTEMPTS, "{id}: {error}");
                    progress.refusals.fetch_add(1, Ordering::Relaxed);
                    note(id, Told::NotSent(error.to_string()));
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }
}

/// Callers in Python.
pub struct Python {
    process: Process,
    ledger: PathBuf,
}

impl Python {
    /// Starts them with these arguments; they write what they were told to `ledger`.
    pub fn start(ledger: PathBuf, arguments: Vec<String>) -> Self {
        let own = ["--ledger".to_owned(), ledger.display().to_string()];
        let mut process = python::start("balance_test.py", own.into_iter().chain(arguments));
        process.line("ready");
        Self { process, ledger }
    }

    /// Has them stop; what they were told.
    pub fn end(&mut self) -> Vec<Attempt> {
        self.process.signal(Signal::TERM);
        let status = self.process.exit(wait::BOUND);
        assert!(status.success(), "the callers in Python ended with {status}");
        let text = fs::read_to_string(&self.ledger).expect("they wrote it");
        let attempts = text.lines().map(|line| {
            let (id, told) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?} is no line of a ledger"));
            let told = match told.split_once(' ').unwrap_or((told, "")) {
                ("replied", _) => Told::Replied,
                ("unknown", why) => Told::Unknown(why.to_owned()),
                ("not-sent", why) => Told::NotSent(why.to_owned()),
                _ => panic!("{line:?} is no line of a ledger"),
            };
            Attempt { id: id.to_owned(), told }
        });
        attempts.collect()
    }
}
