//! The admin port: HTTP/1.1 over TCP, TLS or a Unix socket, and how long and how many connections there may be. What is answered is in
//! `answer`.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use http_body_util::Either;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::AbortHandle;

use super::Control;
use super::answer::answer;
use super::events::Leash;
use crate::access::{Identity, Users};
use crate::audit::{Actor, ListenerKind};
use crate::listen::accept::UnixSocket;
use crate::listen::tls::Terminator;
use crate::places::Peer;
use crate::seldom::{Seldom, Tell};

/// Connections at the admin port. One more takes the place of the oldest of the kind that there is most of: those of one peer that have
/// asked nothing, or those of one peer that have asked. So nobody keeps a probe out, whether by silence or by not reading.
pub(crate) const MAX_CONNECTIONS: usize = 64;

/// How long a request's head may take to come. Short, so that connections that ask nothing soon make room for one that does.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last: one that does not read its answer would keep its place for ever. Only `/api/events` lasts longer,
/// as long as it is read.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// What is kept of an answer that is not read: here, and in the system. Whoever does not read events is noticed the sooner.
const BUFFER_BYTES: usize = 64 * 1024;

/// Where operators come in.
pub enum Listener {
    /// `listen.admin`: nobody can show who they are.
    Plain {
        /// The port.
        listener: TcpListener,
        /// Whether changes may be asked for here; where not, they are at `listen.management`.
        takes_changes: bool,
    },
    /// `listen.management`, where the kernel says which user asks.
    Unix(UnixSocket),
    /// `listen.management`, where a certificate says who asks.
    Tls(TcpListener, Arc<Terminator>),
}

/// Who asks, at which listener.
#[derive(Clone)]
pub(super) struct Operator {
    /// Who, and from where.
    pub(super) actor: Arc<Actor>,
    /// Whether changes may be asked for where it came in.
    pub(super) takes_changes: bool,
    /// Whether it asks from this computer, or has shown who it is. Others see what probes and Prometheus need, and nothing of callers.
    pub(super) is_near: bool,
    /// Whether it came over TLS.
    pub(super) is_tls: bool,
}

/// A connection as the system gives it.
enum Incoming {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Serves one of the listeners until it is dropped.
pub async fn serve(listener: Listener, control: Arc<Control>, users: Users) {
    let mut connections = Connections::default();
    let listener = Arc::new(listener);
    loop {
        let accepted = match &*listener {
            Listener::Plain { listener, .. } | Listener::Tls(listener, _) => {
                listener.accept().await.map(|(stream, peer)| (Incoming::Tcp(stream), Some(peer.ip().into())))
            }
            Listener::Unix(socket) => socket.accept().await.map(|stream| {
                let user = stream.peer_cred().ok().map(|peer| Peer::User(peer.uid()));
                (Incoming::Unix(stream), user)
            }),
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                static NOT_ACCEPTED: Seldom = Seldom::new("a connection to the admin port could not be accepted");
                if let Some(Tell { untold }) = NOT_ACCEPTED.tell("") {
                    tracing::warn!(%error, untold, "a connection to the admin port could not be accepted");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if !connections.make_room() {
            tracing::debug!(limit = MAX_CONNECTIONS, "a connection to the admin port was closed: there are too many");
            continue;
        }
        let progress = Progress::new();
        let (listener, control, users) = (listener.clone(), control.clone(), users.clone());
        let of_task = progress.clone();
        let task = tokio::spawn(async move {
            let leash = Leash::new(CONNECTION_TIMEOUT);
            tokio::select! {
                () = serve_connection(&listener, stream, control, &users, of_task, &leash) => {}
                () = leash.over() => tracing::debug!("a connection to the admin port took too long"),
            }
        });
        connections.0.push_back(Connected { peer, task: task.abort_handle(), progress });
    }
}

/// How far a connection has come.
#[derive(Clone)]
struct Progress(Arc<AtomicU8>);

impl Progress {
    /// It has asked nothing yet.
    const SILENT: u8 = 0;
    /// It has asked.
    const ASKED: u8 = 1;
    /// It listens to events, which are few and are let go where they are not read.
    const LISTENS: u8 = 2;

    fn new() -> Self {
        Self(Arc::new(AtomicU8::new(Self::SILENT)))
    }

    fn set(&self, progress: u8) {
        self.0.store(progress, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that is being served.
struct Connected {
    /// `None` where it was gone before the system could say.
    peer: Option<Peer>,
    task: AbortHandle,
    progress: Progress,
}

/// Those that are being served, the oldest first.
#[derive(Default)]
struct Connections(VecDeque<Connected>);

impl Connections {
    /// Makes room for one more. Whoever connects and asks nothing, or asks and does not read, must not keep a probe or an operator out.
    fn make_room(&mut self) -> bool {
        self.0.retain(|connected| !connected.task.is_finished());
        if self.0.len() < MAX_CONNECTIONS {
            return true;
        }
        let Some(connected) = self.most_of_a_kind().and_then(|oldest| self.0.remove(oldest)) else { return false };
        connected.task.abort();
        true
    }

    /// The oldest of the kind that there is most of. Who listens to events is of none: those are few, and are let go by themselves.
    fn most_of_a_kind(&self) -> Option<usize> {
        let kinds = || {
            let kind = |connected: &Connected| (connected.peer, connected.progress.get());
            self.0.iter().map(kind).enumerate().filter(|(_, (_, progress))| *progress != Progress::LISTENS)
        };
        let mut counts: HashMap<_, usize> = HashMap::new();
        for (_, kind) in kinds() {
            *counts.entry(kind).or_default() += 1;
        }
        let most = counts.values().copied().max()?;
        // What one has asked meanwhile makes it of another kind, which then has no count: the next one is looked at.
        kinds().find(|(_, kind)| counts.get(kind) == Some(&most)).map(|(place, _)| place)
    }
}

async fn serve_connection(
    listener: &Listener,
    stream: Incoming,
    control: Arc<Control>,
    users: &Users,
    progress: Progress,
    leash: &Leash,
) {
    if let Incoming::Tcp(stream) = &stream {
        // One that has the system's own size is only noticed later.
        let _ = SockRef::from(stream).set_send_buffer_size(BUFFER_BYTES);
    }
    match (listener, stream) {
        (Listener::Tls(_, terminator), Incoming::Tcp(stream)) => {
            // One that is too many closes at once; the terminator counts it.
            let Ok(peer) = stream.peer_addr() else { return };
            let Some(_place) = terminator.place(peer.ip().into()) else { return };
            match terminator.shake_hands(stream).await {
                Ok((mut stream, identity)) => {
                    if stream.arrive().is_ok() {
                        let from = stream.peer().map(|peer| peer.to_string());
                        let actor = Actor::new(identity, ListenerKind::Management, from.as_deref()).into();
                        let operator = Operator { actor, takes_changes: true, is_near: true, is_tls: true };
                        answer_all(stream, operator, control, progress, leash).await;
                    }
                }
                Err(error) => tracing::debug!(%error, "no TLS was agreed on at listen.management"),
            }
        }
        (Listener::Plain { takes_changes, .. }, Incoming::Tcp(stream)) => {
            let peer = stream.peer_addr().ok();
            let from = peer.map(|peer| peer.to_string());
            let actor = Actor::new(Identity::anonymous(), ListenerKind::Admin, from.as_deref()).into();
            let is_near = peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback());
            let operator = Operator { actor, takes_changes: *takes_changes, is_near, is_tls: false };
            answer_all(stream, operator, control, progress, leash).await;
        }
        (_, Incoming::Unix(stream)) => {
            let Ok(peer) = stream.peer_cred() else { return };
            let identity = users.identity(peer.uid(), peer.gid()).await;
            let process = peer.pid().map(|pid| format!("pid {pid} uid {}", peer.uid()));
            let actor = Actor::new(identity, ListenerKind::Management, process.as_deref()).into();
            let operator = Operator { actor, takes_changes: true, is_near: true, is_tls: false };
            answer_all(stream, operator, control, progress, leash).await;
        }
        (Listener::Unix(_), Incoming::Tcp(_)) => unreachable!("a Unix socket accepts no TCP"),
    }
}

async fn answer_all(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    operator: Operator,
    control: Arc<Control>,
    progress: Progress,
    leash: &Leash,
) {
    let answer = service_fn(|request| {
        progress.set(Progress::ASKED);
        let (control, operator, progress) = (control.clone(), operator.clone(), progress.clone());
        async move {
            let answer = answer(&request, &operator, &control, leash).await;
            if let Either::Right(_) = answer.body() {
                progress.set(Progress::LISTENS);
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        // A dashboard that keeps its connection would keep a place.
        .keep_alive(false)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "a connection to the admin port ended badly");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One more connection of this peer that will never end by itself.
    fn connect(connections: &mut Connections, last: u8, progress: u8) -> AbortHandle {
        assert!(connections.make_room(), "there is always room");
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        let connected = Connected {
            peer: Some(std::net::IpAddr::from([192, 0, 2, last]).into()),
            task: task.clone(),
            progress: Progress::new(),
        };
        connected.progress.set(progress);
        connections.0.push_back(connected);
        task
    }

    fn of(connections: &Connections, last: u8) -> usize {
        let peer = Some(std::net::IpAddr::from([192, 0, 2, last]).into());
        connections.0.iter().filter(|connected| connected.peer == peer).count()
    }

    #[tokio::test]
    async fn whoever_asks_and_reads_nothing_keeps_nobody_out() {
        let mut connections = Connections::default();
        // Two listen to events, one asks slowly, and two others take all that there is.
        let listeners: Vec<_> = (0..2).map(|_| connect(&mut connections, 1, Progress::LISTENS)).collect();
        let slow = connect(&mut connections, 2, Progress::ASKED);
        for _ in 0..MAX_CONNECTIONS {
            connect(&mut connections, 3, Progress::ASKED);
            connect(&mut connections, 4, Progress::ASKED);
        }
        assert_eq!(connections.0.len(), MAX_CONNECTIONS);
        assert!(of(&connections, 3).abs_diff(of(&connections, 4)) <= 1, "the two hold each other down");
        assert_eq!((of(&connections, 1), of(&connections, 2)), (2, 1));
        let probe = connect(&mut connections, 5, Progress::ASKED);
        connect(&mut connections, 3, Progress::ASKED);
        for kept in listeners.iter().chain([&slow, &probe]) {
            assert!(!kept.is_finished());
        }
        assert_eq!(of(&connections, 5), 1);
    }

    /// A probe is silent for a moment, and at the same address as who floods, where all are on one computer.
    #[tokio::test]
    async fn silence_and_unread_answers_are_two_kinds() {
        for (flood, probe) in [(Progress::ASKED, Progress::SILENT), (Progress::SILENT, Progress::ASKED)] {
            let mut connections = Connections::default();
            for _ in 1..MAX_CONNECTIONS {
                connect(&mut connections, 3, flood);
            }
            let probe = connect(&mut connections, 3, probe);
            for _ in 0..MAX_CONNECTIONS / 2 {
                connect(&mut connections, 3, flood);
            }
            tokio::task::yield_now().await;
            assert!(!probe.is_finished());
            assert_eq!(connections.0.len(), MAX_CONNECTIONS);
        }
    }
}
