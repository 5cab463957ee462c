//! A process and what it started, which may have left its process group: an SSH server's connections do. Used by the comparison
//! and by the tests.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// Sends a process a signal. One that has ended meanwhile is what a signal is after.
pub fn send(process: u32, signal: Signal) {
    if let Some(id) = i32::try_from(process).ok().and_then(Pid::from_raw) {
        let _ = kill_process(id, signal);
    }
}

/// Kills a process and all that it started, which it returns. It is halted first, so that nothing is added meanwhile.
pub fn kill(process: u32) -> Vec<u32> {
    send(process, Signal::STOP);
    let descendants = descendants(process);
    for descendant in &descendants {
        send(*descendant, Signal::KILL);
    }
    send(process, Signal::KILL);
    descendants
}

/// Whether a process has ended, and let go of its files and sockets. Whoever inherited it may take a while to fetch its end.
pub fn has_ended(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

/// All that a process started and that are still its descendants.
pub fn descendants(root: u32) -> Vec<u32> {
    let Ok(all) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let parents: Vec<(u32, u32)> = all
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|process: u32| Some((process, parent(process)?)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&process) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == process).map(|(child, _)| *child));
        next += 1;
    }
    found.split_off(1)
}

/// The parent of a process that runs.
pub fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the program's name in parentheses and may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
