//! Software segmentation: one admitted super-packet becomes the packets that the wire can carry.
//!
//! What Linux does in `tcp_gso_segment`: every segment repeats the headers, sequence number and
//! identification count up, PSH and FIN stand on the last segment only, CWR on the first only.

use std::net::Ipv4Addr;

use smoltcp::wire::{TcpPacket, checksum};

use super::mss::clamp_mss;
use crate::gate::admit::Admitted;
use crate::gate::family::Family;
use crate::gate::packet::{Offload, Packet, Transport};

/// Where in a TCP header its flags are.
const TCP_FLAGS: usize = 13;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// One complete inner packet, ready to be sealed: patched headers and the payload they belong to.
/// Only [`Segments`] makes it, and only out of an admitted packet.
#[derive(Debug)]
pub struct Segment<'a, A: Family = Ipv4Addr> {
    headers: A::Headers,
    header_len: usize,
    payload: &'a [u8],
}

impl<A: Family> Segment<'_, A> {
    /// The two parts of the packet, in order.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        (&self.headers.as_ref()[..self.header_len], self.payload)
    }

    /// Bytes of the whole packet.
    #[expect(clippy::len_without_is_empty, reason = "a packet is never empty")]
    pub const fn len(&self) -> usize {
        self.header_len + self.payload.len()
    }
}

/// Iterates over the packets that an admitted packet becomes: one, unless it is a super-packet.
#[derive(Debug)]
pub struct Segments<'a, A: Family = Ipv4Addr> {
    packet: Packet<'a, A>,
    payload_at_most: usize,
    mtu: u16,
    sent: usize,
    index: u16,
    done: bool,
}

impl<'a, A: Family> Segments<'a, A> {
    /// Starts on `admitted`. No segment is longer than `mtu` bytes; a packet that is not to be cut
    /// was checked against it before it was admitted.
    pub fn new(admitted: &Admitted<Packet<'a, A>>, mtu: u16) -> Self {
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

impl<'a, A: Family> Iterator for Segments<'a, A> {
    type Item = Segment<'a, A>;

    fn next(&mut self) -> Option<Segment<'a, A>> {
        if self.done {
            return None;
        }
        let bytes = self.packet.bytes();
        let header_len = self.packet.header_len();
        let rest = &bytes[header_len + self.sent..];
        let (payload, behind) = rest.split_at(rest.len().min(self.payload_at_most));
        let mut room = A::NO_HEADERS;
        let headers = &mut room.as_mut()[..header_len];
        headers.copy_from_slice(&bytes[..header_len]);
        let first = self.sent == 0;
        let last = behind.is_empty();
        A::set_length(headers, header_len + payload.len(), self.index);
        if let Transport::Tcp { flags, .. } = self.packet.transport() {
            if !(first && last) {
                cut_tcp(&mut headers[A::HEADER..], self.sent, first, last);
            }
            if flags.syn {
                clamp_mss(headers, A::HEADER, self.mtu);
            }
        }
        let mut segment = Segment {
            headers: room,
            header_len,
            payload,
        };
        if self.packet.offload() != Offload::None {
            fill_checksum(&mut segment, &self.packet);
        }
        self.sent += payload.len();
        self.index = self.index.wrapping_add(1);
        self.done = last;
        Some(segment)
    }
}

fn cut_tcp(header: &mut [u8], offset: usize, first: bool, last: bool) {
    let mut tcp = TcpPacket::new_unchecked(&mut *header);
    // `offset` is below 64 KiB.
    let step = i32::try_from(offset).unwrap_or(0);
    let sequence = tcp.seq_number() + usize::try_from(step).unwrap_or(0);
    tcp.set_seq_number(sequence);
    if !last {
        header[TCP_FLAGS] &= !(FIN | PSH);
    }
    if !first {
        header[TCP_FLAGS] &= !CWR;
    }
}

fn fill_checksum<A: Family>(segment: &mut Segment<'_, A>, packet: &Packet<'_, A>) {
    let pseudo = A::pseudo_header(&packet.flow(), segment.len() - A::HEADER);
    let at = match packet.transport() {
        Transport::Tcp { .. } => A::HEADER + 16,
        Transport::Udp => return udp_checksum(segment, pseudo),
        Transport::Icmp { .. } => return,
    };
    let headers = &mut segment.headers.as_mut()[..segment.header_len];
    headers[at..at + 2].fill(0);
    // The header has an even length (a multiple of four), so the parts may be summed apart.
    let sum = checksum::combine(&[
        pseudo,
        checksum::data(&headers[A::HEADER..]),
        checksum::data(segment.payload),
    ]);
    headers[at..at + 2].copy_from_slice(&(!sum).to_be_bytes());
}

/// A UDP header counts as payload until here; move it into the patched part and fill it.
fn udp_checksum<A: Family>(segment: &mut Segment<'_, A>, pseudo: u16) {
    const UDP_HEADER: usize = 8;
    let (header, payload) = segment.payload.split_at(UDP_HEADER);
    let at = segment.header_len;
    let own = &mut segment.headers.as_mut()[at..at + UDP_HEADER];
    own.copy_from_slice(header);
    own[6..].fill(0);
    let sum = !checksum::combine(&[pseudo, checksum::data(own), checksum::data(payload)]);
    // Zero would mean "no checksum" (RFC 768).
    let sum = if sum == 0 { u16::MAX } else { sum };
    own[6..].copy_from_slice(&sum.to_be_bytes());
    segment.header_len += UDP_HEADER;
    segment.payload = payload;
}
