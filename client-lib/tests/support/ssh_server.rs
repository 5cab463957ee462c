//! An SSH server whose ports are behaviours.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelMsg, ChannelOpenFailure, Error, Limits, MethodKind, MethodSet};
use seeway_client::tunnel::{HostKey, Identity, Options};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

use super::Background;

/// Sends back what comes.
pub const ECHO: u16 = 7;
/// Takes nothing in, so that the window stays closed.
pub const STUCK: u16 = 9;
/// A machine that echoes jobs.
#[cfg(feature = "direct")]
pub const SEEJOBS: u16 = 8888;
/// A machine that takes one read's jobs and keeps them.
#[cfg(feature = "direct")]
pub const KEEPER: u16 = 8889;
/// There is nobody.
pub const NOBODY: u16 = 1;
/// Is not allowed.
pub const PROHIBITED: u16 = 2;
/// Opens when a permit is added to `late_opens`, then does as `ECHO`.
pub const LATE: u16 = 3;
/// Is closed by the server as soon as it is open.
pub const CLOSING: u16 = 4;

pub const USER: &str = "codesafe";

/// What the server and the test both look at.
#[derive(Default)]
pub struct Watched {
    pub open_channels: AtomicUsize,
    pub channels_ever: AtomicUsize,
    pub late_opens: Semaphore0,
    /// By the `KEEPER`.
    pub kept_jobs: AtomicUsize,
}

/// A semaphore that begins without permits.
pub struct Semaphore0(pub Semaphore);

impl Default for Semaphore0 {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

pub struct SshServer {
    pub address: SocketAddr,
    pub host_keys: Vec<PrivateKey>,
    pub watched: Arc<Watched>,
    identity_path: PathBuf,
    _dir: tempfile::TempDir,
    _background: Background,
}

pub fn new_key(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::random(&mut russh::keys::key::safe_rng(), algorithm).unwrap()
}

pub fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// Writes a key as `ssh-keygen` would.
pub fn write_identity(path: PathBuf, key: &PrivateKey) -> PathBuf {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path).unwrap();
    file.write_all(key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    path
}

impl SshServer {
    pub fn start() -> Self {
        Self::start_with(vec![new_key(Algorithm::Ed25519)], Limits::default())
    }

    /// Keys are exchanged anew after `limits`.
    pub fn start_with(host_keys: Vec<PrivateKey>, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let client_key = new_key(Algorithm::Ed25519);
        let identity_path = write_identity(dir.path().join("id_ed25519"), &client_key);
        let config = Arc::new(Config {
            keys: host_keys.clone(),
            methods: MethodSet::from(&[MethodKind::PublicKey][..]),
            auth_rejection_time: std::time::Duration::ZERO,
            nodelay: true,
            limits,
            ..Config::default()
        });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let watched = Arc::new(Watched::default());
        let served = Arc::clone(&watched);
        let authorized = client_key.public_key().clone();
        let background = Background::run(move || async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let connection =
                    Connection { watched: Arc::clone(&served), authorized: authorized.clone(), stuck: HashMap::new() };
                let config = Arc::clone(&config);
                tokio::spawn(async move {
                    if let Ok(session) = russh::server::run_stream(config, stream, connection).await {
                        let _ = session.await;
                    }
                });
            }
        });
        Self { address, host_keys, watched, identity_path, _dir: dir, _background: background }
    }

    pub fn identity(&self) -> Identity {
        Identity::load(&self.identity_path).unwrap()
    }

    /// Options that get in, through `address`, which is the server's or a proxy's.
    pub fn options_through(&self, address: SocketAddr) -> Options {
        Options::new(address.to_string().parse().unwrap(), USER, self.identity(), self.host_key(0))
    }

    pub fn options(&self) -> Options {
        self.options_through(self.address)
    }

    pub fn host_key(&self, index: usize) -> HostKey {
        HostKey::from_line(&self.host_keys[index].public_key().to_openssh().unwrap()).unwrap()
    }
}

struct Connection {
    watched: Arc<Watched>,
    authorized: PublicKey,
    stuck: HashMap<ChannelId, (Open, Channel<Msg>)>,
}

/// Counts a channel as open for as long as it lives.
struct Open(Arc<Watched>);

impl Open {
    fn new(watched: &Arc<Watched>) -> Self {
        watched.open_channels.fetch_add(1, Ordering::SeqCst);
        watched.channels_ever.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(watched))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open_channels.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn echo(channel: Channel<Msg>, _open: Open) {
    let (mut read, write) = channel.split();
    // The library stops reading the connection while a channel's queue is full, and a writer waits for what it would have
    // read. So the reader must never wait for the writer.
    let (queue, mut queued) = mpsc::unbounded_channel();
    let reading = async move {
        while let Some(message) = read.wait().await {
            match message {
                ChannelMsg::Data { data } => drop(queue.send(data)),
                ChannelMsg::Eof | ChannelMsg::Close => return,
                _ => {}
            }
        }
    };
    let writing = async move {
        while let Some(data) = queued.recv().await {
            if write.data_bytes(data).await.is_err() {
                return;
            }
        }
        let _ = write.eof().await;
        let _ = write.close().await;
    };
    tokio::join!(reading, writing);
}

impl Handler for Connection {
    type Error = Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Error> {
        let is_known = user == USER && key.public_key.key_data() == self.authorized.key_data();
        Ok(if is_known { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        _host: &str,
        port: u32,
        _originator: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Error> {
        let open = Open::new(&self.watched);
        match u16::try_from(port).unwrap() {
            ECHO => {
                reply.accept().await;
                tokio::spawn(echo(channel, open));
            }
            #[cfg(feature = "direct")]
            SEEJOBS => {
                reply.accept().await;
                tokio::spawn(async move {
                    super::machine::Machine::new(channel.into_stream()).echo().await;
                    drop(open);
                });
            }
            #[cfg(feature = "direct")]
            KEEPER => {
                reply.accept().await;
                let watched = Arc::clone(&self.watched);
                tokio::spawn(async move {
                    let mut machine = super::machine::Machine::new(channel.into_stream());
                    let kept = machine.jobs().await;
                    watched.kept_jobs.fetch_add(kept.len(), Ordering::SeqCst);
                    machine.jobs().await;
                    drop(open);
                });
            }
            CLOSING => {
                reply.accept().await;
                tokio::spawn(async move {
                    let _ = channel.close().await;
                    drop(open);
                });
            }
            STUCK => {
                reply.accept().await;
                self.stuck.insert(channel.id(), (open, channel));
            }
            LATE => {
                let watched = Arc::clone(&self.watched);
                tokio::spawn(async move {
                    watched.late_opens.0.acquire().await.unwrap().forget();
                    reply.accept().await;
                    echo(channel, open).await;
                });
            }
            PROHIBITED => reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await,
            _ => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _session: &mut Session) -> Result<(), Error> {
        self.stuck.remove(&id);
        Ok(())
    }
}
