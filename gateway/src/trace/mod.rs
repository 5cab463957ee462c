//! Traces: a span for each job that is sampled, sent to a collector by OTLP over gRPC.
//!
//! The shards' [`Tracer`]s decide at a job's admission whether it is sampled, make a span of it at its end, and hand over what a call of
//! the shard has ended. A [`Tracing`] for each gateway has a task on the control plane's thread that sends them. No job waits for it:
//! spans that there is no room for are dropped, and counted. `docs/tracing.md` says what a span has.

mod context;
mod exporter;
mod queue;
mod sampler;
mod span;
mod tracer;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub use context::Context;
pub use queue::SpanCounts;
pub use tracer::Tracer;

use exporter::Exporter;
use queue::Queue;

use crate::config::Config;

/// How long the last spans may take to be sent when the gateway ends.
const LAST_EXPORT: Duration = Duration::from_secs(3);

/// `[trace]`, where spans are made.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `trace.endpoint`: where the collector is.
    pub endpoint: Collector,
    /// `trace.sample_ratio`: which part of the jobs is sampled whose callers do not say, 0 to 1.
    pub ratio: f64,
    /// `trace.service_name`: what spans say that they are of.
    pub service_name: String,
    /// `trace.ca`: what the collector's certificate must lead to; `None`: what the system trusts.
    pub ca: Option<PathBuf>,
    /// `trace.authorization`: the file with the header that the collector wants.
    pub authorization: Option<PathBuf>,
    /// `trace.timeout`: how long a request may take; not zero.
    pub timeout: Duration,
    /// `trace.interval`: how often spans are sent; not zero.
    pub interval: Duration,
    /// `trace.queue`: how many spans may wait; not zero.
    pub queue: usize,
}

/// A collector's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Whether TLS is spoken. Where not, the host is this computer.
    pub is_tls: bool,
    /// A name or an IP address, an IPv6 one in brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for Collector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(formatter, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// What the shards' tracers and the exporter share.
#[derive(Debug)]
struct Shared {
    queue: Queue,
    /// The bits of the ratio, which a reload may change.
    ratio: AtomicU64,
}

impl Shared {
    #[inline]
    fn ratio(&self) -> f64 {
        f64::from_bits(self.ratio.load(Ordering::Relaxed))
    }
}

/// The traces of one gateway.
#[derive(Debug)]
pub struct Tracing {
    shared: Arc<Shared>,
    /// Names of worlds and machines.
    config: Arc<RwLock<Arc<Config>>>,
    stop: Arc<Notify>,
    exporter: Mutex<Option<JoinHandle<()>>>,
}

impl Tracing {
    /// Starts what a configuration asks for; `None` where it asks for no traces. To be called on the control plane's runtime.
    pub fn start(config: &Arc<Config>) -> Option<Arc<Self>> {
        let settings = config.trace.as_ref()?;
        let ratio = AtomicU64::new(settings.ratio.to_bits());
        let shared = Arc::new(Shared { queue: Queue::new(settings.queue), ratio });
        let config = Arc::new(RwLock::new(config.clone()));
        let stop = Arc::new(Notify::new());
        let exporter = Exporter::new(settings.clone(), shared.clone(), config.clone());
        let exporter = tokio::spawn(exporter.run(stop.clone()));
        Some(Arc::new(Self { shared, config, stop, exporter: Mutex::new(Some(exporter)) }))
    }

    /// The tracer of a shard. Each has one.
    pub fn tracer(&self) -> Tracer {
        Tracer::new(self.shared.clone())
    }

    /// Goes by another configuration, of which everything but `trace.sample_ratio` is as it was.
    pub fn reconfigure(&self, config: &Arc<Config>) {
        if let Some(settings) = &config.trace {
            self.shared.ratio.store(settings.ratio.to_bits(), Ordering::Relaxed);
        }
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config.clone();
    }

    /// What became of spans.
    pub fn counts(&self) -> SpanCounts {
        self.shared.queue.counts()
    }

    /// Sends what waits, as far as that can be done in a few seconds, and ends. What is left counts as dropped. Does nothing the second
    /// time.
    pub async fn end(&self) {
        let exporter = self.exporter.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut exporter) = exporter else { return };
        self.stop.notify_one();
        if tokio::time::timeout(LAST_EXPORT, &mut exporter).await.is_err() {
            exporter.abort();
            // What it had taken is counted where it is dropped.
            let _ = exporter.await;
        }
        let mut left = 0;
        loop {
            let batch = self.shared.queue.take();
            if batch.is_empty() {
                break;
            }
            left += batch.len();
        }
        self.shared.queue.dropped(left);
        let SpanCounts { dropped, failed, .. } = self.counts();
        if dropped + failed > 0 {
            tracing::warn!(dropped, failed, "spans that no collector has, since the gateway started");
        }
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        if let Some(exporter) = self.exporter.lock().unwrap_or_else(PoisonError::into_inner).take() {
            exporter.abort();
        }
    }
}
