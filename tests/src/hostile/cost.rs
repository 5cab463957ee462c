//! What a process takes of the machine, from `/proc`.

use std::fs;
use std::time::Duration;

/// One look at a process.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Memory that it occupies, in KiB.
    pub resident: u64,
    /// The most that it occupied since [`forget_peak`].
    pub peak: u64,
    /// Processor time since it began, of all its threads.
    pub cpu: Duration,
}

impl Cost {
    /// Looks.
    pub fn of(process: u32) -> Self {
        let status = read(process, "status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let value = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
            value.unwrap_or_else(|| panic!("/proc/{process}/status lacks {name}"))
        };
        let stat = read(process, "stat");
        // The name, in parentheses, may have blanks in it.
        let after_name = stat.rsplit_once(')').expect("the name ends").1;
        let ticks: u64 =
            after_name.split_whitespace().skip(11).take(2).map(|word| word.parse::<u64>().expect("ticks")).sum();
        let cpu = Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
        Self { resident: field("VmRSS:"), peak: field("VmHWM:"), cpu }
    }
}

/// Begins to look for a process's peak anew.
pub fn forget_peak(process: u32) {
    fs::write(format!("/proc/{process}/clear_refs"), "5").expect("one's own process can be told so");
}

fn read(process: u32, file: &str) -> String {
    let path = format!("/proc/{process}/{file}");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}
