//! An SSH server by hand, and a machine behind it, that do what no library would: anything, at any moment, at any rate.
//!
//! It agrees on keys as the gateway asks for them, lets everybody in, and opens every channel. From then on it can say what it likes.

mod abuse;
mod keys;
mod transport;

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use tokio::net::TcpListener;

pub use abuse::Abuse;
use transport::Transport;

use super::Tally;
use crate::Door;

/// Where it listens, and its host key.
pub struct HostileServer {
    listener: TcpListener,
    key: Ed25519KeyPair,
}

impl HostileServer {
    /// Listens; nobody is served yet.
    pub async fn bind() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        Arc::new(Self { listener, key: Ed25519KeyPair::generate().expect("a key") })
    }

    /// As a gateway's configuration names it.
    pub fn door(&self) -> Door {
        let blob = keys::public_blob(self.key.public_key().as_ref());
        Door {
            address: self.listener.local_addr().expect("bound"),
            user: "codesafe".to_owned(),
            host_key: format!("ssh-ed25519 {}", keys::base64(&blob)),
        }
    }

    /// Does this to everybody who connects, until it is dropped.
    pub async fn serve(self: Arc<Self>, abuse: Abuse, tally: Tally) {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let Ok((stream, _)) = self.listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let (server, tally) = (self.clone(), tally.clone());
            connections.spawn(async move {
                // It ends when the gateway has had enough.
                let _ = abuse::commit(Transport::new(stream), &server.key, abuse, &tally).await;
            });
            while connections.try_join_next().is_some() {}
        }
    }
}
