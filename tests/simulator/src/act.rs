//! What a story's events do.

use std::time::Duration;

use seeway::schedule::{Affinity, MachineId, Priority};

use crate::checks::Call;
use crate::draw::Chance;
use crate::ledger::{CallerKey, Job, NAMED_FROM, Number, Stage};
use crate::setup::{MachineSetup, Mood, Setup, WorldSetup};
use crate::simulation::Simulation;
use crate::story::{Act, Event, JobSpec, MOST_AT_ONCE};

/// More machines and worlds than this are not added.
const MOST_ADDED: usize = 6;

impl Simulation {
    pub(crate) fn act(&mut self, event: &Event) {
        match event.act {
            Act::Join(slot, kind) => self.join(slot, kind),
            Act::Leave(slot) => self.leave(slot, "goes away"),
            Act::Submit(slot, count, spec) => self.ask(event.number, slot, count, &spec),
            Act::Cancel(event, place) => {
                let count = u32::try_from(place).unwrap_or(0);
                self.cancel(first_number(event) + count);
            }
            Act::NoOp(slot) => {
                if let Some(key) = self.key_in(slot) {
                    self.ask_no_op(key);
                }
            }
            Act::Blunder(slot, mistake, mut spec) => {
                let Some(key) = self.key_in(slot).filter(|key| self.legacy(*key).is_some()) else { return };
                if mistake == crate::story::Mistake::TooLarge {
                    spec.size = self.setup.max_job_bytes + 1;
                }
                spec.world %= self.setup.worlds.len();
                let number = first_number(event.number);
                self.write_job(key, number, &spec, false);
                self.note(|| format!("caller {slot} blunders: {mistake:?} (job {number})"));
                self.blunder(key, mistake, number);
            }
            Act::StopReading(slot, duration) => {
                let until = self.now + duration;
                if let Some(legacy) = self.key_in(slot).and_then(|key| self.legacy(key)) {
                    legacy.not_reading_until = until;
                    self.note(|| format!("caller {slot} does not read for {duration:?}"));
                }
            }
            Act::CutTunnel(machine, notice) => {
                self.note(|| format!("the network to machine {machine} is cut; the gateway notices {notice:?} later"));
                self.cut_all(machine, notice);
            }
            Act::CloseChannel(machine, place) => {
                if let Some(key) = self.links.get(&(machine, place)).map(|link| link.key) {
                    self.note(|| format!("machine {machine} closes channel {place}"));
                    self.cut_link(key, Duration::ZERO);
                }
            }
            Act::StallChannel(machine, place, duration) => self.stall_link(machine, place, duration),
            Act::Die(machine, notice) => self.die(machine, notice),
            Act::Revive(machine) => self.revive(machine),
            Act::Hang(machine, duration) => self.hang(machine, duration),
            Act::Slow(place, factor, duration) => {
                let until = self.now + duration;
                if let Some(machine) = self.machines.get_mut(place) {
                    machine.slow = Some((factor, until));
                    self.note(|| format!("machine {place} takes {factor} times as long for {duration:?}"));
                }
            }
            Act::Fail(place, duration) => {
                let until = self.now + duration;
                if let Some(machine) = self.machines.get_mut(place) {
                    machine.failing_until = Some(until);
                    self.note(|| format!("machine {place} fails every job for {duration:?}"));
                }
            }
            Act::Spoil(machine, bad) => {
                if let Some(machine) = self.machines.get_mut(machine) {
                    machine.spoils.push_back(bad);
                }
            }
            Act::Reload => self.reload(event.number),
            Act::DrainGateway(begins) => self.drain_gateway(begins),
            Act::AbortUnsent => {
                self.note(|| "what has not left is given up".to_owned());
                self.scheduler.abort_unsent(self.now, &mut self.notes);
                self.digest(Call::Other);
            }
            Act::DrainMachine(machine, begins) => self.drain_machine(machine, begins),
            Act::DrainChannel(machine, place) => self.drain_link(machine, place),
            Act::ClockJump(by) => {
                self.now += by;
                let mut chance = self.chance(60);
                let late = chance.micros(0, 3_000);
                self.timer_late_until = chance.percent(70).then_some(self.now + late);
                self.note(|| format!("the clock is {by:?} later"));
            }
        }
    }

    fn key_in(&self, slot: usize) -> Option<CallerKey> {
        self.callers[slot].as_ref().map(|caller| caller.key)
    }

    fn ask(&mut self, event: u32, slot: usize, count: usize, spec: &JobSpec) {
        let Some(key) = self.key_in(slot) else { return };
        if spec.world >= self.setup.worlds.len() {
            return;
        }
        let is_legacy = self.legacy(key).is_some();
        // A legacy caller can say nothing but the world and the bytes.
        let spec = if is_legacy {
            let idempotent = self.setup.worlds[spec.world].idempotent;
            let patience = Some(self.setup.default_timeout);
            JobSpec { key: 0, patience, idempotent, priority: Priority::Normal, ..*spec }
        } else {
            *spec
        };
        self.note(|| format!("caller {slot} asks for {count} of: {spec}"));
        for place in 0..count.min(MOST_AT_ONCE) {
            if self.is_over() || self.key_in(slot) != Some(key) {
                return;
            }
            let number = first_number(event) + u32::try_from(place).expect("few");
            let must_be_replied = self.setup.mood == Mood::Calm;
            self.write_job(key, number, &spec, must_be_replied);
            if is_legacy {
                self.ask_job(key, number);
            } else {
                self.ask_directly(key, number);
            }
        }
    }

    /// Writes down that a caller asks for a job.
    pub(crate) fn write_job(&mut self, caller: CallerKey, number: Number, spec: &JobSpec, must_be_replied: bool) {
        let job = Job {
            caller,
            world: spec.world,
            size: spec.size,
            // A job that can not be told from others can not be put in order either.
            key: if spec.size < NAMED_FROM { 0 } else { spec.key },
            priority: spec.priority,
            patience: spec.patience,
            idempotent: spec.idempotent,
            must_be_replied,
            stage: Stage::Asked,
            id: None,
            caller_id: None,
            deadline: None,
            epoch: self.epoch,
            submitted: None,
            order: 0,
            left: 0,
            is_out: false,
            came_back: None,
            ran: 0,
            is_wanted: true,
            is_told_not_run: false,
            told: None,
        };
        self.ledger.jobs.insert(number, job);
    }

    pub(crate) fn drain_gateway(&mut self, begins: bool) {
        if begins == self.is_draining {
            return;
        }
        self.is_draining = begins;
        if begins {
            self.note(|| "the gateway drains".to_owned());
            self.scheduler.begin_drain();
        } else {
            self.note(|| "the gateway takes jobs again".to_owned());
            self.scheduler.end_drain();
        }
    }

    pub(crate) fn drain_machine(&mut self, machine: usize, begins: bool) {
        if machine >= self.machines.len() || begins == self.drained.contains(&machine) {
            return;
        }
        if begins {
            self.note(|| format!("machine {machine} is drained"));
            self.drained.insert(machine);
            self.scheduler.begin_machine_drain(self.now, MachineId(machine), &mut self.notes);
        } else {
            self.note(|| format!("machine {machine} takes jobs again"));
            self.drained.remove(&machine);
            self.scheduler.end_machine_drain(self.now, MachineId(machine), &mut self.notes);
        }
        self.digest(Call::Other);
    }

    /// The configuration is changed, in a way that follows from the seed and the event.
    fn reload(&mut self, event: u32) {
        let mut chance = Chance::of(&[self.setup.seed, 50, event.into()]);
        let mut setup = self.setup.clone();
        for _ in 0..chance.between(1, 3) {
            change(&mut setup, &mut chance);
        }
        let added = setup.machines.len() - self.setup.machines.len();
        let came_back: Vec<_> = (0..self.setup.machines.len())
            .filter(|place| self.setup.machines[*place].is_retired && !setup.machines[*place].is_retired)
            .collect();
        self.setup = setup;
        self.budgets.follow(&self.setup);
        self.epoch += 1;
        self.ledger.max_attempts = self.ledger.max_attempts.max(self.setup.retry.max_attempts);
        self.most.raise(&self.setup);
        for _ in 0..added {
            self.machines.push(crate::machines::Machine::default());
        }
        self.note(|| "the configuration is reloaded".to_owned());
        let setup = self.setup.to_string();
        for line in setup.lines().skip(1) {
            self.note(|| format!("  {line}"));
        }
        let settings = self.setup.settings(&self.budgets);
        self.scheduler.reconfigure(self.now, settings, &mut self.notes);
        self.digest(Call::Other);
        for place in came_back.into_iter().chain(self.machines.len() - added..self.machines.len()) {
            self.connect_all(place);
        }
        // The keepers of a machine that is gone close its channels when they are idle.
        let retired: Vec<_> =
            self.links.keys().copied().filter(|(machine, _)| self.setup.machines[*machine].is_retired).collect();
        for (machine, place) in retired {
            self.drain_link(machine, place);
        }
    }
}

fn change(setup: &mut Setup, chance: &mut Chance) {
    let machine = chance.place(setup.machines.len());
    let world = chance.place(setup.worlds.len());
    match chance.below(14) {
        0 => setup.machines[machine].max_in_flight = chance.count(1, 20),
        1 => setup.worlds[world].queue = chance.count(1, 20),
        2 => setup.worlds[world].queue_bytes = chance.count(100, 20_000),
        3 if setup.machines.len() < MOST_ADDED => {
            let place = setup.machines.len();
            setup.machines.push(MachineSetup::drawn(chance, setup.mood, place));
            setup.worlds[world].machines.push(place);
        }
        4 | 5 => retire_or_bring_back(setup, machine, world),
        6 if setup.worlds.len() < MOST_ADDED => {
            let mut added = WorldSetup::drawn(chance, setup.mood, setup.machines.len());
            added.machines.retain(|machine| !setup.machines[*machine].is_retired);
            if !added.machines.is_empty() {
                setup.worlds.push(added);
            }
        }
        7 => setup.worlds[world].is_retired = !setup.worlds[world].is_retired,
        8 => setup.hold = Duration::from_millis(chance.pick(&[0, 100, 5_000])),
        9 => {
            setup.quota.queued = chance.count(1, 50);
            setup.quota.in_flight = chance.count(1, 50);
        }
        10 | 11 => give_or_take(setup, machine, world),
        12 => setup.retry.max_attempts = u32::try_from(chance.between(1, 4)).expect("small"),
        _ => {
            let affinity = &mut setup.worlds[world].affinity;
            *affinity = if *affinity == Affinity::Strict { Affinity::Prefer } else { Affinity::Strict };
        }
    }
}

/// A machine that goes on living is taken from a world, or given to it.
fn give_or_take(setup: &mut Setup, machine: usize, world: usize) {
    let machines = &mut setup.worlds[world].machines;
    if !machines.contains(&machine) {
        if !setup.machines[machine].is_retired {
            machines.push(machine);
        }
    } else if machines.len() > 1 {
        machines.retain(|place| *place != machine);
    }
}

/// The configuration has a machine no more, or again. No world is ever without any: it gets another one instead.
fn retire_or_bring_back(setup: &mut Setup, machine: usize, world: usize) {
    if setup.machines[machine].is_retired {
        setup.machines[machine].is_retired = false;
        if !setup.worlds[world].machines.contains(&machine) {
            setup.worlds[world].machines.push(machine);
        }
        return;
    }
    let other = (0..setup.machines.len()).find(|place| *place != machine && !setup.machines[*place].is_retired);
    let Some(other) = other else { return };
    setup.machines[machine].is_retired = true;
    for world in &mut setup.worlds {
        world.machines.retain(|place| *place != machine);
        if world.machines.is_empty() {
            world.machines.push(other);
        }
    }
}

fn first_number(event: u32) -> Number {
    event * u32::try_from(MOST_AT_ONCE).expect("small")
}
