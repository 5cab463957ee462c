//! Many jobs on one gRPC stream.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use seeway_proto::outcome::{NotSent, Unknown};
use seeway_proto::v1::see_job_service_client::SeeJobServiceClient;
use seeway_proto::v1::{StreamRequest, StreamResponse, stream_response};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::transport::Channel;

use super::{Completed, Credentials, GRACE, SubmitOptions, by, failure, request};
use crate::deadline;
use crate::job::{JobError, JobErrorKind};

/// How many jobs wait here for the stream's flow control; more wait in their callers.
const WAITING: usize = 64;

/// A handle to a stream of jobs. Cheap to clone; the stream ends when the last one is dropped.
///
/// Replies are matched to their jobs, in whatever order they come. Dropping the future of a job gives the job up: one that
/// has not left stays here, one that has runs on, and its reply is dropped.
#[derive(Clone, Debug)]
pub struct JobStream {
    requests: mpsc::Sender<StreamRequest>,
    jobs: Arc<Jobs>,
    _replies: Arc<AbortOnDrop>,
}

#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Debug)]
struct Jobs {
    server: Arc<str>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next_id: u64,
    unanswered: HashMap<u64, Job>,
    /// Why the stream has ended.
    end: Option<Arc<str>>,
}

#[derive(Debug)]
struct Job {
    world: String,
    /// When its caller stops waiting; `None` where the gateway's default counts.
    deadline: Option<Instant>,
    has_left: bool,
    answer: oneshot::Sender<Result<Completed, JobError>>,
}

impl JobStream {
    pub(super) fn open(mut client: SeeJobServiceClient<Channel>, server: Arc<str>, credentials: Credentials) -> Self {
        let jobs = Arc::new(Jobs { server, table: Mutex::default() });
        let (requests, waiting) = mpsc::channel(WAITING);
        let leaving = Leaving { waiting, jobs: Arc::clone(&jobs) };
        let answered = EndOnDrop(Arc::clone(&jobs));
        let replies = tokio::spawn(async move {
            let end = match client.stream(credentials.request(leaving)).await {
                Err(status) => status,
                Ok(response) => {
                    let mut responses = response.into_inner();
                    loop {
                        match responses.message().await {
                            Ok(Some(response)) => answered.0.answer(response),
                            Ok(None) => break tonic::Status::unavailable("the gateway ended the stream"),
                            Err(status) => break status,
                        }
                    }
                }
            };
            answered.0.end(&failure::chain(&end));
        });
        Self { requests, jobs, _replies: Arc::new(AbortOnDrop(replies.abort_handle())) }
    }

    /// Sends a job and waits for its reply. The gateway is told how much of the timeout is left when the job leaves.
    ///
    /// A job that has not left when its timeout ends never does: [`NotSent::TooLate`]. One that has is waited for up to a
    /// second longer, for the gateway's own word on whether it ran; without that it is [`Unknown::TooLate`].
    pub async fn submit(
        &self,
        world: &str,
        job: impl Into<Bytes>,
        options: &SubmitOptions,
    ) -> Result<Completed, JobError> {
        let deadline = options.timeout.map(deadline::after);
        let late = |kind| Err(failure::late(kind, &self.jobs.server, world));
        let place = match by(deadline, self.requests.reserve()).await {
            Some(Ok(place)) => place,
            Some(Err(_closed)) => return Err(self.jobs.ended(false)),
            None => return late(JobErrorKind::NotSent(NotSent::TooLate)),
        };
        let (answer, mut answered) = oneshot::channel();
        let Some(id) = self.jobs.enter(world, deadline, answer) else {
            return Err(self.jobs.ended(false));
        };
        let _waiting = Waiting { jobs: &self.jobs, id };
        place.send(StreamRequest { id, submit: Some(request(world, job.into(), options)), timeout: None });
        let heard = match by(deadline, &mut answered).await {
            Some(answer) => answer,
            None if self.jobs.withdraw(id) => return late(JobErrorKind::NotSent(NotSent::TooLate)),
            None => match by(deadline.map(|deadline| deadline + GRACE), &mut answered).await {
                Some(answer) => answer,
                None if self.jobs.give_up(id) => return late(JobErrorKind::Unknown(Unknown::TooLate)),
                // It came at the last moment, and is on its way from the task that reads.
                None => answered.await,
            },
        };
        heard.expect("every job in the table is answered, or the stream's end answers it")
    }

    /// How many jobs are unanswered.
    pub fn in_flight(&self) -> usize {
        self.jobs.table().unanswered.len()
    }

    /// Why the stream has ended; `None` as long as it has not.
    pub fn end(&self) -> Option<Arc<str>> {
        self.jobs.table().end.clone()
    }
}

impl Jobs {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` where the stream has ended.
    fn enter(
        &self,
        world: &str,
        deadline: Option<Instant>,
        answer: oneshot::Sender<Result<Completed, JobError>>,
    ) -> Option<u64> {
        let mut table = self.table();
        if table.end.is_some() {
            return None;
        }
        let id = table.next_id;
        table.next_id += 1;
        table.unanswered.insert(id, Job { world: world.to_owned(), deadline, has_left: false, answer });
        Some(id)
    }

    /// A job that has not left never will. Says whether it had not; one that is answered has.
    fn withdraw(&self, id: u64) -> bool {
        let mut table = self.table();
        let is_here = table.unanswered.get(&id).is_some_and(|job| !job.has_left);
        if is_here {
            table.unanswered.remove(&id);
        }
        is_here
    }

    /// Nobody waits for the job any more. Says whether it was unanswered.
    fn give_up(&self, id: u64) -> bool {
        self.table().unanswered.remove(&id).is_some()
    }

    /// Whether the job still is to leave. It is not where its caller has gone meanwhile, or its time is up.
    fn leave(&self, request: &mut StreamRequest) -> bool {
        let mut table = self.table();
        let Some(job) = table.unanswered.get_mut(&request.id) else { return false };
        if let Some(deadline) = job.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            request.timeout = left.try_into().ok();
        }
        job.has_left = true;
        true
    }

    fn answer(&self, response: StreamResponse) {
        // Nobody may wait for it any more.
        let Some(job) = self.table().unanswered.remove(&response.id) else { return };
        let answer = match response.result {
            Some(stream_response::Result::Reply(reply)) => Ok(reply.into()),
            Some(stream_response::Result::Failure(failure)) => {
                Err(failure::of_item(&failure, &self.server, &job.world))
            }
            None => Err(JobError::new(JobErrorKind::Unknown(Unknown::TunnelLost), &self.server)
                .with_info("the gateway answered with neither a reply nor a failure")),
        };
        let _ = job.answer.send(answer);
    }

    fn ended(&self, has_left: bool) -> JobError {
        let kind = if has_left {
            JobErrorKind::Unknown(Unknown::TunnelLost)
        } else {
            JobErrorKind::NotSent(NotSent::NowhereToGo)
        };
        let end = self.table().end.clone();
        JobError::new(kind, &self.server).with_info(end.as_deref().unwrap_or_default())
    }

    /// Every job that is unanswered is answered with the end, and no other is taken.
    fn end(&self, why: &str) {
        let unanswered = {
            let mut table = self.table();
            table.end.get_or_insert_with(|| why.into());
            std::mem::take(&mut table.unanswered)
        };
        for job in unanswered.into_values() {
            let _ = job.answer.send(Err(self.ended(job.has_left)));
        }
    }
}

/// Ends the stream when the task that reads replies ends, also when that is aborted.
struct EndOnDrop(Arc<Jobs>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end("it was closed from here");
    }
}

/// A job that somebody waits for.
struct Waiting<'a> {
    jobs: &'a Jobs,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.jobs.give_up(self.id);
    }
}

/// The jobs, as gRPC takes them.
struct Leaving {
    waiting: mpsc::Receiver<StreamRequest>,
    jobs: Arc<Jobs>,
}

impl Stream for Leaving {
    type Item = StreamRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<StreamRequest>> {
        while let Some(mut request) = ready!(self.waiting.poll_recv(cx)) {
            if self.jobs.leave(&mut request) {
                return Poll::Ready(Some(request));
            }
        }
        Poll::Ready(None)
    }
}
