//! What a gateway says of itself, as `feed` hears it and the rest of `top` shows it; and what of it is remembered for plots.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use crate::admin::state::{Happening, State};
use crate::command::operator::{clean, clean_all};

/// How many points a plot remembers: five minutes, as the gateway does.
const POINTS: usize = 300;

/// The gateway at one moment, and whether we may change it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) may_change: bool,
    /// Why not.
    pub(super) why_not: Option<String>,
    pub(super) state: State,
}

impl Seen {
    /// What `/api/state` said, with no text in it that a terminal would obey.
    pub(super) fn read(mut value: Value) -> Result<Self, serde_json::Error> {
        clean_all(&mut value, clean);
        let may_change = value["may_change"] == true;
        let why_not = value["why_not"].as_str().map(str::to_owned);
        Ok(Self { may_change, why_not, state: serde_json::from_value(value)? })
    }
}

/// What `/api/machines/NAME/history` said, the newest first.
pub(super) fn happenings(mut value: Value) -> Result<Vec<Happening>, serde_json::Error> {
    clean_all(&mut value, clean);
    let mut history: Vec<_> = serde_json::from_value(value["history"].take())?;
    history.reverse();
    Ok(history)
}

/// One plot's line: the newest value is the last.
pub(super) type Series = VecDeque<Option<f64>>;

/// Jobs per second and the 99th percentile, of the gateway or of a machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Plot {
    pub(super) rates: Series,
    pub(super) p99: Series,
}

impl Plot {
    fn push(&mut self, rate: Option<f64>, p99: Option<f64>) {
        for (series, value) in [(&mut self.rates, rate), (&mut self.p99, p99)] {
            if series.len() == POINTS {
                series.pop_front();
            }
            series.push_back(value);
        }
    }
}

/// What plots are drawn from.
#[derive(Clone, Debug, Default)]
pub(super) struct Plots {
    pub(super) all: Plot,
    pub(super) machines: BTreeMap<String, Plot>,
    latest: f64,
}

impl Plots {
    /// From what the gateway remembers: `/api/history`. What is not understood of it is left out.
    pub(super) fn read(mut points: Value) -> Self {
        clean_all(&mut points, clean);
        let mut plots = Self::default();
        for point in points.as_array().into_iter().flatten() {
            plots.latest = point["time"].as_f64().unwrap_or_default();
            plots.all.push(point["all"][0].as_f64(), point["all"][4].as_f64());
            for (name, numbers) in point["machines"].as_object().into_iter().flatten() {
                let plot = plots.machines.entry(name.clone()).or_default();
                plot.push(numbers[0].as_f64(), numbers[3].as_f64());
            }
        }
        plots
    }

    /// One more second, unless it is remembered already. A machine that is no more is forgotten.
    pub(super) fn push(&mut self, state: &State) {
        if state.time <= self.latest {
            return;
        }
        self.latest = state.time;
        let has_rates = state.interval > 0.0;
        let rate = |rate: f64| has_rates.then_some(rate);
        self.all.push(rate(state.jobs.per_second), state.jobs.seconds.map(|seconds| seconds.p99));
        let mut before = std::mem::take(&mut self.machines);
        for machine in &state.machines {
            let mut plot = before.remove(&machine.name).unwrap_or_default();
            plot.push(rate(machine.jobs_per_second), machine.machine_seconds.map(|seconds| seconds.p99));
            self.machines.insert(machine.name.clone(), plot);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::sample;
    use super::*;

    #[test]
    fn no_text_of_a_gateway_is_obeyed() {
        let mut value = sample::state(1.0);
        value["machines"][0]["name"] = json!("hsm\u{1b}[2J");
        value["may_change"] = json!(false);
        value["why_not"] = json!("no\u{7}");
        let seen = Seen::read(value).expect("a state");
        assert_eq!(seen.state.machines[0].name, "hsm\u{fffd}[2J");
        assert_eq!((seen.may_change, seen.why_not.as_deref()), (false, Some("no\u{fffd}")));
        assert!(Seen::read(json!({ "version": 1 })).is_err());
    }

    #[test]
    fn plots_begin_with_what_the_gateway_remembers_and_have_an_end() {
        let point = |time: f64| json!({ "time": time, "all": [time, 0, 0, 0.1, 0.2, 0.3], "machines": { "hsm-a": [time, 1, 0.1, null, 0.3] } });
        let mut plots = Plots::read(json!([point(1.0), point(2.0)]));
        assert_eq!(plots.all.rates, [Some(1.0), Some(2.0)]);
        assert_eq!(plots.all.p99, [Some(0.2), Some(0.2)]);
        assert_eq!(plots.machines["hsm-a"].p99, [None, None]);
        let seen = |time| Seen::read(sample::state(time)).expect("a state").state;
        plots.push(&seen(2.0));
        assert_eq!(plots.all.rates.len(), 2, "it is there already");
        for second in 3..1000 {
            plots.push(&seen(f64::from(second)));
        }
        assert_eq!((plots.all.rates.len(), plots.machines["hsm-a"].rates.len()), (POINTS, POINTS));
        let first = json!({ "time": 1.0, "all": [null, 0, 0, 0.1, 0.2, 0.3], "machines": { "hsm-a": [null, 1, 0.1, 0.2, 0.3] } });
        let plots = Plots::read(json!([first, point(2.0)]));
        assert_eq!(plots.all.rates, [None, Some(2.0)], "of the first second nobody knows it");
        assert_eq!(plots.machines["hsm-a"].rates, [None, Some(2.0)]);
        assert!(Plots::read(json!("nothing")).all.rates.is_empty());
    }
}
