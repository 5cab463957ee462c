//! What the gateway does with a job itself, without sockets, tasks and SSH: decoding and encoding, the mux, the scheduler, and
//! the whole way of a legacy caller's job through a shard.
//!
//! `seeway-instructions` counts each [`Scenario`]'s instructions and allocations, `cargo bench -p seeway-bench` takes the time
//! of each. A scenario works in turns: a turn does its work on a fixed number of jobs and leaves everything as it found it, so
//! that what is counted over many turns is the steady state. Its clock is made up, and so is its chance.

pub mod callgrind;
pub mod figures;
mod messages;
mod path;
mod scheduler;
mod streams;
mod wires;

/// A piece of work that can be repeated.
pub trait Work {
    /// Does it once more, for as many jobs as its [`Scenario`] says.
    ///
    /// # Panics
    /// If a job has not become what it should: what is counted then is not its work.
    fn turn(&mut self);
}

/// Something that is done with jobs of 256 bytes.
pub struct Scenario {
    /// Its name on the command line and in the file of figures.
    pub name: &'static str,
    /// What is done.
    pub what: &'static str,
    /// How many jobs are done in each turn.
    pub jobs_per_turn: u64,
    /// Sets it up.
    pub make: fn() -> Box<dyn Work>,
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "decode-job",
        what: "find a job's message among 64 that were read, and decode it",
        jobs_per_turn: 64,
        make: || Box::new(wires::DecodeJobs::new(64)),
    },
    Scenario {
        name: "encode-job",
        what: "write a job's message into a buffer of 64, which is wiped",
        jobs_per_turn: 64,
        make: || Box::new(wires::EncodeJobs::new(64)),
    },
    Scenario {
        name: "reply",
        what: "decode a machine's reply and encode it for its caller",
        jobs_per_turn: 64,
        make: || Box::new(wires::Replies::new(64)),
    },
    Scenario {
        name: "mux-ask",
        what: "a job out and its reply back through the asking end of a stream, 64 in each batch",
        jobs_per_turn: 64,
        make: || Box::new(streams::Ask::new(64)),
    },
    Scenario {
        name: "mux-answer",
        what: "a job in and its reply out through the answering end of a stream, 64 in each batch",
        jobs_per_turn: 64,
        make: || Box::new(streams::Answer::new(64)),
    },
    Scenario {
        name: "scheduler-1x1",
        what: "submit, take_output, receive: one caller, one job in flight",
        jobs_per_turn: 1,
        make: || Box::new(scheduler::Rounds::new(1, 1)),
    },
    Scenario {
        name: "scheduler-1x64",
        what: "the same: one caller, 64 jobs in flight",
        jobs_per_turn: 64,
        make: || Box::new(scheduler::Rounds::new(1, 64)),
    },
    Scenario {
        name: "scheduler-256x1",
        what: "the same: 256 callers, one job each",
        jobs_per_turn: 256,
        make: || Box::new(scheduler::Rounds::new(256, 1)),
    },
    Scenario {
        name: "scheduler-queue",
        what: "the same: 16 callers, 960 jobs wait for a machine that takes 64",
        jobs_per_turn: 64,
        make: || Box::new(scheduler::Queue::new(16, 64, 960)),
    },
    Scenario {
        name: "scheduler-key",
        what: "the same: one caller, 64 jobs in flight with 16 affinity keys on two machines",
        jobs_per_turn: 64,
        make: || Box::new(scheduler::Rounds::with_keys(64)),
    },
    Scenario {
        name: "scheduler-idempotent",
        what: "the same: one caller, 64 idempotent jobs in flight",
        jobs_per_turn: 64,
        make: || Box::new(scheduler::Rounds::idempotent(64)),
    },
    Scenario {
        name: "path-1x1",
        what: "a legacy caller's job from its bytes to its answer's, everything but sockets, tasks and SSH: one caller, one job in flight",
        jobs_per_turn: 1,
        make: || Box::new(path::Path::new(1, 1)),
    },
    Scenario {
        name: "path-1x64",
        what: "the same: one caller, 64 jobs in flight",
        jobs_per_turn: 64,
        make: || Box::new(path::Path::new(1, 64)),
    },
    Scenario {
        name: "path-256x1",
        what: "the same: 256 callers, one job each",
        jobs_per_turn: 256,
        make: || Box::new(path::Path::new(256, 1)),
    },
    Scenario {
        name: "feed-1x64",
        what: "of path-1x64 what is not the gateway's: the caller that makes the jobs, and the machine that answers",
        jobs_per_turn: 64,
        make: || Box::new(messages::Feed::new(1, 64)),
    },
    Scenario {
        name: "feed-256x1",
        what: "the same of path-256x1",
        jobs_per_turn: 256,
        make: || Box::new(messages::Feed::new(256, 1)),
    },
];

/// A scenario by its name.
pub fn scenario(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_does_its_work_turn_after_turn() {
        for scenario in SCENARIOS {
            let mut work = (scenario.make)();
            for _ in 0..100 {
                work.turn();
            }
            assert!(scenario.jobs_per_turn > 0, "{}", scenario.name);
        }
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), SCENARIOS.len());
        assert!(scenario("path-1x64").is_some() && scenario("nothing").is_none());
    }
}
