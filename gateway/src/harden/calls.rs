//! Takes system calls away from the process, with two seccomp filters.
//!
//! The first lets through what a gateway may need: what glibc, tokio, mio, aws-lc and russh do, with room for other versions of
//! them. All else is answered with ENOSYS, as by an older kernel, which libraries are made for: glibc asks `clone3` and then makes
//! its thread with `clone`. The second answers EPERM to what nobody who runs a gateway wants it to do, also in the arguments of
//! calls that it needs: other programs, other processes, memory that is written and then run, kinds of sockets that only
//! attackers open.
//!
//! Both hold for every thread. They cost nothing measurable: the kernel remembers which calls always pass.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter, apply_filter_all_threads,
};

use super::HardenError;

mod list;

/// Takes away the system calls that a gateway which listens already does not need.
pub(super) fn restrict() -> Result<(), HardenError> {
    for filter in [allowed()?, denied()?] {
        apply_filter_all_threads(&filter).map_err(failed)?;
    }
    Ok(())
}

/// Whether the kernel takes a filter: one that lets all pass, for this thread only.
pub(super) fn trial() -> Result<(), HardenError> {
    let filter = program(Rules::new(), SeccompAction::Allow, errno(libc::EPERM))?;
    apply_filter(&filter).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> HardenError {
    HardenError::Calls(error.to_string())
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn program(rules: Rules, otherwise: SeccompAction, on_match: SeccompAction) -> Result<BpfProgram, HardenError> {
    let architecture = std::env::consts::ARCH.try_into().map_err(failed)?;
    let filter = SeccompFilter::new(rules, otherwise, on_match, architecture).map_err(failed)?;
    filter.try_into().map_err(failed)
}

fn errno(number: i32) -> SeccompAction {
    SeccompAction::Errno(number.unsigned_abs())
}

fn allowed() -> Result<BpfProgram, HardenError> {
    let rules = list::ALLOWED.iter().chain(list::ALLOWED_HERE).map(|call| (*call, Vec::new())).collect();
    program(rules, errno(libc::ENOSYS), SeccompAction::Allow)
}

fn denied() -> Result<BpfProgram, HardenError> {
    let mut rules: Rules = list::DENIED.iter().chain(list::DENIED_HERE).map(|call| (*call, Vec::new())).collect();
    // A thread shares its process; what does not is another process.
    rules.insert(libc::SYS_clone, vec![without(0, libc::CLONE_THREAD)?]);
    let known = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    // Multipath TCP is not held to ports, nor is what is sent with a connection's first packet.
    let protocols = [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP];
    rules.insert(libc::SYS_socket, vec![none_of(0, &known)?, none_of(2, &protocols)?]);
    rules.insert(libc::SYS_sendto, vec![with(3, libc::MSG_FASTOPEN)?]);
    rules.insert(libc::SYS_sendmsg, vec![with(2, libc::MSG_FASTOPEN)?]);
    rules.insert(libc::SYS_sendmmsg, vec![with(3, libc::MSG_FASTOPEN)?]);
    // Other processes of the same user.
    rules.insert(libc::SYS_tgkill, vec![none_of(0, &[std::process::id().cast_signed()])?]);
    rules.insert(libc::SYS_socketpair, vec![none_of(0, &[libc::AF_UNIX])?]);
    rules.insert(libc::SYS_mmap, vec![with(2, libc::PROT_WRITE | libc::PROT_EXEC)?]);
    rules.insert(libc::SYS_mprotect, vec![with(2, libc::PROT_EXEC)?]);
    // Typing into the terminal that the gateway was started from.
    rules.insert(libc::SYS_ioctl, vec![is(1, libc::TIOCSTI)?, is(1, libc::TIOCLINUX)?]);
    // Other processes' limits.
    rules.insert(libc::SYS_prlimit64, vec![none_of(0, &[0])?]);
    program(rules, SeccompAction::Allow, errno(libc::EPERM))
}

/// Numbers of these calls' arguments, which are written with their C types, as the filter takes them.
fn bits(value: impl TryInto<i64>) -> u64 {
    value.try_into().map_or(0, i64::cast_unsigned) & u64::from(u32::MAX)
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, HardenError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value).map_err(failed)
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, HardenError> {
    SeccompRule::new(conditions).map_err(failed)
}

/// The argument is this value.
fn is(argument: u8, value: impl TryInto<i64>) -> Result<SeccompRule, HardenError> {
    rule(vec![condition(argument, SeccompCmpOp::Eq, bits(value))?])
}

/// The argument is none of these values.
fn none_of(argument: u8, values: &[i32]) -> Result<SeccompRule, HardenError> {
    let conditions = values.iter().map(|value| condition(argument, SeccompCmpOp::Ne, bits(*value)));
    rule(conditions.collect::<Result<_, _>>()?)
}

/// The argument has all of these bits.
fn with(argument: u8, flags: i32) -> Result<SeccompRule, HardenError> {
    rule(vec![condition(argument, SeccompCmpOp::MaskedEq(bits(flags)), bits(flags))?])
}

/// The argument has none of these bits.
fn without(argument: u8, flags: i32) -> Result<SeccompRule, HardenError> {
    rule(vec![condition(argument, SeccompCmpOp::MaskedEq(bits(flags)), 0)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_filters_can_be_made_and_no_call_is_in_both_without_a_condition() {
        for filter in [allowed().expect("made"), denied().expect("made")] {
            assert!(
                filter.len() < 4096,
                "the kernel takes no more than 4096 instructions, and this has {}",
                filter.len()
            );
        }
        let denied: Vec<_> = list::DENIED.iter().chain(list::DENIED_HERE).collect();
        for call in list::ALLOWED.iter().chain(list::ALLOWED_HERE) {
            assert!(!denied.contains(&call), "system call {call} is allowed and denied");
        }
    }
}
