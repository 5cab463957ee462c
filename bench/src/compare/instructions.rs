//! Row 14: instructions and allocations of the gateway's own work for each job, which `seeway-instructions` counts under callgrind.
//! They are the same on a busy machine as on an idle one, so there is one round.

use std::process::Command;

use anyhow::{Context, bail};

use super::{
    Bar,
    Sense::AtMost,
    Spread,
    program::{self, Built},
};

/// The whole of the gateway's own work on a job: from a legacy caller's bytes through decode, mux, scheduler and encode to its
/// answer's bytes. Of one caller with 64 in flight and of 256 with one each, the worse counts. Each stands with what it is fed
/// with, which is the caller's and the machine's work, and is taken off.
const SCENARIOS: [(&str, &str); 2] = [("path-1x64", "feed-1x64"), ("path-256x1", "feed-256x1")];
const MOST_INSTRUCTIONS: f64 = 1_500.0;

pub(super) fn run() -> [Bar; 2] {
    let counted = counted();
    if let Err(error) = &counted {
        eprintln!("row 14 is not measured: {error:#}");
    }
    let counted = counted.ok();
    let worst = |figure: &str| {
        let scenarios = counted.as_ref()?.get("scenarios")?;
        let of = |scenario: &str| scenarios.get(scenario)?.get(figure)?.as_f64();
        let figures: Option<Vec<f64>> = SCENARIOS.iter().map(|(path, feed)| Some(of(path)? - of(feed)?)).collect();
        Spread::of(figures?).map(|spread| Spread { median: spread.high, ..spread })
    };
    let bar = |what: &str, required, unit| {
        let name = format!("decode, mux, scheduler and encode of a job and its reply: {what} for each job");
        Bar::new(14, name, worst(what), AtMost, required, unit)
    };
    [bar("instructions", MOST_INSTRUCTIONS, "instructions"), bar("allocations", 0.0, "allocations")]
}

fn counted() -> anyhow::Result<serde_json::Value> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        bail!("valgrind is not installed");
    }
    let program = program::find(Built { package: "seeway-bench", program: "seeway-instructions" })?;
    let names = SCENARIOS.iter().flat_map(|(path, feed)| [path, feed]);
    let output = Command::new(program).arg("--json").args(names).output()?;
    if !output.status.success() {
        bail!("seeway-instructions: {}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("seeway-instructions prints no JSON")
}
