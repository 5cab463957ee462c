//! `ssh -L` as one writes it with russh: a channel for each connection, bytes copied both ways, and nothing else done.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, bail};
use russh::{
    client::{self, AuthResult},
    keys::{PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, load_secret_key},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::{TcpListener, UnixListener},
};

/// How it connects.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to listen: an address, or a Unix socket's path
    #[arg(long)]
    listen: String,
    /// The SSH server
    #[arg(long)]
    server: SocketAddr,
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
    to: SocketAddr,
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
    let ready = || println!("ready address={}", args.listen);
    if args.listen.starts_with('/') {
        let listener = UnixListener::bind(&args.listen)?;
        ready();
        loop {
            carry(listener.accept().await?.0, &handle, args.to).await?;
        }
    }
    let listener = TcpListener::bind(&args.listen).await?;
    ready();
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        carry(socket, &handle, args.to).await?;
    }
}

/// Opens a channel for a connection and has a task copy both ways.
async fn carry<S>(mut socket: S, handle: &client::Handle<Pinned>, to: SocketAddr) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let channel = handle.channel_open_direct_tcpip(to.ip().to_string(), to.port().into(), "127.0.0.1", 0).await?;
    tokio::spawn(async move {
        // Whichever side ends, the connection is over.
        let _ = copy_bidirectional(&mut socket, &mut channel.into_stream()).await;
    });
    Ok(())
}

struct Pinned(PublicKey);

impl client::Handler for Pinned {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        Ok(shown.public_key().key_data() == self.0.key_data())
    }
}
