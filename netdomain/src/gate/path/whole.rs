//! Packets onto a wire of the office and off it: whole, as the kernel cuts and joins them itself.
//!
//! The wire is a TUN device with a `virtio_net_hdr` before each packet (kernel documentation,
//! `networking/tuntap`), so a super-packet of the guest's crosses with one call, and what the kernel
//! joined on its way in is one frame for the guest.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use rustix::io::{Errno, writev};
use sekisho_framelink::{Flaw, GsoType, HEADER_LEN, NetHdr, Offloads, Rules};
use sekisho_policy::Protocol;
use smoltcp::wire::{IpProtocol, Ipv4Packet, checksum};

use super::mss::clamp_mss;
use super::{Deliver, Ethernet};
use crate::gate::admit::Admitted;
use crate::gate::packet::{IPV4_HEADER, Offload, Packet, Transport};

const ETHERNET_HEADER: usize = 14;
const UDP_HEADER: usize = 8;
/// IPv4 without options, TCP with all of its options.
const MAX_HEADERS: usize = IPV4_HEADER + 60;
const TCP_CHECKSUM: usize = 16;
const UDP_CHECKSUM: usize = 6;
const IPV4: u16 = 0x0800;

/// The longest message of a wire: header and IPv4 packet.
pub const MAX_WHOLE: usize = HEADER_LEN + 65_535;

/// The headers of a packet as they leave: patched, with what is left to be done for whoever is next.
struct Head {
    bytes: [u8; MAX_HEADERS],
    len: usize,
    /// Where the missing checksum is, counted from the transport header.
    checksum: Option<usize>,
    /// The payload of a segment, where there is something to cut.
    segment: Option<u16>,
}

impl Head {
    fn of(packet: &Packet<'_>, mtu: u16) -> Self {
        let complete = packet.offload() == Offload::None;
        let checksum = match packet.transport() {
            _ if complete => None,
            Transport::Tcp { .. } => Some(TCP_CHECKSUM),
            Transport::Udp => Some(UDP_CHECKSUM),
            Transport::Icmp { .. } => None,
        };
        let len = match packet.transport() {
            // The field that is to be written lies in the UDP header.
            Transport::Udp if checksum.is_some() => IPV4_HEADER + UDP_HEADER,
            _ => packet.header_len(),
        };
        let room = mtu.saturating_sub(short(len)).max(1);
        let segment = match packet.offload() {
            Offload::Tcp { mss } => Some(mss.min(room))
                .filter(|&segment| packet.bytes().len() - len > usize::from(segment)),
            Offload::None | Offload::Checksum => None,
        };
        let mut bytes = [0; MAX_HEADERS];
        bytes[..len].copy_from_slice(&packet.bytes()[..len]);
        let headers = &mut bytes[..len];
        if let Transport::Tcp { flags, .. } = packet.transport()
            && flags.syn
        {
            clamp_mss(headers, IPV4_HEADER, mtu);
        }
        Ipv4Packet::new_unchecked(&mut *headers).fill_checksum();
        if let Some(at) = checksum {
            // What the sum begins with is ours to say, whatever the sender left there.
            let at = IPV4_HEADER + at;
            headers[at..at + 2].copy_from_slice(&pseudo_header(packet).to_be_bytes());
        }
        Self {
            bytes,
            len,
            checksum,
            segment,
        }
    }

    fn headers(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// For a receiver who finds the IPv4 header `before` bytes from the start.
    fn offload(&self, before: usize) -> NetHdr {
        let Some(checksum) = self.checksum else {
            return NetHdr::default();
        };
        let header = NetHdr::partial_csum(short(before + IPV4_HEADER), short(checksum));
        match self.segment {
            None => header,
            Some(segment) => header.with_gso(GsoType::TcpV4, segment, short(before + self.len)),
        }
    }
}

/// Writes an admitted packet to a wire. Segments of it are no longer than `mtu`.
pub fn send_whole(
    wire: BorrowedFd<'_>,
    admitted: &Admitted<Packet<'_>>,
    mtu: u16,
) -> Result<(), Errno> {
    let packet = admitted.packet();
    let head = Head::of(packet, mtu);
    let header = head.offload(0).emit();
    let pieces = [
        IoSlice::new(&header),
        IoSlice::new(head.headers()),
        IoSlice::new(&packet.bytes()[head.len..]),
    ];
    writev(wire, &pieces).map(drop)
}

/// Delivers an admitted packet off a wire as one frame.
pub fn deliver_whole(
    admitted: &Admitted<Packet<'_>>,
    ethernet: Ethernet,
    mtu: u16,
    sink: &mut impl Deliver,
) {
    let packet = admitted.packet();
    let head = Head::of(packet, mtu);
    let start = HEADER_LEN + ETHERNET_HEADER;
    let mut prefix = [0; HEADER_LEN + ETHERNET_HEADER + MAX_HEADERS];
    prefix[..HEADER_LEN].copy_from_slice(&head.offload(ETHERNET_HEADER).emit());
    prefix[HEADER_LEN..start].copy_from_slice(&ethernet.to_guest(IPV4));
    prefix[start..start + head.len].copy_from_slice(head.headers());
    sink.deliver(&prefix[..start + head.len], &[&packet.bytes()[head.len..]]);
}

/// Splits a message of a wire into the packet and what is left to do about it. The kernel wrote the
/// header, after whatever the wire brought; it goes through the same check as any other.
pub fn whole(message: &[u8], mtu: u16) -> Result<(Offload, &[u8]), Flaw> {
    let (header, packet) = message.split_first_chunk().ok_or(Flaw::Short)?;
    let rules = Rules {
        offloads: Offloads {
            csum: true,
            tso4: true,
            tso6: false,
            uso: false,
        },
        mtu,
    };
    let header = rules.check(header, packet.len())?;
    let offload = match header.gso() {
        Some(GsoType::None) if !header.needs_csum() => return Ok((Offload::None, packet)),
        Some(GsoType::None) => Offload::Checksum,
        Some(GsoType::TcpV4) => Offload::Tcp {
            mss: header.gso_size,
        },
        _ => return Err(Flaw::GsoType),
    };
    // The sum is the transport's own, where we will write it, or it is none of ours.
    let (tcp, udp) = (Some(&6), Some(&17));
    let field = match packet.get(9) {
        protocol if protocol == tcp => TCP_CHECKSUM,
        protocol if protocol == udp => UDP_CHECKSUM,
        _ => return Err(Flaw::Csum),
    };
    let in_place =
        usize::from(header.csum_start) == IPV4_HEADER && usize::from(header.csum_offset) == field;
    in_place.then_some((offload, packet)).ok_or(Flaw::Csum)
}

fn pseudo_header(packet: &Packet<'_>) -> u16 {
    let flow = packet.flow();
    let protocol = match flow.protocol {
        Protocol::Tcp => IpProtocol::Tcp,
        Protocol::Udp => IpProtocol::Udp,
        Protocol::Icmp => IpProtocol::Icmp,
    };
    let len = u32::try_from(packet.body().len()).unwrap_or(0);
    checksum::pseudo_header_v4(&flow.source, &flow.destination, protocol, len)
}

/// A packet's lengths came out of 16-bit fields.
fn short(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use proptest::prelude::*;
    use sekisho_control::{Place, WireId};

    use super::super::Segments;
    use super::*;
    use crate::gate::admit::Origin;
    use crate::gate::fixture::{GUEST, MTU, SERVER, at, gatekeeper, tcp, tunnelled};
    use crate::gate::situation::Situation;

    const ACK: u8 = 0x10;
    const SYN: u8 = 0x02;

    fn segments(admitted: &Admitted<Packet<'_>>) -> Vec<Vec<u8>> {
        Segments::new(admitted, MTU)
            .map(|segment| {
                let (headers, payload) = segment.parts();
                [headers, payload].concat()
            })
            .collect()
    }

    /// What is written to a wire, read back as it would be read from one.
    fn through_a_wire(admitted: &Admitted<Packet<'_>>) -> Vec<u8> {
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        send_whole(near.as_fd(), admitted, MTU).unwrap();
        let mut bytes = vec![0; MAX_WHOLE];
        let len = rustix::io::read(&far, &mut bytes[..]).unwrap();
        bytes.truncate(len);
        bytes
    }

    proptest! {
        /// What crosses whole is, once it is cut, what the gate would have cut itself; whatever the
        /// guest left in the field of the checksum.
        #[test]
        fn a_packet_that_crosses_whole_is_the_same_packets(
            len in 1usize..60_000,
            mss in 536u16..1500,
            offload in any::<bool>(),
            left in any::<[u8; 2]>(),
        ) {
            let payload: Vec<u8> = (0..=250).cycle().take(len).collect();
            let ends = ((GUEST, 4000), (SERVER, 443));
            let mut bytes = tcp(ends.0, ends.1, (1, 7), ACK, &[], &payload);
            let offload = if offload {
                bytes[36..38].copy_from_slice(&left);
                Offload::Tcp { mss }
            } else {
                Offload::None
            };
            let packet = Packet::parse(&bytes, offload).unwrap();
            let direct = Situation::Direct { wire: WireId(1) };
            let mut keeper = gatekeeper();
            let Ok(admitted) = keeper.admit(packet, Origin::Guest, &direct, at(1)) else {
                // Too long, and nobody is to cut it.
                prop_assert!(offload == Offload::None && bytes.len() > usize::from(MTU));
                return Ok(());
            };
            let message = through_a_wire(&admitted);
            let (offload, bytes) = whole(&message, 1500).unwrap();
            let again = Packet::parse(bytes, offload).unwrap();
            let crossed = gatekeeper().admit(again, Origin::Guest, &direct, at(1)).unwrap();
            prop_assert_eq!(segments(&crossed), segments(&admitted));
            if let Offload::Tcp { mss } = offload {
                prop_assert!(mss <= MTU - 40);
            }
        }

        #[test]
        fn any_message_is_a_packet_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((offload, packet)) = whole(&bytes, 1500) {
                let _ = Packet::parse(packet, offload);
            }
        }
    }

    #[test]
    fn a_syn_is_clamped_to_the_guests_mtu_on_its_way_out() {
        let options = [2, 4, 5, 180];
        let syn = tcp((GUEST, 4000), (SERVER, 443), (1, 0), SYN, &options, &[]);
        let packet = Packet::parse(&syn, Offload::None).unwrap();
        let direct = Situation::Direct { wire: WireId(1) };
        let mut keeper = gatekeeper();
        let admitted = keeper.admit(packet, Origin::Guest, &direct, at(1)).unwrap();
        let message = through_a_wire(&admitted);
        let (_, bytes) = whole(&message, 1500).unwrap();
        assert_eq!(&bytes[40..44], [2, 4, 5, 100], "1380");
        assert_eq!(segments(&admitted), [bytes.to_vec()]);
    }

    /// The frame that the guest gets: its own MAC and offsets behind the Ethernet header.
    #[test]
    fn what_came_whole_reaches_the_guest_whole() {
        struct Frames(Vec<Vec<u8>>);
        impl Deliver for Frames {
            fn deliver(&mut self, prefix: &[u8], payload: &[&[u8]]) {
                self.0.push([prefix, &payload.concat()].concat());
            }
        }
        let payload = vec![7; 20_000];
        let bytes = tcp((SERVER, 443), (GUEST, 4000), (1, 7), ACK, &[], &payload);
        let packet = Packet::parse(&bytes, Offload::Tcp { mss: 1380 }).unwrap();
        let direct = Situation::Direct { wire: WireId(1) };
        let mut keeper = gatekeeper();
        let admitted = keeper.admit(packet, Origin::Wire, &direct, at(1)).unwrap();
        let ethernet = Ethernet {
            guest: smoltcp::wire::EthernetAddress([2; 6]),
            gate: smoltcp::wire::EthernetAddress([4; 6]),
        };
        let mut frames = Frames(Vec::new());
        deliver_whole(&admitted, ethernet, MTU, &mut frames);
        let [frame] = &frames.0[..] else {
            panic!("{} frames", frames.0.len());
        };
        let (header, frame) = frame.split_first_chunk().unwrap();
        let header = NetHdr::parse(header);
        assert_eq!(header.gso(), Some(GsoType::TcpV4));
        assert_eq!((header.gso_size, header.csum_start), (1380, 34));
        assert_eq!((header.csum_offset, header.hdr_len), (16, 54));
        assert_eq!(frame[..6], [2; 6]);
        assert_eq!(frame.len(), 14 + bytes.len());
    }

    /// What left the one way is answered the same way.
    #[test]
    fn a_wire_and_a_tunnel_do_not_mix() {
        let bytes = tcp((SERVER, 443), (GUEST, 4000), (1, 7), ACK, &[], &[1]);
        let packet = Packet::parse(&bytes, Offload::None).unwrap();
        let direct = Situation::Direct { wire: WireId(1) };
        for place in [Place::Remote, Place::Office] {
            let tunnel = tunnelled(place);
            assert!(
                gatekeeper()
                    .admit(packet, Origin::Wire, &tunnel, at(1))
                    .is_err()
            );
            assert!(
                gatekeeper()
                    .admit(packet, Origin::Tunnel, &tunnel, at(1))
                    .is_ok()
            );
        }
        assert!(
            gatekeeper()
                .admit(packet, Origin::Tunnel, &direct, at(1))
                .is_err()
        );
        assert!(
            gatekeeper()
                .admit(packet, Origin::Wire, &direct, at(1))
                .is_ok()
        );
    }
}
