//! On what the comparison ran.

use std::{fs, path::Path, process::Command};

use serde::Serialize;

/// The machine and what was installed on it.
#[derive(Debug, Clone, Serialize)]
pub struct Host {
    /// Its processor.
    pub processor: String,
    /// How many cores it has.
    pub cores: usize,
    /// Memory, in mebibytes.
    pub memory_mib: u64,
    /// The operating system and its kernel.
    pub system: String,
    /// The OpenSSH client's version; the server's is of the same installation.
    pub openssh: String,
    /// The gateway's version.
    pub seeway: String,
    /// When it began, in UTC.
    pub date: String,
    /// The system's load over a minute: before the run, and after it, when it is the run's own.
    pub load_average: [f64; 2],
}

impl Host {
    /// What it is now.
    pub(crate) fn look(seeway: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned()).unwrap_or_default()
        };
        let kilobytes = field(&read("/proc/meminfo"), "MemTotal");
        let kilobytes: u64 = kilobytes.split_whitespace().next().and_then(|kb| kb.parse().ok()).unwrap_or_default();
        let name = field(&read("/etc/os-release"), "PRETTY_NAME").trim_matches(['=', '"']).to_owned();
        let load = load_average();
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_mib: kilobytes / 1024,
            system: format!("{name}, Linux {}", said(Command::new("uname").arg("-r"))),
            openssh: said(Command::new("ssh").arg("-V")),
            seeway: said(Command::new(seeway).arg("--version")),
            date: said(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M"])),
            load_average: [load, load],
        }
    }

    /// Takes the load at the end.
    pub(crate) fn end(&mut self) {
        self.load_average[1] = load_average();
    }
}

fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

/// What a command says in its first line, on either stream; nothing where it can not be run.
fn said(command: &mut Command) -> String {
    let Ok(output) = command.output() else {
        return String::new();
    };
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}
