//! The admin port: HTTP/1.1 over TCP, TLS or a Unix socket, and how long and how many connections there may be. What is answered is in
//! `answer`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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
use crate::seldom::{Seldom, Tell};

/// Connections at the admin port. One more takes the place of the one that has been there longest without asking anything; where all have
/// asked, it is closed at once.
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
    let mut connections = VecDeque::new();
    let listener = Arc::new(listener);
    loop {
        let accepted = match &*listener {
            Listener::Plain { listener, .. } | Listener::Tls(listener, _) => {
                listener.accept().await.map(|(stream, _)| Incoming::Tcp(stream))
            }
            Listener::Unix(socket) => socket.accept().await.map(Incoming::Unix),
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                static NOT_ACCEPTED: Seldom = Seldom::new("a connection to the admin port could not be accepted");
                if let Some(Tell { untold }) = NOT_ACCEPTED.tell("") {
                    tracing::warn!(%error, untold, "a connection to the admin port could not be accepted");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if !has_room(&mut connections) {
            tracing::debug!(limit = MAX_CONNECTIONS, "a connection to the admin port was closed: there are too many");
            continue;
        }
        let has_asked = Arc::new(AtomicBool::new(false));
        let asked = has_asked.clone();
        let (listener, control, users) = (listener.clone(), control.clone(), users.clone());
        let task = tokio::spawn(async move {
            let leash = Leash::new(CONNECTION_TIMEOUT);
            tokio::select! {
                () = serve_connection(&listener, stream, control, &users, asked, &leash) => {}
                () = leash.over() => tracing::debug!("a connection to the admin port took too long"),
            }
        });
        connections.push_back(Connected { task: task.abort_handle(), has_asked });
    }
}

/// A connection that is being served.
struct Connected {
    task: AbortHandle,
    has_asked: Arc<AtomicBool>,
}

/// Whether there is room for one more. Whoever connects and asks nothing must not keep a probe or an operator out.
fn has_room(connections: &mut VecDeque<Connected>) -> bool {
    connections.retain(|connected| !connected.task.is_finished());
    if connections.len() < MAX_CONNECTIONS {
        return true;
    }
    let idle = connections.iter().position(|connected| !connected.has_asked.load(Ordering::Relaxed));
    let Some(idle) = idle.and_then(|idle| connections.remove(idle)) else { return false };
    idle.task.abort();
    true
}

async fn serve_connection(
    listener: &Listener,
    stream: Incoming,
    control: Arc<Control>,
    users: &Users,
    asked: Arc<AtomicBool>,
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
                        answer_all(stream, operator, control, asked, leash).await;
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
            answer_all(stream, operator, control, asked, leash).await;
        }
        (_, Incoming::Unix(stream)) => {
            let Ok(peer) = stream.peer_cred() else { return };
            let identity = users.identity(peer.uid(), peer.gid()).await;
            let process = peer.pid().map(|pid| format!("pid {pid} uid {}", peer.uid()));
            let actor = Actor::new(identity, ListenerKind::Management, process.as_deref()).into();
            let operator = Operator { actor, takes_changes: true, is_near: true, is_tls: false };
            answer_all(stream, operator, control, asked, leash).await;
        }
        (Listener::Unix(_), Incoming::Tcp(_)) => unreachable!("a Unix socket accepts no TCP"),
    }
}

async fn answer_all(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    operator: Operator,
    control: Arc<Control>,
    asked: Arc<AtomicBool>,
    leash: &Leash,
) {
    let answer = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        let (control, operator) = (control.clone(), operator.clone());
        async move { Ok::<_, Infallible>(answer(&request, &operator, &control, leash).await) }
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
