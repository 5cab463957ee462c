//! Figures of this process, by the names that Prometheus's client libraries use. For the metrics page.
//!
//! The sandbox leaves `/proc` to nobody, so its files are opened before the process is confined, and read again from then on.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags, RawDir, SeekFrom};
use rustix::process::{Resource, getrlimit};
use rustix::time::ClockId;

/// What is read of the process while it runs.
#[derive(Debug)]
pub struct ProcessFiles {
    stat: File,
    /// The folder of open files. Its descriptor has one position, so it is read by one at a time.
    descriptors: Mutex<File>,
    /// Seconds since 1970 when the system was started.
    system_started: f64,
}

/// The process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessFigures {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) open_descriptors: u64,
    /// `None` where there is no limit.
    pub(super) most_descriptors: Option<u64>,
    pub(super) threads: u64,
    /// Seconds since 1970.
    pub(super) started: f64,
}

/// `/proc/self/stat` has far fewer bytes than this.
const MOST_STAT: usize = 4096;

impl ProcessFiles {
    /// Opens the files of this process.
    ///
    /// # Errors
    /// There is no `/proc`, or it hides the process from itself.
    pub fn open() -> io::Result<Self> {
        let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptors = rustix::fs::open("/proc/self/fd", folder, Mode::empty())?;
        // Not from /proc/stat: where `ProcSubset=pid` is set, as in the unit, there are no files but those of processes.
        let up = rustix::time::clock_gettime(ClockId::Boottime);
        #[allow(clippy::cast_precision_loss)] // Seconds are below 2^52 for a million years.
        let up = up.tv_sec as f64 + up.tv_nsec as f64 * 1e-9;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Ok(Self {
            stat: File::open("/proc/self/stat")?,
            descriptors: Mutex::new(descriptors.into()),
            system_started: now - up,
        })
    }

    /// The figures now.
    ///
    /// # Errors
    /// The system does not give them.
    pub(super) fn read(&self) -> io::Result<ProcessFigures> {
        let mut text = [0; MOST_STAT];
        let length = self.stat.read_at(&mut text, 0)?;
        let stat = String::from_utf8_lossy(&text[..length]);
        let of_stat = Stat::parse(&stat).ok_or_else(|| not_understood("/proc/self/stat has another form"))?;
        let cpu = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
        #[allow(clippy::cast_precision_loss)] // Ticks and seconds are below 2^52 for a million years.
        let (cpu_seconds, started) = (
            cpu.tv_sec as f64 + cpu.tv_nsec as f64 * 1e-9,
            self.system_started + of_stat.started as f64 / rustix::param::clock_ticks_per_second() as f64,
        );
        Ok(ProcessFigures {
            cpu_seconds,
            resident_bytes: of_stat.resident_pages * rustix::param::page_size() as u64,
            virtual_bytes: of_stat.virtual_bytes,
            open_descriptors: self.open_descriptors()?,
            most_descriptors: getrlimit(Resource::Nofile).current,
            threads: of_stat.threads,
            started,
        })
    }

    /// How many descriptors are open, with the two that are held here.
    fn open_descriptors(&self) -> io::Result<u64> {
        let folder = self.descriptors.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::fs::seek(&*folder, SeekFrom::Start(0))?;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let (mut entries, mut count) = (RawDir::new(&*folder, &mut buffer), 0);
        while let Some(entry) = entries.next() {
            // All but `.` and `..` are numbers.
            count += u64::from(entry?.file_name().to_bytes().first().is_some_and(u8::is_ascii_digit));
        }
        Ok(count)
    }
}

/// What is wanted of `/proc/self/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    threads: u64,
    /// In ticks after the system's start.
    started: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    /// Reads a line of `/proc/PID/stat`: a number, a name in parentheses in which anything may stand, and numbers.
    fn parse(line: &str) -> Option<Self> {
        let (_, numbers) = line.rsplit_once(')')?;
        let mut numbers = numbers.split_ascii_whitespace();
        // By their numbers in proc_pid_stat(5), where the first one after the name is the third.
        let mut next = 3;
        let mut field = |number: usize| {
            let value = numbers.nth(number - next)?.parse().ok();
            next = number + 1;
            value
        };
        Some(Self { threads: field(20)?, started: field(22)?, virtual_bytes: field(23)?, resident_pages: field(24)? })
    }
}

fn not_understood(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_line_of_stat_is_read_whatever_the_process_calls_itself() {
        for name in ["seeway", "a) (b", "4 S 1", ")"] {
            let line = format!(
                "7 ({name}) S 1 7 7 0 -1 4194560 4531 0 1 0 120 45 0 0 20 0 5 0 88120 1294123008 3211 18446744073709551615 1 1 0\n"
            );
            let wanted = Stat { threads: 5, started: 88_120, virtual_bytes: 1_294_123_008, resident_pages: 3211 };
            assert_eq!(Stat::parse(&line), Some(wanted), "{name}");
        }
        for line in ["", "7 (seeway", "7 (seeway) S 1", "7 (seeway) S a b c d e f g h i j k l m n o p q r s t u v w"] {
            assert_eq!(Stat::parse(line), None, "{line}");
        }
    }

    #[test]
    fn figures_are_those_of_this_process_and_follow_it() {
        let files = ProcessFiles::open().expect("there is /proc");
        let before = files.read().expect("read");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_secs_f64();
        // The system's start is known to the second.
        assert!(before.started > now - 86_400.0 && before.started < now + 2.0, "{before:?} at {now}");
        assert!(before.virtual_bytes > before.resident_bytes && before.resident_bytes > 100_000, "{before:?}");
        assert!(before.threads >= 1 && before.most_descriptors.is_none_or(|most| most >= before.open_descriptors));

        // More than are told in one answer of the system.
        let opened: Vec<_> = (0..900).map(|_| File::open("/proc/self/stat").expect("opened")).collect();
        let begin = Instant::now();
        while begin.elapsed().as_millis() < 50 {
            std::hint::black_box(files.read().expect("read"));
        }
        let after = files.read().expect("read");
        // Other tests of this process open and close some meanwhile.
        assert!(after.open_descriptors > before.open_descriptors + 800, "{after:?} after {before:?}");
        assert!(after.cpu_seconds > before.cpu_seconds + 0.001, "{after:?} after {before:?}");
        drop(opened);
        assert!(files.read().expect("read").open_descriptors < after.open_descriptors - 800, "they are closed");
    }
}
