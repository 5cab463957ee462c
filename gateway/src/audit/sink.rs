//! Where lines go: a file, the journal, or syslog.
//!
//! Used by the audit log's thread alone, which may block here for as long as a disk takes. A sink takes a [`Chunk`] in order and
//! remembers in it how far it came, so that nothing is written twice, or left out, after an error.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::chain::{Hash, Head, MAX_LINE, Sealed, sha256};
use super::json::write_time;
use super::record::Micros;

/// How far back in a file its last record is looked for. Behind it there is at most what a crash has left of a line.
const TAIL: u64 = 1024 * 1024;

/// How long a journal or syslog server may take no datagram before that counts as a failure.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// A journal's socket where nothing else is configured.
pub const JOURNALD: &str = "/run/systemd/journal/socket";

/// A syslog server's socket where nothing else is configured.
pub const SYSLOG: &str = "/dev/log";

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Lines at the end of a file.
    File(PathBuf),
    /// journald, by its native protocol, at this socket.
    Journald(PathBuf),
    /// A syslog server, as RFC 5424 has it, at this datagram socket.
    Syslog(PathBuf),
}

impl Target {
    /// Its kind, as `opened` records and metrics name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Journald(_) => "journald",
            Self::Syslog(_) => "syslog",
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Journald(path) | Self::Syslog(path) => path,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind(), self.path().display())
    }
}

/// Why there is no audit log. The gateway does not start then.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The system refuses the file or the socket.
    #[error("the audit log {target} can not be opened: {error}; make it writable for this user, or change audit.to")]
    Open {
        /// Where records were to go.
        target: String,
        /// Why they can't.
        error: io::Error,
    },
    /// The file holds something else.
    #[error("the end of {} is no audit log of Seeway's; move the file away, or change audit.to", .0.display())]
    NotALog(PathBuf),
    /// Somebody else has it.
    #[error("the audit log {} is written by another process; stop it, or change audit.to", .0.display())]
    InUse(PathBuf),
    /// There is no thread for it.
    #[error("the system gave no thread for the audit log: {0}; let the process have more (TasksMax=)")]
    Thread(io::Error),
}

/// What was found at the end of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    /// The last record; `None` where there is none.
    pub(super) head: Option<Head>,
    /// Bytes after it that are no record, and their SHA-256.
    pub(super) torn: Option<(u64, Hash)>,
    /// Whether a line's end has to be written before anything else.
    pub(super) needs_line_end: bool,
}

/// Lines on their way.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    /// Where each line ends in `bytes`, and when its record was made.
    pub(super) lines: Vec<(usize, Micros)>,
    /// Bytes that are taken.
    taken: usize,
    /// Lines that are taken as a whole.
    lines_taken: usize,
}

impl Chunk {
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.lines.clear();
        self.taken = 0;
        self.lines_taken = 0;
    }

    /// Whether nothing of it is on its way any more.
    pub(super) fn is_taken(&self) -> bool {
        self.taken == self.bytes.len()
    }

    fn took(&mut self, bytes: usize) {
        self.taken += bytes;
        while self.lines.get(self.lines_taken).is_some_and(|(end, _)| *end <= self.taken) {
            self.lines_taken += 1;
        }
    }

    /// What was taken of an unfinished line is forgotten: it is written again, elsewhere.
    fn back_to_line(&mut self) {
        self.taken = self.lines_taken.checked_sub(1).map_or(0, |last| self.lines[last].0);
    }
}

/// An open target.
#[derive(Debug)]
pub(super) enum Sink {
    File(FileSink),
    Datagrams(DatagramSink),
}

impl Sink {
    /// Opens it; says what is there already.
    pub(super) fn open(target: &Target, must_sync: bool) -> Result<(Self, Tail), AuditError> {
        match target {
            Target::File(path) => {
                let (file, tail) = FileSink::open(path, must_sync)?;
                Ok((Self::File(file), tail))
            }
            Target::Journald(_) | Target::Syslog(_) => {
                let sink = DatagramSink::open(target)
                    .map_err(|error| AuditError::Open { target: target.to_string(), error })?;
                Ok((Self::Datagrams(sink), Tail::default()))
            }
        }
    }

    /// Writes what the chunk still has. After an error it can be called again.
    pub(super) fn write(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        match self {
            Self::File(file) => file.write(chunk),
            Self::Datagrams(sink) => sink.write(chunk),
        }
    }

    /// Closes the file and opens the one that has its name now, where that is another one; says what is there. The chunk's unfinished
    /// line goes to the new one as a whole.
    pub(super) fn reopen(&mut self, chunk: &mut Chunk) -> Result<Option<Tail>, AuditError> {
        match self {
            Self::File(file) if file.has_moved() => {
                let (new, tail) = FileSink::open(&file.path, file.must_sync)?;
                if !chunk.is_taken() && tail != Tail::default() {
                    // What is on its way would stand in the middle of another log.
                    return Err(AuditError::NotALog(file.path.clone()));
                }
                *file = new;
                chunk.back_to_line();
                Ok(Some(tail))
            }
            Self::File(_) | Self::Datagrams(_) => Ok(None),
        }
    }

    /// The file's size in bytes; 0 where it is none.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::File(file) => file.size,
            Self::Datagrams(_) => 0,
        }
    }

    /// Gives the file the name that its last record's number makes, and begins another one.
    pub(super) fn rotate(&mut self, last: u64) -> Result<Option<Tail>, AuditError> {
        let Self::File(file) = self else { return Ok(None) };
        if file.has_moved() && file.path.exists() {
            // Whoever has moved this one away, or another gateway, has begun the next.
            return Ok(None);
        }
        let failed = |error| AuditError::Open { target: file.path.display().to_string(), error };
        let mut name = file.path.clone().into_os_string();
        // Twenty digits, so that names sort as records do.
        name.push(format!(".{last:020}"));
        match std::fs::rename(&file.path, name) {
            // The last try came no further than here.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed.map_err(failed)?,
        }
        let (new, tail) = FileSink::open(&file.path, file.must_sync)?;
        *file = new;
        Ok(Some(tail))
    }
}

/// A file that grows.
#[derive(Debug)]
pub(super) struct FileSink {
    path: PathBuf,
    file: File,
    size: u64,
    must_sync: bool,
    /// Written and not synced.
    is_unsynced: bool,
}

impl FileSink {
    fn open(path: &Path, must_sync: bool) -> Result<(Self, Tail), AuditError> {
        let failed = |error| AuditError::Open { target: format!("file:{}", path.display()), error };
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            if !metadata.file_type().is_char_device() {
                return Err(AuditError::NotALog(path.to_owned()));
            }
            // A device has no end to look at, and nothing to sync.
            let sink = Self { path: path.to_owned(), file, size: 0, must_sync: false, is_unsynced: false };
            return Ok((sink, Tail::default()));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(AuditError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let size = metadata.len();
        let tail = read_tail(&file, size).map_err(failed)?.ok_or_else(|| AuditError::NotALog(path.to_owned()))?;
        if size == 0 {
            // So that the file itself outlives a power cut. Where the folder can't be opened, the file still is there as a rule.
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok((Self { path: path.to_owned(), file, size, must_sync, is_unsynced: false }, tail))
    }

    fn has_moved(&self) -> bool {
        let named = std::fs::metadata(&self.path).map(|file| (file.dev(), file.ino())).ok();
        let open = self.file.metadata().map(|file| (file.dev(), file.ino())).ok();
        named != open
    }

    fn write(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        while chunk.taken < chunk.bytes.len() {
            match self.file.write(&chunk.bytes[chunk.taken..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.is_unsynced = true;
                    self.size += count as u64;
                    chunk.took(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.must_sync && self.is_unsynced {
            self.file.sync_data()?;
            self.is_unsynced = false;
        }
        Ok(())
    }
}

/// A log that another process writes, and that has another name since a moment ago, which says when that was. It gets its own back when
/// this is dropped.
#[derive(Debug)]
pub struct Aside {
    path: PathBuf,
    /// Its name now; `None` where it is to stay.
    name: Option<PathBuf>,
}

impl Aside {
    pub(super) fn move_aside(path: PathBuf) -> Result<Self, AuditError> {
        let name = beside(&path, "handed-over");
        rename_new(&path, &name).map_err(|error| AuditError::Open { target: path.display().to_string(), error })?;
        Ok(Self { path, name: Some(name) })
    }

    /// One that another process has moved.
    pub(super) fn of(path: PathBuf, name: PathBuf) -> Self {
        Self { path, name: Some(name) }
    }

    /// Its name now.
    pub fn name(&self) -> Option<&Path> {
        self.name.as_deref()
    }

    /// It stays: the process that wrote it has left its place.
    pub fn keep(mut self) {
        self.name = None;
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // It may have its own back already: the process that writes it does that where this one is gone.
        let Some(name) = self.name.as_ref().filter(|name| name.exists()) else { return };
        // What has been recorded under its name meanwhile is a chain of its own, of a process that nobody has sent jobs to.
        let put_back = match rename_new(&self.path, &beside(&self.path, "not-taken-over")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => rename_new(name, &self.path),
        };
        if let Err(error) = put_back {
            tracing::error!(
                %error,
                log = %name.display(),
                "the running gateway's audit log has not got its name back: rename it"
            );
        }
    }
}

/// A name for a file beside the one of this name.
fn beside(path: &Path, what: &str) -> PathBuf {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{what}-{seconds}"));
    name.into()
}

/// Renames a file, and not over another one: that would be an older log, which must not be lost.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::hard_link(from, to)?;
    std::fs::remove_file(from)
}

/// What stands at a file's end; `None` where that is no audit log.
fn read_tail(mut file: &File, size: u64) -> io::Result<Option<Tail>> {
    let from = size.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    Ok(tail_of(&bytes, from == 0))
}

/// The same, of the last bytes of a file, which may be all of them.
fn tail_of(bytes: &[u8], is_whole: bool) -> Option<Tail> {
    if bytes.is_empty() {
        return is_whole.then(Tail::default);
    }
    let mut end = bytes.len();
    loop {
        let start = bytes[..end].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if let Some(sealed) = Sealed::read(&bytes[start..end]) {
            let has_end = end < bytes.len();
            let after = &bytes[(end + 1).min(bytes.len())..];
            return Some(Tail {
                head: Some(sealed.head()),
                torn: (!after.is_empty()).then(|| (after.len() as u64, Hash(sha256(after)))),
                needs_line_end: !has_end || !after.is_empty(),
            });
        }
        if start == 0 {
            break;
        }
        end = start - 1;
    }
    // Killed while it wrote the very first line; or somebody else's file.
    let begins_like_ours = bytes.starts_with(b"{\"seq\":1,") || b"{\"seq\":1,".starts_with(bytes);
    (is_whole && begins_like_ours && bytes.len() <= MAX_LINE).then(|| Tail {
        head: None,
        torn: Some((bytes.len() as u64, Hash(sha256(bytes)))),
        needs_line_end: true,
    })
}

/// A server that takes a datagram for each line.
#[derive(Debug)]
pub(super) struct DatagramSink {
    target: Target,
    socket: UnixDatagram,
    datagram: Vec<u8>,
}

impl DatagramSink {
    fn open(target: &Target) -> io::Result<Self> {
        Ok(Self { target: target.clone(), socket: connect(target.path())?, datagram: Vec::new() })
    }

    fn write(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        while let Some((end, at)) = chunk.lines.get(chunk.lines_taken).copied() {
            let line = &chunk.bytes[chunk.taken..end];
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            self.datagram.clear();
            match self.target {
                Target::Syslog(_) => write_syslog(&mut self.datagram, line, at),
                Target::Journald(_) | Target::File(_) => write_journald(&mut self.datagram, line),
            }
            if self.socket.send(&self.datagram).is_err() {
                // The server may have been started again meanwhile.
                self.socket = connect(self.target.path())?;
                self.socket.send(&self.datagram)?;
            }
            chunk.took(end - chunk.taken);
        }
        Ok(())
    }
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok(socket)
}

/// journald's native protocol: a field on each line. The record has no line's end in it.
fn write_journald(out: &mut Vec<u8>, line: &[u8]) {
    out.extend(b"PRIORITY=6\nSYSLOG_FACILITY=10\nSYSLOG_IDENTIFIER=seeway-audit\nMESSAGE=");
    out.extend(line);
    out.push(b'\n');
}

/// RFC 5424: facility `authpriv` (10), severity `informational` (6).
fn write_syslog(out: &mut Vec<u8>, line: &[u8], at: Micros) {
    out.extend(b"<86>1 ");
    write_time(out, at);
    out.extend(b" - seeway-audit ");
    out.extend(std::process::id().to_string().as_bytes());
    out.extend(b" audit - ");
    out.extend(line);
}

#[cfg(test)]
mod tests {
    use super::super::chain::Chain;
    use super::*;

    fn lines(count: usize) -> Vec<Vec<u8>> {
        let mut chain = Chain::from(Head::default(), None);
        let line = |_| {
            let mut out = format!("{{\"seq\":{},\"x\":1", chain.next_sequence()).into_bytes();
            chain.seal(&mut out, 0);
            out
        };
        (0..count).map(line).collect()
    }

    fn head_of(line: &[u8]) -> Option<Head> {
        Sealed::read(line.trim_ascii_end()).map(|sealed| sealed.head())
    }

    #[test]
    fn every_cut_of_a_file_is_understood() {
        let lines = lines(3);
        let whole = lines.concat();
        let ends = [lines[0].len(), lines[0].len() + lines[1].len(), whole.len()];
        for cut in 0..=whole.len() {
            let bytes = &whole[..cut];
            let tail = tail_of(bytes, true).unwrap_or_else(|| panic!("cut after {cut}"));
            // A line whose last letter is there is whole; only its end has to be written.
            let count = ends.iter().filter(|end| cut + 1 >= **end).count();
            let end = count.checked_sub(1).map_or(0, |last| ends[last]);
            assert_eq!(tail.head, count.checked_sub(1).and_then(|last| head_of(&lines[last])), "cut after {cut}");
            let torn = bytes.get(end..).filter(|torn| !torn.is_empty());
            assert_eq!(tail.torn, torn.map(|torn| (torn.len() as u64, Hash(sha256(torn)))), "cut after {cut}");
            assert_eq!(tail.needs_line_end, cut > 0 && !ends.contains(&cut), "cut after {cut}");
        }
    }

    #[test]
    fn what_a_second_crash_leaves_is_torn_as_a_whole() {
        let first = &lines(1)[0];
        for torn in ["x\n", "\n", "{\"seq\":2,\n\n{\"s", "\0\0\0"] {
            let bytes = [first.as_slice(), torn.as_bytes()].concat();
            let tail = tail_of(&bytes, true).expect("an audit log");
            assert_eq!(tail.head, head_of(first));
            assert_eq!(tail.torn, Some((torn.len() as u64, Hash(sha256(torn.as_bytes())))));
            assert!(tail.needs_line_end);
        }
    }

    #[test]
    fn somebody_elses_file_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("precious");
        std::fs::write(&path, "root:x:0:0\n").expect("written");
        assert!(matches!(FileSink::open(&path, true), Err(AuditError::NotALog(_))));
        assert!(matches!(FileSink::open(folder.path(), true), Err(AuditError::Open { .. })));
        assert_eq!(std::fs::read(&path).expect("there"), b"root:x:0:0\n");
    }

    #[test]
    fn a_file_has_one_writer_and_is_not_readable_by_everybody() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let first = FileSink::open(&path, true).expect("free");
        assert!(matches!(FileSink::open(&path, true), Err(AuditError::InUse(_))));
        assert_eq!(std::fs::metadata(&path).expect("there").mode() & 0o007, 0);
        drop(first);
        FileSink::open(&path, true).expect("free again");
    }

    #[test]
    fn a_datagram_is_what_the_standard_says() {
        let mut out = Vec::new();
        write_syslog(&mut out, b"{}", 0);
        let id = std::process::id();
        let expected = format!("<86>1 1970-01-01T00:00:00.000000Z - seeway-audit {id} audit - {{}}");
        assert_eq!(String::from_utf8(out).expect("ASCII"), expected);
        let mut out = Vec::new();
        write_journald(&mut out, b"{}");
        assert_eq!(out, b"PRIORITY=6\nSYSLOG_FACILITY=10\nSYSLOG_IDENTIFIER=seeway-audit\nMESSAGE={}\n");
    }
}
