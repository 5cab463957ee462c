//! `seeway check --connect`: the table of machines and of the steps to each, made of what `reach` found.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::Failure;
use super::super::reach::{self, Depth, STAGES, Stage};
use super::super::table::write_table;
use crate::config::Config;

/// What came of trying one machine.
#[derive(Debug)]
pub(super) struct Trial {
    machine: String,
    address: String,
    /// The step that failed, and why and what to do.
    failed: Option<(Stage, String)>,
    took: Duration,
}

impl Trial {
    pub(super) fn passed(&self) -> bool {
        self.failed.is_none()
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "machine": self.machine,
            "address": self.address,
            "ok": self.passed(),
            "failed_stage": self.failed.as_ref().map(|(stage, _)| stage.name()),
            "why": self.failed.as_ref().map(|(_, why)| why),
            "milliseconds": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// What a stage's cell says: `ok`, `FAILED`, or `-` for one that was not come to.
    fn cell(&self, stage: Stage) -> &'static str {
        match &self.failed {
            Some((failed, _)) if stage > *failed => "-",
            Some((failed, _)) if stage == *failed => "FAILED",
            _ => "ok",
        }
    }
}

/// Tries every machine, all at once; in the configuration's order.
pub(super) async fn try_all(config: &Config) -> Vec<Trial> {
    let reached = reach::all(config, Depth::NoOp).await;
    let trial = |(machine, reached): (&crate::config::Machine, reach::Reached)| Trial {
        machine: machine.name.clone(),
        address: machine.address.to_string(),
        failed: reached.failed,
        took: reached.took,
    };
    config.machines.iter().zip(reached).map(trial).collect()
}

/// Writes a table of machines and steps, and below it what is wrong with each machine that failed.
pub(super) fn write_trials(out: &mut dyn Write, trials: &[Trial]) -> Result<(), Failure> {
    let rows: Vec<_> = trials
        .iter()
        .map(|trial| {
            let [tcp, ssh, host_key, login, port, no_op] = STAGES.map(|stage| trial.cell(stage).to_owned());
            let took = format!("{} ms", trial.took.as_millis());
            [trial.machine.clone(), trial.address.clone(), tcp, ssh, host_key, login, port, no_op, took]
        })
        .collect();
    let [tcp, ssh, host_key, login, port, no_op] = STAGES.map(Stage::name);
    write_table(out, ["machine", "address", tcp, ssh, host_key, login, port, no_op, "took"], &rows)?;
    writeln!(out)?;
    for trial in trials {
        if let Some((stage, why)) = &trial.failed {
            writeln!(out, "{}: {} failed: {why}", trial.machine, stage.name())?;
        }
    }
    let passed = trials.iter().filter(|trial| trial.passed()).count();
    writeln!(out, "{passed} of {} reached", super::counted(trials.len(), "machine"))?;
    Ok(())
}
