//! Whether callers get their fair share of a world that is saturated.
//!
//! Looked at in stories of the mood *saturated* only: nothing fails, and jobs come faster than they are served. From the moment
//! at which two flows (a caller's jobs of one priority) both wait, what they are served in bytes, divided by their weights,
//! must not grow apart by more than a few rounds and the largest job.

use std::collections::BTreeMap;

use seeway::schedule::Priority;

use crate::ledger::{Number, Stage};
use crate::promise::Promise;
use crate::setup::Mood;
use crate::simulation::Simulation;

/// What a job costs at least (`docs/design/scheduler.md`).
const LEAST_COST: u64 = 1024;

/// What a flow is given in each round for each unit of its weight.
const QUANTUM: u64 = 512;

/// Rounds by which two flows may differ: one in which the first was served and the second not yet, and one at either end of
/// the time for which they are compared.
const ROUNDS: u64 = 3;

/// A flow: whose, and which of its priorities.
type Flow = (usize, Priority);

/// What each flow has been served.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// For each flow that waits: what it was served, in bytes divided by weight.
    served: BTreeMap<Flow, u64>,
    /// For each two flows that wait: what each had been served when they began to.
    since: BTreeMap<(Flow, Flow), (u64, u64)>,
    largest: u64,
}

fn weight(priority: Priority) -> u64 {
    match priority {
        Priority::High => 4,
        Priority::Normal => 2,
        Priority::Low => 1,
    }
}

impl Simulation {
    /// A job has left.
    pub(crate) fn shares_served(&mut self, number: Number) {
        if self.setup.mood != Mood::Saturated || self.is_calm {
            return;
        }
        let waiting = self.waiting_flows();
        let job = self.ledger.job(number);
        let flow = (job.caller.slot, job.priority);
        let cost = (job.size as u64).max(LEAST_COST);
        let Shares { served, since, largest } = &mut self.shares;
        *largest = (*largest).max(cost);
        *served.entry(flow).or_default() += cost / weight(flow.1);
        // Who does not wait can not be compared; the last job that left did wait.
        since.retain(|(one, other), _| {
            let waits = |flow: &Flow| waiting.contains_key(flow);
            waits(one) && waits(other)
        });
        let mut worst = None;
        for one in waiting.keys() {
            for other in waiting.keys().filter(|other| *other > one) {
                let (of_one, of_other) =
                    (served.get(one).copied().unwrap_or_default(), served.get(other).copied().unwrap_or_default());
                let begun = since.entry((*one, *other)).or_insert((of_one, of_other));
                let (of_one, of_other) = (of_one - begun.0, of_other - begun.1);
                // What is staged has been served already, and is seen only when it leaves.
                let staged = self.most.channel_buffer as u64 + 2 * *largest;
                let bound =
                    ROUNDS * QUANTUM + (*largest + staged) / weight(one.1) + (*largest + staged) / weight(other.1);
                if of_one.abs_diff(of_other) > bound {
                    worst = Some((*one, *other, of_one, of_other, bound));
                }
            }
        }
        if let Some((one, other, of_one, of_other, bound)) = worst {
            let what = format!(
                "while both wait, caller {} ({:?}) is served {of_one} for its weight and caller {} ({:?}) {of_other}; {bound} is a fair difference",
                one.0, one.1, other.0, other.1,
            );
            self.fail(Promise::FairShare, what);
        }
    }

    /// The flows of the world that have jobs which have not left.
    fn waiting_flows(&self) -> BTreeMap<Flow, usize> {
        let mut waiting = BTreeMap::new();
        for number in &self.ledger.in_hand {
            let job = self.ledger.job(*number);
            if job.stage == Stage::InHand && job.left == 0 {
                *waiting.entry((job.caller.slot, job.priority)).or_default() += 1;
            }
        }
        // The last few may be staged already, and so no longer wait.
        let staged: usize = self.setup.machines.iter().map(|machine| machine.max_in_flight).sum();
        waiting.retain(|_, jobs| *jobs > staged);
        waiting
    }
}
