//! An empty, read-only root directory.

use rustix::{
    fs::CWD,
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags,
        UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change,
        move_mount, unmount,
    },
    process::{chdir, chroot, fchdir, pivot_root},
};

use crate::sandbox::{SandboxError, step};

/// What a process sees as its root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// The one it had.
    Kept,
    /// An empty one; no other mount is left in its namespace.
    Empty,
    /// An empty one, mounted over the kernel's initial root, which nothing can unmount (a system
    /// that runs from its initrd). Without capabilities and descriptors there is no way under it.
    EmptyOverInitial,
}

/// Replaces the root of this process's own mount namespace.
pub(crate) fn replace() -> Result<Root, SandboxError> {
    let empty = attach_empty()?;
    step("entering the empty root", fchdir(&empty))?;
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
        fsconfig_set_string(&tmpfs, "size", "4k")?;
        fsconfig_set_string(&tmpfs, "mode", "0555")?;
        fsconfig_create(&tmpfs)?;
        let empty = fsmount(
            &tmpfs,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
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
            assert_eq!(replace().unwrap(), Root::Empty);
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
            assert_eq!(over_initial().unwrap(), Root::EmptyOverInitial);
            assert_empty_and_read_only();
        });
    }
}
