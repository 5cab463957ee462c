//! The thread that a shard's large jobs are encrypted and decrypted on, beside the shard's own.
//!
//! A large job takes a hundred times what a small one takes, most of it inside the SSH library, which goes on as long as there is
//! something to read or to write. On the shard's thread each small job would wait for some of it. So the tunnels of large jobs,
//! and they alone, run on a thread beside, to which the system gives what the others leave: large jobs have all of a processor
//! that nobody else wants, and small ones do not notice them. What a job is and where it goes is still the shard's business:
//! only bytes cross.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// How far it stands back behind the other threads of this process, as a nice value: it gets a tenth of the time where another
/// one wants all of it.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// A thread that begins with the first work for it. It ends when the last clone is dropped, and what still runs on it is dropped
/// with it.
#[derive(Clone, Default)]
pub(super) struct Aside {
    thread: Arc<Mutex<Option<Thread>>>,
}

struct Thread {
    runtime: Handle,
    _stop: oneshot::Sender<()>,
}

impl Aside {
    /// Runs `work` there, and whatever that spawns. Dropping this ends `work`.
    ///
    /// Where the system gives no further thread it runs on this one, which is slower for others and otherwise the same.
    pub(super) async fn run<W>(&self, work: W) -> W::Output
    where
        W: Future<Output: Send> + Send + 'static,
    {
        match self.runtime() {
            Ok(runtime) => {
                let mut running = JoinSet::new();
                running.spawn_on(work, &runtime);
                let done = running.join_next().await.expect("it was spawned");
                done.expect("it does not panic, and its thread lives as long as this")
            }
            Err(error) => {
                tracing::warn!(%error, "there is no thread for large jobs: their tunnel shares that of the small ones");
                work.await
            }
        }
    }

    fn runtime(&self) -> io::Result<Handle> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = &*thread {
            return Ok(thread.runtime.clone());
        }
        let begun = Thread::begin()?;
        Ok(thread.insert(begun).runtime.clone())
    }
}

impl Thread {
    fn begin() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let handle = runtime.handle().clone();
        let name = format!("{}-bulk", std::thread::current().name().unwrap_or("shard"));
        std::thread::Builder::new().name(name).spawn(move || {
            stand_back();
            // An error is what it waits for: the sender is gone.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, _stop: stop })
    }
}

/// Has the system prefer other threads to this one. Where it does not, large jobs only take more than they should.
#[cfg(target_os = "linux")]
fn stand_back() {
    // On Linux a nice value is a thread's.
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "the thread for large jobs does not stand back");
    }
}

/// Elsewhere a nice value is the whole process's.
#[cfg(not(target_os = "linux"))]
fn stand_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_runs_aside_and_what_it_spawns_too() {
        let aside = Aside::default();
        assert!(aside.thread.lock().expect("no panic").is_none(), "no work, no thread");
        let here = std::thread::current().id();
        let thread = || std::thread::current().id();
        let there = aside.run(async move { thread() }).await;
        let spawned = aside.run(async move { tokio::spawn(async move { thread() }).await.expect("no panic") }).await;
        assert_ne!(there, here);
        assert_eq!(spawned, there, "it is one thread");
    }

    #[tokio::test]
    async fn it_ends_and_so_does_what_runs_on_it() {
        let aside = Aside::default();
        let (kept, dropped) = oneshot::channel::<()>();
        aside
            .run(async move {
                tokio::spawn(async move {
                    let _kept = kept;
                    std::future::pending::<()>().await;
                });
            })
            .await;
        // Whoever gives up waiting has it ended.
        let (kept_too, dropped_too) = oneshot::channel::<()>();
        {
            let mut given_up = std::pin::pin!(aside.run(async move {
                let _kept = kept_too;
                std::future::pending::<()>().await;
            }));
            let is_over =
                std::future::poll_fn(|cx| std::task::Poll::Ready(given_up.as_mut().poll(cx).is_ready())).await;
            assert!(!is_over);
        }
        dropped_too.await.expect_err("it is dropped");
        drop(aside);
        dropped.await.expect_err("it is dropped");
    }
}
