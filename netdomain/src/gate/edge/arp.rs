//! ARP: every address is the gate's, but the guest's own.
//!
//! Nothing is learned: the guest's address and MAC come from the device file.

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};

use super::reply::Reply;
use super::{Edge, Outcome};
use crate::gate::admit::Rule;

const ARP: u16 = 0x0806;
const LEN: usize = 28;

impl Edge {
    pub(super) fn arp(&self, body: &[u8], reply: &mut Reply) -> Outcome {
        let Ok(packet) = ArpPacket::new_checked(body) else {
            return Outcome::Refused(Rule::Malformed);
        };
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        }) = ArpRepr::parse(&packet)
        else {
            return Outcome::Refused(Rule::Malformed);
        };
        let sender_is_guest = source_hardware_addr == self.device.mac
            && (source_protocol_addr == self.place.address
                || source_protocol_addr.is_unspecified());
        if !sender_is_guest {
            return Outcome::Refused(Rule::AntiSpoof);
        }
        match operation {
            ArpOperation::Request => {}
            // Nobody asked; and the gate would not believe an answer (T38).
            _ => return Outcome::Refused(Rule::Impostor),
        }
        // The guest's own address: an announcement, or a probe for a duplicate (RFC 5227). Silence
        // says that it is free.
        if target_protocol_addr == self.place.address {
            return Outcome::Done;
        }
        let answer = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: self.gate_mac(),
            source_protocol_addr: target_protocol_addr,
            target_hardware_addr: self.device.mac,
            target_protocol_addr: source_protocol_addr,
        };
        let out = reply.ethernet(&self.ethernet, ARP, LEN);
        answer.emit(&mut ArpPacket::new_unchecked(out));
        Outcome::Done
    }

    fn gate_mac(&self) -> EthernetAddress {
        self.ethernet.gate
    }
}
