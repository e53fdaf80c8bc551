//! Named sets of system calls, to be put together for each kind of thread.
//!
//! None of them opens a file, makes a socket, starts a program or makes memory executable.

use crate::{Is, Rule};

/// `PROT_EXEC` must not be asked for.
const NOT_EXECUTABLE: Is = Is::Masked {
    mask: libc::PROT_EXEC.cast_unsigned(),
    value: 0,
};

/// The flags by which the C library makes a thread, and no process.
const A_THREAD: Is = {
    let flags = libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND;
    Is::Masked {
        mask: flags.cast_unsigned(),
        value: flags.cast_unsigned(),
    }
};

const fn fcntl(command: i32) -> Rule {
    Rule::allow(libc::SYS_fcntl).when(1, Is::Int(command.cast_unsigned()))
}

const fn prctl(option: i32) -> Rule {
    Rule::allow(libc::SYS_prctl).when(0, Is::Int(option.cast_unsigned()))
}

/// What every thread needs: writing to what is open, memory, locks, the clock, a line of the log,
/// and its own end. It makes no descriptor and reads none, so it is all there is for a thread that
/// meets a guest's bytes first and has no event loop.
pub const BARE: &[Rule] = &[
    Rule::allow(libc::SYS_write),
    Rule::allow(libc::SYS_writev),
    // The end of what it owns; a build with debug assertions asks first whether it is still open.
    Rule::allow(libc::SYS_close),
    fcntl(libc::F_GETFD),
    Rule::allow(libc::SYS_futex),
    Rule::allow(libc::SYS_sched_yield),
    // Time, where the vDSO cannot tell it.
    Rule::allow(libc::SYS_clock_gettime),
    // Memory, never executable.
    Rule::allow(libc::SYS_brk),
    Rule::allow(libc::SYS_mmap).when(2, NOT_EXECUTABLE),
    Rule::allow(libc::SYS_mprotect).when(2, NOT_EXECUTABLE),
    Rule::allow(libc::SYS_mremap),
    Rule::allow(libc::SYS_munmap),
    Rule::allow(libc::SYS_madvise),
    // Signals and the thread's end. `tgkill` is how a panic aborts; it reaches only what the user
    // and Landlock's scope let it reach.
    Rule::allow(libc::SYS_sigaltstack),
    Rule::allow(libc::SYS_rt_sigaction),
    Rule::allow(libc::SYS_rt_sigprocmask),
    Rule::allow(libc::SYS_rt_sigreturn),
    Rule::allow(libc::SYS_restart_syscall),
    Rule::allow(libc::SYS_tgkill),
    // The message of a panic asks for the working directory.
    Rule::allow(libc::SYS_getcwd),
    Rule::allow(libc::SYS_getpid),
    Rule::allow(libc::SYS_gettid),
    Rule::allow(libc::SYS_exit),
    Rule::allow(libc::SYS_exit_group),
];

/// What a thread with an event loop needs beside: reading what is open, waiting for it, timers,
/// random numbers; and installing a further filter.
pub const EVENTS: &[Rule] = &[
    // Open descriptors.
    Rule::allow(libc::SYS_read),
    Rule::allow(libc::SYS_readv),
    fcntl(libc::F_SETFD),
    fcntl(libc::F_GETFL),
    fcntl(libc::F_SETFL),
    fcntl(libc::F_DUPFD_CLOEXEC),
    // Waiting.
    Rule::allow(libc::SYS_epoll_create1),
    Rule::allow(libc::SYS_epoll_ctl),
    Rule::allow(libc::SYS_epoll_wait),
    Rule::allow(libc::SYS_epoll_pwait),
    Rule::allow(libc::SYS_epoll_pwait2),
    Rule::allow(libc::SYS_poll),
    Rule::allow(libc::SYS_ppoll),
    Rule::allow(libc::SYS_eventfd2),
    Rule::allow(libc::SYS_timerfd_create),
    Rule::allow(libc::SYS_timerfd_settime),
    Rule::allow(libc::SYS_timerfd_gettime),
    Rule::allow(libc::SYS_nanosleep),
    Rule::allow(libc::SYS_clock_nanosleep),
    Rule::allow(libc::SYS_clock_getres),
    Rule::allow(libc::SYS_gettimeofday),
    Rule::allow(libc::SYS_getrandom),
    Rule::allow(libc::SYS_sched_getaffinity),
    // A further, stricter filter.
    Rule::allow(libc::SYS_seccomp),
    prctl(libc::PR_SET_NO_NEW_PRIVS),
];

/// Messages over sockets that are open: frame links, channels, connected UDP and TCP.
pub const MESSAGES: &[Rule] = &[
    Rule::allow(libc::SYS_sendmsg),
    Rule::allow(libc::SYS_sendmmsg),
    Rule::allow(libc::SYS_sendto),
    Rule::allow(libc::SYS_recvmsg),
    Rule::allow(libc::SYS_recvmmsg),
    Rule::allow(libc::SYS_recvfrom),
    Rule::allow(libc::SYS_shutdown),
    Rule::allow(libc::SYS_getsockopt),
    Rule::allow(libc::SYS_getsockname),
    Rule::allow(libc::SYS_getpeername),
];

/// Reading, writing and flushing files that are open.
pub const FILES: &[Rule] = &[
    Rule::allow(libc::SYS_lseek),
    Rule::allow(libc::SYS_pread64),
    Rule::allow(libc::SYS_preadv),
    Rule::allow(libc::SYS_pwrite64),
    Rule::allow(libc::SYS_pwritev),
    Rule::allow(libc::SYS_fsync),
    Rule::allow(libc::SYS_fdatasync),
    Rule::allow(libc::SYS_fallocate),
    Rule::allow(libc::SYS_ftruncate),
    Rule::allow(libc::SYS_fstat),
    // With an empty path it is `fstat`; any other path leads nowhere from an empty root.
    Rule::allow(libc::SYS_newfstatat).when(
        3,
        Is::Masked {
            mask: libc::AT_EMPTY_PATH.cast_unsigned(),
            value: libc::AT_EMPTY_PATH.cast_unsigned(),
        },
    ),
    Rule::allow(libc::SYS_statx).when(
        2,
        Is::Masked {
            mask: libc::AT_EMPTY_PATH.cast_unsigned(),
            value: libc::AT_EMPTY_PATH.cast_unsigned(),
        },
    ),
];

/// Starting threads, and no processes. The C library tries `clone3` first, whose flags no filter
/// can read; it is made to seem missing.
pub const THREADS: &[Rule] = &[
    Rule::unimplemented(libc::SYS_clone3),
    Rule::allow(libc::SYS_clone).when(0, A_THREAD),
    Rule::allow(libc::SYS_set_robust_list),
    Rule::allow(libc::SYS_rseq),
    prctl(libc::PR_SET_NAME),
];
