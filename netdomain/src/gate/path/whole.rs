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
            clamp_mss(headers, mtu);
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
