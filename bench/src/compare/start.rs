//! Row 16: from the start of `seeway serve` to its ready line, with one machine.

use super::{Bar, Plan, Sense::AtMost, Spread, scene::Scene};

/// Milliseconds.
const LONGEST: f64 = 150.0;

pub(super) fn run(scene: &Scene, plan: &Plan) -> anyhow::Result<Vec<Bar>> {
    let mut times = Vec::new();
    for _ in 0..plan.rounds {
        times.push(scene.gateway("gateway that starts", "")?.started_in.as_secs_f64() * 1e3);
    }
    let name = "from the start of seeway serve to its ready line, one machine";
    Ok(vec![Bar::new(16, name, Spread::of(times), AtMost, LONGEST, "ms")])
}
