//! Software segmentation: one admitted super-packet becomes the packets that the wire can carry.
//!
//! What Linux does in `tcp_gso_segment`: every segment repeats the headers, sequence number and
//! identification count up, PSH and FIN stand on the last segment only, CWR on the first only.

use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpPacket, checksum};

use super::mss::clamp_mss;
use crate::gate::admit::Admitted;
use crate::gate::packet::{IPV4_HEADER, Offload, Packet, Transport};

/// The longest headers of a segment: IPv4 without options, TCP with all of its options.
const MAX_HEADERS: usize = IPV4_HEADER + 60;
const TCP_FLAGS: usize = IPV4_HEADER + 13;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// One complete inner packet, ready to be sealed: patched headers and the payload they belong to.
/// Only [`Segments`] makes it, and only out of an admitted packet.
#[derive(Debug)]
pub struct Segment<'a> {
    headers: [u8; MAX_HEADERS],
    header_len: usize,
    payload: &'a [u8],
}

impl Segment<'_> {
    /// The two parts of the packet, in order.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        (&self.headers[..self.header_len], self.payload)
    }

    /// Bytes of the whole packet.
    #[expect(clippy::len_without_is_empty, reason = "a packet is never empty")]
    pub const fn len(&self) -> usize {
        self.header_len + self.payload.len()
    }
}

/// Iterates over the packets that an admitted packet becomes: one, unless it is a super-packet.
#[derive(Debug)]
pub struct Segments<'a> {
    packet: Packet<'a>,
    payload_at_most: usize,
    mtu: u16,
    sent: usize,
    index: u16,
    done: bool,
}

impl<'a> Segments<'a> {
    /// Starts on `admitted`. No segment is longer than `mtu` bytes; a packet that is not to be cut
    /// was checked against it before it was admitted.
    pub fn new(admitted: &Admitted<Packet<'a>>, mtu: u16) -> Self {
        let packet = *admitted.packet();
        let room = usize::from(mtu).saturating_sub(packet.header_len()).max(1);
        let payload_at_most = match packet.offload() {
            Offload::Tcp { mss } => usize::from(mss).min(room),
            Offload::None | Offload::Checksum => usize::MAX,
        };
        Self {
            packet,
            payload_at_most,
            mtu,
            sent: 0,
            index: 0,
            done: false,
        }
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        if self.done {
            return None;
        }
        let bytes = self.packet.bytes();
        let header_len = self.packet.header_len();
        let rest = &bytes[header_len + self.sent..];
        let (payload, behind) = rest.split_at(rest.len().min(self.payload_at_most));
        let mut headers = [0; MAX_HEADERS];
        headers[..header_len].copy_from_slice(&bytes[..header_len]);
        let first = self.sent == 0;
        let last = behind.is_empty();
        patch_ip(&mut headers[..header_len], payload.len(), self.index);
        if let Transport::Tcp { flags, .. } = self.packet.transport() {
            if !(first && last) {
                cut_tcp(&mut headers[..header_len], self.sent, first, last);
            }
            if flags.syn {
                clamp_mss(&mut headers[..header_len], self.mtu);
            }
        }
        let mut segment = Segment {
            headers,
            header_len,
            payload,
        };
        if self.packet.offload() != Offload::None {
            fill_checksum(&mut segment, self.packet.transport());
        }
        self.sent += payload.len();
        self.index = self.index.wrapping_add(1);
        self.done = last;
        Some(segment)
    }
}

fn patch_ip(headers: &mut [u8], payload: usize, index: u16) {
    let total = headers.len() + payload;
    let mut ip = Ipv4Packet::new_unchecked(headers);
    // A packet's length came out of a 16-bit field and a segment is no longer than its packet.
    ip.set_total_len(u16::try_from(total).unwrap_or(u16::MAX));
    ip.set_ident(ip.ident().wrapping_add(index));
    ip.fill_checksum();
}

fn cut_tcp(headers: &mut [u8], offset: usize, first: bool, last: bool) {
    let mut tcp = TcpPacket::new_unchecked(&mut headers[IPV4_HEADER..]);
    // `offset` is below 64 KiB.
    let step = i32::try_from(offset).unwrap_or(0);
    let sequence = tcp.seq_number() + usize::try_from(step).unwrap_or(0);
    tcp.set_seq_number(sequence);
    if !last {
        headers[TCP_FLAGS] &= !(FIN | PSH);
    }
    if !first {
        headers[TCP_FLAGS] &= !CWR;
    }
}

fn fill_checksum(segment: &mut Segment<'_>, transport: Transport) {
    let (at, protocol) = match transport {
        Transport::Tcp { .. } => (IPV4_HEADER + 16, IpProtocol::Tcp),
        Transport::Udp => (IPV4_HEADER + 6, IpProtocol::Udp),
        Transport::Icmp { .. } => return,
    };
    let ip = Ipv4Packet::new_unchecked(&segment.headers[..]);
    let body_len = segment.len() - IPV4_HEADER;
    let pseudo = checksum::pseudo_header_v4(
        &ip.src_addr(),
        &ip.dst_addr(),
        protocol,
        u32::try_from(body_len).unwrap_or(0),
    );
    let sum = if segment.header_len > at {
        segment.headers[at..at + 2].fill(0);
        // The header has an even length (a multiple of four), so the parts may be summed apart.
        checksum::combine(&[
            pseudo,
            checksum::data(&segment.headers[IPV4_HEADER..segment.header_len]),
            checksum::data(segment.payload),
        ])
    } else {
        return udp_checksum(segment, pseudo);
    };
    segment.headers[at..at + 2].copy_from_slice(&(!sum).to_be_bytes());
}

/// A UDP header counts as payload until here; move it into the patched part and fill it.
fn udp_checksum(segment: &mut Segment<'_>, pseudo: u16) {
    const UDP_HEADER: usize = 8;
    let (header, payload) = segment.payload.split_at(UDP_HEADER);
    let at = segment.header_len;
    segment.headers[at..at + UDP_HEADER].copy_from_slice(header);
    segment.headers[at + 6..at + UDP_HEADER].fill(0);
    segment.header_len += UDP_HEADER;
    segment.payload = payload;
    let sum = !checksum::combine(&[
        pseudo,
        checksum::data(&segment.headers[at..at + UDP_HEADER]),
        checksum::data(payload),
    ]);
    // Zero would mean "no checksum" (RFC 768).
    let sum = if sum == 0 { u16::MAX } else { sum };
    segment.headers[at + 6..at + UDP_HEADER].copy_from_slice(&sum.to_be_bytes());
}
