//! Accepting TCP connections and looking after their tasks; the SEEJobs listener and the HSM's SSH server stand on it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How long to let be after a connection could not be accepted: mostly the process has run out of file descriptors, and
/// trying at once again would only burn a core until one is free.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// Tells a connection's task that it is to end.
#[derive(Clone)]
pub(crate) struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Returns when the listener is to stop, or is gone.
    pub(crate) async fn asked(&mut self) {
        // An error means that the sender is gone, which says the same.
        let _ = self.0.wait_for(|stopping| *stopping).await;
    }
}

/// A bound port and a task for each connection to it. Dropping it closes the port and aborts the tasks.
pub(crate) struct Acceptor {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Acceptor {
    /// Binds `address` (port 0: any free one) and runs `serve` for each connection, on the current tokio runtime.
    pub(crate) async fn start<S, F>(address: SocketAddr, serve: S) -> io::Result<Self>
    where
        S: Fn(TcpStream, SocketAddr, Stopping) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (stopping, asked) = watch::channel(false);
        let task = tokio::spawn(accept_until_stopped(listener, serve, Stopping(asked)));
        Ok(Self { address, stopping, task })
    }

    /// The address that was bound.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more, asks the connections' tasks to end, and aborts those that have not within `grace`.
    pub(crate) async fn stop(mut self, grace: Duration) {
        self.stopping.send_replace(true);
        if tokio::time::timeout(grace, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept_until_stopped<S, F>(listener: TcpListener, serve: S, stopping: Stopping)
where
    S: Fn(TcpStream, SocketAddr, Stopping) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut asked = stopping.clone();
    loop {
        tokio::select! {
            () = asked.asked() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Small replies must not wait for the ACK of the ones before them.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%peer, %error, "TCP_NODELAY could not be set");
                    }
                    connections.spawn(serve(stream, peer, stopping.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}
