//! Feature bits of the network card and what follows from them (virtio 1.2, section 5.1.3).

use sekisho_framelink::Offloads;

use super::Settings;

const CSUM: u64 = 1 << 0;
const GUEST_CSUM: u64 = 1 << 1;
pub(super) const CTRL_GUEST_OFFLOADS: u64 = 1 << 2;
const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
const MRG_RXBUF: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;
const CTRL_VQ: u64 = 1 << 17;
const CTRL_RX: u64 = 1 << 18;
const GUEST_USO4: u64 = 1 << 54;
const GUEST_USO6: u64 = 1 << 55;
const HOST_USO: u64 = 1 << 56;

/// What `VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET` may turn off and on again.
pub(super) const SWITCHABLE: u64 = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_USO4 | GUEST_USO6;

/// How frames are laid into receive buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReceiveStyle {
    /// A frame may span several chains.
    pub(super) mergeable: bool,
    /// The guest completes checksums.
    pub(super) csum: bool,
}

pub(super) fn offered(settings: &Settings) -> u64 {
    let mut features = MTU | MAC | MRG_RXBUF | STATUS | CTRL_VQ | CTRL_RX | CTRL_GUEST_OFFLOADS;
    let mut offer = |granted: bool, bits: u64| {
        if granted {
            features |= bits;
        }
    };
    let (to_gate, to_guest) = (settings.to_gate, settings.to_guest);
    offer(to_gate.csum, CSUM);
    offer(to_gate.csum && to_gate.tso4, HOST_TSO4);
    offer(to_gate.csum && to_gate.tso6, HOST_TSO6);
    offer(to_gate.csum && to_gate.uso, HOST_USO);
    offer(to_guest.csum, GUEST_CSUM);
    offer(to_guest.csum && to_guest.tso4, GUEST_TSO4);
    offer(to_guest.csum && to_guest.tso6, GUEST_TSO6);
    offer(to_guest.csum && to_guest.uso, GUEST_USO4 | GUEST_USO6);
    features
}

/// Section 5.1.3.1, feature bit requirements.
pub(super) fn consistent(accepted: u64) -> bool {
    let needs = |bits: u64, base: u64| accepted & bits == 0 || accepted & base != 0;
    needs(HOST_TSO4 | HOST_TSO6 | HOST_USO, CSUM)
        && needs(
            GUEST_TSO4 | GUEST_TSO6 | GUEST_USO4 | GUEST_USO6,
            GUEST_CSUM,
        )
        && needs(CTRL_RX | CTRL_GUEST_OFFLOADS, CTRL_VQ)
}

/// What the guest may leave to the gate.
pub(super) fn host_offloads(accepted: u64) -> Offloads {
    Offloads {
        csum: accepted & CSUM != 0,
        tso4: accepted & HOST_TSO4 != 0,
        tso6: accepted & HOST_TSO6 != 0,
        uso: accepted & HOST_USO != 0,
    }
}

/// What the gate may leave to the guest. USO takes both address families: the link does not tell
/// them apart.
pub(super) fn guest_offloads(accepted: u64) -> Offloads {
    let uso = GUEST_USO4 | GUEST_USO6;
    Offloads {
        csum: accepted & GUEST_CSUM != 0,
        tso4: accepted & GUEST_TSO4 != 0,
        tso6: accepted & GUEST_TSO6 != 0,
        uso: accepted & uso == uso,
    }
}

pub(super) fn receive_style(accepted: u64) -> ReceiveStyle {
    ReceiveStyle {
        mergeable: accepted & MRG_RXBUF != 0,
        csum: accepted & GUEST_CSUM != 0,
    }
}
