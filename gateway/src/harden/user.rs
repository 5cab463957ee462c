//! From root to a user without privileges, for good.

use nix::unistd::{Gid, Uid, getresgid, getresuid, setgroups, setresgid, setresuid};

use super::HardenError;
use crate::config::User;

/// Becomes the user, with its own group and no other, and sees to it that there is no way back.
pub(super) fn become_user(user: &User) -> Result<(), HardenError> {
    let failed = |why: String| HardenError::User { user: user.name.clone(), why };
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let is_now = || {
        let (users, groups) = (getresuid(), getresgid());
        users.is_ok_and(|found| [found.real, found.effective, found.saved] == [uid; 3])
            && groups.is_ok_and(|found| [found.real, found.effective, found.saved] == [gid; 3])
    };
    if !is_now() {
        // The groups first: afterwards it may not any more.
        setgroups(&[]).map_err(|error| failed(format!("its groups can not be given up: {error}")))?;
        setresgid(gid, gid, gid).map_err(|error| failed(format!("its group can not be changed: {error}")))?;
        setresuid(uid, uid, uid).map_err(|error| failed(error.to_string()))?;
    }
    if !is_now() {
        return Err(failed("the system did not make it that user".to_owned()));
    }
    if !uid.is_root() && setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
        return Err(failed("it could become root again".to_owned()));
    }
    Ok(())
}
