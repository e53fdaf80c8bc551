//! Mounts and modules: what every machine needs first.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

use crate::Failure;

const PLAIN: MountFlags = MountFlags::NOSUID;

/// `/proc`, `/sys` and `/dev` with its parts.
pub(crate) fn mount_kernel_filesystems() -> Result<(), Failure> {
    mount_at("proc", "/proc", "proc", PLAIN, "")?;
    mount_at("sysfs", "/sys", "sysfs", PLAIN, "")?;
    mount_at("devtmpfs", "/dev", "devtmpfs", PLAIN, "mode=0755")?;
    mount_at(
        "devpts",
        "/dev/pts",
        "devpts",
        PLAIN,
        "gid=5,mode=620,ptmxmode=666",
    )?;
    mount_at("tmpfs", "/dev/shm", "tmpfs", PLAIN, "mode=1777")?;
    Ok(())
}

/// Mounts, and says in the error what and where. Makes the folder if it is missing.
pub(crate) fn mount_at(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    options: &str,
) -> Result<(), Failure> {
    fs::create_dir_all(target).map_err(|error| format!("cannot make {target}: {error}"))?;
    let options = std::ffi::CString::new(options)?;
    mount(source, target, kind, flags, options.as_c_str())
        .map_err(|error| format!("cannot mount {kind} {source} at {target}: {error}"))?;
    Ok(())
}

/// Loads the modules of the initrd in the given order.
pub(crate) fn load_modules(names: &[String]) -> Result<(), Failure> {
    for name in names {
        load_module(&Path::new("/modules").join(name))
            .map_err(|error| format!("cannot load module {name}: {error}"))?;
    }
    Ok(())
}

fn load_module(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    match rustix::system::finit_module(&file, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        // A driver whose hardware is absent (kvm-amd without SVM) is not a reason to stop.
        Err(Errno::NODEV | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
