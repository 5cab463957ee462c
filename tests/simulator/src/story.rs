//! What happens in a simulation, drawn beforehand: who comes, asks, leaves; what fails, and when.
//!
//! A story is a list of events with absolute times. Each stands for itself: it names callers by slot, channels by place and
//! jobs by the event that submitted them, and does nothing where what it names is not there. So any part of a story is a story.

use std::fmt;
use std::time::Duration;

use seeway::schedule::Priority;

use crate::draw::Chance;
use crate::setup::{Mood, Setup};

/// Slots for callers.
pub const CALLER_SLOTS: usize = 8;

/// Jobs that one event submits at most.
pub const MOST_AT_ONCE: usize = 64;

/// Something that happens by itself.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its place in the story as it was drawn, which it keeps when others are left out.
    pub number: u32,
    /// When, since the story's beginning.
    pub at: Duration,
    /// What.
    pub act: Act,
}

/// How a caller asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerKind {
    /// The wire, through the real answering end of the mux.
    Legacy,
    /// A gRPC stream: asks whether there is room before each job.
    Stream,
    /// Unary gRPC calls: never asks whether there is room.
    Unary,
}

/// A job as it was drawn.
#[derive(Clone, Copy, Debug)]
pub struct JobSpec {
    /// Its world, by place.
    pub world: usize,
    /// Its bytes.
    pub size: usize,
    /// How much of a saturated world it gets; legacy callers have no say.
    pub priority: Priority,
    /// Its affinity key; 0 for none. Legacy callers have none.
    pub key: u8,
    /// How long its caller waits; `None`: its deadline has passed already. Legacy callers wait for the default.
    pub patience: Option<Duration>,
    /// Whether it may be sent again; for legacy callers the world says.
    pub idempotent: bool,
}

/// What a legacy caller may do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// The tag of a job that is not answered yet.
    TagInUse,
    /// A handle that it was not given.
    UnknownHandle,
    /// A job one byte larger than the limit.
    TooLarge,
    /// A message that is larger than any may be, and is dropped as it comes.
    TooLong,
    /// A command that nobody knows.
    UnknownCommand,
    /// Flags that are not 0.
    FlagsSet,
    /// Fields that do not add up.
    Malformed,
    /// A length that can not be: the connection ends.
    BadLength,
    /// A message that ends in the middle, and the connection with it.
    HalfAMessage,
}

/// What a machine or its network may do wrong with a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadReply {
    /// The same reply again, at once.
    Twice,
    /// The same reply again, long after.
    TwiceLate,
    /// A tag that was never asked.
    StrayTag,
    /// The tag of an outstanding command in an earlier or later use of its place.
    OtherUse,
    /// A length that can not be.
    BadLength,
    /// A body that does not parse.
    Garbage,
    /// A reply to another kind of command.
    WrongKind,
    /// A reply that is larger than the limit.
    TooLarge,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// A caller comes.
    Join(usize, CallerKind),
    /// A caller goes away without a word.
    Leave(usize),
    /// A caller submits so many jobs at once.
    Submit(usize, usize, JobSpec),
    /// A caller no longer wants a job that another event submitted.
    Cancel(u32, usize),
    /// A legacy caller asks for nothing in particular.
    NoOp(usize),
    /// A legacy caller does something wrong.
    Blunder(usize, Mistake, JobSpec),
    /// A legacy caller does not read its answers for so long.
    StopReading(usize, Duration),
    /// The network to a machine is cut, in the middle of what travels; the gateway notices so much later.
    CutTunnel(usize, Duration),
    /// A machine closes one of its channels.
    CloseChannel(usize, usize),
    /// A channel takes no bytes for so long.
    StallChannel(usize, usize, Duration),
    /// A machine dies with all that it holds; the gateway notices so much later.
    Die(usize, Duration),
    /// A dead machine comes back.
    Revive(usize),
    /// A machine does nothing for so long, and then goes on.
    Hang(usize, Duration),
    /// A machine takes so many times as long for each job, for so long.
    Slow(usize, u32, Duration),
    /// A machine answers everything with SEEWorldFailed for so long.
    Fail(usize, Duration),
    /// Something is wrong with a machine's next reply.
    Spoil(usize, BadReply),
    /// The configuration is changed.
    Reload,
    /// The gateway takes no job any more, or does again.
    DrainGateway(bool),
    /// What has not left is given up, as at a drain's end.
    AbortUnsent,
    /// A machine takes no job any more, or does again.
    DrainMachine(usize, bool),
    /// A channel takes no job any more, and is closed when it is idle.
    DrainChannel(usize, usize),
    /// The clock is suddenly so much later.
    ClockJump(Duration),
}

/// A drawn story.
#[derive(Clone, Debug)]
pub struct Story {
    /// By time.
    pub events: Vec<Event>,
}

impl Story {
    /// What this setup's seed draws.
    pub fn drawn(setup: &Setup) -> Self {
        let mut chance = Chance::of(&[setup.seed, 2]);
        let acts = match setup.mood {
            Mood::Chaos => chaos(setup, &mut chance),
            Mood::Calm => calm(setup, &mut chance),
            Mood::Saturated => saturated(setup, &mut chance),
        };
        let mut events: Vec<_> = acts.into_iter().map(|(at, act)| Event { number: 0, at, act }).collect();
        events.sort_by_key(|event| event.at);
        for (number, event) in (0..).zip(&mut events) {
            event.number = number;
        }
        Self { events }
    }

    /// When its last event happens.
    pub fn end(&self) -> Duration {
        self.events.last().map_or(Duration::ZERO, |event| event.at)
    }
}

fn caller_kind(chance: &mut Chance) -> CallerKind {
    chance.pick(&[CallerKind::Legacy, CallerKind::Legacy, CallerKind::Stream, CallerKind::Unary])
}

fn size(setup: &Setup, chance: &mut Chance) -> usize {
    let most = setup.max_job_bytes;
    match chance.below(40) {
        0 | 1 => chance.count(0, 3),
        2 => most,
        3 => most + 1,
        4..=8 => chance.count(setup.bulk_above, most.max(setup.bulk_above)),
        9 => setup.bulk_above + 1,
        _ => chance.count(4, 90),
    }
}

fn patience(chance: &mut Chance) -> Option<Duration> {
    match chance.below(20) {
        0 => None,
        1 => Some(Duration::ZERO),
        2..=5 => Some(chance.millis(1, 50)),
        6..=11 => Some(chance.millis(50, 3_000)),
        _ => Some(chance.millis(3_000, 60_000)),
    }
}

fn job(setup: &Setup, chance: &mut Chance) -> JobSpec {
    // One in a while is for a world that a reload may have added.
    let worlds = setup.worlds.len() + usize::from(chance.percent(5));
    JobSpec {
        world: chance.place(worlds),
        size: size(setup, chance),
        priority: chance.pick(&[Priority::High, Priority::Normal, Priority::Normal, Priority::Low]),
        key: if chance.percent(40) { u8::try_from(chance.between(1, 3)).expect("small") } else { 0 },
        patience: patience(chance),
        idempotent: chance.percent(40),
    }
}

fn burst(chance: &mut Chance) -> usize {
    match chance.below(10) {
        0..=5 => 1,
        6..=8 => chance.count(2, 6),
        _ => chance.count(7, MOST_AT_ONCE),
    }
}

fn chaos(setup: &Setup, chance: &mut Chance) -> Vec<(Duration, Act)> {
    let count = chance.pick(&[20, 60, 120, 250]);
    // From a story of milliseconds, in which all happens at once, to one of a minute.
    let span = chance.pick(&[20_000, 200_000, 2_000_000, 10_000_000, 60_000_000]);
    let fault_percent = chance.pick(&[2, 10, 25, 50]);
    let mut acts: Vec<(Duration, Act)> =
        (0..CALLER_SLOTS / 2).map(|slot| (Duration::ZERO, Act::Join(slot, caller_kind(chance)))).collect();
    let mut at = Duration::ZERO;
    for _ in 0..count {
        // Now and then several things happen in one instant.
        if !chance.percent(20) {
            at += chance.micros(0, 2 * span / count);
        }
        let act = if chance.percent(fault_percent) {
            fault(setup, chance, span)
        } else {
            ordinary(setup, chance, acts.len())
        };
        acts.push((at, act));
    }
    acts
}

fn ordinary(setup: &Setup, chance: &mut Chance, so_far: usize) -> Act {
    let slot = chance.place(CALLER_SLOTS);
    match chance.below(20) {
        0 | 1 => Act::Join(slot, caller_kind(chance)),
        2 => Act::Leave(slot),
        3 | 4 => {
            let event = u32::try_from(chance.place(so_far)).expect("few");
            Act::Cancel(event, chance.place(4))
        }
        5 => Act::NoOp(slot),
        _ => Act::Submit(slot, burst(chance), job(setup, chance)),
    }
}

fn fault(setup: &Setup, chance: &mut Chance, span: u64) -> Act {
    let slot = chance.place(CALLER_SLOTS);
    let machines = setup.machines.len() + usize::from(chance.percent(5));
    let machine = chance.place(machines);
    let place = chance.place(3);
    let notice = chance.pick(&[0, 0, 1_000, 100_000, 3_000_000]);
    let notice = Duration::from_micros(notice);
    let while_ = chance.micros(0, span / 2);
    match chance.below(36) {
        0..=3 => {
            let mistakes = [
                Mistake::TagInUse,
                Mistake::TagInUse,
                Mistake::UnknownHandle,
                Mistake::TooLarge,
                Mistake::TooLong,
                Mistake::UnknownCommand,
                Mistake::FlagsSet,
                Mistake::Malformed,
                Mistake::BadLength,
                Mistake::HalfAMessage,
            ];
            Act::Blunder(slot, chance.pick(&mistakes), job(setup, chance))
        }
        4 | 5 => Act::StopReading(slot, while_),
        6..=8 => Act::CutTunnel(machine, notice),
        9..=11 => Act::CloseChannel(machine, place),
        12 | 13 => Act::StallChannel(machine, place, while_),
        14 | 15 => Act::Die(machine, notice),
        16 | 17 => Act::Revive(machine),
        18 | 19 => Act::Hang(machine, while_),
        20 => Act::Slow(machine, u32::try_from(chance.between(2, 200)).expect("small"), while_),
        21 => Act::Fail(machine, while_),
        22..=24 => {
            let bad = [
                BadReply::Twice,
                BadReply::TwiceLate,
                BadReply::StrayTag,
                BadReply::OtherUse,
                BadReply::BadLength,
                BadReply::Garbage,
                BadReply::WrongKind,
                BadReply::TooLarge,
            ];
            Act::Spoil(machine, chance.pick(&bad))
        }
        25 | 26 => Act::Reload,
        27 => Act::DrainGateway(chance.percent(30)),
        28 => Act::AbortUnsent,
        29 | 30 => Act::DrainMachine(machine, chance.percent(50)),
        31 | 32 => Act::DrainChannel(machine, place),
        _ => Act::ClockJump(Duration::from_millis(chance.pick(&[10, 500, 10_000, 100_000]))),
    }
}

fn calm(setup: &Setup, chance: &mut Chance) -> Vec<(Duration, Act)> {
    let mut acts: Vec<(Duration, Act)> =
        (0..CALLER_SLOTS / 2).map(|slot| (Duration::ZERO, Act::Join(slot, caller_kind(chance)))).collect();
    let mut at = Duration::from_millis(100);
    for _ in 0..100 {
        at += chance.millis(5, 40);
        let slot = chance.place(CALLER_SLOTS);
        let act = match chance.below(12) {
            0 => Act::Join(slot, caller_kind(chance)),
            1 => Act::Cancel(u32::try_from(chance.place(acts.len())).expect("few"), 0),
            2 => Act::NoOp(slot),
            _ => {
                let spec = job(setup, chance);
                let size = spec.size.min(setup.max_job_bytes);
                let spec = JobSpec { size, world: spec.world % setup.worlds.len(), ..spec };
                Act::Submit(slot, chance.count(1, 4), JobSpec { patience: Some(Duration::from_secs(300)), ..spec })
            }
        };
        acts.push((at, act));
    }
    acts
}

fn saturated(setup: &Setup, chance: &mut Chance) -> Vec<(Duration, Act)> {
    let mut acts = Vec::new();
    let callers = chance.count(2, 5);
    let most = setup.max_job_bytes.min(3_000);
    let priorities = [Priority::High, Priority::Normal, Priority::Low];
    for slot in 0..callers {
        acts.push((Duration::ZERO, Act::Join(slot, CallerKind::Unary)));
        let (priority, largest) = (chance.pick(&priorities), chance.count(10, most));
        // The first comes first, and with the most.
        let bursts = if slot == 0 { 6 } else { chance.count(1, 4) };
        for _ in 0..bursts {
            let spec = JobSpec {
                world: 0,
                size: chance.count(4, largest),
                priority,
                key: 0,
                patience: Some(Duration::from_secs(300)),
                idempotent: false,
            };
            acts.push((chance.millis(50 + slot as u64, 54 + slot as u64), Act::Submit(slot, MOST_AT_ONCE, spec)));
        }
        if chance.percent(30) {
            acts.push((chance.millis(60, 200), Act::Leave(slot)));
        }
    }
    acts
}

impl fmt::Display for JobSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes for world {}, {:?}", self.size, self.world, self.priority)?;
        if self.key != 0 {
            write!(f, ", key {}", self.key)?;
        }
        if self.idempotent {
            write!(f, ", idempotent")?;
        }
        match self.patience {
            Some(patience) => write!(f, ", {patience:?} to live"),
            None => write!(f, ", too late already"),
        }
    }
}
