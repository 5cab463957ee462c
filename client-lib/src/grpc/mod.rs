//! Jobs to a Seeway gateway, over gRPC.
//!
//! [`Gateway::submit`] is one call for one job. [`Gateway::stream`] keeps many on one stream, which is faster by an order of
//! magnitude for a caller that has many at once. [`Gateway::pipe`] reaches a port inside a machine that need not speak
//! SEEJobs.

mod credentials;
mod failure;
mod pipe;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use seeway_proto::outcome::Unknown;
use seeway_proto::v1::see_job_service_client::SeeJobServiceClient;
use seeway_proto::v1::{ListWorldsRequest, SubmitRequest, SubmitResponse};
use tokio::time::{Instant, timeout_at};
use tonic::transport::{Channel, Endpoint};

pub use credentials::{Credentials, CredentialsError};
pub use pipe::Pipe;
pub use seeway_proto::v1::{Priority, World};
pub use stream::JobStream;

use crate::deadline::{self, FOR_EVER};
use crate::job::{JobError, JobErrorKind, Reply};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be silent before the gateway is asked for a sign of life, and how long it has to give one.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// The largest message that is taken: the wire's largest job, with room for what stands around it.
const MAX_MESSAGE: usize = 17 * 1024 * 1024;

/// How much may be on its way to us, for each stream and for the connection. HTTP/2's own 64 KiB would hold up large
/// replies.
const WINDOW: (u32, u32) = (2 * 1024 * 1024, 8 * 1024 * 1024);

/// How long after a job's time-out the gateway's own word on it may come: it knows whether the job had left, and here that
/// can only be feared.
const GRACE: Duration = Duration::from_secs(1);

/// How many connections in a row may end before a call is on one of them. Each was told to end at that very moment; more than one is
/// rare.
const UNSENT_TRIES: u32 = 3;

/// There is no connection to a gateway.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address does not parse.
    #[error(
        "{address:?} is no gateway address: {why}; it is HOST:PORT, grpc://HOST:PORT, or grpcs://HOST:PORT with TLS"
    )]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody is there.
    #[error("no connection to the gateway at {address}: {why}; check the address, and that the gateway runs")]
    Connect {
        /// Where it should be.
        address: String,
        /// Why there is none.
        why: String,
    },
}

/// How a job is to be treated.
#[derive(Clone, Debug, Default)]
pub struct SubmitOptions {
    /// How long the caller waits; where absent, the gateway's default. A job that has left by then is waited for up to one
    /// second longer, since the gateway may still say that nothing ran.
    pub timeout: Option<Duration>,
    /// Whether the job may be sent again when its outcome is unknown. Say so only of jobs that may run twice.
    pub idempotent: bool,
    /// Jobs with the same key go to the same machine, as long as it is up.
    pub affinity_key: String,
    /// How the job ranks among its world's.
    pub priority: Priority,
}

/// A reply, and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// What the code in the machine answered.
    pub reply: Reply,
    /// The machine that ran the job.
    pub machine: String,
    /// How long the job waited in the gateway.
    pub queue_time: Duration,
    /// From when the job was sent to the machine to when its reply had come.
    pub machine_time: Duration,
}

/// A connection to a gateway. Cheap to clone; clones share the connection, which comes back by itself when it is lost.
#[derive(Clone, Debug)]
pub struct Gateway {
    client: SeeJobServiceClient<Channel>,
    server: Arc<str>,
    credentials: Credentials,
}

impl Gateway {
    /// Connects to `host:port`, `grpc://host:port` or `http://host:port`, without TLS.
    pub async fn connect(address: &str) -> Result<Self, ConnectError> {
        Self::connect_with(address, Credentials::none()).await
    }

    /// The same, or to `grpcs://host:port` or `https://host:port` over TLS 1.3. The gateway's certificate must be for `host`.
    pub async fn connect_with(address: &str, credentials: Credentials) -> Result<Self, ConnectError> {
        let (endpoint, server) = endpoint(address, &credentials)?;
        let channel = endpoint
            .connect()
            .await
            .map_err(|error| ConnectError::Connect { address: address.to_owned(), why: failure::chain(&error) })?;
        Ok(Self::on(channel, server, credentials))
    }

    /// To several gateways that serve the same worlds, each with an address as above: every call goes to one of two that chance names, the one with less to
    /// do. Connections are made when they are needed; a call to a gateway that is not there fails as not sent
    /// ([`JobError::may_have_run`] says no), and can be made again.
    pub fn among(addresses: &[&str], credentials: Credentials) -> Result<Self, ConnectError> {
        let each: Result<Vec<_>, _> = addresses.iter().map(|address| endpoint(address, &credentials)).collect();
        let (endpoints, servers): (Vec<_>, Vec<_>) = each?.into_iter().unzip();
        if endpoints.is_empty() {
            return Err(ConnectError::Address { address: String::new(), why: "the list is empty".to_owned() });
        }
        Ok(Self::on(Channel::balance_list(endpoints.into_iter()), servers.join(",").into(), credentials))
    }

    fn on(channel: Channel, server: Arc<str>, credentials: Credentials) -> Self {
        let client = SeeJobServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        Self { client, server, credentials }
    }

    /// Sends one job and waits for its reply.
    pub async fn submit(
        &self,
        world: &str,
        job: impl Into<Bytes>,
        options: &SubmitOptions,
    ) -> Result<Completed, JobError> {
        let job = job.into();
        let limit = options.timeout.map(|timeout| deadline::after(timeout) + GRACE);
        match by(limit, self.submit_until_sent(world, &job, options)).await {
            Some(Ok(response)) => Ok(response.into_inner().into()),
            Some(Err(status)) => Err(failure::of_status(&status, &self.server, Some(world))),
            None => Err(failure::late(JobErrorKind::Unknown(Unknown::TooLate), &self.server, world)),
        }
    }

    /// One call; and another one where the first never left, since its connection was about to end: it has its chance on the next.
    async fn submit_until_sent(
        &self,
        world: &str,
        job: &Bytes,
        options: &SubmitOptions,
    ) -> Result<tonic::Response<SubmitResponse>, tonic::Status> {
        let mut client = self.client.clone();
        let mut tries = 0;
        loop {
            let mut request = self.credentials.request(request(world, job.clone(), options));
            if let Some(timeout) = options.timeout {
                // The channel below stops listening then. It begins to count when it has a connection, and ends when the answer
                // begins; the caller's own limit is for what comes before and after. The gateway answers a little before it.
                request.set_timeout(timeout.min(FOR_EVER));
            }
            let answer = client.submit(request).await;
            tries += 1;
            match answer {
                Err(status) if tries < UNSENT_TRIES && failure::is_unsent(&status) => {}
                answer => return answer,
            }
        }
    }

    /// Opens a stream for many jobs.
    pub fn stream(&self) -> JobStream {
        JobStream::open(self.client.clone(), Arc::clone(&self.server), self.credentials.clone())
    }

    /// The worlds that this caller may use, in the order of their names.
    pub async fn list_worlds(&self) -> Result<Vec<World>, JobError> {
        match self.client.clone().list_worlds(self.credentials.request(ListWorldsRequest {})).await {
            Ok(response) => Ok(response.into_inner().worlds),
            Err(status) => Err(failure::of_status(&status, &self.server, None)),
        }
    }

    /// Opens a pipe to a port inside one of the world's machines; 0 means its SEEJobs port. Pipes and jobs with the same
    /// `affinity_key` go to the same machine.
    pub async fn pipe(&self, world: &str, affinity_key: &str, port: u16) -> Result<Pipe, JobError> {
        let to = pipe::To { world, affinity_key, port };
        Pipe::open(self.client.clone(), Arc::clone(&self.server), &self.credentials, &to).await
    }

    /// The generated client below, for calls that are not wrapped here.
    pub fn client(&self) -> SeeJobServiceClient<Channel> {
        self.client.clone()
    }
}

/// How a gateway's address is connected to, and what messages call it.
fn endpoint(address: &str, credentials: &Credentials) -> Result<(Endpoint, Arc<str>), ConnectError> {
    let bad = |why: &str| ConnectError::Address { address: address.to_owned(), why: why.to_owned() };
    let (has_tls, host_and_port) = match address.split_once("://") {
        None => (false, address),
        Some(("grpc" | "http", rest)) => (false, rest.trim_end_matches('/')),
        Some(("grpcs" | "https", rest)) => (true, rest.trim_end_matches('/')),
        Some(_) => return Err(bad("the scheme is not grpc or grpcs")),
    };
    if !has_tls && credentials.needs_tls() {
        return Err(bad("a certificate or a token is shown over TLS only: write grpcs://"));
    }
    let (scheme, transport) = if has_tls { ("grpcs", "https") } else { ("grpc", "http") };
    let server: Arc<str> = format!("{scheme}://{host_and_port}").into();
    let mut endpoint =
        Endpoint::from_shared(format!("{transport}://{host_and_port}")).map_err(|error| bad(&error.to_string()))?;
    if has_tls {
        endpoint = endpoint.tls_config(credentials.tls()).map_err(|error| bad(&failure::chain(&error)))?;
    }
    if endpoint.uri().port_u16().is_none() || endpoint.uri().path() != "/" {
        return Err(bad("there is no port at its end"));
    }
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .initial_stream_window_size(WINDOW.0)
        .initial_connection_window_size(WINDOW.1)
        .tcp_nodelay(true);
    Ok((endpoint, server))
}

/// `None` where the deadline comes first; without one there is nothing to come first.
async fn by<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}

fn request(world: &str, job: Bytes, options: &SubmitOptions) -> SubmitRequest {
    SubmitRequest {
        world: world.to_owned(),
        job,
        idempotent: options.idempotent,
        affinity_key: options.affinity_key.clone(),
        priority: options.priority.into(),
    }
}

impl From<SubmitResponse> for Completed {
    fn from(response: SubmitResponse) -> Self {
        Self {
            reply: Reply::copy_of(&response.reply),
            machine: response.machine,
            // A gateway that sends a negative time has a clock of its own; it is not worth an error.
            queue_time: response.queue_time.and_then(|time| time.try_into().ok()).unwrap_or_default(),
            machine_time: response.machine_time.and_then(|time| time.try_into().ok()).unwrap_or_default(),
        }
    }
}
