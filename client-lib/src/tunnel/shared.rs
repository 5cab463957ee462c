//! What all the parts of a tunnel know together: whether it still stands, and its channels.

use std::collections::HashMap;
use std::fmt;
use std::net::Shutdown;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use russh::{ChannelId, Names};
use tokio::sync::watch;

use super::error::Lost;
use super::host_key::Verdict;
use super::inbox::Inbox;
use super::socket::Pulse;

/// What the two sides of a tunnel have agreed on, by the names on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// How keys are exchanged.
    pub key_exchange: String,
    /// What the server's host key signs with.
    pub host_key: String,
    /// What encrypts.
    pub cipher: String,
    /// What authenticates; `none` where the cipher does.
    pub mac: String,
    /// Whether the handshake can not be tampered with by leaving packets out ("Terrapin").
    pub is_strict: bool,
}

impl From<&Names> for Negotiated {
    fn from(names: &Names) -> Self {
        Self {
            key_exchange: names.kex.as_ref().to_owned(),
            host_key: names.key.to_string(),
            cipher: names.cipher.as_ref().to_owned(),
            mac: names.client_mac.as_ref().to_owned(),
            is_strict: names.strict_kex(),
        }
    }
}

/// Is told how long each keepalive took.
pub(super) struct OnKeepalive(pub(super) Box<dyn Fn(Duration) + Send + Sync>);

impl fmt::Debug for OnKeepalive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnKeepalive")
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    /// The SSH server, as `host:port`.
    pub(super) server: Arc<str>,
    /// The tunnel's socket once more: to send an ACK, and to cut the connection off whoever holds it.
    socket: socket2::Socket,
    pub(super) pulse: Arc<Pulse>,
    /// What is to be thought of the host key that the server has shown, and what that was.
    pub(super) judged: OnceLock<(Verdict, String)>,
    /// What the first key exchange agreed on.
    pub(super) negotiated: OnceLock<Negotiated>,
    /// What the server said when it ended the connection.
    pub(super) farewell: OnceLock<String>,
    /// How often keys were agreed on, the first time included.
    pub(super) keys_exchanged: AtomicU64,
    pub(super) on_keepalive: OnceLock<OnKeepalive>,
    lost: watch::Sender<Option<Lost>>,
    /// Whether the SSH library's task has ended.
    session_ended: watch::Sender<bool>,
    inboxes: Mutex<HashMap<ChannelId, Arc<Inbox>>>,
}

impl Shared {
    pub(super) fn new(server: Arc<str>, socket: socket2::Socket, pulse: Arc<Pulse>) -> Arc<Self> {
        Arc::new(Self {
            server,
            socket,
            pulse,
            judged: OnceLock::new(),
            negotiated: OnceLock::new(),
            farewell: OnceLock::new(),
            keys_exchanged: AtomicU64::new(0),
            on_keepalive: OnceLock::new(),
            lost: watch::Sender::new(None),
            session_ended: watch::Sender::new(false),
            inboxes: Mutex::default(),
        })
    }

    /// The channel's inbox; made by whoever comes first, the SSH library's task or the one that opens the channel.
    pub(super) fn inbox(&self, id: ChannelId) -> Arc<Inbox> {
        let inbox = Arc::clone(self.inboxes().entry(id).or_default());
        // Asked after the inbox is in the table: so it is marked here, or by `lose`, or by both.
        if let Some(lost) = self.lost() {
            inbox.end(lost);
        }
        inbox
    }

    pub(super) fn known_inbox(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        self.inboxes().get(&id).map(Arc::clone)
    }

    pub(super) fn forget_inbox(&self, id: ChannelId) -> Option<Arc<Inbox>> {
        self.inboxes().remove(&id)
    }

    pub(super) fn channels(&self) -> usize {
        self.inboxes().len()
    }

    fn inboxes(&self) -> MutexGuard<'_, HashMap<ChannelId, Arc<Inbox>>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the tunnel is lost; `None` as long as it stands.
    pub(super) fn lost(&self) -> Option<Lost> {
        self.lost.borrow().clone()
    }

    /// Waits until the tunnel is lost.
    pub(super) async fn closed(&self) -> Lost {
        let mut lost = self.lost.subscribe();
        let lost = lost.wait_for(Option::is_some).await.expect("the sender is in self");
        lost.clone().expect("that is what was waited for")
    }

    /// The tunnel is lost, and with it its channels. The first reason stays.
    pub(super) fn lose(&self, why: impl Into<Arc<str>>) {
        let lost = Lost { what: "tunnel", server: Arc::clone(&self.server), why: why.into() };
        let is_first = self.lost.send_if_modified(|reason| {
            let is_first = reason.is_none();
            reason.get_or_insert(lost.clone());
            is_first
        });
        if is_first {
            for inbox in self.inboxes().values() {
                inbox.end(lost.clone());
            }
        }
    }

    /// Loses the tunnel and cuts its connection off. Nothing that the peer does or leaves undone can hold this up.
    pub(super) fn cut(&self, why: impl Into<Arc<str>>) {
        self.lose(why);
        // An error says that it is cut off already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    pub(super) fn session_has_ended(&self) {
        self.session_ended.send_replace(true);
        self.inboxes().clear();
    }

    pub(super) async fn session_end(&self) {
        let mut ended = self.session_ended.subscribe();
        ended.wait_for(|ended| *ended).await.expect("the sender is in self");
    }

    /// Sends an ACK that the kernel holds back. The reason is in the handler's `window_adjusted`.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn acknowledge(&self) {
        // Where it fails the connection is lost, and others will notice.
        let _ = self.socket.set_tcp_quickack(true);
    }
}
