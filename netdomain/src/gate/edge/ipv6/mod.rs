//! IPv6 on the guest's wire. Where policy names no network of it, it is refused. Where it does, the
//! gate is the router `fe80::53:4b`: it answers neighbour discovery for itself and for nobody else,
//! and gives the guest its one address by `DHCPv6`. No prefix is advertised, so the guest makes no
//! address of its own, and packets from any other source end here.

mod dhcp;
mod neighbour;
mod refusal;

use std::net::Ipv6Addr;

use sekisho_framelink::NetHdr;
use smoltcp::wire::{IpProtocol, Ipv6Packet, checksum};

use super::reply::Reply;
use super::{Edge, Outcome, Taken, checksum_in_place, offload, refuse};
use crate::gate::admit::{Refusal, Rule, Subject};
use crate::gate::family::Family as _;
use crate::gate::packet::{IPV6_HEADER, Packet};

const IPV6: u16 = 0x86dd;
/// The gate's address in the guest's eyes: link-local, `fe80::53:4b`.
const GATE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x53, 0x4b);

impl Edge {
    /// `to_gate`: the frame was sent to the gate's own MAC address.
    pub(super) fn ipv6<'a>(
        &self,
        header: &NetHdr,
        body: &'a [u8],
        to_gate: bool,
        reply: &mut Reply,
    ) -> Taken<'a> {
        let Some(own) = self.device.v6 else {
            self.not_carried(body, to_gate, reply);
            return refuse(Rule::Ipv6, IPV6);
        };
        let Ok(ip) = Ipv6Packet::new_checked(body) else {
            return refuse(Rule::Malformed, IPV6);
        };
        let destination = ip.dst_addr();
        if destination.is_multicast() || destination == GATE {
            return match self.local(own, header, &ip, reply) {
                Outcome::Done => Taken::Done,
                Outcome::Refused(rule) => refuse(rule, IPV6),
            };
        }
        let packet = match offload(header, Ipv6Addr::GSO).and_then(|offload| {
            let packet = Packet::parse_v6(body, offload).map_err(Rule::from)?;
            checksum_in_place(header, &packet)
                .then_some(packet)
                .ok_or(Rule::Malformed)
        }) {
            Ok(packet) => packet,
            Err(rule) => return refuse(rule, IPV6),
        };
        let flow = packet.flow();
        let refused = |rule| {
            Taken::Refused(Refusal {
                rule,
                subject: Subject::outbound(&flow),
            })
        };
        if flow.source != own {
            return refused(Rule::AntiSpoof);
        }
        if !to_gate {
            // Sent to a MAC address that nobody has.
            return refused(Rule::NotServed);
        }
        Taken::Transit6(packet)
    }

    /// A packet to the gate itself, or to many: multicast ends here but for what is asked of a router.
    fn local(
        &self,
        own: Ipv6Addr,
        header: &NetHdr,
        ip: &Ipv6Packet<&[u8]>,
        reply: &mut Reply,
    ) -> Outcome {
        let source = ip.src_addr();
        if !is_guests(source, own) && !source.is_unspecified() {
            return Outcome::Refused(Rule::AntiSpoof);
        }
        match ip.next_header() {
            IpProtocol::Icmpv6 => {
                if header.needs_csum() || !is_whole(ip) {
                    return Outcome::Refused(Rule::Malformed);
                }
                self.icmpv6(own, ip, reply)
            }
            IpProtocol::Udp => self.dhcpv6(own, header, ip, reply),
            // Reports of multicast listeners among them, which come behind a hop-by-hop header.
            _ => Outcome::Refused(Rule::NotServed),
        }
    }
}

/// Whether an address is one of the guest's: the one that it was given, or a link-local one, which it
/// makes itself (RFC 4291, section 2.5.6).
fn is_guests(address: Ipv6Addr, own: Ipv6Addr) -> bool {
    address == own || (address.is_unicast_link_local() && address != GATE)
}

/// Whether the checksum behind the IP header holds.
fn is_whole(ip: &Ipv6Packet<&[u8]>) -> bool {
    let body = ip.payload();
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let pseudo = checksum::pseudo_header_v6(&ip.src_addr(), &ip.dst_addr(), ip.next_header(), len);
    checksum::combine(&[pseudo, checksum::data(body)]) == u16::MAX
}

/// Writes the `ICMPv6` checksum over `body`, whose checksum field is zero.
fn fill_checksum(body: &mut [u8], (source, destination): (Ipv6Addr, Ipv6Addr)) {
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let pseudo = checksum::pseudo_header_v6(&source, &destination, IpProtocol::Icmpv6, len);
    let sum = !checksum::combine(&[pseudo, checksum::data(body)]);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
}

impl Reply {
    /// An IPv6 frame whose body of `len` bytes `fill` writes; it starts as zeros.
    fn ipv6(
        &mut self,
        edge: &Edge,
        (source, destination): (Ipv6Addr, Ipv6Addr),
        (protocol, hop_limit): (IpProtocol, u8),
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let packet = self.ethernet(&edge.ethernet, IPV6, IPV6_HEADER + len);
        let mut ip = Ipv6Packet::new_unchecked(&mut *packet);
        ip.set_version(6);
        ip.set_payload_len(u16::try_from(len).unwrap_or(u16::MAX));
        ip.set_next_header(protocol);
        ip.set_hop_limit(hop_limit);
        ip.set_src_addr(source);
        ip.set_dst_addr(destination);
        fill(&mut packet[IPV6_HEADER..]);
        if destination.is_multicast() {
            // RFC 2464, section 7.
            let [.., a, b, c, d] = destination.octets();
            self.address_to([0x33, 0x33, a, b, c, d]);
        }
    }

    /// The same of an `ICMPv6` message.
    fn icmpv6(
        &mut self,
        edge: &Edge,
        addresses: (Ipv6Addr, Ipv6Addr),
        hop_limit: u8,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let how = (IpProtocol::Icmpv6, hop_limit);
        self.ipv6(edge, addresses, how, len, |body| {
            fill(body);
            fill_checksum(body, addresses);
        });
    }
}
