//! A read-only root directory: empty, or with what the process must see.

use std::{
    ffi::CStr,
    fs::{create_dir_all, symlink_metadata},
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags,
        MoveMountFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount,
        mount_bind, mount_change, mount_remount, move_mount, unmount,
    },
    process::{chdir, chroot, fchdir, pivot_root},
};

use crate::{
    Access,
    credentials::User,
    sandbox::{SandboxError, step},
};

/// What a process sees as its root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// The one it had.
    Kept,
    /// A new one with nothing in it but what was to be shown; no other mount is left in its
    /// namespace.
    Empty,
    /// An empty one, mounted over the kernel's initial root, which nothing can unmount (a system
    /// that runs from its initrd). Without capabilities and descriptors there is no way under it.
    EmptyOverInitial,
}

/// Something that the new root holds.
#[derive(Debug)]
pub(crate) struct Shown {
    /// What it is.
    pub(crate) what: What,
    /// Where it will be, without the leading slash.
    pub(crate) at: PathBuf,
}

/// What the new root can hold.
#[derive(Debug)]
pub(crate) enum What {
    /// A file, folder or symbolic link of the old root; programs may be run from there.
    ReadOnly(PathBuf),
    /// A device of the old root, which may be written to where its permissions say so.
    Device(PathBuf),
    /// A folder in memory that belongs to the process's user.
    Scratch,
}

impl Shown {
    /// What may be done with it, by its path in the new root.
    pub(crate) fn permission(&self) -> (PathBuf, Access) {
        let access = match self.what {
            What::ReadOnly(_) => Access::Execute,
            What::Device(_) | What::Scratch => Access::ReadWrite,
        };
        (Path::new("/").join(&self.at), access)
    }
}

/// Replaces the root of this process's own mount namespace. Scratch folders are `user`'s.
pub(crate) fn replace(shown: &[Shown], user: Option<User>) -> Result<Root, SandboxError> {
    let empty = attach_empty()?;
    step("entering the empty root", fchdir(&empty))?;
    for one in shown {
        // Paths that begin with a slash still lead into the old root, others into the new one.
        show(one, user).map_err(|error| SandboxError::Path(one.at.clone(), error.to_string()))?;
    }
    step("making the root read-only", lock(Path::new("."), true))?;
    // `pivot_root(".", ".")` lays the old root over the new one, whence it is unmounted.
    match pivot_root(".", ".") {
        Ok(()) => {
            step(
                "unmounting the old root",
                unmount(".", UnmountFlags::DETACH),
            )?;
            step("entering the empty root", chdir("/"))?;
            Ok(Root::Empty)
        }
        // The initial root cannot be pivoted away (pivot_root(2), NOTES).
        Err(Errno::INVAL) => over_initial(),
        Err(errno) => Err(SandboxError::Step {
            step: "changing the root",
            errno,
        }),
    }
}

fn show(shown: &Shown, user: Option<User>) -> std::io::Result<()> {
    if let Some(parent) = shown.at.parent().filter(|path| *path != Path::new("")) {
        create_dir_all(parent)?;
    }
    let (from, writable) = match &shown.what {
        What::ReadOnly(from) => (from, false),
        What::Device(from) => (from, true),
        What::Scratch => return scratch(&shown.at, user),
    };
    let kind = symlink_metadata(from)?.file_type();
    if kind.is_symlink() {
        return std::os::unix::fs::symlink(std::fs::read_link(from)?, &shown.at);
    }
    if kind.is_dir() {
        create_dir_all(&shown.at)?;
    } else {
        std::fs::File::create(&shown.at)?;
    }
    mount_bind(from, &shown.at)?;
    if !writable {
        lock(&shown.at, false)?;
    }
    Ok(())
}

/// Bytes of a scratch folder: sockets, a lock, a page of configuration.
const SCRATCH: &CStr = c"mode=0700,size=256k,nr_inodes=64";

fn scratch(at: &Path, user: Option<User>) -> std::io::Result<()> {
    create_dir_all(at)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", at, "tmpfs", flags, SCRATCH)?;
    if let Some(User { uid, gid }) = user {
        std::os::unix::fs::chown(at, Some(uid), Some(gid))?;
    }
    Ok(())
}

fn lock(mount: &Path, no_programs: bool) -> Result<(), Errno> {
    let mut flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    if no_programs {
        flags |= MountFlags::NOEXEC;
    }
    mount_remount(mount, flags, "")
}

/// Mounts an empty file system over the root and gives a descriptor of it.
fn attach_empty() -> Result<std::os::fd::OwnedFd, SandboxError> {
    // Without this what happens here would be seen in the namespace it was cloned from.
    step(
        "making the mounts private",
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        ),
    )?;
    let make = || {
        let tmpfs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        // Room for the names of what is shown; nothing is ever written.
        fsconfig_set_string(&tmpfs, "size", "64k")?;
        fsconfig_set_string(&tmpfs, "mode", "0555")?;
        fsconfig_create(&tmpfs)?;
        let empty = fsmount(
            &tmpfs,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        )?;
        move_mount(
            &empty,
            "",
            CWD,
            "/",
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )?;
        Ok(empty)
    };
    step("mounting an empty root", make())
}

/// The working directory is the empty root, already mounted over the old one: makes it the root.
fn over_initial() -> Result<Root, SandboxError> {
    step("changing the root", chroot("."))?;
    step("entering the empty root", chdir("/"))?;
    Ok(Root::EmptyOverInitial)
}

#[cfg(test)]
mod tests {
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;

    /// In a thread of its own, whose mount namespace and root nobody else shares.
    fn in_own_mount_namespace(then: impl FnOnce() + Send + 'static) {
        let root = rustix::process::geteuid().is_root();
        if sekisho_skip::skip_unless(root, "making mount namespaces needs root") {
            return;
        }
        std::thread::spawn(move || {
            // SAFETY: only the thread's view of mounts, root and working directory is unshared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.unwrap();
            then();
        })
        .join()
        .unwrap();
    }

    fn assert_empty_and_read_only() {
        assert_eq!(std::fs::read_dir("/").unwrap().count(), 0);
        assert_eq!(std::fs::read_dir("/..").unwrap().count(), 0);
        assert!(std::fs::File::open("/proc/self/status").is_err());
        let refused = std::fs::File::create("/x").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }

    #[test]
    fn root_is_replaced_by_an_empty_one() {
        in_own_mount_namespace(|| {
            assert_eq!(replace(&[], None).unwrap(), Root::Empty);
            assert_empty_and_read_only();
        });
        assert!(std::fs::read_dir("/").unwrap().count() > 0);
    }

    #[test]
    fn initial_root_is_hidden_by_an_empty_one() {
        in_own_mount_namespace(|| {
            let empty = attach_empty().unwrap();
            fchdir(&empty).unwrap();
            drop(empty);
            lock(Path::new("."), true).unwrap();
            assert_eq!(over_initial().unwrap(), Root::EmptyOverInitial);
            assert_empty_and_read_only();
        });
    }
}
