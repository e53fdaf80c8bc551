//! A program of the distribution as an engine's child: its words, its life, and what it may call.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{
    Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
};
use sekisho_sandbox::{Is, Rule};

/// Bytes of its output that are logged in one life: a gateway may send banners without end. What it says
/// beyond that is read and not logged: who writes into a full pipe stands still, with all that he does.
const MAX_WORDS: usize = 16 << 10;
/// The longest line that is kept until it ends; of a longer one the rest is forgotten.
const MAX_LINE: usize = 4 << 10;
/// Bytes that are read at once.
const READ: usize = 1024;
/// Reads after its end: what a pipe holds (pipe(7)).
const LAST_WORDS: usize = (64 << 10) / READ;

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ending {
    /// In words.
    pub(crate) why: String,
    /// By a signal, and not by its own will.
    pub(crate) crashed: bool,
}

/// A running program. Its end is ours: dropping it kills it, and so does our own death.
#[derive(Debug)]
pub(crate) struct Program {
    name: &'static str,
    child: Child,
    pidfd: OwnedFd,
    words: io::PipeReader,
    /// The line that is being said.
    line: Vec<u8>,
    said: usize,
    /// Nobody can say anything any more.
    silent: bool,
}

impl Program {
    /// Starts it with an empty environment but what `command` sets, nothing to read, and these
    /// descriptors under their own numbers.
    pub(crate) fn start(
        name: &'static str,
        command: &mut Command,
        passed: Option<BorrowedFd<'_>>,
    ) -> io::Result<Self> {
        Self::start_with(name, command, passed, Stdio::null(), None)
    }

    /// The same, with something to read, and with what it gives, apart from what it says, into
    /// `result`.
    pub(crate) fn start_with(
        name: &'static str,
        command: &mut Command,
        passed: Option<BorrowedFd<'_>>,
        input: Stdio,
        result: Option<Stdio>,
    ) -> io::Result<Self> {
        let (words, output) = io::pipe()?;
        let result = match result {
            Some(result) => result,
            None => output.try_clone()?.into(),
        };
        command
            .current_dir("/")
            .stdin(input)
            .stdout(result)
            .stderr(output);
        let parent = rustix::process::getpid();
        let passed = passed.map(|fd| fd.as_raw_fd());
        #[allow(unsafe_code)]
        // SAFETY: between fork and exec the closure only makes system calls (prctl, getppid, fcntl);
        // it takes no lock and does not allocate. The descriptor is open until `spawn` returns.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // The parent may have died before the line above.
                if rustix::process::getppid() != Some(parent) {
                    return Err(rustix::io::Errno::SRCH.into());
                }
                if let Some(passed) = passed {
                    fcntl_setfd(BorrowedFd::borrow_raw(passed), FdFlags::empty())?;
                }
                Ok(())
            });
        }
        let mut child = command.spawn()?;
        // The command holds our copies of its ends of pipes, without which those never end.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let opened = Pid::from_raw(child.id().cast_signed())
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        let pidfd = match opened {
            Ok(pidfd) => pidfd,
            Err(errno) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(errno.into());
            }
        };
        Ok(Self {
            name,
            child,
            pidfd,
            words,
            line: Vec::new(),
            said: 0,
            silent: false,
        })
    }

    /// Readable when it has ended.
    pub(crate) fn end(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Readable when it says something; none once it cannot any more.
    pub(crate) fn words(&self) -> Option<BorrowedFd<'_>> {
        (!self.silent).then(|| self.words.as_fd())
    }

    fn has_words(&self) -> bool {
        let mut fds = [PollFd::new(&self.words, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
    }

    /// Passes some of what it said on to the log, with nothing in it that a terminal would obey, and
    /// returns it: whole lines.
    pub(crate) fn log(&mut self) -> String {
        let mut buffer = [0; READ];
        let Ok(read @ 1..) = self.words.read(&mut buffer) else {
            // Closed: it will end, which its pidfd tells.
            self.silent = true;
            return String::new();
        };
        let silent = self.said == MAX_WORDS;
        self.said = MAX_WORDS.min(self.said + read);
        self.line.extend_from_slice(&buffer[..read]);
        let whole = self.line.iter().rposition(|byte| *byte == b'\n');
        let mut rest = self.line.split_off(whole.map_or(0, |at| at + 1));
        rest.truncate(MAX_LINE);
        let lines = String::from_utf8_lossy(&self.line).into_owned();
        for line in lines.lines().filter(|_| !silent) {
            tracing::info!("{}: {}", self.name, line.escape_debug());
        }
        self.line = rest;
        lines
    }

    /// Whether it has begun a line and not ended it, as programs do that wait for somebody to type.
    pub(crate) fn prompts(&self) -> bool {
        !self.line.is_empty()
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        // It may have ended.
        let _ = pidfd_send_signal(&self.pidfd, Signal::TERM);
    }

    /// How it ended, if it has; its last words go to the log.
    pub(crate) fn ended(&mut self) -> Option<Ending> {
        let status = self.child.try_wait().ok().flatten()?;
        for _ in 0..LAST_WORDS {
            if self.silent || !self.has_words() {
                break;
            }
            self.log();
        }
        Some(Ending {
            why: format!("{} ended: {status}", self.name),
            crashed: status.signal().is_some(),
        })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const fn ioctl(request: u32) -> Rule {
    Rule::allow(libc::SYS_ioctl).when(1, Is::Int(request))
}

/// What a keeper needs to start a program and wait for it, and what the program does with its
/// libraries and few files. No socket is made by any of these.
pub(crate) const PROGRAMS: &[Rule] = &[
    // Starting, ending, waiting.
    Rule::allow(libc::SYS_execve),
    Rule::allow(libc::SYS_vfork),
    Rule::allow(libc::SYS_clone),
    Rule::unimplemented(libc::SYS_clone3),
    Rule::allow(libc::SYS_wait4),
    Rule::allow(libc::SYS_waitid),
    Rule::allow(libc::SYS_kill),
    Rule::allow(libc::SYS_pidfd_open),
    Rule::allow(libc::SYS_pidfd_send_signal),
    Rule::allow(libc::SYS_prctl),
    Rule::allow(libc::SYS_setpgid),
    Rule::allow(libc::SYS_getppid),
    Rule::allow(libc::SYS_getpgrp),
    Rule::allow(libc::SYS_getuid),
    Rule::allow(libc::SYS_geteuid),
    Rule::allow(libc::SYS_getgid),
    Rule::allow(libc::SYS_getegid),
    // A process begins: memory, libraries.
    Rule::allow(libc::SYS_arch_prctl),
    Rule::allow(libc::SYS_set_tid_address),
    Rule::allow(libc::SYS_set_robust_list),
    Rule::allow(libc::SYS_rseq),
    Rule::allow(libc::SYS_prlimit64),
    Rule::allow(libc::SYS_mmap),
    Rule::allow(libc::SYS_mprotect),
    Rule::allow(libc::SYS_uname),
    Rule::allow(libc::SYS_sysinfo),
    // Files, of which the root has few.
    Rule::allow(libc::SYS_openat),
    Rule::allow(libc::SYS_access),
    Rule::allow(libc::SYS_faccessat),
    Rule::allow(libc::SYS_faccessat2),
    Rule::allow(libc::SYS_fstat),
    Rule::allow(libc::SYS_stat),
    Rule::allow(libc::SYS_lstat),
    Rule::allow(libc::SYS_newfstatat),
    Rule::allow(libc::SYS_statx),
    Rule::allow(libc::SYS_statfs),
    Rule::allow(libc::SYS_readlink),
    Rule::allow(libc::SYS_getdents64),
    Rule::allow(libc::SYS_pread64),
    Rule::allow(libc::SYS_lseek),
    Rule::allow(libc::SYS_fadvise64),
    Rule::allow(libc::SYS_chdir),
    Rule::allow(libc::SYS_umask),
    Rule::allow(libc::SYS_fcntl),
    Rule::allow(libc::SYS_dup),
    Rule::allow(libc::SYS_dup2),
    Rule::allow(libc::SYS_dup3),
    Rule::allow(libc::SYS_pipe2),
    // A terminal? (No.) Then do not show what is typed, please. Non-blocking, please.
    ioctl(0x5401),
    ioctl(0x5402),
    ioctl(0x5421),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_too_much_is_not_kept_waiting() {
        let mut command = Command::new("/usr/bin/head");
        command.args(["-c", "1000000", "/dev/zero"]);
        let mut program = Program::start("head", &mut command, None).unwrap();
        while let Some(words) = program.words() {
            poll(&mut [PollFd::from_borrowed_fd(words, PollFlags::IN)], None).unwrap();
            program.log();
        }
        poll(
            &mut [PollFd::from_borrowed_fd(program.end(), PollFlags::IN)],
            None,
        )
        .unwrap();
        let end = program.ended().unwrap();
        assert!(end.why.ends_with("exit status: 0"), "{end:?}");
        assert!(!end.crashed);
        assert_eq!(program.said, MAX_WORDS);
    }

    #[test]
    fn a_program_that_is_killed_has_crashed() {
        let mut command = Command::new("/usr/bin/sleep");
        command.arg("60");
        let mut program = Program::start("sleep", &mut command, None).unwrap();
        pidfd_send_signal(&program.pidfd, Signal::KILL).unwrap();
        poll(
            &mut [PollFd::from_borrowed_fd(program.end(), PollFlags::IN)],
            None,
        )
        .unwrap();
        assert!(program.ended().unwrap().crashed);
    }
}
