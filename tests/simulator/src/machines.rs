//! Simulated machines: they run jobs, and fail in every way that a seed draws.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire;

use crate::draw::Chance;
use crate::ledger::{number_of, reply_to};
use crate::simulation::{Simulation, Task};
use crate::story::BadReply;
use crate::upstream::LinkKey;

/// A machine's state.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) is_up: bool,
    /// Counts its lives: what was begun in an earlier one is never finished.
    pub(crate) life: u64,
    pub(crate) hung_until: Option<Instant>,
    pub(crate) slow: Option<(u32, Instant)>,
    pub(crate) failing_until: Option<Instant>,
    running: usize,
    waiting: VecDeque<Run>,
    /// What ended while it hung.
    finished: Vec<Run>,
    pub(crate) spoils: VecDeque<BadReply>,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            is_up: true,
            life: 0,
            hung_until: None,
            slow: None,
            failing_until: None,
            running: 0,
            waiting: VecDeque::new(),
            finished: Vec::new(),
            spoils: VecDeque::new(),
        }
    }
}

/// A job in a machine.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    key: LinkKey,
    tag: u32,
    job: Vec<u8>,
    verdict: Verdict,
    life: u64,
}

/// What a machine makes of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It runs, and here is its reply.
    Replies,
    /// It is answered with SEEWorldFailed, and has run or not.
    Fails(bool),
    /// It runs, and its application answers with a status of its own.
    OwnStatus,
    /// It is refused: nothing runs.
    Refuses,
    /// It runs, and nobody ever hears of it.
    Swallows,
}

impl Simulation {
    fn verdict(&self, machine: usize, job: &[u8]) -> Verdict {
        if self.is_calm {
            return Verdict::Replies;
        }
        let setup = &self.setup.machines[machine];
        let number = number_of(job);
        let attempt = number.map_or(0, |number| u64::from(self.ledger.job(number).left));
        let mut chance = Chance::of(&[self.setup.seed, 30, number.map_or(0, u64::from), attempt, machine as u64]);
        if self.machines[machine].failing_until.is_some_and(|until| until > self.now) {
            return Verdict::Fails(chance.percent(50));
        }
        let refusal = if chance.percent(50) { Verdict::OwnStatus } else { Verdict::Refuses };
        let fails = Verdict::Fails(chance.percent(50));
        if chance.percent(setup.fails) {
            fails
        } else if chance.percent(setup.refuses) {
            refusal
        } else if chance.below(1000) < setup.swallows {
            Verdict::Swallows
        } else {
            Verdict::Replies
        }
    }

    /// A job has arrived at a machine.
    pub(crate) fn take_job(&mut self, key: LinkKey, tag: u32, job: Vec<u8>) {
        let verdict = self.verdict(key.machine, &job);
        let machine = &mut self.machines[key.machine];
        let run = Run { key, tag, job, verdict, life: machine.life };
        if matches!(verdict, Verdict::Refuses | Verdict::Fails(false)) {
            self.answer(&run);
        } else {
            machine.waiting.push_back(run);
            self.run_waiting(key.machine);
        }
    }

    /// A machine's free threads take what waits.
    fn run_waiting(&mut self, place: usize) {
        let now = self.now;
        let threads = self.setup.machines[place].threads;
        loop {
            let machine = &mut self.machines[place];
            let is_hung = machine.hung_until.is_some_and(|until| until > now);
            if !machine.is_up || is_hung || machine.running >= threads {
                return;
            }
            let Some(run) = machine.waiting.pop_front() else { return };
            machine.running += 1;
            let number = number_of(&run.job);
            self.note(|| match number {
                Some(number) => format!("machine {place} runs job {number}"),
                None => format!("machine {place} runs a job of {} bytes", run.job.len()),
            });
            let result = self.ledger.ran(&run.job);
            self.broken(result);
            let (low, high) = self.setup.machines[place].service;
            let factor = self.machines[place].slow.filter(|(_, until)| *until > now).map_or(1, |(factor, _)| factor);
            let took = self.chance(31).micros(low, high) * factor;
            self.later(now + took, Task::Done(place, Box::new(run)));
        }
    }

    /// A machine has finished a job.
    pub(crate) fn finish(&mut self, place: usize, run: Run) {
        let machine = &mut self.machines[place];
        if machine.life != run.life {
            return;
        }
        if machine.hung_until.is_some_and(|until| until > self.now) {
            machine.finished.push(run);
            return;
        }
        machine.running -= 1;
        self.answer(&run);
        self.run_waiting(place);
    }

    fn answer(&mut self, run: &Run) {
        let Run { key, tag, .. } = *run;
        let most = self.setup.max_job_bytes;
        let own_status = 0x0001_0000 + (tag & 0xff);
        let statuses = self.profile.statuses.clone();
        let spoil = self.machines[key.machine].spoils.front().copied();
        let Some(link) = self.link(key) else { return };
        if !link.unanswered.remove(&tag) || run.verdict == Verdict::Swallows {
            return;
        }
        match run.verdict {
            Verdict::Replies => link.incoming.answer_job(tag, &reply_to(&run.job, most)),
            Verdict::Fails(_) => link.incoming.answer_error(tag, statuses.see_world_failed, Some("the world failed")),
            Verdict::OwnStatus => link.incoming.answer_error(tag, own_status, Some("the application says no")),
            Verdict::Refuses => link.incoming.answer_error(tag, statuses.queue_full, None),
            Verdict::Swallows => unreachable!("returned above"),
        }
        let Some(bytes) = self.take_machine_output(key) else { return };
        match spoil {
            // A refused job did not run, so that a reply to it would not be a machine's mistake but a lie.
            Some(bad) if run.verdict == Verdict::Replies => {
                self.machines[key.machine].spoils.pop_front();
                self.send_spoiled(key, tag, bytes, bad);
            }
            _ => self.send_to_gateway(key, &bytes),
        }
    }

    fn send_spoiled(&mut self, key: LinkKey, tag: u32, mut bytes: Vec<u8>, bad: BadReply) {
        self.note(|| format!("machine {} spoils the reply with tag {tag:#x}: {bad:?}", key.machine));
        let mut chance = self.chance(32);
        match bad {
            BadReply::Twice => bytes.extend(bytes.clone()),
            BadReply::TwiceLate => {
                let at = self.now + chance.micros(0, 200_000);
                self.later(at, Task::Echo(key, bytes.clone()));
            }
            BadReply::StrayTag | BadReply::OtherUse => {
                let Some(link) = self.link(key) else { return };
                let stray = loop {
                    let stray = if bad == BadReply::StrayTag {
                        u32::try_from(chance.below(1 << 32)).expect("below 2^32")
                    } else {
                        // The tag's upper bits count how often its place was used.
                        tag ^ (1 << chance.between(17, 31))
                    };
                    if !link.outstanding.contains_key(&stray) {
                        break stray;
                    }
                };
                bytes[4..8].copy_from_slice(&stray.to_le_bytes());
            }
            BadReply::BadLength => bytes[..4].copy_from_slice(&3_u32.to_le_bytes()),
            BadReply::Garbage => bytes[8..12].copy_from_slice(&0x7777_u32.to_le_bytes()),
            BadReply::WrongKind | BadReply::TooLarge => {
                let mut output = WipedBuffer::new();
                if bad == BadReply::WrongKind {
                    wire::reply_no_op(&self.profile, &mut output, tag);
                } else {
                    let size = self.setup.max_job_bytes + chance.count(1, 100);
                    wire::reply_job(&self.profile, &mut output, tag, &vec![7; size]);
                }
                bytes = output.filled().to_vec();
            }
        }
        self.send_to_gateway(key, &bytes);
    }

    pub(crate) fn die(&mut self, place: usize, notice: Duration) {
        let Some(machine) = self.machines.get_mut(place).filter(|machine| machine.is_up) else { return };
        *machine = Machine { is_up: false, life: machine.life + 1, ..Machine::default() };
        self.note(|| format!("machine {place} dies; the gateway notices {notice:?} later"));
        self.cut_all(place, notice);
    }

    /// The network to a machine is cut.
    pub(crate) fn cut_all(&mut self, place: usize, notice: Duration) {
        let keys: Vec<_> = self.links.values().map(|link| link.key).filter(|key| key.machine == place).collect();
        for key in keys {
            self.cut_link(key, notice);
        }
    }

    pub(crate) fn revive(&mut self, place: usize) {
        if let Some(machine) = self.machines.get_mut(place).filter(|machine| !machine.is_up) {
            machine.is_up = true;
            self.note(|| format!("machine {place} is back"));
        }
    }

    pub(crate) fn hang(&mut self, place: usize, duration: Duration) {
        let until = self.now + duration;
        let Some(machine) = self.machines.get_mut(place).filter(|machine| machine.is_up) else { return };
        machine.hung_until = Some(machine.hung_until.map_or(until, |other| other.max(until)));
        self.note(|| format!("machine {place} hangs for {duration:?}"));
        self.later(until, Task::Unhang(place));
    }

    /// A machine that hung goes on where it was.
    pub(crate) fn unhang(&mut self, place: usize) {
        let machine = &mut self.machines[place];
        if machine.hung_until.is_none_or(|until| until > self.now) {
            return;
        }
        machine.hung_until = None;
        let finished = std::mem::take(&mut machine.finished);
        self.note(|| format!("machine {place} goes on"));
        for run in finished {
            self.finish(place, run);
        }
        let keys: Vec<_> = self.links.values().map(|link| link.key).filter(|key| key.machine == place).collect();
        for key in keys {
            self.read_at_machine(key);
        }
        self.run_waiting(place);
    }
}
