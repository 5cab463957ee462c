//! A caller of the chaos test, in a process of its own: it hands over jobs at an even pace, notes in its ledger what becomes of each,
//! and connects again when the gateway has gone. `seeway-chaos-caller` is nothing but this.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    path::Path,
    rc::Rc,
    time::Duration,
};

use seeway_bench::{Target, grpc, wire::WireCaller};
use seeway_proto::{
    v1::{Priority, StreamRequest, SubmitRequest, stream_response},
    wire::{Profile, ReplyBody},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic_types::StatusExt as _;

use super::{
    Dice,
    ledger::{Event, Ledger},
};
use crate::callers::wire_may_have_run;

/// The worlds: where legacy jobs are not idempotent, and where they are.
pub const WORLDS: [&str; 2] = ["counter", "counter-idempotent"];
/// Jobs of one caller that are out at once.
const IN_FLIGHT: usize = 3;
/// The mean time between two jobs of one caller.
const PACE: Duration = Duration::from_millis(25);
/// How long a job may go without an outcome while its connection stands: far longer than any deadline of the test.
const PATIENCE: Duration = Duration::from_secs(20);
/// How soon a caller tries to connect again.
const AGAIN: Duration = Duration::from_millis(100);
/// Of a hundred jobs so many are larger than `bulk_above`.
const LARGE_IN_100: u64 = 2;
const LARGE: usize = 40_000;

/// How a caller calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The SEEJob wire, over whatever its target names.
    Wire,
    /// A gRPC call for each job.
    Unary,
    /// One gRPC stream.
    Stream,
}

impl Kind {
    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wire => "wire",
            Self::Unary => "unary",
            Self::Stream => "stream",
        }
    }
}

/// Calls as the command line says, until SIGTERM; then waits for what is out, and ends. `arguments`: name, kind, target, ledger, seed.
/// Panics when a job gets no outcome or more than one.
pub fn main(arguments: &[String]) {
    let [name, kind, target, ledger, seed] = arguments else { panic!("five arguments are wanted, not {arguments:?}") };
    let target: Target = target.parse().unwrap_or_else(|error| panic!("{error}"));
    let seed = seed.parse().unwrap_or_else(|error| panic!("the seed {seed}: {error}"));
    let caller = Rc::new(Caller {
        name: name.clone(),
        ledger: Ledger::create(Path::new(ledger)),
        dice: RefCell::new(Dice::new(seed)),
        count: Cell::new(0),
        is_stopping: Cell::new(false),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let stopper = Rc::clone(&caller);
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let mut terminate = signal(SignalKind::terminate()).expect("signals can be received");
        tokio::task::spawn_local(async move {
            terminate.recv().await;
            stopper.is_stopping.set(true);
        });
        match (kind.as_str(), &target) {
            ("wire", _) => caller.wire(&target).await,
            ("unary", Target::Grpc(address)) => caller.unary(address).await,
            ("stream", Target::Grpc(address)) => caller.stream(address).await,
            _ => panic!("{kind} does not go with {target}"),
        }
    });
}

struct Caller {
    name: String,
    ledger: Ledger,
    dice: RefCell<Dice>,
    count: Cell<u64>,
    is_stopping: Cell<bool>,
}

/// The jobs that are out, by the numbers that they have on their connection, and since when.
type Out = HashMap<u64, (String, Instant)>;

/// A job that is about to be handed over.
struct Job {
    id: String,
    is_idempotent: bool,
    bytes: Vec<u8>,
}

impl Caller {
    fn next_job(&self) -> Job {
        let number = self.count.get() + 1;
        self.count.set(number);
        let mut dice = self.dice.borrow_mut();
        let is_idempotent = dice.within(0..3) == 0;
        let id = format!("{}/{}/{number}", self.name, if is_idempotent { "i" } else { "n" });
        let mut bytes = id.clone().into_bytes();
        if dice.within(0..100) < LARGE_IN_100 {
            // The journal has the beginning of what is not plain text: the id, up to the space.
            bytes.resize(LARGE, b' ');
        }
        self.ledger.note(&Event::Submitted(id.clone()));
        Job { id, is_idempotent, bytes }
    }

    fn pause(&self) -> Duration {
        let twice_the_mean = u64::try_from(PACE.as_micros()).expect("milliseconds") * 2;
        Duration::from_micros(self.dice.borrow_mut().within(0..twice_the_mean))
    }

    /// What a gRPC job says besides its bytes, and its deadline if it has one.
    fn request(&self, job: &Job) -> (SubmitRequest, Option<Duration>) {
        let mut dice = self.dice.borrow_mut();
        let priority = *dice.choose(&[Priority::Unspecified, Priority::Unspecified, Priority::High, Priority::Low]);
        let affinity_key = if dice.within(0..4) == 0 { format!("key-{}", dice.within(0..10)) } else { String::new() };
        let deadline = (dice.within(0..3) == 0).then(|| Duration::from_millis(dice.within(300..2_500)));
        let request = SubmitRequest {
            world: WORLDS[0].to_owned(),
            job: job.bytes.clone().into(),
            idempotent: job.is_idempotent,
            affinity_key,
            priority: priority.into(),
        };
        (request, deadline)
    }

    fn replied(&self, id: String, reply: &[u8], machine: &str) {
        let value = reply.try_into().unwrap_or_else(|_| panic!("{id}: the counter is 8 bytes, not {}", reply.len()));
        self.ledger.note(&Event::Replied(id, u64::from_le_bytes(value), machine.to_owned()));
    }

    fn disconnected(&self, lost: impl IntoIterator<Item = String>, why: &dyn std::fmt::Display) {
        lost.into_iter().for_each(|id| self.ledger.note(&Event::Lost(id, why.to_string())));
        self.ledger.note(&Event::Disconnected(why.to_string()));
    }

    async fn wire(&self, target: &Target) {
        while !self.is_stopping.get() {
            sleep(AGAIN).await;
            let Ok(mut connection) = WireCaller::connect(target, IN_FLIGHT).await else { continue };
            let mut handles = Vec::new();
            for world in WORLDS {
                if let Ok(handle) = connection.open_world(world, 0).await {
                    handles.push(handle);
                }
            }
            let [plain, idempotent] = handles[..] else { continue };
            self.ledger.note(&Event::Connected);
            let mut out = Out::new();
            if let Err(error) = self.wire_jobs(&mut connection, plain, idempotent, &mut out).await {
                self.disconnected(out.into_values().map(|(id, _)| id), &error);
            }
        }
    }

    async fn wire_jobs(
        &self,
        connection: &mut WireCaller<u64>,
        plain: u32,
        idempotent: u32,
        out: &mut Out,
    ) -> Result<(), seeway_bench::CallerError> {
        let profile = Profile::open_1();
        let (mut next_at, mut number) = (Instant::now(), 0);
        loop {
            if self.is_stopping.get() && out.is_empty() {
                return Ok(());
            }
            if let Some(job) = self.job_that_is_due(out, next_at) {
                number += 1;
                let world = if job.is_idempotent { idempotent } else { plain };
                assert!(
                    connection.stage(world, &job.bytes, number).is_ok(),
                    "fewer are out than the caller allows itself"
                );
                out.insert(number, (job.id, Instant::now()));
                next_at = Instant::now() + self.pause();
            }
            let may_send = self.may_send(out);
            tokio::select! {
                biased;
                exchanged = connection.exchange(|number, reply| {
                    // A second answer is a stray one to the caller's mux, which then fails.
                    let (id, _) = out.remove(&number).expect("the mux knows which jobs are out");
                    match reply {
                        ReplyBody::Job(bytes) => self.replied(id, bytes.0, "-"),
                        ReplyBody::Error { status, info } => {
                            let reason = profile.statuses.name(status).unwrap_or("a status of the application");
                            let may_have_run = wire_may_have_run(reason, info);
                            let reason = info.filter(|_| reason == "Timeout").map_or(reason.to_owned(), |info| format!("{reason}, {info}"));
                            self.ledger.note(&Event::Failed(id, reason, may_have_run));
                        }
                        ReplyBody::NoOp | ReplyBody::Object(_) => panic!("{id} was answered as if it were none"),
                    }
                }) => { exchanged?; }
                () = sleep_until(next_at), if may_send => {}
                () = sleep(AGAIN) => self.be_patient(out),
            }
        }
    }

    /// Whether one more job may be out.
    fn may_send(&self, out: &Out) -> bool {
        !self.is_stopping.get() && out.len() < IN_FLIGHT
    }

    /// The next job, where it may be out and its time has come.
    fn job_that_is_due(&self, out: &Out, next_at: Instant) -> Option<Job> {
        (self.may_send(out) && next_at <= Instant::now()).then(|| self.next_job())
    }

    /// Panics when a job has waited too long. Called when nothing has come to be read, also by a caller that was halted meanwhile.
    fn be_patient(&self, out: &Out) {
        for (job, since) in out.values() {
            assert!(since.elapsed() < PATIENCE, "{job} of {} has no outcome after {:?}", self.name, since.elapsed());
        }
    }

    async fn unary(self: &Rc<Self>, address: &str) {
        while !self.is_stopping.get() {
            sleep(AGAIN).await;
            let Ok(stub) = grpc::connect(address).await else { continue };
            self.ledger.note(&Event::Connected);
            let is_lost = Rc::new(Cell::new(false));
            let mut lines = tokio::task::JoinSet::new();
            for _ in 0..IN_FLIGHT {
                let (caller, mut stub, is_lost) = (Rc::clone(self), stub.clone(), Rc::clone(&is_lost));
                lines.spawn_local(async move {
                    while !caller.is_stopping.get() && !is_lost.get() {
                        sleep(caller.pause() * u32::try_from(IN_FLIGHT).expect("a few")).await;
                        let job = caller.next_job();
                        let (request, deadline) = caller.request(&job);
                        let mut request = tonic::Request::new(request);
                        if let Some(deadline) = deadline {
                            request.set_timeout(deadline);
                        }
                        let answer = timeout(PATIENCE, stub.submit(request)).await;
                        let answer = answer.unwrap_or_else(|_| panic!("{} has no outcome after {PATIENCE:?}", job.id));
                        if !caller.unary_answer(job.id, answer, deadline.is_some()) {
                            is_lost.set(true);
                        }
                    }
                });
            }
            while let Some(ended) = lines.join_next().await {
                ended.unwrap_or_else(|error| panic!("{error}"));
            }
        }
    }

    /// False when the connection is lost.
    fn unary_answer(
        &self,
        id: String,
        answer: Result<tonic::Response<seeway_proto::v1::SubmitResponse>, tonic::Status>,
        has_deadline: bool,
    ) -> bool {
        let status = match answer {
            Ok(answer) => {
                let answer = answer.into_inner();
                self.replied(id, &answer.reply, &answer.machine);
                return true;
            }
            Err(status) => status,
        };
        let details = status.get_error_details();
        if let Some(info) = details.error_info().filter(|info| info.domain == "seeway") {
            let may_have_run = info.metadata.get("may_have_run").map(|text| text == "true");
            let may_have_run =
                may_have_run.unwrap_or_else(|| panic!("{id}: the details lack may_have_run: {status:?}"));
            // Whatever says UNAVAILABLE is sent again by clients and proxies.
            assert!(
                status.code() != tonic::Code::Unavailable || !may_have_run,
                "{id}: UNAVAILABLE, and it may have run"
            );
            let reason = match status.code() {
                tonic::Code::DeadlineExceeded => format!("DEADLINE_EXCEEDED, {}", info.reason),
                _ => info.reason.clone(),
            };
            self.ledger.note(&Event::Failed(id, reason, may_have_run));
            return true;
        }
        if has_deadline && matches!(status.code(), tonic::Code::Cancelled | tonic::Code::DeadlineExceeded) {
            // This end's own clock.
            self.ledger.note(&Event::GaveUp(id));
            return true;
        }
        self.disconnected([id], &format!("{:?}: {}", status.code(), status.message()));
        false
    }

    async fn stream(&self, address: &str) {
        while !self.is_stopping.get() {
            sleep(AGAIN).await;
            let Ok(mut stub) = grpc::connect(address).await else { continue };
            let (requests, queue) = mpsc::channel(IN_FLIGHT);
            let Ok(replies) = stub.stream(ReceiverStream::new(queue)).await else { continue };
            self.ledger.note(&Event::Connected);
            let mut out = Out::new();
            if let Err(why) = self.stream_jobs(&requests, replies.into_inner(), &mut out).await {
                self.disconnected(out.into_values().map(|(id, _)| id), &why);
            }
        }
    }

    async fn stream_jobs(
        &self,
        requests: &mpsc::Sender<StreamRequest>,
        mut replies: tonic::Streaming<seeway_proto::v1::StreamResponse>,
        out: &mut Out,
    ) -> Result<(), String> {
        let (mut next_at, mut id) = (Instant::now(), 0);
        // A gateway that ends takes no more jobs, and what it has answered before is still to be read.
        let mut is_taking = true;
        loop {
            if self.is_stopping.get() && out.is_empty() {
                return Ok(());
            }
            if is_taking && let Some(job) = self.job_that_is_due(out, next_at) {
                id += 1;
                let (submit, deadline) = self.request(&job);
                let timeout = deadline.map(|deadline| deadline.try_into().expect("seconds"));
                out.insert(id, (job.id, Instant::now()));
                is_taking = requests.try_send(StreamRequest { id, submit: Some(submit), timeout }).is_ok();
                next_at = Instant::now() + self.pause();
            }
            let may_send = is_taking && self.may_send(out);
            tokio::select! {
                biased;
                message = replies.message() => {
                    let answer = message.map_err(|status| format!("{:?}: {}", status.code(), status.message()))?;
                    let answer = answer.ok_or("the stream ended")?;
                    let (job, _) = out.remove(&answer.id).unwrap_or_else(|| panic!("{}: a second answer to {}", self.name, answer.id));
                    match answer.result.expect("every answer has a result") {
                        stream_response::Result::Reply(reply) => self.replied(job, &reply.reply, &reply.machine),
                        stream_response::Result::Failure(failure) => {
                            assert!(
                                failure.code != i32::from(tonic::Code::Unavailable) || !failure.may_have_run,
                                "{job}: UNAVAILABLE, and it may have run"
                            );
                            let is_late = failure.code == i32::from(tonic::Code::DeadlineExceeded);
                            let reason = if is_late { format!("DEADLINE_EXCEEDED, {}", failure.reason) } else { failure.reason };
                            self.ledger.note(&Event::Failed(job, reason, failure.may_have_run));
                        }
                    }
                }
                () = sleep_until(next_at), if may_send => {}
                () = sleep(AGAIN) => self.be_patient(out),
            }
        }
    }
}
