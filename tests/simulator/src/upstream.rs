//! The gateway's way to the machines: simulated tunnels and channels, and what the shell's pumps and keepers would do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use seeway::schedule::{ChannelId, MachineId, SizeClass};
use seeway_proto::mux::Incoming;
use seeway_proto::wire::{Command, Direction, Frame, Framer, decode_command};

use crate::checks::Call;
use crate::ledger::{Number, Stage, number_of};
use crate::pipe::Pipe;
use crate::promise::Promise;
use crate::simulation::{Simulation, Task};

/// A channel of a machine, by its place, and which one it is of those that were in that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkKey {
    /// The machine's place.
    pub machine: usize,
    /// The channel's place.
    pub place: usize,
    /// Counts channels.
    pub life: u64,
}

/// A channel that the scheduler knows, with both of its ends.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) key: LinkKey,
    pub(crate) channel: ChannelId,
    /// The machine's end.
    pub(crate) incoming: Incoming,
    /// What has arrived at the machine and is not decoded.
    machine_input: Vec<u8>,
    /// What has arrived at the gateway and is not decoded.
    gateway_input: Vec<u8>,
    to_machine: Pipe,
    to_gateway: Pipe,
    stalled_until: Instant,
    /// When what is staged there began to be, and with which configuration.
    pub(crate) staged_since: (Instant, u64),
    /// Nothing gets through any more; the gateway may not know yet.
    pub(crate) is_cut: bool,
    pub(crate) is_draining: bool,
    /// Commands that were handed to the network and whose replies the gateway has not taken in, by tag.
    pub(crate) outstanding: BTreeMap<u32, Sent>,
    /// Tags that the machine has not answered.
    pub(crate) unanswered: BTreeSet<u32>,
    /// Finds the replies that the gateway has taken in.
    taken: Framer,
}

/// A command that was handed to the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Job(Number),
    /// A job too small to carry its number.
    NamelessJob,
    Probe,
}

impl Sent {
    pub(crate) fn number(self) -> Option<Number> {
        match self {
            Self::Job(number) => Some(number),
            Self::NamelessJob | Self::Probe => None,
        }
    }
}

/// What was on its way to a machine, or in its hands and not looked at, when the gateway closed the channel.
#[derive(Debug)]
pub(crate) struct Orphan {
    key: LinkKey,
    machine_life: u64,
    incoming: Incoming,
    input: Vec<u8>,
}

impl Simulation {
    /// Opens every channel of a machine.
    pub(crate) fn connect_all(&mut self, machine: usize) {
        for place in 0..self.setup.machines[machine].channels() {
            let delay = self.chance(20 + place as u64).micros(0, 2 * self.setup.latency.1 + 10);
            self.later(self.now + delay, Task::Connect(machine, place));
        }
    }

    /// Opens a channel, if the machine answers; tries again later if not.
    pub(crate) fn connect(&mut self, machine: usize, place: usize) {
        if self.links.contains_key(&(machine, place)) || place >= self.setup.machines[machine].channels() {
            return;
        }
        if self.setup.machines[machine].is_retired {
            // Its keepers end; a reload that brings it back starts them again.
            return;
        }
        let Machine { is_up, is_hung } = self.machine_answers(machine);
        if !is_up || is_hung {
            let backoff = self.chance(21).millis(20, 1_000);
            self.later(self.now + backoff, Task::Connect(machine, place));
            return;
        }
        let class =
            if place < self.setup.machines[machine].small_channels { SizeClass::Small } else { SizeClass::Bulk };
        let channel = self.scheduler.channel_opened(self.now, MachineId(machine), class, &mut self.notes);
        let key = LinkKey { machine, place, life: self.new_life() };
        let link = Link {
            key,
            channel,
            incoming: Incoming::new(self.profile.clone(), self.setup.limits(), usize::MAX),
            machine_input: Vec::new(),
            gateway_input: Vec::new(),
            to_machine: Pipe::default(),
            to_gateway: Pipe::default(),
            stalled_until: self.now,
            staged_since: (self.now, self.epoch),
            is_cut: false,
            is_draining: false,
            outstanding: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            taken: Framer::new(Direction::Replies, self.setup.limits()),
        };
        self.links.insert((machine, place), link);
        self.link_keys.insert(channel, key);
        self.note(|| format!("machine {machine}: channel {place} ({class:?}) is up"));
        self.digest(Call::Other);
        // What was staged while it opened was staged before its writer could be told.
        self.soon(Task::Pump(key));
    }

    pub(crate) fn link(&mut self, key: LinkKey) -> Option<&mut Link> {
        self.links.get_mut(&(key.machine, key.place)).filter(|link| link.key == key)
    }

    /// The channel's writer takes what is staged and hands it to the network.
    pub(crate) fn pump(&mut self, key: LinkKey) {
        let now = self.now;
        let Some(link) = self.link(key) else { return };
        if link.stalled_until > now {
            let at = link.stalled_until;
            self.later(at, Task::Pump(key));
            return;
        }
        let (channel, is_cut) = (link.channel, link.is_cut);
        let Some(batch) = self.scheduler.take_output(now, channel, &mut self.notes) else {
            self.digest(Call::Other);
            return;
        };
        self.commands_leave(key, &batch);
        if !is_cut {
            let (latency, pieces) = (self.setup.latency, self.setup.pieces);
            let mut chance = self.chance(22);
            if let Some(link) = self.link(key) {
                for at in link.to_machine.send(now, &batch, latency, pieces, &mut chance) {
                    self.later(at, Task::ToMachine(key));
                }
            }
        }
        self.digest(Call::Other);
    }

    /// Looks at what is handed to the network: from here on it may run.
    fn commands_leave(&mut self, key: LinkKey, batch: &[u8]) {
        let mut framer = Framer::new(Direction::Commands, self.setup.limits());
        let mut input = batch;
        let (mut jobs, mut last) = (0, 0);
        while let Ok(Some(Frame::Body(body))) = framer.next(&mut input) {
            match decode_command(&self.profile.clone(), body) {
                Ok(Command::SeeJob { tag, job, .. }) => {
                    last = body.len() + 4;
                    jobs += last;
                    let number = number_of(job.0);
                    self.note(|| {
                        let name =
                            number.map_or_else(|| format!("of {} bytes", job.0.len()), |number| number.to_string());
                        format!(
                            "job {name} leaves over channel {} of machine {} with tag {tag:#x}",
                            key.place, key.machine
                        )
                    });
                    let result = self.ledger.left(job.0);
                    self.broken(result);
                    self.put_outstanding(key, tag, number.map_or(Sent::NamelessJob, Sent::Job));
                    self.check_job_leaves(key, number);
                }
                Ok(Command::NoOp { tag }) => {
                    self.note(|| format!("a probe leaves over channel {} of machine {}", key.place, key.machine));
                    self.put_outstanding(key, tag, Sent::Probe);
                }
                _ => self.fail(Promise::Contract, "what left is neither a job nor a NoOp"),
            }
        }
        if !input.is_empty() {
            self.fail(Promise::Contract, format!("{} bytes left that are no whole command", input.len()));
        }
        // What is staged may exceed the limit by the last job.
        if jobs - last >= self.most.channel_buffer.max(1) {
            let what = format!("{} bytes were staged on a channel before the last job", jobs - last);
            self.fail(Promise::Limits, what);
        }
    }

    fn put_outstanding(&mut self, key: LinkKey, tag: u32, sent: Sent) {
        if let Some(link) = self.link(key)
            && link.outstanding.insert(tag, sent).is_some()
        {
            self.fail(Promise::RightReply, format!("tag {tag:#x} is used again before it was answered"));
        }
    }

    pub(crate) fn arrive_at_machine(&mut self, key: LinkKey) {
        let now = self.now;
        let Some(link) = self.link(key) else { return };
        if let Some(piece) = link.to_machine.arrived(now) {
            link.machine_input.extend(piece);
            self.read_at_machine(key);
        }
    }

    /// The machine decodes what has arrived, unless it hangs.
    pub(crate) fn read_at_machine(&mut self, key: LinkKey) {
        let Machine { is_up, is_hung } = self.machine_answers(key.machine);
        let Some(link) = self.link(key) else { return };
        if !is_up || is_hung {
            return;
        }
        let received = std::mem::take(&mut link.machine_input);
        let mut input = &received[..];
        let (mut jobs, mut probes) = (Vec::new(), Vec::new());
        let result = loop {
            match link.incoming.next(&mut input) {
                Ok(Some(Command::SeeJob { tag, job, .. })) => jobs.push((tag, job.0.to_vec())),
                Ok(Some(Command::NoOp { tag })) => probes.push(tag),
                Ok(Some(Command::GetPublishedObject { .. })) => break Err("an object is asked of a machine".to_owned()),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            }
        };
        link.machine_input = input.to_vec();
        link.unanswered.extend(jobs.iter().map(|(tag, _)| *tag));
        if let Err(what) = result {
            self.fail(Promise::Contract, format!("a machine can not follow its channel: {what}"));
        }
        for tag in probes {
            if let Some(link) = self.link(key) {
                link.incoming.answer_no_op(tag);
                self.flush_machine(key);
            }
        }
        for (tag, job) in jobs {
            self.take_job(key, tag, job);
        }
    }

    /// Sends what the machine's end has written.
    pub(crate) fn flush_machine(&mut self, key: LinkKey) {
        if let Some(bytes) = self.take_machine_output(key) {
            self.send_to_gateway(key, &bytes);
        }
    }

    pub(crate) fn take_machine_output(&mut self, key: LinkKey) -> Option<Vec<u8>> {
        let link = self.link(key)?;
        let mut output = seeway_proto::wiped::WipedBuffer::new();
        link.incoming.swap_output(&mut output);
        Some(output.filled().to_vec())
    }

    pub(crate) fn send_to_gateway(&mut self, key: LinkKey, bytes: &[u8]) {
        let (now, latency, pieces) = (self.now, self.setup.latency, self.setup.pieces);
        let mut chance = self.chance(23);
        let Some(link) = self.link(key) else { return };
        if !link.is_cut {
            for at in link.to_gateway.send(now, bytes, latency, pieces, &mut chance) {
                self.later(at, Task::ToGateway(key));
            }
        }
    }

    pub(crate) fn arrive_at_gateway(&mut self, key: LinkKey) {
        let now = self.now;
        let Some(link) = self.link(key) else { return };
        let Some(piece) = link.to_gateway.arrived(now) else { return };
        link.gateway_input.extend(piece);
        let (received, channel) = (std::mem::take(&mut link.gateway_input), link.channel);
        let mut input = &received[..];
        let result = self.scheduler.receive(now, channel, &mut input, &mut self.notes);
        if result.is_ok() {
            self.replies_are_taken(key, &received);
            let rest = input.to_vec();
            if !rest.is_empty() && self.scheduler.missing(channel, &rest) == 0 {
                self.fail(Promise::Contract, "nothing is missing, and yet a message is not taken");
            }
            if let Some(link) = self.link(key) {
                link.gateway_input = rest;
            }
        }
        if result.is_err() {
            self.nothing_is_outstanding(key);
        }
        self.digest(Call::Other);
        if let Err(broken) = result {
            self.note(|| format!("machine {}: channel {}: {broken}", key.machine, key.place));
            self.close_link(key, "is closed, the machine broke the protocol");
        }
    }

    /// Forgets the tags whose replies the gateway has taken in.
    fn replies_are_taken(&mut self, key: LinkKey, received: &[u8]) {
        let Some(link) = self.link(key) else { return };
        let mut input = received;
        let (mut came_back, mut nameless) = (Vec::new(), 0);
        while let Ok(Some(frame)) = link.taken.next(&mut input) {
            let tag = match frame {
                Frame::Body(body) => body.first_chunk().map_or(0, |tag| u32::from_le_bytes(*tag)),
                Frame::TooLong { tag, .. } => tag,
            };
            match link.outstanding.remove(&tag) {
                Some(Sent::Job(number)) => came_back.push(number),
                Some(Sent::NamelessJob) => nameless += 1,
                Some(Sent::Probe) | None => {}
            }
        }
        self.ledger.nameless_came_back += nameless;
        self.ledger.came_back(self.now, &came_back);
    }

    /// No reply will be taken in any more.
    fn nothing_is_outstanding(&mut self, key: LinkKey) {
        let Some(link) = self.link(key) else { return };
        let lost: Vec<_> = std::mem::take(&mut link.outstanding).into_values().filter_map(Sent::number).collect();
        self.ledger.came_back(self.now, &lost);
    }

    /// The network to a channel is cut between any two bytes of what travels.
    pub(crate) fn cut_link(&mut self, key: LinkKey, notice: Duration) {
        let now = self.now;
        let mut chance = self.chance(24 + key.place as u64);
        let Some(link) = self.link(key).filter(|link| !link.is_cut) else { return };
        link.is_cut = true;
        link.to_machine.cut(&mut chance);
        link.to_gateway.cut(&mut chance);
        // Replies that came before are delivered first.
        let at = link.to_gateway.last_arrival(now).max(now + notice);
        self.later(at, Task::LossNoticed(key));
    }

    /// The gateway closes a channel, whyever, and opens another one when it can.
    pub(crate) fn close_link(&mut self, key: LinkKey, why: &str) {
        if self.link(key).is_none() {
            return;
        }
        let Some(link) = self.links.remove(&(key.machine, key.place)) else { return };
        let channel = link.channel;
        self.link_keys.remove(&channel);
        let lost: Vec<_> = link.outstanding.values().filter_map(|sent| sent.number()).collect();
        self.ledger.came_back(self.now, &lost);
        self.orphan(link);
        self.note(|| format!("machine {}: channel {} {why}", key.machine, key.place));
        self.scheduler.channel_closed(self.now, channel, &mut self.notes);
        self.digest(Call::Other);
        let backoff = self.chance(25).millis(1, 500);
        if self.are_channels_for_good_closed {
            return;
        }
        self.later(self.now + backoff, Task::Connect(key.machine, key.place));
    }

    /// What had left before a channel was closed may arrive and run all the same.
    fn orphan(&mut self, mut link: Link) {
        let mut chance = self.chance(27);
        if !link.is_cut && chance.percent(50) {
            link.to_machine.cut(&mut chance);
        }
        let mut input = std::mem::take(&mut link.machine_input);
        while let Some(piece) = link.to_machine.arrived(self.now + Duration::from_secs(3600)) {
            input.extend(piece);
        }
        if !input.is_empty() {
            let machine_life = self.machines[link.key.machine].life;
            let orphan = Orphan { key: link.key, machine_life, incoming: link.incoming, input };
            let at = self.now + chance.micros(self.setup.latency.0, self.setup.latency.1);
            self.later(at, Task::Orphan(Box::new(orphan)));
        }
    }

    /// A machine reads what had left before its channel was closed. It can answer to nobody.
    pub(crate) fn read_orphan(&mut self, mut orphan: Orphan) {
        let machine = &self.machines[orphan.key.machine];
        if machine.life != orphan.machine_life {
            return;
        }
        if let Some(until) = machine.hung_until.filter(|until| *until > self.now) {
            self.later(until, Task::Orphan(Box::new(orphan)));
            return;
        }
        let mut input = &orphan.input[..];
        let mut jobs = Vec::new();
        while let Ok(Some(command)) = orphan.incoming.next(&mut input) {
            if let Command::SeeJob { tag, job, .. } = command {
                jobs.push((tag, job.0.to_vec()));
            }
        }
        for (tag, job) in jobs {
            self.take_job(orphan.key, tag, job);
        }
    }

    pub(crate) fn stall_link(&mut self, machine: usize, place: usize, duration: Duration) {
        let until = self.now + duration;
        if let Some(link) = self.links.get_mut(&(machine, place)) {
            link.stalled_until = link.stalled_until.max(until);
            self.note(|| format!("machine {machine}: channel {place} takes no bytes for {duration:?}"));
        }
    }

    pub(crate) fn end_stalls(&mut self) {
        let now = self.now;
        let keys: Vec<_> = self.links.values().map(|link| link.key).collect();
        for key in keys {
            if let Some(link) = self.link(key).filter(|link| link.stalled_until > now) {
                link.stalled_until = now;
                self.soon(Task::Pump(key));
            }
        }
    }

    /// The keeper drains a channel, and closes it when nobody waits for a job on it, or loses it meanwhile.
    pub(crate) fn drain_link(&mut self, machine: usize, place: usize) {
        let Some(link) = self.links.get_mut(&(machine, place)).filter(|link| !link.is_draining) else { return };
        link.is_draining = true;
        let (key, channel) = (link.key, link.channel);
        self.note(|| format!("machine {machine}: channel {place} is drained"));
        self.scheduler.drain_channel(self.now, channel, &mut self.notes);
        self.digest(Call::Other);
        let patience = self.chance(26).millis(0, 3_000);
        self.later(self.now, Task::DrainCheck(key, self.now + patience));
    }

    pub(crate) fn check_drain(&mut self, key: LinkKey, end: Instant) {
        let now = self.now;
        let Some(link) = self.link(key) else { return };
        let channel = link.channel;
        let sent: Vec<_> = link.outstanding.values().filter_map(|sent| sent.number()).collect();
        let wanted = sent.into_iter().find(|number| self.ledger.job(*number).stage == Stage::InHand);
        let is_done = !self.scheduler.has_wanted_jobs(channel);
        if is_done && let Some(number) = wanted {
            self.fail(
                Promise::Drain,
                format!("nobody is said to wait for a job on a channel, and job {number} has no outcome"),
            );
        }
        if is_done || now >= end {
            self.close_link(
                key,
                if is_done { "was drained and nobody waits for it: closed" } else { "was lost while it was drained" },
            );
        } else {
            self.later(now + Duration::from_millis(20), Task::DrainCheck(key, end));
        }
    }

    fn machine_answers(&self, machine: usize) -> Machine {
        let machine = &self.machines[machine];
        Machine { is_up: machine.is_up, is_hung: machine.hung_until.is_some_and(|until| until > self.now) }
    }
}

/// Whether a machine can be talked to.
struct Machine {
    is_up: bool,
    is_hung: bool,
}
