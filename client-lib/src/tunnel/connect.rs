//! The steps from an address to a tunnel: name, TCP, handshake with the host key, login.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, AuthResult, Handle};
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg};
use russh::{MethodSet, Preferred, SshId, cipher};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use super::error::{Attempt, TunnelError};
use super::handler::Events;
use super::host_key::Verdict;
use super::identity::fingerprint;
use super::options::{MAX_REKEY_BYTES, Options};
use super::shared::Shared;
use super::socket::{Pulse, Socket};
use super::{CutOnDrop, Tunnel, watchdog};

/// How much the server may have on its way to us, for each channel: enough for 1 Gbit/s over 60 ms. It also bounds what
/// may arrive while keys are exchanged (the SSH library gives up above twice this), and a busy tunnel exchanges keys every
/// few seconds.
const WINDOW_SIZE: u32 = 8 * 1024 * 1024;

/// The largest packet the server may send: what OpenSSH's own client says. With more, its server exchanges keys far too often:
/// it compares the next packet's bytes with the limit in cipher blocks (`ssh_packet_need_rekeying`), so that at 64 KiB and
/// `RekeyLimit 1M` every second packet starts a key exchange of 3 ms.
const MAX_PACKET_SIZE: u32 = 32 * 1024;

/// The library's own queue for each channel, which is not used (see `inbox`).
const UNUSED_QUEUE: usize = 1;

/// The fastest first, where the processor has instructions for AES. The last is for servers that have none of the others.
const CIPHERS: &[cipher::Name] =
    &[cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305, cipher::AES_256_CTR];

/// The fastest first, where it has none.
const CIPHERS_WITHOUT_AES: &[cipher::Name] =
    &[cipher::CHACHA20_POLY1305, cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::AES_256_CTR];

fn ciphers() -> &'static [cipher::Name] {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has_aes = std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has_aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has_aes = false;
    if has_aes { CIPHERS } else { CIPHERS_WITHOUT_AES }
}

pub(super) async fn connect(options: &Options) -> Result<Tunnel, TunnelError> {
    let attempt = Attempting { options, server: options.server.to_string().into(), deadline: deadline(options) };
    let (stream, round_trip) = attempt.tcp().await?;
    let (cut, handle) = attempt.handshake(stream, round_trip).await?;
    let shared = Arc::clone(&cut.0);
    let handle = attempt.login(&shared, handle).await?;
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    // Makes an OpenSSH server set TCP_NODELAY, which cures the stall that `window_adjusted` tells of. It may refuse.
    let stall_cure = handle.channel_open_session().await.ok();
    let handle = Arc::new(handle);
    let runtime = tokio::runtime::Handle::current();
    runtime.spawn(watchdog::watch(Arc::clone(&shared), Arc::clone(&handle), watchdog::Times::from(options)));
    Ok(Tunnel {
        shared,
        handle,
        runtime,
        open_timeout: options.connect_timeout,
        gives_way: options.gives_way,
        _cut: cut,
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        _stall_cure: stall_cure,
    })
}

fn deadline(options: &Options) -> Instant {
    Instant::now() + options.connect_timeout
}

struct Attempting<'a> {
    options: &'a Options,
    server: Arc<str>,
    deadline: Instant,
}

impl Attempting<'_> {
    fn timed_out(&self, what: &'static str) -> TunnelError {
        TunnelError::TimedOut { server: self.server.to_string(), what, limit: self.options.connect_timeout }
    }

    /// A connection to the first of the server's addresses that takes one, and how long that took: a round trip.
    async fn tcp(&self) -> Result<(TcpStream, Duration), TunnelError> {
        let server = || self.server.to_string();
        let endpoint = &self.options.server;
        let addresses: Vec<_> = timeout_at(self.deadline, lookup_host((endpoint.host.as_str(), endpoint.port)))
            .await
            .map_err(|_| self.timed_out("resolving the name"))?
            .map_err(|error| TunnelError::Resolve { server: server(), error })?
            .collect();
        let mut attempts = Vec::new();
        for (index, address) in addresses.iter().copied().enumerate() {
            // An address that does not answer leaves the others their share of the time.
            let left = self.deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
            let begun = Instant::now();
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok((stream, begun.elapsed())),
                Ok(Err(error)) => attempts.push(Attempt { address, error }),
                Err(_) => attempts.push(Attempt { address, error: io::ErrorKind::TimedOut.into() }),
            }
        }
        if attempts.is_empty() {
            let error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            return Err(TunnelError::Resolve { server: server(), error });
        }
        Err(TunnelError::Connect { server: server(), attempts })
    }

    async fn handshake(
        &self,
        stream: TcpStream,
        round_trip: Duration,
    ) -> Result<(CutOnDrop, Handle<Events>), TunnelError> {
        let failed =
            |error: io::Error| TunnelError::Handshake { server: self.server.to_string(), why: error.to_string() };
        stream.set_nodelay(true).map_err(failed)?;
        let socket = socket2::SockRef::from(&stream).try_clone().map_err(failed)?;
        let shared = Shared::new(Arc::clone(&self.server), socket, Pulse::new());
        // The library's task would outlive a handshake that is given up.
        let cut = CutOnDrop(Arc::clone(&shared));
        let events = Events { shared: Arc::clone(&shared), host_key: self.options.host_key.clone() };
        let mut socket = Socket::new(stream, Arc::clone(&shared.pulse));
        if self.options.gives_way {
            socket.acknowledge_at_once();
        }
        let connected = client::connect_stream(Arc::new(self.config(round_trip)), socket, events);
        match timeout_at(self.deadline, connected).await {
            Err(_) => Err(self.timed_out("the SSH handshake")),
            Ok(Err(error)) => Err(self.handshake_error(&shared, &error)),
            Ok(Ok(handle)) => Ok((cut, handle)),
        }
    }

    fn config(&self, round_trip: Duration) -> client::Config {
        let window_size =
            if self.options.gives_way { super::pace::window(round_trip, WINDOW_SIZE) } else { WINDOW_SIZE };
        let rekey_bytes = self.options.rekey_bytes.min(MAX_REKEY_BYTES);
        let rekey_bytes = usize::try_from(rekey_bytes).expect("the most of them fit in 32 bits");
        client::Config {
            client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-Seeway_", env!("CARGO_PKG_VERSION")))),
            window_size,
            maximum_packet_size: MAX_PACKET_SIZE,
            channel_buffer_size: UNUSED_QUEUE,
            preferred: Preferred {
                key: Cow::Owned(self.options.host_key.algorithms()),
                cipher: Cow::Borrowed(ciphers()),
                compression: Cow::Borrowed(&[russh::compression::NONE]),
                ..Preferred::default()
            },
            // The watchdog does this: the library has one interval where we have three, and does not look at it while a
            // write waits.
            keepalive_interval: None,
            inactivity_timeout: None,
            limits: russh::Limits::new(rekey_bytes, rekey_bytes, self.options.rekey_after),
            ..client::Config::default()
        }
    }

    fn handshake_error(&self, shared: &Shared, error: &russh::Error) -> TunnelError {
        let server = self.server.to_string();
        if let Some(shown) = shared.shown_key.get() {
            let got = fingerprint(shown);
            match self.options.host_key.judge(shown) {
                Verdict::Accepted => {}
                Verdict::Revoked => return TunnelError::HostKeyRevoked { server, got },
                Verdict::Mismatch => {
                    let expected = self.options.host_key.fingerprints();
                    return TunnelError::HostKeyMismatch { server, expected, got };
                }
            }
        }
        let greeting = shared.pulse.greeting();
        if !greeting.is_empty() && !greeting.starts_with("SSH-") {
            return TunnelError::NotSsh { server, greeting };
        }
        let why = match error {
            russh::Error::NoCommonAlgo { kind, ours, theirs } => {
                format!("nothing in common for {kind:?}: here {}, there {}", ours.join(","), theirs.join(","))
            }
            russh::Error::Disconnect | russh::Error::HUP if greeting.is_empty() => {
                "the server closed the connection before it said anything; it may have too many connections \
                 (OpenSSH: MaxStartups, PerSourcePenalties)"
                    .to_owned()
            }
            error => error.to_string(),
        };
        TunnelError::Handshake { server, why }
    }

    async fn login(&self, shared: &Shared, mut handle: Handle<Events>) -> Result<Handle<Events>, TunnelError> {
        let key = Arc::clone(self.options.identity.key());
        let login = async {
            // An RSA key signs with SHA-2, whatever the server thinks of it.
            let hash = match key.algorithm() {
                Algorithm::Rsa { .. } => {
                    let supported = handle.best_supported_rsa_hash().await.ok().flatten().flatten();
                    Some(supported.unwrap_or(HashAlg::Sha512))
                }
                _ => None,
            };
            let key = PrivateKeyWithHashAlg::new(key, hash);
            handle.authenticate_publickey(self.options.user.clone(), key).await
        };
        let result = timeout_at(self.deadline, login).await.map_err(|_| self.timed_out("the login"))?;
        match result {
            Ok(AuthResult::Success) => Ok(handle),
            Ok(AuthResult::Failure { remaining_methods, partial_success }) if !remaining_methods.is_empty() => {
                let methods = names(&remaining_methods);
                let after = if partial_success { " besides the key, which it accepted" } else { "" };
                Err(self.login_refused(format!("{methods}{after}")))
            }
            // No methods: either the server offers none, or it hung up. What it said comes with the end.
            Ok(AuthResult::Failure { .. }) | Err(_) => {
                timeout_at(self.deadline, shared.session_end()).await.map_err(|_| self.timed_out("the login"))?;
                match shared.farewell.get() {
                    Some(farewell) => Err(self.login_refused(format!("nothing else ({farewell})"))),
                    None => Err(shared.closed().await.into()),
                }
            }
        }
    }

    fn login_refused(&self, offered: String) -> TunnelError {
        TunnelError::LoginRefused {
            server: self.server.to_string(),
            user: self.options.user.clone(),
            key: self.options.identity.fingerprint(),
            offered,
        }
    }
}

fn names(methods: &MethodSet) -> String {
    let names: Vec<&str> = methods.iter().map(<&str>::from).collect();
    names.join(", ")
}

impl From<&Options> for watchdog::Times {
    fn from(options: &Options) -> Self {
        // A keepalive without a pause between would be a flood.
        let shortest = Duration::from_millis(1);
        Self {
            idle: options.keepalive_idle.max(shortest),
            interval: options.keepalive.max(shortest),
            broken_after: options.broken_after.max(shortest),
        }
    }
}
