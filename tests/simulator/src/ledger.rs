//! What is true of each job: what its caller asked, how often it left the gateway, how often a machine ran it, and what its
//! caller was told. Written down by the simulated callers, channels and machines, and compared as it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use seeway::schedule::{CallerId, JobId, Priority};
use seeway_proto::outcome::{NotSent, Outcome, OutcomeKind, Rejected, Unknown};

use crate::draw::{Chance, mix};
use crate::promise::{Broken, Promise};

/// A job's number in the simulation.
pub type Number = u32;

/// Jobs with fewer bytes can not carry their number, and are counted by their size.
pub const NAMED_FROM: usize = 4;

/// One who was in a caller's slot for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallerKey {
    /// The slot.
    pub slot: usize,
    /// Counts those who joined.
    pub life: u64,
}

/// How far a job has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The scheduler has not seen it.
    Asked,
    /// The scheduler has admitted it.
    InHand,
    /// Its caller was told, or wants it no more.
    Ended,
}

/// A job and what is true of it.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools)] // Each is a fact of its own.
pub struct Job {
    /// Who asks.
    pub caller: CallerKey,
    /// Where it is to run.
    pub world: usize,
    /// Its bytes.
    pub size: usize,
    /// Its affinity key; 0 for none.
    pub key: u8,
    /// How much of a saturated world it gets.
    pub priority: Priority,
    /// How long its caller waits, from when it is submitted; `None`: too late already.
    pub patience: Option<Duration>,
    /// Whether it may be sent again.
    pub idempotent: bool,
    /// It has to be answered, whatever else happens.
    pub must_be_replied: bool,
    /// How far it has come.
    pub stage: Stage,
    /// The scheduler's name for it.
    pub id: Option<JobId>,
    /// The scheduler's name for its caller.
    pub caller_id: Option<CallerId>,
    /// The configuration with which it was asked for.
    pub epoch: u64,
    /// When it was submitted.
    pub submitted: Option<Instant>,
    /// When it is too late.
    pub deadline: Option<Instant>,
    /// Its place in the order of submission.
    pub order: u64,
    /// How often it left the gateway.
    pub left: u32,
    /// Whether it is on its way: it has left, and neither was a reply taken in nor the channel closed.
    pub is_out: bool,
    /// When an attempt of it last ended, with whatever result.
    pub came_back: Option<Instant>,
    /// How often a machine ran it.
    pub ran: u32,
    /// Whether its caller still wants it.
    pub is_wanted: bool,
    /// Whether its caller was told that it had not run.
    pub is_told_not_run: bool,
    /// Which kind of outcome it was told.
    pub told: Option<OutcomeKind>,
}

/// Everything that is true.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By number.
    pub jobs: BTreeMap<Number, Job>,
    /// Jobs in hand.
    pub in_hand: BTreeSet<Number>,
    /// Jobs in hand by deadline.
    pub deadlines: BTreeSet<(Instant, Number)>,
    /// How often a job may be sent: the most that was ever configured.
    pub max_attempts: u32,
    /// By size of jobs without a number: how often any left, and ran.
    nameless: [(u32, u32); NAMED_FROM],
    /// Jobs in hand that have not left, by caller, world and affinity key, in the order of submission.
    groups: BTreeMap<(CallerId, usize, u8), BTreeSet<(u64, Number)>>,
    /// By world: jobs that left, and of these how many not for the first time.
    pub sent: BTreeMap<usize, (u64, u64)>,
    submissions: u64,
    /// How many attempts of jobs without a number have just ended.
    pub nameless_came_back: usize,
    /// Jobs whose attempts have just ended.
    pub just_came_back: Vec<Number>,
    /// Follows from everything that was written down, in its order.
    pub digest: u64,
}

/// A job's bytes: its number and what follows from it.
pub fn job_bytes(number: Number, size: usize) -> Vec<u8> {
    filled(&number.to_le_bytes(), u64::from(number), size)
}

/// The number of the job with these bytes, where they can carry one.
pub fn number_of(bytes: &[u8]) -> Option<Number> {
    bytes.first_chunk().map(|head| Number::from_le_bytes(*head))
}

/// What a machine replies to a job.
pub fn reply_to(job: &[u8], most: usize) -> Vec<u8> {
    let Some(number) = number_of(job) else {
        return vec![0xee; job.len()];
    };
    let mut chance = Chance::of(&[u64::from(number), 3]);
    let size = match chance.below(20) {
        0 => chance.count(NAMED_FROM, most),
        1 => most,
        _ => chance.count(NAMED_FROM, 80),
    };
    filled(&(!number).to_le_bytes(), u64::from(!number), size)
}

fn filled(head: &[u8], seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    bytes.extend(head);
    let mut state = seed;
    while bytes.len() < size {
        state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

impl Ledger {
    /// A ledger in which nothing is written; no job may be sent more often than `max_attempts` times.
    pub fn new(max_attempts: u32) -> Self {
        Self { max_attempts, ..Self::default() }
    }

    /// The job of this number.
    ///
    /// # Panics
    /// If nobody asked for it: machines and channels only see numbers that were asked.
    pub fn job(&self, number: Number) -> &Job {
        &self.jobs[&number]
    }

    fn job_mut(&mut self, number: Number) -> &mut Job {
        self.jobs.get_mut(&number).expect("jobs are written down before they are submitted")
    }

    fn write(&mut self, words: &[u64]) {
        for word in words {
            self.digest = mix(self.digest ^ word);
        }
    }

    /// The scheduler is handed the job.
    pub fn submitted(&mut self, number: Number, caller: CallerId, now: Instant, deadline: Instant) {
        self.submissions += 1;
        let order = self.submissions;
        let job = self.job_mut(number);
        job.submitted = Some(now);
        (job.stage, job.caller_id, job.deadline, job.order) = (Stage::InHand, Some(caller), Some(deadline), order);
        let group = (job.key != 0 && job.size >= NAMED_FROM).then_some((caller, job.world, job.key));
        self.in_hand.insert(number);
        self.deadlines.insert((deadline, number));
        if let Some(group) = group {
            self.groups.entry(group).or_default().insert((order, number));
        }
        self.write(&[1, number.into()]);
    }

    /// A job is handed to the network.
    pub fn left(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let Some(number) = number_of(bytes) else {
            self.nameless[bytes.len()].0 += 1;
            return Ok(());
        };
        let max_attempts = self.max_attempts;
        let job = self
            .jobs
            .get_mut(&number)
            .ok_or_else(|| Broken::new(Promise::RightReply, format!("a job {number} left that nobody asked for")))?;
        if bytes != job_bytes(number, job.size) {
            return Err(Broken::new(
                Promise::RightReply,
                format!("job {number} left with other bytes than it came with"),
            ));
        }
        job.left += 1;
        job.is_out = true;
        let world = job.world;
        let is_first = job.left == 1;
        let problem = if job.left > 1 && !job.idempotent {
            Some("was sent twice and is not idempotent".to_owned())
        } else if job.left > max_attempts {
            Some(format!("was sent {} times, {max_attempts} are allowed", job.left))
        } else if let Some(told) = job.told {
            Some(format!("was sent after its caller was told: {told}"))
        } else if job.came_back.zip(job.deadline).is_some_and(|(came_back, deadline)| came_back >= deadline) {
            Some("was sent again after it had come back past its deadline".to_owned())
        } else if !job.is_wanted {
            Some("was sent after its caller had cancelled it or gone".to_owned())
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(Broken::new(Promise::Honest, format!("job {number} {problem}")));
        }
        let sent = self.sent.entry(world).or_default();
        sent.0 += 1;
        sent.1 += u64::from(!is_first);
        self.write(&[2, number.into()]);
        if is_first { self.first_of_its_group(number) } else { Ok(()) }
    }

    /// An attempt of each of these has ended: a reply was taken in, or the channel is gone.
    pub fn came_back(&mut self, now: Instant, numbers: &[Number]) {
        for number in numbers {
            let job = self.job_mut(*number);
            (job.came_back, job.is_out) = (Some(now), false);
        }
        self.just_came_back.extend(numbers);
    }

    fn first_of_its_group(&mut self, number: Number) -> Result<(), Broken> {
        let Some(group) = self.group_of(number) else { return Ok(()) };
        let first = self.groups.get(&group).and_then(|group| group.first().copied());
        self.leave_group(number);
        match first {
            Some((_, first)) if first != number => Err(Broken::new(
                Promise::Order,
                format!("job {number} left before job {first} of the same caller, world and key, which came first"),
            )),
            _ => Ok(()),
        }
    }

    fn group_of(&self, number: Number) -> Option<(CallerId, usize, u8)> {
        let job = self.job(number);
        let caller = job.caller_id.filter(|_| job.key != 0)?;
        Some((caller, job.world, job.key))
    }

    fn leave_group(&mut self, number: Number) {
        let Some(group) = self.group_of(number) else { return };
        let order = self.job(number).order;
        if let Some(members) = self.groups.get_mut(&group) {
            members.remove(&(order, number));
            if members.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    /// A machine runs a job.
    pub fn ran(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let Some(number) = number_of(bytes) else {
            self.nameless[bytes.len()].1 += 1;
            return Ok(());
        };
        let job = self.job_mut(number);
        job.ran += 1;
        let (ran, left, is_told_not_run) = (job.ran, job.left, job.is_told_not_run);
        self.write(&[3, number.into()]);
        if is_told_not_run {
            Err(Broken::new(Promise::Honest, format!("job {number} ran after its caller was told that it had not")))
        } else if ran > left {
            Err(Broken::new(Promise::Honest, format!("job {number} ran {ran} times and left {left} times")))
        } else {
            Ok(())
        }
    }

    /// The scheduler has told a job's outcome.
    pub fn concluded(
        &mut self,
        now: Instant,
        number: Number,
        outcome: Outcome<'_>,
        most: usize,
        is_world_retired: bool,
    ) -> Result<(), Broken> {
        let kind = outcome.kind();
        let job = self.jobs.get(&number).expect("looked up by its caller and ticket");
        if let Some(told) = job.told {
            let what = format!("job {number} has the outcome `{told}` and now the outcome `{kind}` too");
            return Err(Broken::new(Promise::OneOutcome, what));
        }
        if !job.is_wanted {
            let what = format!("job {number} has the outcome `{kind}` after its caller had cancelled it or gone");
            return Err(Broken::new(Promise::OneOutcome, what));
        }
        self.is_true(now, number, outcome, most, is_world_retired)?;
        self.end(number);
        let job = self.job_mut(number);
        job.told = Some(kind);
        job.is_told_not_run = !outcome.may_have_run();
        self.write(&[4, number.into(), kind as u64]);
        Ok(())
    }

    /// Whether an outcome says of a job what is true.
    fn is_true(
        &self,
        now: Instant,
        number: Number,
        outcome: Outcome<'_>,
        most: usize,
        is_world_retired: bool,
    ) -> Result<(), Broken> {
        let job = self.job(number);
        let kind = outcome.kind();
        let wrong =
            |promise, why: &str| Err(Broken::new(promise, format!("job {number} has the outcome `{kind}` {why}")));
        let is_past = job.deadline.is_some_and(|deadline| deadline <= now);
        match outcome {
            Outcome::Replied(reply) if reply.0 != reply_to(&job_bytes(number, job.size), most) => {
                return wrong(Promise::RightReply, "with a reply that is not its own");
            }
            Outcome::NotSent(NotSent::TooLate) | Outcome::Unknown(Unknown::TooLate) if !is_past => {
                return wrong(Promise::Deadline, "before its deadline");
            }
            Outcome::Rejected(Rejected::JobTooLarge) if job.size <= most => {
                return wrong(Promise::Contract, "and is within the limit");
            }
            Outcome::Rejected(Rejected::NoSuchWorld) if !is_world_retired => {
                return wrong(Promise::Contract, "and its world is there");
            }
            Outcome::Rejected(Rejected::Malformed | Rejected::AccessDenied) => {
                return wrong(Promise::Contract, "which is not the scheduler's to say");
            }
            _ => {}
        }
        if job.size > most && !matches!(outcome, Outcome::Rejected(_)) {
            return wrong(Promise::Limits, "and is larger than the limit");
        }
        if job.must_be_replied && !matches!(outcome, Outcome::Replied(_)) {
            return wrong(Promise::Liveness, "though every machine is up and the load is low");
        }
        if job.size < NAMED_FROM {
            return Ok(());
        }
        match outcome {
            Outcome::Replied(_) | Outcome::MachineStatus { may_have_run: true, .. } if job.ran == 0 => {
                wrong(Promise::Honest, "and did not run")
            }
            Outcome::MachineStatus { may_have_run: false, .. } if job.ran > 0 => wrong(Promise::Honest, "and ran"),
            Outcome::Rejected(_) | Outcome::NotSent(_) if job.left > 0 => wrong(Promise::Honest, "and had left"),
            Outcome::Unknown(_) if job.left == 0 => wrong(Promise::Honest, "and had never left"),
            _ => Ok(()),
        }
    }

    /// A job's caller no longer wants it.
    pub fn released(&mut self, number: Number) {
        if self.job(number).stage == Stage::Ended {
            return;
        }
        self.end(number);
        self.job_mut(number).is_wanted = false;
        self.write(&[5, number.into()]);
    }

    /// Writes a job down that will never be submitted.
    pub fn refused_before(&mut self, number: Number) {
        self.end(number);
    }

    fn end(&mut self, number: Number) {
        self.leave_group(number);
        let job = self.job_mut(number);
        job.stage = Stage::Ended;
        let deadline = job.deadline;
        self.in_hand.remove(&number);
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, number));
        }
    }

    /// How often jobs that carry no number left.
    pub fn nameless_left(&self) -> u64 {
        self.nameless.iter().map(|(left, _)| u64::from(*left)).sum()
    }

    /// Whether jobs that carry no number left no more often than they may, all together.
    pub fn nameless_are_honest(&self) -> Result<(), Broken> {
        for (size, &(left, ran)) in self.nameless.iter().enumerate() {
            let allowed: u32 = self
                .jobs
                .values()
                .filter(|job| job.size == size && job.caller_id.is_some())
                .map(|job| match job.told {
                    _ if job.idempotent => self.max_attempts,
                    // A machine that refuses a job has been sent it.
                    Some(OutcomeKind::MachineStatus) => 1,
                    _ if job.is_told_not_run => 0,
                    _ => 1,
                })
                .sum();
            if left > allowed || ran > left {
                let what = format!("jobs of {size} bytes left {left} times and ran {ran} times; {allowed} are allowed");
                return Err(Broken::new(Promise::Honest, what));
            }
        }
        Ok(())
    }
}
