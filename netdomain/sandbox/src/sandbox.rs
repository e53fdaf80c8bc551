//! The order in which a process is closed in.

use std::{os::fd::OwnedFd, path::PathBuf};

use rustix::{
    io::Errno,
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
    system::sethostname,
    thread::{
        LinkNameSpaceType, UnshareFlags, move_into_link_name_space, set_no_new_privs,
        unshare_unsafe,
    },
};

use crate::{
    Access, Capabilities, Demand, Landlock, Root,
    credentials::{self, User},
    paths, root,
    root::{Shown, What},
};

/// What the process calls the machine: the host's own name is nobody's business.
const HOST_NAME: &[u8] = b"sekisho";

/// Which network the process keeps.
#[derive(Debug)]
pub enum Network {
    /// A namespace of its own without any interface but `lo`, which is down.
    Empty,
    /// The one it is in. For the uplink, started in the namespace of the physical NICs.
    Keep,
    /// The one that this descriptor (of a file like `/run/netns/uplink`) refers to.
    Join(OwnedFd),
}

/// Resource limits, soft and hard alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Highest number of a descriptor, plus one. Those that are open already stay.
    pub files: u64,
    /// Bytes of locked memory; `None` leaves it as it is.
    pub locked_memory: Option<u64>,
    /// Threads of the user, all its processes together; `None` leaves it as it is. The kernel does
    /// not hold root to it.
    pub threads: Option<u64>,
}

impl Default for Limits {
    /// 64 descriptors: the largest of our processes holds some 30 (queues, uplinks, timers).
    fn default() -> Self {
        Self {
            files: 64,
            locked_memory: None,
            threads: None,
        }
    }
}

/// What is to be taken away from a process. Starts as everything: see [`Sandbox::closed`].
#[derive(Debug)]
#[must_use = "nothing is closed before `enter`"]
pub struct Sandbox {
    network: Network,
    keep_root: bool,
    for_programs: bool,
    shown: Vec<Shown>,
    user: Option<User>,
    capabilities: Capabilities,
    limits: Limits,
    demand: Demand,
    paths: Vec<(PathBuf, Access)>,
    tcp: bool,
}

/// What the kernel really enforces, for the log and for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enforced {
    /// What the process sees as its root.
    pub root: Root,
    /// Whether there is Landlock, and how much of it.
    pub landlock: Landlock,
}

/// Why a process could not be closed in. It must not go on.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Threads would stay outside.
    #[error("the sandbox must be entered before any thread is started")]
    Threads,
    /// The kernel refused a step.
    #[error(
        "the sandbox could not be closed: {step} failed ({errno}); start this program as root, or \
         through the supervisor"
    )]
    Step {
        /// What was tried.
        step: &'static str,
        /// What the kernel answered.
        errno: Errno,
    },
    /// Landlock is demanded and not to be had.
    #[error(
        "this kernel enforces no Landlock: boot it with `landlock` first in its `lsm=` list ({0})"
    )]
    NoLandlock(String),
    /// A path that was to stay reachable cannot be opened.
    #[error("{0} cannot be opened to be let through the sandbox: {1}")]
    Path(PathBuf, String),
}

/// Names the step in the error.
pub(crate) fn step<T>(step: &'static str, outcome: Result<T, Errno>) -> Result<T, SandboxError> {
    outcome.map_err(|errno| SandboxError::Step { step, errno })
}

impl Sandbox {
    /// Everything closed: own empty network, mount, IPC, UTS and cgroup namespaces, an empty
    /// read-only root, no capabilities, no path by Landlock, no TCP by Landlock, no core dumps,
    /// not dumpable, no new privileges. The user stays the same until [`Sandbox::user`] says so.
    pub fn closed() -> Self {
        Self {
            network: Network::Empty,
            keep_root: false,
            for_programs: false,
            shown: Vec::new(),
            user: None,
            capabilities: Capabilities::NONE,
            limits: Limits::default(),
            demand: Demand::Required,
            paths: Vec::new(),
            tcp: false,
        }
    }

    /// Which network to keep.
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Becomes this user and group, with no supplementary groups.
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.user = Some(User { uid, gid });
        self
    }

    /// Keeps these capabilities, and lets none be gained.
    pub fn keep(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Keeps the root directory, so that paths mean something; Landlock decides which.
    pub fn keep_root(mut self) -> Self {
        self.keep_root = true;
        self
    }

    /// Programs that are started later are closed in alike, and keep the same capabilities; without
    /// this they keep none.
    pub fn for_programs(mut self) -> Self {
        self.for_programs = true;
        self
    }

    /// Shows this file, folder or symbolic link in the new root too, read-only, at `at` (from the
    /// new root, without a leading slash). For a process that starts programs of others; programs
    /// may be run from there.
    pub fn show(mut self, from: impl Into<PathBuf>, at: impl Into<PathBuf>) -> Self {
        self.shown.push(Shown {
            what: What::ReadOnly(from.into()),
            at: at.into(),
        });
        self
    }

    /// Shows this device of the old root (`/dev/null`, say) at the same place in the new one, to be
    /// read and written.
    pub fn show_device(mut self, device: impl Into<PathBuf>) -> Self {
        let device = device.into();
        let at = device.strip_prefix("/").unwrap_or(&device).to_path_buf();
        self.shown.push(Shown {
            what: What::Device(device),
            at,
        });
        self
    }

    /// Shows `/dev/null`, which programs of others open to write to.
    pub fn show_null(self) -> Self {
        self.show_device("/dev/null")
    }

    /// Makes a small folder in memory at `at` in the new root that the process and its programs may
    /// write to, for the sockets and the few files that programs of others insist on.
    pub fn scratch(mut self, at: impl Into<PathBuf>) -> Self {
        self.shown.push(Shown {
            what: What::Scratch,
            at: at.into(),
        });
        self
    }

    /// Lets this file, or everything beneath this directory, be opened later: by path with
    /// [`Sandbox::keep_root`], or through a directory's descriptor that is open already. What is
    /// open needs no permission.
    pub fn path(mut self, path: impl Into<PathBuf>, access: Access) -> Self {
        self.paths.push((path.into(), access));
        self
    }

    /// Lets TCP be bound and connected (for the uplink's connection to the beacon).
    pub fn allow_tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// Whether a kernel without Landlock is good enough. Default: it is not.
    pub fn landlock(mut self, demand: Demand) -> Self {
        self.demand = demand;
        self
    }

    /// Closes the process in. There is no way back.
    ///
    /// # Errors
    /// When a step fails the process is half closed in; it must end.
    pub fn enter(self) -> Result<Enforced, SandboxError> {
        // `unshare(CLONE_THREAD)` does nothing in a process with one thread, and fails otherwise.
        // SAFETY: the call takes a number and shares or unshares no memory.
        if unsafe { libc::unshare(libc::CLONE_THREAD) } != 0 {
            return Err(SandboxError::Threads);
        }
        // By descriptor, before the root goes away.
        let mut ruleset = paths::prepare(&self.paths, self.tcp, self.demand)?;

        self.unshare()?;
        let root = if self.keep_root {
            Root::Kept
        } else {
            let root = root::replace(&self.shown, self.user)?;
            // What is shown is named as the new root has it: its mounts hold the very inodes that
            // will be opened. On a file system that makes a new inode for each look-up (9p without
            // a cache, some network ones) a rule about the old root's path is a rule about nothing.
            let shown = self.shown.iter().map(Shown::permission);
            ruleset = paths::permit(ruleset, shown)?;
            root
        };
        self.limit()?;
        credentials::drop_to(self.user, self.capabilities, self.for_programs)?;
        step(
            "turning off memory dumps",
            set_dumpable_behavior(DumpableBehavior::NotDumpable),
        )?;
        step("refusing new privileges", set_no_new_privs(true))?;
        let landlock = paths::enforce(ruleset)?;
        Ok(Enforced { root, landlock })
    }

    fn unshare(&self) -> Result<(), SandboxError> {
        let mut flags = UnshareFlags::NEWNS
            | UnshareFlags::NEWIPC
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWCGROUP;
        match &self.network {
            Network::Empty => flags |= UnshareFlags::NEWNET,
            Network::Keep => {}
            Network::Join(namespace) => {
                use std::os::fd::AsFd as _;
                let kind = Some(LinkNameSpaceType::Network);
                step(
                    "joining the network namespace",
                    move_into_link_name_space(namespace.as_fd(), kind),
                )?;
            }
        }
        // SAFETY: none of these flags touches memory or the table of descriptors; what they change
        // belongs to the whole process, because it has one thread.
        step("making namespaces", unsafe { unshare_unsafe(flags) })?;
        step("naming the machine", sethostname(HOST_NAME))
    }

    fn limit(&self) -> Result<(), SandboxError> {
        let limits = [
            (Resource::Core, Some(0)),
            (Resource::Nofile, Some(self.limits.files)),
            (Resource::Memlock, self.limits.locked_memory),
            (Resource::Nproc, self.limits.threads),
        ];
        for (resource, limit) in limits {
            if limit.is_some() {
                let both = Rlimit {
                    current: limit,
                    maximum: limit,
                };
                step("setting resource limits", setrlimit(resource, both))?;
            }
        }
        Ok(())
    }
}
