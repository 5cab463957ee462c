//! Connections whose callers have shown a certificate: they end when the certificate is withdrawn, not when it suits them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::oneshot;

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
    /// Its own certificate, and then those between it and its authority.
    chain: Arc<[CertificateDer<'static>]>,
    /// Sent to where the connection is read; closed when the connection is.
    withdrawn: oneshot::Sender<()>,
}

impl Certified {
    /// A connection has been made, and is open as long as what is returned; that resolves when the certificate is withdrawn.
    pub(super) fn add(&self, chain: Arc<[CertificateDer<'static>]>) -> oneshot::Receiver<()> {
        let (withdrawn, told) = oneshot::channel();
        let mut open = self.lock();
        if open.connections.len() > open.were_open * 2 + MOST_GONE {
            open.connections.retain(|connection| !connection.withdrawn.is_closed());
            open.were_open = open.connections.len();
        }
        open.connections.push(Connection { chain, withdrawn });
        told
    }

    /// Ends the connections whose certificates are revoked now, or are by an authority that does not count any more; returns how many.
    /// One that has merely expired ends nothing, nor does a list that is overdue: both keep out whoever comes next.
    pub(super) fn end_withdrawn(&self, verifier: &dyn ClientCertVerifier) -> usize {
        // Looking at a certificate takes about as long as making a connection: not under the lock.
        let chains: Vec<_> = {
            let mut open = self.lock();
            open.connections.retain(|connection| !connection.withdrawn.is_closed());
            open.connections.iter().map(|connection| connection.chain.clone()).collect()
        };
        let withdrawn: Vec<_> = chains.into_iter().filter(|chain| is_withdrawn(verifier, chain)).collect();
        if withdrawn.is_empty() {
            return 0;
        }
        let is_withdrawn =
            |connection: &mut Connection| withdrawn.iter().any(|chain| Arc::ptr_eq(chain, &connection.chain));
        let ended: Vec<Connection> = self.lock().connections.extract_if(.., is_withdrawn).collect();
        ended.into_iter().filter_map(|connection| connection.withdrawn.send(()).ok()).count()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether nobody could connect with this certificate any more because somebody wants it so.
pub(super) fn is_withdrawn(verifier: &dyn ClientCertVerifier, chain: &[CertificateDer<'static>]) -> bool {
    let Some((own, between)) = chain.split_first() else { return false };
    let verified = verifier.verify_client_cert(own, between, UnixTime::now());
    matches!(
        verified,
        Err(rustls::Error::InvalidCertificate(CertificateError::Revoked | CertificateError::UnknownIssuer))
    )
}
