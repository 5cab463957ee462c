//! The journal: a line for each job that ran, for tests that ask whether one ran twice or not at all.
//!
//! A line reaches the kernel before the application sees its job, in one `write(2)` at the end of the file, so that it is
//! there whatever becomes of this process the moment after. It holds the job's bytes: a machine that handles secrets has
//! no journal.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The longest job that is written as text, in bytes.
const MAX_TEXT_BYTES: usize = 256;

/// How many bytes of a job are written as hexadecimal digits.
const MAX_HEX_BYTES: usize = 64;

/// What begins a line whose job is written as hexadecimal digits.
const HEX_PREFIX: &str = "hex:";

pub(super) struct Journal {
    file: File,
}

impl Journal {
    /// Opens the file at `path` to append to; makes it, readable to its owner only, where there is none.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Ok(Self { file })
    }

    /// Writes the line for `job`.
    pub(super) fn record(&self, job: &[u8]) -> io::Result<()> {
        let mut line = line_for(job);
        line.push('\n');
        let written = (&self.file).write(line.as_bytes())?;
        if written == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

/// The job as text where that is plain, else as hexadecimal digits. No two jobs of up to [`MAX_HEX_BYTES`] bytes share a
/// line.
fn line_for(job: &[u8]) -> String {
    let is_plain = !job.is_empty()
        && job.len() <= MAX_TEXT_BYTES
        && job.iter().all(u8::is_ascii_graphic)
        && !job.starts_with(HEX_PREFIX.as_bytes());
    if is_plain {
        return job.iter().copied().map(char::from).collect();
    }
    let mut line = String::from(HEX_PREFIX);
    for byte in job.iter().take(MAX_HEX_BYTES) {
        write!(line, "{byte:02x}").expect("a String takes everything");
    }
    if job.len() > MAX_HEX_BYTES {
        write!(line, "+{}", job.len()).expect("a String takes everything");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stands_as_it_is_and_all_else_as_digits() {
        assert_eq!(line_for(b"caller-7/42"), "caller-7/42");
        assert_eq!(line_for(&[b'x'; 256]), "x".repeat(256));
        assert_eq!(line_for(b""), "hex:");
        assert_eq!(line_for(b"two words"), "hex:74776f20776f726473");
        assert_eq!(line_for(b"line\n"), "hex:6c696e650a");
        assert_eq!(line_for("ä".as_bytes()), "hex:c3a4");
        assert_eq!(line_for(b"hex:00"), "hex:6865783a3030", "a job that looks like a line of digits is none");
        assert_eq!(line_for(&[0; 64]), format!("hex:{}", "00".repeat(64)));
        assert_eq!(line_for(&[0; 65]), format!("hex:{}+65", "00".repeat(64)));
        assert_eq!(line_for(&[b'x'; 257]), format!("hex:{}+257", "78".repeat(64)));
    }

    #[test]
    fn lines_are_appended_to_a_file_that_only_its_owner_reads() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("journal");
        Journal::open(&path).expect("opens").record(b"first").expect("writes");
        Journal::open(&path).expect("opens").record(b"second").expect("writes");
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "first\nsecond\n");
        let mode = std::fs::metadata(&path).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
