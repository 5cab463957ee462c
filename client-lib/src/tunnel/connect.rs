//! The steps from an address to a tunnel: name, TCP, handshake with the host key, login.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{self, Handle};
use russh::{AlgorithmKind, Preferred, SshId};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};

use super::algorithms::is_signature_allowed;
use super::error::{Attempt, TunnelError};
use super::handler::Events;
use super::host_key::Verdict;
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

pub(super) async fn connect(options: &Options) -> Result<Tunnel, TunnelError> {
    let attempt = Attempting { options, server: options.server.to_string().into(), deadline: deadline(options) };
    // First what needs no server: one that we could not log in to is left alone.
    let credentials = attempt.credentials().await?;
    let (stream, round_trip) = attempt.tcp().await?;
    let (cut, mut handle) = attempt.handshake(stream, round_trip).await?;
    let shared = Arc::clone(&cut.0);
    attempt.login(&shared, &mut handle, credentials).await?;
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

/// One try to make a tunnel.
pub(super) struct Attempting<'a> {
    pub(super) options: &'a Options,
    pub(super) server: Arc<str>,
    pub(super) deadline: Instant,
}

impl Attempting<'_> {
    pub(super) fn timed_out(&self, what: &'static str) -> TunnelError {
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
        let (host_key, server) = (self.options.host_key.clone(), self.options.server.clone());
        let events = Events { shared: Arc::clone(&shared), host_key, server };
        let mut socket = Socket::new(stream, Arc::clone(&shared.pulse));
        if self.options.gives_way {
            socket.acknowledge_at_once();
        }
        let connected = client::connect_stream(Arc::new(self.config(round_trip)), socket, events);
        match timeout_at(self.deadline, connected).await {
            Err(_) => Err(self.timed_out("the SSH handshake")),
            Ok(Err(error)) => Err(self.handshake_error(&shared, &error)),
            Ok(Ok(handle)) => {
                self.check_signature(&shared, &handle)?;
                Ok((cut, handle))
            }
        }
    }

    fn config(&self, round_trip: Duration) -> client::Config {
        let window_size =
            if self.options.gives_way { super::pace::window(round_trip, WINDOW_SIZE) } else { WINDOW_SIZE };
        let rekey_bytes = self.options.rekey_bytes.min(MAX_REKEY_BYTES);
        let rekey_bytes = usize::try_from(rekey_bytes).expect("the most of them fit in 32 bits");
        let policy = self.options.algorithms;
        client::Config {
            client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-Seeway_", env!("CARGO_PKG_VERSION")))),
            window_size,
            maximum_packet_size: MAX_PACKET_SIZE,
            channel_buffer_size: UNUSED_QUEUE,
            preferred: Preferred {
                kex: Cow::Owned(policy.key_exchanges()),
                key: Cow::Owned(self.options.host_key.algorithms(policy)),
                host_key_certificates: Cow::Owned(self.options.host_key.certificate_algorithms(policy)),
                cipher: Cow::Owned(policy.ciphers()),
                mac: Cow::Owned(policy.macs()),
                compression: Cow::Borrowed(&[russh::compression::NONE]),
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
        if let Some((verdict, got)) = shared.judged.get() {
            let got = got.clone();
            match verdict {
                Verdict::Accepted => {}
                Verdict::Revoked => return TunnelError::HostKeyRevoked { server, got },
                Verdict::NotTaken(why) => return TunnelError::HostKeyNotTaken { server, got, why: why.clone() },
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
                let kind = match kind {
                    AlgorithmKind::Kex => "key exchange",
                    AlgorithmKind::Key => "host key",
                    AlgorithmKind::Cipher => "cipher",
                    AlgorithmKind::Mac => "MAC",
                    AlgorithmKind::Compression => "(absent) compression",
                };
                let (offered, allowed) = (listed(theirs), listed(ours));
                let policy = self.options.algorithms.name();
                return TunnelError::NoCommonAlgorithm { server, policy, kind, offered, allowed };
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

    /// The library takes whatever algorithm the server's signature says it is made with, not only the one that was agreed on: with
    /// the SHA-1 of old RSA signatures, too. So it is looked at before anything is sent to the server.
    fn check_signature(&self, shared: &Shared, handle: &Handle<Events>) -> Result<(), TunnelError> {
        let signed_with = handle.agent_session_binding().and_then(|binding| first_word(binding.signature()));
        let signed_with = signed_with.unwrap_or("nothing that is known");
        if is_signature_allowed(self.options.algorithms, signed_with) {
            return Ok(());
        }
        let server = self.server.to_string();
        let got = shared.judged.get().map(|(_, got)| got.clone()).unwrap_or_default();
        let why = format!("it was proven with {}, which no policy allows", signed_with.escape_debug());
        Err(TunnelError::HostKeyNotTaken { server, got, why })
    }
}

/// The first string of what SSH encodes: of a signature, its algorithm.
fn first_word(encoded: &[u8]) -> Option<&str> {
    let (length, rest) = encoded.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    std::str::from_utf8(rest.get(..length)?).ok()
}

/// Algorithms' names for a message; a server may send thousands.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 24;
    let is_algorithm = |name: &&String| !name.starts_with("ext-info-") && !name.starts_with("kex-strict-");
    let shown = names.iter().filter(is_algorithm).take(SHOWN);
    let shown: Vec<String> = shown.map(|name| name.chars().take(64).flat_map(char::escape_debug).collect()).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_begins_with_its_algorithm() {
        assert_eq!(first_word(b"\0\0\0\x07ssh-rsa\0\0\x01\x80"), Some("ssh-rsa"));
        for garbled in [&b""[..], b"\0\0\0", b"\0\0\0\x08ssh-rsa", b"\xff\xff\xff\xff", b"\0\0\0\x01\xff"] {
            assert_eq!(first_word(garbled), None, "{garbled:?}");
        }
    }

    #[test]
    fn what_a_server_lists_is_shown_in_part_and_cannot_break_a_line() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(listed(&names(&["one", "ext-info-s", "kex-strict-s-v00@openssh.com", "two"])), "one, two");
        assert_eq!(listed(&names(&["a\nb\u{1b}[31m"])), "a\\nb\\u{1b}[31m");
        let many = listed(&vec!["x".repeat(1000); 1000]);
        assert!(many.len() < 24 * 70 && many.ends_with(", …"), "{}", many.len());
        assert_eq!(listed(&[]), "");
    }
}
