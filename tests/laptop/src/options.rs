//! What a laptop is to be like.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use crate::build;
use crate::config::AtBoot;
use crate::qemu;
use crate::volatile::VolatileDisk;

/// A folder of the build machine at the same path in the laptop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// Absolute, without spaces or commas; must exist.
    pub path: PathBuf,
    /// Whether the laptop may write there.
    pub writable: bool,
}

/// The laptop's hardware. The whole tree of the build machine is there read-only in any case
/// (writes stay in the laptop's memory), except `/tmp` and `/run`, which are its own.
#[derive(Debug)]
pub struct Options {
    /// Memory in MiB.
    pub memory: u32,
    /// Processors. The emulator's SVM is not safe with several: it changes pending interrupts of a
    /// processor that enters or leaves a guest without the lock that others take, and now and then
    /// the work OS or the laptop ends by a triple fault. So there is one where it emulates.
    pub cpus: u8,
    /// The far ends of the cables of `eth0`, `eth1`: tap descriptors. A card without one exists
    /// and has no carrier.
    pub wires: Vec<OwnedFd>,
    /// Cards whose cable is not plugged in at power-on, by number.
    pub unplugged: Vec<usize>,
    /// Names of console ports beside the laptop's own; their far ends: [`Laptop::port`]. In the
    /// laptop they are `/dev/virtio-ports/NAME`.
    ///
    /// [`Laptop::port`]: crate::Laptop::port
    pub ports: Vec<String>,
    /// Shared folders beside the laptop's own work folder ([`Laptop::folder`]), which it may
    /// write.
    ///
    /// [`Laptop::folder`]: crate::Laptop::folder
    pub shares: Vec<Share>,
    /// Its disk (`/dev/vda`, once `virtio_blk` is loaded), if it has one.
    pub disk: Option<VolatileDisk>,
    /// What the laptop starts by itself, without a word from outside.
    pub at_boot: Option<AtBoot>,
    /// Starts again after a reset or a panic, as a machine on a desk does; else it is off then.
    pub reboots: bool,
    /// A USB controller and a free PCI slot, for [`Laptop::plug_in`].
    ///
    /// [`Laptop::plug_in`]: crate::Laptop::plug_in
    pub sockets: bool,
    /// Load the module that keeps emulation from aborting under firmware guests (see `cr8/`).
    pub cr8_workaround: bool,
    /// Where folders of runs are made.
    pub runs: PathBuf,
    /// How long the way from power-on to the first command may take.
    pub boot_limit: Duration,
}

/// Number of network cards.
pub(crate) const CARDS: usize = 2;

impl Default for Options {
    fn default() -> Self {
        Self {
            memory: 2048,
            cpus: if qemu::hardware_virtualisation() {
                2
            } else {
                1
            },
            wires: Vec::new(),
            unplugged: Vec::new(),
            ports: Vec::new(),
            shares: Vec::new(),
            disk: None,
            at_boot: None,
            reboots: false,
            sockets: false,
            cr8_workaround: false,
            runs: build::target_dir().join("laptop"),
            // Four seconds on an idle machine; tests run beside builds.
            boot_limit: Duration::from_secs(90),
        }
    }
}
