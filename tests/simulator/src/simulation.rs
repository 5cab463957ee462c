//! The simulation itself: its clock, its agenda, and the order in which things happen.
//!
//! One thread runs everything. Time moves from one thing that is due to the next: an event of the story, something on the
//! agenda (bytes that arrive, a machine that has finished), or the scheduler's own timeout. Each is a step, and after each
//! step everything is checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use seeway::schedule::{CallerId, ChannelId, Scheduler};
use seeway_proto::wire::Profile;

use crate::callers::Caller;
use crate::checks::{Before, Call, Most};
use crate::draw::Chance;
use crate::fairness::Shares;
use crate::ledger::{CallerKey, Ledger, Number};
use crate::log::Log;
use crate::machines::{Machine, Run};
use crate::notes::Notes;
use crate::pipe;
use crate::promise::{Broken, Promise, Violation};
use crate::setup::{Budgets, Setup};
use crate::story::{Event, Story};
use crate::upstream::{Link, LinkKey, Orphan};

/// Steps after which a simulation is taken to go round in circles.
const MOST_STEPS: u64 = 400_000;

/// Timeouts that the scheduler may ask for while nothing else happens.
const MOST_TIMEOUTS: u32 = 1000;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Task {
    /// A channel's writer takes what is staged.
    Pump(LinkKey),
    /// Bytes arrive at a machine.
    ToMachine(LinkKey),
    /// Bytes arrive from a machine.
    ToGateway(LinkKey),
    /// The gateway notices that a channel is lost.
    LossNoticed(LinkKey),
    /// The gateway looks whether a channel that it drains is idle; it is closed at the given time in any case.
    DrainCheck(LinkKey, Instant),
    /// The gateway opens a channel, where it can.
    Connect(usize, usize),
    /// What had left before a channel was closed arrives.
    Orphan(Box<Orphan>),
    /// A reply comes a second time.
    Echo(LinkKey, Vec<u8>),
    /// A machine has finished a job.
    Done(usize, Box<Run>),
    /// A machine that hangs goes on.
    Unhang(usize),
    /// Bytes arrive from a legacy caller.
    FromCaller(CallerKey),
    /// Bytes arrive at a legacy caller.
    ToCaller(CallerKey),
    /// A legacy caller's connection writes its answers.
    WriteAnswers(CallerKey),
    /// A legacy caller's connection that was paused goes on decoding.
    Decode(CallerKey),
    /// A stream that waited for room goes on.
    Resume(CallerKey),
}

/// A simulation under way.
pub struct Simulation {
    pub(crate) setup: Setup,
    pub(crate) budgets: Budgets,
    pub(crate) profile: Arc<Profile>,
    pub(crate) beginning: Instant,
    pub(crate) now: Instant,
    pub(crate) step: u64,
    agenda: BTreeMap<(Instant, u64), Task>,
    serial: u64,
    pub(crate) scheduler: Scheduler,
    pub(crate) notes: Notes,
    pub(crate) callers: Vec<Option<Caller>>,
    pub(crate) caller_keys: BTreeMap<CallerId, CallerKey>,
    /// Jobs in hand by the scheduler's caller and ticket.
    pub(crate) tickets: BTreeMap<(CallerId, u64), Number>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) links: BTreeMap<(usize, usize), Link>,
    pub(crate) link_keys: BTreeMap<ChannelId, LinkKey>,
    pub(crate) ledger: Ledger,
    pub(crate) shares: Shares,
    pub(crate) log: Log,
    pub(crate) violation: Option<Violation>,
    /// The faults have stopped.
    pub(crate) is_calm: bool,
    /// Machines that an operator drains.
    pub(crate) drained: BTreeSet<usize>,
    /// Machines that take jobs, as of the last step, and since when.
    pub(crate) ready_since: BTreeMap<usize, Instant>,
    /// Counts the configurations, so that what depends on one is compared within it.
    pub(crate) epoch: u64,
    /// Where each key's jobs went, by epoch, world and key, in worlds with strict affinity.
    pub(crate) strict: BTreeMap<(u64, usize, u8), usize>,
    pub(crate) before: Before,
    /// The largest limits that were ever configured.
    pub(crate) most: Most,
    /// The gateway takes no job any more.
    pub(crate) is_draining: bool,
    /// Until when the timer is late, after the clock has jumped.
    pub(crate) timer_late_until: Option<Instant>,
    /// Since when each world has had no machine up.
    pub(crate) down_since: Vec<Option<Instant>>,
    /// No channel is opened any more.
    pub(crate) are_channels_for_good_closed: bool,
    lives: u64,
    stop_after: u64,
    timeouts_in_a_row: u32,
}

/// How a simulation went.
#[derive(Debug)]
pub struct Ended {
    /// What was broken, if anything.
    pub violation: Option<Violation>,
    /// How many steps it took.
    pub steps: u64,
    /// How many jobs were asked for.
    pub jobs: u64,
    /// How many jobs ended how.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Follows from everything that happened to any job, in its order.
    pub digest: u64,
    /// What happened, where it was to be written down.
    pub log: Vec<String>,
}

impl Simulation {
    /// A simulation with nothing in it but what the setup says.
    pub fn new(setup: &Setup, is_logged: bool, stop_after: Option<u64>) -> Self {
        static PROCESS: OnceLock<Instant> = OnceLock::new();
        let beginning = pipe::beginning(*PROCESS.get_or_init(Instant::now));
        let budgets = Budgets::new(setup);
        let scheduler = Scheduler::new(beginning, setup.settings(&budgets));
        Self {
            budgets,
            profile: Profile::open_1(),
            beginning,
            now: beginning,
            step: 0,
            agenda: BTreeMap::new(),
            serial: 0,
            scheduler,
            notes: Notes::default(),
            callers: (0..=crate::story::CALLER_SLOTS).map(|_| None).collect(),
            caller_keys: BTreeMap::new(),
            tickets: BTreeMap::new(),
            machines: setup.machines.iter().map(|_| Machine::default()).collect(),
            links: BTreeMap::new(),
            link_keys: BTreeMap::new(),
            ledger: Ledger::new(setup.retry.max_attempts),
            shares: Shares::default(),
            log: Log::new(is_logged),
            violation: None,
            is_calm: false,
            drained: BTreeSet::new(),
            ready_since: BTreeMap::new(),
            epoch: 0,
            strict: BTreeMap::new(),
            before: Before::default(),
            most: Most::default(),
            is_draining: false,
            timer_late_until: None,
            down_since: Vec::new(),
            are_channels_for_good_closed: false,
            lives: 0,
            stop_after: stop_after.unwrap_or(u64::MAX),
            timeouts_in_a_row: 0,
            setup: setup.clone(),
        }
    }

    /// Tells the story, then lets everything come to rest, and looks what is left.
    pub fn tell(&mut self, story: &Story) {
        self.most.raise(&self.setup);
        for machine in 0..self.machines.len() {
            self.connect_all(machine);
        }
        for event in &story.events {
            self.run_until(self.beginning + event.at);
            if self.is_over() {
                return;
            }
            self.happen(event);
        }
        self.come_to_rest();
    }

    /// Ends the simulation.
    pub fn ended(self) -> Ended {
        let mut outcomes = BTreeMap::new();
        for job in self.ledger.jobs.values() {
            let label = match job.told {
                Some(kind) => kind.label(),
                None if !job.is_wanted => "given up by its caller",
                None => "never submitted",
            };
            *outcomes.entry(label).or_default() += 1;
        }
        Ended {
            violation: self.violation,
            steps: self.step,
            jobs: self.ledger.jobs.len() as u64,
            outcomes,
            digest: self.ledger.digest,
            log: self.log.into_lines(),
        }
    }

    /// Ends the simulation after something that stopped it.
    pub fn ended_by(mut self, violation: Violation) -> Ended {
        self.violation.get_or_insert(violation);
        self.ended()
    }

    /// How far it has come.
    pub fn progress(&self) -> (u64, Duration) {
        (self.step, self.time())
    }

    fn happen(&mut self, event: &Event) {
        self.now = self.now.max(self.beginning + event.at);
        self.begin_step();
        self.act(event);
        self.end_step();
    }

    /// Does everything that is due before or at a time.
    pub(crate) fn run_until(&mut self, end: Instant) {
        while !self.is_over() {
            let task = self.agenda.first_key_value().map(|((at, _), _)| *at);
            let is_late = task.zip(self.timer_late_until).is_some_and(|(task, until)| task < until);
            let timer = self.scheduler.poll_timeout(self.now).filter(|_| !is_late);
            // What is due at the same instant comes in any order.
            let coin = Chance::of(&[self.setup.seed, 4, self.step]).percent(50);
            let is_timer = match (task, timer) {
                (None, None) => break,
                (None, Some(_)) => true,
                (Some(_), None) => false,
                (Some(task), Some(timer)) => timer < task || timer == task && coin,
            };
            let Some(due) = (if is_timer { timer } else { task }).filter(|due| *due <= end) else { break };
            self.now = self.now.max(due);
            self.begin_step();
            if is_timer {
                self.time_out();
            } else if let Some((_, task)) = self.agenda.pop_first() {
                self.timeouts_in_a_row = 0;
                self.perform(task);
            }
            self.end_step();
        }
        self.now = self.now.max(end);
    }

    fn time_out(&mut self) {
        self.timeouts_in_a_row += 1;
        if self.timeouts_in_a_row > MOST_TIMEOUTS {
            self.fail(Promise::Contract, "the scheduler asks for one timeout after the other and nothing else happens");
        }
        self.scheduler.handle_timeout(self.now, &mut self.notes);
        self.digest(Call::Other);
        let overdue = self.ledger.deadlines.first().filter(|(deadline, _)| *deadline <= self.now).copied();
        if let Some((_, number)) = overdue {
            self.fail(Promise::Deadline, format!("job {number} is in hand after its deadline and the timeout"));
        }
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Pump(key) => self.pump(key),
            Task::ToMachine(key) => self.arrive_at_machine(key),
            Task::ToGateway(key) => self.arrive_at_gateway(key),
            Task::LossNoticed(key) => self.close_link(key, "is lost"),
            Task::DrainCheck(key, end) => self.check_drain(key, end),
            Task::Connect(machine, place) => self.connect(machine, place),
            Task::Orphan(orphan) => self.read_orphan(*orphan),
            Task::Echo(key, bytes) => self.send_to_gateway(key, &bytes),
            Task::Done(machine, run) => self.finish(machine, *run),
            Task::Unhang(machine) => self.unhang(machine),
            Task::FromCaller(key) => self.arrive_from_caller(key),
            Task::ToCaller(key) => self.arrive_at_caller(key),
            Task::WriteAnswers(key) => self.write_answers(key),
            Task::Decode(key) => self.decode(key),
            Task::Resume(key) => self.resume_stream(key),
        }
    }

    fn begin_step(&mut self) {
        self.step += 1;
        if self.step > MOST_STEPS {
            self.fail(Promise::Contract, "the simulation does not come to rest");
        }
    }

    fn end_step(&mut self) {
        let next = self.scheduler.poll_timeout(self.now);
        let first = self.ledger.deadlines.first().copied();
        if let Some((deadline, number)) = first
            && next.is_none_or(|next| next > deadline)
        {
            self.fail(
                Promise::Deadline,
                format!("the scheduler does not want to be called at the deadline of job {number}"),
            );
        }
        self.check_after_step();
    }

    /// Whether there is nothing more to be done: something is broken, or enough steps were taken.
    pub(crate) fn is_over(&self) -> bool {
        self.violation.is_some() || self.step >= self.stop_after
    }

    pub(crate) fn is_resting(&self) -> bool {
        self.ledger.in_hand.is_empty()
    }

    pub(crate) fn later(&mut self, at: Instant, task: Task) {
        self.serial += 1;
        self.agenda.insert((at, self.serial), task);
    }

    /// Puts something on the agenda for after a moment that a task takes to be woken.
    pub(crate) fn soon(&mut self, task: Task) {
        let hop = self.chance(5).micros(0, 30);
        self.later(self.now + hop, task);
    }

    /// Chance for something that happens in this step.
    pub(crate) fn chance(&self, what: u64) -> Chance {
        let time = u64::try_from(self.time().as_nanos()).unwrap_or(0);
        Chance::of(&[self.setup.seed, what, time, self.serial])
    }

    pub(crate) fn time(&self) -> Duration {
        self.now.saturating_duration_since(self.beginning)
    }

    pub(crate) fn new_life(&mut self) -> u64 {
        self.lives += 1;
        self.lives
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        let at = self.time();
        self.log.line(self.step, at, text);
    }

    pub(crate) fn fail(&mut self, promise: Promise, what: impl Into<String>) {
        self.broken(Err(Broken::new(promise, what)));
    }

    /// Notes what is broken, if anything is; the first thing counts.
    pub(crate) fn broken(&mut self, result: Result<(), Broken>) {
        if let Err(broken) = result
            && self.violation.is_none()
        {
            let violation = Violation { step: self.step, at: self.time(), broken };
            self.note(|| format!("BROKEN: {}", violation.broken.what));
            self.violation = Some(violation);
        }
    }
}
