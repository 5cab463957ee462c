//! Agreeing on TLS with whoever connects: on the control plane, so that it holds up no shard, and with a limit on how many at once.

mod certified;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::server::danger::ClientCertVerifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::stream;
use crate::access::{Identity, certificate};
use crate::config::{Ends, Loaded, Stamp, Tls, TlsFileError};
use crate::places::{Peer, Place, Places};
use crate::seldom::{Seldom, Tell};
use certified::{Certified, Shown};

/// How often the files are looked at.
const WATCH: Duration = Duration::from_secs(2);

/// One listener's side of TLS.
pub struct Terminator {
    /// For the log and the metrics.
    listener: &'static str,
    protocols: &'static [&'static [u8]],
    now: Mutex<Now>,
    places: Arc<Places>,
    /// Whose callers have shown a certificate.
    certified: Certified,
    counts: Counts,
}

/// What is shown and asked for now.
struct Now {
    settings: Tls,
    stamp: Stamp,
    loaded: Loaded,
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
    withdrawn: AtomicU64,
}

/// The same, as read, and how long that goes on.
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
    /// Open connections that were closed because their certificates were withdrawn.
    pub withdrawn: u64,
    /// Until when what it goes by is of use.
    pub ends: Ends,
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
    /// The certificate was good when the handshake began.
    #[error("the client certificate was withdrawn meanwhile")]
    Withdrawn,
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
        let places = Places::new(settings.handshakes, settings.peer_handshakes);
        let now = Mutex::new(Now::read(settings, settings.stamp(), protocols)?);
        let (certified, counts) = (Certified::default(), Counts::default());
        Ok(Arc::new(Self { listener, protocols, now, places, certified, counts }))
    }

    /// Which listener it is of.
    pub fn listener(&self) -> &'static str {
        self.listener
    }

    /// How handshakes and reloads went.
    pub fn counts(&self) -> TlsCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { done, failed, late, refused, reloaded, not_reloaded, withdrawn } = &self.counts;
        TlsCounts {
            done: read(done),
            failed: read(failed),
            late: read(late),
            refused: read(refused),
            reloaded: read(reloaded),
            not_reloaded: read(not_reloaded),
            withdrawn: read(withdrawn),
            ends: self.lock().loaded.ends,
        }
    }

    /// How many handshakes there are now, and how many there may be.
    pub fn handshakes(&self) -> (usize, usize) {
        (self.places.taken(), self.places.limit())
    }

    /// How much of `handshakes` is used, 0 to 1.
    pub fn used(&self) -> f64 {
        let (taken, limit) = (self.places.taken(), self.places.limit().max(1));
        #[allow(clippy::cast_precision_loss)] // Both are far below 2^52.
        let used = taken as f64 / limit as f64;
        used.min(1.0)
    }

    /// A place for one more handshake, if there is one.
    pub fn place(&self, peer: Peer) -> Option<Place> {
        static TOO_MANY: Seldom = Seldom::new("a connection was closed: `handshakes` or `peer_handshakes` is reached");
        let place = self.places.take(peer);
        if place.is_none() {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
        }
        if place.is_none()
            && let Some(Tell { untold }) = TOO_MANY.tell(self.listener)
        {
            tracing::warn!(
                listener = self.listener,
                ?peer,
                untold,
                "a connection was closed: as many as `handshakes` are agreeing on TLS, or as `peer_handshakes` of this peer's"
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
            Err(HandshakeError::Failed(_) | HandshakeError::NoName(_) | HandshakeError::Withdrawn) => &counts.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        shaken
    }

    async fn try_shake_hands(&self, stream: TcpStream) -> Result<(Box<stream::Tls>, Identity), HandshakeError> {
        let (server, limit) = {
            let now = self.lock();
            (now.loaded.server.clone(), now.settings.handshake_timeout)
        };
        let shaking = TlsAcceptor::from(server.clone()).accept(stream::Movable::new(stream));
        let mut stream = tokio::time::timeout(limit, shaking).await.map_err(|_| HandshakeError::TimedOut(limit))??;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let Some(own) = shown.first() else {
            stream.get_mut().0.leave()?;
            return Ok((Box::new(stream::Tls::new(stream, None)), Identity::anonymous()));
        };
        let identity = certificate::identity(own)?;
        let shown = Shown::now(shown);
        let withdrawn = self.certified.add(shown.clone());
        // Whoever was looked at by the last verifier, and was not yet among those that are open when that was replaced.
        let now = self.lock().loaded.clone();
        if !Arc::ptr_eq(&now.server, &server) && shown.is_withdrawn(now.verifier.as_deref()) {
            return Err(HandshakeError::Withdrawn);
        }
        stream.get_mut().0.leave()?;
        Ok((Box::new(stream::Tls::new(stream, Some(withdrawn))), identity))
    }

    /// Goes by other settings, or by other files of the same names, from now on. Where they will not do the last good ones stay. Open
    /// connections stay too, but for those whose certificates are withdrawn by it: these are closed soon after it returns.
    pub fn reload(self: &Arc<Self>, settings: &Tls) {
        let stamp = settings.stamp();
        match Now::read(settings, stamp.clone(), self.protocols) {
            Ok(now) => {
                let verifier = now.loaded.verifier.clone();
                *self.lock() = now;
                self.counts.reloaded.fetch_add(1, Ordering::Relaxed);
                tracing::info!(listener = self.listener, "certificates were read again");
                let terminator = self.clone();
                // With thousands of callers it takes a while, and the control plane has others to serve.
                tokio::task::spawn_blocking(move || terminator.end_withdrawn(verifier.as_deref()));
            }
            Err(error) => {
                // Not tried again before something changes.
                self.lock().stamp = stamp;
                self.counts.not_reloaded.fetch_add(1, Ordering::Relaxed);
                tracing::error!(listener = self.listener, %error, "certificates have changed and can not be used; the last ones stay");
            }
        }
    }

    fn end_withdrawn(&self, verifier: Option<&dyn ClientCertVerifier>) {
        let connections = self.certified.end_withdrawn(verifier);
        if connections > 0 {
            self.counts.withdrawn.fetch_add(connections as u64, Ordering::Relaxed);
            tracing::warn!(
                listener = self.listener,
                connections,
                "connections were closed: their certificates are revoked, or by an authority that is none any more"
            );
        }
    }

    /// Reads the files again whenever they change. Does not end.
    pub async fn watch(self: &Arc<Self>) {
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
    /// `stamp` is from before: what changes while the files are read is seen afterwards.
    fn read(settings: &Tls, stamp: Stamp, protocols: &[&[u8]]) -> Result<Self, TlsFileError> {
        Ok(Self { settings: settings.clone(), stamp, loaded: settings.load(protocols)? })
    }
}
