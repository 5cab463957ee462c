//! Which log lines are shown, and how that is changed while the gateway runs.
//!
//! [`command::logging`](crate::command::logging) installs it when the process starts; the admin port's `/log` changes it. Whatever is
//! asked for, lines of libraries below INFO are never shown: they may repeat the bytes that pass through them.

use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::Filter;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, filter, reload};

/// The longest filter, in bytes.
pub const FILTER_LIMIT: usize = 1024;

/// The longest time for which a filter is set that is to go by itself.
pub const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The filter of this process, once logging has started.
static INSTALLED: OnceLock<LogFilter> = OnceLock::new();

/// What has the process go by another filter.
type Apply = Box<dyn Fn(EnvFilter) -> Result<(), FilterError> + Send + Sync>;

/// The filter that log lines go through.
pub struct LogFilter {
    apply: Apply,
    state: Mutex<State>,
    /// Notified when there is another one, with a time of its own.
    changed: Notify,
}

struct State {
    now: String,
    /// Until when, where it is to go by itself; then [`lasting`](Self::lasting) comes back.
    until: Option<Instant>,
    /// The last one that was not to go by itself.
    lasting: String,
    /// The one that the process was started with.
    first: String,
}

/// What is shown now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The filter, as `SEEWAY_LOG` would have it.
    pub filter: String,
    /// How long it stays, and what comes back then; `None`: until it is changed.
    pub then: Option<(Duration, String)>,
}

/// Why the filter is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It can't be read.
    #[error(
        "the filter is not understood: {0}; write a level (info, debug, trace), or targets such as seeway::upstream=debug,info"
    )]
    NotUnderstood(String),
    /// It is too long.
    #[error("the filter has {0} bytes, and may have {FILTER_LIMIT}; name fewer targets")]
    TooLong(usize),
    /// It is to stay for no time, or for too long.
    #[error("a filter that goes by itself stays for at least 1s and at most 24h")]
    Duration,
    /// Nothing in this process looks at it.
    #[error("this process's log can not be changed: {0}; start it anew with another SEEWAY_LOG")]
    Fixed(String),
}

/// Reads a filter, as `SEEWAY_LOG` and `POST /log` have it.
///
/// # Errors
/// It is too long, or not understood.
pub fn parse(text: &str) -> Result<EnvFilter, FilterError> {
    if text.len() > FILTER_LIMIT {
        return Err(FilterError::TooLong(text.len()));
    }
    // Values of fields are compared as they are: a pattern of somebody else's could take long.
    let builder = EnvFilter::builder().with_regex(false);
    builder.parse(text).map_err(|error| FilterError::NotUnderstood(error.to_string()))
}

/// Whether a line may be shown whatever the filter is: it is ours, or its library says it at INFO or above.
fn is_harmless(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_ours = target.strip_prefix("seeway").is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '_']));
    is_ours || *metadata.level() <= LevelFilter::INFO
}

/// A layer that shows what the filter lets through, and the filter's handle.
pub fn filtered<S, L>(layer: L, first: &str) -> Result<(impl Layer<S> + use<S, L>, LogFilter), FilterError>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    L: Layer<S>,
    EnvFilter: Filter<S>,
{
    let (wanted, handle) = reload::Layer::<EnvFilter, S>::new(parse(first)?);
    let layer = layer.with_filter(filter::filter_fn(is_harmless)).with_filter(wanted);
    let apply = move |filter| handle.reload(filter).map_err(|error| FilterError::Fixed(error.to_string()));
    let [now, lasting, first] = [(); 3].map(|()| first.to_owned());
    let state = Mutex::new(State { now, until: None, lasting, first });
    Ok((layer, LogFilter { apply: Box::new(apply), state, changed: Notify::new() }))
}

impl LogFilter {
    /// Makes it the one of this process. Nothing happens where there is one already.
    pub fn install(self) {
        // Logging starts once in a process's life.
        let _ = INSTALLED.set(self);
    }

    /// The one of this process; `None` where nothing is logged.
    pub fn of_process() -> Option<&'static Self> {
        INSTALLED.get()
    }

    /// What is shown now.
    pub fn shown(&self) -> Shown {
        let state = self.lock();
        let then = state.until.map(|until| (until.saturating_duration_since(Instant::now()), state.lasting.clone()));
        Shown { filter: state.now.clone(), then }
    }

    /// Shows something else from now on, or for a time; `None`: what the process was started with.
    ///
    /// # Errors
    /// Why it shows what it showed before.
    pub fn set(&self, filter: Option<&str>, lasts: Option<Duration>) -> Result<Shown, FilterError> {
        if lasts.is_some_and(|lasts| lasts < Duration::from_secs(1) || lasts > LONGEST) {
            return Err(FilterError::Duration);
        }
        let mut state = self.lock();
        let filter = filter.unwrap_or(&state.first).to_owned();
        (self.apply)(parse(&filter)?)?;
        state.until = lasts.map(|lasts| Instant::now() + lasts);
        if lasts.is_none() {
            state.lasting.clone_from(&filter);
        }
        state.now = filter;
        drop(state);
        self.changed.notify_one();
        Ok(self.shown())
    }

    /// Has what was shown before come back when it is time. Runs for as long as the gateway does.
    pub async fn keep_time(&self) {
        loop {
            let until = self.lock().until;
            let Some(until) = until else {
                self.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(until.into()) => self.go_back(Instant::now()),
                () = self.changed.notified() => {}
            }
        }
    }

    /// Has what was shown before come back, where it is time.
    fn go_back(&self, now: Instant) {
        let mut state = self.lock();
        if state.until.is_none_or(|until| until > now) {
            return;
        }
        state.until = None;
        let lasting = state.lasting.clone();
        // It was understood before.
        let applied = parse(&lasting).and_then(|filter| (self.apply)(filter));
        if applied.is_ok() {
            state.now.clone_from(&lasting);
        }
        drop(state);
        match applied {
            Ok(()) => tracing::info!(filter = lasting, "the log shows what it showed before"),
            Err(error) => tracing::warn!(%error, "the log goes on to show more or less than it is to"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("LogFilter").field("shown", &self.shown()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        /// What was written since the last time.
        fn take(&self) -> String {
            let bytes = std::mem::take(&mut *self.0.lock().expect("no panic"));
            String::from_utf8(bytes).expect("text")
        }
    }

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'l> MakeWriter<'l> for Lines {
        type Writer = Self;

        fn make_writer(&'l self) -> Self {
            self.clone()
        }
    }

    fn say() {
        tracing::debug!(target: "seeway::upstream", "of-ours");
        tracing::trace!(target: "seeway_client", "of-our-client");
        tracing::debug!(target: "seewayside", "of-a-library-with-a-name-like-ours");
        tracing::debug!(target: "russh::client", "bytes-of-a-library");
        tracing::trace!(target: "h2", "bytes-of-another");
        tracing::info!(target: "russh::client", "harmless");
    }

    #[test]
    fn whatever_is_asked_for_libraries_say_nothing_below_info() {
        let lines = Lines::default();
        let layer = tracing_subscriber::fmt::layer().with_writer(lines.clone()).with_ansi(false);
        let (layer, filter) = filtered(layer, "info").expect("understood");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            say();
            let first = lines.take();
            assert!(first.contains("harmless") && !first.contains("of-"), "{first}");
            for wanted in [
                "trace",
                "debug,russh=trace,h2=trace,seeway_client=trace,seewayside=trace",
                "russh::client=trace,seeway=trace",
            ] {
                let shown = filter.set(Some(wanted), None).expect("understood");
                assert_eq!(shown, Shown { filter: wanted.to_owned(), then: None });
                say();
                let more = lines.take();
                assert!(more.contains("of-ours") && !more.contains("of-a"), "{wanted}: {more}");
                assert!(more.contains("of-our-client") && more.contains("harmless"), "{wanted}: {more}");
            }
            filter.set(None, None).expect("understood");
            say();
            assert!(!lines.take().contains("of-"), "it shows what it showed when it started");
        });
    }

    #[test]
    fn what_is_for_a_time_goes_by_itself_to_what_was_to_last() {
        let layer = tracing_subscriber::fmt::layer().with_writer(io::sink);
        let (layer, filter) = filtered::<tracing_subscriber::Registry, _>(layer, "warn").expect("understood");
        let _subscriber = tracing_subscriber::registry().with(layer);
        filter.set(Some("info"), None).expect("understood");
        for wanted in ["debug", "trace"] {
            let shown = filter.set(Some(wanted), Some(Duration::from_secs(600))).expect("understood");
            let (left, then) = shown.then.expect("it goes");
            assert!(left > Duration::from_secs(590) && then == "info");
        }
        filter.go_back(Instant::now());
        assert_eq!(filter.shown().filter, "trace", "it is not time yet");
        filter.go_back(Instant::now() + Duration::from_secs(601));
        assert_eq!(filter.shown(), Shown { filter: "info".into(), then: None });
    }

    #[test]
    fn what_is_no_filter_changes_nothing() {
        let layer = tracing_subscriber::fmt::layer().with_writer(io::sink);
        let (layer, filter) = filtered::<tracing_subscriber::Registry, _>(layer, "warn").expect("understood");
        let _subscriber = tracing_subscriber::registry().with(layer);
        let long = "a".repeat(FILTER_LIMIT + 1);
        assert_eq!(filter.set(Some(&long), None), Err(FilterError::TooLong(FILTER_LIMIT + 1)));
        for wrong in ["seeway=loud", "=", "seeway=debug,a=b=c"] {
            let refused = filter.set(Some(wrong), None);
            assert!(matches!(refused, Err(FilterError::NotUnderstood(_))), "{wrong}: {refused:?}");
        }
        for lasts in [Duration::ZERO, LONGEST + Duration::from_secs(1)] {
            assert_eq!(filter.set(Some("info"), Some(lasts)), Err(FilterError::Duration));
        }
        assert_eq!(filter.shown().filter, "warn");
    }
}
