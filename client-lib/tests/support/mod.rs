//! What the tests of several ways in need: a SEEJob machine, and, for tunnels, a small SSH server and a TCP proxy that can be
//! told to misbehave. The latter two run on threads of their own, so that a test can count the tasks that a tunnel leaves
//! on its runtime.

// Every test of this folder is a crate of its own, and uses a part of this one.
#![allow(dead_code)]

#[cfg(feature = "stream")]
pub mod machine;
pub mod proxy;
#[cfg(feature = "tunnel")]
pub mod ssh_server;

use std::future::Future;
use std::time::Duration;

use tokio::sync::oneshot;

/// More than anything here takes on the slowest machine; only a failure waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits what must happen.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not happen in {PATIENCE:?}"))
}

/// Awaits a condition of something that can not be awaited.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// A thread with a runtime; both end when it is dropped.
pub struct Background {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Background {
    pub fn run<F: Future<Output = ()>>(main: impl FnOnce() -> F + Send + 'static) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = main() => {}
                    _ = stopped => {}
                }
            });
        });
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
