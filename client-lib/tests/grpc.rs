//! Jobs to a gateway, against a small service. (Against the gateway itself: the workspace's `tests`.)

#![allow(clippy::unwrap_used)] // In a test it is an assertion.

mod support;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use seeway_client::grpc::{ConnectError, Credentials, Gateway, SubmitOptions};
use seeway_client::{JobError, JobErrorKind};
use seeway_proto::outcome::{NotSent, Rejected, Unknown};
use seeway_proto::v1::see_job_service_server::{SeeJobService, SeeJobServiceServer};
use seeway_proto::v1::{
    JobFailure, ListWorldsRequest, ListWorldsResponse, PipeRequest, PipeResponse, StreamRequest, StreamResponse,
    SubmitRequest, SubmitResponse, World, pipe_request, stream_response,
};
use support::{until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

/// Answers jobs with their bytes. The world `nobody` is not there; the job `held` is kept; a stream ends on `hang up`. The
/// job `too late` comes back after its time-out, as one that was never sent.
#[derive(Debug, Default)]
struct Service {
    /// Unary calls that have come.
    calls: AtomicUsize,
    held: AtomicUsize,
    /// The time that the last job on a stream had left.
    time_left: Mutex<Option<Duration>>,
}

struct Shared(Arc<Service>);

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn no_such_world(world: &str) -> Status {
    let metadata =
        HashMap::from([("world".to_owned(), world.to_owned()), ("may_have_run".to_owned(), "false".to_owned())]);
    let details = ErrorDetails::with_error_info("NO_SUCH_WORLD", "seeway", metadata);
    Status::with_error_details(Code::NotFound, "no such world; nothing ran", details)
}

fn reply(job: Bytes) -> SubmitResponse {
    let time = |millis: u64| Duration::from_millis(millis).try_into().ok();
    SubmitResponse { reply: job, machine: "hsm-a".into(), queue_time: time(1), machine_time: time(2) }
}

#[tonic::async_trait]
impl SeeJobService for Shared {
    type StreamStream = Responses<StreamResponse>;
    type PipeStream = Responses<PipeResponse>;

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        let request = request.into_inner();
        if request.world == "nobody" {
            return Err(no_such_world("nobody"));
        }
        if request.job == "held" {
            self.0.held.fetch_add(1, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        Ok(Response::new(reply(request.job)))
    }

    async fn stream(
        &self,
        requests: Request<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let mut requests = requests.into_inner();
        let (responses, ready) = mpsc::channel(16);
        let service = Arc::clone(&self.0);
        tokio::spawn(async move {
            let mut earlier: Option<StreamResponse> = None;
            while let Ok(Some(request)) = requests.message().await {
                let submit = request.submit.unwrap();
                let time_left = request.timeout.map(|timeout| timeout.try_into().unwrap());
                *service.time_left.lock().unwrap() = time_left;
                if submit.job == "hang up" {
                    return;
                }
                if submit.job == "held" {
                    service.held.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                let result = if submit.job == "too late" {
                    tokio::time::sleep(time_left.unwrap() + Duration::from_millis(50)).await;
                    stream_response::Result::Failure(JobFailure {
                        code: Code::DeadlineExceeded.into(),
                        reason: "NOT_SENT".into(),
                        message: "too late; nothing ran".into(),
                        ..Default::default()
                    })
                } else if submit.world == "nobody" {
                    stream_response::Result::Failure(JobFailure {
                        code: Code::NotFound.into(),
                        reason: "NO_SUCH_WORLD".into(),
                        message: "no such world; nothing ran".into(),
                        ..Default::default()
                    })
                } else {
                    stream_response::Result::Reply(reply(submit.job))
                };
                let response = StreamResponse { id: request.id, result: Some(result) };
                // Every second reply overtakes the one before it.
                match earlier.take() {
                    None if request.id % 2 == 0 && request.id < 100 => earlier = Some(response),
                    before => {
                        for response in std::iter::once(response).chain(before) {
                            responses.send(Ok(response)).await.unwrap();
                        }
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(ready))))
    }

    async fn pipe(&self, requests: Request<Streaming<PipeRequest>>) -> Result<Response<Self::PipeStream>, Status> {
        let mut requests = requests.into_inner();
        let Some(pipe_request::Message::Open(open)) = requests.message().await?.and_then(|first| first.message) else {
            return Err(Status::invalid_argument("the first message opens the pipe"));
        };
        if open.world == "nobody" {
            return Err(no_such_world("nobody"));
        }
        let breaks = open.port == 666;
        Ok(Response::new(Box::pin(requests.map(move |request| match request?.message {
            Some(pipe_request::Message::Data(data)) if !breaks => Ok(PipeResponse { data }),
            _ => Err(Status::unknown("the machine has gone")),
        }))))
    }

    async fn list_worlds(&self, _: Request<ListWorldsRequest>) -> Result<Response<ListWorldsResponse>, Status> {
        let world = World { name: "signer".into(), ready: true, max_job_bytes: 262_100, ..Default::default() };
        Ok(Response::new(ListWorldsResponse { worlds: vec![world] }))
    }
}

async fn start() -> (Gateway, Arc<Service>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = Arc::new(Service::default());
    let served = SeeJobServiceServer::new(Shared(Arc::clone(&service)));
    let server = tonic::transport::Server::builder().add_service(served);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let gateway = within("connecting", Gateway::connect(&format!("grpc://{address}"))).await.unwrap();
    (gateway, service)
}

fn no_options() -> SubmitOptions {
    SubmitOptions::default()
}

fn no_such_world_error(error: &JobError) {
    assert_eq!(error.kind(), JobErrorKind::Rejected(Rejected::NoSuchWorld));
    assert_eq!((error.world(), error.may_have_run()), (Some("nobody"), false));
    assert!(error.to_string().contains("grpc://127.0.0.1"), "{error}");
}

#[tokio::test]
async fn a_job_is_one_call() {
    let (gateway, _) = start().await;
    for size in [0, 1, 262_100, 8 * 1024 * 1024 / 2 - 100] {
        let job = Bytes::from(vec![7; size]);
        let completed = within("the reply", gateway.submit("signer", job.clone(), &no_options())).await.unwrap();
        assert!(completed.reply.as_bytes() == job);
        assert_eq!(completed.machine, "hsm-a");
        assert_eq!(
            (completed.queue_time, completed.machine_time),
            (Duration::from_millis(1), Duration::from_millis(2))
        );
    }
    no_such_world_error(&within("the error", gateway.submit("nobody", "job", &no_options())).await.unwrap_err());
    let worlds = within("the worlds", gateway.list_worlds()).await.unwrap();
    assert_eq!((worlds[0].name.as_str(), worlds[0].ready), ("signer", true));
}

#[tokio::test]
async fn a_call_that_is_late_may_have_run() {
    let (gateway, _) = start().await;
    let options = SubmitOptions { timeout: Some(Duration::from_millis(50)), ..no_options() };
    let error = within("the timeout", gateway.submit("signer", "held", &options)).await.unwrap_err();
    assert_eq!(error.kind(), JobErrorKind::Unknown(Unknown::TooLate), "{error}");
    assert!(error.may_have_run());
}

#[tokio::test]
async fn replies_on_a_stream_come_to_their_jobs() {
    let (gateway, _) = start().await;
    let stream = gateway.stream();
    let mut submitted = tokio::task::JoinSet::new();
    for number in 0..1000_u32 {
        let stream = stream.clone();
        submitted.spawn(async move {
            let completed = stream.submit("signer", number.to_le_bytes().to_vec(), &no_options()).await.unwrap();
            assert_eq!(*completed.reply, number.to_le_bytes());
        });
    }
    while let Some(done) = within("a reply", submitted.join_next()).await {
        done.unwrap();
    }
    no_such_world_error(&within("the failure", stream.submit("nobody", "job", &no_options())).await.unwrap_err());
    // A failed job is not the stream's end.
    within("a reply", stream.submit("signer", "job", &no_options())).await.unwrap();
    assert_eq!(stream.in_flight(), 0);
    assert_eq!(stream.end(), None);
}

#[tokio::test]
async fn the_gateways_own_word_on_a_late_job_counts() {
    let (gateway, _) = start().await;
    let stream = gateway.stream();
    let options = SubmitOptions { timeout: Some(Duration::from_millis(100)), ..no_options() };
    let patient = no_options();
    // Every second reply waits for the next one.
    within("a reply", async {
        tokio::join!(stream.submit("signer", "0", &patient), async {
            let error = stream.submit("signer", "too late", &options).await.unwrap_err();
            assert_eq!(error.kind(), JobErrorKind::NotSent(NotSent::TooLate), "{error}");
            assert!(error.to_string().contains("nothing ran"), "{error}");
        })
    })
    .await
    .0
    .unwrap();
}

#[tokio::test]
async fn a_late_job_on_a_stream_may_have_run_where_the_gateway_does_not_say() {
    let (gateway, service) = start().await;
    let stream = gateway.stream();
    let options = SubmitOptions { timeout: Some(Duration::from_millis(50)), ..no_options() };
    let error = within("the timeout", stream.submit("signer", "held", &options)).await.unwrap_err();
    assert_eq!(error.kind(), JobErrorKind::Unknown(Unknown::TooLate), "{error}");
    assert_eq!((service.held.load(Ordering::SeqCst), stream.in_flight()), (1, 0));
}

#[tokio::test]
async fn the_gateway_is_told_how_much_time_is_left() {
    let (gateway, service) = start().await;
    let stream = gateway.stream();
    let timeout = Duration::from_secs(20);
    let options = SubmitOptions { timeout: Some(timeout), ..no_options() };
    let (first, second) = within("the replies", async {
        tokio::join!(stream.submit("signer", "0", &options), stream.submit("signer", "1", &options))
    })
    .await;
    first.and(second).unwrap();
    let left = service.time_left.lock().unwrap().unwrap();
    assert!(left < timeout && left > timeout / 2, "{left:?} of {timeout:?}");
}

#[tokio::test]
async fn when_a_stream_ends_what_left_is_unknown_and_what_comes_later_was_not_sent() {
    let (gateway, service) = start().await;
    let stream = gateway.stream();
    let held = {
        let stream = stream.clone();
        tokio::spawn(async move { stream.submit("signer", "held", &no_options()).await })
    };
    until("the held job", || service.held.load(Ordering::SeqCst) == 1).await;
    let last = within("the end", stream.submit("signer", "hang up", &no_options())).await.unwrap_err();
    let held = within("the end", held).await.unwrap().unwrap_err();
    for error in [last, held] {
        assert_eq!(error.kind(), JobErrorKind::Unknown(Unknown::TunnelLost));
        assert!(error.may_have_run());
    }
    let late = within("the end", stream.submit("signer", "job", &no_options())).await.unwrap_err();
    assert_eq!(late.kind(), JobErrorKind::NotSent(NotSent::NowhereToGo));
    assert!(!late.may_have_run() && late.info() == stream.end().as_deref(), "{late}");
}

#[tokio::test]
async fn a_job_whose_caller_has_gone_frees_its_place() {
    let (gateway, service) = start().await;
    let stream = gateway.stream();
    let gone = {
        let stream = stream.clone();
        tokio::spawn(async move { stream.submit("signer", "held", &no_options()).await })
    };
    until("the held job", || service.held.load(Ordering::SeqCst) == 1).await;
    gone.abort();
    until("its end", || stream.in_flight() == 0).await;
    within("a reply", stream.submit("signer", "job", &no_options())).await.unwrap();
}

#[tokio::test]
async fn a_pipe_carries_bytes_and_half_closes() {
    let (gateway, _) = start().await;
    let pipe = within("the pipe", gateway.pipe("signer", "", 4711)).await.unwrap();
    let (mut read, mut write) = tokio::io::split(pipe);
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let mut back = Vec::new();
    let (written, read) = within("the echo", async {
        tokio::join!(
            async {
                write.write_all(&sent).await?;
                write.shutdown().await
            },
            read.read_to_end(&mut back)
        )
    })
    .await;
    written.unwrap();
    read.unwrap();
    assert!(back == sent, "the bytes came back in another order");
}

#[tokio::test]
async fn a_pipe_that_fails_says_why() {
    let (gateway, _) = start().await;
    no_such_world_error(&within("the refusal", gateway.pipe("nobody", "", 0)).await.unwrap_err());
    let mut pipe = within("the pipe", gateway.pipe("signer", "", 666)).await.unwrap();
    pipe.write_all(b"hello").await.unwrap();
    let error = within("the failure", pipe.read(&mut [0; 8])).await.unwrap_err();
    assert!(error.to_string().contains("the machine has gone"), "{error}");
    assert!(pipe.failure().is_some());
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_named() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = within("the refusal", Gateway::connect(&closed.to_string())).await.unwrap_err();
    assert!(matches!(error, ConnectError::Connect { .. }), "{error}");
    assert!(error.to_string().contains(&closed.to_string()), "{error}");
    // What is shown to nobody but the gateway is not shown where others read along.
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "secret-of-mine\n").unwrap();
    let credentials = Credentials::none().token(&token).unwrap();
    assert!(!format!("{credentials:?}").contains("secret-of-mine"));
    let error = Gateway::connect_with(&closed.to_string(), credentials).await.unwrap_err();
    assert!(error.to_string().contains("grpcs://"), "{error}");
    for bad in ["localhost", "https://localhost", "ftp://localhost:1", "localhost:1/path", ""] {
        let error = Gateway::connect(bad).await.unwrap_err();
        assert!(matches!(error, ConnectError::Address { .. }), "{bad}: {error}");
    }
}

#[tokio::test]
async fn a_gateway_that_goes_away_before_a_call_has_run_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Arc::new(Semaphore::new(0));
    let stopped = Arc::clone(&stop);
    let served = SeeJobServiceServer::new(Shared(Arc::default()));
    let server = tonic::transport::Server::builder().add_service(served);
    let serving = tokio::spawn(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), async move {
        let _ = stopped.acquire().await;
    }));
    let gateway = within("connecting", Gateway::connect(&address.to_string())).await.unwrap();
    within("a reply", gateway.submit("signer", "job", &no_options())).await.unwrap();
    stop.add_permits(1);
    within("the end", serving).await.unwrap().unwrap();
    // The connection's end may be noticed by the first call; the next one tries to connect.
    let _ = within("an outcome", gateway.submit("signer", "job", &no_options())).await;
    let error = within("an outcome", gateway.submit("signer", "job", &no_options())).await.unwrap_err();
    assert_eq!(error.kind(), JobErrorKind::NotSent(NotSent::NowhereToGo), "{error}");
    assert!(!error.may_have_run());
}

/// A gateway that another one takes over from tells its connections to end, at whatever moment that is for a call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_while_one_connection_after_the_other_is_told_to_end_and_none_is_made_twice() {
    const CALLERS: usize = 8;
    const CONNECTIONS: usize = 200;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (service, connections) = (Arc::new(Service::default()), Arc::new(AtomicUsize::new(0)));
    let accepted = Arc::clone(&connections);
    let incoming = StreamExt::map(TcpListenerStream::new(listener), move |stream| {
        accepted.fetch_add(1, Ordering::Relaxed);
        stream
    });
    let served = SeeJobServiceServer::new(Shared(Arc::clone(&service)));
    let mut server = tonic::transport::Server::builder().max_connection_age(Duration::from_millis(2));
    tokio::spawn(server.add_service(served).serve_with_incoming(incoming));
    let gateway = within("connecting", Gateway::connect(&address.to_string())).await.unwrap();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let (gateway, connections) = (gateway.clone(), Arc::clone(&connections));
        callers.spawn(async move {
            let mut replied = 0;
            while connections.load(Ordering::Relaxed) < CONNECTIONS {
                let done = within("a reply", gateway.submit("signer", "job", &no_options())).await;
                done.unwrap_or_else(|error| panic!("call {replied}: {error}"));
                replied += 1;
            }
            replied
        });
    }
    let replied: usize = within("all callers", callers.join_all()).await.into_iter().sum();
    assert_eq!(service.calls.load(Ordering::Relaxed), replied, "each call was made once");
}
