//! A child process: what it prints is kept, its end is waited for, and it never outlives its guard.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use rustix::process::Signal;
use seeway_bench::family::{self, descendants, send};

use crate::wait;

/// Lines kept of what a process prints.
const KEPT_LINES: usize = 20_000;
/// Lines shown of it when its test fails.
const SHOWN_LINES: usize = 100;

/// A running process with a name for messages.
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Mutex<Output>>,
    readers: [JoinHandle<()>; 2],
}

#[derive(Default)]
struct Output {
    /// Both streams, in the order in which their lines came.
    lines: VecDeque<String>,
    /// Lines of standard output alone, not yet taken by [`Process::line`].
    unread: VecDeque<String>,
}

impl Process {
    /// Starts `command`. `name` is what messages call it.
    pub fn start(name: impl Into<String>, command: &mut Command) -> Self {
        let name = name.into();
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("can't start {name} ({program}): {error}"));
        let output = Arc::new(Mutex::new(Output::default()));
        let readers = [
            keep(child.stdout.take().expect("it was piped"), Arc::clone(&output), true),
            keep(child.stderr.take().expect("it was piped"), Arc::clone(&output), false),
        ];
        Self { name, child, output, readers }
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first line of standard output, since the last call, that starts with `prefix`; gives what follows it.
    /// Panics when the process ends first, or prints none within [`wait::BOUND`].
    pub fn line(&mut self, prefix: &str) -> String {
        self.line_within(prefix, wait::BOUND)
    }

    /// [`Self::line`] of a process that has more to do before it prints one.
    pub fn line_within(&mut self, prefix: &str, bound: Duration) -> String {
        let name = self.name.clone();
        wait::until(&format!("{name} prints a line that starts with {prefix:?}"), bound, || {
            let ended = self.try_exit().filter(|_| self.readers.iter().all(JoinHandle::is_finished));
            let found = {
                let mut output = self.output.lock().expect("no thread panics while it holds this");
                std::iter::from_fn(|| output.unread.pop_front())
                    .find_map(|line| line.strip_prefix(prefix).map(str::to_owned))
            };
            if found.is_none()
                && let Some(status) = ended
            {
                panic!("{name} ended with {status} before it was ready");
            }
            found
        })
    }

    /// Whether it has ended, and how.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap_or_else(|error| panic!("can't wait for {}: {error}", self.name))
    }

    /// Waits until it ends by itself, and until all that it printed has been read.
    pub fn exit(&mut self, bound: Duration) -> ExitStatus {
        wait::until(&format!("{} ends", self.name.clone()), bound, || {
            let status = self.try_exit()?;
            self.readers.iter().all(JoinHandle::is_finished).then_some(status)
        })
    }

    /// Sends it a signal, unless it has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.try_exit().is_none() {
            send(self.child.id(), signal);
        }
    }

    /// Sends everything that it started, and that is still its descendant, a signal, but not itself.
    pub fn signal_descendants(&self, signal: Signal) {
        for process in descendants(self.child.id()) {
            send(process, signal);
        }
    }

    /// Kills it alone and waits until it is gone; what it started lives on.
    pub fn kill_alone(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap_or_else(|error| panic!("can't wait for {}: {error}", self.name));
    }

    /// Kills it and everything it started, at once, and waits until all of that is gone: a server's connection may have its socket
    /// for a moment longer than the server.
    pub fn kill(&mut self) {
        if self.try_exit().is_some() {
            return;
        }
        let descendants = family::kill(self.child.id());
        self.child.wait().unwrap_or_else(|error| panic!("can't wait for {}: {error}", self.name));
        wait::until("what was killed is gone", wait::BOUND, || {
            descendants.iter().all(|descendant| family::has_ended(*descendant)).then_some(())
        });
    }

    /// Files, sockets and pipes that it holds open.
    pub fn open_files(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.id());
        fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("can't count the open files of {} in {folder}: {error}", self.name))
            .count()
    }

    /// The last lines that it printed, on both streams.
    pub fn tail(&self, lines: usize) -> String {
        let output = self.output.lock().expect("no thread panics while it holds this");
        let skipped = output.lines.len().saturating_sub(lines);
        output.lines.iter().skip(skipped).flat_map(|line| ["  ", line, "\n"]).collect()
    }

    /// Everything that it printed, on both streams, as far back as is kept.
    pub fn log(&self) -> String {
        self.tail(KEPT_LINES)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- the last lines of {}:\n{}", self.name, self.tail(SHOWN_LINES));
        }
    }
}

fn keep(stream: impl Read + Send + 'static, output: Arc<Mutex<Output>>, is_stdout: bool) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            let mut output = output.lock().expect("no thread panics while it holds this");
            if output.lines.len() == KEPT_LINES {
                output.lines.pop_front();
            }
            if is_stdout && output.unread.len() < KEPT_LINES {
                output.unread.push_back(text.clone());
            }
            output.lines.push_back(text);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_what_it_started_even_in_sessions_of_their_own() {
        let mut shell =
            Process::start("a shell", Command::new("sh").args(["-c", "setsid sleep 1000 & echo started $!; wait"]));
        let sleeper: u32 = shell.line("started ").parse().expect("a process id");
        wait::until("the sleeper runs", wait::BOUND, || family::parent(sleeper));
        assert!(!family::has_ended(sleeper));
        shell.kill();
        assert!(family::has_ended(sleeper));
    }

    #[test]
    fn tells_how_a_process_ended() {
        let mut process = Process::start("a shell", Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]));
        assert_eq!(process.exit(wait::BOUND).code(), Some(3));
        wait::until("both lines are kept", wait::BOUND, || (process.log().lines().count() == 2).then_some(()));
    }
}
