//! A gRPC server that does nothing but answer, with the gateway's own schema: the ceiling for what gRPC can do here.

use std::pin::Pin;

use seeway_proto::v1::{
    ListWorldsRequest, ListWorldsResponse, PipeRequest, PipeResponse, StreamRequest, StreamResponse, SubmitRequest,
    SubmitResponse,
    see_job_service_server::{SeeJobService, SeeJobServiceServer},
    stream_response,
};
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// How it runs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Threads of the runtime; with 1 it is a single-threaded one
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// Serves until it is killed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    super::runtime(args.threads)?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("ready address={}", listener.local_addr()?);
        let incoming = TcpListenerStream::new(listener).map(|stream| {
            let stream = stream?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        });
        tonic::transport::Server::builder()
            .add_service(SeeJobServiceServer::new(Echo))
            .serve_with_incoming(incoming)
            .await?;
        Ok(())
    })
}

struct Echo;

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SeeJobService for Echo {
    type StreamStream = Responses<StreamResponse>;
    type PipeStream = Responses<PipeResponse>;

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        Ok(Response::new(reply(request.into_inner())))
    }

    async fn stream(&self, request: Request<Streaming<StreamRequest>>) -> Result<Response<Self::StreamStream>, Status> {
        let replies = request.into_inner().map(|request| {
            let request = request?;
            let result = request.submit.map(|submit| stream_response::Result::Reply(reply(submit)));
            Ok(StreamResponse { id: request.id, result })
        });
        Ok(Response::new(Box::pin(replies)))
    }

    async fn pipe(&self, _: Request<Streaming<PipeRequest>>) -> Result<Response<Self::PipeStream>, Status> {
        Err(Status::unimplemented("this server answers jobs only"))
    }

    async fn list_worlds(&self, _: Request<ListWorldsRequest>) -> Result<Response<ListWorldsResponse>, Status> {
        Ok(Response::new(ListWorldsResponse::default()))
    }
}

fn reply(submit: SubmitRequest) -> SubmitResponse {
    SubmitResponse { reply: submit.job, ..SubmitResponse::default() }
}
