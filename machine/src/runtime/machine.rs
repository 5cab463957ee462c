//! A machine: an application, its processors, and the streams that bring it jobs.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use seeway_proto::wire::{Limits, Profile};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::journal::Journal;
use super::processors::Queue;
use super::stream::{self, StreamEnd, Vitals};
use super::supervisor::{Factory, Supervisor};
use super::{Application, Job, Processors};

/// What a machine is made with. [`MachineConfig::default`] is good for most; change what differs. A limit of 0 counts
/// as 1.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// The machine's name, in logs and errors. `machine` by default.
    pub name: String,
    /// The numbers of the wire. `open-1` by default.
    pub profile: Arc<Profile>,
    /// The largest job and reply. 262 100 bytes by default.
    pub limits: Limits,
    /// Who runs the jobs. A thread for each core by default.
    pub processors: Processors,
    /// The file to append a line to for each job, before it runs. None by default. It holds the jobs' bytes; it is for
    /// tests.
    pub journal: Option<PathBuf>,
    /// The most streams that are served at once; those above are closed at once. 1024 by default.
    pub max_streams: usize,
    /// The most jobs of one stream that are unanswered at once; with so many, the stream is not read. 4096 by default.
    pub max_outstanding: usize,
    /// The most bytes that one stream may make the machine hold, as jobs and as replies that the caller does not take.
    /// With so many, the stream is not read. 256 MiB by default: as many of the largest jobs as a gateway has in flight
    /// (1024), so that a caller of good will never gets there.
    pub max_held_bytes: usize,
    /// The most jobs that wait for a processor thread; with so many, no stream is read. 4096 by default.
    pub max_queue: usize,
    /// A stream whose caller takes no byte of a reply for this long is closed. 60 s by default.
    pub stalled_after: Duration,
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self {
            name: "machine".to_owned(),
            profile: Profile::open_1(),
            limits: Limits::default(),
            processors: Processors::default(),
            journal: None,
            max_streams: 1024,
            max_outstanding: 4096,
            max_held_bytes: 256 * 1024 * 1024,
            max_queue: 4096,
            stalled_after: Duration::from_secs(60),
        }
    }
}

/// Why a machine does not start.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The journal can not be opened.
    #[error(
        "the journal {path} of the machine `{machine}` can not be opened: {source}; give a file that can be written"
    )]
    Journal {
        /// The machine's name.
        machine: String,
        /// The journal's path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A processor thread can not be started.
    #[error("the machine `{machine}` can not start a processor thread: {source}; give it fewer")]
    Thread {
        /// The machine's name.
        machine: String,
        /// What the system says.
        source: io::Error,
    },
}

/// A machine, shared by those that hold a clone of it. When the last one is dropped it is killed.
#[derive(Clone)]
pub struct Machine {
    inner: Arc<Inner>,
}

struct Inner {
    config: MachineConfig,
    factory: Factory,
    /// `None` while the machine is down.
    running: Mutex<Option<Arc<Running>>>,
}

impl Machine {
    /// Starts a machine that runs what `factory` makes. The factory is called again whenever the application has died, and
    /// by [`restart`](Self::restart): what it captures is the machine's non-volatile storage.
    ///
    /// # Panics
    /// If `factory` does, this first time.
    pub fn start<A, F>(config: MachineConfig, factory: F) -> Result<Self, MachineError>
    where
        A: Application,
        F: Fn() -> A + Send + Sync + 'static,
    {
        let factory: Factory = Arc::new(move || Arc::new(factory()));
        let running = Running::start(&config, &factory)?;
        Ok(Self { inner: Arc::new(Inner { config, factory, running: Mutex::new(Some(running)) }) })
    }

    /// The machine's name.
    pub fn name(&self) -> &str {
        &self.inner.config.name
    }

    /// Takes jobs from `stream` until it ends, the machine is killed, or this future is dropped. `peer` names the other
    /// end in the log.
    ///
    /// A stream that ends, a half-closed one too, means that its caller has gone: the jobs it brought run on, and their
    /// replies are dropped.
    pub async fn serve<S>(&self, stream: S, peer: &str)
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        let Some(running) = self.inner.running().clone() else {
            return;
        };
        running.serve(stream, peer).await;
    }

    /// Ends the machine as a power cut would: streams break, jobs are lost, nothing more is answered. Does nothing to one
    /// that is down.
    ///
    /// A processor thread that is within [`Application::run`] ends when that returns.
    pub fn kill(&self) {
        self.inner.kill();
    }

    /// Kills the machine if it is up, and starts it with a new instance of its application. Where that fails, it is down.
    ///
    /// # Panics
    /// If the factory does.
    pub fn restart(&self) -> Result<(), MachineError> {
        self.inner.kill();
        let running = Running::start(&self.inner.config, &self.inner.factory)?;
        // Somebody else may have started it meanwhile.
        if let Some(other) = self.inner.running().replace(running) {
            other.kill();
        }
        Ok(())
    }

    /// Whether the machine is up.
    pub fn is_up(&self) -> bool {
        self.inner.running().is_some()
    }

    /// How many streams are served.
    pub fn streams(&self) -> usize {
        self.inner.running().as_ref().map_or(0, |running| running.vitals.streams.load(Ordering::Relaxed))
    }

    /// How many jobs were taken and are not answered, those whose callers have gone included.
    pub fn jobs(&self) -> usize {
        self.inner.running().as_ref().map_or(0, |running| running.vitals.jobs.load(Ordering::Relaxed))
    }

    /// How often the application has died and was started again, since the machine was started.
    pub fn application_restarts(&self) -> u64 {
        self.inner.running().as_ref().map_or(0, |running| running.supervisor.restarts())
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("name", &self.name()).field("is_up", &self.is_up()).finish()
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, Option<Arc<Running>>> {
        // Only whole values are stored under this lock.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self) {
        let running = self.running().take();
        if let Some(running) = running {
            running.kill();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A machine between its start and its death.
pub(super) struct Running {
    pub(super) config: MachineConfig,
    pub(super) vitals: Arc<Vitals>,
    supervisor: Supervisor,
    journal: Option<Journal>,
    /// `None` where jobs run inline.
    queue: Option<Queue>,
    killed: watch::Sender<bool>,
}

impl Running {
    fn start(config: &MachineConfig, factory: &Factory) -> Result<Arc<Self>, MachineError> {
        let journal =
            config.journal.as_deref().map(Journal::open).transpose().map_err(|source| MachineError::Journal {
                machine: config.name.clone(),
                path: config.journal.clone().unwrap_or_default(),
                source,
            })?;
        let threads = match config.processors {
            Processors::Threads(count) => count.get(),
            Processors::Inline => 0,
        };
        let running = Arc::new(Self {
            config: config.clone(),
            vitals: Arc::default(),
            supervisor: Supervisor::start(&config.name, Arc::clone(factory)),
            journal,
            queue: (threads > 0).then(|| Queue::new(config.max_queue)),
            killed: watch::Sender::new(false),
        });
        for number in 0..threads {
            let processor = Arc::clone(&running);
            let started = thread::Builder::new().name(format!("processor-{number}")).spawn(move || processor.process());
            if let Err(source) = started {
                running.kill();
                return Err(MachineError::Thread { machine: config.name.clone(), source });
            }
        }
        Ok(running)
    }

    fn kill(&self) {
        // First of all, so that what is dropped below is not answered.
        self.vitals.is_dead.store(true, Ordering::Relaxed);
        self.killed.send_replace(true);
        if let Some(queue) = &self.queue {
            queue.close();
        }
        self.supervisor.stop();
    }

    /// Returns when the machine is killed.
    pub(super) async fn killed(&self) {
        // The sender is in `self`, so this can not fail.
        let _ = self.killed.subscribe().wait_for(|killed| *killed).await;
    }

    async fn serve<S>(&self, stream: S, peer: &str)
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        let machine = self.config.name.as_str();
        match stream::serve(self, stream).await {
            StreamEnd::Frame(error) => {
                tracing::warn!(machine, peer, length = error.length, %error, "a stream was closed");
            }
            end @ (StreamEnd::Stalled(_) | StreamEnd::TooMany(_)) => {
                tracing::warn!(machine, peer, %end, "a stream was closed");
            }
            end => tracing::debug!(machine, peer, %end, "a stream ended"),
        }
    }

    /// Sees to it that `jobs` run; waits while there are too many.
    pub(super) async fn take(&self, jobs: Vec<Job>) {
        match &self.queue {
            Some(queue) => queue.add(jobs).await,
            None => jobs.into_iter().for_each(|job| self.run(job)),
        }
    }

    /// A processor thread, from its start to its end.
    fn process(&self) {
        while let Some(job) = self.queue.as_ref().and_then(Queue::next) {
            self.run(job);
        }
    }

    fn run(&self, job: Job) {
        if let Some(journal) = &self.journal
            && let Err(error) = journal.record(job.bytes())
        {
            tracing::error!(machine = self.config.name, %error, "the journal can not be written; the job is refused");
            return job.refuse_as_not_available("the machine's journal can not be written");
        }
        self.supervisor.run(job);
    }
}
