//! The folder in which a service finds its credentials, as `systemd.exec(5)` has it (`LoadCredential=`), or Kubernetes' mounted secrets.
//!
//! What systemd starts for a reload can't look into it (in Debian 12 a folder that nobody may read is mounted over it), and nor can an
//! operator's shell. So the gateway that runs lends it to the one that takes over: an open folder stays open.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::FdFlags;

/// The environment variable that names it.
pub const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Its name, where the environment says one.
pub fn directory() -> Option<OsString> {
    std::env::var_os(DIRECTORY).filter(|directory| !directory.is_empty())
}

/// The folder, where there is one that can be opened.
pub fn folder() -> Option<OwnedFd> {
    let directory = directory()?;
    let open = rustix::fs::open(&directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let open = open.inspect_err(|error| {
        let path = Path::new(&directory).display();
        tracing::warn!(%path, %error, "the folder of the credentials can not be opened: it can not be lent to the next gateway");
    });
    open.ok()
}

/// Whether what was lent is a folder that only root, or this user, can have put anything into; root trusts root alone.
pub fn is_trusted(folder: &OwnedFd) -> bool {
    let Ok(found) = rustix::fs::fstat(folder) else { return false };
    let is_folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
    let is_ours = found.st_uid == 0 || found.st_uid == rustix::process::geteuid().as_raw();
    is_folder && is_ours && found.st_mode & 0o022 == 0
}

/// Whether this process has one, and can look into it.
pub fn is_readable() -> bool {
    directory().is_some_and(|directory| std::fs::read_dir(directory).is_ok())
}

/// The name that this folder has in a process that is started from now on, which inherits it.
///
/// # Errors
/// The system refuses to let it be inherited.
pub fn inherited(folder: &OwnedFd) -> io::Result<String> {
    rustix::io::fcntl_setfd(folder, FdFlags::empty())?;
    Ok(format!("/proc/self/fd/{}", folder.as_raw_fd()))
}
