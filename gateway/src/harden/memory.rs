//! Keeps all of the process's memory out of swap space, where keys and jobs would outlive it.
//!
//! All of it, since keys lie wherever the libraries put them, and jobs in every buffer. Pages are locked when they are first used
//! (`MCL_ONFAULT`): locked at once, each thread's stack of 2 MiB would occupy memory that it never needs.
//!
//! Never where the system limits how much may be locked: the first allocation above the limit would fail, and the gateway with
//! it, in the middle of its work.

use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::HardenError;

/// Whether this system has swap space; `true` where it does not say.
pub(super) fn has_swap() -> bool {
    // A line of headings, and one for each space.
    std::fs::read_to_string("/proc/swaps").map_or(true, |swaps| swaps.lines().count() > 1)
}

/// Locks what there is and what there will be. One who `keeps_its_user` keeps the privilege to lock what it likes too.
pub(super) fn lock(keeps_its_user: bool) -> Result<(), HardenError> {
    let limit = getrlimit(Resource::Memlock);
    let is_privileged = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    if keeps_its_user && is_privileged {
        // Held to no limit.
    } else if limit.maximum.is_some() {
        // Root may lift its own limit. It has to: as another user, later on, it is held to it.
        let lifted = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
        lifted.map_err(|_| {
            let bytes = limit.maximum.unwrap_or_default();
            HardenError::Memory(format!("only {bytes} bytes may be locked"))
        })?;
    } else if limit.current.is_some() {
        setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).map_err(refused)?;
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT).map_err(refused)
}

/// Whether [`lock`] could do it: by privilege, or because the system sets no limit.
pub(super) fn may_lock() -> bool {
    let is_privileged = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    is_privileged || getrlimit(Resource::Memlock).maximum.is_none()
}

fn refused(error: Errno) -> HardenError {
    HardenError::Memory(error.to_string())
}
