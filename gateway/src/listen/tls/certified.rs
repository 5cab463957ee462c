//! Connections whose callers have shown a certificate: they end when the certificate is withdrawn, not when it suits them.
//!
//! A certificate is withdrawn when nobody could have connected with it, at the time when its caller did, by what counts now: it is
//! revoked, or its authority is none any more. The time is that of the handshake, so that a certificate that has expired since ends
//! nothing; and any other answer than yes counts, since a caller can have a chain fail in more than one way, and see to it that the
//! library names another one than the revocation.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::CertificateError::{ExpiredRevocationList, ExpiredRevocationListContext};
use rustls::Error::InvalidCertificate;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::oneshot;

/// What a caller has shown.
pub(super) struct Shown {
    /// Its own certificate, and then those between it and its authority.
    chain: Vec<CertificateDer<'static>>,
    at: UnixTime,
}

/// Those that are gone may be as many as those that are open, and so many besides, before they are thrown out.
const MOST_GONE: usize = 64;

/// The open connections of one listener.
#[derive(Default)]
pub(super) struct Certified(Mutex<Open>);

#[derive(Default)]
struct Open {
    connections: Vec<Connection>,
    /// How many were open when those that are gone were thrown out last.
    were_open: usize,
}

struct Connection {
    shown: Arc<Shown>,
    /// Sent to where the connection is read; closed when the connection is.
    withdrawn: oneshot::Sender<()>,
}

impl Certified {
    /// A connection has been made, and is open as long as what is returned; that resolves when the certificate is withdrawn.
    pub(super) fn add(&self, shown: Arc<Shown>) -> oneshot::Receiver<()> {
        let (withdrawn, told) = oneshot::channel();
        let mut open = self.lock();
        if open.connections.len() > open.were_open * 2 + MOST_GONE {
            open.connections.retain(|connection| !connection.withdrawn.is_closed());
            open.were_open = open.connections.len();
        }
        open.connections.push(Connection { shown, withdrawn });
        told
    }

    /// Ends the connections whose certificates are withdrawn, all of them where no certificates count any more; returns how many.
    pub(super) fn end_withdrawn(&self, verifier: Option<&dyn ClientCertVerifier>) -> usize {
        // Looking at a certificate takes about as long as making a connection: not under the lock.
        let all: Vec<_> = {
            let mut open = self.lock();
            open.connections.retain(|connection| !connection.withdrawn.is_closed());
            open.connections.iter().map(|connection| connection.shown.clone()).collect()
        };
        let withdrawn: HashSet<_> = all.iter().filter(|shown| shown.is_withdrawn(verifier)).map(Arc::as_ptr).collect();
        if withdrawn.is_empty() {
            return 0;
        }
        let is_withdrawn = |connection: &mut Connection| withdrawn.contains(&Arc::as_ptr(&connection.shown));
        let ended: Vec<Connection> = self.lock().connections.extract_if(.., is_withdrawn).collect();
        ended.into_iter().filter_map(|connection| connection.withdrawn.send(()).ok()).count()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shown {
    /// Just now, by whoever was let in with it.
    pub(super) fn now(chain: &[CertificateDer<'static>]) -> Arc<Self> {
        Arc::new(Self { chain: chain.to_vec(), at: UnixTime::now() })
    }

    /// Whether somebody has withdrawn it since. A list that is overdue withdraws nothing; it keeps out whoever comes next.
    pub(super) fn is_withdrawn(&self, verifier: Option<&dyn ClientCertVerifier>) -> bool {
        let (Some(verifier), Some((own, between))) = (verifier, self.chain.split_first()) else { return true };
        match verifier.verify_client_cert(own, between, self.at) {
            Ok(_) | Err(InvalidCertificate(ExpiredRevocationList | ExpiredRevocationListContext { .. })) => false,
            Err(_) => true,
        }
    }
}
