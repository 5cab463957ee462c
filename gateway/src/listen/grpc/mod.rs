//! The gRPC front end: one server on each shard, fed with the connections that the acceptor hands to it.

mod call;
mod connection;
mod deadline;
mod direct;
mod failure;
mod health;
mod limits;
mod messages;
mod pipe;
mod service;
mod somebody;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use seeway_proto::v1::FILE_DESCRIPTOR_SET;
use seeway_proto::v1::see_job_service_server::SeeJobServiceServer;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;

use crate::access::token::Tokens;
use crate::audit::Actor;
use crate::listen::stream::Stream;
use crate::seldom::{Seldom, Tell};
use crate::shard::{CallerCount, Shard};
use connection::Connection;
use direct::Direct;
pub use health::Health;
pub use limits::Pipes;
use service::Service;

/// Connections that may wait for the server to take them.
const BACKLOG: usize = 64;

/// Bytes that a call, and a connection, may send ahead of what has been taken in.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// The largest message that is decoded, for jobs of at most `max_job_bytes`: twice that, and at least the 4 MiB that gRPC
/// programs are used to. A job that is too large but not by far still gets an answer of its own, instead of ending the
/// stream that it came on; one that is far too large is not held in memory.
fn max_decoded(max_job_bytes: u32) -> usize {
    const USUAL: usize = 4 * 1024 * 1024;
    const AROUND_THE_JOB: usize = 64 * 1024;
    USUAL.max(2 * max_job_bytes as usize) + AROUND_THE_JOB
}

/// The largest message of a pipe, and of a method that carries no bytes for a machine. What has come of one is in memory until the rest
/// has, and there may be as many as a connection has streams.
const PIPE_MESSAGE: usize = 1024 * 1024;
const SMALL_MESSAGE: usize = 32 * 1024;

/// The largest headers of a call, in bytes; a token is the largest that anybody needs.
const HEADERS: u32 = 32 * 1024;

/// How many streams a caller may have given up before the gateway has looked at them (CVE-2023-44487), and how many of its streams may
/// fail for mistakes in HTTP/2 (CVE-2025-8671), before its connection is closed. The first is what the HTTP/2 library has by itself, the
/// second a quarter of that; said here so that an update does not change it.
const PENDING_RESETS: usize = 20;
const ERROR_RESETS: usize = 256;

/// How often an idle connection is asked whether its caller is still there, and how long it has to answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// What the servers of all shards have in common.
#[derive(Clone)]
pub struct Common {
    /// What is told to whoever asks for health.
    pub health: Health,
    /// How many pipes may be open.
    pub pipes: Arc<Pipes>,
    /// Whose tokens are taken.
    pub tokens: Tokens,
}

/// A shard's gRPC server.
pub struct Server {
    shard: Shard,
    connections: mpsc::Sender<Result<Connection, std::io::Error>>,
    /// Until it was told to stop.
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts the server on the shard's thread.
    pub fn start(shard: &Shard, common: Common) -> Self {
        let (connections, incoming) = mpsc::channel(BACKLOG);
        let (stop, stopped) = oneshot::channel::<()>();
        let config = shard.config();
        let limits = &config.limits;
        let service = Service::new(shard.clone(), common.pipes, common.tokens.clone());
        let jobs = SeeJobServiceServer::new(service.clone()).max_decoding_message_size(SMALL_MESSAGE);
        let pipes = SeeJobServiceServer::new(service).max_decoding_message_size(PIPE_MESSAGE);
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .expect("the schema was compiled with the gateway")
            .max_decoding_message_size(SMALL_MESSAGE);
        let calls = u32::try_from(limits.caller_jobs).unwrap_or(u32::MAX);
        let routes = Routes::new(jobs)
            .add_service(reflection)
            .add_service(common.health.service(shard, common.tokens.clone()))
            .prepare();
        let service = Direct::new(shard.clone(), common.tokens, max_decoded(limits.max_job_bytes), pipes, routes);
        let mut builder = tonic::transport::Server::builder();
        if let Some(max_age) = config.tls.as_ref().map(|tls| tls.max_age).filter(|age| !age.is_zero()) {
            builder = builder.max_connection_age(max_age);
        }
        let serving = builder
            .http2_max_header_list_size(HEADERS)
            .max_concurrent_streams(calls)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
            .http2_max_local_error_reset_streams(Some(ERROR_RESETS))
            // A caller that stops within a frame can not answer.
            .http2_keepalive_interval(Some(PING_INTERVAL.min(limits.message_timeout)))
            .http2_keepalive_timeout(Some(PING_TIMEOUT.min(limits.message_timeout)))
            .serve_with_incoming_shutdown(service, ReceiverStream::new(incoming), async {
                // A server whose shard has ended without a word stops too.
                let _ = stopped.await;
            });
        let task = tokio::spawn(async {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the gRPC server has failed");
            }
        });
        Self { shard: shard.clone(), connections, stop: Some(stop), task }
    }

    /// Serves a connection until its caller goes away.
    pub async fn serve(&self, stream: Stream, actor: Arc<Actor>, count: CallerCount) {
        let connection = Connection::new(&self.shard, stream, actor, count);
        if self.connections.send(Ok(connection)).await.is_err() {
            static ENDED: Seldom = Seldom::new("the gRPC server has ended; a connection is closed");
            if let Some(Tell { untold }) = ENDED.tell("") {
                tracing::error!(untold, "the gRPC server has ended; a connection is closed");
            }
        }
    }

    /// Tells callers to connect anew, which another gateway then takes, once they have finished what they have here. Connections that
    /// were handed over before are served like the others.
    pub async fn send_away(&mut self) {
        // What waits there would be dropped unserved.
        while self.connections.capacity() < BACKLOG && !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        if let Some(stop) = self.stop.take() {
            // It may have failed.
            let _ = stop.send(());
        }
    }

    /// Whether callers were told to connect anew.
    pub fn is_sent_away(&self) -> bool {
        self.stop.is_none()
    }

    /// Takes no more calls, waits for those that run, at most for `timeout`, and ends.
    pub async fn stop(self, timeout: Duration) {
        let Self { stop, mut task, connections, .. } = self;
        drop(connections);
        if let Some(stop) = stop {
            let _ = stop.send(());
        }
        if tokio::time::timeout(timeout, &mut task).await.is_err() {
            task.abort();
        }
    }
}

/// How much of a saturated world a request's job gets.
fn priority(asked: seeway_proto::v1::Priority) -> crate::schedule::Priority {
    use crate::schedule::Priority;
    use seeway_proto::v1::Priority as Asked;
    match asked {
        Asked::High => Priority::High,
        Asked::Unspecified => Priority::Normal,
        Asked::Low => Priority::Low,
    }
}
