//! The system calls that a gateway may need, and those that it must never make. Calls in neither list are unknown to it.

use nix::libc;

/// What a gateway may need. Some of them only with some arguments; see the parent module.
#[rustfmt::skip] // A line for each purpose would be two hundred.
pub(super) const ALLOWED: &[i64] = &[
    libc::SYS_read, libc::SYS_write, libc::SYS_readv, libc::SYS_writev, libc::SYS_pread64, libc::SYS_pwrite64,
    libc::SYS_preadv, libc::SYS_pwritev, libc::SYS_preadv2, libc::SYS_pwritev2, libc::SYS_close,
    libc::SYS_close_range, libc::SYS_lseek, libc::SYS_dup, libc::SYS_dup3, libc::SYS_fcntl, libc::SYS_ioctl,
    libc::SYS_pipe2, libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_ftruncate, libc::SYS_truncate,
    libc::SYS_fallocate, libc::SYS_sync_file_range, libc::SYS_flock, libc::SYS_fadvise64, libc::SYS_openat,
    libc::SYS_openat2, libc::SYS_newfstatat, libc::SYS_fstat, libc::SYS_statx, libc::SYS_faccessat,
    libc::SYS_faccessat2, libc::SYS_readlinkat, libc::SYS_getdents64, libc::SYS_getcwd, libc::SYS_statfs,
    libc::SYS_fstatfs, libc::SYS_unlinkat, libc::SYS_renameat, libc::SYS_renameat2, libc::SYS_linkat,
    libc::SYS_mkdirat, libc::SYS_umask, libc::SYS_epoll_create1, libc::SYS_epoll_ctl, libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2, libc::SYS_eventfd2, libc::SYS_ppoll, libc::SYS_pselect6, libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime, libc::SYS_timerfd_gettime, libc::SYS_signalfd4, libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch, libc::SYS_inotify_rm_watch, libc::SYS_mmap, libc::SYS_munmap, libc::SYS_mprotect,
    libc::SYS_mremap, libc::SYS_madvise, libc::SYS_brk, libc::SYS_mlock, libc::SYS_mlock2, libc::SYS_munlock,
    libc::SYS_mlockall, libc::SYS_munlockall, libc::SYS_msync, libc::SYS_mincore, libc::SYS_membarrier,
    libc::SYS_futex, libc::SYS_futex_waitv, libc::SYS_set_robust_list, libc::SYS_get_robust_list, libc::SYS_rseq,
    libc::SYS_set_tid_address, libc::SYS_clone, libc::SYS_exit, libc::SYS_exit_group, libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity, libc::SYS_sched_setaffinity, libc::SYS_sched_getparam, libc::SYS_sched_getscheduler,
    libc::SYS_getpriority, libc::SYS_setpriority, libc::SYS_getcpu, libc::SYS_rt_sigaction, libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn, libc::SYS_rt_sigsuspend, libc::SYS_rt_sigtimedwait, libc::SYS_rt_sigpending,
    libc::SYS_sigaltstack, libc::SYS_tgkill, libc::SYS_restart_syscall, libc::SYS_gettid, libc::SYS_getpid,
    libc::SYS_getppid, libc::SYS_getuid, libc::SYS_geteuid, libc::SYS_getgid, libc::SYS_getegid, libc::SYS_getgroups,
    libc::SYS_getresuid, libc::SYS_getresgid, libc::SYS_getpgid, libc::SYS_getsid, libc::SYS_uname, libc::SYS_sysinfo,
    libc::SYS_prlimit64, libc::SYS_getrlimit, libc::SYS_getrusage, libc::SYS_times, libc::SYS_capget,
    libc::SYS_clock_gettime, libc::SYS_clock_getres, libc::SYS_clock_nanosleep, libc::SYS_nanosleep,
    libc::SYS_gettimeofday, libc::SYS_getrandom, libc::SYS_socket, libc::SYS_socketpair, libc::SYS_connect,
    libc::SYS_bind, libc::SYS_accept, libc::SYS_accept4, libc::SYS_getsockname,
    libc::SYS_getpeername, libc::SYS_setsockopt, libc::SYS_getsockopt, libc::SYS_sendto, libc::SYS_recvfrom,
    libc::SYS_sendmsg, libc::SYS_recvmsg, libc::SYS_sendmmsg, libc::SYS_recvmmsg, libc::SYS_shutdown,
    libc::SYS_splice, libc::SYS_sendfile, libc::SYS_prctl, libc::SYS_seccomp,
];

/// Further ones, of x86-64 only: older forms of those above.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip] // A line for each purpose would be two hundred.
pub(super) const ALLOWED_HERE: &[i64] = &[
    libc::SYS_open, libc::SYS_stat, libc::SYS_lstat, libc::SYS_access, libc::SYS_readlink, libc::SYS_poll,
    libc::SYS_select, libc::SYS_epoll_wait, libc::SYS_epoll_create, libc::SYS_pipe, libc::SYS_dup2, libc::SYS_unlink,
    libc::SYS_rename, libc::SYS_mkdir, libc::SYS_getdents, libc::SYS_eventfd,
    libc::SYS_signalfd, libc::SYS_getpgrp, libc::SYS_time, libc::SYS_arch_prctl, libc::SYS_pause,
];

/// There are none on other architectures.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const ALLOWED_HERE: &[i64] = &[];

/// What nobody wants a gateway to do: programs, other processes, mounts, modules, other users, keys, clocks;
/// and what it is done with by then: listening sockets and the modes of files are made before.
#[rustfmt::skip] // A line for each purpose would be two hundred.
pub(super) const DENIED: &[i64] = &[
    libc::SYS_execve, libc::SYS_execveat, libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev,
    libc::SYS_kcmp, libc::SYS_mount, libc::SYS_umount2, libc::SYS_pivot_root, libc::SYS_chroot, libc::SYS_move_mount,
    libc::SYS_open_tree, libc::SYS_fsopen, libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
    libc::SYS_mount_setattr, libc::SYS_setns, libc::SYS_unshare, libc::SYS_bpf, libc::SYS_perf_event_open,
    libc::SYS_userfaultfd, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register,
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load,
    libc::SYS_kexec_file_load, libc::SYS_reboot, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_keyctl,
    libc::SYS_add_key, libc::SYS_request_key, libc::SYS_personality, libc::SYS_acct, libc::SYS_quotactl,
    libc::SYS_syslog, libc::SYS_vhangup, libc::SYS_settimeofday, libc::SYS_adjtimex, libc::SYS_clock_settime,
    libc::SYS_clock_adjtime, libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_setuid, libc::SYS_setgid,
    libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setresuid, libc::SYS_setresgid, libc::SYS_setgroups,
    libc::SYS_setfsuid, libc::SYS_setfsgid, libc::SYS_capset, libc::SYS_kill, libc::SYS_tkill, libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd, libc::SYS_pidfd_send_signal, libc::SYS_process_madvise, libc::SYS_memfd_create,
    libc::SYS_memfd_secret, libc::SYS_mknodat, libc::SYS_symlinkat, libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at, libc::SYS_shmget, libc::SYS_shmat, libc::SYS_shmctl, libc::SYS_semget,
    libc::SYS_msgget, libc::SYS_mq_open, libc::SYS_listen, libc::SYS_fchmod, libc::SYS_fchmodat, libc::SYS_fchown,
    libc::SYS_fchownat, libc::SYS_utimensat,
];

/// Further ones, of x86-64 only.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip] // A line for each purpose would be two hundred.
pub(super) const DENIED_HERE: &[i64] = &[
    libc::SYS_fork, libc::SYS_vfork, libc::SYS_mknod, libc::SYS_symlink, libc::SYS_iopl, libc::SYS_ioperm,
    libc::SYS_modify_ldt, libc::SYS_uselib, libc::SYS_chmod, libc::SYS_chown, libc::SYS_lchown,
];

/// There are none on other architectures.
#[cfg(not(target_arch = "x86_64"))]
pub(super) const DENIED_HERE: &[i64] = &[];
