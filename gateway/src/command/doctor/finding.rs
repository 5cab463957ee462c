//! What a check has found, and how it is printed.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::super::Failure;
use super::super::check::counted;
use super::super::table::write_table;

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As it should be.
    Ok,
    /// It works now, and may not later or not for everybody.
    Warning,
    /// It does not work.
    Failed,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    /// What was looked at: `limits`, `TCP`.
    pub(super) check: &'static str,
    /// Which one: a file, a machine, a key.
    pub(super) about: String,
    pub(super) verdict: Verdict,
    pub(super) what: String,
    /// What to do; empty where nothing is to be done.
    pub(super) fix: String,
}

// Callers have no use any more for what they name.
#[allow(clippy::needless_pass_by_value)]
impl Finding {
    pub(super) fn ok(check: &'static str, about: impl ToString, what: impl Into<String>) -> Self {
        Self { check, about: about.to_string(), verdict: Verdict::Ok, what: what.into(), fix: String::new() }
    }

    pub(super) fn warning(
        check: &'static str,
        about: impl ToString,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { check, about: about.to_string(), verdict: Verdict::Warning, what: what.into(), fix: fix.into() }
    }

    pub(super) fn failed(
        check: &'static str,
        about: impl ToString,
        what: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { check, about: about.to_string(), verdict: Verdict::Failed, what: what.into(), fix: fix.into() }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.verdict == Verdict::Failed
    }
}

/// All findings, for programs.
pub(super) fn to_json(file: &Path, findings: &[Finding]) -> Value {
    let list = findings.iter().map(|finding| {
        let Finding { check, about, verdict, what, fix } = finding;
        json!({ "check": check, "about": about, "result": verdict.name(), "what": what, "fix": fix })
    });
    json!({
        "file": file,
        "ok": !findings.iter().any(Finding::has_failed),
        "findings": list.collect::<Vec<_>>(),
    })
}

/// All findings, for people: a table, and below it what to do, the worst last, where it is seen first.
pub(super) fn write_findings(out: &mut dyn Write, findings: &[Finding]) -> Result<(), Failure> {
    let rows: Vec<_> = findings
        .iter()
        .map(|finding| {
            let what = if finding.verdict == Verdict::Ok { finding.what.clone() } else { "see below".to_owned() };
            [finding.verdict.name().to_owned(), finding.check.to_owned(), finding.about.clone(), what]
        })
        .collect();
    write_table(out, ["result", "check", "about", ""], &rows)?;
    for verdict in [Verdict::Warning, Verdict::Failed] {
        for finding in findings.iter().filter(|finding| finding.verdict == verdict) {
            writeln!(out, "\n{}: {}: {}: {}", verdict.name(), finding.check, finding.about, finding.what)?;
            writeln!(out, "  fix: {}", finding.fix)?;
        }
    }
    let count = |verdict: Verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let warnings = counted(count(Verdict::Warning), "warning");
    writeln!(out, "\n{} ok, {warnings}, {} failed", count(Verdict::Ok), count(Verdict::Failed))?;
    Ok(())
}
