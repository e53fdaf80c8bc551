//! Parsing of IPv6 packets (RFC 8200): the fixed header and the transport right behind it.

use std::net::Ipv6Addr;

use sekisho_policy::Protocol;
use smoltcp::wire::{IpProtocol, Ipv6Packet};

use super::{
    IPV6_HEADER, IcmpKind, Malformed, Offload, Packet, Parsed, Transport, parse_tcp, parse_udp,
};

/// Bytes that every `ICMPv6` message has here: its header and the word behind it (RFC 4443).
const LEAST_ICMP: usize = 8;
/// Extension headers (IANA, "IPv6 Extension Header Types"): hop by hop, routing, authentication,
/// destination options, mobility, host identity, shim6 and the two for experiments. That of a fragment
/// is told by itself; ESP is no header but a tunnel.
const EXTENSIONS: [u8; 9] = [0, 43, 51, 60, 135, 139, 140, 253, 254];

impl<'a> Packet<'a, Ipv6Addr> {
    /// Parses the IPv6 packet at the start of `bytes`; link-layer padding behind it is cut off.
    pub fn parse_v6(bytes: &'a [u8], offload: Offload) -> Result<Self, Malformed> {
        let ip = Ipv6Packet::new_checked(bytes).map_err(|_| Malformed::Truncated)?;
        if ip.version() != 6 {
            return Err(Malformed::Header);
        }
        let bytes = &bytes[..ip.total_len()];
        let body = &bytes[IPV6_HEADER..];
        let parsed = match ip.next_header() {
            IpProtocol::Tcp => parse_tcp(body)?,
            IpProtocol::Udp => parse_udp(body)?,
            IpProtocol::Icmpv6 => parse_icmp(body)?,
            // Also one that is whole ("atomic", RFC 6946): nobody sends them any more (RFC 8021).
            IpProtocol::Ipv6Frag => return Err(Malformed::Fragment),
            other if EXTENSIONS.contains(&other.into()) => return Err(Malformed::Extensions),
            other => return Err(Malformed::Protocol(other.into())),
        };
        Self::of(bytes, (ip.src_addr(), ip.dst_addr()), parsed, offload)
    }
}

fn parse_icmp(body: &[u8]) -> Result<Parsed, Malformed> {
    let head: &[u8; LEAST_ICMP] = body.first_chunk().ok_or(Malformed::Transport)?;
    let ident = u16::from_be_bytes([head[4], head[5]]);
    let (kind, ident) = match head[0] {
        128 => (IcmpKind::EchoRequest, ident),
        129 => (IcmpKind::EchoReply, ident),
        1..=4 => (IcmpKind::Error, 0),
        _ => (IcmpKind::Other, 0),
    };
    Ok((Protocol::Icmp, Transport::Icmp { kind }, ident, ident))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smoltcp::wire::{Icmpv6Message, Icmpv6Packet, TcpPacket, UdpPacket};

    use super::*;
    use crate::gate::fixture::packets_v6::{extended, icmp_raw, tcp, udp};
    use crate::gate::fixture::{GUEST_V6, SERVER_V6};

    /// What RFC 8200 says of the bytes, read once more: payload, number of what follows the header.
    fn plainly(bytes: &[u8]) -> Option<(&[u8], u8)> {
        let len = usize::from(u16::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?]));
        let payload = bytes.get(40..40 + len)?;
        (bytes[0] >> 4 == 6).then_some((payload, bytes[6]))
    }

    fn packets() -> impl Strategy<Value = Vec<u8>> {
        let payload = prop::collection::vec(any::<u8>(), 0..80);
        (0..3, any::<[u16; 2]>(), payload).prop_map(|(kind, [from, to], payload)| {
            let (from, to) = ((GUEST_V6, from), (SERVER_V6, to.max(1)));
            match kind {
                0 => udp(from, to, &payload),
                1 => tcp(from, to, (1, 1), 0x10, &[], &payload),
                _ => {
                    let message = [&[(from.1 >> 8) as u8, 0, 0, 0, 1, 2, 3, 4][..], &payload];
                    icmp_raw((from.0, to.0), 64, &message.concat())
                }
            }
        })
    }

    proptest! {
        #[test]
        fn what_parses_is_what_the_rfcs_say(
            mut bytes in packets(),
            flips in prop::collection::vec((0..60usize, any::<u8>()), 0..3),
            cut in 0..200usize,
        ) {
            for (at, value) in flips {
                if at < bytes.len() {
                    bytes[at] = value;
                }
            }
            bytes.truncate(cut);
            let Ok(packet) = Packet::parse_v6(&bytes, Offload::None) else {
                return Ok(());
            };
            let (payload, next) = plainly(&bytes).expect("a whole packet of IPv6");
            prop_assert_eq!(packet.body(), payload);
            let flow = packet.flow();
            prop_assert_eq!(&flow.source.octets()[..], &bytes[8..24]);
            prop_assert_eq!(&flow.destination.octets()[..], &bytes[24..40]);
            match (next, packet.transport()) {
                (6, Transport::Tcp { .. }) => {
                    let tcp = TcpPacket::new_checked(payload).unwrap();
                    prop_assert_eq!(flow.source_port, tcp.src_port());
                    prop_assert_eq!(flow.destination_port, tcp.dst_port());
                    prop_assert_eq!(packet.header_len(), 40 + usize::from(tcp.header_len()));
                }
                (17, Transport::Udp) => {
                    let udp = UdpPacket::new_checked(payload).unwrap();
                    prop_assert_eq!(flow.source_port, udp.src_port());
                    prop_assert_eq!(flow.destination_port, udp.dst_port());
                }
                (58, Transport::Icmp { kind }) => {
                    let message = Icmpv6Packet::new_unchecked(payload);
                    let wanted = match message.msg_type() {
                        Icmpv6Message::EchoRequest => IcmpKind::EchoRequest,
                        Icmpv6Message::EchoReply => IcmpKind::EchoReply,
                        Icmpv6Message::DstUnreachable
                        | Icmpv6Message::PktTooBig
                        | Icmpv6Message::TimeExceeded
                        | Icmpv6Message::ParamProblem => IcmpKind::Error,
                        _ => IcmpKind::Other,
                    };
                    prop_assert_eq!(kind, wanted);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn no_extension_header_passes(
            packet in packets(),
            number in prop::sample::select(vec![0u8, 43, 44, 51, 60, 135, 139, 140, 253, 254]),
            header in any::<[u8; 8]>(),
        ) {
            prop_assume!(packet.len() > 40);
            let chained = extended(&packet, number, &header);
            let expected = if number == 44 {
                Malformed::Fragment
            } else {
                Malformed::Extensions
            };
            prop_assert_eq!(
                Packet::parse_v6(&chained, Offload::None).err(),
                Some(expected)
            );
        }

        #[test]
        fn an_error_quotes_what_was_sent(packet in packets()) {
            let Ok(sent) = Packet::parse_v6(&packet, Offload::None) else {
                return Ok(());
            };
            let message = [&[1, 4, 0, 0, 0, 0, 0, 0][..], &packet].concat();
            let error = icmp_raw((SERVER_V6, GUEST_V6), 64, &message);
            let error = Packet::parse_v6(&error, Offload::None).unwrap();
            let mut flow = sent.flow();
            if let Transport::Icmp { .. } = sent.transport() {
                // The identifier stands there whatever the type; only echoes have one.
                flow.source_port = 0x0102;
                flow.destination_port = 0x0102;
            }
            prop_assert_eq!(error.quoted(), Some(flow));
        }
    }

    #[test]
    fn packets_of_the_other_family_are_none() {
        let mut packet = udp((GUEST_V6, 1), (SERVER_V6, 2), b"x");
        packet[0] = 0x45;
        assert!(Packet::parse_v6(&packet, Offload::None).is_err());
        packet[0] = 0x60;
        assert!(Packet::parse(&packet, Offload::None).is_err());
    }
}
