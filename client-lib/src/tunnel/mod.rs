//! One SSH connection to a machine's SSH server, and channels in it to the ports of the machine behind.
//!
//! The gateway's pools and [`direct`](crate::direct) are made of it. [`Tunnel::connect`] resolves, connects, checks the
//! host key and logs in; [`Tunnel::open`] opens a channel (`direct-tcpip`). A tunnel notices by
//! itself that the other side has gone silent, and it has none of the 40 ms stalls that forwarded ports are known for.
//!
//! Everything runs on the caller's runtime. Two tasks belong to a tunnel, the SSH library's and a watchdog; both end with it,
//! and dropping it cuts the connection whatever the peer does.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use seeway_client::tunnel::{HostKey, Identity, Options, Tunnel};
//!
//! let identity = Identity::load("/etc/seeway/id_ed25519")?;
//! let host_key = HostKey::from_known_hosts("/etc/seeway/known_hosts", &"hsm-a.example:22".parse()?)?;
//! let tunnel = Tunnel::connect(&Options::new("hsm-a.example:22".parse()?, "codesafe", identity, host_key)).await?;
//! let (mut read, mut write) = tunnel.open("127.0.0.1", 8888).await?.split();
//! write.write("hello".into()).await?;
//! let answer = read.read().await;
//! # Ok(())
//! # }
//! ```

mod algorithms;
mod channel;
mod connect;
mod error;
mod handler;
mod host_key;
mod identity;
mod inbox;
mod key_error;
mod login;
mod options;
mod pace;
mod shared;
mod signer;
mod socket;
mod utc;
mod watchdog;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use russh::client::Handle;
use russh::keys::HashAlg;
use russh::keys::ssh_key::public::KeyData;
use russh::{ChannelOpenFailure, Disconnect};
use tokio::sync::oneshot;
use tokio::time::timeout;

pub use algorithms::{Algorithms, AlgorithmsError, Allowed};
pub use channel::{Channel, ChannelStream, ReadHalf, WriteHalf};
pub use error::{Attempt, ChannelRefusal, EndpointError, ErrorKind, Lost, TunnelError};
pub use host_key::HostKey;
pub use identity::{Identity, Passphrase, SecretFile};
pub use key_error::{HostKeyError, IdentityError};
pub use options::{Endpoint, Options};
pub use shared::Negotiated;

use handler::Events;
use pace::Pace;
use shared::{OnKeepalive, Shared};

/// How long a tunnel that is closed has to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// What the SSH protocol asks for as a channel's originator; nothing depends on it.
const ORIGINATOR: (&str, u32) = ("127.0.0.1", 0);

/// One SSH connection. Dropping it cuts the connection, and its channels with it.
pub struct Tunnel {
    shared: Arc<Shared>,
    handle: Arc<Handle<Events>>,
    runtime: tokio::runtime::Handle,
    open_timeout: Duration,
    gives_way: bool,
    _cut: CutOnDrop,
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    _stall_cure: Option<russh::Channel<russh::client::Msg>>,
}

impl Tunnel {
    /// Connects and logs in, within `connect_timeout`. Cancelling it leaves nothing behind.
    pub async fn connect(options: &Options) -> Result<Self, TunnelError> {
        connect::connect(options).await
    }

    /// Opens a channel to a port as the SSH server sees it, within `connect_timeout`. Cancelling it leaves no channel
    /// behind.
    pub async fn open(&self, host: &str, port: u16) -> Result<Channel, TunnelError> {
        let (hand_over, opened) = oneshot::channel();
        let (shared, handle, runtime) = (Arc::clone(&self.shared), Arc::clone(&self.handle), self.runtime.clone());
        let (target, gives_way) = (host.to_owned(), self.gives_way);
        // A task of its own, since the library would keep a channel whose opening nobody waited for to the end. Where
        // nobody does, it is dropped here, and so closed.
        self.runtime.spawn(async move {
            let opening = handle.channel_open_direct_tcpip(target, port.into(), ORIGINATOR.0, ORIGINATOR.1);
            let pace = gives_way.then(|| Pace::new(Arc::clone(&handle)));
            let channel = opening.await.map(|channel| Channel::new(channel, shared, runtime, pace));
            let _ = hand_over.send(channel);
        });
        let opened = tokio::select! {
            biased;
            opened = timeout(self.open_timeout, opened) => opened,
            lost = self.shared.closed() => return Err(lost.into()),
        };
        let what = "opening a channel";
        let server = self.shared.server.to_string();
        match opened {
            Err(_) => Err(TunnelError::TimedOut { server, what, limit: self.open_timeout }),
            Ok(Ok(Ok(channel))) => Ok(channel),
            Ok(Ok(Err(russh::Error::ChannelOpenFailure(failure)))) => {
                let reason = refusal(failure);
                Err(TunnelError::ChannelRefused { server, host: host.to_owned(), port, reason })
            }
            // Any other error says that the library's task is gone, or about to go.
            Ok(Ok(Err(_)) | Err(_)) => Err(self.shared.closed().await.into()),
        }
    }

    /// Waits until the tunnel is lost, and says why.
    pub async fn closed(&self) -> Lost {
        self.shared.closed().await
    }

    /// Why the tunnel is lost; `None` as long as it stands.
    pub fn lost(&self) -> Option<Lost> {
        self.shared.lost()
    }

    /// Whether the tunnel is lost.
    pub fn is_closed(&self) -> bool {
        self.lost().is_some()
    }

    /// Says goodbye to the server, within a second, and cuts the connection. What was written and has not gone out by then
    /// is lost.
    pub async fn close(&self) {
        let why = "it was closed from here";
        self.shared.lose(why);
        let goodbye = async {
            if self.handle.disconnect(Disconnect::ByApplication, "", "").await.is_ok() {
                self.shared.session_end().await;
            }
        };
        let _ = timeout(GOODBYE, goodbye).await;
        self.shared.cut(why);
        let _ = timeout(GOODBYE, self.shared.session_end()).await;
    }

    /// The SSH server, as `host:port`.
    pub fn server(&self) -> &str {
        &self.shared.server
    }

    /// What the server calls itself, such as `SSH-2.0-OpenSSH_9.2p1`.
    pub fn server_version(&self) -> String {
        self.shared.pulse.greeting()
    }

    /// What it was made with.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.shared.negotiated.get()
    }

    /// How often new keys were agreed on since it was connected.
    pub fn rekeys(&self) -> u64 {
        self.shared.keys_exchanged.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// From now on `told` gets the round trip of each keepalive that is answered. It runs on the tunnel's runtime and must not
    /// block. A tunnel that is busy sends none. Only the first that is set counts.
    pub fn on_keepalive(&self, told: impl Fn(Duration) + Send + Sync + 'static) {
        self.shared.on_keepalive.get_or_init(|| OnKeepalive(Box::new(told)));
    }

    /// How many channels are open or being closed.
    pub fn channels(&self) -> usize {
        self.shared.channels()
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("server", &self.server()).field("lost", &self.lost()).finish_non_exhaustive()
    }
}

/// A key's type and SHA-256 fingerprint, as `ssh-keygen -l` has it.
fn fingerprint(key: &KeyData) -> String {
    format!("{} {}", key.algorithm().as_str(), key.fingerprint(HashAlg::Sha256))
}

fn refusal(failure: ChannelOpenFailure) -> ChannelRefusal {
    match failure {
        ChannelOpenFailure::AdministrativelyProhibited => ChannelRefusal::Prohibited,
        ChannelOpenFailure::ConnectFailed => ChannelRefusal::ConnectFailed,
        ChannelOpenFailure::UnknownChannelType => ChannelRefusal::NotSupported,
        ChannelOpenFailure::ResourceShortage => ChannelRefusal::ResourceShortage,
        ChannelOpenFailure::Other { code, reason } => ChannelRefusal::Other(format!("{reason} ({code})")),
    }
}

/// Cuts the connection when it is dropped.
struct CutOnDrop(Arc<Shared>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.cut("it was dropped");
    }
}
