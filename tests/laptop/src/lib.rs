//! The laptop, played by QEMU, and the work OS that runs in it.
//!
//! [`Laptop::start`] switches on a machine with real KVM inside (emulated where the build machine
//! has no virtualisation of its own), two network cards, a power button and console ports, on
//! which every program of the build machine can be run. [`GuestImage::build`] makes a kernel and
//! an initrd of a stock Debian work OS for the VMM to boot in there.
//!
//! ```no_run
//! use sekisho_laptop::{Laptop, Options};
//!
//! let laptop = Laptop::start(Options::default())?;
//! let output = laptop.run(&["uname", "-r"])?;
//! println!("{}", output.text());
//! # Ok::<(), sekisho_laptop::LaptopError>(())
//! ```

pub mod build;
pub mod config;
pub mod cpio;
pub mod debian;
pub mod exec;
pub mod kernel;
pub mod start_disk;

mod cr8;
mod firmware;
mod guest;
mod initrd;
mod installed;
mod laptop;
mod options;
mod plug;
mod qemu;
mod qmp;
mod volatile;

pub use config::AtBoot;
pub use debian::Cache;
pub use exec::{Output, Running, Status};
pub use firmware::Firmware;
pub use guest::{GuestError, GuestImage};
pub use installed::InstalledDebian;
pub use laptop::{Laptop, LaptopError};
pub use options::{Options, Share};
pub use plug::{Plugged, Socket};
pub use qemu::hardware_virtualisation;
pub use volatile::VolatileDisk;
