//! The SSH server: who may log in, and which channels they may open.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelOpenFailure, Disconnect, MethodKind, MethodSet, Preferred, SshId, kex};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};

use super::HsmLimits;
use super::forward::{Behind, forward};
use super::unblocked::Unblocked;
use crate::accept::Stopping;

/// The most bytes under one set of session keys (RFC 4253, section 9).
pub(super) const MAX_REKEY_BYTES: usize = 1 << 30;

/// How long session keys last.
const REKEY_AFTER: Duration = Duration::from_secs(3600);

/// When a refusal to log in is sent, from the request on: the same for an unknown user, an unknown key and a bad signature.
const REJECTION_TIME: Duration = Duration::from_millis(500);

/// How long a connection may be silent before it is asked whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How long a connection may be silent, or take no bytes, before it is given up.
const INACTIVITY_TIMEOUT: Duration = Duration::from_secs(120);

/// What a client may send on a channel before it is told to go on, in bytes.
const CHANNEL_WINDOW: u32 = 4 * 1024 * 1024;

/// Messages of a channel that wait for its machine. While there are so many, the connection is not read.
const CHANNEL_MESSAGES: usize = 256;

/// Messages of all channels that wait to be sent on a connection.
const CONNECTION_MESSAGES: usize = 64;

/// How long the word of goodbye may take.
const GOODBYE_GRACE: Duration = Duration::from_secs(1);

/// Key exchanges: the SSH library's own choice, and ECDH on the curves that callers under a FIPS policy are held to.
const KEY_EXCHANGES: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// What all connections of an HSM share.
pub(super) struct Shared {
    pub(super) ssh: Arc<server::Config>,
    pub(super) user: String,
    pub(super) authorized_keys: Vec<PublicKey>,
    pub(super) ports: HashMap<u16, Behind>,
    pub(super) connections: Arc<Semaphore>,
    pub(super) limits: HsmLimits,
}

impl Shared {
    fn is_authorized(&self, user: &str, key: &PublicKey, algorithm: &Algorithm) -> bool {
        // A signature over SHA-1 proves nothing any more.
        let is_sound = *algorithm != Algorithm::Rsa { hash: None };
        let is_known = self.authorized_keys.iter().any(|authorized| authorized.key_data() == key.key_data());
        is_sound && is_known && user == self.user
    }

    /// What is behind `host` and `port`, where that is a machine's address as it is seen inside the HSM.
    fn behind(&self, host: &str, port: u32) -> Option<&Behind> {
        let is_here = ["127.0.0.1", "::1"].contains(&host) || host.eq_ignore_ascii_case("localhost");
        self.ports.get(&u16::try_from(port).ok()?).filter(|_| is_here)
    }
}

/// What russh is told.
pub(super) fn ssh_config(host_key: PrivateKey, limits: &HsmLimits) -> server::Config {
    let rekey_bytes = limits.rekey_after_bytes.min(MAX_REKEY_BYTES);
    server::Config {
        server_id: SshId::Standard("SSH-2.0-SeewayEmulatedHSM".into()),
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: REJECTION_TIME,
        // OpenSSH's client always asks without a key first, to learn what it may try; that tells it nothing of a user.
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        preferred: Preferred { kex: Cow::Borrowed(KEY_EXCHANGES), ..Preferred::default() },
        limits: russh::Limits::new(rekey_bytes, rekey_bytes, REKEY_AFTER),
        window_size: CHANNEL_WINDOW,
        channel_buffer_size: CHANNEL_MESSAGES,
        event_buffer_size: CONNECTION_MESSAGES,
        max_auth_attempts: limits.max_auth_attempts,
        inactivity_timeout: Some(INACTIVITY_TIMEOUT),
        keepalive_interval: Some(KEEPALIVE),
        nodelay: true,
        ..server::Config::default()
    }
}

/// Serves one SSH connection to its end.
pub(super) async fn serve_connection(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, mut stopping: Stopping) {
    let Ok(_connection) = Arc::clone(&shared.connections).try_acquire_owned() else {
        let limit = shared.limits.max_connections;
        tracing::warn!(%peer, limit, "an SSH connection was closed at once: there are as many as may be (max_connections)");
        return;
    };
    let (stream, _closing) = match CloseOnDrop::split(stream) {
        Ok(split) => split,
        Err(error) => {
            tracing::warn!(%peer, %error, "an SSH connection could not be served");
            return;
        }
    };
    let (authenticated, mut is_authenticated) = watch::channel(false);
    let handler = Handler {
        channels: Arc::new(Semaphore::new(shared.limits.max_channels.min(Semaphore::MAX_PERMITS))),
        shared: Arc::clone(&shared),
        peer,
        authenticated,
    };
    let auth_deadline = tokio::time::Instant::now() + shared.limits.auth_timeout;
    let started = server::run_stream(Arc::clone(&shared.ssh), Unblocked::new(stream), handler);
    let mut session = match tokio::time::timeout_at(auth_deadline, started).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "what connected does not speak SSH");
            return;
        }
        Err(_) => return tracing::debug!(%peer, "what connected says nothing"),
    };
    let handle = session.handle();
    let too_late = async {
        let logged_in = is_authenticated.wait_for(|is_authenticated| *is_authenticated);
        if matches!(tokio::time::timeout_at(auth_deadline, logged_in).await, Ok(Ok(_))) {
            std::future::pending::<()>().await;
        }
        // Where the handler is gone, the session is about to end by itself, and then comes first.
        tokio::time::sleep_until(auth_deadline).await;
    };
    tokio::select! {
        ended = &mut session => match ended {
            Ok(()) => tracing::debug!(%peer, "an SSH connection ended"),
            Err(error) => tracing::debug!(%peer, %error, "an SSH connection broke"),
        },
        () = too_late => tracing::info!(%peer, "an SSH connection was closed: nobody logged in in time (auth_timeout)"),
        () = stopping.asked() => {
            let goodbye = async {
                let told = handle.disconnect(Disconnect::ByApplication, "the HSM stops".into(), String::new());
                if told.await.is_ok() {
                    // How it ends is of no interest any more.
                    let _ = session.await;
                }
            };
            let _ = tokio::time::timeout(GOODBYE_GRACE, goodbye).await;
        }
    }
}

/// Closes a socket that russh owns. A session of russh is a task of its own, which nothing else ends for sure.
struct CloseOnDrop(std::net::TcpStream);

impl CloseOnDrop {
    fn split(stream: TcpStream) -> std::io::Result<(TcpStream, Self)> {
        let stream = stream.into_std()?;
        let closing = Self(stream.try_clone()?);
        Ok((TcpStream::from_std(stream)?, closing))
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        // It may be closed already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// One connection's questions, answered.
struct Handler {
    shared: Arc<Shared>,
    peer: SocketAddr,
    /// Permits for the channels that may still be opened.
    channels: Arc<Semaphore>,
    authenticated: watch::Sender<bool>,
}

impl Handler {
    fn login(&self, user: &str, key: &PublicKey, algorithm: &Algorithm) -> Auth {
        if self.shared.is_authorized(user, key, algorithm) {
            return Auth::Accept;
        }
        let fingerprint = key.fingerprint(HashAlg::Sha256);
        tracing::info!(peer = %self.peer, user, %fingerprint, "a login was refused");
        Auth::reject()
    }
}

impl server::Handler for Handler {
    type Error = russh::Error;

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        Ok(self.login(user, offer.public_key, offer.algorithm))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(self.login(user, key.public_key, key.algorithm))
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), Self::Error> {
        tracing::info!(peer = %self.peer, user = self.shared.user, "logged in");
        self.authenticated.send_replace(true);
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host_to_connect: &str,
        port_to_connect: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(behind) = self.shared.behind(host_to_connect, port_to_connect) else {
            tracing::info!(
                peer = %self.peer, host = host_to_connect, port = port_to_connect,
                "a channel was refused: that is no machine of this HSM"
            );
            reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
            return Ok(());
        };
        let Ok(permit) = Arc::clone(&self.channels).try_acquire_owned() else {
            let limit = self.shared.limits.max_channels;
            tracing::info!(peer = %self.peer, limit, "a channel was refused: there are as many as may be (max_channels)");
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let behind = behind.clone();
        let peer = format!("{} over SSH", self.peer);
        tokio::spawn(async move {
            forward(behind, channel, reply, peer).await;
            drop(permit);
        });
        Ok(())
    }
}
