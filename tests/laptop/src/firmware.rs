//! A laptop whose firmware boots from the network: what a laptop must not be. The tests' control.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use serde_json::json;

use crate::laptop::{LaptopError, create};
use crate::qemu::{Process, Qemu};
use crate::qmp::Qmp;

/// Megabytes: firmware and its network boot need no more.
const MEMORY: u32 = 256;

/// A machine with the laptop's cards, no disk, and the network first in its boot order.
#[derive(Debug)]
pub struct Firmware {
    _process: Process,
    _qmp: Qmp,
}

impl Firmware {
    /// Switches it on with its cards on these cables; what QEMU says goes to `folder`.
    pub fn start(wires: Vec<OwnedFd>, folder: &Path) -> Result<Self, LaptopError> {
        let mut qemu = Qemu::new(MEMORY, 1);
        qemu.words(&["-boot", "order=n"]);
        for (card, wire) in wires.into_iter().enumerate() {
            let fd = qemu.inherit(wire);
            qemu.words(&["-netdev", &format!("tap,id=wire{card},fd={fd}")]);
            // With the card's boot ROM, which the laptop's own cards are without.
            let device = format!(
                "virtio-net-pci,netdev=wire{card},addr={:#x},mac=02:53:4b:01:00:{card:02x}",
                0x10 + card
            );
            qemu.words(&["-device", &device]);
        }
        let qmp = qemu.stream("qmp").map_err(LaptopError::Qemu)?;
        qemu.words(&["-mon", "chardev=qmp,mode=control"]);
        fs::create_dir_all(folder).map_err(LaptopError::Qemu)?;
        let log = create(&folder.join("firmware.log"))?;
        let process = qemu.start(log).map_err(LaptopError::Qemu)?;
        let mut qmp = Qmp::new(qmp)?;
        qmp.execute("cont", &json!({}))?;
        Ok(Self {
            _process: process,
            _qmp: qmp,
        })
    }
}
