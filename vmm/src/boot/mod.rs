//! Ways to start the guest. The direct one puts a Linux kernel into memory: a bzImage starts by
//! Linux's own boot protocol, an ELF kernel by its PVH entry; the file's first bytes tell which it
//! is. The other one is firmware, which finds by itself what to start.

mod bzimage;
mod payload;
mod pvh;
mod state;
mod uefi;

pub use state::BootEntry;
pub(crate) use uefi::table_files;
pub use uefi::{BootDisk, FirmwareBoot, Image, items};

use std::fs::File;
use std::io::{Read, Seek};

use thiserror::Error;

use crate::board::memory::GuestRam;

/// What a direct boot starts.
#[derive(Debug)]
pub struct LinuxBoot<'a> {
    /// The kernel and its name for messages.
    pub kernel: (&'a mut File, &'a str),
    /// The initial RAM disk, if any, and its name for messages.
    pub initrd: Option<(&'a mut File, &'a str)>,
    /// Kernel command line.
    pub cmdline: &'a str,
}

/// Puts what `boot` names into `ram`, which has `memory` bytes, with what the kernel's protocol
/// wants beside it.
pub fn load(ram: &GuestRam, boot: LinuxBoot<'_>, memory: u64) -> Result<BootEntry, BootError> {
    let (kernel, name) = boot.kernel;
    let read = |source| BootError::Read {
        path: name.to_owned(),
        source,
    };
    let mut magic = Vec::new();
    kernel.rewind().map_err(read)?;
    let mut head = kernel.by_ref().take(pvh::ELF_MAGIC.len() as u64);
    head.read_to_end(&mut magic).map_err(read)?;
    kernel.rewind().map_err(read)?;
    let boot = LinuxBoot {
        kernel: (kernel, name),
        ..boot
    };
    if magic == pvh::ELF_MAGIC {
        pvh::load(ram, boot, memory)
    } else {
        bzimage::load(ram, boot, memory)
    }
}

fn bad_kernel(path: &str, reason: impl Into<String>) -> BootError {
    BootError::Kernel {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

/// Why the guest's kernel could not be put into memory.
#[derive(Debug, Error)]
pub enum BootError {
    /// The kernel is not of a known format.
    #[error(
        "{path} is no kernel that can start here: {reason}; give a 64-bit bzImage, as /boot/vmlinuz \
         is, or an uncompressed vmlinux of a kernel with CONFIG_PVH"
    )]
    Kernel {
        /// The file.
        path: String,
        /// What was wrong.
        reason: String,
    },
    /// Reading a file failed.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: String,
        /// The reason.
        source: std::io::Error,
    },
    /// It does not fit.
    #[error("{what} of {bytes} bytes does not fit into the guest's memory: give more --memory")]
    Room {
        /// Kernel or initrd.
        what: &'static str,
        /// Its size.
        bytes: u64,
    },
    /// The command line is too long or not plain.
    #[error(
        "the kernel command line must be printable ASCII of at most {max} bytes, and has {len}"
    )]
    CommandLine {
        /// Its length.
        len: usize,
        /// The longest possible.
        max: usize,
    },
    /// The firmware's files are not what a flash chip holds.
    #[error(
        "{path} has {bytes} bytes and is no firmware: give OVMF's CODE file as code and a copy of its \
         VARS file as vars, both whole pages and at most 16M together"
    )]
    Firmware {
        /// The file.
        path: String,
        /// Its size.
        bytes: u64,
    },
    /// Guest memory refused a write: a mistake in the layout.
    #[error("guest memory cannot be written at {address:#x}: {reason}")]
    Memory {
        /// Where.
        address: u64,
        /// What `vm-memory` says.
        reason: String,
    },
}
