//! `ssh -L` as one writes it with russh: a channel for each connection, bytes copied both ways, and nothing else done.

use std::sync::Arc;

use anyhow::{Context, bail};
use russh::{
    client::{self, AuthResult},
    keys::{PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, load_secret_key},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

/// How it connects.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The SSH server
    #[arg(long)]
    server: std::net::SocketAddr,
    /// The login
    #[arg(long)]
    user: String,
    /// The private key's file
    #[arg(long)]
    identity: std::path::PathBuf,
    /// The server's public key
    #[arg(long)]
    host_key: String,
    /// Where connections go, as the server sees it
    #[arg(long)]
    to: std::net::SocketAddr,
    /// Threads of the runtime
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Forwards until it is killed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    super::runtime(args.threads)?.block_on(forward(args))
}

async fn forward(args: &Args) -> anyhow::Result<()> {
    let host_key = PublicKey::from_openssh(&args.host_key).context("the host key does not parse")?;
    let config = client::Config { nodelay: true, ..client::Config::default() };
    let mut handle = client::connect(Arc::new(config), args.server, Pinned(host_key)).await?;
    let identity = PrivateKeyWithHashAlg::new(Arc::new(load_secret_key(&args.identity, None)?), None);
    if !matches!(handle.authenticate_publickey(args.user.as_str(), identity).await?, AuthResult::Success) {
        bail!("the server refused the login");
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("ready address={}", listener.local_addr()?);
    loop {
        let (socket, peer) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let channel = handle
            .channel_open_direct_tcpip(args.to.ip().to_string(), args.to.port().into(), peer.ip().to_string(), 0)
            .await?;
        tokio::spawn(carry(socket, channel));
    }
}

async fn carry(mut socket: TcpStream, channel: russh::Channel<client::Msg>) {
    // Whichever side ends, the connection is over.
    let _ = copy_bidirectional(&mut socket, &mut channel.into_stream()).await;
}

struct Pinned(PublicKey);

impl client::Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(shown.public_key().key_data() == self.0.key_data())
    }
}
