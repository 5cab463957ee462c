//! Ten thousand legacy connections that do nothing and five hundred that work, for two minutes: every job is answered, and the gateway's
//! memory stays what it was.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use seeway_bench::Target;
use seeway_proto::{
    mux::Outgoing,
    wire::{Limits, Profile, ReplyBody},
};
use seeway_tests::{Config, Gateway, Identity, Machine, Sshd, callers, turn::Turn};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinSet,
    time::{sleep, timeout},
};

const IDLE: usize = 10_000;
const BUSY: usize = 500;
/// Connections that are made at once: fewer than a listener's backlog holds.
const JOINING: usize = 50;
/// How long they stay.
const STAY: Duration = Duration::from_secs(120);
/// Until then what the gateway allocates once is allocated.
const WARM_UP: Duration = Duration::from_secs(20);
const SAMPLE: Duration = Duration::from_secs(10);
/// A busy connection's pause between a reply and the next job: about 2 000 jobs a second in all, for which less than one core is needed.
const PAUSE: Duration = Duration::from_millis(250);
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest job. Bursts of large ones would measure the allocator.
const LARGEST: usize = 2_048;
/// By how much the gateway's memory may grow after the warm-up, in KiB. It is 1 MiB where nothing is kept; a gateway that kept twenty
/// bytes of each job, or a few hundred of each connection, would grow by more.
const GROWTH: u64 = 4 * 1024;
/// Files that the gateway and this process need besides a connection for each caller.
const OTHER_FILES: u64 = 200;

#[test]
fn ten_thousand_idle_callers_cost_nothing_and_five_hundred_busy_ones_are_served() {
    let _turn = Turn::alone();
    raise_file_limit();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(crowd());
}

async fn crowd() {
    let identity = Identity::generate();
    let sshd = Sshd::start(&identity);
    let machine = Machine::start("echo");
    let config = Config::of_one(&sshd, &machine, &identity, "echo")
        .line("limits", &format!("callers = {0}\npeer_callers = {0}", IDLE + BUSY));
    let gateway = Gateway::ready(&config);
    let Target::Unix(socket) = gateway.unix() else { unreachable!("it is one") };
    let empty = resident_kib(gateway.id());

    let mut idle = join(&socket, IDLE).await;
    let with_idle = resident_kib(gateway.id());
    let busy = join(&socket, BUSY).await;
    let gauge = |name| gateway.metrics().sum(name);
    assert_eq!(rounded(gauge("seeway_callers")), (IDLE + BUSY) as u64, "as many callers as connections");
    // The limit, and one past it.
    let refused = timeout(PATIENCE, Caller::join(&socket)).await.expect("refused at once");
    assert!(refused.is_err(), "a caller was served above limits.callers");

    let is_over = Arc::new(AtomicBool::new(false));
    let jobs = Arc::new(AtomicU64::new(0));
    let mut load = JoinSet::new();
    for (number, caller) in busy.into_iter().enumerate() {
        load.spawn(work(caller, number as u64, Arc::clone(&is_over), Arc::clone(&jobs)));
    }
    println!(
        "a gateway alone: {empty} KiB; with {IDLE} idle callers: {with_idle} KiB, {} KiB for each 100",
        (with_idle - empty) * 100 / IDLE as u64
    );

    let began = Instant::now();
    let mut warm = None;
    let mut samples = Vec::new();
    while began.elapsed() < STAY {
        sleep(SAMPLE).await;
        assert!(load.try_join_next().is_none(), "a busy caller has ended early");
        let sample = resident_kib(gateway.id());
        let metrics = gateway.metrics();
        let (callers, tasks) = (rounded(metrics.sum("seeway_callers")), rounded(metrics.sum("seeway_tasks")));
        println!(
            "{:5.0} s  {sample:7} KiB  {callers} callers  {tasks} tasks  {} jobs",
            began.elapsed().as_secs_f64(),
            jobs.load(Ordering::Relaxed)
        );
        assert_eq!(callers, (IDLE + BUSY) as u64, "no connection is lost");
        if began.elapsed() >= WARM_UP {
            warm.get_or_insert(sample);
            samples.push(sample);
        }
    }
    is_over.store(true, Ordering::Relaxed);
    let busy: Vec<Caller> = timeout(PATIENCE, load.join_all()).await.expect("every job is answered");
    let (warm, last) = (warm.expect("the stay is longer than the warm-up"), *samples.last().expect("as above"));
    println!("resident after the warm-up {warm} KiB, at the end {last} KiB, at most {:?} KiB", samples.iter().max());
    assert!(last <= warm + GROWTH, "the gateway grew from {warm} KiB to {last} KiB: {samples:?}");

    // Those that did nothing for so long are still served.
    for caller in &mut idle {
        caller.job(b"still there").await.unwrap_or_else(|error| panic!("an idle connection is of no use: {error}"));
    }
    let outcomes = gateway.metrics();
    let (all, replied) =
        (outcomes.sum("seeway_jobs_total"), outcomes.sum_where("seeway_jobs_total", "outcome=\"replied\""));
    println!("{} jobs had an outcome, {} of them a reply", rounded(all), rounded(replied));
    assert_eq!(rounded(all), rounded(replied), "no job has any outcome but a reply");
    assert_eq!(rounded(all), jobs.load(Ordering::Relaxed) + IDLE as u64, "one outcome for each job");
    drop((idle, busy));
    gateway.until_idle(PATIENCE);
}

/// Connects `count` callers, a few at a time.
async fn join(socket: &Path, count: usize) -> Vec<Caller> {
    let mut joined = Vec::with_capacity(count);
    let mut joining = JoinSet::new();
    let mut begun = 0;
    while joined.len() < count {
        while begun < count && joining.len() < JOINING {
            begun += 1;
            let socket = PathBuf::from(socket);
            joining.spawn(async move { Caller::join(&socket).await });
        }
        let caller = joining.join_next().await.expect("there are some").expect("no panic");
        joined.push(caller.unwrap_or_else(|error| panic!("caller {} of {count}: {error}", joined.len())));
    }
    joined
}

async fn work(mut caller: Caller, name: u64, is_over: Arc<AtomicBool>, jobs: Arc<AtomicU64>) -> Caller {
    // Not all at once.
    sleep(PAUSE.mul_f64(
        f64::from(u32::try_from(name).expect("a few hundred")) / f64::from(u32::try_from(BUSY).expect("a few hundred")),
    ))
    .await;
    let mut number = 0;
    while !is_over.load(Ordering::Relaxed) {
        number += 1;
        let job = callers::payload(name, number, callers::size(name, number, LARGEST));
        let answered = timeout(PATIENCE, caller.job(&job)).await;
        let answered = answered.unwrap_or_else(|_| panic!("job {number} of {name} has no answer after {PATIENCE:?}"));
        answered.unwrap_or_else(|error| panic!("job {number} of {name}: {error}"));
        jobs.fetch_add(1, Ordering::Relaxed);
        sleep(PAUSE).await;
    }
    caller
}

/// A legacy connection that holds no buffers while it waits, so that ten thousand of them fit beside the gateway.
struct Caller {
    stream: UnixStream,
    outgoing: Outgoing<()>,
    world: u32,
}

impl Caller {
    async fn join(socket: &Path) -> Result<Self, String> {
        let stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
        let mut caller = Self { stream, outgoing: Outgoing::new(Profile::open_1(), Limits::default(), 1), world: 0 };
        caller.outgoing.stage_get_published_object("echo", ()).expect("nothing is out");
        caller.world = caller
            .exchange(|reply| match reply {
                ReplyBody::Object(handle) => Ok(handle),
                other => Err(format!("{other:?} instead of a handle")),
            })
            .await?;
        Ok(caller)
    }

    /// Sends a job and takes its reply, which must be the same bytes.
    async fn job(&mut self, job: &[u8]) -> Result<(), String> {
        self.outgoing.stage_job(self.world, job, ()).expect("nothing is out");
        self.exchange(|reply| match reply {
            ReplyBody::Job(bytes) if bytes.0 == job => Ok(()),
            ReplyBody::Job(_) => Err("a reply to another job".to_owned()),
            other => Err(format!("{other:?} instead of a reply")),
        })
        .await
    }

    async fn exchange<T>(&mut self, read: impl FnOnce(ReplyBody<'_>) -> Result<T, String>) -> Result<T, String> {
        let command = self.outgoing.take_output().expect("something was just staged");
        self.stream.write_all(&command).await.map_err(|error| error.to_string())?;
        let mut input = Vec::new();
        loop {
            let count = self.stream.read_buf(&mut input).await.map_err(|error| error.to_string())?;
            if count == 0 {
                return Err("the gateway has hung up".to_owned());
            }
            let mut rest = input.as_slice();
            if let Some(answer) = self.outgoing.receive(&mut rest).map_err(|broken| broken.to_string())? {
                assert!(rest.is_empty(), "more than one answer to one command");
                return read(answer.reply);
            }
        }
    }
}

/// Lets this process, and the gateway that it starts, hold as many connections as there will be.
fn raise_file_limit() {
    let wanted = (IDLE + BUSY) as u64 + OTHER_FILES;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= wanted) {
        return;
    }
    let hard = maximum.map_or(wanted, |maximum| maximum.max(wanted));
    // Root may raise the hard limit, too.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: maximum.map(|_| hard) });
    raised.unwrap_or_else(|error| {
        panic!(
            "{wanted} open files are needed here and in the gateway, and the hard limit is {maximum:?} ({error}): raise it, for example with \
             `ulimit -Hn {wanted}` as root or LimitNOFILE= of the service that runs the tests"
        )
    });
}

/// The memory that a process has in RAM.
fn resident_kib(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the gateway runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so of each process");
    line.trim().trim_end_matches(" kB").parse().unwrap_or_else(|error| panic!("VmRSS is {line:?}: {error}"))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Counts.
fn rounded(value: f64) -> u64 {
    value.round() as u64
}
