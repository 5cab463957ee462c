//! Agreeing on TLS with whoever connects: on the control plane, so that it holds up no shard, and with a limit on how many at once.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use super::stream;
use crate::access::{Identity, certificate};
use crate::config::{Stamp, Tls, TlsFileError};

/// How often the files are looked at.
const WATCH: Duration = Duration::from_secs(2);

/// One listener's side of TLS.
pub struct Terminator {
    /// For the log and the metrics.
    listener: &'static str,
    protocols: &'static [&'static [u8]],
    now: Mutex<Now>,
    places: Arc<Semaphore>,
    counts: Counts,
}

/// What is shown and asked for now.
struct Now {
    settings: Tls,
    stamp: Stamp,
    server: Arc<ServerConfig>,
}

/// How handshakes and reloads went.
#[derive(Debug, Default)]
struct Counts {
    done: AtomicU64,
    failed: AtomicU64,
    late: AtomicU64,
    refused: AtomicU64,
    reloaded: AtomicU64,
    not_reloaded: AtomicU64,
}

/// The same, as read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsCounts {
    /// Handshakes that ended with a connection.
    pub done: u64,
    /// That failed: no certificate, a bad or a revoked one, nothing in common, garbage.
    pub failed: u64,
    /// That took longer than `handshake_timeout`.
    pub late: u64,
    /// Connections that were closed because there were `handshakes` already.
    pub refused: u64,
    /// How often the files were read again with success.
    pub reloaded: u64,
    /// And without: the last good ones stay.
    pub not_reloaded: u64,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took too long.
    #[error("nothing was agreed on within {0:?} (handshake_timeout)")]
    TimedOut(Duration),
    /// The two did not come together.
    #[error("{0}")]
    Failed(#[from] io::Error),
    /// The certificate is good and names nobody.
    #[error(transparent)]
    NoName(#[from] certificate::NoName),
}

impl Terminator {
    /// Reads the files.
    ///
    /// # Errors
    /// The first that will not do.
    pub fn new(
        listener: &'static str,
        settings: &Tls,
        protocols: &'static [&'static [u8]],
    ) -> Result<Arc<Self>, TlsFileError> {
        let places = Arc::new(Semaphore::new(settings.handshakes));
        let now = Mutex::new(Now::read(settings, protocols)?);
        Ok(Arc::new(Self { listener, protocols, now, places, counts: Counts::default() }))
    }

    /// Which listener it is of.
    pub fn listener(&self) -> &'static str {
        self.listener
    }

    /// How handshakes and reloads went.
    pub fn counts(&self) -> TlsCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { done, failed, late, refused, reloaded, not_reloaded } = &self.counts;
        TlsCounts {
            done: read(done),
            failed: read(failed),
            late: read(late),
            refused: read(refused),
            reloaded: read(reloaded),
            not_reloaded: read(not_reloaded),
        }
    }

    /// A place for one more handshake, if there is one.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.places.clone().try_acquire_owned().ok();
        if place.is_none() && self.counts.refused.fetch_add(1, Ordering::Relaxed) == 0 {
            // Said once for the first of many; the metric has the rest.
            tracing::warn!(
                listener = self.listener,
                "a connection was closed: as many as `handshakes` are agreeing on TLS"
            );
        }
        place
    }

    /// Agrees on TLS; returns the connection, ready to leave this runtime, and who is at its other end.
    ///
    /// # Errors
    /// They do not agree, in time.
    pub async fn shake_hands(&self, stream: TcpStream) -> Result<(Box<stream::Tls>, Identity), HandshakeError> {
        let shaken = self.try_shake_hands(stream).await;
        let counts = &self.counts;
        let count = match &shaken {
            Ok(_) => &counts.done,
            Err(HandshakeError::TimedOut(_)) => &counts.late,
            Err(HandshakeError::Failed(_) | HandshakeError::NoName(_)) => &counts.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        shaken
    }

    async fn try_shake_hands(&self, stream: TcpStream) -> Result<(Box<stream::Tls>, Identity), HandshakeError> {
        let (server, limit) = {
            let now = self.lock();
            (now.server.clone(), now.settings.handshake_timeout)
        };
        let shaking = TlsAcceptor::from(server).accept(stream::Movable::new(stream));
        let mut stream = tokio::time::timeout(limit, shaking).await.map_err(|_| HandshakeError::TimedOut(limit))??;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let identity = shown.map_or_else(|| Ok(Identity::anonymous()), |shown| certificate::identity(shown))?;
        stream.get_mut().0.leave()?;
        Ok((Box::new(stream), identity))
    }

    /// Goes by other settings, or by other files of the same names, from now on. Where they will not do the last good ones stay.
    pub fn reload(&self, settings: &Tls) {
        match Now::read(settings, self.protocols) {
            Ok(now) => {
                *self.lock() = now;
                self.counts.reloaded.fetch_add(1, Ordering::Relaxed);
                tracing::info!(listener = self.listener, "certificates were read again");
            }
            Err(error) => {
                // Not tried again before something changes.
                self.lock().stamp = settings.stamp();
                self.counts.not_reloaded.fetch_add(1, Ordering::Relaxed);
                tracing::error!(listener = self.listener, %error, "certificates have changed and can not be used; the last ones stay");
            }
        }
    }

    /// Reads the files again whenever they change. Does not end.
    pub async fn watch(&self) {
        loop {
            tokio::time::sleep(WATCH).await;
            let settings = {
                let now = self.lock();
                (now.settings.stamp() != now.stamp).then(|| now.settings.clone())
            };
            if let Some(settings) = settings {
                self.reload(&settings);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    fn read(settings: &Tls, protocols: &[&[u8]]) -> Result<Self, TlsFileError> {
        // Before the files: what changes while they are read is seen afterwards.
        let stamp = settings.stamp();
        Ok(Self { settings: settings.clone(), stamp, server: settings.load(protocols)? })
    }
}
