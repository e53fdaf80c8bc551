//! The network card of the tests, and the gate at the other end of its link.

use std::sync::Mutex;

use sekisho_framelink::{Rules, SeqPacket};
use sekisho_vmm::virtio::VirtioPci;
use sekisho_vmm::virtio::net::{Net, Settings};

pub const MAC: [u8; 6] = [0x02, 0x53, 0x4b, 0x00, 0x07, 0x17];
pub const MTU: u16 = 1420;
/// What a guest that does not know its MTU may send.
pub const ETHERNET_MTU: u16 = 1500;

pub fn card() -> Net {
    Net::new(Settings::new(MAC, MTU))
}

/// Plugs a fresh link in; gives the gate's end, which takes frames by these rules.
pub fn plug_gate(card: &Mutex<VirtioPci<Net>>, rules: Rules) -> SeqPacket {
    let (vmm, gate) = sekisho_framelink::pair().unwrap();
    let plugged = card.lock().unwrap().update(|net| net.attach(vmm));
    plugged.unwrap();
    SeqPacket::from_fd(gate, rules).unwrap()
}
