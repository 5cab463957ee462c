//! The names and groups of Unix users, from the system's own lists.
//!
//! Looking one up may ask a directory service over the network, so it is done on a thread for that, within a time limit, and
//! remembered for a while.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use super::{Identity, Means};
use crate::seldom::{Seldom, Tell};

/// How long what was found counts.
const REMEMBERED: Duration = Duration::from_secs(60);

/// How long a look-up may take. After that the user's number is its name.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// As many users are remembered; when one more comes all are forgotten.
const MOST: usize = 4096;

/// By user and group: who that is, and when it was found out.
type Known = HashMap<(u32, u32), (Identity, Instant)>;

/// Those that have been looked up. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Users {
    known: Arc<Mutex<Known>>,
}

impl Users {
    /// The same, where it is remembered.
    pub fn known(&self, uid: u32, gid: u32) -> Option<Identity> {
        let now = Instant::now();
        self.lock()
            .get(&(uid, gid))
            .filter(|(_, found)| now < *found + REMEMBERED)
            .map(|(identity, _)| identity.clone())
    }

    /// The identity of the process at the other end of a Unix socket, by what the kernel says of it.
    pub async fn identity(&self, uid: u32, gid: u32) -> Identity {
        if let Some(identity) = self.known(uid, gid) {
            return identity;
        }
        let looking = tokio::task::spawn_blocking(move || look_up(uid, gid));
        let Ok(Ok(identity)) = tokio::time::timeout(TIME_LIMIT, looking).await else {
            // Not remembered: the next connection asks again.
            static NOT_FOUND: Seldom = Seldom::new("a user's name was not found in time");
            if let Some(Tell { untold }) = NOT_FOUND.tell(&uid.to_string()) {
                tracing::warn!(uid, untold, "the user's name was not found in time; its number counts as its name");
            }
            return Identity::new(&uid.to_string(), Vec::new(), Means::UnixUser);
        };
        let mut known = self.lock();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert((uid, gid), (identity.clone(), Instant::now()));
        identity
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The groups that this computer knows of a user; none where it does not know the user.
pub fn groups_of_user(name: &str) -> Vec<String> {
    let Some(user) = User::from_name(name).ok().flatten() else { return Vec::new() };
    look_up(user.uid.as_raw(), user.gid.as_raw()).groups().to_vec()
}

/// The user's name, and the groups that it and its process are in. A user or group without a name has its number.
fn look_up(uid: u32, gid: u32) -> Identity {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let mut gids = vec![Gid::from_raw(gid)];
    if let Some(user) = &user
        && let Ok(name) = CString::new(user.name.as_str())
        && let Ok(groups) = getgrouplist(&name, user.gid)
    {
        gids.extend(groups);
    }
    gids.sort_unstable_by_key(|gid| gid.as_raw());
    gids.dedup();
    let name_of = |gid: Gid| Group::from_gid(gid).ok().flatten().map_or_else(|| gid.to_string(), |group| group.name);
    let groups = gids.into_iter().map(name_of).collect();
    let name = user.map_or_else(|| uid.to_string(), |user| user.name);
    Identity::new(&name, groups, Means::UnixUser)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_user_has_its_name_and_groups_and_one_without_a_name_its_number() {
        let users = Users::default();
        let root = users.identity(0, 0).await;
        assert_eq!((root.name(), root.means()), ("root", Means::UnixUser));
        assert!(root.groups().iter().any(|group| group == "root"), "{root:?}");
        assert_eq!(users.identity(0, 0).await, root);
        let nobody = users.identity(4_000_000, 4_000_001).await;
        assert_eq!((nobody.name(), nobody.groups()), ("4000000", &["4000001".to_owned()][..]));
    }
}
