//! Looks at the files that a configuration names, and at groups.
//!
//! Errors name files, never what is in them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use seeway_proto::wire::Profile;

use super::base::Base;
use super::kind::Wrong;
use super::process::User;

/// The largest file that is read, in bytes; keys and profiles have a few kB.
const FILE_LIMIT: u64 = 1 << 20;

/// The file that a key names, seen from the configuration's own directory.
pub(super) fn path(text: &str, base: &Base) -> Result<PathBuf, Wrong> {
    if text.is_empty() {
        return Err(Wrong::new("is empty", "write the name of a file"));
    }
    // Whoever pasted a key here must not find it in a log.
    if text.contains("-----BEGIN") || text.contains('\n') {
        return Err(Wrong::new(
            "holds a key's text, not a file's name",
            "put the key into a file of its own, with mode 0600, and write that file's name here",
        ));
    }
    Ok(base.name(text))
}

/// Reads a profile of the wire.
pub(super) fn profile(path: &Path) -> Result<Arc<Profile>, Wrong> {
    readable(path)?;
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    Profile::from_toml(&text).map(Arc::new).map_err(|error| {
        let error = error.to_string();
        let error = error.trim_end().replace('\n', "\n    ");
        Wrong::new(format!("{} can not be used: {error}", path.display()), "correct that file")
    })
}

/// The number of a group, from its name or its number.
pub(super) fn group(text: &str) -> Result<u32, Wrong> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    match nix::unistd::Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => {
            Err(Wrong::new(format!("this computer has no group `{text}`"), "make it (groupadd), or name another"))
        }
        Err(error) => Err(Wrong::new(format!("the group `{text}` can not be looked up: {error}"), "write its number")),
    }
}

pub(super) fn readable(path: &Path) -> Result<(), Wrong> {
    // Looked at before it is opened: a pipe would wait for somebody to write to it.
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        return Err(Wrong::new(format!("{} is not a file", path.display()), "name a file"));
    }
    if metadata.len() > FILE_LIMIT {
        return Err(Wrong::new(
            format!("{} has {} bytes, above the limit of {FILE_LIMIT}", path.display(), metadata.len()),
            "name the right file",
        ));
    }
    File::open(path).map_err(|error| unreadable(path, &error))?;
    Ok(())
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> Wrong {
    let name = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Wrong::new(format!("the file {name} is not there"), "make it, or correct its name"),
        io::ErrorKind::PermissionDenied => Wrong::new(
            format!("the file {name} may not be read by this user"),
            "give it to the user that the gateway runs as (chown); a gateway that runs reads new files only from the folders \
             of those that it was started with",
        ),
        _ => Wrong::new(format!("the file {name} can not be read: {error}"), "name a file that can"),
    }
}

/// A user, from its name or its number.
pub(super) fn user(text: &str) -> Result<User, Wrong> {
    let (found, by) = match text.parse() {
        Ok(number) => (nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(number)), "number"),
        Err(_) => (nix::unistd::User::from_name(text), "name"),
    };
    match found {
        Ok(Some(user)) => Ok(User { name: text.to_owned(), uid: user.uid.as_raw(), gid: user.gid.as_raw() }),
        Ok(None) => Err(Wrong::new(
            format!("this computer has no user of the {by} `{text}`"),
            "make it (useradd --system), or name another",
        )),
        Err(error) => {
            Err(Wrong::new(format!("the user `{text}` can not be looked up: {error}"), "name another, or try again"))
        }
    }
}
