//! Mounts and modules: what every machine needs first.

use std::fs::{self, File};
use std::path::Path;
use std::thread::{self, JoinHandle};

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
        let file = open_module(name)?;
        load_module(name, &file)?;
    }
    Ok(())
}

/// Loads modules in a thread: those of KVM take a third of the whole start. All files are opened
/// now, because the root of the initrd goes away meanwhile.
pub(crate) fn load_modules_beside(names: Vec<String>) -> Beside {
    let opened: Result<Vec<_>, String> = names
        .into_iter()
        .map(|name| Ok((open_module(&name)?, name)))
        .collect();
    Beside(thread::spawn(move || {
        opened?
            .iter()
            .try_for_each(|(file, name)| load_module(name, file))
    }))
}

/// Modules that are being loaded.
pub(crate) struct Beside(JoinHandle<Result<(), String>>);

impl Beside {
    /// Waits until they are.
    pub(crate) fn wait(self) -> Result<(), Failure> {
        self.0
            .join()
            .map_err(|_| "the thread that loads modules panicked")??;
        Ok(())
    }
}

fn open_module(name: &str) -> Result<File, String> {
    let path = Path::new("/modules").join(name);
    File::open(path).map_err(|error| format!("cannot open module {name}: {error}"))
}

fn load_module(name: &str, file: &File) -> Result<(), String> {
    match rustix::system::finit_module(file, c"", 0) {
        // Loaded already, or a driver whose hardware is absent (kvm-amd without SVM): no reason
        // to stop.
        Ok(()) | Err(Errno::EXIST | Errno::NODEV | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(format!("cannot load module {name}: {error}")),
    }
}
