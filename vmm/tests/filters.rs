//! A system call that is not a thread's work ends the process, whatever kind of thread makes it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use sekisho_vmm::sandbox::{Thread, filter};

const KINDS: [(&str, Thread); 7] = [
    ("main", Thread::Main),
    ("vcpu", Thread::Vcpu),
    ("io", Thread::Io),
    ("serial", Thread::Serial),
    ("memory", Thread::Memory),
    ("tpm", Thread::Tpm),
    ("image", Thread::Image),
];

/// What an attacker would try first. The arguments are harmless where the filter fails.
const FORBIDDEN: [(&str, i64, [i64; 3]); 10] = [
    (
        "socket",
        libc::SYS_socket,
        [libc::AF_INET as i64, libc::SOCK_STREAM as i64, 0],
    ),
    ("connect", libc::SYS_connect, [-1, 0, 0]),
    ("bind", libc::SYS_bind, [-1, 0, 0]),
    ("openat", libc::SYS_openat, [-1, 0, 0]),
    ("execve", libc::SYS_execve, [0, 0, 0]),
    ("fork", libc::SYS_fork, [0, 0, 0]),
    ("ptrace", libc::SYS_ptrace, [-1, 0, 0]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0]),
    // KVM_CREATE_VCPU.
    ("ioctl", libc::SYS_ioctl, [-1, 0xae41, 0]),
    MEMORY,
];

/// `KVM_SET_USER_MEMORY_REGION`: guest memory is what it is. The one thread that moves the screen's has
/// nothing else.
const MEMORY: (&str, i64, [i64; 3]) = ("memory region", libc::SYS_ioctl, [-1, 0x4020_ae46, 0]);

/// What belongs to an event loop, and is not for the threads that have none: with it code that
/// the guest took over could make descriptors and wait for other threads' ones.
const LOOPS_ONLY: [(&str, i64, [i64; 3]); 9] = [
    ("read", libc::SYS_read, [-1, 0, 0]),
    ("eventfd2", libc::SYS_eventfd2, [0, 0, 0]),
    ("epoll_create1", libc::SYS_epoll_create1, [0, 0, 0]),
    ("epoll_ctl", libc::SYS_epoll_ctl, [-1, 0, 0]),
    ("epoll_wait", libc::SYS_epoll_wait, [-1, 0, 0]),
    ("timerfd_create", libc::SYS_timerfd_create, [0, 0, 0]),
    ("timerfd_settime", libc::SYS_timerfd_settime, [-1, 0, 0]),
    (
        "fcntl F_DUPFD_CLOEXEC",
        libc::SYS_fcntl,
        [0, libc::F_DUPFD_CLOEXEC as i64, 0],
    ),
    (
        "fcntl F_SETFL",
        libc::SYS_fcntl,
        [0, libc::F_SETFL as i64, 0],
    ),
];

const VARIABLE: &str = "SEKISHO_TEST_FORBIDDEN";

/// The child's part: closes one thread in and makes the system call that the parent names.
#[test]
fn child() {
    let Ok(order) = std::env::var(VARIABLE) else {
        return;
    };
    let (kind, call) = order.split_once(' ').unwrap();
    let thread = KINDS.iter().find(|(name, _)| *name == kind).unwrap().1;
    let mut calls = FORBIDDEN.iter().chain(&LOOPS_ONLY);
    let call = calls.find(|(name, ..)| *name == call);
    filter(thread).unwrap().install().unwrap();
    if let Some((_, number, [a, b, c])) = call {
        // SAFETY: with these arguments the kernel refuses each of the calls, or makes a socket.
        unsafe { libc::syscall(*number, *a, *b, *c) };
    }
}

/// How the child ended: its signal, or its exit status.
fn outcome(kind: &str, call: &str) -> Result<i32, Option<i32>> {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child"])
        .env(VARIABLE, format!("{kind} {call}"))
        .output()
        .unwrap()
        .status;
    status.signal().ok_or(status.code())
}

#[test]
fn a_forbidden_system_call_kills() {
    for (kind, _) in KINDS {
        for (call, ..) in FORBIDDEN {
            let expected = if (kind, call) == ("memory", MEMORY.0) {
                Err(Some(0))
            } else {
                Ok(libc::SIGSYS)
            };
            assert_eq!(outcome(kind, call), expected, "{call} in {kind}");
        }
    }
}

#[test]
fn a_thread_without_an_event_loop_has_none_of_its_system_calls() {
    for kind in ["vcpu", "serial", "memory", "tpm", "image"] {
        for (call, ..) in LOOPS_ONLY {
            // The one that a bell takes.
            if (kind, call) == ("tpm", "read") {
                continue;
            }
            assert_eq!(outcome(kind, call), Ok(libc::SIGSYS), "{call} in {kind}");
        }
    }
}

/// Without a forbidden call the same child lives: it is the call that killed it.
#[test]
fn the_filter_alone_does_not_kill() {
    for (kind, _) in KINDS {
        assert_eq!(outcome(kind, "none"), Err(Some(0)), "{kind}");
    }
}
