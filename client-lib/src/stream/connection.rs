//! A stream that many tasks share.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use seeway_proto::mux::{Broken, Outgoing, Refused, Tag};
use seeway_proto::outcome::{NotSent, Rejected, Unknown};
use seeway_proto::wire::ReplyBody;
use tokio::sync::{AcquireError, Semaphore, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout_at;

use super::engine::{Engine, Mux, StreamEnd};
use super::status::error_of_status;
use super::{Options, Transport};
use crate::deadline::{self, FOR_EVER};
use crate::job::{JobError, JobErrorKind, Reply};

/// A handle to a stream of jobs. Cheap to clone; the stream is closed when the last one is dropped.
///
/// Dropping the future of a job gives the job up: one that has not left is withdrawn, one that has runs on, and its reply
/// is dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    core: Arc<Core>,
    _driver: Arc<AbortOnDrop>,
}

#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
struct Core {
    server: Arc<str>,
    options: Options,
    /// One permit for each command that may still become unanswered.
    room: Semaphore,
    /// One permit for each byte of a command that may still be staged.
    staging: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` once the stream has ended.
    outgoing: Option<Outgoing<oneshot::Sender<Answer>>>,
    /// Late replies whose room has been given back.
    late_replies: u64,
    /// Permits of `staging` that what is staged has.
    staged: u32,
    driver: Option<Waker>,
    /// Why the stream has ended.
    end: Option<Arc<str>>,
}

/// What came of a command, copied out of the stream's buffer.
#[derive(Debug)]
enum Answer {
    NoOp,
    Reply(Reply),
    Object(u32),
    Error { status: u32, info: Option<String> },
    Ended { was_sent: bool },
}

enum Command<'a> {
    NoOp,
    Job { world: u32, job: &'a [u8] },
    PublishedObject { name: &'a str },
}

impl Command<'_> {
    /// How many bytes it carries.
    fn len(&self) -> usize {
        match self {
            Self::NoOp => 0,
            Self::Job { job, .. } => job.len(),
            Self::PublishedObject { name } => name.len(),
        }
    }
}

impl Connection {
    /// Drives `transport` on a task of the current runtime. Errors name `server`.
    pub fn open(transport: impl Transport + Send + 'static, server: impl Into<Arc<str>>, options: Options) -> Self {
        let outgoing = Outgoing::new(Arc::clone(&options.profile), options.limits, options.max_in_flight);
        let core = Arc::new(Core {
            server: server.into(),
            room: Semaphore::new(options.max_in_flight.min(Semaphore::MAX_PERMITS)),
            staging: Semaphore::new(options.staging_limit() as usize),
            state: Mutex::new(State { outgoing: Some(outgoing), late_replies: 0, staged: 0, driver: None, end: None }),
            options,
        });
        let driver = tokio::spawn(drive(Arc::clone(&core), Engine::new(transport)));
        Self { core, _driver: Arc::new(AbortOnDrop(driver.abort_handle())) }
    }

    /// Sends a job and waits for its reply, however long that takes. `world` is the handle that the other side gave for it;
    /// 0 towards a machine.
    pub async fn submit(&self, world: u32, job: &[u8]) -> Result<Reply, JobError> {
        self.submit_within(world, job, FOR_EVER).await
    }

    /// Sends a job and waits for its reply for `timeout`. A job that has left by then may still run.
    pub async fn submit_within(&self, world: u32, job: &[u8], timeout: Duration) -> Result<Reply, JobError> {
        if job.len() > self.core.options.limits.max_job_bytes as usize {
            let info = format!("{} bytes, and the limit is {}", job.len(), self.core.options.limits.max_job_bytes);
            return Err(self.core.error(JobErrorKind::Rejected(Rejected::JobTooLarge)).with_info(info));
        }
        match self.ask(&Command::Job { world, job }, timeout).await? {
            Answer::Reply(reply) => Ok(reply),
            other => Err(self.core.error_of(other)),
        }
    }

    /// Asks for a sign of life.
    pub async fn no_op(&self, timeout: Duration) -> Result<(), JobError> {
        match self.ask(&Command::NoOp, timeout).await? {
            Answer::NoOp => Ok(()),
            other => Err(self.core.error_of(other)),
        }
    }

    /// Asks for the handle of the world that is published under `name`. It is good for this connection only.
    pub async fn published_object(&self, name: &str, timeout: Duration) -> Result<u32, JobError> {
        match self.ask(&Command::PublishedObject { name }, timeout).await? {
            Answer::Object(object) => Ok(object),
            other => Err(self.core.error_of(other)),
        }
    }

    /// How many commands are unanswered.
    pub fn in_flight(&self) -> usize {
        self.core.state().outgoing.as_ref().map_or(0, Outgoing::in_flight)
    }

    /// Why the stream has ended; `None` as long as it has not.
    pub fn end(&self) -> Option<Arc<str>> {
        self.core.state().end.clone()
    }

    /// Whom errors name.
    pub fn server(&self) -> &str {
        &self.core.server
    }

    async fn ask(&self, command: &Command<'_>, timeout: Duration) -> Result<Answer, JobError> {
        let deadline = deadline::after(timeout);
        // A longer name than may be staged has all the room there is.
        let limit = self.core.options.staging_limit();
        let len = u32::try_from(command.len()).map_or(limit, |len| len.min(limit));
        let permits = async {
            // A place first: bytes that are set aside for a command that waits for a place would keep others from leaving.
            Ok((self.core.room.acquire().await?, self.core.staging.acquire_many(len).await?))
        };
        let permits = timeout_at(deadline, permits).await;
        let (room, staging) = match permits {
            Ok(Ok(permits)) => permits,
            Ok(Err(AcquireError { .. })) => return Err(self.core.error_of(Answer::Ended { was_sent: false })),
            Err(_elapsed) => return Err(self.core.error(JobErrorKind::NotSent(NotSent::TooLate))),
        };
        let (token, mut answered) = oneshot::channel();
        let Some(tag) = self.core.stage(command, len, token) else {
            return Err(self.core.error_of(Answer::Ended { was_sent: false }));
        };
        // They are given back when the command has been answered, and when it leaves.
        room.forget();
        staging.forget();
        let mut unanswered = Unanswered { core: &self.core, tag: Some(tag), len };
        if let Ok(answer) = timeout_at(deadline, &mut answered).await {
            unanswered.tag = None;
            return Ok(answer.expect("every command that is staged is answered, or the stream's end answers it"));
        }
        let has_left = unanswered.give_up();
        // The answer may have come at the last moment.
        if let Ok(answer) = answered.try_recv() {
            return Ok(answer);
        }
        Err(self.core.error(if has_left {
            JobErrorKind::Unknown(Unknown::TooLate)
        } else {
            JobErrorKind::NotSent(NotSent::TooLate)
        }))
    }
}

/// A command that somebody waits for.
struct Unanswered<'a> {
    core: &'a Core,
    tag: Option<Tag>,
    /// Its permits of `staging`, as long as it is staged.
    len: u32,
}

impl Unanswered<'_> {
    /// Nobody waits any more. Says whether the command has left.
    fn give_up(&mut self) -> bool {
        let mut state = self.core.state();
        let (Some(tag), Some(outgoing)) = (self.tag.take(), &mut state.outgoing) else {
            return true;
        };
        if outgoing.withdraw(tag).is_some() {
            state.staged -= self.len;
            self.core.room.add_permits(1);
            self.core.staging.add_permits(self.len as usize);
            return false;
        }
        outgoing.abandon(tag);
        true
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.tag.is_some() {
            self.give_up();
        }
    }
}

impl Core {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, kind: JobErrorKind) -> JobError {
        JobError::new(kind, &self.server)
    }

    /// The error that an answer is which is not the one that was asked for.
    fn error_of(&self, answer: Answer) -> JobError {
        match answer {
            Answer::Error { status, info } => {
                error_of_status(&self.options.profile, status, info.as_deref(), &self.server)
            }
            Answer::Ended { was_sent } => {
                let kind = if was_sent {
                    JobErrorKind::Unknown(Unknown::TunnelLost)
                } else {
                    JobErrorKind::NotSent(NotSent::NowhereToGo)
                };
                let end = self.state().end.clone();
                self.error(kind).with_info(end.as_deref().unwrap_or_default())
            }
            Answer::NoOp | Answer::Reply(_) | Answer::Object(_) => {
                unreachable!("the mux takes an answer of another kind for a broken protocol")
            }
        }
    }

    /// `None` where the stream has ended.
    fn stage(&self, command: &Command<'_>, len: u32, token: oneshot::Sender<Answer>) -> Option<Tag> {
        let mut state = self.state();
        let outgoing = state.outgoing.as_mut()?;
        let staged = match *command {
            Command::NoOp => outgoing.stage_no_op(token),
            Command::Job { world, job } => outgoing.stage_job(world, job, token),
            Command::PublishedObject { name } => outgoing.stage_get_published_object(name, token),
        };
        let tag = staged.map_err(|Refused(_)| ()).expect("a permit stands for the room that the mux has");
        state.staged += len;
        if let Some(driver) = state.driver.take() {
            driver.wake();
        }
        Some(tag)
    }

    /// Every command that is unanswered is answered with the end, and no other is taken.
    fn end(&self, why: &str) {
        let outgoing = {
            let mut state = self.state();
            state.end.get_or_insert_with(|| why.into());
            state.outgoing.take()
        };
        self.room.close();
        self.staging.close();
        if let Some(outgoing) = outgoing {
            // Who has gone does not hear it.
            outgoing.close(
                |token, _| drop(token.send(Answer::Ended { was_sent: false })),
                |token| drop(token.send(Answer::Ended { was_sent: true })),
            );
        }
    }
}

impl Mux for &Core {
    fn take_output(&mut self) -> Option<Bytes> {
        let mut state = self.state();
        let output = state.outgoing.as_mut()?.take_output()?;
        self.staging.add_permits(std::mem::take(&mut state.staged) as usize);
        Some(output.into())
    }

    fn feed(&mut self, input: &mut &[u8]) -> Result<(), Broken> {
        let mut state = self.state();
        let State { outgoing: Some(outgoing), late_replies, .. } = &mut *state else { return Ok(()) };
        let mut answered = 0;
        let fed = loop {
            let answer = match outgoing.receive(input) {
                Ok(Some(answer)) => answer,
                Ok(None) => break Ok(()),
                Err(broken) => break Err(broken),
            };
            answered += 1;
            // Who has gone does not hear it.
            let _ = answer.token.send(match answer.reply {
                ReplyBody::NoOp => Answer::NoOp,
                ReplyBody::Job(reply) => Answer::Reply(Reply::copy_of(reply.0)),
                ReplyBody::Object(object) => Answer::Object(object),
                ReplyBody::Error { status, info } => Answer::Error { status, info: info.map(str::to_owned) },
            });
        };
        let late = outgoing.late_replies() - std::mem::replace(late_replies, outgoing.late_replies());
        self.room.add_permits(answered + usize::try_from(late).expect("no more than are in flight"));
        fed
    }

    fn missing(&self, input: &[u8]) -> usize {
        self.state().outgoing.as_ref().map_or(0, |outgoing| outgoing.missing(input))
    }
}

/// Ends the connection when the driver's task ends, also when that is aborted.
struct EndOnDrop(Arc<Core>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end("it was closed from here");
    }
}

async fn drive<S: Transport>(core: Arc<Core>, mut engine: Engine<S>) {
    let core = EndOnDrop(core);
    let mut has_yielded = false;
    let end = poll_fn(|cx| poll_drive(&core.0, &mut engine, &mut has_yielded, cx)).await;
    core.0.end(&end.to_string());
}

fn poll_drive<S: Transport>(
    core: &Core,
    engine: &mut Engine<S>,
    has_yielded: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<StreamEnd> {
    {
        let mut state = core.state();
        state.driver = Some(cx.waker().clone());
        let has_staged = state.outgoing.as_ref().is_some_and(|outgoing| outgoing.staged_len() > 0);
        // Every task that is ready gets to say what it has to, once, before all of it leaves in one write.
        *has_yielded = has_staged && !*has_yielded;
    }
    if *has_yielded {
        cx.waker().wake_by_ref();
        return Poll::Pending;
    }
    match engine.poll(cx, &mut &*core) {
        Poll::Pending => Poll::Pending,
        Poll::Ready(Ok(())) => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        Poll::Ready(Err(end)) => Poll::Ready(end),
    }
}
