//! The folder in which a service finds its credentials, as `systemd.exec(5)` has it (`LoadCredential=`), or Kubernetes' mounted secrets.
//!
//! What systemd starts for a reload can't look into it (in Debian 12 a folder that nobody may read is mounted over it), and nor can an
//! operator's shell. So the gateway that runs lends it to the one that takes over: an open folder stays open.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;

/// The environment variable that names it.
pub const DIRECTORY: &str = "CREDENTIALS_DIRECTORY";

/// Its name, where the environment says one.
pub fn directory() -> Option<OsString> {
    std::env::var_os(DIRECTORY).filter(|directory| !directory.is_empty())
}

/// The folder, where there is one that is there.
///
/// # Errors
/// There is no file descriptor left.
pub fn folder() -> io::Result<Option<OwnedFd>> {
    let Some(directory) = directory() else { return Ok(None) };
    match rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(folder) => Ok(Some(folder)),
        Err(error)
            if matches!(io::Error::from(error).kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
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
