//! The two families of packets. A family is the type of its addresses: what is written for both is
//! compiled for each by itself, so that neither pays for the other, and nothing of one can be looked
//! up, cut or sent as if it were of the other.

use std::fmt::Debug;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sekisho_framelink::GsoType;
use sekisho_policy::{Peer, Protocol};
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet, checksum};

use super::admit::{Parties, Party};
use super::packet::Flow;

/// Bytes of an IPv4 header without options; packets with options are refused.
pub const IPV4_HEADER: usize = 20;
/// Bytes of an IPv6 header; packets with extension headers are refused.
pub const IPV6_HEADER: usize = 40;
/// The longest TCP header.
const TCP_HEADER: usize = 60;
/// The longest headers of either family.
pub(super) const MOST_HEADERS: usize = IPV6_HEADER + TCP_HEADER;

/// A family: [`Ipv4Addr`] or [`Ipv6Addr`].
pub trait Family: Peer + Eq + Hash + Debug + Into<IpAddr> + sealed::Sealed {
    /// Room for the longest headers of a packet.
    type Headers: AsRef<[u8]> + AsMut<[u8]> + Copy + Debug;
    /// Empty room.
    const NO_HEADERS: Self::Headers;
    /// Bytes of the IP header.
    const HEADER: usize;
    /// Ethernet's number.
    const ETHER_TYPE: u16;
    /// How a TCP super-frame is marked.
    const GSO: GsoType;
    /// Whether the wire of an office carries it without a tunnel.
    const ON_A_WIRE: bool;

    /// The number of a protocol in the IP header.
    fn number(protocol: Protocol) -> IpProtocol;

    /// Sum over the pseudo header of a packet with `len` bytes behind its IP header.
    fn pseudo_header(flow: &Flow<Self>, len: usize) -> u16;

    /// Writes into the header how long the packet is, for the `index`th piece of a super-packet, and
    /// what depends on that.
    fn set_length(headers: &mut [u8], len: usize, index: u16);

    /// Whether two headers of one flow agree in what a super-frame has only once.
    fn alike(one: &[u8], other: &[u8]) -> bool;

    /// The MTU that an ICMP error tells of, given what follows the IP header.
    fn told_mtu(body: &[u8]) -> Option<u16>;

    /// The packet that an ICMP error quotes.
    fn quoted(quote: &[u8]) -> Option<Flow<Self>>;

    /// What admission knows of this family; `None`: it is not carried.
    fn party(parties: &mut Parties) -> Option<&mut Party<Self>>;
}

impl Family for Ipv4Addr {
    type Headers = [u8; IPV4_HEADER + TCP_HEADER];
    const NO_HEADERS: Self::Headers = [0; IPV4_HEADER + TCP_HEADER];
    const HEADER: usize = IPV4_HEADER;
    const ETHER_TYPE: u16 = 0x0800;
    const GSO: GsoType = GsoType::TcpV4;
    const ON_A_WIRE: bool = true;

    fn number(protocol: Protocol) -> IpProtocol {
        match protocol {
            Protocol::Tcp => IpProtocol::Tcp,
            Protocol::Udp => IpProtocol::Udp,
            Protocol::Icmp => IpProtocol::Icmp,
        }
    }

    fn pseudo_header(flow: &Flow, len: usize) -> u16 {
        let (protocol, len) = (Self::number(flow.protocol), long(len));
        checksum::pseudo_header_v4(&flow.source, &flow.destination, protocol, len)
    }

    fn set_length(headers: &mut [u8], len: usize, index: u16) {
        let mut ip = Ipv4Packet::new_unchecked(headers);
        ip.set_total_len(short(len));
        ip.set_ident(ip.ident().wrapping_add(index));
        ip.fill_checksum();
    }

    /// Type of service, flags and lifetime.
    fn alike(one: &[u8], other: &[u8]) -> bool {
        const TOS: usize = 1;
        const FRAGMENT: std::ops::Range<usize> = 6..8;
        const TTL: usize = 8;
        one[TOS] == other[TOS] && one[TTL] == other[TTL] && one[FRAGMENT] == other[FRAGMENT]
    }

    /// The next hop's (RFC 1191, section 4).
    fn told_mtu(body: &[u8]) -> Option<u16> {
        const UNREACHABLE: u8 = 3;
        const FRAGMENTATION_NEEDED: u8 = 4;
        match body {
            &[UNREACHABLE, FRAGMENTATION_NEEDED, _, _, _, _, high, low, ..] => {
                Some(u16::from_be_bytes([high, low]))
            }
            _ => None,
        }
    }

    /// Only eight bytes of its transport need be there (RFC 792), less than a packet must have.
    fn quoted(quote: &[u8]) -> Option<Flow> {
        let header: &[u8; IPV4_HEADER] = quote.first_chunk()?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        if header[0] >> 4 != 4 || header_len < IPV4_HEADER {
            return None;
        }
        let (protocol, source_port, destination_port) =
            quoted_ports(header[9], 1, quote.get(header_len..)?)?;
        let address =
            |at: usize| Self::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        Some(Flow {
            protocol,
            source: address(12),
            destination: address(16),
            source_port,
            destination_port,
        })
    }

    fn party(parties: &mut Parties) -> Option<&mut Party<Self>> {
        Some(&mut parties.v4)
    }
}

impl Family for Ipv6Addr {
    type Headers = [u8; IPV6_HEADER + TCP_HEADER];
    const NO_HEADERS: Self::Headers = [0; IPV6_HEADER + TCP_HEADER];
    const HEADER: usize = IPV6_HEADER;
    const ETHER_TYPE: u16 = 0x86dd;
    const GSO: GsoType = GsoType::TcpV6;
    const ON_A_WIRE: bool = false;

    fn number(protocol: Protocol) -> IpProtocol {
        match protocol {
            Protocol::Tcp => IpProtocol::Tcp,
            Protocol::Udp => IpProtocol::Udp,
            Protocol::Icmp => IpProtocol::Icmpv6,
        }
    }

    fn pseudo_header(flow: &Flow<Self>, len: usize) -> u16 {
        let (protocol, len) = (Self::number(flow.protocol), long(len));
        checksum::pseudo_header_v6(&flow.source, &flow.destination, protocol, len)
    }

    fn set_length(headers: &mut [u8], len: usize, _index: u16) {
        let mut ip = Ipv6Packet::new_unchecked(headers);
        ip.set_payload_len(short(len - IPV6_HEADER));
    }

    /// Version, traffic class and flow label; hop limit.
    fn alike(one: &[u8], other: &[u8]) -> bool {
        const HOP_LIMIT: usize = 7;
        one[..4] == other[..4] && one[HOP_LIMIT] == other[HOP_LIMIT]
    }

    /// Packet Too Big (RFC 4443, section 3.2); no MTU of a packet is longer than 16 bits.
    fn told_mtu(body: &[u8]) -> Option<u16> {
        const TOO_BIG: u8 = 2;
        match body {
            &[TOO_BIG, _, _, _, a, b, c, d, ..] => {
                Some(u16::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(u16::MAX))
            }
            _ => None,
        }
    }

    /// A packet with extension headers is none that passed here.
    fn quoted(quote: &[u8]) -> Option<Flow<Self>> {
        let (header, body) = quote.split_first_chunk::<IPV6_HEADER>()?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let (protocol, source_port, destination_port) = quoted_ports(header[6], 58, body)?;
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&header[at..at + 16]);
            Self::from(octets)
        };
        Some(Flow {
            protocol,
            source: address(8),
            destination: address(24),
            source_port,
            destination_port,
        })
    }

    fn party(parties: &mut Parties) -> Option<&mut Party<Self>> {
        parties.v6.as_mut()
    }
}

/// Protocol and ports of a quoted packet, whose family has this number for its ICMP.
fn quoted_ports(number: u8, icmp: u8, body: &[u8]) -> Option<(Protocol, u16, u16)> {
    let ports: &[u8; 8] = body.first_chunk()?;
    let (protocol, first, second) = match number {
        6 => (Protocol::Tcp, 0, 2),
        17 => (Protocol::Udp, 0, 2),
        _ if number == icmp => (Protocol::Icmp, 4, 4),
        _ => return None,
    };
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Some((protocol, port(first), port(second)))
}

/// A packet's lengths came out of 16-bit fields, and a segment is no longer than its packet.
pub(super) fn short(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// Likewise.
fn long(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for std::net::Ipv4Addr {}
    impl Sealed for std::net::Ipv6Addr {}
}
