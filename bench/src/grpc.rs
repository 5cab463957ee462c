//! A gRPC caller: one connection with one bidirectional `Stream` call on it.

use bytes::Bytes;
use seeway_proto::v1::{StreamRequest, StreamResponse, SubmitRequest, see_job_service_client::SeeJobServiceClient};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

use crate::CallerError;

/// The generated stub on a plain connection to `host:port`, which may take and give messages of 16 MiB.
pub async fn connect(address: &str) -> Result<SeeJobServiceClient<Channel>, CallerError> {
    let failed = |error: tonic::transport::Error| CallerError::Connection {
        target: format!("grpc://{address}"),
        source: std::io::Error::other(error),
    };
    let endpoint = Channel::from_shared(format!("http://{address}")).map_err(|error| CallerError::Connection {
        target: format!("grpc://{address}"),
        source: std::io::Error::new(std::io::ErrorKind::InvalidInput, error),
    })?;
    let channel = endpoint.tcp_nodelay(true).connect().await.map_err(failed)?;
    Ok(SeeJobServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
}

const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// The call.
pub struct GrpcCaller {
    target: String,
    requests: mpsc::Sender<StreamRequest>,
    replies: Streaming<StreamResponse>,
}

impl GrpcCaller {
    /// Connects to `host:port` and opens the stream.
    pub async fn connect(address: &str, max_in_flight: usize) -> Result<Self, CallerError> {
        Self::open(connect(address).await?, &format!("grpc://{address}"), max_in_flight).await
    }

    /// Opens the stream on a connection to `target`.
    pub async fn open(
        mut client: SeeJobServiceClient<Channel>,
        target: &str,
        max_in_flight: usize,
    ) -> Result<Self, CallerError> {
        let (requests, queue) = mpsc::channel(max_in_flight.max(1));
        let opened = client.stream(ReceiverStream::new(queue)).await;
        let replies = opened.map_err(|status| grpc(target, status))?.into_inner();
        Ok(Self { target: target.to_owned(), requests, replies })
    }

    /// Sends a job. At most as many may be unanswered as were named to [`connect`](Self::connect); then this never waits
    /// for long.
    pub async fn send(&self, id: u64, world: &str, job: Bytes) -> Result<(), CallerError> {
        let submit = Some(SubmitRequest { world: world.to_owned(), job, ..SubmitRequest::default() });
        let request = StreamRequest { id, submit, ..StreamRequest::default() };
        self.requests.send(request).await.map_err(|_| self.ended())
    }

    /// The next answer, to whichever job it is.
    pub async fn next(&mut self) -> Result<StreamResponse, CallerError> {
        match self.replies.message().await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(self.ended()),
            Err(status) => Err(grpc(&self.target, status)),
        }
    }

    fn ended(&self) -> CallerError {
        CallerError::Protocol { target: self.target.clone(), what: "the stream ended with jobs unanswered".to_owned() }
    }
}

fn grpc(target: &str, status: tonic::Status) -> CallerError {
    CallerError::Grpc { target: target.to_owned(), status: Box::new(status) }
}
