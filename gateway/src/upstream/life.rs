//! The life of one tunnel, as a plain state machine: events in, the next state and how long to wait in it out. Its keeper does
//! what the state says; what a page of documentation says of it is in `docs/design/scheduler.md`.

use std::time::Duration;

use super::backoff::Backoff;
use crate::shard::TunnelState;

/// A tunnel that has stood for this long was a good one: the next wait is the first one again.
const PROVEN_AFTER: Duration = Duration::from_secs(10);

/// What can happen to a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It is up.
    Connected,
    /// It could not be made, and may be next time.
    Failed,
    /// The host key or the login was refused.
    Refused,
    /// It is lost, after so long.
    Lost(Duration),
    /// The wait is over.
    Waited,
    /// The configuration was read again: what was wrong may be mended.
    Reloaded,
    /// It is wanted no more: another one has taken its place, or its machine is retired.
    Relieved,
    /// Nobody waits for a job on any of its channels any more.
    Drained,
}

/// The waits between connects.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    /// The first, after a tunnel was lost or could not be made; each next one is twice as long.
    pub(super) first: Duration,
    /// The longest.
    pub(super) longest: Duration,
    /// After a refusal.
    pub(super) refused: Duration,
}

/// One tunnel, from its first connect to its end.
#[derive(Debug)]
pub(super) struct Life {
    /// `None`: it has ended.
    state: Option<TunnelState>,
    backoff: Backoff,
    refused: Duration,
}

impl Life {
    /// A tunnel that connects.
    pub(super) fn new(waits: Waits) -> Self {
        let backoff = Backoff::new(waits.first, waits.longest);
        Self { state: Some(TunnelState::Connecting), backoff, refused: waits.refused }
    }

    /// The next wait goes by these. How often it has failed in a row still counts.
    pub(super) fn set_waits(&mut self, waits: Waits) {
        self.backoff.set_limits(waits.first, waits.longest);
        self.refused = waits.refused;
    }

    /// What it is doing; `None` once it has ended.
    pub(super) fn state(&self) -> Option<TunnelState> {
        self.state
    }

    /// Something has happened, `chance` being a number between 0 and 1. Returns how long to wait before [`Event::Waited`], in the
    /// states that are waited in. What can not happen in a state changes nothing.
    pub(super) fn on(&mut self, event: Event, chance: f64) -> Option<Duration> {
        use TunnelState::{BackingOff, Connecting, Draining, Ready, Refused};
        let (next, wait) = match (self.state?, event) {
            (Connecting, Event::Connected) => (Some(Ready), None),
            (Connecting, Event::Failed) => (Some(BackingOff), Some(self.backoff.wait(chance))),
            (Connecting, Event::Refused) => (Some(Refused), Some(self.refused)),
            (BackingOff | Refused, Event::Waited) => (Some(Connecting), None),
            (BackingOff | Refused, Event::Reloaded) => {
                self.backoff.reset();
                (Some(Connecting), None)
            }
            (Ready, Event::Lost(stood)) => {
                if stood >= PROVEN_AFTER {
                    self.backoff.reset();
                }
                (Some(BackingOff), Some(self.backoff.wait(chance)))
            }
            (Ready, Event::Relieved) => (Some(Draining), None),
            (Draining, Event::Drained | Event::Lost(_)) | (Connecting | BackingOff | Refused, Event::Relieved) => {
                (None, None)
            }
            (state, _) => (Some(state), None),
        };
        self.state = next;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TunnelState::{BackingOff, Connecting, Draining, Ready, Refused};

    const WAITS: Waits = Waits {
        first: Duration::from_millis(100),
        longest: Duration::from_millis(300),
        refused: Duration::from_secs(300),
    };
    const EVENTS: [Event; 8] = [
        Event::Connected,
        Event::Failed,
        Event::Refused,
        Event::Lost(Duration::ZERO),
        Event::Waited,
        Event::Reloaded,
        Event::Relieved,
        Event::Drained,
    ];

    fn in_state(state: Option<TunnelState>) -> Life {
        Life { state, ..Life::new(WAITS) }
    }

    #[test]
    fn each_state_knows_its_events_and_no_other() {
        // In the order of EVENTS; `None` is the end.
        let [c, up, d, b, x] = [Connecting, Ready, Draining, BackingOff, Refused].map(Some);
        let table = [
            (c, [up, b, x, c, c, c, None, c]),
            (up, [up, up, up, b, up, up, d, up]),
            (d, [d, d, d, None, d, d, d, None]),
            (b, [b, b, b, b, c, c, None, b]),
            (x, [x, x, x, x, c, c, None, x]),
            (None, [None; 8]),
        ];
        for (state, nexts) in table {
            for (event, next) in EVENTS.into_iter().zip(nexts) {
                let mut life = in_state(state);
                let wait = life.on(event, 1.0);
                assert_eq!(life.state(), next, "{event:?} in {state:?}");
                let must_wait = next != state && matches!(next, Some(BackingOff | Refused));
                assert_eq!(wait.is_some(), must_wait, "{event:?} in {state:?} waits {wait:?}");
            }
        }
    }

    #[test]
    fn waits_grow_until_a_tunnel_has_proved_good() {
        let ms = Duration::from_millis;
        let mut life = Life::new(WAITS);
        for wait in [100, 200, 300, 300] {
            assert_eq!(life.on(Event::Failed, 1.0), Some(ms(wait)));
            life.on(Event::Waited, 1.0);
        }
        // One that falls at once proves nothing.
        life.on(Event::Connected, 1.0);
        assert_eq!(life.on(Event::Lost(ms(9_999)), 1.0), Some(ms(300)));
        life.on(Event::Waited, 1.0);
        life.on(Event::Connected, 1.0);
        assert_eq!(life.on(Event::Lost(PROVEN_AFTER), 1.0), Some(ms(100)));
    }

    #[test]
    fn the_next_wait_is_one_of_those_that_were_set_last() {
        let ms = Duration::from_millis;
        let mut life = Life::new(WAITS);
        let mut fails = |waits, event| {
            life.set_waits(waits);
            let wait = life.on(event, 1.0);
            life.on(Event::Waited, 1.0);
            wait
        };
        assert_eq!(fails(WAITS, Event::Failed), Some(ms(100)));
        assert_eq!(fails(WAITS, Event::Failed), Some(ms(200)));
        let longer = Waits { first: ms(1_000), longest: ms(1_500), refused: ms(7) };
        assert_eq!(fails(longer, Event::Failed), Some(ms(1_000)), "the first is the shortest");
        assert_eq!(fails(longer, Event::Failed), Some(ms(1_500)));
        assert_eq!(fails(WAITS, Event::Failed), Some(ms(300)), "the longest is the longest");
        assert_eq!(fails(longer, Event::Refused), Some(ms(7)));
    }

    #[test]
    fn a_refusal_waits_long_and_a_reload_ends_the_wait() {
        let mut life = Life::new(WAITS);
        assert_eq!(life.on(Event::Refused, 0.0), Some(WAITS.refused));
        life.on(Event::Waited, 0.0);
        assert_eq!(life.on(Event::Refused, 1.0), Some(WAITS.refused), "without jitter, and it does not grow");
        assert_eq!(life.on(Event::Reloaded, 1.0), None);
        assert_eq!(life.state(), Some(Connecting));
    }
}
