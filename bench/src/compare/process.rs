//! A process of the comparison: it never outlives its guard, and its processor time can be read.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::family::{self, descendants};

/// How long a process may take to say that it is ready.
const READY: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// A running process with a name for messages.
pub(crate) struct Process {
    name: String,
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
    started: Instant,
}

impl Process {
    /// Starts `command`; what it prints to standard error goes to a file in `folder`. Its standard input stays open.
    pub(crate) fn start(name: &str, folder: &Path, command: &mut Command) -> anyhow::Result<Self> {
        let log = folder.join(format!("{}.log", plain(name)));
        let stderr = File::create(&log).with_context(|| format!("{} can not be written", log.display()))?;
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("{name} ({}) does not start", command.get_program().display()))?;
        running.insert(child.id());
        drop(running);
        let stdout = child.stdout.take().ok_or_else(|| anyhow!("{name} has no standard output"))?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // Whoever does not want the lines leaves; the process may print on.
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Ok(Self { name: name.to_owned(), child, lines, log, started })
    }

    /// Waits for a line of standard output that starts with `prefix`; gives what follows it, and how long after the start it came.
    pub(crate) fn line(&mut self, prefix: &str) -> anyhow::Result<(String, Duration)> {
        let deadline = Instant::now() + READY;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(prefix) {
                        return Ok((rest.to_owned(), self.started.elapsed()));
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Err(self.failed("is not ready in time")),
                Err(RecvTimeoutError::Disconnected) => return Err(self.failed("ended before it was ready")),
            }
        }
    }

    /// Waits until `probe` gives a value; fails when the process ends first or takes too long.
    pub(crate) fn until<T>(&mut self, mut probe: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + READY;
        loop {
            if let Some(value) = probe() {
                return Ok(value);
            }
            if self.child.try_wait()?.is_some() {
                return Err(self.failed("ended before it was ready"));
            }
            if Instant::now() > deadline {
                return Err(self.failed("is not ready in time"));
            }
            std::thread::sleep(POLL);
        }
    }

    fn failed(&self, what: &str) -> anyhow::Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(10).collect();
        anyhow!("{} {what}: {}", self.name, last.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that its threads have used.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(self.id())
    }

    /// Processor time that everything has used that it started and that still runs, itself included.
    pub(crate) fn cpu_of_tree(&self) -> anyhow::Result<Duration> {
        let mut sum = self.cpu()?;
        for process in descendants(self.id()) {
            // One that has ended since has used what it had.
            sum += cpu(process).unwrap_or_default();
        }
        Ok(sum)
    }

    /// Files and sockets that it has open.
    pub(crate) fn open_files(&self) -> anyhow::Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.id()))?.count())
    }

    /// Waits until it has no more than so many open.
    pub(crate) fn until_open_files(&self, most: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        while self.open_files()? > most {
            if Instant::now() > deadline {
                return Err(self.failed("does not close its callers' connections"));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Memory that it has in use, in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes =
            line.and_then(|line| line.trim().strip_suffix("kB")).and_then(|kb| kb.trim().parse::<u64>().ok());
        kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| anyhow!("{} has no VmRSS", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        family::kill(self.id());
        // It has been killed; there is nothing else to learn from its end.
        let _ = self.child.wait();
        RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id());
    }
}

/// What runs now, for [`end_with_signals`].
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// From now on a signal that ends this process ends those that it started, too, and removes `folder`.
pub(crate) fn end_with_signals(folder: PathBuf) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let within = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    drop(within);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        // Held from here on, so that nothing new is started.
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        running.iter().for_each(|process| drop(family::kill(*process)));
        // What is left of it is the system's to tidy up.
        let _ = fs::remove_dir_all(folder);
        std::process::exit(1);
    });
    Ok(())
}

/// A name as a file may have it.
pub(crate) fn plain(name: &str) -> String {
    name.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// Processor time of this process. Threads of the load generator come and go, so it is the count that includes those that have ended.
pub(crate) fn own_cpu() -> anyhow::Result<Duration> {
    ticks(std::process::id())
}

/// The processor time of a process' threads, from the scheduler's own count in nanoseconds; where the kernel keeps none, from the
/// clock ticks.
fn cpu(process: u32) -> anyhow::Result<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let Ok(counted) = fs::read_to_string(task?.path().join("schedstat")) else {
            return ticks(process);
        };
        let on_processor = counted.split_whitespace().next().and_then(|count| count.parse::<u64>().ok());
        sum += on_processor.ok_or_else(|| anyhow!("schedstat of {process} does not parse: {counted:?}"))?;
    }
    if sum == 0 { ticks(process) } else { Ok(Duration::from_nanos(sum)) }
}

fn ticks(process: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the program's name in parentheses and may hold anything.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let (Some(user), Some(system)) = (fields.get(11), fields.get(12)) else {
        bail!("/proc/{process}/stat has too few fields");
    };
    let ticks: u64 = user.parse::<u64>()? + system.parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_grows_with_work() {
        let before = cpu(std::process::id()).expect("Linux tells");
        let mut sum = 0u64;
        let started = Instant::now();
        while cpu(std::process::id()).expect("Linux tells") == before {
            sum = (0..1_000_000).fold(sum, |sum, n| std::hint::black_box(sum.wrapping_add(n)));
            assert!(started.elapsed() < READY, "no processor time was counted for {sum}");
        }
    }

    #[test]
    fn what_a_process_says_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut script = Command::new("sh");
        let mut process =
            Process::start("a script", folder.path(), script.args(["-c", "echo first; echo ready 7; cat"]))
                .expect("sh is there");
        assert_eq!(process.line("ready ").expect("it says so").0, "7");
        assert!(process.resident().expect("it runs") > 0);
        let mut ends = Command::new("sh");
        let mut ends =
            Process::start("ends", folder.path(), ends.args(["-c", "echo broken >&2"])).expect("sh is there");
        assert!(ends.line("ready ").expect_err("it never says so").to_string().contains("broken"));
    }
}
