//! What the admin port answers: pages to read, and reload, drain and resume to ask for.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming as Body;
use serde_json::{Value, json};

use super::events::{Events, Leash};
use super::guard::{by_address, from_here, may_change, may_open};
use super::sampler::Sample;
use super::seen::readiness;
use super::server::Operator;
use super::{Board, Control, DrainError, Draining, ReloadError, console, log};
use crate::audit::Actor;

/// An answer: whole, or one that goes on.
pub(super) type Answer = Response<Either<Full<Bytes>, Events>>;

/// How long somebody waits for the sampler to say how the shards are; it asks them each second. A probe is answered without it, too.
const SAMPLE_TIMEOUT: Duration = Duration::from_millis(1500);

/// How long a shard that is well may take to answer a probe. Less than a probe's own time-out (`deploy/helm`), more than a busy one needs.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// After how many seconds somebody who may not listen now should try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Answers a request. The answer goes on where it is `/api/events`; `leash` is its connection's.
pub(super) async fn answer(
    request: &Request<Body>,
    operator: &Operator,
    control: &Arc<Control>,
    leash: &Leash,
) -> Answer {
    let path = request.uri().path();
    if !operator.is_near && !matches!(path, "/metrics" | "/healthz" | "/readyz") {
        let why =
            "from another computer there are /metrics, /healthz and /readyz here; all else is at listen.management\n";
        return text(StatusCode::FORBIDDEN, why.into()).map(Either::Left);
    }
    let is_get = *request.method() == Method::GET;
    if !is_get || path != "/api/events" {
        return answer_whole(request, operator, control).await.map(Either::Left);
    }
    if let Err(why) = by_address(request, operator) {
        return text(StatusCode::FORBIDDEN, why).map(Either::Left);
    }
    let Some(events) = Events::begin(operator, control, leash) else {
        let why = "as many listen as may; ask for /api/state, or try again later\n";
        let mut response = text(StatusCode::SERVICE_UNAVAILABLE, why.into());
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        return response.map(Either::Left);
    };
    let mut response = Response::new(Either::Right(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    console::harden(headers);
    response
}

async fn answer_whole(request: &Request<Body>, operator: &Operator, control: &Arc<Control>) -> Response<Full<Bytes>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/reload" | "/resume" if is_read => only(&Method::POST),
        path @ ("/reload" | "/drain" | "/resume" | "/log") => {
            if !is_read && *request.method() != Method::POST {
                return only(&Method::POST);
            }
            if is_read && let Err(why) = by_address(request, operator) {
                return text(StatusCode::FORBIDDEN, why);
            }
            if !is_read && let Err(why) = may_change(operator, control).and_then(|()| from_here(request, operator)) {
                control.refused(path, &operator.actor, &why);
                return text(StatusCode::FORBIDDEN, why);
            }
            if path == "/log" {
                return if is_read { log::show() } else { log::change(request, control, &operator.actor) };
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
        "/healthz" => health(control).await,
        // Its reasons repeat what machines said. A probe that names the gateway otherwise is still answered.
        "/readyz" if operator.is_near && accepts_json(request) && by_address(request, operator).is_ok() => {
            ready_json(control).await
        }
        "/readyz" => ready(control.board()),
        path => match console::file(path) {
            Some(file) => match may_open(request, operator) {
                Ok(()) => file,
                Err(why) => text(StatusCode::FORBIDDEN, why),
            },
            None => match by_address(request, operator) {
                Ok(()) => look(path, operator, control).await,
                Err(why) => text(StatusCode::FORBIDDEN, why),
            },
        },
    }
}

/// What is there for whoever looks: what the console shows, and the audit log's head.
async fn look(path: &str, operator: &Operator, control: &Arc<Control>) -> Response<Full<Bytes>> {
    let history = path.strip_prefix("/api/machines/").and_then(|rest| rest.strip_suffix("/history"));
    let mut response = match (path, history.and_then(unescaped)) {
        ("/api/state", _) => state(operator, control).await,
        ("/api/history", _) => ready_made(control.sampler().points()),
        ("/audit", _) => audit(control),
        (_, Some(machine)) => match control.history(&machine).await {
            Ok(history) => json(StatusCode::OK, &json!({ "machine": machine, "history": history })),
            Err(error) => json(StatusCode::NOT_FOUND, &json!({ "message": error.to_string() })),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /, /metrics, /healthz, /readyz, /audit, /drain, /log, /api/state, /api/events, /api/history and \
             /api/machines/NAME/history, and to POST to /reload, /drain, /resume and /log\n"
                .into(),
        ),
    };
    console::harden(response.headers_mut());
    response
}

/// What the sampler saw last, a second ago as a rule, if it is what is wanted; else the first that is. `None` where there is none in time.
async fn sample(control: &Arc<Control>, is_wanted: impl Fn(&Sample) -> bool) -> Option<Arc<Sample>> {
    let mut samples = control.sampler().look(control);
    let is_it =
        |sample: &Option<Arc<Sample>>| sample.as_deref().is_some_and(|sample| sample.is_fresh() && is_wanted(sample));
    // The sender is in `control`.
    tokio::time::timeout(SAMPLE_TIMEOUT, samples.wait_for(is_it)).await.ok()?.ok()?.clone()
}

/// The state, and whether whoever asks may change it.
async fn state(operator: &Operator, control: &Arc<Control>) -> Response<Full<Bytes>> {
    match sample(control, |_| true).await {
        Some(sample) => ready_made(with_rights(&sample.state, operator, control)),
        None => text(StatusCode::INTERNAL_SERVER_ERROR, "nobody has seen the state; see the log\n".into()),
    }
}

/// The state, and whether whoever looks may change it, or why not.
pub(super) fn with_rights(state: &str, operator: &Operator, control: &Control) -> String {
    let may_change = may_change(operator, control);
    let why_not = may_change.as_ref().err().map(|why| why.trim_end());
    let object = state.strip_prefix('{').unwrap_or("}");
    format!("{{\"may_change\":{},\"why_not\":{},{object}", may_change.is_ok(), json!(why_not))
}

/// Makes a change to its end, even if whoever asked for it goes away: half of one is none that anybody wanted.
async fn finished<F: Future<Output = Response<Full<Bytes>>> + Send + 'static>(
    control: &Arc<Control>,
    change: impl FnOnce(Arc<Control>) -> F,
) -> Response<Full<Bytes>> {
    let changed = tokio::spawn(change(control.clone())).await;
    changed.unwrap_or_else(|_| text(StatusCode::INTERNAL_SERVER_ERROR, "the change has failed; see the log\n".into()))
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

/// Healthy is a process whose shards answer. One that hangs leaves its callers without an answer, whatever the others do.
async fn health(control: &Control) -> Response<Full<Bytes>> {
    if control.shards_answer(HEALTH_TIMEOUT).await {
        return text(StatusCode::OK, "ok\n".into());
    }
    let why = format!(
        "a shard has not answered within {} s, and its callers wait: restart the gateway\n",
        HEALTH_TIMEOUT.as_secs()
    );
    text(StatusCode::SERVICE_UNAVAILABLE, why)
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

/// The same for programs, with reasons; those of the machines where the sampler tells them in time. A world may have become unready since
/// its last sample: the next one has the reason.
async fn ready_json(control: &Arc<Control>) -> Response<Full<Bytes>> {
    let board = control.board();
    let has_reasons = |sample: &Sample| {
        board.worlds().iter().all(|(world, is_ready)| *is_ready || sample.reasons.contains_key(world))
    };
    let sample = sample(control, has_reasons).await;
    let readiness = readiness(board, |world| sample.as_ref()?.reasons.get(world).cloned());
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &json!(readiness))
}

/// Whether whoever asks wants JSON and says so.
fn accepts_json(request: &Request<Body>) -> bool {
    let accepted = request.headers().get_all(header::ACCEPT).iter().filter_map(|accepted| accepted.to_str().ok());
    accepted.flat_map(|accepted| accepted.split(',')).any(|kind| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    })
}

fn only(method: &Method) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {method}\n"));
    if let Ok(method) = HeaderValue::from_str(method.as_str()) {
        response.headers_mut().insert(header::ALLOW, method);
    }
    response
}

pub(super) fn json(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = ready_made(format!("{body}\n"));
    *response.status_mut() = status;
    response
}

/// JSON that is text already.
fn ready_made(json: String) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, json);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

pub(super) fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
