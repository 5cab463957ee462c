//! Whether callers get their fair share of a world that is saturated.

use crate::ledger::Number;
use crate::simulation::Simulation;

/// What each flow has been served.
#[derive(Debug, Default)]
pub(crate) struct Shares {}

impl Simulation {
    pub(crate) fn shares_served(&mut self, _number: Number) {
        let _ = &self.shares;
    }

    pub(crate) fn shares_ended(&mut self, _number: Number) {}
}
