//! Simulated callers, and what the shell's listeners would do for them.
//!
//! A legacy caller writes real bytes on a simulated socket; the gateway's end of it is the real answering end of the mux, used
//! as the hardserver listener uses it. A gRPC caller hands its jobs to the scheduler directly, as its listener does.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use seeway::schedule::{CallerId, FrontEnd, NewJob, Priority, WorldId};
use seeway_proto::mux::Incoming;
use seeway_proto::outcome::{Outcome, Rejected};
use seeway_proto::wiped::WipedBuffer;
use seeway_proto::wire::{Command, Direction, Framer};

use crate::checks::Call;
use crate::ledger::{CallerKey, NAMED_FROM, Number, Stage, job_bytes, number_of};
use crate::legacy::Question;
use crate::pipe::Pipe;
use crate::promise::Promise;
use crate::simulation::{Simulation, Task};
use crate::story::CallerKind;

/// The first handle that a connection is given.
pub(crate) const FIRST_HANDLE: u32 = 0x5ee0_0001;

/// Somebody in a caller's slot.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) key: CallerKey,
    pub(crate) id: CallerId,
    pub(crate) side: Side,
}

/// How it asks.
#[derive(Debug)]
pub(crate) enum Side {
    Legacy(Box<Legacy>),
    Stream(Stream),
    Unary,
}

/// A gRPC stream.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Jobs that wait for room.
    pub(crate) waiting: VecDeque<Number>,
}

/// Both ends of a legacy caller's connection.
#[derive(Debug)]
pub(crate) struct Legacy {
    // The gateway's end, as in the listener.
    pub(crate) incoming: Incoming,
    partial: Vec<u8>,
    is_paused: bool,
    is_writing: bool,
    handles: Vec<usize>,
    // Between them.
    pub(crate) to_gateway: Pipe,
    pub(crate) to_caller: Pipe,
    // The caller's end.
    pub(crate) input: Vec<u8>,
    pub(crate) framer: Framer,
    /// What it waits for, by tag, in the order of asking.
    pub(crate) questions: BTreeMap<u32, Vec<Question>>,
    pub(crate) asked_for: Vec<usize>,
    pub(crate) next_tag: u32,
    pub(crate) not_reading_until: Instant,
    /// Jobs without a number of their own, in the order in which they were written, by size.
    pub(crate) nameless: VecDeque<Number>,
}

impl Simulation {
    pub(crate) fn join(&mut self, slot: usize, kind: CallerKind) {
        if self.callers[slot].is_some() {
            return;
        }
        let id = self.scheduler.caller_joined(FrontEnd::Hardserver);
        let key = CallerKey { slot, life: self.new_life() };
        let side = match kind {
            CallerKind::Legacy => Side::Legacy(Box::new(Legacy {
                incoming: Incoming::new(self.profile.clone(), self.setup.limits(), self.setup.caller_jobs),
                partial: Vec::new(),
                is_paused: false,
                is_writing: false,
                handles: Vec::new(),
                to_gateway: Pipe::default(),
                to_caller: Pipe::default(),
                input: Vec::new(),
                framer: Framer::new(Direction::Replies, self.setup.limits()),
                questions: BTreeMap::new(),
                asked_for: Vec::new(),
                next_tag: 0,
                not_reading_until: self.now,
                nameless: VecDeque::new(),
            })),
            CallerKind::Stream => Side::Stream(Stream::default()),
            CallerKind::Unary => Side::Unary,
        };
        self.note(|| format!("caller {slot} comes ({kind:?})"));
        self.caller_keys.insert(id, key);
        self.callers[slot] = Some(Caller { key, id, side });
    }

    pub(crate) fn leave(&mut self, slot: usize, why: &str) {
        let Some(caller) = self.callers[slot].take() else { return };
        self.note(|| format!("caller {slot} {why}"));
        self.caller_keys.remove(&caller.id);
        let in_hand = self.take_tickets(|(id, _), _| *id == caller.id);
        let theirs: Vec<_> =
            self.ledger.jobs.iter().filter(|(_, job)| job.caller == caller.key).map(|(number, _)| *number).collect();
        for number in theirs {
            self.ledger.released(number);
        }
        self.scheduler.caller_left(self.now, caller.id, &mut self.notes);
        self.digest(Call::Other);
        self.check_abandoned(&in_hand);
    }

    fn take_tickets(
        &mut self,
        is_meant: impl Fn(&(CallerId, u64), &Number) -> bool,
    ) -> BTreeMap<(CallerId, u64), Number> {
        let all = std::mem::take(&mut self.tickets).into_iter();
        let (taken, kept) = all.partition(|(name, number)| is_meant(name, number));
        self.tickets = kept;
        taken
    }

    /// Each of these jobs was in hand and is wanted no more: that is told once, and honestly.
    fn check_abandoned(&mut self, in_hand: &BTreeMap<(CallerId, u64), Number>) {
        let told = std::mem::take(&mut self.notes.abandoned);
        if !told.keys().eq(in_hand.keys()) {
            let what = format!("of {} jobs that were given up {} were told", in_hand.len(), told.len());
            self.fail(Promise::Contract, what);
        }
        for (name, may_have_run) in told {
            let job = in_hand.get(&name).map(|number| (*number, self.ledger.job(*number)));
            if let Some((number, job)) = job
                && job.size >= NAMED_FROM
                && may_have_run != (job.left > 0)
            {
                let what =
                    format!("job {number} left {} times and was given up as may_have_run={may_have_run}", job.left);
                self.fail(Promise::Honest, what);
            }
        }
    }

    pub(crate) fn caller(&mut self, key: CallerKey) -> Option<&mut Caller> {
        self.callers[key.slot].as_mut().filter(|caller| caller.key == key)
    }

    pub(crate) fn legacy(&mut self, key: CallerKey) -> Option<&mut Legacy> {
        match &mut self.caller(key)?.side {
            Side::Legacy(legacy) => Some(legacy),
            _ => None,
        }
    }

    /// Hands a job to the scheduler.
    fn submit(&mut self, key: CallerKey, ticket: u64, number: Number) {
        let Some(id) = self.caller(key).map(|caller| caller.id) else { return };
        let job = self.ledger.job(number).clone();
        let deadline = match job.patience {
            Some(patience) => self.now + patience,
            None => self.now.checked_sub(Duration::from_secs(1)).unwrap_or(self.now),
        };
        self.ledger.submitted(number, id, self.now, deadline);
        self.tickets.insert((id, ticket), number);
        self.note(|| format!("caller {} submits job {number}", key.slot));
        let bytes = job_bytes(number, job.size);
        let affinity_key = if job.key == 0 { Vec::new() } else { vec![b'k', job.key] };
        let new = NewJob {
            ticket,
            world: WorldId(job.world),
            bytes: &bytes,
            deadline,
            idempotent: job.idempotent,
            priority: job.priority,
            affinity_key: &affinity_key,
        };
        let admitted = self.scheduler.submit(self.now, id, new, &mut self.notes);
        if let Some(job) = self.ledger.jobs.get_mut(&number) {
            job.id = admitted;
        }
        self.digest(Call::Submit(number));
        let is_ended = self.ledger.job(number).stage == Stage::Ended;
        if is_ended == admitted.is_some() {
            self.fail(
                Promise::Contract,
                format!("job {number} was admitted: {}, told: {is_ended}", admitted.is_some()),
            );
        }
    }

    /// A gRPC caller asks for jobs.
    pub(crate) fn ask_directly(&mut self, key: CallerKey, number: Number) {
        let Some(caller) = self.caller(key) else { return };
        match &mut caller.side {
            Side::Stream(stream) => {
                stream.waiting.push_back(number);
                if stream.waiting.len() == 1 {
                    self.resume_stream(key);
                }
            }
            Side::Unary => self.submit(key, number.into(), number),
            Side::Legacy(_) => {}
        }
    }

    /// A stream hands over what waits, as far as there is room.
    pub(crate) fn resume_stream(&mut self, key: CallerKey) {
        while !self.is_over() {
            let Some(Caller { id, side: Side::Stream(stream), .. }) = self.caller(key) else { return };
            let id = *id;
            let Some(number) = stream.waiting.front().copied() else { return };
            if !self.scheduler.has_room(id) {
                return;
            }
            if let Some(Caller { side: Side::Stream(stream), .. }) = self.caller(key) {
                stream.waiting.pop_front();
            }
            self.submit(key, number.into(), number);
        }
    }

    pub(crate) fn cancel(&mut self, number: Number) {
        let Some(job) = self.ledger.jobs.get(&number) else { return };
        let (key, id, stage) = (job.caller, job.id, job.stage);
        match self.caller(key).map(|caller| &mut caller.side) {
            Some(Side::Stream(stream)) => stream.waiting.retain(|waiting| *waiting != number),
            Some(Side::Unary) => {}
            // A legacy caller can not cancel.
            Some(Side::Legacy(_)) | None => return,
        }
        // One that has ended is cancelled too, now and then: nothing must come of it.
        let Some(id) = id else { return };
        self.note(|| format!("caller {} cancels job {number}", key.slot));
        let mut in_hand = BTreeMap::new();
        if stage == Stage::InHand {
            self.ledger.released(number);
            in_hand = self.take_tickets(|_, other| *other == number);
        }
        self.scheduler.cancel(self.now, id, &mut self.notes);
        self.digest(Call::Other);
        self.check_abandoned(&in_hand);
    }

    // The listener.

    pub(crate) fn arrive_from_caller(&mut self, key: CallerKey) {
        let now = self.now;
        let Some(legacy) = self.legacy(key) else { return };
        if let Some(piece) = legacy.to_gateway.arrived(now) {
            legacy.partial.extend(piece);
            if !legacy.is_paused {
                self.decode(key);
            }
        }
    }

    /// Hands every whole command to the scheduler, as far as there is room.
    pub(crate) fn decode(&mut self, key: CallerKey) {
        let Some(legacy) = self.legacy(key) else { return };
        let received = std::mem::take(&mut legacy.partial);
        legacy.is_paused = false;
        let mut input = &received[..];
        while !self.must_pause(key) && !self.is_over() {
            let Some(legacy) = self.legacy(key) else { return };
            match legacy.incoming.next(&mut input) {
                Ok(None) => break,
                Ok(Some(Command::SeeJob { tag, world, job })) => self.take_in(key, tag, world, job.0),
                Ok(Some(Command::NoOp { tag })) => legacy.incoming.answer_no_op(tag),
                Ok(Some(Command::GetPublishedObject { tag, name })) => {
                    let world = name.strip_prefix("world-").and_then(|place| place.parse().ok());
                    let world = world.filter(|place| *place < self.setup.worlds.len());
                    let unknown = self.profile.statuses.unknown_id;
                    let Some(legacy) = self.legacy(key) else { return };
                    if let Some(world) = world {
                        let handle = legacy.handle_of(world);
                        legacy.incoming.answer_object(tag, handle);
                    } else {
                        legacy.incoming.answer_error(tag, unknown, Some("no such world"));
                    }
                }
                Err(error) => {
                    self.leave(key.slot, &format!("is cut off: {error}"));
                    return;
                }
            }
        }
        let rest = input.to_vec();
        if let Some(legacy) = self.legacy(key) {
            legacy.partial = rest;
        }
        self.look_at_answers(key);
    }

    fn take_in(&mut self, key: CallerKey, tag: u32, handle: u32, job: &[u8]) {
        let Some(legacy) = self.legacy(key) else { return };
        let number = number_of(job).or_else(|| {
            // Jobs come in the order in which they were written; this one carries no number.
            let place = legacy.nameless_of(tag)?;
            legacy.nameless.remove(place)
        });
        let world = legacy.world_of(handle);
        let Some(world) = world else {
            let outcome = Outcome::Rejected(Rejected::NoSuchWorld);
            let profile = self.profile.clone();
            if let Some(legacy) = self.legacy(key) {
                legacy.incoming.answer_error(tag, outcome.status(&profile), outcome.errorinfo());
            }
            return;
        };
        let Some(number) = number else {
            self.fail(Promise::RightReply, "a job came out of a caller's stream that did not go in");
            return;
        };
        let (is_right, size) = self.ledger.jobs.get(&number).map_or((false, 0), |asked| {
            (asked.world == world && job_bytes(number, asked.size) == job && asked.caller == key, asked.size)
        });
        if !is_right {
            self.fail(Promise::RightReply, format!("job {number} of {size} bytes came out changed"));
            return;
        }
        let idempotent = self.setup.worlds[world].idempotent;
        if let Some(asked) = self.ledger.jobs.get_mut(&number) {
            (asked.idempotent, asked.priority) = (idempotent, Priority::Normal);
        }
        self.submit(key, tag.into(), number);
    }

    /// A caller that asks faster than it reads its answers, or that has as much in hand as it may, is not read from.
    fn must_pause(&mut self, key: CallerKey) -> bool {
        let caller_buffer = self.setup.caller_buffer;
        let Some(Caller { id, side: Side::Legacy(legacy), .. }) = self.caller(key) else { return true };
        let id = *id;
        let is_full = !legacy.incoming.has_room() || legacy.incoming.output_len() >= caller_buffer;
        let must_pause = is_full || !self.scheduler.has_room(id);
        if must_pause && let Some(legacy) = self.legacy(key) {
            legacy.is_paused = true;
        }
        must_pause
    }

    /// A reader that was paused looks again, and what was answered is written.
    pub(crate) fn look_at_answers(&mut self, key: CallerKey) {
        let Some(legacy) = self.legacy(key) else { return };
        if legacy.incoming.output_len() > 0 && !legacy.is_writing {
            legacy.is_writing = true;
            self.soon(Task::WriteAnswers(key));
        }
    }

    pub(crate) fn wake_reader(&mut self, key: CallerKey) {
        if self.legacy(key).is_some_and(|legacy| legacy.is_paused) {
            self.soon(Task::Decode(key));
        }
    }

    pub(crate) fn write_answers(&mut self, key: CallerKey) {
        let (now, latency, pieces) = (self.now, self.setup.latency, self.setup.pieces);
        let mut chance = self.chance(40);
        let Some(legacy) = self.legacy(key) else { return };
        if legacy.not_reading_until > now {
            let at = legacy.not_reading_until;
            self.later(at, Task::WriteAnswers(key));
            return;
        }
        legacy.is_writing = false;
        let mut output = WipedBuffer::new();
        legacy.incoming.swap_output(&mut output);
        for at in legacy.to_caller.send(now, output.filled(), latency, pieces, &mut chance) {
            self.later(at, Task::ToCaller(key));
        }
        self.wake_reader(key);
    }
}

impl Legacy {
    fn handle_of(&mut self, world: usize) -> u32 {
        let place = self.handles.iter().position(|other| *other == world).unwrap_or_else(|| {
            self.handles.push(world);
            self.handles.len() - 1
        });
        FIRST_HANDLE + u32::try_from(place).expect("few")
    }

    fn world_of(&self, handle: u32) -> Option<usize> {
        self.handles.get(usize::try_from(handle.checked_sub(FIRST_HANDLE)?).ok()?).copied()
    }

    /// The place among the nameless of the one that was written with this tag.
    fn nameless_of(&self, tag: u32) -> Option<usize> {
        let asked = self.questions.get(&tag)?;
        self.nameless.iter().position(|number| asked.iter().any(|question| question.number() == Some(*number)))
    }

    /// Whether a job of this size has to be looked up by its tag.
    pub(crate) fn is_nameless(size: usize) -> bool {
        size < NAMED_FROM
    }
}
