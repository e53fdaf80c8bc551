//! The work OS of tests and of the demo: a stock Debian kernel with a small user space.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::NamedTempFile;

use crate::build::{self, BuildError};
use crate::config::Role;
use crate::cpio::Archive;
use crate::debian::{self, Cache, FetchError};
use crate::initrd::{self, InitrdError, Modules};
use crate::kernel::{Flavour, Kernel};

/// The work OS could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// A package could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// One of our programs could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The initrd could not be made.
    #[error(transparent)]
    Initrd(#[from] InitrdError),
    /// A file could not be read or written.
    #[error("cannot make the work OS: {0}")]
    Io(#[from] io::Error),
}

/// A work OS to boot.
#[derive(Debug, Clone)]
pub struct GuestImage {
    /// The kernel as boot loaders take it (bzImage).
    pub kernel: PathBuf,
    /// The same kernel as an ELF file with a PVH entry: starts seconds earlier under emulation.
    pub vmlinux: PathBuf,
    /// The initrd, which is the whole user space.
    pub initrd: PathBuf,
    /// The kernel command line.
    pub cmdline: String,
}

/// What the work OS needs before its user space is of use.
const MODULES: &[&str] = &["virtio_pci", "virtio_net", "virtio_console"];

/// What it can get a moment later. The virtual machine may have none of these devices, and no firmware.
const MODULES_BESIDE: &[&str] = &[
    "virtio_blk",
    "virtio_rng",
    "nvme",
    "evdev",
    "button",
    "efivarfs",
    "msr",
];

/// No self-tests of ciphers, which take long under emulation, and no check of the timer, which a
/// busy build machine fails. The kernel's warnings go to the serial console.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 no_timer_check cryptomgr.notests";

impl GuestImage {
    /// Makes it in `folder` and takes what it can from the cache.
    pub fn build(folder: &Path) -> Result<Self, GuestError> {
        Self::build_with(folder, &[])
    }

    /// Like [`GuestImage::build`], with further static programs in `/bin`, under their own names.
    pub fn build_with(folder: &Path, programs: &[&Path]) -> Result<Self, GuestError> {
        Self::make(folder, "work-initrd", Flavour::Cloud, &[], programs)
    }

    /// Like [`GuestImage::build`], with the kernel that laptops run and this driver of its for the screen.
    pub fn build_with_screen(folder: &Path, driver: &str) -> Result<Self, GuestError> {
        Self::build_with_drivers(folder, &[driver], &[])
    }

    /// Like [`GuestImage::build_with`], with the kernel that laptops run and these drivers of its.
    pub fn build_with_drivers(
        folder: &Path,
        drivers: &[&str],
        programs: &[&Path],
    ) -> Result<Self, GuestError> {
        let name = format!("{}-initrd", drivers.join("-"));
        Self::make(folder, &name, Flavour::Generic, drivers, programs)
    }

    fn make(
        folder: &Path,
        name: &str,
        flavour: Flavour,
        drivers: &[&str],
        programs: &[&Path],
    ) -> Result<Self, GuestError> {
        let cache = Cache::open()?;
        let kernel = Kernel::fetch(&cache, flavour)?;
        let busybox = busybox(&cache)?;
        let init = build::static_program("sekisho-laptop", "sekisho-laptop-init", &[])?;
        let agent = build::static_program("sekisho-guest-tools", "sekisho-guest-agent", &[])?;

        let mut archive = Archive::new(Vec::new());
        let modules = Modules {
            first: MODULES,
            beside: &[MODULES_BESIDE, drivers].concat(),
            extra: &[],
        };
        initrd::base(&mut archive, &kernel, &init, &modules, Role::Work)?;
        user_space(&mut archive, &busybox, &agent)?;
        for program in programs {
            let name = program.file_name().unwrap_or_default().to_string_lossy();
            archive.file(&format!("bin/{name}"), 0o755, &fs::read(program)?)?;
        }
        fs::create_dir_all(folder)?;
        let initrd = folder.join(name);
        // Somebody may be booting the old one, or making it anew beside us.
        let mut new = NamedTempFile::new_in(folder)?;
        new.write_all(&archive.finish()?)?;
        new.persist(&initrd).map_err(|refused| refused.error)?;
        Ok(Self {
            kernel: kernel.vmlinuz(),
            vmlinux: kernel.vmlinux(),
            initrd,
            cmdline: CMDLINE.to_owned(),
        })
    }
}

fn busybox(cache: &Cache) -> Result<PathBuf, FetchError> {
    let root = cache.folder("busybox-static", |folder| {
        debian::unpack("busybox-static", folder)
    })?;
    // Where it lies depends on the release.
    ["bin/busybox", "usr/bin/busybox"]
        .map(|path| root.join(path))
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| FetchError::Incomplete(root.join("bin/busybox")))
}

fn user_space(
    archive: &mut Archive<Vec<u8>>,
    busybox: &Path,
    agent: &Path,
) -> Result<(), GuestError> {
    archive.file("bin/busybox", 0o755, &fs::read(busybox)?)?;
    for applet in applets(busybox)? {
        archive.link(&format!("bin/{applet}"), "busybox")?;
    }
    for (link, to) in [
        ("sbin", "bin"),
        ("usr/bin", "../bin"),
        ("usr/sbin", "../bin"),
    ] {
        archive.link(link, to)?;
    }
    archive.file("bin/sekisho-guest-agent", 0o755, &fs::read(agent)?)?;
    archive.file(
        "etc/udhcpc.script",
        0o755,
        include_bytes!("../guest/udhcpc.script"),
    )?;
    archive.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    archive.file("etc/group", 0o644, b"root:x:0:\ntty:x:5:\n")?;
    archive.link("etc/resolv.conf", "../run/resolv.conf")?;
    archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n")?;
    for folder in ["proc", "sys", "dev", "tmp", "run", "root", "var", "mnt"] {
        archive.folder(folder)?;
    }
    Ok(())
}

fn applets(busybox: &Path) -> Result<Vec<String>, GuestError> {
    let list = Command::new(busybox).arg("--list").output()?;
    let list = String::from_utf8_lossy(&list.stdout);
    // Ours is PID 1.
    Ok(list
        .lines()
        .filter(|name| !matches!(*name, "busybox" | "init" | "linuxrc"))
        .map(str::to_owned)
        .collect())
}
