//! The laptop's initrd: our init and the modules of the hardware that QEMU plays.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::config::{AtBoot, Config, Role};
use crate::cpio::Archive;
use crate::debian::FetchError;
use crate::kernel::Kernel;
use crate::qemu;

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

/// Console ports and the build machine's tree.
const LAPTOP_MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_console",
    "9pnet_virtio",
    "9p",
    "overlay",
];

/// Network cards, KVM, the power button. What else a program in the laptop needs, the kernel
/// loads by itself through modprobe.
const LAPTOP_MODULES_BESIDE: &[&str] = &["virtio_net", "virtio_rng", "tun", "evdev", "button"];

/// Writes the laptop's initrd to `path`.
///
/// `extra` are modules that no package holds; they are loaded last.
pub(crate) fn laptop(
    kernel: &Kernel,
    init: &Path,
    extra: &[PathBuf],
    at_boot: Option<AtBoot>,
    path: &Path,
) -> Result<(), InitrdError> {
    let role = Role::Laptop {
        modules_dir: kernel.modules_dir(),
        at_boot,
    };
    let mut archive = Archive::new(Vec::new());
    let mut beside = vec![if qemu::intel() {
        "kvm-intel"
    } else {
        "kvm-amd"
    }];
    beside.extend(LAPTOP_MODULES_BESIDE);
    base(
        &mut archive,
        kernel,
        init,
        &Modules {
            first: LAPTOP_MODULES,
            beside: &beside,
            extra,
        },
        role,
    )?;
    fs::write(path, archive.finish()?)?;
    Ok(())
}

/// Modules by name, without what they need.
pub(crate) struct Modules<'a> {
    /// Those that the start itself needs.
    pub(crate) first: &'a [&'a str],
    /// Those that are loaded beside it.
    pub(crate) beside: &'a [&'a str],
    /// Files of further ones, loaded last.
    pub(crate) extra: &'a [PathBuf],
}

/// What both machines' initrds hold: init, its configuration, modules, the first console.
pub(crate) fn base(
    archive: &mut Archive<Vec<u8>>,
    kernel: &Kernel,
    init: &Path,
    modules: &Modules<'_>,
    role: Role,
) -> Result<(), InitrdError> {
    archive.character_device("dev/console", 5, 1)?;
    archive.file("init", 0o755, &fs::read(init)?)?;
    let first = kernel.modules(modules.first)?;
    let mut beside = kernel.modules(modules.beside)?;
    beside.retain(|module| !first.contains(module));
    beside.extend(modules.extra.iter().cloned());
    for module in first.iter().chain(&beside) {
        archive.file(
            &format!("modules/{}", file_name(module)),
            0o644,
            &fs::read(module)?,
        )?;
    }
    let names = |modules: &[PathBuf]| modules.iter().map(|path| file_name(path)).collect();
    let config = Config {
        modules: names(&first),
        modules_beside: names(&beside),
        role,
    };
    let config = serde_json::to_vec(&config).map_err(io::Error::other)?;
    archive.file(crate::config::PATH.trim_start_matches('/'), 0o644, &config)?;
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
