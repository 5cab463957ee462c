//! Files that the configuration names, their folders, and the folders of Unix sockets: who may read and write them.
//!
//! What makes a file useless outright (a key that others can read) is a problem of the configuration already. Here is what it can't
//! know: a folder in which anybody can exchange the file, an owner who is not the gateway, a socket that its callers can't come to.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::finding::Finding;
use crate::config::{Config, HardserverAddress};

const WRITE_BY_GROUP: u32 = 0o020;
const WRITE_BY_OTHERS: u32 = 0o002;
const SEARCH_BY_GROUP: u32 = 0o010;
const SEARCH_BY_OTHERS: u32 = 0o001;
/// In a folder with this bit only a file's owner can remove it.
const STICKY: u32 = 0o1000;

/// Whom the gateway runs as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Runner {
    /// The user that the configuration names, or who runs this.
    pub(super) fn of(config: &Config) -> Self {
        match &config.process.user {
            Some(user) => Self { uid: user.uid, gid: user.gid },
            None => Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() },
        }
    }
}

/// The configuration file itself.
pub(super) fn of_config(file: &Path) -> Vec<Finding> {
    let mut findings: Vec<Finding> = written_by_others("configuration file", file).into_iter().collect();
    findings.extend(folders("configuration file", file));
    if findings.is_empty() {
        findings.push(Finding::ok("configuration file", file.display(), "only its owner can change it"));
    }
    findings
}

/// Every file that the configuration names, and every socket's folder.
pub(super) fn all(config: &Config) -> Vec<Finding> {
    let runner = Runner::of(config);
    let mut findings: Vec<Finding> =
        config.files.iter().filter(|file| file.exists()).flat_map(|file| of_file(file, runner)).collect();
    let sockets = config.listen.hardserver.iter().chain(&config.listen.management);
    findings.extend(sockets.filter_map(|address| match address {
        HardserverAddress::Unix(path) => Some(socket(path, config, runner)),
        HardserverAddress::Tcp(_) | HardserverAddress::Tls(_) => None,
    }));
    findings
}

fn of_file(file: &Path, runner: Runner) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        [written_by_others("file", file), owner(file, runner)].into_iter().flatten().collect();
    findings.extend(folders("file", file));
    if findings.is_empty() {
        findings.push(Finding::ok("file", file.display(), "only its owner can change it, and the gateway can read it"));
    }
    findings
}

fn written_by_others(check: &'static str, file: &Path) -> Option<Finding> {
    let mode = file.metadata().ok()?.mode();
    let name = file.display();
    if mode & WRITE_BY_OTHERS != 0 {
        let what = format!("anybody can write to it (mode {:04o})", mode & 0o7777);
        return Some(Finding::failed(check, name, what, format!("run: chmod o-w {}", file.display())));
    }
    (mode & WRITE_BY_GROUP != 0).then(|| {
        let what = format!("its group can write to it (mode {:04o})", mode & 0o7777);
        Finding::warning(check, name, what, format!("run: chmod g-w {}", file.display()))
    })
}

/// Whether the gateway can read a file. Root's own question is answered by its mode, since root itself may read all.
fn owner(file: &Path, runner: Runner) -> Option<Finding> {
    let metadata = file.metadata().ok()?;
    if runner.uid == 0 || metadata.is_dir() || can(file, &metadata, runner, Access::READ_OK) {
        return None;
    }
    let what = format!(
        "belongs to user {} with mode {:04o}; the gateway runs as user {} and can not read it",
        metadata.uid(),
        metadata.mode() & 0o7777,
        runner.uid
    );
    Some(Finding::failed("file", file.display(), what, format!("run: chown {} {}", runner.uid, file.display())))
}

/// Whether the gateway may read or write a file. Where it runs as whoever runs this, the kernel says so, which knows all its groups and
/// the file's access list. Where root becomes another user, that has its own group and no other, and it goes by the mode.
fn can(file: &Path, metadata: &Metadata, runner: Runner, right: Access) -> bool {
    if runner.uid == rustix::process::geteuid().as_raw() {
        return accessat(CWD, file, right, AtFlags::EACCESS).is_ok();
    }
    let bit = if right == Access::WRITE_OK { 0o2 } else { 0o4 };
    let shift = match (metadata.uid() == runner.uid, metadata.gid() == runner.gid) {
        (true, _) => 6,
        (false, true) => 3,
        (false, false) => 0,
    };
    metadata.mode() >> shift & bit != 0
}

/// The folders that lead to a file: where anybody can exchange one of them, the file's own mode is worth nothing.
fn folders(check: &'static str, file: &Path) -> Option<Finding> {
    let file = file.canonicalize().ok()?;
    file.ancestors().skip(1).find_map(|folder| {
        let mode = folder.metadata().ok()?.mode();
        (mode & WRITE_BY_OTHERS != 0 && mode & STICKY == 0).then(|| {
            let what =
                format!("anybody can exchange what is in its folder {} (mode {:04o})", folder.display(), mode & 0o7777);
            Finding::failed(check, file.display(), what, format!("run: chmod o-w {}", folder.display()))
        })
    })
}

/// The folder of a Unix socket: the gateway makes files there, and its callers have to come through.
fn socket(path: &Path, config: &Config, runner: Runner) -> Finding {
    const CHECK: &str = "socket";
    // The folder of a name without one is the current one.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(metadata) = folder.metadata() else {
        let what = format!("its folder {} is not there", folder.display());
        return Finding::failed(CHECK, path.display(), what, "make it; under systemd, RuntimeDirectory= does");
    };
    if !can(folder, &metadata, runner, Access::WRITE_OK) {
        let what = format!("user {}, whom the gateway runs as, can not make it in {}", runner.uid, folder.display());
        return Finding::failed(CHECK, path.display(), what, format!("run: chown {} {}", runner.uid, folder.display()));
    }
    if metadata.mode() & WRITE_BY_OTHERS != 0 && metadata.mode() & STICKY == 0 {
        let what =
            format!("anybody can put another socket in its place: its folder {} is open to all", folder.display());
        return Finding::failed(CHECK, path.display(), what, format!("run: chmod o-w {}", folder.display()));
    }
    let group = config.listen.socket_group.unwrap_or(runner.gid);
    let group_comes_in = metadata.gid() == group && metadata.mode() & SEARCH_BY_GROUP != 0;
    if !group_comes_in && metadata.mode() & SEARCH_BY_OTHERS == 0 {
        let what = format!(
            "members of group {group}, who may connect to it, can not come into its folder {}",
            folder.display()
        );
        let fix = format!("run: chgrp {group} {0} && chmod g+x {0}", folder.display());
        return Finding::warning(CHECK, path.display(), what, fix);
    }
    if config.listen.socket_mode & WRITE_BY_OTHERS != 0 && metadata.mode() & SEARCH_BY_OTHERS != 0 {
        let what = format!(
            "every user of this computer may send jobs (listen.socket_mode is {:04o})",
            config.listen.socket_mode
        );
        return Finding::warning(CHECK, path.display(), what, "write socket_mode = \"0660\", and name a socket_group");
    }
    Finding::ok(CHECK, path.display(), format!("group {group} can come to it"))
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use rustix::process::{Gid, Uid, geteuid};
    use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

    use super::*;

    #[test]
    fn who_is_in_a_files_group_can_read_it_and_who_becomes_somebody_else_is_in_none() {
        const SOMEBODY: u32 = 64_999;
        const GROUP: u32 = 64_998;
        assert!(geteuid().is_root(), "this test needs root, to make somebody else's files: run tests/run as root");
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("key");
        std::fs::write(&key, "a key").expect("written");
        let mode = |path: &Path, mode| set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
        mode(&key, 0o640);
        mode(folder.path(), 0o770);
        for path in [folder.path(), key.as_path()] {
            chown(path, None, Some(GROUP)).expect("root may");
        }
        let runner = Runner { uid: SOMEBODY, gid: SOMEBODY };
        let rights = move || {
            let can = |path: &Path, right| can(path, &path.metadata().expect("there"), runner, right);
            let parent = key.parent().expect("it has one");
            [can(&key, Access::READ_OK), can(&key, Access::WRITE_OK), can(parent, Access::WRITE_OK)]
        };
        let of_root = rights();
        // Who somebody is, is a thread's own for the kernel.
        let of_member = std::thread::spawn(move || {
            set_thread_groups(&[Gid::from_raw(GROUP)]).expect("root may");
            set_thread_gid(Gid::from_raw(SOMEBODY)).expect("root may");
            set_thread_uid(Uid::from_raw(SOMEBODY)).expect("root may");
            rights()
        });
        assert_eq!(of_root, [false; 3]);
        assert_eq!(of_member.join().expect("no panic"), [true, false, true]);
    }
}
