//! The laptop's initrd: our init and the modules of the hardware that QEMU plays.

use std::fs;
use std::io;
use std::path::Path;

use crate::config::{Config, Role};
use crate::cpio::Archive;
use crate::debian::FetchError;
use crate::kernel::Kernel;

/// An initrd could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitrdError {
    /// Something of the kernel is missing.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A file could not be read or written.
    #[error("cannot make the initrd: {0}")]
    Io(#[from] io::Error),
}

/// Console, network cards, the build machine's tree, KVM, the power button. What else a program
/// in the laptop needs, the kernel loads by itself through modprobe.
const LAPTOP_MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "overlay",
    "virtio_net",
    "virtio_rng",
    "kvm-amd",
    "kvm-intel",
    "tun",
    "evdev",
    "button",
];

/// Writes the laptop's initrd to `path`.
pub(crate) fn laptop(kernel: &Kernel, init: &Path, path: &Path) -> Result<(), InitrdError> {
    let role = Role::Laptop {
        modules_dir: kernel.modules_dir(),
    };
    let mut archive = Archive::new(Vec::new());
    base(&mut archive, kernel, init, LAPTOP_MODULES, role)?;
    fs::write(path, archive.finish()?)?;
    Ok(())
}

/// What both machines' initrds hold: init, its configuration, modules, the first console.
pub(crate) fn base(
    archive: &mut Archive<Vec<u8>>,
    kernel: &Kernel,
    init: &Path,
    modules: &[&str],
    role: Role,
) -> Result<(), InitrdError> {
    archive.character_device("dev/console", 5, 1)?;
    archive.file("init", 0o755, &fs::read(init)?)?;
    let mut names = Vec::new();
    for module in kernel.modules(modules)? {
        let name = module
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        archive.file(&format!("modules/{name}"), 0o644, &fs::read(&module)?)?;
        names.push(name);
    }
    let config = Config {
        modules: names,
        role,
    };
    let config = serde_json::to_vec(&config).map_err(io::Error::other)?;
    archive.file(crate::config::PATH.trim_start_matches('/'), 0o644, &config)?;
    Ok(())
}
