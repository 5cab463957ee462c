//! An SSH client of russh, for the HSM's tests.
#![allow(dead_code)] // Every test crate uses another part.

use std::net::SocketAddr;
use std::sync::Arc;

use russh::client::{self, AuthResult, Handle};
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelOpenFailure};

use super::{Caller, soon};

/// A new identity.
pub fn identity() -> Arc<PrivateKey> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the system gives randomness");
    let key = KeypairData::from(Ed25519Keypair::from_seed(&seed));
    Arc::new(PrivateKey::new(key, "test@example").expect("a key"))
}

/// The line of an identity's `.pub` file.
pub fn public_line(identity: &PrivateKey) -> String {
    identity.public_key().to_openssh().expect("has a textual form")
}

/// Checks the host key, and does nothing else.
pub struct Pinned(PublicKey);

impl client::Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else {
            return Ok(false);
        };
        Ok(key.key_data() == self.0.key_data())
    }
}

/// Connects, and verifies the host key.
pub async fn connect(address: SocketAddr, host_key: &str) -> Result<Handle<Pinned>, russh::Error> {
    connect_with(client::Config::default(), address, host_key).await
}

/// Connects as a client that grants more than sockets hold, and takes what comes however far behind its callers are.
pub async fn connect_generously(address: SocketAddr, host_key: &str) -> Result<Handle<Pinned>, russh::Error> {
    let config = client::Config { window_size: 64 * 1024 * 1024, channel_buffer_size: 100_000, ..Default::default() };
    connect_with(config, address, host_key).await
}

async fn connect_with(
    config: client::Config,
    address: SocketAddr,
    host_key: &str,
) -> Result<Handle<Pinned>, russh::Error> {
    let pinned = Pinned(PublicKey::from_openssh(host_key).expect("the HSM gives a public key"));
    let config = client::Config { nodelay: true, ..config };
    soon(client::connect(Arc::new(config), address, pinned)).await
}

/// Tries to log in.
pub async fn log_in(ssh: &mut Handle<Pinned>, user: &str, identity: &Arc<PrivateKey>) -> AuthResult {
    let key = PrivateKeyWithHashAlg::new(Arc::clone(identity), None);
    soon(ssh.authenticate_publickey(user, key)).await.expect("the server answers")
}

/// Opens a channel to a port.
pub async fn open(ssh: &Handle<Pinned>, host: &str, port: u16) -> Result<Channel<client::Msg>, ChannelOpenFailure> {
    match soon(ssh.channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0)).await {
        Ok(channel) => Ok(channel),
        Err(russh::Error::ChannelOpenFailure(failure)) => Err(failure),
        Err(error) => panic!("the connection broke: {error}"),
    }
}

/// Opens a stream of SEEJobs to a port of the HSM.
pub async fn caller(ssh: &Handle<Pinned>, port: u16) -> Caller<russh::ChannelStream<client::Msg>> {
    Caller::new(open(ssh, "127.0.0.1", port).await.expect("a machine is there").into_stream())
}
