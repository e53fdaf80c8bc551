//! Network cards that somebody plugs into the running laptop.

use std::path::PathBuf;

use serde_json::json;

use crate::laptop::{Laptop, LaptopError};
use crate::qemu::Qemu;

/// The free PCI slot, behind a port of its own: the root bus itself takes nothing while it runs.
const SLOT: &str = "slot0";

/// Where a card can be plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Socket {
    /// USB: QEMU's `usb-net` is RNDIS and CDC Ethernet in one, as telephones and docks are.
    Usb,
    /// PCI: a second virtio card.
    Pci,
}

/// A card that was plugged in.
#[derive(Debug, Clone)]
pub struct Plugged {
    /// Every frame that crosses it, both ways, as QEMU sees it from outside: a pcap file.
    pub capture: PathBuf,
}

impl Plugged {
    /// Whether a frame of the capture came out of the laptop. QEMU's own network has addresses that
    /// begin with 52:55 and 52:56.
    pub fn sent(frame: &[u8]) -> bool {
        !matches!(frame.get(6..8), Some([0x52, 0x55 | 0x56]))
    }
}

/// The sockets, before the machine starts.
pub(crate) fn sockets(qemu: &mut Qemu) {
    qemu.words(&["-device", "qemu-xhci,id=usb,addr=0x14"]);
    qemu.words(&[
        "-device",
        &format!("pcie-root-port,id={SLOT},chassis=1,slot=1,addr=0x15"),
    ]);
}

impl Laptop {
    /// Plugs a card in that is called `name` outside. At its other end is QEMU's own network: a DHCP
    /// server, a router that advertises itself, and nothing behind them.
    pub fn plug_in(&self, socket: Socket, name: &str) -> Result<Plugged, LaptopError> {
        let capture = self.folder().join(format!("{name}.pcap"));
        let wire = format!("wire-{name}");
        let far_end = json!({ "type": "user", "id": wire, "restrict": true });
        self.control("netdev_add", &far_end)?;
        let dump = json!({
            "qom-type": "filter-dump", "id": format!("dump-{name}"), "netdev": wire, "file": capture,
        });
        self.control("object-add", &dump)?;
        let (driver, bus) = match socket {
            Socket::Usb => ("usb-net", "usb.0"),
            Socket::Pci => ("virtio-net-pci", SLOT),
        };
        let mut device = json!({
            "driver": driver, "id": name, "netdev": wire, "bus": bus,
        });
        if socket == Socket::Pci {
            device["romfile"] = json!("");
        }
        self.control("device_add", &device)?;
        Ok(Plugged { capture })
    }
}
