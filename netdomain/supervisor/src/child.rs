//! Starts a process with the descriptors that its words name, and nothing else of ours.

use std::{
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, Stdio},
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{
        Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, set_parent_process_death_signal,
    },
};

/// A running process of ours.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// Readable when it has ended.
    pub(crate) pidfd: OwnedFd,
}

/// A descriptor and the placeholder that it is named by.
pub(crate) type Handed = (&'static str, OwnedFd);

impl Running {
    /// Starts `words`, in which each placeholder becomes `fd:N`. The descriptors keep their numbers
    /// in the child, and are closed here.
    pub(crate) fn start(words: &[String], handed: Vec<Handed>) -> io::Result<Self> {
        let mut words = words.iter().map(|word| {
            handed.iter().fold(word.clone(), |word, (placeholder, fd)| {
                word.replace(placeholder, &format!("fd:{}", fd.as_raw_fd()))
            })
        });
        let program = words
            .next()
            .ok_or_else(|| io::Error::other("no program is named"))?;
        let mut command = Command::new(program);
        command
            .args(words)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .stdin(Stdio::null());
        if let Ok(filter) = std::env::var("SEKISHO_LOG") {
            command.env("SEKISHO_LOG", filter);
        }
        let parent = rustix::process::getpid();
        #[allow(unsafe_code)]
        // SAFETY: between fork and exec the closure only makes system calls (prctl, getppid, fcntl)
        // on descriptors that it owns; it takes no lock and does not allocate.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // The parent may have died before the line above.
                if rustix::process::getppid() != Some(parent) {
                    return Err(rustix::io::Errno::SRCH.into());
                }
                for (_, fd) in &handed {
                    fcntl_setfd(fd, FdFlags::empty())?;
                }
                Ok(())
            });
        }
        let mut child = command.spawn()?;
        let opened = Pid::from_raw(child.id().cast_signed())
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        match opened {
            Ok(pidfd) => Ok(Self { child, pidfd }),
            Err(errno) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(errno.into())
            }
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; one that has ended does not mind.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Takes its exit status, once its pidfd is readable.
    pub(crate) fn reap(&mut self) -> io::Result<Option<std::process::ExitStatus>> {
        self.child.try_wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
