//! Descriptors that a process was born with, named on its command line as `fd:N`.

use std::{
    os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::{Mutex, PoisonError},
};

use rustix::io::{Errno, FdFlags, fcntl_getfd, fcntl_setfd};

/// Why a word of the command line names no descriptor that can be taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InheritedError {
    /// Not of the form `fd:N`.
    #[error("`{0}` is not of the form `fd:N`, with N the number of an open descriptor")]
    Form(String),
    /// Standard input, output or error.
    #[error("fd:{0} is a standard stream; sockets are handed over from fd:3 on")]
    Standard(RawFd),
    /// Nothing is open there.
    #[error("fd:{0} is not open; start this program through the supervisor, which passes it on")]
    Closed(RawFd),
    /// It has close-on-exec: it was taken before, or this process opened it by itself.
    #[error("fd:{0} was not inherited, or was named twice on the command line")]
    NotInherited(RawFd),
    /// The kernel refused to change its flags.
    #[error("fd:{0} cannot be taken: {1}")]
    Refused(RawFd, Errno),
}

/// Takes the descriptor that `word` (`fd:N`) names and marks it close-on-exec.
///
/// What came through `exec` cannot have close-on-exec set, and everything that Rust opens by itself
/// has it; so a descriptor that has the mark belongs to somebody else and is refused. The same N
/// cannot be taken twice, because the first time sets the mark.
///
/// # Errors
/// [`InheritedError`], each a sentence for the person at the command line.
#[allow(unsafe_code)]
pub fn inherited(word: &str) -> Result<OwnedFd, InheritedError> {
    // Between reading and setting the mark no other call may read it.
    static TAKING: Mutex<()> = Mutex::new(());

    let number: RawFd = word
        .strip_prefix("fd:")
        .filter(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| InheritedError::Form(word.to_owned()))?;
    if number <= 2 {
        return Err(InheritedError::Standard(number));
    }

    let _taking = TAKING.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the number is not -1. The borrow ends within this function and only asks for flags,
    // which the kernel answers with EBADF when nothing is open there.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = fcntl_getfd(borrowed).map_err(|_| InheritedError::Closed(number))?;
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(InheritedError::NotInherited(number));
    }
    fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC)
        .map_err(|errno| InheritedError::Refused(number, errno))?;
    // SAFETY: the descriptor is open, and nobody in this process owns it: it had no close-on-exec
    // mark until a line ago, so it came through exec and was not taken before.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    /// A descriptor as exec would leave it: open, without close-on-exec, owned by nobody.
    fn as_after_exec() -> RawFd {
        let (fd, _) = crate::pair().unwrap();
        fcntl_setfd(&fd, FdFlags::empty()).unwrap();
        fd.into_raw_fd()
    }

    #[test]
    fn takes_an_inherited_descriptor_once() {
        let number = as_after_exec();
        let fd = inherited(&format!("fd:{number}")).unwrap();
        assert_eq!(fd.as_raw_fd(), number);
        assert!(fcntl_getfd(&fd).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(
            inherited(&format!("fd:{number}")).unwrap_err(),
            InheritedError::NotInherited(number)
        );
    }

    #[test]
    fn refuses_what_this_process_opened() {
        let (fd, _peer) = crate::pair().unwrap();
        let number = fd.as_raw_fd();
        assert_eq!(
            inherited(&format!("fd:{number}")).unwrap_err(),
            InheritedError::NotInherited(number)
        );
    }

    #[test]
    fn refuses_standard_streams_closed_ones_and_other_words() {
        assert_eq!(inherited("fd:2").unwrap_err(), InheritedError::Standard(2));
        assert_eq!(
            inherited("fd:999999").unwrap_err(),
            InheritedError::Closed(999_999)
        );
        for word in [
            "",
            "fd:",
            "fd:-1",
            "fd:+3",
            "fd: 3",
            "fd:3x",
            "/run/x",
            "fd:99999999999",
        ] {
            assert_eq!(
                inherited(word).unwrap_err(),
                InheritedError::Form(word.to_owned())
            );
        }
    }
}
