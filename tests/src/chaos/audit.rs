//! The audit: what callers were told, against what ran.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
};

use time::OffsetDateTime;

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
        let mut audit = Audit::of(self);
        audit.judge();
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
    fn of(truth: &'a Truth) -> Self {
        Self { truth, jobs: Vec::new(), runs: HashMap::new(), offences: Vec::new() }
    }

    fn judge(&mut self) {
        self.read_journals();
        self.truth.accounts.iter().for_each(|account| self.read_account(account));
        self.judge_runs();
        self.judge_values();
    }

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
        for (what, from, until) in offences {
            self.offend(what, from, until);
        }
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
        for (what, from, until) in offences {
            self.offend(what, from, until);
        }
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
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time) * 1_000_000).expect("a time of our days");
    let (hour, minute, second, millis) = at.time().as_hms_milli();
    format!("{}T{hour:02}:{minute:02}:{second:02}.{millis:03}", at.date())
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

    const JOB: &str = "caller-1.1/n/7";

    /// A caller handed one job over and noted `told`; the job ran so often in the first machine and in the second.
    fn audit_of(job: &str, told: impl Into<Option<Event>>, runs: [usize; 2]) -> Vec<String> {
        let events = [Some(Event::Connected), Some(Event::Submitted(job.to_owned())), told.into()];
        let events = events.into_iter().flatten().zip(1..).map(|(event, time)| (time, event)).collect();
        let journal = |runs| if runs > 0 { HashMap::from([(job.to_owned(), runs)]) } else { HashMap::new() };
        let truth = Truth {
            accounts: vec![Account { label: "legacy, Unix", kind: Kind::Wire, events, was_killed: false }],
            journals: vec![journal(runs[0]), journal(runs[1]), HashMap::new()],
            starts: vec![1, 1, 1],
            gaps: vec![Gap { manner: Manner::Terminated, from: 3, until: 4, ready: 5 }],
            log: String::new(),
        };
        let mut audit = Audit::of(&truth);
        audit.judge();
        audit.offences.into_iter().map(|offence| offence.what).collect()
    }

    fn replied(value: u64, machine: &str) -> Event {
        Event::Replied(JOB.to_owned(), value, machine.to_owned())
    }

    fn failed(may_have_run: bool) -> Event {
        Event::Failed(JOB.to_owned(), "SOME_REASON".to_owned(), may_have_run)
    }

    fn lost(job: &str) -> Event {
        Event::Lost(job.to_owned(), "end of file".to_owned())
    }

    #[test]
    fn honest_outcomes_are_no_offence() {
        assert!(audit_of(JOB, replied(1, "hsm-a"), [1, 0]).is_empty());
        assert!(audit_of(JOB, replied(1, "-"), [0, 1]).is_empty());
        assert!(audit_of(JOB, failed(true), [1, 0]).is_empty());
        assert!(audit_of(JOB, failed(true), [0, 0]).is_empty());
        assert!(audit_of(JOB, failed(false), [0, 0]).is_empty());
        assert!(audit_of(JOB, lost(JOB), [0, 0]).is_empty());
        let idempotent = "caller-1.1/i/7";
        let told = Event::Replied(idempotent.to_owned(), 1, "hsm-b".to_owned());
        assert!(audit_of(idempotent, Some(told), [2, 1]).is_empty());
    }

    #[test]
    fn a_job_that_is_lost_or_ran_twice_or_was_lied_about_is_an_offence() {
        let offends = |told: Option<Event>, runs, word: &str| {
            let offences = audit_of(JOB, told, runs);
            assert!(offences.iter().any(|what| what.contains(word)), "no offence has {word:?}: {offences:?}");
        };
        offends(None, [0, 0], "is lost");
        offends(Some(replied(1, "-")), [1, 1], "ran 2 times");
        offends(Some(failed(true)), [2, 0], "ran 2 times");
        offends(Some(failed(false)), [1, 0], "certainly did not");
        offends(Some(replied(1, "-")), [0, 0], "never ran");
        offends(Some(replied(1, "hsm-a")), [0, 1], "in which it never ran");
        offends(Some(replied(2, "hsm-a")), [1, 0], "the count 2");
        offends(Some(lost(JOB)), [1, 0], "had time to finish");
        offends(Some(Event::Replied("caller-1.1/n/8".to_owned(), 1, "-".to_owned())), [1, 0], "second outcome");
        let idempotent = "caller-1.1/i/7";
        let told = Event::Failed(idempotent.to_owned(), "OUTCOME_UNKNOWN".to_owned(), true);
        assert!(audit_of(idempotent, Some(told), [2, 2])[0].contains("ran 4 times"));
    }

    #[test]
    fn jobs_that_nobody_handed_over_and_counts_told_twice_are_offences() {
        let events = |job: &str| {
            let (submitted, replied) =
                (Event::Submitted(job.to_owned()), Event::Replied(job.to_owned(), 1, "-".to_owned()));
            vec![(1, Event::Connected), (2, submitted), (3, replied)]
        };
        let account = |job| Account { label: "legacy, TCP", kind: Kind::Wire, events: events(job), was_killed: false };
        let truth = Truth {
            accounts: ["a.1/n/1", "b.1/n/1", "c.1/n/1", "d.1/n/1"].into_iter().map(account).collect(),
            journals: vec![
                ["a.1/n/1", "b.1/n/1", "c.1/n/1", "d.1/n/1", "e.1/n/1"].map(|job| (job.to_owned(), 1)).into(),
                HashMap::new(),
                HashMap::new(),
            ],
            starts: vec![1, 1, 1],
            gaps: Vec::new(),
            log: String::new(),
        };
        let mut audit = Audit::of(&truth);
        audit.judge();
        let what: Vec<_> = audit.offences.iter().map(|offence| offence.what.as_str()).collect();
        assert!(what.iter().any(|what| what.contains("e.1/n/1 ran") && what.contains("no caller")), "{what:?}");
        assert!(what.iter().any(|what| what.contains("told 4 times by 3 processes")), "{what:?}");
    }
}
