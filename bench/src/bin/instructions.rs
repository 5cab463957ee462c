//! `seeway-instructions`: how many instructions and allocations the gateway's own work takes for each job.
//!
//! It runs itself under valgrind's callgrind, so that the figures are the same on a busy machine as on an idle one. CI compares
//! them with those that are checked in (`bench/instructions.json`).
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use seeway_bench::micro::figures::{Figures, TOLERANCE_PERCENT};
use seeway_bench::micro::{SCENARIOS, Scenario, scenario};

/// Instructions and allocations of the gateway's own work, for each job.
#[derive(Parser)]
#[command(
    name = "seeway-instructions",
    version,
    after_help = "Examples:\n  cargo run --release -p seeway-bench --bin seeway-instructions\n  \
                  … -- --functions 12 path-1x64\n  … -- --check bench/instructions.json"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Scenarios, by their names; without any all of them
    scenarios: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print as many functions of each scenario, those with the most instructions of their own
    #[arg(long, value_name = "COUNT", default_value_t = 0, conflicts_with = "json")]
    functions: usize,
    /// Compare with the figures in this file, and fail where one has grown by more than a twentieth
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenarios", "update", "json"])]
    check: Option<PathBuf>,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE", conflicts_with = "scenarios")]
    update: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Does a scenario's work on so many jobs and prints nothing: what is measured
    Run {
        /// The scenario's name
        scenario: String,
        /// How many jobs: a multiple of what the scenario does in a turn
        jobs: u64,
    },
}

fn main() -> ExitCode {
    match act(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("seeway-instructions: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn named(name: &str) -> anyhow::Result<&'static Scenario> {
    let names: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    scenario(name).with_context(|| format!("no scenario is called {name}; there are: {}", names.join(", ")))
}

/// Whether nothing has grown too much.
fn act(cli: &Cli) -> anyhow::Result<bool> {
    if let Some(Command::Run { scenario, jobs }) = &cli.command {
        named(scenario)?.run(*jobs);
        return Ok(true);
    }
    if (cli.check.is_some() || cli.update.is_some()) && cfg!(debug_assertions) {
        bail!("this is a debug build: figures are those of a release build (cargo run --release)");
    }
    // First: a file that can't be read is to be known at once.
    let before = cli.check.as_deref().map(|file| -> anyhow::Result<Figures> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        serde_json::from_str(&text).with_context(|| file.display().to_string())
    });
    let before = before.transpose()?;
    let chosen: Vec<&Scenario> = if cli.scenarios.is_empty() {
        SCENARIOS.iter().collect()
    } else {
        cli.scenarios.iter().map(|name| named(name)).collect::<Result<_, _>>()?
    };
    let is_quiet = cli.json || before.is_some();
    let figures = measure(&chosen, cli.functions, is_quiet)?;
    let text = serde_json::to_string_pretty(&figures)? + "\n";
    if cli.json {
        print!("{text}");
    }
    if let Some(file) = &cli.update {
        std::fs::write(file, &text).with_context(|| file.display().to_string())?;
    }
    let Some(before) = before else { return Ok(true) };
    let comparison = figures.against(&before);
    print!("{comparison}");
    let file = cli.check.as_deref().map(|file| file.display().to_string()).unwrap_or_default();
    if !comparison.is_passed() {
        println!(
            "\nA job costs more than it did, by more than {TOLERANCE_PERCENT} % of instructions or by allocations. See where, with\n  \
             cargo run --release -p seeway-bench --bin seeway-instructions -- --functions 20 SCENARIO\nand where it is worth it, \
             or the compiler is another one, check new figures in: … -- --update {file}"
        );
    } else if comparison.is_better() {
        println!("\nSome figures are better than those in {file}. Hold on to that: … -- --update {file}");
    }
    Ok(comparison.is_passed())
}

fn measure(chosen: &[&Scenario], functions: usize, is_quiet: bool) -> anyhow::Result<Figures> {
    let program = std::env::current_exe().context("this program's own file")?;
    let mut scenarios = BTreeMap::new();
    if !is_quiet {
        println!("{:<22} {:>12} {:>12}  for each job", "scenario", "instructions", "allocations");
    }
    for scenario in chosen {
        let (figure, by_function) = scenario.measure(&program).with_context(|| scenario.name)?;
        if !is_quiet {
            let (name, what) = (scenario.name, scenario.what);
            println!("{name:<22} {:>12.1} {:>12.3}  {what}", figure.instructions, figure.allocations);
        }
        for (function, instructions) in by_function.iter().take(functions) {
            println!("{instructions:>35.1}  {function}");
        }
        scenarios.insert(scenario.name.to_owned(), figure);
    }
    Ok(Figures::new(scenarios))
}
