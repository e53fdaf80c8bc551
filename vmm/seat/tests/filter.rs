//! A system call that is not the seat's ends it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use sekisho_seat::sandbox::filter;

/// What an attacker would try first. The arguments are harmless where the filter fails.
const FORBIDDEN: [(&str, i64, [i64; 4]); 14] = [
    (
        "socket",
        libc::SYS_socket,
        [libc::AF_INET as i64, libc::SOCK_STREAM as i64, 0, 0],
    ),
    ("connect", libc::SYS_connect, [-1, 0, 0, 0]),
    ("bind", libc::SYS_bind, [-1, 0, 0, 0]),
    ("listen", libc::SYS_listen, [-1, 0, 0, 0]),
    ("openat", libc::SYS_openat, [-1, 0, 0, 0]),
    ("execve", libc::SYS_execve, [0, 0, 0, 0]),
    ("fork", libc::SYS_fork, [0, 0, 0, 0]),
    ("ptrace", libc::SYS_ptrace, [-1, 0, 0, 0]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0]),
    ("memfd_create", libc::SYS_memfd_create, [0, 0, 0, 0]),
    // The picture is read and never written, and the file keeps its seals.
    ("pwrite64", libc::SYS_pwrite64, [-1, 0, 0, 0]),
    ("ftruncate", libc::SYS_ftruncate, [-1, 0, 0, 0]),
    (
        "fcntl F_ADD_SEALS",
        libc::SYS_fcntl,
        [-1, libc::F_ADD_SEALS as i64, 0, 0],
    ),
    // A key for the terminal that the seat was started from (TIOCSTI).
    ("ioctl", libc::SYS_ioctl, [-1, 0x5412, 0, 0]),
];

const VARIABLE: &str = "SEKISHO_TEST_FORBIDDEN";

/// The child's part: closes its thread in and makes the system call that the parent names.
#[test]
fn child() {
    let Ok(name) = std::env::var(VARIABLE) else {
        return;
    };
    let call = FORBIDDEN.iter().find(|(call, ..)| *call == name);
    filter().unwrap().install().unwrap();
    if let Some((_, number, [a, b, c, d])) = call {
        // SAFETY: with these arguments the kernel refuses each of the calls, or makes a socket.
        unsafe { libc::syscall(*number, *a, *b, *c, *d) };
    }
}

/// How the child ended: its signal, or its exit status.
fn outcome(call: &str) -> Result<i32, Option<i32>> {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child"])
        .env(VARIABLE, call)
        .output()
        .unwrap()
        .status;
    status.signal().ok_or(status.code())
}

#[test]
fn a_system_call_that_is_not_the_seats_kills() {
    for (call, ..) in FORBIDDEN {
        assert_eq!(outcome(call), Ok(libc::SIGSYS), "{call}");
    }
    // Without one the same child lives: it is the call that killed it.
    assert_eq!(outcome("none"), Err(Some(0)));
}
