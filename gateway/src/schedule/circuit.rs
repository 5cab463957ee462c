//! Whether a machine can be trusted with jobs.
//!
//! Closed: it gets jobs. After too many failures in a row, or too long a silence, it is ejected: it gets none. Then a NoOp asks
//! whether it is there at all; once that is answered it is tried with one job, and what becomes of that decides. So a machine
//! that hangs costs no further job, and one that fails its jobs costs one for each probe.

use std::time::Instant;

use super::{CircuitSettings, JobId};

/// One machine's circuit.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    /// Failures since the last success.
    failures: u32,
    /// Ejections since it was last trusted.
    ejections: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    /// It gets nothing until then.
    Ejected { since: Instant, until: Instant },
    /// It was asked with a NoOp; if that is not answered by then, the ejection goes on.
    Asked { since: Instant, until: Instant },
    /// It answers; one job may try it, and has to be answered by then.
    Trial { since: Instant, job: Option<(JobId, Instant)> },
}

impl Circuit {
    /// Whether it gets jobs like any other.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether it is being asked or tried.
    pub(super) fn is_probing(&self) -> bool {
        matches!(self.state, State::Asked { .. } | State::Trial { .. })
    }

    /// Whether one job may be sent to try it.
    pub(super) fn wants_trial(&self) -> bool {
        matches!(self.state, State::Trial { job: None, .. })
    }

    /// When it wants to be asked, or has not answered what it was asked or tried with.
    pub(super) fn timeout(&self) -> Option<Instant> {
        match self.state {
            State::Ejected { until, .. } | State::Asked { until, .. } => Some(until),
            State::Trial { job, .. } => job.map(|(_, until)| until),
            State::Closed => None,
        }
    }

    /// The machine failed a job. Returns whether it has failed too often: then the caller decides whether it can be spared.
    #[must_use]
    pub(super) fn failed(&mut self, settings: &CircuitSettings, job: JobId) -> bool {
        self.failures = self.failures.saturating_add(1);
        match self.state {
            State::Closed => settings.failures > 0 && self.failures >= settings.failures,
            State::Trial { .. } => self.is_tried_by(job),
            State::Ejected { .. } | State::Asked { .. } => false,
        }
    }

    /// The machine answered a job that was staged at `staged`. Returns whether it is trusted again by that.
    #[inline]
    #[must_use]
    pub(super) fn succeeded(&mut self, staged: Instant) -> bool {
        if self.is_closed() {
            self.failures = 0;
            return false;
        }
        self.may_have_recovered(staged)
    }

    fn may_have_recovered(&mut self, staged: Instant) -> bool {
        let (State::Ejected { since, .. } | State::Asked { since, .. } | State::Trial { since, .. }) = self.state
        else {
            return false;
        };
        // What it was sent before says that it has lived, not that it has recovered.
        let is_new = staged > since;
        if is_new {
            *self = Self::default();
        }
        is_new
    }

    /// It gets no more jobs, twice as long as the last time in a row.
    pub(super) fn eject(&mut self, now: Instant, settings: &CircuitSettings) {
        let doubled = settings.probe_after.saturating_mul(1 << self.ejections.min(20));
        self.ejections += 1;
        self.state = State::Ejected { since: now, until: now + doubled.min(settings.probe_max) };
    }

    /// A NoOp was staged for it.
    pub(super) fn asked(&mut self, now: Instant, settings: &CircuitSettings) {
        if let State::Ejected { since, .. } = self.state {
            self.state = State::Asked { since, until: now + settings.silent_after };
        }
    }

    /// It is there: a NoOp was answered, or a channel to it has come up.
    pub(super) fn answered(&mut self) {
        if let State::Ejected { since, .. } | State::Asked { since, .. } = self.state {
            self.state = State::Trial { since, job: None };
        }
    }

    /// A job was staged for it.
    #[inline]
    pub(super) fn staged(&mut self, now: Instant, id: JobId, settings: &CircuitSettings) {
        if let State::Trial { job: job @ None, .. } = &mut self.state {
            *job = Some((id, now + settings.silent_after));
        }
    }

    /// A job has ended, or left the machine without having been sent: where it was the trial, there may be another one.
    #[inline]
    pub(super) fn released(&mut self, id: JobId) {
        if self.is_tried_by(id)
            && let State::Trial { job, .. } = &mut self.state
        {
            *job = None;
        }
    }

    /// Every channel to it is gone. What it was asked will not be answered.
    pub(super) fn lost(&mut self, now: Instant, settings: &CircuitSettings) {
        if self.is_probing() {
            self.eject(now, settings);
        }
    }

    /// Whether this job tries it.
    #[inline]
    pub(super) fn is_tried_by(&self, id: JobId) -> bool {
        matches!(self.state, State::Trial { job: Some((job, _)), .. } if job == id)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use slotmap::SlotMap;

    use super::*;
    use crate::schedule::tests::beginning;

    const SECOND: Duration = Duration::from_secs(1);
    const SETTINGS: CircuitSettings =
        CircuitSettings { failures: 3, silent_after: SECOND, probe_after: SECOND, probe_max: Duration::from_secs(4) };

    #[test]
    fn it_opens_after_so_many_failures_in_a_row_and_not_one_before() {
        let now = beginning();
        let mut circuit = Circuit::default();
        assert!(!circuit.failed(&SETTINGS, JobId::default()) && !circuit.failed(&SETTINGS, JobId::default()));
        assert!(!circuit.succeeded(now));
        assert!(!circuit.failed(&SETTINGS, JobId::default()) && !circuit.failed(&SETTINGS, JobId::default()));
        assert!(circuit.failed(&SETTINGS, JobId::default()));
        let never = CircuitSettings { failures: 0, ..SETTINGS };
        assert!(!circuit.failed(&never, JobId::default()));
    }

    #[test]
    fn a_noop_then_a_job_then_trust() {
        let now = beginning();
        let mut jobs = SlotMap::with_key();
        let (trial, other): (JobId, JobId) = (jobs.insert(()), jobs.insert(()));
        let mut circuit = Circuit::default();
        circuit.eject(now, &SETTINGS);
        assert_eq!(circuit.timeout(), Some(now + SECOND));
        assert!(!circuit.succeeded(now), "an old job");
        circuit.asked(now + SECOND, &SETTINGS);
        assert!(circuit.is_probing() && !circuit.wants_trial());
        circuit.answered();
        assert!(circuit.wants_trial() && circuit.timeout().is_none());
        circuit.staged(now + SECOND, trial, &SETTINGS);
        assert_eq!(circuit.timeout(), Some(now + SECOND * 2), "it has so long to answer");
        assert!(!circuit.wants_trial(), "one at a time");
        assert!(!circuit.failed(&SETTINGS, other), "an old one fails: that is known");
        circuit.released(trial);
        assert!(circuit.wants_trial(), "its caller has gone");
        circuit.staged(now + SECOND, other, &SETTINGS);
        assert!(circuit.succeeded(now + SECOND) && circuit.is_closed());
    }

    #[test]
    fn each_ejection_in_a_row_lasts_twice_as_long_up_to_the_ceiling() {
        let now = beginning();
        let mut circuit = Circuit::default();
        for seconds in [1, 2, 4, 4] {
            circuit.eject(now, &SETTINGS);
            assert_eq!(circuit.timeout(), Some(now + SECOND * seconds));
        }
        assert!(circuit.succeeded(now + SECOND), "a job that was sent later");
        circuit.eject(now, &SETTINGS);
        assert_eq!(circuit.timeout(), Some(now + SECOND));
    }
}
