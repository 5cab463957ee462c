//! The audit: what callers were told, against what ran.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
};

use super::{
    caller::Kind,
    ledger::{Event, Millis},
    scene::{Gap, MACHINES, MAX_ATTEMPTS, Manner},
};

/// Offences that are shown in full.
const SHOWN: usize = 10;
/// Lines of the gateway's log that are shown around an offence.
const SHOWN_LINES: usize = 60;
/// How long after a new gateway is ready a caller may still notice the end of the old one: those that were halted do so late.
const ECHO: Millis = 5_000;

/// One caller's ledger.
pub struct Account {
    /// What kind of caller it is.
    pub label: &'static str,
    /// How it calls.
    pub kind: Kind,
    /// What it noted.
    pub events: Vec<(Millis, Event)>,
    /// Whether it was killed, and had no time to note more.
    pub was_killed: bool,
}

/// Everything that is known when all is over.
pub struct Truth {
    /// The callers' ledgers.
    pub accounts: Vec<Account>,
    /// How often each job ran, in each machine.
    pub journals: Vec<HashMap<String, usize>>,
    /// Processes that each machine was; each counts from 1.
    pub starts: Vec<usize>,
    /// Times without a gateway.
    pub gaps: Vec<Gap>,
    /// What the gateways logged.
    pub log: String,
}

/// What became of a job by its caller's ledger.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Replied { machine: String, value: u64 },
    Failed { reason: String, may_have_run: bool },
    Nothing(Why, String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    GatewayTerminated,
    GatewayKilled,
    CallerKilled,
    GaveUp,
}

struct Job<'a> {
    label: &'static str,
    id: &'a str,
    submitted: Millis,
    told_at: Millis,
    told: Told,
}

impl Job<'_> {
    fn is_idempotent(&self) -> bool {
        self.id.contains("/i/")
    }

    fn outcome(&self) -> String {
        match &self.told {
            Told::Replied { .. } => "replied".to_owned(),
            Told::Failed { reason, may_have_run: true } => format!("unknown: {reason}"),
            Told::Failed { reason, may_have_run: false } => format!("did not run: {reason}"),
            Told::Nothing(Why::GatewayKilled, _) => "told nothing: the gateway was killed".to_owned(),
            Told::Nothing(Why::GatewayTerminated, _) => "told nothing: the gateway had ended".to_owned(),
            Told::Nothing(Why::CallerKilled, _) => "told nothing: the caller was killed".to_owned(),
            Told::Nothing(Why::GaveUp, _) => "told nothing: the caller's own deadline came first".to_owned(),
        }
    }
}

/// An offence: what is wrong, and when it happened.
struct Offence {
    what: String,
    from: Millis,
    until: Millis,
}

/// The audit in progress.
struct Audit<'a> {
    truth: &'a Truth,
    jobs: Vec<Job<'a>>,
    runs: HashMap<String, [usize; MACHINES.len()]>,
    offences: Vec<Offence>,
}

impl Truth {
    /// Prints what became of the jobs. Panics when one is lost, ran twice, or was lied about; says which, and what the gateway logged.
    pub fn audit(&self) {
        let mut audit = Audit { truth: self, jobs: Vec::new(), runs: HashMap::new(), offences: Vec::new() };
        audit.read_journals();
        self.accounts.iter().for_each(|account| audit.read_account(account));
        audit.judge_runs();
        audit.judge_values();
        println!("\n{}", audit.table());
        if audit.offences.is_empty() {
            return;
        }
        for Gap { manner, from, until, ready } in &self.gaps {
            println!(
                "a gateway was {manner:?} at {}, gone at {}, replaced at {}",
                utc(*from),
                utc(*until),
                utc(*ready)
            );
        }
        let count = audit.offences.len();
        audit.offences.sort_by_key(|offence| offence.from);
        for Offence { what, from, until } in audit.offences.iter().take(SHOWN) {
            println!("OFFENCE: {what}\n  between {} and {}", utc(*from), utc(*until));
            self.log_between(from.saturating_sub(1_000), until + 1_000).for_each(|line| println!("    {line}"));
        }
        let all: Vec<&str> = audit.offences.iter().map(|offence| offence.what.as_str()).take(100).collect();
        panic!("{count} offences against the promise of one honest outcome:\n{}", all.join("\n"));
    }

    fn log_between(&self, from: Millis, until: Millis) -> impl Iterator<Item = &str> {
        let (from, until) = (utc(from), utc(until));
        let within = move |line: &&str| {
            line.get(..from.len()).is_some_and(|time| (from.as_str()..=until.as_str()).contains(&time))
        };
        self.log.lines().map(str::trim_start).filter(within).take(SHOWN_LINES)
    }

    /// The first end of a gateway that someone can have met who found it alive at `since`.
    fn gap_after(&self, since: Millis) -> Option<&Gap> {
        self.gaps.iter().find(|gap| gap.until >= since)
    }
}

impl<'a> Audit<'a> {
    fn offend(&mut self, what: String, from: Millis, until: Millis) {
        self.offences.push(Offence { what, from, until });
    }

    fn read_journals(&mut self) {
        for (machine, journal) in self.truth.journals.iter().enumerate() {
            for (line, runs) in journal {
                self.runs.entry(job_of(line)).or_default()[machine] += runs;
            }
        }
    }

    fn read_account(&mut self, account: &'a Account) {
        let label = account.label;
        let mut out: HashMap<&str, Millis> = HashMap::new();
        let mut seen: HashSet<&str> = HashSet::new();
        let mut connected = 0;
        for (time, event) in &account.events {
            let (id, told) = match event {
                Event::Connected => {
                    connected = *time;
                    continue;
                }
                Event::Submitted(id) => {
                    assert!(seen.insert(id), "the test handed over {id} twice");
                    out.insert(id, *time);
                    continue;
                }
                Event::Disconnected(why) => {
                    // A connection for unary calls mends itself, unnoticed; so there only the time at which it was noticed counts.
                    let met = |gap: &Gap| match account.kind {
                        Kind::Unary => (gap.from..=gap.ready + ECHO).contains(time),
                        Kind::Wire | Kind::Stream => gap.until >= connected && gap.from <= *time,
                    };
                    if !self.truth.gaps.iter().any(met) {
                        let what = format!("{label}: a connection was lost while its gateway lived: {why}");
                        self.offend(what, connected, *time);
                    }
                    continue;
                }
                Event::Replied(id, value, machine) => (id, Told::Replied { machine: machine.clone(), value: *value }),
                Event::Failed(id, reason, may_have_run) => {
                    (id, Told::Failed { reason: reason.clone(), may_have_run: *may_have_run })
                }
                Event::Lost(id, reason) => {
                    let alive = match account.kind {
                        Kind::Unary => out.get(id.as_str()).copied().unwrap_or(*time),
                        Kind::Wire | Kind::Stream => connected,
                    };
                    let manner = self.truth.gap_after(alive).map(|gap| gap.manner);
                    let why =
                        if manner == Some(Manner::Terminated) { Why::GatewayTerminated } else { Why::GatewayKilled };
                    (id, Told::Nothing(why, reason.clone()))
                }
                Event::GaveUp(id) => (id, Told::Nothing(Why::GaveUp, String::new())),
            };
            let Some(submitted) = out.remove(id.as_str()) else {
                self.offend(format!("{id} has a second outcome, or was never handed over: {told:?}"), *time, *time);
                continue;
            };
            self.jobs.push(Job { label, id, submitted, told_at: *time, told });
        }
        for (id, submitted) in out {
            if account.was_killed {
                let told_at = account.events.last().map_or(submitted, |(time, _)| *time);
                self.jobs.push(Job {
                    label,
                    id,
                    submitted,
                    told_at,
                    told: Told::Nothing(Why::CallerKilled, String::new()),
                });
            } else {
                self.offend(
                    format!("{id} is lost: its caller was told nothing, and its connection stood"),
                    submitted,
                    submitted,
                );
            }
        }
    }

    fn judge_runs(&mut self) {
        let mut offences = Vec::new();
        let known: HashSet<&str> = self.jobs.iter().map(|job| job.id).collect();
        for (id, runs) in self.runs.iter().filter(|(id, _)| !known.contains(id.as_str())) {
            offences.push((format!("{id} ran ({runs:?}), and no caller has an outcome of it"), 0, 0));
        }
        for job in &self.jobs {
            let in_each = self.runs.get(job.id).copied().unwrap_or_default();
            let runs: usize = in_each.iter().sum();
            let most = if job.is_idempotent() { MAX_ATTEMPTS } else { 1 };
            let wrong = match &job.told {
                _ if runs > most => format!("ran {runs} times, of {most}"),
                Told::Replied { .. } if runs == 0 => "has a reply and never ran".to_owned(),
                Told::Replied { machine, .. }
                    if MACHINES.iter().zip(in_each).any(|(name, runs)| name == machine && runs == 0) =>
                {
                    "has a reply of a machine in which it never ran".to_owned()
                }
                Told::Failed { may_have_run: false, .. } if runs > 0 => {
                    "ran, and its caller was told that it certainly did not".to_owned()
                }
                Told::Nothing(Why::GatewayTerminated, why) if runs > 0 => {
                    format!(
                        "ran in a gateway that had time to finish its jobs, and its caller was told nothing ({why})"
                    )
                }
                _ => continue,
            };
            let what =
                format!("{} ({}, {}) {wrong}; runs in {MACHINES:?}: {in_each:?}", job.id, job.label, job.outcome());
            offences.push((what, job.submitted, job.told_at));
        }
        offences.into_iter().for_each(|(what, from, until)| self.offend(what, from, until));
    }

    /// A machine's processes count each from 1, so that a value is told once for each process at most, and none is more than what ran.
    fn judge_values(&mut self) {
        let ran: Vec<usize> = self.truth.journals.iter().map(|journal| journal.values().sum()).collect();
        let largest = ran.iter().copied().max().unwrap_or_default();
        let mut told: BTreeMap<(u64, Option<usize>), Vec<&Job<'a>>> = BTreeMap::new();
        let mut offences = Vec::new();
        for job in &self.jobs {
            let Told::Replied { machine, value } = &job.told else { continue };
            let machine = MACHINES.iter().position(|name| name == machine);
            let most = machine.map_or(largest, |machine| ran[machine]);
            if *value == 0 || usize::try_from(*value).is_ok_and(|value| value > most) {
                offences.push((
                    format!("{} was told the count {value}, and {most} jobs ran", job.id),
                    job.submitted,
                    job.told_at,
                ));
            }
            told.entry((*value, None)).or_default().push(job);
            if machine.is_some() {
                told.entry((*value, machine)).or_default().push(job);
            }
        }
        for ((value, machine), jobs) in told {
            let processes = machine.map_or(self.truth.starts.iter().sum(), |machine| self.truth.starts[machine]);
            if jobs.len() > processes {
                let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
                let what = format!("the count {value} was told {} times by {processes} processes: {ids:?}", jobs.len());
                offences.push((what, jobs[0].submitted, jobs[0].told_at));
            }
        }
        offences.into_iter().for_each(|(what, from, until)| self.offend(what, from, until));
    }

    /// Outcomes by kind of caller, and how many of each ran.
    fn table(&self) -> String {
        let labels: Vec<&str> = self.jobs.iter().map(|job| job.label).fold(Vec::new(), |mut labels, label| {
            if !labels.contains(&label) {
                labels.push(label);
            }
            labels
        });
        let mut rows: BTreeMap<String, (BTreeMap<&str, usize>, usize)> = BTreeMap::new();
        for job in &self.jobs {
            let ran = usize::from(self.runs.contains_key(job.id));
            for outcome in [job.outcome(), "~all jobs".to_owned()] {
                let (by_label, of_these_ran) = rows.entry(outcome).or_default();
                *by_label.entry(job.label).or_default() += 1;
                *of_these_ran += ran;
            }
        }
        let mut text = format!("{:55}", "outcome");
        for label in labels.iter().copied().chain(["all", "of these ran"]) {
            let _ = write!(text, "{label:>14}");
        }
        for (outcome, (by_label, ran)) in rows {
            let _ = write!(text, "\n{:55}", outcome.trim_start_matches('~'));
            for label in &labels {
                let _ = write!(text, "{:>14}", by_label.get(label).copied().unwrap_or_default());
            }
            let _ = write!(text, "{:>14}{ran:>14}", by_label.values().sum::<usize>());
        }
        for (name, (journal, starts)) in MACHINES.iter().zip(self.truth.journals.iter().zip(&self.truth.starts)) {
            let _ = write!(text, "\n{name}: {} runs in {starts} processes", journal.values().sum::<usize>());
        }
        let again = self.runs.values().filter(|runs| runs.iter().sum::<usize>() > 1).count();
        let _ = write!(text, "\n{again} jobs ran more than once; all of them must be idempotent");
        text
    }
}

/// The id of the job that a journal's line is of: what it begins with, up to a space where the line is in digits.
fn job_of(line: &str) -> String {
    let Some(digits) = line.strip_prefix("hex:") else { return line.to_owned() };
    let digits = digits.split('+').next().unwrap_or_default().as_bytes();
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = digits.chunks_exact(2).map_while(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?));
    bytes.take_while(|byte| *byte != b' ').map(char::from).collect()
}

/// A time as logs have it: `2026-11-23T22:46:30.123`.
fn utc(time: Millis) -> String {
    let (days, rest) = (time / 86_400_000, time % 86_400_000);
    // Days since the 1st of March of the year 0: leap days come last in years that begin in March.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (seconds, millis) = (rest / 1_000, rest % 1_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}", year + 400 * era + next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_logs_have_them() {
        assert_eq!(utc(0), "1970-01-01T00:00:00.000");
        assert_eq!(utc(951_782_399_999), "2000-02-28T23:59:59.999");
        assert_eq!(utc(951_782_400_000), "2000-02-29T00:00:00.000");
        assert_eq!(utc(1_795_473_990_123), "2026-11-23T22:46:30.123");
    }

    #[test]
    fn large_jobs_are_known_by_their_beginning() {
        assert_eq!(job_of("caller-1.1/n/7"), "caller-1.1/n/7");
        assert_eq!(job_of("hex:61622f6e2f372020+40000"), "ab/n/7");
    }
}
