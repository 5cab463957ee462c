//! The admin port: HTTP/1.1, pages to read, and reload, drain and resume to ask for.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming as Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::AbortHandle;

use super::{Board, Control, DrainError, Draining, ReloadError, log};
use crate::access::{Action, Identity, Means, Users};
use crate::audit::{Actor, ListenerKind};
use crate::listen::accept::UnixSocket;
use crate::listen::tls::Terminator;
use crate::seldom::{Seldom, Tell};

/// Connections at the admin port. One more takes the place of the one that has been there longest without asking anything; where all have
/// asked, it is closed at once.
pub(crate) const MAX_CONNECTIONS: usize = 64;

/// How long a request's head may take to come. Short, so that connections that ask nothing soon make room for one that does.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last: one that does not read its answer would keep its place for ever.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

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
struct Operator {
    actor: Arc<Actor>,
    takes_changes: bool,
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
            let serving = serve_connection(&listener, stream, control, &users, asked);
            if tokio::time::timeout(CONNECTION_TIMEOUT, serving).await.is_err() {
                tracing::debug!("a connection to the admin port took too long");
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
) {
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
                        answer_all(stream, Operator { actor, takes_changes: true }, control, asked).await;
                    }
                }
                Err(error) => tracing::debug!(%error, "no TLS was agreed on at listen.management"),
            }
        }
        (Listener::Plain { takes_changes, .. }, Incoming::Tcp(stream)) => {
            let from = stream.peer_addr().map(|peer| peer.to_string()).ok();
            let actor = Actor::new(Identity::anonymous(), ListenerKind::Admin, from.as_deref()).into();
            let operator = Operator { actor, takes_changes: *takes_changes };
            answer_all(stream, operator, control, asked).await;
        }
        (_, Incoming::Unix(stream)) => {
            let Ok(peer) = stream.peer_cred() else { return };
            let identity = users.identity(peer.uid(), peer.gid()).await;
            let process = peer.pid().map(|pid| format!("pid {pid} uid {}", peer.uid()));
            let actor = Actor::new(identity, ListenerKind::Management, process.as_deref()).into();
            answer_all(stream, Operator { actor, takes_changes: true }, control, asked).await;
        }
        (Listener::Unix(_), Incoming::Tcp(_)) => unreachable!("a Unix socket accepts no TCP"),
    }
}

async fn answer_all(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    operator: Operator,
    control: Arc<Control>,
    asked: Arc<AtomicBool>,
) {
    let answer = service_fn(|request| {
        asked.store(true, Ordering::Relaxed);
        let (control, operator) = (control.clone(), operator.clone());
        async move { Ok::<_, Infallible>(answer(&request, &operator, &control).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        // A dashboard that keeps its connection would keep a place.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "a connection to the admin port ended badly");
    }
}

/// Whether whoever asks may have something changed.
fn may_change(operator: &Operator, control: &Control) -> Result<(), String> {
    if !operator.takes_changes {
        return Err("changes are asked for at listen.management; name it with --admin\n".into());
    }
    let identity = operator.actor.identity();
    let config = control.config();
    let (rules, worlds) = (&config.permissions, config.worlds.iter().map(|world| world.name.as_str()));
    let why = if rules.allow(identity, Action::Admin, None).is_none() {
        "no [[permission]] gives it `admin`"
    } else if identity.means() == Means::UnixUser && rules.allow_jobs(identity, worlds) {
        // A certificate is one for callers or one for operators, by its authority. A Unix user is the same user everywhere.
        "a [[permission]] lets it use worlds, and who sends jobs changes nothing here; manage as another user"
    } else {
        return Ok(());
    };
    Err(format!("{identity} may not do this: {why}\n"))
}

async fn answer(request: &Request<Body>, operator: &Operator, control: &Arc<Control>) -> Response<Full<Bytes>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/reload" | "/resume" if is_read => only(&Method::POST),
        "/log" if is_read => log::show(),
        path @ ("/reload" | "/drain" | "/resume" | "/log") => {
            if !is_read && *request.method() != Method::POST {
                return only(&Method::POST);
            }
            if !is_read && let Err(why) = may_change(operator, control).and_then(|()| from_here(request, operator)) {
                control.refused(path, &operator.actor, &why);
                return text(StatusCode::FORBIDDEN, why);
            }
            if path == "/log" {
                return log::change(request, control, &operator.actor);
            }
            let machine = match machine(request) {
                Ok(machine) => machine,
                Err(why) => return text(StatusCode::BAD_REQUEST, why),
            };
            match path {
                "/reload" if machine.is_some() => text(StatusCode::BAD_REQUEST, "a reload is of everything\n".into()),
                "/reload" => {
                    let actor = operator.actor.clone();
                    finished(control, |control| async move { reload(&control, &actor).await }).await
                }
                "/drain" if is_read => draining(machine.as_deref(), control.draining(machine.as_deref()).await),
                _ => {
                    let drains = path == "/drain";
                    let actor = operator.actor.clone();
                    let change = move |control: Arc<Control>| async move {
                        let machine = machine.as_deref();
                        let changed = control.set_draining(machine, drains).await;
                        let result = changed.as_ref().map(|_| ()).map_err(ToString::to_string);
                        control.record(if drains { "drain" } else { "resume" }, machine, Some(&actor), result);
                        draining(machine, changed)
                    };
                    finished(control, change).await
                }
            }
        }
        _ if !is_read => only(&Method::GET),
        "/metrics" => text(StatusCode::OK, control.metrics().await),
        "/healthz" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => ready(control.board()),
        "/audit" => audit(control),
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz, /readyz, /audit, /drain and /log, and to POST to /reload, /drain, /resume and /log\n"
                .into(),
        ),
    }
}

/// Makes a change to its end, even if whoever asked for it goes away: half of one is none that anybody wanted.
async fn finished<F: Future<Output = Response<Full<Bytes>>> + Send + 'static>(
    control: &Arc<Control>,
    change: impl FnOnce(Arc<Control>) -> F,
) -> Response<Full<Bytes>> {
    let changed = tokio::spawn(change(control.clone())).await;
    changed.unwrap_or_else(|_| text(StatusCode::INTERNAL_SERVER_ERROR, "the change has failed; see the log\n".into()))
}

/// Whether a request to change something comes from a program on this machine's behalf, and not from a page in somebody's
/// browser: that names where it comes from (`Origin`), or it was led here by a name that its author gave this address (`Host`).
fn from_here(request: &Request<Body>, operator: &Operator) -> Result<(), String> {
    if request.headers().contains_key(header::ORIGIN) {
        return Err("a page in a browser may not change this gateway\n".into());
    }
    if operator.actor.identity().means() != Means::Anonymous {
        // A browser has shown nobody who it is, by whatever name it came.
        return Ok(());
    }
    let hosts: Vec<_> = request.headers().get_all(header::HOST).iter().collect();
    let asked = request.uri().authority().map(Authority::host);
    let named = match hosts.as_slice() {
        [host] => host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()),
        _ => None,
    };
    let is_here = |host: &str| {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
    };
    let hosts = [named.as_ref().map(Authority::host), asked];
    if named.is_some() && hosts.into_iter().flatten().all(is_here) {
        return Ok(());
    }
    Err("ask for a change by an IP address or as localhost: another name may be a browser's\n".into())
}

/// The machine that a request is about: `?machine=NAME`; `None`: all of the gateway. Other parameters are mistakes.
fn machine(request: &Request<Body>) -> Result<Option<String>, String> {
    let Some(query) = request.uri().query().filter(|query| !query.is_empty()) else { return Ok(None) };
    let name = query.strip_prefix("machine=").filter(|name| !name.is_empty() && !name.contains('&'));
    let name = name.and_then(unescaped).ok_or("the only parameter is ?machine=NAME\n")?;
    Ok(Some(name))
}

/// A query's value without its percent-encoding.
pub(super) fn unescaped(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// How far the audit log has come: what somebody keeps elsewhere who wants to see later that its end was not cut off.
fn audit(control: &Control) -> Response<Full<Bytes>> {
    let Some(audit) = control.audit() else {
        return text(StatusCode::NOT_FOUND, "there is no audit log; audit.to makes one\n".into());
    };
    let status = audit.status();
    let head = json!({
        "head": status.head.to_string(), "sequence": status.head.sequence, "hash": status.head.hash.to_string(),
        "to": audit.target().to_string(), "waiting": status.waiting, "dropped": status.dropped,
        "failing": status.is_failing, "jobs_refused": status.jobs_refused, "refuses_jobs": status.refuses_jobs,
    });
    json(StatusCode::OK, &head)
}

async fn reload(control: &Control, actor: &Arc<Actor>) -> Response<Full<Bytes>> {
    let refused = |status, problems: Value, why: String| {
        json(status, &json!({ "result": "refused", "problems": problems, "message": why }))
    };
    let reloaded = control.reload().await;
    control.record("reload", None, Some(actor), reloaded.as_ref().map(|_| ()).map_err(ToString::to_string));
    match reloaded {
        Ok(reloaded) => json(
            StatusCode::OK,
            &json!({
                "result": "ok",
                "machines": { "added": reloaded.machines_added, "removed": reloaded.machines_removed },
                "worlds": { "added": reloaded.worlds_added, "removed": reloaded.worlds_removed },
            }),
        ),
        Err(ReloadError::Problems(problems)) => {
            let status = if problems.need_restart() { StatusCode::CONFLICT } else { StatusCode::BAD_REQUEST };
            refused(status, problems.to_json(), problems.to_string())
        }
        Err(error @ (ReloadError::NoFile | ReloadError::Stopping)) => {
            refused(StatusCode::CONFLICT, json!([]), error.to_string())
        }
        Err(error @ ReloadError::Ended(_)) => refused(StatusCode::INTERNAL_SERVER_ERROR, json!([]), error.to_string()),
    }
}

/// What is so, now that a change was made or asked for.
fn draining(machine: Option<&str>, draining: Result<Draining, DrainError>) -> Response<Full<Bytes>> {
    match draining {
        Ok(Draining { is_draining, jobs }) => {
            json(StatusCode::OK, &json!({ "machine": machine, "draining": is_draining, "jobs": jobs }))
        }
        Err(error) => {
            let status = match error {
                DrainError::NoSuchMachine(_) => StatusCode::NOT_FOUND,
                DrainError::Stopping => StatusCode::CONFLICT,
                DrainError::Ended(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            json(status, &json!({ "message": error.to_string() }))
        }
    }
}

/// Ready is a gateway that does not drain and has a world that can take a job.
fn ready(board: &Board) -> Response<Full<Bytes>> {
    let worlds = board.worlds();
    let is_draining = board.is_draining();
    let is_ready = !is_draining && worlds.iter().any(|(_, ready)| *ready);
    let mut body = String::from(match (is_draining, is_ready) {
        (true, _) => "not ready: draining\n",
        (false, true) => "ready\n",
        (false, false) => "not ready: no world can take a job\n",
    });
    for (world, ready) in worlds {
        // Writing to a String does not fail.
        let _ = writeln!(body, "world {world}: {}", if ready { "ready" } else { "no machine is up" });
    }
    text(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
}

fn only(method: &Method) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {method}\n"));
    if let Ok(method) = header::HeaderValue::from_str(method.as_str()) {
        response.headers_mut().insert(header::ALLOW, method);
    }
    response
}

pub(super) fn json(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = text(status, format!("{body}\n"));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

pub(super) fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
