//! What each scenario costs for each job, and how that compares with the figures that are checked in.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::callgrind::{CountError, Counts};
use super::{SCENARIOS, Scenario};

/// By how much a figure may exceed the checked-in one, in parts of a hundred.
pub const TOLERANCE_PERCENT: f64 = 5.0;

/// Allocations for each job that count as more than before. What is less comes from a batch in which something grew.
const MORE_ALLOCATIONS: f64 = 0.002;

/// How many jobs the smaller and the larger run do: the difference is what is counted. The smaller one is long enough for all
/// buffers and tables to have grown to what they need. Both are a whole number of turns of each scenario.
const JOBS: (u64, u64) = (16_384, 49_152);

/// What a scenario costs for each job in the steady state.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Instructions.
    pub instructions: f64,
    /// Calls of the allocator for memory.
    pub allocations: f64,
}

/// Every scenario's figure, and what they were made with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// What figures depend on besides the code: other compilers make other programs.
    pub made_with: BTreeMap<String, String>,
    /// By the scenarios' names.
    pub scenarios: BTreeMap<String, Figure>,
}

/// A scenario's cost, function by function: own instructions for each job, the largest first.
pub type Functions = Vec<(String, f64)>;

impl Scenario {
    /// Does so many jobs. What a measured run does.
    ///
    /// # Panics
    /// If the scenario's work goes wrong, or `jobs` is no whole number of turns.
    pub fn run(&self, jobs: u64) {
        assert!(jobs.is_multiple_of(self.jobs_per_turn), "{jobs} jobs are no whole number of turns");
        let mut work = (self.make)();
        for _ in 0..jobs / self.jobs_per_turn {
            work.turn();
        }
    }

    /// Measures it. `program` does what [`run`](Self::run) does when it is called with `run`, the scenario's name, and how many
    /// jobs.
    pub fn measure(&self, program: &Path) -> Result<(Figure, Functions), CountError> {
        let count = |jobs: u64| Counts::of(program, &["run", self.name, &jobs.to_string()]);
        // Each has a core where there are two.
        let (fewer, more) = std::thread::scope(|scope| {
            let fewer = scope.spawn(|| count(JOBS.0));
            (fewer.join().expect("it does not panic"), count(JOBS.1))
        });
        let (fewer, more) = (fewer?, more?);
        let figure = Figure {
            instructions: per_job(fewer.instructions, more.instructions),
            allocations: per_job(fewer.allocations, more.allocations),
        };
        let of_fewer = |name: &str| fewer.functions.get(name).copied().unwrap_or_default();
        let mut functions: Functions = more
            .functions
            .iter()
            .map(|(name, instructions)| (name.clone(), per_job(of_fewer(name), *instructions)))
            .filter(|(_, instructions)| *instructions >= 0.1)
            .collect();
        functions.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        Ok((figure, functions))
    }
}

/// A count for each job, from those of the two runs, to a thousandth.
#[allow(clippy::cast_precision_loss)] // Both are far below 2^52.
fn per_job(fewer: u64, more: u64) -> f64 {
    let difference = more as f64 - fewer as f64;
    // Without the sign of a zero.
    (difference / (JOBS.1 - JOBS.0) as f64 * 1000.0).round() / 1000.0 + 0.0
}

/// The first line that a program says about its version.
fn version_of(program: &str) -> String {
    let output = Command::new(program).arg("--version").output();
    let said = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    said.lines().next().unwrap_or("not there").trim().to_owned()
}

impl Figures {
    /// Figures of this machine and its tools.
    pub fn new(scenarios: BTreeMap<String, Figure>) -> Self {
        let tools = [("compiler", "rustc"), ("valgrind", "valgrind"), ("C library", "ldd")];
        let mut made_with: BTreeMap<_, _> =
            tools.map(|(what, program)| (what.to_owned(), version_of(program))).into_iter().collect();
        made_with.insert("architecture".to_owned(), std::env::consts::ARCH.to_owned());
        Self { made_with, scenarios }
    }

    /// Compares with the figures that are checked in. All scenarios are to be in both.
    pub fn against(&self, before: &Self) -> Comparison {
        let mut rows: Vec<_> = SCENARIOS
            .iter()
            .map(|scenario| {
                let [figure, before] = [self, before].map(|figures| figures.scenarios.get(scenario.name).copied());
                Row { name: scenario.name.to_owned(), figure, before }
            })
            .collect();
        let is_known = |name: &str| SCENARIOS.iter().any(|scenario| scenario.name == name);
        let gone = before.scenarios.iter().filter(|(name, _)| !is_known(name));
        rows.extend(gone.map(|(name, figure)| Row { name: name.clone(), figure: None, before: Some(*figure) }));
        let different = self.made_with.iter().filter_map(|(what, now)| {
            let then = before.made_with.get(what).map_or("nothing known", String::as_str);
            (then != now).then(|| format!("{what}: {now} now, {then} when the figures were made"))
        });
        Comparison { rows, different: different.collect() }
    }
}

/// Figures beside those that are checked in.
#[derive(Debug)]
pub struct Comparison {
    rows: Vec<Row>,
    different: Vec<String>,
}

#[derive(Debug)]
struct Row {
    name: String,
    figure: Option<Figure>,
    before: Option<Figure>,
}

/// What is to be said of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// So much better that the checked-in figure guards nothing any more.
    Better,
    MoreInstructions,
    MoreAllocations,
    /// It is in the file and no scenario, or the other way round.
    Unpaired,
}

impl Row {
    /// The growth of the instructions, in parts of a hundred.
    fn growth(&self) -> Option<f64> {
        Some((self.figure?.instructions / self.before?.instructions - 1.0) * 100.0)
    }

    fn verdict(&self) -> Verdict {
        let (Some(figure), Some(before)) = (self.figure, self.before) else { return Verdict::Unpaired };
        let tolerance = before.instructions * TOLERANCE_PERCENT / 100.0;
        if figure.instructions > before.instructions + tolerance {
            Verdict::MoreInstructions
        } else if figure.allocations > before.allocations + MORE_ALLOCATIONS {
            Verdict::MoreAllocations
        } else if figure.instructions < before.instructions - tolerance {
            Verdict::Better
        } else {
            Verdict::Fine
        }
    }
}

impl Comparison {
    /// Whether nothing costs more than it may.
    pub fn is_passed(&self) -> bool {
        self.rows.iter().all(|row| matches!(row.verdict(), Verdict::Fine | Verdict::Better))
    }

    /// Whether the figures that are checked in are out of date, for the better.
    pub fn is_better(&self) -> bool {
        self.rows.iter().any(|row| row.verdict() == Verdict::Better)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<22} {:>12} {:>12} {:>9}  allocations", "scenario", "instructions", "checked in", "growth")?;
        for row in &self.rows {
            let number =
                |figure: Option<Figure>| figure.map_or("-".to_owned(), |figure| format!("{:.1}", figure.instructions));
            let growth = row.growth().map_or("-".to_owned(), |growth| format!("{growth:+.1} %"));
            write!(f, "{:<22} {:>12} {:>12} {growth:>9}", row.name, number(row.figure), number(row.before))?;
            let allocations = row.figure.map_or("-".to_owned(), |figure| format!("{:.3}", figure.allocations));
            let before = row.before.map_or("-".to_owned(), |before| format!("{:.3}", before.allocations));
            write!(f, "  {allocations} ({before})")?;
            writeln!(
                f,
                "{}",
                match row.verdict() {
                    Verdict::Fine => "",
                    Verdict::Better => "  better: update the checked-in figure",
                    Verdict::MoreInstructions => "  FAILED: too many instructions",
                    Verdict::MoreAllocations => "  FAILED: more allocations",
                    Verdict::Unpaired => "  FAILED: not in both",
                }
            )?;
        }
        self.different.iter().try_for_each(|line| writeln!(f, "not the same: {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(change: impl Fn(&str) -> Option<(f64, f64)>) -> Figures {
        let pairs = SCENARIOS.iter().filter_map(|scenario| {
            let (instructions, allocations) = change(scenario.name)?;
            Some((scenario.name.to_owned(), Figure { instructions, allocations }))
        });
        Figures { made_with: BTreeMap::new(), scenarios: pairs.collect() }
    }

    /// All scenarios at 1000 instructions, except one.
    fn with_one(instructions: f64, allocations: f64) -> Figures {
        figures(|name| Some(if name == "mux-ask" { (instructions, allocations) } else { (1000.0, 0.0) }))
    }

    #[test]
    fn at_the_tolerance_and_past_it() {
        let before = with_one(1000.0, 0.0);
        for (instructions, allocations, is_passed) in [
            (1000.0, 0.0, true),
            (1050.0, 0.0, true),
            (1050.1, 0.0, false),
            (1000.0, MORE_ALLOCATIONS, true),
            (1000.0, 1.0, false),
            (500.0, 0.0, true),
            (500.0, 1.0, false),
        ] {
            let comparison = with_one(instructions, allocations).against(&before);
            assert_eq!(comparison.is_passed(), is_passed, "{comparison}");
        }
        assert!(with_one(949.0, 0.0).against(&before).is_better());
        assert!(!with_one(951.0, 0.0).against(&before).is_better());
    }

    #[test]
    fn the_table_names_what_has_grown() {
        let table = with_one(1100.0, 0.0).against(&with_one(1000.0, 0.0)).to_string();
        let row = table.lines().find(|line| line.starts_with("mux-ask")).expect("it has a row");
        assert!(row.contains("1100.0") && row.contains("1000.0") && row.contains("+10.0 %") && row.contains("FAILED"));
        assert_eq!(table.matches("FAILED").count(), 1);
    }

    #[test]
    fn a_scenario_that_is_new_or_gone_is_noticed() {
        let all = with_one(1.0, 0.0);
        let without = figures(|name| (name != "reply").then_some((1000.0, 0.0)));
        assert!(!all.against(&without).is_passed(), "it has no figure");
        let mut more = all.clone();
        more.scenarios.insert("gone".to_owned(), Figure { instructions: 1.0, allocations: 0.0 });
        assert!(!all.against(&more).is_passed(), "the figure has no scenario");
    }

    #[test]
    fn tools_of_another_version_are_named() {
        let (mut now, mut then) = (with_one(1.0, 0.0), with_one(1.0, 0.0));
        now.made_with.insert("compiler".to_owned(), "two".to_owned());
        then.made_with.insert("compiler".to_owned(), "one".to_owned());
        let comparison = now.against(&then);
        assert!(comparison.is_passed() && comparison.to_string().contains("compiler: two now, one when"));
    }

    #[test]
    fn both_runs_are_whole_turns() {
        for scenario in SCENARIOS {
            assert!(JOBS.0.is_multiple_of(scenario.jobs_per_turn) && JOBS.1.is_multiple_of(scenario.jobs_per_turn));
        }
    }
}
