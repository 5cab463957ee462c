//! A plain byte pipe to a port inside a machine.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use seeway_proto::v1::see_job_service_client::SeeJobServiceClient;
use seeway_proto::v1::{PipeOpen, PipeRequest, PipeResponse, pipe_request};
use seeway_proto::wiped::WipedBuffer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::credentials::Credentials;
use super::failure;
use crate::job::JobError;

/// How much one message carries, and how much lies between the pipe's user and gRPC.
const PIECE: usize = 64 * 1024;

/// How many messages wait for the stream's flow control.
const WAITING: usize = 2;

/// Where a pipe goes.
pub(super) struct To<'a> {
    pub(super) world: &'a str,
    pub(super) affinity_key: &'a str,
    pub(super) port: u16,
}

/// A stream of bytes. `shutdown` half-closes it; dropping it closes it.
#[derive(Debug)]
pub struct Pipe {
    here: DuplexStream,
    failure: Arc<OnceLock<JobError>>,
}

impl Pipe {
    pub(super) async fn open(
        mut client: SeeJobServiceClient<Channel>,
        server: Arc<str>,
        credentials: &Credentials,
        to: &To<'_>,
    ) -> Result<Self, JobError> {
        let To { world, affinity_key, port } = *to;
        let (requests, waiting) = mpsc::channel(WAITING);
        let open = PipeOpen { world: world.to_owned(), affinity_key: affinity_key.to_owned(), port: port.into() };
        let first = PipeRequest { message: Some(pipe_request::Message::Open(open)) };
        requests.try_send(first).expect("there is room for the first");
        let responses = client
            .pipe(credentials.request(ReceiverStream::new(waiting)))
            .await
            .map_err(|status| failure::of_status(&status, &server, Some(world)))?
            .into_inner();
        let (here, there) = tokio::io::duplex(PIECE);
        let (read, write) = tokio::io::split(there);
        let failure = Arc::new(OnceLock::new());
        let failed = {
            let (failure, world) = (Arc::clone(&failure), world.to_owned());
            move |status: &tonic::Status| {
                failure.get_or_init(|| failure::of_status(status, &server, Some(&world)));
            }
        };
        // Both end when the pipe is dropped: one has nothing to read any more, the other nobody to write to.
        tokio::spawn(send(read, requests));
        tokio::spawn(receive(responses, write, failed));
        Ok(Self { here, failure })
    }

    /// Why the pipe broke, where it did not end as it should.
    pub fn failure(&self) -> Option<&JobError> {
        self.failure.get()
    }

    fn broken(&self) -> Option<io::Error> {
        self.failure.get().map(|error| io::Error::new(io::ErrorKind::ConnectionReset, error.clone()))
    }
}

async fn send(mut read: ReadHalf<DuplexStream>, requests: mpsc::Sender<PipeRequest>) {
    loop {
        let mut piece = WipedBuffer::with_capacity(PIECE);
        let data: Bytes = match read.read(piece.unfilled(PIECE)).await {
            Ok(count) if count > 0 => {
                piece.commit(count);
                piece.freeze()
            }
            // The pipe is shut down, or dropped; the stream of requests ends with its sender.
            _ => return,
        };
        if requests.send(PipeRequest { message: Some(pipe_request::Message::Data(data)) }).await.is_err() {
            return;
        }
    }
}

async fn receive(
    mut responses: Streaming<PipeResponse>,
    mut write: WriteHalf<DuplexStream>,
    failed: impl Fn(&tonic::Status),
) {
    loop {
        match responses.message().await {
            Ok(Some(response)) if write.write_all(&response.data).await.is_ok() => {}
            Ok(Some(_) | None) => break,
            Err(status) => {
                failed(&status);
                break;
            }
        }
    }
    let _ = write.shutdown().await;
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, wanted: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let held = wanted.filled().len();
        ready!(Pin::new(&mut self.here).poll_read(cx, wanted))?;
        let is_end = wanted.filled().len() == held && wanted.remaining() > 0;
        Poll::Ready(match self.broken() {
            Some(error) if is_end => Err(error),
            _ => Ok(()),
        })
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.broken() {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.here).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.here).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.here).poll_shutdown(cx)
    }
}
