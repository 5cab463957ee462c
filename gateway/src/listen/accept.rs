//! Listening sockets, and the acceptors that hand each connection to the shard with the least to do.
//!
//! Runs on the control plane's thread.

use std::fs::Metadata;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::hardserver;
use super::inherited::{InheritError, Inherited, InheritedSocket, Name, Role};
use super::tls::Terminator;
use crate::access::{Identity, Users};
use crate::audit::Audit;
use crate::config::HardserverAddress;
use crate::handover::{Arrived, Held};
use crate::places::{Peer, Places};
use crate::seldom::{Seldom, Tell};
use crate::shard::{Accepted, CallerCount, Handed, ShardEnded, ShardHandle, Way, prepared};

/// How long an acceptor waits after the system refused it a connection, for want of file descriptors as a rule.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Why nobody can listen there.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refuses.
    #[error("can not listen on {address}: {error}; {}", listen_advice(.error))]
    System {
        /// Where.
        address: String,
        /// Why not.
        error: io::Error,
    },
    /// Another process answers on the Unix socket.
    #[error("can not listen on unix:{}: another process is listening there; stop it, choose another path, or, if it is a gateway with listen.handover, take over from it: seeway serve --take-over", .path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket has the Unix socket's name.
    #[error("can not listen on unix:{}: there is a file of that name that is no socket; move it away", .path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
}

/// What to do where the system lets nobody listen.
fn listen_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "stop who listens there (ss -ltnp), or choose another address",
        io::ErrorKind::AddrNotAvailable => "write an address that this computer has (ip address)",
        io::ErrorKind::PermissionDenied => "let this user write to the socket's folder, or choose a port above 1023",
        _ => "choose another address",
    }
}

/// A listening socket of a front end.
pub enum Listener {
    /// gRPC over TCP, with TLS where that is on.
    Grpc(TcpListener, Option<Arc<Terminator>>),
    /// The hardserver wire over TCP, with TLS at `tls:` addresses.
    LegacyTcp(TcpListener, Option<Arc<Terminator>>),
    /// The hardserver wire over a Unix socket.
    LegacyUnix(UnixSocket),
}

/// A listening Unix socket.
pub struct UnixSocket {
    listener: UnixListener,
    file: Arc<SocketFile>,
}

/// A Unix socket's file. Where it is this gateway's it is removed with the last who has this.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
    /// Whether it is never this gateway's.
    is_lent: bool,
    /// Whose it is.
    whose: AtomicU8,
}

/// Still the gateway's before this one.
const BEFORE: u8 = 0;
/// This gateway's.
const OURS: u8 = 1;
/// The next gateway's, or whoever's who has lent it, or nobody's any more. It does not become this gateway's again.
const AWAY: u8 = 2;

impl UnixSocket {
    /// Waits for a connection.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }

    /// One that is bound already. Another gateway's gets the mode and the group that `access` says, if it says any.
    fn inherited(inherited: InheritedSocket, path: &Path, access: Option<SocketAccess>) -> io::Result<Self> {
        let listener = UnixListener::from_std(inherited.socket.into())?;
        let file = socket_at(path);
        if let (Some(access), Some(file), false) = (access, &file, inherited.is_lent) {
            access.apply(path, file)?;
        }
        Ok(Self { listener, file: SocketFile::elsewhere(path, file.as_ref(), inherited.is_lent) })
    }

    /// A second handle to it, for another gateway.
    fn held(&self, role: Role) -> io::Result<Held> {
        let name = Name::of(&HardserverAddress::Unix(self.file.path.clone()));
        let socket = self.listener.as_fd().try_clone_to_owned()?;
        Ok(Held { role, name, socket, is_lent: self.file.is_lent, file: Some(self.file.clone()) })
    }
}

impl SocketFile {
    /// One that another gateway still has, or whoever has lent it; `None`: it is there no more.
    fn elsewhere(path: &Path, file: Option<&Metadata>, is_lent: bool) -> Arc<Self> {
        // No file has the number 0.
        let inode = file.map_or(0, Metadata::ino);
        let whose = AtomicU8::new(if is_lent { AWAY } else { BEFORE });
        Arc::new(Self { path: path.to_owned(), inode, is_lent, whose })
    }

    /// Where it is, or was.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is there, so that somebody can connect.
    pub fn has_name(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode)
    }

    /// The gateway before this one leaves it. Nothing changes where it has been given on meanwhile.
    pub fn claim(&self) {
        // It has been another's, or is this one's already.
        let _ = self.whose.compare_exchange(BEFORE, OURS, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// It is the next gateway's; returns what [`keep`](Self::keep) is to be told where that one does not take it.
    pub fn give(&self) -> u8 {
        self.whose.swap(AWAY, Ordering::Relaxed)
    }

    /// It was not taken after all.
    pub fn keep(&self, before: u8) {
        self.whose.store(before, Ordering::Relaxed);
    }

    /// Removes it, where it is this gateway's and nobody has taken the name meanwhile.
    pub fn remove(&self) {
        let was_ours = self.whose.compare_exchange(OURS, AWAY, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if was_ours && self.has_name() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The socket of this name, if there is one.
fn socket_at(path: &Path) -> Option<Metadata> {
    std::fs::symlink_metadata(path).ok().filter(|file| file.file_type().is_socket())
}

/// Who may connect to a Unix socket.
#[derive(Clone, Copy, Debug)]
pub struct SocketAccess {
    /// The permission bits.
    pub mode: u32,
    /// The group that owns it; the process's own where there is none.
    pub group: Option<u32>,
}

impl SocketAccess {
    /// Those who run this gateway, and nobody else.
    pub const OWN: Self = Self { mode: 0o600, group: None };

    /// Lets these connect to a socket that is there, and no others, as far as `file` says that it is not so already.
    fn apply(self, path: &Path, file: &Metadata) -> io::Result<()> {
        let group = self.group.unwrap_or(rustix::process::getegid().as_raw());
        // Whoever is taken out goes first: nobody is to get in for a moment.
        if group != file.gid() {
            chown(path, None, Some(group))?;
        }
        if file.permissions().mode() & 0o777 != self.mode {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(self.mode))?;
        }
        Ok(())
    }
}

/// Makes listeners: of sockets that somebody else has bound, and where there is none for an address, of new ones.
pub struct Binder {
    /// The sockets that are there already.
    pub inherited: Inherited,
    /// Who may connect to Unix sockets.
    pub access: SocketAccess,
    /// Whether sockets that are there already get that, too. They can't any more once the process is confined.
    pub sets_access: bool,
    /// The files of the Unix sockets that were made.
    pub files: Vec<Arc<SocketFile>>,
    /// Second handles to what was bound, for another gateway to take over; `None` where nobody can.
    pub held: Option<Vec<Held>>,
}

impl Binder {
    /// Begins to listen for legacy callers; returns also where, since the system may have chosen the port. `tls` is for `tls:` addresses.
    ///
    /// # Errors
    /// The address can not be used.
    pub async fn hardserver(
        &mut self,
        address: &HardserverAddress,
        tls: Option<&Arc<Terminator>>,
    ) -> Result<(Listener, HardserverAddress), BindError> {
        match address {
            HardserverAddress::Tcp(address) => {
                let (listener, address) = self.tcp(Role::Hardserver, *address).await?;
                Ok((Listener::LegacyTcp(listener, None), HardserverAddress::Tcp(address)))
            }
            HardserverAddress::Tls(address) => {
                let (listener, address) = self.tcp(Role::Hardserver, *address).await?;
                Ok((Listener::LegacyTcp(listener, tls.cloned()), HardserverAddress::Tls(address)))
            }
            HardserverAddress::Unix(path) => {
                Ok((Listener::LegacyUnix(self.unix(Role::Hardserver, path)?), HardserverAddress::Unix(path.clone())))
            }
        }
    }

    /// What was bound by somebody else and is not wanted here: the files of the Unix sockets among it.
    ///
    /// # Errors
    /// Something is left that systemd has passed.
    pub fn unwanted(inherited: Inherited) -> Result<Vec<Arc<SocketFile>>, InheritError> {
        let left = inherited.left()?;
        let file = |left: &InheritedSocket| {
            let path = left.name.path()?;
            Some(SocketFile::elsewhere(path, socket_at(path).as_ref(), left.is_lent))
        };
        Ok(left.iter().filter_map(file).collect())
    }

    /// Begins to listen on a TCP address.
    ///
    /// # Errors
    /// The address can not be used.
    pub async fn tcp(&mut self, role: Role, address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
        let configured = HardserverAddress::Tcp(address);
        let system = |error| BindError::System { address: address.to_string(), error };
        let inherited = self.inherited.take(role, &configured);
        let is_lent = inherited.as_ref().is_some_and(|inherited| inherited.is_lent);
        let (listener, bound) = match inherited {
            Some(inherited) => {
                let listener = TcpListener::from_std(inherited.socket.into()).map_err(system)?;
                let bound = listener.local_addr().map_err(system)?;
                (listener, bound)
            }
            None => bind_tcp(address).await?,
        };
        if let Some(held) = &mut self.held {
            let socket = listener.as_fd().try_clone_to_owned().map_err(system)?;
            held.push(Held { role, name: Name::of(&configured), socket, is_lent, file: None });
        }
        Ok((listener, bound))
    }

    /// Begins to listen on a Unix socket. At the one for gateways nobody is let in but those who run this one.
    ///
    /// # Errors
    /// The path can not be used.
    pub fn unix(&mut self, role: Role, path: &Path) -> Result<UnixSocket, BindError> {
        let system = |error| BindError::System { address: format!("unix:{}", path.display()), error };
        let access = if role == Role::Handover { SocketAccess::OWN } else { self.access };
        let socket = match self.inherited.take(role, &HardserverAddress::Unix(path.to_owned())) {
            Some(inherited) => {
                UnixSocket::inherited(inherited, path, self.sets_access.then_some(access)).map_err(system)?
            }
            None => bind_unix(path, access)?,
        };
        if let Some(held) = &mut self.held {
            held.push(socket.held(role).map_err(system)?);
        }
        self.files.push(socket.file.clone());
        Ok(socket)
    }
}

/// Begins to listen on a TCP address.
async fn bind_tcp(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let system = |error| BindError::System { address: address.to_string(), error };
    let listener = TcpListener::bind(address).await.map_err(system)?;
    let bound = listener.local_addr().map_err(system)?;
    Ok((listener, bound))
}

/// The socket is made under another name, given its mode and group, and then renamed: nobody ever sees it with other
/// permissions than it is to have. A name that a gateway left behind when it was killed is taken over.
fn bind_unix(path: &Path, access: SocketAccess) -> Result<UnixSocket, BindError> {
    match std::fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => return Err(BindError::NotASocket { path: path.to_owned() }),
        Ok(_) if StdUnixStream::connect(path).is_ok() => return Err(BindError::InUse { path: path.to_owned() }),
        Ok(_) | Err(_) => {}
    }
    let system = |error| BindError::System { address: format!("unix:{}", path.display()), error };
    let unfinished = path.with_extension(format!("{}", std::process::id()));
    let bind = || {
        let listener = UnixListener::bind(&unfinished)?;
        std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(access.mode))?;
        if access.group.is_some() {
            chown(&unfinished, None, access.group)?;
        }
        let inode = std::fs::symlink_metadata(&unfinished)?.ino();
        std::fs::rename(&unfinished, path)?;
        let file = SocketFile { path: path.to_owned(), inode, is_lent: false, whose: AtomicU8::new(OURS) };
        Ok(UnixSocket { listener, file: Arc::new(file) })
    };
    bind().map_err(|error| {
        let _ = std::fs::remove_file(&unfinished);
        system(error)
    })
}

/// Connections that were closed at once because there were too many.
#[derive(Default)]
pub struct Refused {
    count: AtomicU64,
    audit: Option<Arc<Audit>>,
}

impl Refused {
    /// None yet. They are recorded, too, where there is an audit log.
    pub fn recorded_in(audit: Option<Arc<Audit>>) -> Self {
        Self { count: AtomicU64::new(0), audit }
    }

    /// One more.
    fn add(&self) {
        if let Some(audit) = &self.audit {
            audit.refused_caller();
        }
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// What all acceptors need.
#[derive(Clone)]
pub struct Acceptor {
    /// Who gets the connections.
    pub shards: Arc<[ShardHandle]>,
    /// How many there may be, over all front ends.
    pub limit: Arc<Places>,
    /// Those that were one too many.
    pub refused: Arc<Refused>,
    /// Who is behind a Unix socket.
    pub users: Users,
    /// Becomes true when no other connection is to be accepted.
    pub stopped: watch::Receiver<bool>,
}

/// A connection as the system gives it.
enum Incoming {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Incoming {
    /// Who is at its other end, as far as the system knows.
    fn peer(&self) -> io::Result<Peer> {
        match self {
            Self::Tcp(_, address) => Ok(address.ip().into()),
            Self::Unix(stream) => Ok(Peer::User(stream.peer_cred()?.uid())),
        }
    }
}

impl Acceptor {
    /// Accepts connections and hands them to the shards, until it is stopped, or dropped, or the shards have ended. One that is stopped
    /// first finishes with those that it has. One past the limit, which all front ends share, is closed at once.
    pub async fn accept(mut self, listener: Listener) -> Result<(), ShardEnded> {
        // Those that are not known yet: they agree on TLS, or their user's name is looked up. Each has a place among the callers.
        let mut unknown: JoinSet<Result<(), ShardEnded>> = JoinSet::new();
        loop {
            let incoming = tokio::select! {
                incoming = next(&listener) => incoming,
                Ok(_) = self.stopped.wait_for(|is_stopped| *is_stopped) => break,
                Some(ended) = unknown.join_next() => {
                    // One that panicked has closed its own connection.
                    ended.unwrap_or(Ok(()))?;
                    continue;
                }
            };
            let incoming = match incoming {
                Ok(incoming) => incoming,
                Err(error) => {
                    static NOT_ACCEPTED: Seldom = Seldom::new("a connection could not be accepted");
                    if let Some(Tell { untold }) = NOT_ACCEPTED.tell("") {
                        tracing::warn!(%error, untold, "a connection could not be accepted");
                    }
                    tokio::time::sleep(AFTER_ERROR).await;
                    continue;
                }
            };
            let Ok(peer) = incoming.peer() else { continue };
            // Counted before it is looked at: a shard may be busy while many come.
            let Some((shard, count)) = self.place(peer)? else { continue };
            match (incoming, &listener) {
                (Incoming::Tcp(stream, _), Listener::Grpc(_, Some(tls)) | Listener::LegacyTcp(_, Some(tls))) => {
                    let Some(permit) = tls.place(peer) else { continue };
                    let (tls, shards) = (tls.clone(), self.shards.clone());
                    let way = if matches!(listener, Listener::Grpc(..)) { Way::GrpcTls } else { Way::LegacyTls };
                    unknown.spawn(async move {
                        let accepted = secured(&tls, stream).await.map(|(stream, identity)| (way(stream), identity));
                        drop(permit);
                        let Some((way, identity)) = accepted else { return Ok(()) };
                        shards[shard].hand(Handed::Caller(Accepted { way, identity, carried: None }, count)).await
                    });
                }
                (Incoming::Tcp(stream, _), _) => {
                    let Ok(stream) = stream.into_std() else { continue };
                    let way = if matches!(listener, Listener::Grpc(..)) { Way::Grpc } else { Way::LegacyTcp };
                    self.hand(shard, way(stream), Identity::anonymous(), count).await?;
                }
                (Incoming::Unix(stream), _) => {
                    let Ok((peer, stream)) = stream.peer_cred().and_then(|peer| Ok((peer, stream.into_std()?))) else {
                        continue;
                    };
                    let (users, acceptor) = (self.users.clone(), self.clone());
                    if let Some(identity) = users.known(peer.uid(), peer.gid()) {
                        self.hand(shard, Way::LegacyUnix(stream), identity, count).await?;
                        continue;
                    }
                    unknown.spawn(async move {
                        let identity = users.identity(peer.uid(), peer.gid()).await;
                        acceptor.hand(shard, Way::LegacyUnix(stream), identity, count).await
                    });
                }
            }
        }
        drop(listener);
        while let Some(ended) = unknown.join_next().await {
            ended.unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// Hands a connection to a shard that another gateway had. It has a place whatever the limits are: it was let in before.
    ///
    /// # Errors
    /// The shards have ended.
    pub async fn take_over(&self, arrived: Arrived) -> Result<(), ShardEnded> {
        let Arrived { socket, carried } = arrived;
        let (way, peer) = match socket {
            hardserver::Socket::Tcp(stream) => {
                let Ok(peer) = stream.peer_addr() else { return Ok(()) };
                (Way::LegacyTcp(stream), Peer::from(peer.ip()))
            }
            hardserver::Socket::Unix(stream) => {
                let Ok(peer) = rustix::net::sockopt::socket_peercred(&stream) else { return Ok(()) };
                (Way::LegacyUnix(stream), Peer::User(peer.uid.as_raw()))
            }
        };
        let identity = match &way {
            Way::LegacyUnix(stream) => {
                let Ok(peer) = rustix::net::sockopt::socket_peercred(stream) else { return Ok(()) };
                self.users.identity(peer.uid.as_raw(), peer.gid.as_raw()).await
            }
            _ => Identity::anonymous(),
        };
        let (index, shard) = self.emptiest()?;
        let count = shard.reserve_in_any_case(&self.limit, peer);
        let accepted = Accepted { way, identity, carried: Some(carried) };
        self.shards[index].hand(Handed::Caller(accepted, count)).await
    }

    fn emptiest(&self) -> Result<(usize, &ShardHandle), ShardEnded> {
        self.shards.iter().enumerate().min_by_key(|(_, shard)| shard.callers()).ok_or(ShardEnded)
    }

    async fn hand(&self, shard: usize, way: Way, identity: Identity, count: CallerCount) -> Result<(), ShardEnded> {
        self.shards[shard].hand(Handed::Caller(Accepted { way, identity, carried: None }, count)).await
    }

    /// A place on the shard with the least to do, if there is one.
    fn place(&self, peer: Peer) -> Result<Option<(usize, CallerCount)>, ShardEnded> {
        static TOO_MANY: Seldom =
            Seldom::new("a connection was closed: `limits.callers` or `limits.peer_callers` is reached");
        let (index, shard) = self.emptiest()?;
        let place = shard.reserve(&self.limit, peer).map(|count| (index, count));
        if place.is_none() {
            self.refused.add();
        }
        if place.is_none()
            && let Some(Tell { untold }) = TOO_MANY.tell("")
        {
            let limit = self.limit.limit();
            tracing::warn!(
                limit,
                ?peer,
                untold,
                "a connection was closed: `limits.callers` is reached, or this peer's `limits.peer_callers`"
            );
        }
        Ok(place)
    }
}

/// A connection on which TLS was agreed on; `None` where it was not, which is in the log.
async fn secured(tls: &Terminator, stream: TcpStream) -> Option<(Box<super::stream::Tls>, Identity)> {
    let peer = stream.peer_addr().ok();
    let stream = stream.into_std().and_then(prepared).and_then(TcpStream::from_std).ok()?;
    let shaken = tls.shake_hands(stream).await;
    // Whoever sends garbage must not be able to fill the log: the metrics count it.
    shaken.inspect_err(|error| tracing::debug!(?peer, listener = tls.listener(), %error, "no TLS was agreed on")).ok()
}

async fn next(listener: &Listener) -> io::Result<Incoming> {
    Ok(match listener {
        Listener::Grpc(listener, _) | Listener::LegacyTcp(listener, _) => {
            let (stream, address) = listener.accept().await?;
            Incoming::Tcp(stream, address)
        }
        Listener::LegacyUnix(socket) => Incoming::Unix(socket.accept().await?),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpStream;
    use tokio::task::JoinSet;

    use super::*;

    const ACCESS: SocketAccess = SocketAccess { mode: 0o660, group: None };

    #[tokio::test]
    async fn a_unix_socket_has_its_mode_and_is_taken_over_only_from_the_dead() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("nserver");
        let socket = bind_unix(&path, ACCESS).expect("free");
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(matches!(bind_unix(&path, ACCESS), Err(BindError::InUse { .. })));
        drop(socket);
        assert!(!path.exists(), "the file goes with the socket");

        drop(std::os::unix::net::UnixListener::bind(&path).expect("free"));
        assert!(path.exists(), "as a process that was killed leaves it");
        let _socket = bind_unix(&path, ACCESS).expect("taken over");
        assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1, "nothing else is left");
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("nserver");
        std::fs::write(&path, "precious").expect("writable");
        assert!(matches!(bind_unix(&path, ACCESS), Err(BindError::NotASocket { .. })));
        assert_eq!(std::fs::read(&path).expect("readable"), b"precious");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_burst_of_callers_stays_within_the_limit_and_is_spread_over_the_shards() {
        const LIMIT: usize = 6;
        const BURST: usize = 40;
        // Shards that are busy: nothing that is handed to them is taken meanwhile.
        let (shards, mut inboxes): (Vec<_>, Vec<_>) = (0..2).map(|_| ShardHandle::stalled()).unzip();
        let shards: Arc<[ShardHandle]> = shards.into();
        let (limit, refused) = (Places::new(LIMIT, LIMIT), Arc::new(Refused::default()));
        let mut acceptors = JoinSet::new();
        let mut addresses = Vec::new();
        let acceptor = Acceptor {
            shards: shards.clone(),
            limit: limit.clone(),
            refused: refused.clone(),
            users: Users::default(),
            stopped: watch::channel(false).1,
        };
        for kind in [Listener::Grpc, Listener::LegacyTcp] {
            let (listener, address) = bind_tcp("127.0.0.1:0".parse().expect("an address")).await.expect("bound");
            acceptors.spawn(acceptor.clone().accept(kind(listener, None)));
            addresses.push(address);
        }
        let mut callers = JoinSet::new();
        for number in 0..BURST {
            let address = addresses[number % 2];
            callers.spawn(async move { TcpStream::connect(address).await.expect("the system accepts it") });
        }
        // Those that are refused see their connection's end; the others wait for a shard.
        let mut ends = JoinSet::new();
        for mut caller in callers.join_all().await {
            ends.spawn(async move { caller.read(&mut [0]).await });
        }
        let bound = Duration::from_secs(30);
        for _ in LIMIT..BURST {
            let end = tokio::time::timeout(bound, ends.join_next()).await.expect("refused in time");
            let end = end.expect("more callers").expect("no panic");
            assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        }
        assert_eq!(refused.count(), (BURST - LIMIT) as u64);
        let handed: Vec<_> = inboxes.iter().map(tokio::sync::mpsc::Receiver::len).collect();
        assert_eq!(handed.iter().sum::<usize>(), LIMIT);
        assert!(handed.iter().all(|handed| *handed > 0), "all on one shard: {handed:?}");
        assert_eq!(shards.iter().map(ShardHandle::callers).sum::<usize>(), LIMIT);

        // Callers that leave make room for others.
        for inbox in &mut inboxes {
            while inbox.try_recv().is_ok() {}
        }
        assert_eq!(shards.iter().map(ShardHandle::callers).sum::<usize>(), 0);
        let _next = TcpStream::connect(addresses[0]).await.expect("accepted");
        let next = tokio::time::timeout(bound, inboxes[0].recv()).await.expect("handed over in time");
        assert!(matches!(next, Some(Handed::Caller(..))));
        drop(next);

        // Places come back from shards that have ended, and from a hand-over to one.
        drop(inboxes);
        let _reset_or_closed = TcpStream::connect(addresses[0]).await;
        let ended = tokio::time::timeout(bound, acceptors.join_next()).await.expect("noticed in time");
        assert!(matches!(ended, Some(Ok(Err(ShardEnded)))), "{ended:?}");
        assert_eq!(shards.iter().map(ShardHandle::callers).sum::<usize>(), 0);
    }
}
