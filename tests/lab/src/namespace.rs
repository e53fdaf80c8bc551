//! A network namespace without a name: it lives as long as somebody holds it open, so nothing of
//! the lab outlives the process that made it, whatever that process dies of.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    mount::{MountPropagationFlags, mount_bind, mount_change},
    process::{Signal, set_parent_process_death_signal},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

/// A network namespace held open by descriptor.
#[derive(Debug, Clone)]
pub struct Netns {
    fd: Arc<OwnedFd>,
}

impl Netns {
    /// A fresh namespace with nothing but a loopback interface that is down.
    pub fn create() -> io::Result<Self> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    // SAFETY: only the network namespace of this short-lived thread changes; its
                    // descriptor table stays shared.
                    unsafe { unshare_unsafe(UnshareFlags::NEWNET)? };
                    Self::here()
                })
                .join()
                .map_err(|_| io::Error::other("the thread that makes a namespace panicked"))?
        })
    }

    /// The namespace of the calling thread.
    pub fn here() -> io::Result<Self> {
        let file = File::open("/proc/thread-self/ns/net")?;
        Ok(Self {
            fd: Arc::new(file.into()),
        })
    }

    /// The namespace of a running process.
    pub fn of_process(pid: u32) -> io::Result<Self> {
        let file = File::open(format!("/proc/{pid}/ns/net"))?;
        Ok(Self {
            fd: Arc::new(file.into()),
        })
    }

    /// A path by which other processes of this machine can open the namespace while this process
    /// lives and holds it: `nsenter --net=PATH`, `ip link … netns PATH`.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.fd.as_raw_fd()
        ))
    }

    /// Runs `work` on a thread inside the namespace and gives its result. Sockets and `/dev/net/tun`
    /// descriptors opened there stay in the namespace wherever they are used later.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.join()?;
                    Ok(work())
                })
                .join()
                .map_err(|_| io::Error::other("the work inside a namespace panicked"))?
        })
    }

    /// Moves the calling thread into the namespace, for good.
    pub(crate) fn join(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(
            self.fd.as_fd(),
            Some(LinkNameSpaceType::Network),
        )?)
    }

    /// Moves the calling thread into the namespace that `path` names, for good.
    pub fn join_path(path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        Ok(move_into_link_name_space(
            file.as_fd(),
            Some(LinkNameSpaceType::Network),
        )?)
    }

    /// A command that will run inside the namespace and die with the thread that starts it.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let namespace = Arc::clone(&self.fd);
        // SAFETY: between fork and exec only two system calls are made; nothing is allocated and no
        // lock is taken.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(())
            });
        }
        command
    }

    /// Like [`Netns::command`], with `resolv_conf` seen as `/etc/resolv.conf`.
    pub fn command_with_resolver(
        &self,
        program: impl AsRef<std::ffi::OsStr>,
        resolv_conf: &Path,
    ) -> Command {
        let mut command = self.command(program);
        let resolv_conf = resolv_conf.to_path_buf();
        // SAFETY: as above; the paths are short enough for rustix to keep them on the stack.
        unsafe {
            command.pre_exec(move || {
                unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS)?;
                mount_change(
                    "/",
                    MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
                )?;
                mount_bind(resolv_conf.as_path(), "/etc/resolv.conf")?;
                Ok(())
            });
        }
        command
    }

    /// Writes a setting under `/proc/sys/net` of the namespace, for example
    /// `("ipv4/ip_forward", "1")`.
    pub(crate) fn sysctls(&self, settings: &[(&str, &str)]) -> io::Result<()> {
        self.enter(|| {
            settings
                .iter()
                .try_for_each(|(key, value)| std::fs::write(format!("/proc/sys/net/{key}"), value))
        })?
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Hands a descriptor to the process that `command` will start, and gives the word (`fd:N`) by which
/// its command line can name it. This process's copy is closed with the command.
pub fn hand_over(command: &mut Command, fd: OwnedFd) -> String {
    let word = format!("fd:{}", fd.as_raw_fd());
    // SAFETY: one system call between fork and exec, on a descriptor that the closure owns.
    unsafe {
        command.pre_exec(move || Ok(fcntl_setfd(&fd, FdFlags::empty())?));
    }
    word
}
