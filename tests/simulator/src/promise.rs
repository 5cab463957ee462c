//! What the simulation checks, and how it says that it does not hold.

use std::fmt;
use std::time::Duration;

/// Something that must hold whatever happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Each admitted job has at most one outcome, and by the end exactly one.
    OneOutcome,
    /// A reply reaches only the caller and job it belongs to.
    RightReply,
    /// No job runs more often than it may, and none of which it was said that it had not run.
    Honest,
    /// No limit is exceeded.
    Limits,
    /// When all is quiet, nothing is left.
    Quiet,
    /// Nobody waits beyond a fair share while others are served.
    FairShare,
    /// No job outlives its deadline.
    Deadline,
    /// With a machine up and load below its capacity, jobs finish.
    Liveness,
    /// Within one caller and affinity key, the order of sending is the order of submission.
    Order,
    /// With strict affinity a key's jobs go to one machine.
    Affinity,
    /// Retries stay within their budget.
    RetryBudget,
    /// What drains gets no job.
    Drain,
    /// What is ejected gets no job while another machine is ready.
    Ejection,
    /// The scheduler's calls and effects fit together as its documentation says.
    Contract,
    /// Nothing panics.
    NoPanic,
}

impl Promise {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::OneOutcome,
        Self::RightReply,
        Self::Honest,
        Self::Limits,
        Self::Quiet,
        Self::FairShare,
        Self::Deadline,
        Self::Liveness,
        Self::Order,
        Self::Affinity,
        Self::RetryBudget,
        Self::Drain,
        Self::Ejection,
        Self::Contract,
        Self::NoPanic,
    ];

    /// What it says.
    pub fn text(self) -> &'static str {
        match self {
            Self::OneOutcome => "each admitted job has at most one outcome, and by the end exactly one",
            Self::RightReply => "a reply reaches only the caller and job it belongs to",
            Self::Honest => "no job runs more often than it may, and none of which it was said that it had not run",
            Self::Limits => "no limit is exceeded",
            Self::Quiet => "when all is quiet, memory and tables are empty",
            Self::FairShare => "no caller waits beyond its fair share while others are served",
            Self::Deadline => "no job outlives its deadline by more than a step",
            Self::Liveness => "with a machine up and the load below its capacity, jobs finish",
            Self::Order => "within one caller and affinity key, the order of sending is the order of submission",
            Self::Affinity => "with strict affinity a key's jobs go to one machine",
            Self::RetryBudget => "retries stay within their budget",
            Self::Drain => "what drains gets no job",
            Self::Ejection => "what is ejected gets no job while another machine is ready",
            Self::Contract => "the scheduler's calls and effects fit together as documented",
            Self::NoPanic => "nothing panics",
        }
    }
}

/// A promise that does not hold, and how that shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub promise: Promise,
    /// How it shows.
    pub what: String,
}

impl Broken {
    /// `promise` does not hold.
    pub fn new(promise: Promise, what: impl Into<String>) -> Self {
        Self { promise, what: what.into() }
    }
}

/// A promise that was broken in a simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The simulation's step, counted from 1.
    pub step: u64,
    /// The simulation's time.
    pub at: Duration,
    /// What is broken.
    pub broken: Broken,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { step, at, broken } = self;
        write!(f, "step {step}, {:.6} s: {} (broken: {})", at.as_secs_f64(), broken.what, broken.promise.text())
    }
}
