//! The admin port: HTTP/1.1, three pages to read and nothing to change.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Metrics;
use crate::shard::{Report, ShardHandle};

/// Connections at the admin port; one more is closed at once.
pub(crate) const MAX_CONNECTIONS: usize = 64;

/// How long a request's head may take to come. Short, so that connections that ask nothing soon make room for one that does.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last: one that does not read its answer would keep its place for ever.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// Whether the gateway takes jobs, as the control plane sees it.
pub trait Readiness: Send + Sync {
    /// Each world's name and whether it can take a job now.
    fn worlds(&self) -> Vec<(String, bool)>;
    /// Whether the gateway is stopping.
    fn is_draining(&self) -> bool;
}

/// Serves the admin port until it is dropped.
pub async fn serve(
    listener: TcpListener,
    shards: Arc<[ShardHandle]>,
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Readiness>,
) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the admin port could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            tracing::debug!(limit = MAX_CONNECTIONS, "a connection to the admin port was closed: there are too many");
            continue;
        };
        let (shards, metrics, readiness) = (shards.clone(), metrics.clone(), readiness.clone());
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let (shards, metrics, readiness) = (shards.clone(), metrics.clone(), readiness.clone());
                async move { Ok::<_, Infallible>(answer(&request, &shards, &metrics, readiness.as_ref()).await) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                // A dashboard that keeps its connection would keep a place.
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            match tokio::time::timeout(CONNECTION_TIMEOUT, serving).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a connection to the admin port ended badly"),
                Err(_) => tracing::debug!("a connection to the admin port took too long"),
            }
            drop(permit);
        });
    }
}

async fn answer(
    request: &Request<Incoming>,
    shards: &[ShardHandle],
    metrics: &Metrics,
    readiness: &dyn Readiness,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
    }
    match request.uri().path() {
        "/metrics" => {
            let mut reports: Vec<Report> = Vec::with_capacity(shards.len());
            for shard in shards {
                reports.extend(shard.report().await);
            }
            text(StatusCode::OK, metrics.render(&reports))
        }
        "/healthz" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => ready(readiness),
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n".into()),
    }
}

/// Ready is a gateway that is not stopping and has a world that can take a job.
fn ready(readiness: &dyn Readiness) -> Response<Full<Bytes>> {
    let worlds = readiness.worlds();
    let is_draining = readiness.is_draining();
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

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
