//! IPv6 is not carried. A host that sends some to the gate is told so; the chatter of a stack that
//! looks for routers and neighbours is ignored.

use smoltcp::wire::{IpProtocol, Ipv6Packet, Ipv6Repr, checksum};

use super::reply::Reply;
use super::{Edge, Outcome};
use crate::gate::admit::Rule;

const IPV6: u16 = 0x86dd;
const HEADER: usize = 40;
const ICMP_HEADER: usize = 8;
const UNREACHABLE: u8 = 1;
const PROHIBITED: u8 = 1;
/// The refused packet's header and the start of its transport.
const QUOTE: usize = HEADER + 8;
/// The gate's link-local address, from which it refuses: `fe80::53:4b`.
const GATE: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x53, 0x4b);

impl Edge {
    /// `to_gate`: the frame was sent to the gate's own MAC address.
    pub(super) fn ipv6(&self, body: &[u8], to_gate: bool, reply: &mut Reply) -> Outcome {
        let refused = Outcome::Refused(Rule::Ipv6);
        let Ok(packet) = Ipv6Packet::new_checked(body) else {
            return refused;
        };
        let unicast = !packet.dst_addr().is_multicast() && !packet.src_addr().is_multicast();
        let answerable = to_gate
            && unicast
            && !packet.src_addr().is_unspecified()
            && packet.next_header() != IpProtocol::Icmpv6;
        if !answerable {
            return refused;
        }
        let quote = &body[..body.len().min(QUOTE)];
        let payload_len = ICMP_HEADER + quote.len();
        let out = reply.ethernet(&self.ethernet, IPV6, HEADER + payload_len);
        let header = Ipv6Repr {
            src_addr: GATE,
            dst_addr: packet.src_addr(),
            next_header: IpProtocol::Icmpv6,
            payload_len,
            hop_limit: 64,
        };
        header.emit(&mut Ipv6Packet::new_unchecked(&mut *out));
        let icmp = &mut out[HEADER..];
        icmp[0] = UNREACHABLE;
        icmp[1] = PROHIBITED;
        icmp[ICMP_HEADER..].copy_from_slice(quote);
        let sum = !checksum::combine(&[
            checksum::pseudo_header(
                &GATE.into(),
                &packet.src_addr().into(),
                IpProtocol::Icmpv6,
                u32::try_from(payload_len).unwrap_or(0),
            ),
            checksum::data(icmp),
        ]);
        icmp[2..4].copy_from_slice(&sum.to_be_bytes());
        refused
    }
}
