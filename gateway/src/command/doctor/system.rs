//! The computer: who runs the gateway, its limits, memory, kernel and clock.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use rustix::process::{Resource, getrlimit};

use super::files::Runner;
use super::finding::Finding;
use super::running::open_files_of;
use crate::config::{Config, Policy};
use crate::handover::Running;
use crate::harden::{self, Restricted};

/// Descriptors that are neither callers' nor tunnels': listeners, logs, the runtimes' own.
const SPARE_DESCRIPTORS: u64 = 128;

/// How far a file may be ahead of the clock before the clock is not believed.
const AHEAD: Duration = Duration::from_secs(300);

/// When this version was made, more or less: no clock is right that is before it. 2025-01-01.
const LONG_AGO: Duration = Duration::from_secs(1_735_689_600);

/// Whom the gateway runs as.
pub(super) fn user(config: &Config) -> Finding {
    const CHECK: &str = "user";
    let runner = Runner::of(config);
    let is_root = rustix::process::geteuid().is_root();
    match (&config.process.user, is_root) {
        (Some(user), true) => Finding::ok(CHECK, &user.name, "the gateway, started as root, becomes this user"),
        (Some(user), false) if runner.uid != rustix::process::geteuid().as_raw() => Finding::failed(
            CHECK,
            &user.name,
            "process.user names another user than the one that starts it, and only root can become another",
            "start it as root or as that user, or take process.user out",
        ),
        (None, true) => Finding::warning(
            CHECK,
            "root",
            "this was run as root, who may read and write all: what the gateway's user can't, does not show. A gateway needs no root",
            "run it as the gateway's user (runuser -u seeway -- seeway doctor …), and name that in the unit or as process.user",
        ),
        _ => Finding::ok(CHECK, runner.uid, "is not root"),
    }
}

/// Everything but the user and the clock; with the limits that the gateway has which runs, where one does.
pub(super) fn all(config: &Config, running: Option<&Running>) -> Vec<Finding> {
    let mut findings = vec![descriptors(config, running), swap(config)];
    findings.extend(sandbox(config));
    findings.push(Finding::ok(
        "core files",
        "this computer",
        "`seeway serve` switches them off for itself before it reads a key",
    ));
    findings.push(randomness());
    findings.extend(ipv6(config));
    findings
}

/// The limit of open files against what the configuration's limits may need.
fn descriptors(config: &Config, running: Option<&Running>) -> Finding {
    const CHECK: &str = "open files";
    let limits = &config.limits;
    let tunnels: usize = config
        .machines
        .iter()
        .map(|machine| (machine.tunnels + usize::from(machine.bulk_channels > 0)) * config.runtime.shards)
        .sum();
    let for_callers = if config.listen.upstream_hardserver.is_some() { 2 } else { 1 } * limits.callers as u64;
    let needed = for_callers + 2 * (limits.pipes as u64 + tunnels as u64) + SPARE_DESCRIPTORS;
    // The gateway takes what the system leaves it as a soft limit. That of a shell says little of a service.
    let of_running = running.and_then(|running| Some((running.pid, open_files_of(running.pid)?)));
    let (whose, limit) = match of_running {
        Some((pid, limit)) => (format!("the gateway that runs (process {pid})"), Some(limit)),
        None => ("this user's shell".to_owned(), getrlimit(Resource::Nofile).current),
    };
    match limit {
        Some(limit) if limit < needed => Finding::warning(
            CHECK,
            "limits.callers",
            format!(
                "{whose} may have {limit} files open at once, and {} callers, {} pipes and {tunnels} tunnels need up to {needed}",
                limits.callers, limits.pipes
            ),
            format!("in the unit: LimitNOFILE={needed} (in a shell: ulimit -n {needed}), or lower limits.callers"),
        ),
        limit => Finding::ok(
            CHECK,
            "limits.callers",
            format!(
                "up to {needed} are needed, and {whose} may have {}",
                limit.filter(|limit| *limit < u64::MAX).map_or("any number".to_owned(), |limit| limit.to_string())
            ),
        ),
    }
}

/// Whether keys and jobs could come into swap space.
fn swap(config: &Config) -> Finding {
    const CHECK: &str = "swap space";
    const FIX: &str = "set LimitMEMLOCK=infinity in the unit (ulimit -l unlimited), or switch swap space off";
    let policy = config.process.lock_memory;
    let has_swap = harden::has_swap();
    if policy == Policy::Off {
        return if has_swap {
            let what = "there is some, and the gateway does not lock its memory: keys and jobs may come into it";
            Finding::warning(
                CHECK,
                "process.lock_memory",
                what,
                "write lock_memory = \"prefer\", or switch swap space off",
            )
        } else {
            Finding::ok(CHECK, "process.lock_memory", "there is none")
        };
    }
    let what = match (harden::may_lock_memory(), has_swap) {
        (true, _) => return Finding::ok(CHECK, "process.lock_memory", "memory can be locked"),
        (false, false) if policy == Policy::Prefer => {
            return Finding::ok(CHECK, "process.lock_memory", "there is none, so memory need not be locked");
        }
        (false, _) => "this user may not lock memory here, so keys and jobs may come into swap space",
    };
    if policy == Policy::Require {
        Finding::failed(CHECK, "process.lock_memory", format!("{what}, and the gateway will not start"), FIX)
    } else {
        Finding::warning(CHECK, "process.lock_memory", what, FIX)
    }
}

/// What this kernel can take away from a process, tried on a thread that ends then.
fn sandbox(config: &Config) -> Vec<Finding> {
    let policy = config.process.sandbox;
    if policy == Policy::Off {
        let what = "is off: the gateway keeps the right to files and system calls that it does not need";
        return vec![Finding::warning("sandbox", "process.sandbox", what, "write sandbox = \"prefer\"")];
    }
    let (files, calls) = harden::trial();
    let judged = |is_there: bool, about: &str, what: String, fix: &str| match (is_there, policy) {
        (true, _) => Finding::ok("sandbox", about, what),
        (false, Policy::Require) => {
            Finding::failed("sandbox", about, format!("{what}, and the gateway will not start"), fix)
        }
        (false, _) => Finding::warning("sandbox", about, what, fix),
    };
    let landlock = match files {
        Ok(Restricted::Fully) => judged(true, "Landlock", "this kernel can take away files and ports".to_owned(), ""),
        Ok(Restricted::Partly) => judged(
            config.process.connect_ports.is_none(),
            "Landlock",
            "this kernel can take away files, and ports in part: it is older than Linux 6.12".to_owned(),
            "use a newer kernel, or take process.connect_ports out",
        ),
        Ok(Restricted::Not) => judged(
            false,
            "Landlock",
            "this kernel can not take files away from a process".to_owned(),
            "use Linux 5.13 or later with Landlock switched on (lsm=landlock,…)",
        ),
        Err(error) => judged(false, "Landlock", error, "use a kernel that has it"),
    };
    let seccomp = match calls {
        Ok(()) => judged(true, "seccomp", "this kernel can take away system calls".to_owned(), ""),
        Err(error) => judged(false, "seccomp", error, "use a kernel that has it, and a container that allows it"),
    };
    vec![landlock, seccomp]
}

fn randomness() -> Finding {
    match getrandom::u32() {
        Ok(_) => Finding::ok("randomness", "this computer", "the system gives some"),
        Err(error) => Finding::failed(
            "randomness",
            "this computer",
            format!("the system gives none: {error}"),
            "wait until it has booted; give a virtual machine a virtio-rng device",
        ),
    }
}

/// Whether IPv6 is there, where an address of it is used.
fn ipv6(config: &Config) -> Option<Finding> {
    let listeners = [config.listen.grpc, config.listen.admin].into_iter().flatten();
    let listener = listeners.filter(std::net::SocketAddr::is_ipv6).map(|address| address.to_string()).next();
    let machine = config.machines.iter().find(|machine| machine.address.host.contains(':'));
    let used = listener.or_else(|| machine.map(|machine| machine.address.to_string()))?;
    let has_any = std::fs::read_to_string("/proc/net/if_inet6").is_ok_and(|addresses| !addresses.trim().is_empty());
    Some(if has_any {
        Finding::ok("IPv6", used, "this computer has an address of it")
    } else {
        let what = "is used, and this computer has no IPv6 address";
        Finding::failed(
            "IPv6",
            used,
            what,
            "run: sysctl net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.lo.disable_ipv6=0",
        )
    })
}

/// Whether the clock can be right: certificates and the audit log go by it. SSH servers do not say what time they have.
pub(super) fn clock<'f>(files: impl Iterator<Item = &'f PathBuf>) -> Finding {
    judged_clock(SystemTime::now(), files.filter_map(|file| Some((file, file.metadata().ok()?.modified().ok()?))))
}

fn judged_clock<'f>(now: SystemTime, files: impl Iterator<Item = (&'f PathBuf, SystemTime)>) -> Finding {
    const FIX: &str = "set it: timedatectl set-ntp true (or chrony), and see timedatectl status";
    if now < SystemTime::UNIX_EPOCH + LONG_AGO {
        return Finding::failed("clock", "this computer", "is before 2025", FIX);
    }
    let newest = files.max_by_key(|(_, modified)| *modified);
    match newest.and_then(|(file, modified)| Some((file, modified.duration_since(now).ok()?))) {
        Some((file, ahead)) if ahead > AHEAD => {
            let what = format!(
                "{} was written {} s in the future: the clock is late, or was",
                file.display(),
                ahead.as_secs()
            );
            Finding::warning("clock", "this computer", what, FIX)
        }
        _ => Finding::ok("clock", "this computer", "is plausible (no other clock was asked)"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn a_clock_before_this_version_or_behind_its_files_is_not_believed() {
        let file = PathBuf::from("seeway.toml");
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let judged = |now, written| judged_clock(at(now), std::iter::once((&file, at(written)))).verdict;
        assert_eq!(judged(1_000, 1_000), Verdict::Failed);
        assert_eq!(judged(1_800_000_000, 1_800_000_301), Verdict::Warning);
        assert_eq!(judged(1_800_000_000, 1_800_000_299), Verdict::Ok);
    }
}
