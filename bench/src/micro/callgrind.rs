//! Counts a program's instructions and allocations by running it under valgrind's callgrind.
//!
//! Used by `seeway-instructions`, which runs itself. What a program does for a number of jobs beyond a smaller number of them is
//! the steady state: set-up and warm-up are in both counts and cancel out.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// The functions through which a Rust program gets memory from the C library, allocations that grow included.
const ALLOCATING: [&str; 6] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"];

/// The C library chooses among its ways to copy, fill and compare memory by what the CPU can do. Counts are to be the same on each
/// CPU, so it is told to use those that every x86-64 has. On other architectures this says nothing.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-AVX,-AVX2,-AVX2_Usable,-AVX512F,-AVX512VL,-AVX512BW,\
                        -ERMS,-FSRM,-RTM,-BMI2,-MOVBE,-SSE4_1,-SSE4_2,-SSSE3,-Fast_Unaligned_Copy,-EVEX";

/// Why nothing was counted.
#[derive(Debug, thiserror::Error)]
pub enum CountError {
    /// valgrind could not be started, or what it wrote could not be read.
    #[error("valgrind does not run: {0} (on Debian: apt-get install valgrind)")]
    Valgrind(#[from] std::io::Error),
    /// The program failed under valgrind.
    #[error("`{arguments}` failed under valgrind ({status}):\n{said}")]
    Failed {
        /// What the program was asked to do.
        arguments: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it and valgrind wrote on standard error.
        said: String,
    },
    /// callgrind's file is not what it used to be.
    #[error("callgrind's file can not be read: {0}")]
    Format(&'static str),
    /// Every program allocates before it gets to its `main`.
    #[error("no allocation was seen, so that none can be counted: is the C library's allocator another one?")]
    NoAllocator,
}

/// What a run took, from its beginning to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instructions.
    pub instructions: u64,
    /// Calls of the allocator that ask for memory, growing what is there included.
    pub allocations: u64,
    /// Instructions of each function itself, without those that it calls.
    pub functions: BTreeMap<String, u64>,
}

impl Counts {
    /// Runs a program under callgrind.
    pub fn of(program: &Path, arguments: &[&str]) -> Result<Self, CountError> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("callgrind.out");
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--compress-strings=no", "--compress-pos=no"])
            .arg(format!("--callgrind-out-file={}", file.display()))
            .arg(program)
            .args(arguments)
            // What stands in the environment moves the stack.
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("GLIBC_TUNABLES", TUNABLES)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(CountError::Failed { arguments: arguments.join(" "), status: output.status, said });
        }
        let counts = Self::read(&std::fs::read_to_string(&file)?)?;
        if counts.allocations == 0 { Err(CountError::NoAllocator) } else { Ok(counts) }
    }

    /// Reads what callgrind wrote: below `fn=` lines with positions and own costs; below `cfn=` and `calls=` one line with what
    /// the called function cost in all.
    fn read(text: &str) -> Result<Self, CountError> {
        let mut counts = Self::default();
        let (mut function, mut called) = ("", "");
        let mut is_call = false;
        let mut total = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = name;
            } else if let Some(name) = line.strip_prefix("cfn=") {
                called = name;
            } else if let Some(calls) = line.strip_prefix("calls=") {
                is_call = true;
                if ALLOCATING.contains(&called) && !ALLOCATING.contains(&function) {
                    let calls = calls.split(' ').next().and_then(|calls| calls.parse::<u64>().ok());
                    counts.allocations += calls.ok_or(CountError::Format("calls without a count"))?;
                }
            } else if line.starts_with(|first: char| first.is_ascii_digit()) {
                let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok());
                let cost = cost.ok_or(CountError::Format("a line without a cost"))?;
                if !std::mem::take(&mut is_call) {
                    *counts.functions.entry(function.to_owned()).or_default() += cost;
                }
            } else if let Some(summary) = line.strip_prefix("totals: ") {
                total = summary.parse().ok();
            }
        }
        counts.instructions = total.ok_or(CountError::Format("no total"))?;
        if counts.functions.values().sum::<u64>() != counts.instructions {
            return Err(CountError::Format("the functions do not add up to the total"));
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# callgrind format\npositions: line\nevents: Ir\n\nfn=main\n16 400\ncfi=x.c\ncfn=work\ncalls=3 50\n\
                        16 300\ncfn=malloc\ncalls=2 0\n17 90\nfn=work\n51 300\ncfn=calloc\ncalls=1 0\n52 10\nfn=calloc\n0 8\n\
                        cfn=malloc\ncalls=1 0\n0 2\nfn=malloc\n0 92\n\ntotals: 800\n";

    #[test]
    fn own_costs_and_calls_of_the_allocator_are_told_apart() {
        let counts = Counts::read(FILE).expect("it is well formed");
        assert_eq!((counts.instructions, counts.allocations), (800, 3), "calloc's own call of malloc is no other one");
        let functions = [("calloc", 8), ("main", 400), ("malloc", 92), ("work", 300)];
        assert_eq!(counts.functions, functions.map(|(name, cost)| (name.to_owned(), cost)).into());
    }

    #[test]
    fn a_file_of_another_kind_is_noticed() {
        for (from, to) in [("totals: 800", ""), ("51 300", "51 301"), ("calls=2 0", "calls=x 0"), ("16 400", "16")] {
            assert!(Counts::read(&FILE.replace(from, to)).is_err(), "{to:?} for {from:?}");
        }
    }
}
