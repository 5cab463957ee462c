//! Which files a gateway that runs still needs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::access::token::SYSTEM_ROOTS;
use crate::audit;
use crate::config::{Config, HardserverAddress};
use crate::credentials;

/// For names of hosts and users: the C library's tables, and its modules and what those ask.
const NAME_SERVICE: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/etc/services",
    "/etc/ld.so.cache",
    "/run/systemd/resolve",
    "/run/nscd",
    "/var/lib/sss",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
];

/// What is left to a gateway of the file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// Files and folders, with all that is in them, that may be read.
    pub read: BTreeSet<PathBuf>,
    /// Folders in which files may be made, written, renamed and removed.
    pub write: BTreeSet<PathBuf>,
    /// Folders from which files may be removed: the listeners' sockets, at the end.
    pub remove: BTreeSet<PathBuf>,
}

impl Paths {
    /// What a gateway of this configuration needs, whose file is `file`.
    ///
    /// Folders rather than files where something may be replaced: a rule is about a file itself and not about its name, and
    /// editors and tools that renew keys put a new file in the old one's place.
    pub fn of(config: &Config, file: &Path) -> Self {
        let mut paths = Self::default();
        for named in std::iter::once(file).chain(config.files.iter().map(PathBuf::as_path)) {
            paths.add_folder_of(named);
        }
        if let Some(credentials) = credentials::directory() {
            paths.read.insert(credentials.into());
        }
        if rustix::process::geteuid().is_root() {
            paths.read.extend(NAME_SERVICE.iter().map(PathBuf::from));
        } else {
            // Without root, what is secret there can't be read anyway; and /etc/resolv.conf and /etc/hosts may be replaced.
            paths.read.insert("/etc".into());
            paths.read.extend(NAME_SERVICE.iter().filter(|path| !path.starts_with("/etc")).map(PathBuf::from));
        }
        let reads_roots = config.trace.as_ref().is_some_and(|trace| trace.endpoint.is_tls && trace.ca.is_none());
        if config.token.is_some() || reads_roots {
            match std::env::var_os("SSL_CERT_FILE") {
                Some(file) => paths.add_folder_of(Path::new(&file)),
                None => SYSTEM_ROOTS.iter().for_each(|file| paths.add_folder_of(Path::new(file))),
            }
        }
        let listeners = config.listen.hardserver.iter().chain(&config.listen.management);
        paths.remove.extend(listeners.filter_map(|address| match address {
            HardserverAddress::Unix(path) => folder_of(path),
            HardserverAddress::Tcp(_) | HardserverAddress::Tls(_) => None,
        }));
        paths.remove.extend(config.listen.handover.iter().filter_map(|path| folder_of(path)));
        // Its files are opened anew when they are rotated.
        if let Some(audit::Settings { to: audit::Target::File(path), .. }) = &config.audit {
            paths.write.extend(folder_of(path));
        }
        paths
    }

    /// The folder that a file is in, and the one that it is really in where it is a link.
    pub(super) fn add_folder_of(&mut self, file: &Path) {
        let real = std::fs::canonicalize(file).ok();
        for file in [Some(file), real.as_deref()].into_iter().flatten() {
            // Not all of the file system, nor all of /etc, for one file in it.
            let folder = folder_of(file).filter(|folder| !["/", "/etc"].iter().any(|wide| folder == Path::new(wide)));
            self.read.insert(folder.unwrap_or_else(|| file.to_owned()));
        }
    }
}

/// The folder of a file; the current one where its name has none.
fn folder_of(file: &Path) -> Option<PathBuf> {
    let folder = file.parent()?;
    if folder.as_os_str().is_empty() { std::env::current_dir().ok() } else { std::path::absolute(folder).ok() }
}
