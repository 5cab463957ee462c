//! What the process takes away from itself: core files, swap space, privileges, and at last all files, programs and system calls
//! that it does not need any more. Whoever takes over the gateway by a mistake in it has no more than what is left.
//!
//! `seeway serve` calls, in this order: [`begin`] before anything secret is read; [`lock_memory`] once the configuration says
//! whether; and [`confine`] when the listeners are bound and before there is a second thread, since what a thread takes away from
//! itself its siblings keep. `docs/security.md` says what each part is for.
//!
//! None of it needs root. Everything is done through wrappers without `unsafe`.

mod calls;
mod files;
mod memory;
mod paths;
mod user;

use std::fmt;
use std::io;
use std::path::Path;

use rustix::process::{DumpableBehavior, Resource, Rlimit};

pub use files::Restricted;
pub use paths::Paths;

use crate::config::{Config, Policy, Process};

/// Why the process can't be hardened as it has to be.
#[derive(Debug, thiserror::Error)]
pub enum HardenError {
    /// Core files can't be switched off.
    #[error("core files can not be switched off: {0}; nothing secret may be read while they can be written")]
    Core(io::Error),
    /// It has more than one thread, of which only one would be confined.
    #[error("the process has {0} threads already, and only one of them would be confined; this is a mistake in Seeway")]
    Threads(usize),
    /// The kernel has no Landlock.
    #[error(
        "this kernel takes no files away from a process (it has no Landlock, which Linux has since 5.13, or it was not switched on \
         with lsm=); use one that does, or write process.sandbox = \"prefer\""
    )]
    NoLandlock,
    /// Landlock refused.
    #[error(
        "the files could not be taken away (Landlock): {0}; write process.sandbox = \"off\" if this kernel can't be mended"
    )]
    Landlock(#[from] landlock::RulesetError),
    /// A filter of system calls can't be made or installed.
    #[error(
        "the system calls could not be taken away (seccomp): {0}; write process.sandbox = \"off\" if this kernel can't be mended"
    )]
    Calls(String),
    /// Memory can't be locked.
    #[error(
        "memory can not be locked, so that keys may come into swap space: {0}; set LimitMEMLOCK=infinity in the unit (ulimit -l \
         unlimited), or switch swap space off"
    )]
    Memory(String),
    /// It can't become the user that it is to be.
    #[error(
        "the gateway can not become the user `{user}`: {why}; start it as root or as that user, or take process.user out"
    )]
    User {
        /// The user's name.
        user: String,
        /// What went wrong.
        why: String,
    },
}

/// No core files, no debugger, no more privileges by running a program. Called before anything secret is read.
///
/// # Errors
/// Core files can't be switched off. A kernel without the other two is older than any that is supported.
pub fn begin() -> Result<(), HardenError> {
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|error| HardenError::Core(error.into()))?;
    // Neither cores by a handler in user space, nor a debugger or /proc/PID/mem of another process of this user.
    not_dumpable()?;
    rustix::thread::set_no_new_privs(true).map_err(|error| HardenError::Core(error.into()))
}

fn not_dumpable() -> Result<(), HardenError> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| HardenError::Core(error.into()))
}

/// Keeps memory out of swap space, as `process.lock_memory` wants it.
///
/// # Errors
/// It is required, and can't be done.
pub fn lock_memory(process: &Process) -> Result<(), HardenError> {
    let keeps_its_user = process.user.is_none();
    match process.lock_memory {
        Policy::Off => Ok(()),
        Policy::Require => memory::lock(keeps_its_user),
        Policy::Prefer => {
            if memory::has_swap()
                && let Err(error) = memory::lock(keeps_its_user)
            {
                tracing::warn!("{error}");
            }
            Ok(())
        }
    }
}

/// Whether this system has swap space; `true` where it does not say. For `seeway doctor`.
pub fn has_swap() -> bool {
    memory::has_swap()
}

/// Whether this process may keep all of its memory out of swap space. Nothing is locked. For `seeway doctor`.
pub fn may_lock_memory() -> bool {
    memory::may_lock()
}

/// Tries on a thread that ends then what this kernel can take away: files and ports, and system calls. The process keeps all that it
/// has. For `seeway doctor`.
pub fn trial() -> (Result<Restricted, String>, Result<(), String>) {
    let tried = std::thread::spawn(|| {
        let calls = calls::trial().map_err(|error| error.to_string());
        let files = files::restrict(&Paths::default(), None).map_err(|error| error.to_string());
        (files, calls)
    });
    let lost = || "the thread that tried it has ended".to_owned();
    tried.join().unwrap_or_else(|_| (Err(lost()), Err(lost())))
}

/// What [`confine`] has taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confined {
    /// Files and ports.
    pub files: Restricted,
    /// System calls.
    pub calls: bool,
}

impl fmt::Display for Confined {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = if self.calls { "taken away" } else { "left" };
        write!(formatter, "files {}, system calls {calls}", self.files)
    }
}

/// Becomes the user that the configuration names, and takes away all that a gateway which listens already does not need. `file` is
/// the configuration's own, which a reload reads again.
///
/// # Errors
/// It is required, and can't be done; or there is a second thread.
pub fn confine(config: &Config, file: &Path) -> Result<Confined, HardenError> {
    let process = &config.process;
    if let Some(wanted) = &process.user {
        user::become_user(wanted)?;
        // The kernel switches this back when a process changes its user.
        not_dumpable()?;
    } else if rustix::process::geteuid().is_root() {
        tracing::warn!("the gateway runs as root, which it does not need; name a user with process.user");
    }
    let paths = Paths::of(config, file);
    let confined = match process.sandbox {
        Policy::Off => Confined { files: Restricted::Not, calls: false },
        policy => {
            let threads = threads();
            if threads != 1 {
                return Err(HardenError::Threads(threads));
            }
            let files = files::restrict(&paths, process.connect_ports.as_deref());
            let files = match (files, policy) {
                (Ok(Restricted::Not), Policy::Require) => return Err(HardenError::NoLandlock),
                (Err(error), Policy::Require) => return Err(error),
                (Ok(Restricted::Not), _) => {
                    tracing::warn!("{}", HardenError::NoLandlock);
                    Restricted::Not
                }
                (Err(error), _) => {
                    tracing::warn!("{error}");
                    Restricted::Not
                }
                (Ok(Restricted::Partly), _) if process.connect_ports.is_some() => {
                    tracing::warn!(
                        "this kernel may not hold the gateway to process.connect_ports; Linux 6.7 and later do"
                    );
                    Restricted::Partly
                }
                (Ok(restricted), _) => restricted,
            };
            let calls = match (calls::restrict(), policy) {
                (Ok(()), _) => true,
                (Err(error), Policy::Require) => return Err(error),
                (Err(error), _) => {
                    tracing::warn!("{error}");
                    false
                }
            };
            Confined { files, calls }
        }
    };
    tracing::debug!(%confined, "confined");
    // Found out now rather than at the next reload.
    for named in std::iter::once(file).chain(config.files.iter().map(std::path::PathBuf::as_path)) {
        if let Err(error) = std::fs::File::open(named) {
            let file = named.display();
            tracing::warn!(%file, %error, "a reload will not be able to read this file; let the gateway's user read it");
        }
    }
    Ok(confined)
}

/// How many threads the process has; 1 where the system does not say.
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

#[cfg(test)]
mod tests {
    use russh::keys::ssh_key::LineEnding;
    use russh::keys::{Algorithm, PrivateKey};

    use super::*;

    #[test]
    fn a_process_with_a_second_thread_is_not_confined_by_halves() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).expect("a key");
        let identity = folder.path().join("id");
        std::fs::write(&identity, key.to_openssh(LineEnding::LF).expect("encoded").as_bytes()).expect("written");
        std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(0o600)).expect("set");
        let text = format!(
            "listen.hardserver = []\n[[machine]]\nname = \"m\"\naddress = \"h:1\"\nidentity = \"id\"\nhost_key = \"{}\"\n\
             [[world]]\nname = \"w\"\nmachines = [\"m\"]\n",
            key.public_key().to_openssh().expect("encoded")
        );
        let file = folder.path().join("seeway.toml");
        std::fs::write(&file, &text).expect("written");
        let config = Config::read(&text, &file, []).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(config.files, [identity]);
        // A test's own thread is at least the second one.
        let refused = confine(&config, &file).expect_err("two threads");
        assert!(matches!(refused, HardenError::Threads(2..)), "{refused}");
        std::fs::read_dir("/").expect("nothing was taken away");
    }

    #[test]
    fn files_are_kept_by_their_folders_but_never_all_of_etc() {
        let folder = tempfile::tempdir().expect("a folder");
        let real = folder.path().join("real");
        std::fs::create_dir(&real).expect("made");
        std::fs::write(real.join("key"), "").expect("written");
        std::fs::create_dir(folder.path().join("links")).expect("made");
        let link = folder.path().join("links/key");
        std::os::unix::fs::symlink(real.join("key"), &link).expect("made");
        let mut paths = Paths::default();
        paths.add_folder_of(&link);
        paths.add_folder_of(Path::new("/etc/seeway.toml"));
        paths.add_folder_of(Path::new("/etc/seeway/seeway.toml"));
        let real = std::fs::canonicalize(real).expect("there");
        let wanted = [folder.path().join("links"), real, "/etc/seeway.toml".into(), "/etc/seeway".into()];
        assert_eq!(paths.read, wanted.into_iter().collect());
    }
}
