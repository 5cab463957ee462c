//! What the commands' tests talk to: an SSH server with forwarded ports, and something that answers SEEJobs. Each runs on a thread
//! of its own, since a command brings its own runtime.

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKey};
use russh::server::{self, Auth, ChannelOpenHandle, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelOpenFailure};
use seeway_proto::mux::Incoming;
use seeway_proto::v1::see_job_service_server::{SeeJobService, SeeJobServiceServer};
use seeway_proto::v1::{
    JobFailure, ListWorldsRequest, ListWorldsResponse, PipeRequest, PipeResponse, StreamRequest, StreamResponse,
    SubmitRequest, SubmitResponse, stream_response,
};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Command, Limits, Profile};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::oneshot;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request as GrpcRequest, Response, Status, Streaming};

/// The only login that an [`SshServer`] knows.
pub(super) const USER: &str = "codesafe";
/// The only world that a [`Machine`] publishes.
pub(super) const PUBLISHED_AS: &str = "seeway-signer";
const HANDLE: u32 = 7;

pub(super) fn new_key() -> PrivateKey {
    PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).expect("a key")
}

pub(super) fn line(key: &PrivateKey) -> String {
    key.public_key().to_openssh().expect("encoded")
}

/// Writes a private key as `seeway keygen` would.
pub(super) fn write_identity(directory: &Path, key: &PrivateKey) -> PathBuf {
    let path = directory.join("identity");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).expect("made");
    std::io::Write::write_all(&mut file, key.to_openssh(LineEnding::LF).expect("encoded").as_bytes()).expect("written");
    path
}

/// A runtime on a thread of its own, ended when this is dropped.
struct Runner {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runner {
    /// Runs `serve` on what `bind` makes; gives back what `bind` says of it.
    fn start<L: Send + 'static, A: Send + 'static, F: Future<Output = ()>>(
        bind: impl AsyncFnOnce() -> (L, A) + Send + 'static,
        serve: impl FnOnce(L) -> F + Send + 'static,
    ) -> (Self, A) {
        let (end, ended) = oneshot::channel();
        let (bound, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let (listener, address) = bind().await;
                bound.send(address).expect("someone waits for it");
                tokio::select! {
                    () = serve(listener) => {}
                    _ = ended => {}
                }
            });
        });
        let address = address.recv().expect("it is bound");
        (Self { end: Some(end), thread: Some(thread) }, address)
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the peer's thread panicked");
        }
    }
}

async fn bind_tcp() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

/// A TCP port of 127.0.0.1 that nothing listens on. It is held, so that nobody else gets it meanwhile.
pub(super) struct ClosedPort {
    socket: socket2::Socket,
}

impl ClosedPort {
    pub(super) fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        socket.bind(&any.into()).expect("bound");
        Self { socket }
    }

    pub(super) fn port(&self) -> u16 {
        self.socket.local_addr().expect("bound").as_socket().expect("a TCP address").port()
    }
}

/// An SSH server that lets one key in and forwards to any port of this computer.
pub(super) struct SshServer {
    pub(super) address: SocketAddr,
    /// Its host key, as a configuration has it.
    pub(super) host_key: String,
    _runner: Runner,
}

impl SshServer {
    pub(super) fn start(authorized: &PrivateKey) -> Self {
        let host_key = new_key();
        let host_key_line = line(&host_key);
        let config = Arc::new(server::Config {
            keys: vec![host_key],
            auth_rejection_time: std::time::Duration::ZERO,
            ..server::Config::default()
        });
        let authorized = authorized.public_key().clone();
        let (runner, address) = Runner::start(bind_tcp, |listener| async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (config, handler) = (Arc::clone(&config), Forwarding { authorized: authorized.clone() });
                tokio::spawn(async move {
                    if let Ok(session) = server::run_stream(config, stream, handler).await {
                        // How a client ends is its own business.
                        let _ = session.await;
                    }
                });
            }
        });
        Self { address, host_key: host_key_line, _runner: runner }
    }
}

struct Forwarding {
    authorized: PublicKey,
}

impl server::Handler for Forwarding {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let welcome = user == USER && key.public_key.key_data() == self.authorized.key_data();
        Ok(if welcome { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _originator_address: &str,
        _originator_port: u32,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        let port = u16::try_from(port).expect("the client sends ports");
        match TcpStream::connect((host, port)).await {
            Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            Ok(mut stream) => {
                reply.accept().await;
                tokio::spawn(async move {
                    // Either side may end it at any moment.
                    let _ = tokio::io::copy_bidirectional(&mut channel.into_stream(), &mut stream).await;
                });
            }
        }
        Ok(())
    }
}

/// What a [`Machine`] does with what it is asked.
#[derive(Clone, Copy)]
pub(super) enum Manner {
    /// A job's reply is the job backwards. A job that begins with `fail` is answered with the machine's status 0x10000, one that begins
    /// with `hush` not at all.
    Reverse,
    /// It takes connections and closes them.
    Close,
    /// It says what no SEEJob stream says.
    Babble,
}

/// Something that answers SEEJobs: a machine's port, or a hardserver's socket.
pub(super) struct Machine {
    pub(super) address: SocketAddr,
    _runner: Runner,
}

impl Machine {
    pub(super) fn start(manner: Manner) -> Self {
        let (runner, address) = Runner::start(bind_tcp, move |listener| async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, manner));
            }
        });
        Self { address, _runner: runner }
    }

    /// The same on a Unix socket.
    pub(super) fn start_at(path: PathBuf) -> UnixMachine {
        let bind = async move || (UnixListener::bind(path).expect("bound"), ());
        let (runner, ()) = Runner::start(bind, |listener: UnixListener| async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Manner::Reverse));
            }
        });
        UnixMachine { _runner: runner }
    }
}

/// A [`Machine`] on a Unix socket.
pub(super) struct UnixMachine {
    _runner: Runner,
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, manner: Manner) {
    match manner {
        Manner::Reverse => {}
        Manner::Close => return,
        Manner::Babble => {
            let _ = stream.write_all(b"220 mail.example ESMTP ready, and much more\r\n").await;
            // It then ends, and waits for its client to do the same.
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
            return;
        }
    }
    let mut incoming = Incoming::new(Profile::open_1(), Limits { max_job_bytes: 262_100 }, 1024);
    let mut input = WipedBuffer::new();
    let mut output = WipedBuffer::new();
    loop {
        let mut rest = input.filled();
        while let Ok(Some(request)) = incoming.next(&mut rest) {
            answer(&mut incoming, request);
        }
        let taken = input.len() - rest.len();
        input.consume(taken);
        incoming.swap_output(&mut output);
        if stream.write_all(output.filled()).await.is_err() {
            return;
        }
        output.clear();
        let room = input.unfilled(64 * 1024);
        match stream.read(room).await {
            Ok(read) if read > 0 => input.commit(read),
            _ => return,
        }
    }
}

fn answer(incoming: &mut Incoming, request: Command<'_>) {
    match request {
        Command::NoOp { tag } => incoming.answer_no_op(tag),
        Command::GetPublishedObject { tag, name: PUBLISHED_AS } => incoming.answer_object(tag, HANDLE),
        Command::GetPublishedObject { tag, .. } => incoming.answer_error(tag, 4, Some("no such world")),
        Command::SeeJob { tag, job, .. } if job.0.starts_with(b"fail") => {
            incoming.answer_error(tag, 0x1_0000, Some("no"));
        }
        Command::SeeJob { job, .. } if job.0.starts_with(b"hush") => {}
        Command::SeeJob { tag, job, .. } => {
            let reply: Vec<u8> = job.0.iter().rev().copied().collect();
            incoming.answer_job(tag, &reply);
        }
    }
}

/// A gateway's gRPC front end, whose only world is [`WORLD`] and behaves like [`Manner::Reverse`].
pub(super) struct Grpc {
    pub(super) address: SocketAddr,
    _runner: Runner,
}

/// The only world of a [`Grpc`].
pub(super) const WORLD: &str = "signer";

impl Grpc {
    pub(super) fn start() -> Self {
        let (runner, address) = Runner::start(bind_tcp, |listener| async move {
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            let server = tonic::transport::Server::builder().add_service(SeeJobServiceServer::new(Reversing));
            server.serve_with_incoming(incoming).await.expect("served");
        });
        Self { address, _runner: runner }
    }
}

struct Reversing;

impl Reversing {
    async fn outcome(submit: &SubmitRequest) -> Result<SubmitResponse, JobFailure> {
        let failure = |code, reason: &str, status, may_have_run| JobFailure {
            code,
            reason: reason.to_owned(),
            message: format!("{reason} it is"),
            status,
            may_have_run,
        };
        if submit.world != WORLD {
            return Err(failure(5, "NO_SUCH_WORLD", 0, false));
        }
        if submit.job.starts_with(b"fail") {
            return Err(failure(9, "MACHINE_STATUS", 0x1_0000, true));
        }
        if submit.job.starts_with(b"hush") {
            std::future::pending::<()>().await;
        }
        let reply: Vec<u8> = submit.job.iter().rev().copied().collect();
        Ok(SubmitResponse { reply: reply.into(), machine: "hsm-a".to_owned(), ..SubmitResponse::default() })
    }
}

type Responses<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SeeJobService for Reversing {
    type StreamStream = Responses<StreamResponse>;
    type PipeStream = Responses<PipeResponse>;

    async fn submit(&self, _: GrpcRequest<SubmitRequest>) -> Result<Response<SubmitResponse>, Status> {
        Err(Status::unimplemented("streams only"))
    }

    async fn stream(
        &self,
        request: GrpcRequest<Streaming<StreamRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (responses, received) = tokio::sync::mpsc::channel(16);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(request)) = requests.next().await {
                let responses = responses.clone();
                tokio::spawn(async move {
                    let result = match Self::outcome(&request.submit.unwrap_or_default()).await {
                        Ok(reply) => stream_response::Result::Reply(reply),
                        Err(failure) => stream_response::Result::Failure(failure),
                    };
                    // A caller that has gone gets nothing.
                    let _ = responses.send(Ok(StreamResponse { id: request.id, result: Some(result) })).await;
                });
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(received))))
    }

    async fn pipe(&self, _: GrpcRequest<Streaming<PipeRequest>>) -> Result<Response<Self::PipeStream>, Status> {
        Err(Status::unimplemented("no pipes here"))
    }

    async fn list_worlds(&self, _: GrpcRequest<ListWorldsRequest>) -> Result<Response<ListWorldsResponse>, Status> {
        Err(Status::unimplemented("no list here"))
    }
}
