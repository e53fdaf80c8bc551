//! How the seat closes itself in: it opens nothing, makes no socket, and maps nothing of others.

use sekisho_sandbox::{
    BARE, EVENTS, Enforced, Filter, FilterError, Is, MESSAGES, Rule, Sandbox, SandboxError,
};

const FIONBIO: u32 = 0x5421;

/// Who comes to a socket that listens already, and what they bring: memory files are asked for
/// their seals and length, and read.
const VISITORS: &[Rule] = &[
    Rule::allow(libc::SYS_accept4),
    Rule::allow(libc::SYS_ioctl).when(1, Is::Int(FIONBIO)),
    Rule::allow(libc::SYS_fcntl).when(1, Is::Int(libc::F_GET_SEALS.cast_unsigned())),
    Rule::allow(libc::SYS_fstat),
    Rule::allow(libc::SYS_pread64),
];

/// The system calls of the seat's one thread.
pub fn filter() -> Result<Filter, FilterError> {
    Filter::new("seat", &[BARE, EVENTS, MESSAGES, VISITORS])
}

/// Closes the process in, as `user` where one is given.
pub fn enter(user: Option<u32>) -> Result<Enforced, SandboxError> {
    let sandbox = Sandbox::closed();
    match user {
        Some(user) => sandbox.user(user, user).enter(),
        None => sandbox.enter(),
    }
}
