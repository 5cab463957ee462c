//! `[audit]`: where records go, and what that may cost.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::base::Base;
use super::document::Section;
use super::files;
use super::kind::Wrong;
use super::problem::Gathered;
use super::value::Config;
use crate::audit::{JOURNALD, Key, SYSLOG, Settings, Target, WhenFull};

/// The largest key file that is read, in bytes.
const KEY_LIMIT: u64 = 4096;

/// Something is wrong with the section, and noted.
pub(super) struct Noted;

/// The log that the section asks for, where it asks for one.
pub(super) fn build(section: &Section, base: &Base, gathered: &mut Gathered) -> Result<Option<Settings>, Noted> {
    const KEYS: [&str; 6] = ["when_full", "sync", "buffer", "job_digest", "rotate_bytes", "key"];
    if section.given("to").is_some() {
        return settings(section, base, gathered).map(Some).ok_or(Noted);
    }
    let Some((key, place)) = KEYS.iter().find_map(|key| Some((key, section.given(key)?))) else { return Ok(None) };
    let what = format!("is missing, and {key} is there: nothing would be recorded");
    gathered.add(place, section.path("to"), what, "write to = \"file:/var/log/seeway/audit.jsonl\"");
    Err(Noted)
}

fn settings(section: &Section, base: &Base, gathered: &mut Gathered) -> Option<Settings> {
    let mut read = |key: &str, result: &dyn Fn(&str) -> Result<(), Wrong>| {
        let text = section.text(key)?;
        let Err(Wrong { what, fix }) = result(text.value) else { return Some(text.value) };
        gathered.add(&text.place, section.path(key), what, fix);
        None
    };
    let to = read("to", &|text| target(text, base).map(|_| ()));
    let when_full = read("when_full", &|text| when_full(text).map(|_| ()));
    let sync = read("sync", &|text| must_sync(text).map(|_| ()));
    let key_file = match section.given("key") {
        Some(_) => read("key", &|text| key(&files::path(text, base)?).map(|_| ())).map(|text| Some(base.name(text))),
        None => Some(None),
    };
    let key_file = key_file?;
    Some(Settings {
        to: target(to?, base).ok()?,
        when_full: when_full_of(when_full?)?,
        must_sync: must_sync(sync?).ok()?,
        buffer: section.number("buffer")?,
        job_digest: section.boolean("job_digest")?,
        rotate_bytes: section.number("rotate_bytes")?,
        key: key_file.as_deref().map(key).transpose().ok()?,
        key_file,
    })
}

fn when_full_of(text: &str) -> Option<WhenFull> {
    when_full(text).ok()
}

fn when_full(text: &str) -> Result<WhenFull, Wrong> {
    match text {
        "stop" => Ok(WhenFull::Stop),
        "drop" => Ok(WhenFull::Drop),
        _ => Err(Wrong::new(format!("`{text}` is neither"), "write \"stop\" or \"drop\"")),
    }
}

fn must_sync(text: &str) -> Result<bool, Wrong> {
    match text {
        "batch" => Ok(true),
        "never" => Ok(false),
        _ => Err(Wrong::new(format!("`{text}` is neither"), "write \"batch\" or \"never\"")),
    }
}

fn target(text: &str, base: &Base) -> Result<Target, Wrong> {
    const FIX: &str = "write \"file:PATH\", \"journald\" or \"syslog\"";
    let (kind, path) = text.split_once(':').map_or((text, None), |(kind, path)| (kind, Some(path)));
    if path == Some("") {
        return Err(Wrong::new(format!("`{text}` names no path"), FIX));
    }
    let socket = |usual: &str| path.map_or(PathBuf::from(usual), |path| base.join(path));
    match (kind, path) {
        ("file", Some(path)) => {
            let path = base.join(path);
            let folder = path.parent().unwrap_or(Path::new("/"));
            if !folder.is_dir() {
                let what = format!("the folder {} is not there", folder.display());
                return Err(Wrong::new(what, "make it, for the user that the gateway runs as"));
            }
            Ok(Target::File(path))
        }
        ("journald", _) => Ok(Target::Journald(socket(JOURNALD))),
        ("syslog", _) => Ok(Target::Syslog(socket(SYSLOG))),
        _ => Err(Wrong::new(format!("`{text}` is no place for an audit log"), FIX)),
    }
}

/// Reads the key in a file that nobody else can read. Errors name the file, never what is in it.
fn key(path: &Path) -> Result<Key, Wrong> {
    let name = path.display();
    let unreadable = |error| files::unreadable(path, &error);
    // Before it is opened: a pipe would wait for somebody to write to it.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Wrong::new(format!("{name} is no file of a key"), "make one: openssl rand -hex 32"));
    }
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let mode = metadata.permissions().mode() & 0o777;
    if !metadata.is_file() || metadata.len() > KEY_LIMIT {
        return Err(Wrong::new(format!("{name} is no file of a key"), "make one: openssl rand -hex 32"));
    }
    if mode & 0o077 != 0 {
        let what = format!("the key {name} can be read or written by others (mode {mode:04o})");
        return Err(Wrong::new(what, format!("run: chmod 600 {name}")));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(KEY_LIMIT).expect("a few kB")));
    file.take(KEY_LIMIT).read_to_end(&mut bytes).map_err(unreadable)?;
    Key::new(&bytes).map_err(|error| Wrong::new(format!("{name}: {error}"), "name the file of a longer key"))
}

/// Reads a key as the configuration does, for whoever verifies a log by it.
///
/// # Errors
/// What is wrong with the file, and what to do.
pub fn read_audit_key(path: &Path) -> Result<Key, String> {
    key(path).map_err(|Wrong { what, fix }| format!("{what}; {fix}"))
}

/// Whether both have the same log, as far as `of` says.
pub(super) fn same<T: PartialEq>(new: &Config, running: &Config, of: fn(&Settings) -> &T) -> bool {
    // A log that begins or ends is told by `to`.
    match (&new.audit, &running.audit) {
        (Some(new), Some(running)) => of(new) == of(running),
        _ => true,
    }
}
