//! Ways to start the guest: so far the direct one, which puts a Linux kernel into memory.

mod linux;
mod state;

pub use linux::{LinuxBoot, load};
pub use state::{BootEntry, boot_sregs, write_tables};

use thiserror::Error;

/// Why the guest's kernel could not be put into memory.
#[derive(Debug, Error)]
pub enum BootError {
    /// The kernel is not of a known format.
    #[error("{path} is no 64-bit bzImage kernel: {reason}")]
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
    /// Guest memory refused a write: a mistake in the layout.
    #[error("guest memory cannot be written at {address:#x}: {reason}")]
    Memory {
        /// Where.
        address: u64,
        /// What `vm-memory` says.
        reason: String,
    },
}
