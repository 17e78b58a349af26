//! seccomp: the system calls that remain, some with certain arguments only.
//!
//! Found by strace and by the end-to-end tests, which fail when a call was refused; the rest is what the C library may
//! do in their place, or to end. Those without conditions cost next to nothing: the kernel keeps in a bitmap that they
//! are allowed (from Linux 5.11 on).

use std::collections::BTreeMap;
use std::ffi::{c_int, c_long};

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter_all_threads,
};

use super::refusals;

/// For all threads, from now on.
pub fn forbid() -> Result<(), String> {
    let filter = filter().map_err(|e| e.to_string())?;
    refusals::answer_signals().map_err(|e| format!("the handler of SIGSYS: {e}"))?;
    apply_filter_all_threads(&filter).map_err(|e| e.to_string())
}

fn filter() -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = ALLOWED.iter().map(|number| (*number, Vec::new())).collect();
    for (number, argument, tests) in conditional() {
        let alternatives = tests.into_iter().map(|(operator, value)| {
            let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
            SeccompRule::new(vec![condition])
        });
        rules.insert(number, alternatives.collect::<Result<_, _>>()?);
    }
    let architecture = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, architecture)?.try_into()
}

type Test = (SeccompCmpOp, u64);

/// Calls that are allowed if one argument passes one of the tests.
fn conditional() -> Vec<(c_long, u8, Vec<Test>)> {
    let is = |value: c_int| (SeccompCmpOp::Eq, value as u64);
    let not_executable = || vec![(SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0)];
    vec![
        (libc::SYS_socket, 0, vec![is(libc::AF_INET), is(libc::AF_INET6), is(libc::AF_PACKET)]),
        (libc::SYS_mmap, 2, not_executable()),
        (libc::SYS_mprotect, 2, not_executable()),
        (libc::SYS_ioctl, 1, vec![(SeccompCmpOp::Eq, libc::FIONBIO)]),
        (libc::SYS_fcntl, 1, vec![is(libc::F_GETFD), is(libc::F_GETFL), is(libc::F_SETFL)]),
        (libc::SYS_prctl, 0, vec![is(libc::PR_SET_NAME)]),
        // What abort() ends with.
        (libc::SYS_tgkill, 0, vec![(SeccompCmpOp::Eq, std::process::id().into())]),
    ]
}

const ALLOWED: &[c_long] = &[
    // Packets, the channel, the log.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_close,
    // Waiting and time.
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_ppoll,
    libc::SYS_timerfd_settime,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    // Settings of the network and the own socket; which files, says Landlock.
    libc::SYS_openat,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_getdents64,
    libc::SYS_unlinkat,
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads: how one that was just started begins, how they wait for each other, and how they end.
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getrandom,
    // What newer architectures have dropped.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];
