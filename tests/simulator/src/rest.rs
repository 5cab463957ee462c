//! A story's end: the faults stop, everything comes to rest, every world is tried once more, and everybody goes.

use std::time::Duration;

use seeway::schedule::Priority;

use crate::checks::Call;
use crate::promise::Promise;
use crate::setup::Mood;
use crate::simulation::Simulation;
use crate::story::{CALLER_SLOTS, CallerKind, JobSpec};

/// How long a machine may take to be found well again, beyond what the settings say.
const RECOVERY: Duration = Duration::from_secs(20);

/// How long jobs have that must be answered.
const PROOF: Duration = Duration::from_secs(120);

/// The first number of the jobs that must be answered.
const PROOF_NUMBERS: u32 = 0x4000_0000;

impl Simulation {
    pub(crate) fn come_to_rest(&mut self) {
        self.faults_stop();
        // By the last deadline everything has an outcome; legacy callers' jobs may be submitted later than now.
        let longest = self.setup.default_timeout.max(Duration::from_secs(60));
        for _ in 0..20 {
            self.run_until(self.now + longest / 4);
            if self.is_over() {
                return;
            }
        }
        if !self.is_resting() {
            let left = self.ledger.in_hand.first().copied().unwrap_or_default();
            self.fail(Promise::OneOutcome, format!("job {left} has no outcome long after its deadline"));
        }
        self.check_nobody_waits();
        self.run_until(self.now + self.setup.circuit.probe_max + self.setup.circuit.silent_after + RECOVERY);
        self.prove_life();
        self.everybody_goes();
    }

    fn faults_stop(&mut self) {
        self.is_calm = true;
        self.note(|| "the faults stop".to_owned());
        let was_chaotic = self.setup.mood == Mood::Chaos;
        // A network that is slower than `silent_after` is a fault too.
        self.setup.latency = (self.setup.latency.0.min(50), self.setup.latency.1.min(500));
        for place in 0..self.machines.len() {
            self.revive(place);
            if self.machines[place].hung_until.is_some() {
                self.machines[place].hung_until = Some(self.now);
                self.unhang(place);
            }
            let machine = &mut self.machines[place];
            (machine.slow, machine.failing_until) = (None, None);
            machine.spoils.clear();
            self.drain_machine(place, false);
            // What it has swallowed it will never answer: it is restarted.
            if was_chaotic {
                self.cut_all(place, Duration::ZERO);
            }
        }
        self.drain_gateway(false);
        self.end_stalls();
        let now = self.now;
        let keys: Vec<_> = self.callers.iter().flatten().map(|caller| caller.key).collect();
        for key in keys {
            if let Some(legacy) = self.legacy(key) {
                legacy.not_reading_until = now;
                self.look_at_answers(key);
            }
        }
        self.digest(Call::Other);
    }

    /// With every machine up and next to no load, jobs of every world are answered.
    fn prove_life(&mut self) {
        if self.is_over() {
            return;
        }
        self.note(|| "every world is tried once more".to_owned());
        self.join(CALLER_SLOTS, CallerKind::Unary);
        let Some(key) = self.callers[CALLER_SLOTS].as_ref().map(|caller| caller.key) else { return };
        for world in 0..self.setup.worlds.len() {
            if !self.has_machine(world) {
                continue;
            }
            for attempt in 0..6_u8 {
                let number = PROOF_NUMBERS + u32::try_from(world).expect("few") * 16 + u32::from(attempt);
                let spec = JobSpec {
                    world,
                    size: 40,
                    priority: Priority::Normal,
                    key: attempt % 3,
                    patience: Some(PROOF),
                    idempotent: false,
                };
                self.write_job(key, number, &spec, true);
                self.ask_directly(key, number);
                // One after the other: limits of one are no reason not to be answered.
                self.run_until(self.now + PROOF / 16);
            }
        }
        self.run_until(self.now + PROOF + Duration::from_secs(1));
        if !self.is_resting() {
            self.fail(Promise::OneOutcome, "a last job has no outcome after its deadline");
        }
    }

    fn has_machine(&self, world: usize) -> bool {
        let setup = &self.setup.worlds[world];
        !setup.is_retired && setup.machines.iter().any(|machine| !self.setup.machines[*machine].is_retired)
    }

    fn everybody_goes(&mut self) {
        if self.is_over() {
            return;
        }
        self.check_nobody_waits();
        for slot in 0..self.callers.len() {
            self.leave(slot, "goes");
        }
        self.run_until(self.now + Duration::from_secs(1));
        self.check_quiet(true);
        let keys: Vec<_> = self.links.values().map(|link| link.key).collect();
        self.are_channels_for_good_closed = true;
        for key in keys {
            self.close_link(key, "is closed for good");
        }
        self.check_quiet(false);
        for machine in 0..self.setup.machines.len() {
            let left = self.scheduler.in_flight(seeway::schedule::MachineId(machine));
            if left > 0 {
                self.fail(
                    Promise::Quiet,
                    format!("{left} jobs are in flight on machine {machine}, which has no channel"),
                );
            }
        }
    }
}
