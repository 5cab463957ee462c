//! A plain byte pipe to a port inside a machine.
//!
//! Each pipe has a tunnel of its own: all channels of one tunnel are read together, so a caller that does not read its pipe
//! would hold up the jobs beside it.

use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use seeway_client::tunnel::{Channel, ReadHalf, Tunnel, WriteHalf};
use seeway_proto::outcome::{NotSent, Outcome, Rejected};
use seeway_proto::v1::pipe_request::Message;
use seeway_proto::v1::{PipeOpen, PipeRequest, PipeResponse};
use seeway_proto::wiped::WipedBuffer;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::sleep_until;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use super::limits::{PipePlace, Pipes, check_affinity_key};
use super::somebody::Somebody;
use crate::audit::Event;
use crate::schedule::WorldId;
use crate::seldom::{Seldom, Tell};
use crate::shard::{Failure, Shard};
use crate::upstream::{self, PipeError};

/// What one message carries at most.
const MESSAGE_BYTES: usize = 64 * 1024;

/// How long a caller may take to say where its pipe goes.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// The direction from the machine, as tonic sends it. Dropping it, as tonic does when the caller goes away, closes the pipe.
pub(super) struct Pipe {
    read: ReadHalf,
    unsent: WipedBuffer,
    uplink: AbortHandle,
    tunnel: Arc<Tunnel>,
    /// Why its caller may not have it any more.
    forbidden: oneshot::Receiver<Status>,
    has_ended: bool,
    _place: PipePlace,
}

/// Opens the pipe that the stream's first message asks for.
pub(super) async fn open(
    shard: &Shard,
    somebody: Somebody,
    mut requests: Streaming<PipeRequest>,
    pipes: Arc<Pipes>,
) -> Result<Pipe, Status> {
    let opening = somebody.caller().open_pipe();
    let opening =
        opening.ok_or_else(|| Status::resource_exhausted("too many of this connection's pipes send no `open`"))?;
    let first = tokio::time::timeout(OPEN_TIMEOUT, requests.next()).await;
    drop(opening);
    let first = first.map_err(|_| Status::invalid_argument(format!("no `open` came within {OPEN_TIMEOUT:?}")))?;
    let open = match first.transpose()?.and_then(|request| request.message) {
        Some(Message::Open(open)) => open,
        Some(Message::Data(_)) | None => {
            return Err(Status::invalid_argument("a pipe's first message is `open`, with the world that it goes to"));
        }
    };
    // Not before it is known that the caller means it.
    let place = pipes.take().ok_or_else(|| too_many(shard, &open.world))?;
    check_affinity_key(shard, &somebody, &open.world, &open.affinity_key)?;
    let (world, tunnel, channel) = connect(shard, &somebody, &open).await?;
    let (read, write) = channel.split();
    // Making a tunnel takes a while, in which a reload may have taken the right away, or a disk may have filled up.
    let withdrawn = shard.with(|state, now| {
        if state.front.refuses_jobs() {
            return Err(Status::from(nowhere_to_go(shard, &open.world)));
        }
        if !somebody.standing(state, now).may_pipe(world) {
            let (caller, whose) = (somebody.caller().id(), somebody.of_call());
            return Err(state.front.reject(caller, whose, &open.world, Rejected::AccessDenied).into());
        }
        Ok(state.front.add_pipe(somebody.identity(), world))
    })?;
    let (ended, forbidden) = oneshot::channel();
    let uplink = uplink(requests, write, forbidden_because(somebody.expires(), withdrawn), ended);
    let uplink = tokio::spawn(uplink).abort_handle();
    Ok(Pipe { read, unsent: WipedBuffer::new(), uplink, tunnel, forbidden, has_ended: false, _place: place })
}

/// Resolves when the token that a pipe was opened with is not good any more, or the rule that allowed it is gone.
async fn forbidden_because(expires: Option<Instant>, withdrawn: oneshot::Receiver<()>) -> Status {
    let expired = async {
        match expires {
            Some(expires) => sleep_until(expires.into()).await,
            None => pending().await,
        }
    };
    let withdrawn = async {
        if withdrawn.await.is_err() {
            // The shard is gone, and with it the pipe.
            pending::<()>().await;
        }
    };
    tokio::select! {
        () = expired => Status::unauthenticated("the token has expired; open a pipe with a new one"),
        () = withdrawn => Status::permission_denied("the pipe is not allowed any more: the gateway's rules have changed"),
    }
}

fn too_many(shard: &Shard, world: &str) -> Status {
    let config = shard.config();
    let outcome = Outcome::NotSent(NotSent::CallerQuota);
    let mut failure = Failure::new(&config.wire.profile, world, None, outcome);
    failure.message = format!("{} pipes are open (limits.pipes); close one, or try again later", config.limits.pipes);
    failure.into()
}

fn nowhere_to_go(shard: &Shard, world: &str) -> Failure {
    Failure::new(&shard.config().wire.profile, world, None, Outcome::NotSent(NotSent::NowhereToGo))
}

async fn connect(
    shard: &Shard,
    somebody: &Somebody,
    open: &PipeOpen,
) -> Result<(WorldId, Arc<Tunnel>, Channel), Status> {
    let (caller, whose) = (somebody.caller().id(), somebody.of_call());
    let world = shard.with(|state, now| {
        let standing = somebody.standing(state, now);
        match state.front.world(&standing, &open.world) {
            Some(world) if standing.may_pipe(world) => Ok(world),
            Some(_) => Err(state.front.reject(caller, whose, &open.world, Rejected::AccessDenied)),
            None => Err(state.front.reject(caller, whose, &open.world, Rejected::NoSuchWorld)),
        }
    })?;
    let port = u16::try_from(open.port)
        .map_err(|_| Status::invalid_argument(format!("there is no port {}; 65535 is the last", open.port)))?;
    let key = open.affinity_key.as_bytes();
    let nowhere_to_go = || nowhere_to_go(shard, &open.world);
    if shard.with(|state, _| state.front.refuses_jobs()) {
        return Err(nowhere_to_go().into());
    }
    let piped = upstream::open_pipe(shard, world, key, (port != 0).then_some(port)).await;
    shard.with(|state, _| {
        state.front.record(somebody.caller().id(), somebody.identity(), || {
            let event = Event::new("pipe").text("world", &open.world).number("port", port.into());
            event.flag("opened", piped.is_ok())
        });
    });
    let (tunnel, channel) = piped.map_err(|error| match error {
        PipeError::Draining | PipeError::NoMachine { .. } => nowhere_to_go().into(),
        PipeError::Tunnel { .. } => Status::failed_precondition(error.to_string()),
    })?;
    Ok((world, tunnel, channel))
}

/// The direction to the machine, until the pipe is not allowed any more, whether its caller reads what comes back or not.
async fn uplink(
    requests: Streaming<PipeRequest>,
    write: WriteHalf,
    forbidden: impl Future<Output = Status>,
    ended: oneshot::Sender<Status>,
) {
    let mut forbidden = pin!(forbidden);
    let status = tokio::select! {
        status = &mut forbidden => status,
        () = send(requests, write) => forbidden.await,
    };
    // The pipe may be gone.
    let _ = ended.send(status);
}

async fn send(mut requests: Streaming<PipeRequest>, mut write: WriteHalf) {
    while let Some(Ok(request)) = requests.next().await {
        match request.message {
            Some(Message::Data(data)) => {
                if !data.is_empty() && write.write(data).await.is_err() {
                    // The other direction tells the caller.
                    return;
                }
            }
            Some(Message::Open(_)) | None => {
                static SECOND: Seldom = Seldom::new("a pipe's caller sent a second `open`, or an empty message");
                if let Some(Tell { untold }) = SECOND.tell("") {
                    tracing::warn!(
                        untold,
                        "a pipe's caller sent a second `open`, or an empty message; its direction is ended"
                    );
                }
                break;
            }
        }
    }
    // Where the pipe is lost the other direction tells the caller.
    let _ = write.eof().await;
    // The direction back goes on.
    let _ = write.closed().await;
}

impl Pipe {
    fn next_message(&mut self) -> PipeResponse {
        let data = if self.unsent.len() <= MESSAGE_BYTES {
            std::mem::take(&mut self.unsent).freeze()
        } else {
            let message = WipedBuffer::from(&self.unsent.filled()[..MESSAGE_BYTES]).freeze();
            self.unsent.consume(MESSAGE_BYTES);
            message
        };
        PipeResponse { data }
    }
}

impl Stream for Pipe {
    type Item = Result<PipeResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.has_ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(told) = Pin::new(&mut this.forbidden).poll(cx) {
            this.has_ended = true;
            return Poll::Ready(Some(Err(told.unwrap_or_else(|_| Status::internal("the gateway lost the pipe")))));
        }
        if this.unsent.is_empty() && !ready!(this.read.poll_read_into(cx, &mut this.unsent)) {
            this.has_ended = true;
            // A machine that has closed its end is the pipe's end; a tunnel that was cut is an error.
            return Poll::Ready(this.tunnel.lost().map(|lost| Err(Status::unknown(lost.to_string()))));
        }
        Poll::Ready(Some(Ok(this.next_message())))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.uplink.abort();
    }
}
