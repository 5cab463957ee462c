//! The gateway of this configuration that runs, where one does; and the hardserver behind it.

use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::time::Duration;

use super::finding::Finding;
use crate::config::{Config, HardserverAddress};
use crate::handover::{MessageError, Running, ask_who};

/// How long a hardserver may take to let somebody connect. It is on this computer, or near it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a gateway may take to say who it is. One that is being taken over from says it afterwards.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The gateway that answers at `listen.handover`, and what there is to say of it.
pub(super) fn gateway(config: &Config) -> (Option<Running>, Finding) {
    const CHECK: &str = "running gateway";
    let Some(path) = &config.listen.handover else {
        return (
            None,
            Finding::ok(CHECK, "listen.handover", "is not set, so no gateway was asked which version it is"),
        );
    };
    let about = format!("listen.handover unix:{}", path.display());
    let running = match ask_who(path, ANSWER_TIMEOUT) {
        Ok(Some(running)) => running,
        Ok(None) => return (None, Finding::ok(CHECK, about, "none runs with this configuration")),
        Err(MessageError::System(error)) if is_late(&error) => {
            let what =
                format!("does not answer within {} s: it hangs, or an upgrade is going on", ANSWER_TIMEOUT.as_secs());
            return (
                None,
                Finding::warning(CHECK, about, what, "see its log (journalctl -u seeway), and try again in a minute"),
            );
        }
        Err(error) => {
            let fix = "run this as the gateway's user (runuser -u seeway -- seeway doctor …)";
            return (None, Finding::warning(CHECK, about, format!("can not be asked: {error}"), fix));
        }
    };
    let finding = match Running::this() {
        Ok(this) => compared(about, &running, &this),
        Err(error) => Finding::warning(CHECK, about, format!("/proc/self/exe: {error}"), "mount /proc"),
    };
    (Some(running), finding)
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Whether what runs is what is installed.
fn compared(about: String, running: &Running, this: &Running) -> Finding {
    const CHECK: &str = "running gateway";
    const FIX: &str = "run: systemctl reload seeway (or seeway upgrade, as its user), which loses no job; where that failed before, its log says why";
    let Running { version, pid, .. } = running;
    if running.version != this.version {
        let what = format!("version {version} (process {pid}) runs, and this is {}", this.version);
        return Finding::warning(CHECK, about, what, FIX);
    }
    if running.binary != this.binary {
        let what = format!(
            "version {version} (process {pid}) was started from another file than this one, which was put in its place"
        );
        return Finding::warning(CHECK, about, what, FIX);
    }
    Finding::ok(CHECK, about, format!("version {version} (process {pid}) runs, from this file"))
}

/// How many files a process may open at once, as its soft limit has it; `None` where that can't be seen.
pub(super) fn open_files_of(pid: u32) -> Option<u64> {
    soft_limit(&std::fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

/// The soft limit of open files in the form of `/proc/PID/limits`; the highest number where there is none.
fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// The hardserver that commands are passed on to which are none of Seeway's.
pub(super) fn hardserver(config: &Config) -> Option<Finding> {
    const CHECK: &str = "hardserver";
    let address = config.listen.upstream_hardserver.as_ref()?;
    let about = format!("listen.upstream_hardserver {address}");
    let connected = match address.clone() {
        // One whose backlog is full is waited for, for as long as it takes.
        HardserverAddress::Unix(path) => within(CONNECT_TIMEOUT, move || UnixStream::connect(path).map(drop)),
        HardserverAddress::Tcp(address) | HardserverAddress::Tls(address) => {
            TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).map(drop)
        }
    };
    Some(match connected {
        Ok(()) => Finding::ok(CHECK, about, "takes connections"),
        Err(error) => {
            let fix = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "make the gateway's user a member of the socket's group (usermod -aG nfast seeway), and restart it"
                }
                _ => "start the hardserver, or correct the address",
            };
            let what = format!("can not be connected to: {error}; commands for it fail");
            Finding::warning(CHECK, about, what, fix)
        }
    })
}

/// What `blocks` says, on a thread that is left behind where that takes too long.
fn within(timeout: Duration, blocks: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(blocks()));
    told.recv_timeout(timeout).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn what_runs_is_compared_with_what_is_installed() {
        let of = |version: &str, inode| Running { version: version.to_owned(), pid: 7, binary: (1, inode) };
        let verdict = |running| compared("x".to_owned(), &running, &of("1.2.3", 5));
        assert_eq!(verdict(of("1.2.3", 5)).verdict, Verdict::Ok);
        let older = verdict(of("1.2.2", 5));
        assert!(
            older.verdict == Verdict::Warning && older.what.contains("1.2.2") && older.fix.contains("reload"),
            "{older:?}"
        );
        let replaced = verdict(of("1.2.3", 6));
        assert!(replaced.verdict == Verdict::Warning && replaced.what.contains("another file"), "{replaced:?}");
    }

    #[test]
    fn who_does_not_answer_is_not_waited_for() {
        let slow = within(Duration::from_millis(10), || {
            std::thread::park();
            Ok(())
        });
        assert!(slow.is_err_and(|error| is_late(&error)));
        assert!(within(CONNECT_TIMEOUT, || Ok(())).is_ok());
    }

    #[test]
    fn a_process_s_limit_is_read_as_the_kernel_writes_it() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max cpu time              unlimited            unlimited            seconds   \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(soft_limit(text), Some(1024));
        assert_eq!(soft_limit(&text.replace("1024  ", "unlimited")), Some(u64::MAX));
        assert_eq!(soft_limit("Max processes 5 5 processes\n"), None);
        assert!(open_files_of(std::process::id()).is_some_and(|limit| limit > 0));
    }
}
