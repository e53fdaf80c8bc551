//! ARP packets about one address, as whole Ethernet frames (RFC 826, RFC 5227 section 1.1).

use std::net::Ipv4Addr;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr,
};

/// Length of an Ethernet header, and of ARP for IPv4.
const ETHERNET: usize = 14;
const ARP: usize = 28;

/// What somebody else says about the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// It has it.
    Claim([u8; 6]),
    /// It asks whether anybody has it, to use it itself.
    Probe([u8; 6]),
}

/// Asks whether anybody has the address, and tells nobody that we do: without a sender's address.
pub(super) fn probe(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    write(mac, Ipv4Addr::UNSPECIFIED, address)
}

/// Says that it is ours.
pub(super) fn announcement(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    write(mac, address, address)
}

fn write(mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mac = EthernetAddress(mac);
    let mut bytes = vec![0; ETHERNET + ARP];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    EthernetRepr {
        src_addr: mac,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Arp,
    }
    .emit(&mut frame);
    ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: mac,
        source_protocol_addr: sender,
        // RFC 5227, section 2.1.1: ignored, and zero.
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    }
    .emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

/// Reads a frame. `None` for whatever is no well-formed ARP of another station about the address.
pub(super) fn read(frame: &[u8], mac: [u8; 6], address: Ipv4Addr) -> Option<Heard> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Arp {
        return None;
    }
    let packet = ArpPacket::new_checked(ethernet.payload()).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(from),
        source_protocol_addr: sender,
        target_protocol_addr: target,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    // Our own, which a switch or a hub may give back.
    if from == mac {
        return None;
    }
    if sender == address {
        return Some(Heard::Claim(from));
    }
    // To all, as a station that looks for duplicates asks (section 2.1.1): it does not know who has it.
    // Switches that keep track of their stations ask each by itself, in nobody's name.
    let to_all = ethernet.dst_addr() != EthernetAddress(mac);
    let probes = to_all && sender.is_unspecified() && target == address;
    (probes && operation == ArpOperation::Request).then_some(Heard::Probe(from))
}
