//! Coalescing: consecutive segments of one TCP stream become one super-frame for the guest.
//!
//! The rules are those of Linux' `tcp_gro_receive`: same flow, contiguous, same acknowledgement,
//! same options, plain data flags; every segment but the last of equal length. A segment joins only
//! if its checksum holds, because the super-frame vouches for it.

use std::net::Ipv4Addr;

use sekisho_framelink::{HEADER_LEN, NetHdr};
use sekisho_policy::Protocol;
use smoltcp::wire::{EthernetAddress, TcpPacket, TcpSeqNumber, checksum};

use super::mss::clamp_mss;
use crate::gate::admit::Admitted;
use crate::gate::family::{Family, MOST_HEADERS, short};
use crate::gate::packet::{Flow, Packet, Transport};

const ETHERNET_HEADER: usize = 14;
/// Link header, Ethernet header, IP header, TCP header with all options.
const MAX_PREFIX: usize = HEADER_LEN + ETHERNET_HEADER + MOST_HEADERS;
/// Segments of one super-frame; 46 full ones make 64 KiB.
const MAX_PARTS: usize = 64;
/// The longest packet: one of IPv4, whose length counts its header.
const MAX_PACKET: usize = 65_535;
/// A frame link refuses super-frames of shorter segments.
const MIN_SEGMENT: usize = 536;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
/// Where in a TCP header its flags and its checksum are.
const TCP_FLAGS: usize = 13;
const TCP_CHECKSUM: usize = 16;

/// Takes frames for the guest: first the link header, the Ethernet header and the packet's headers,
/// then the payload in pieces.
pub trait Deliver {
    /// Delivers one frame.
    fn deliver(&mut self, prefix: &[u8], payload: &[&[u8]]);
}

/// Who talks to whom on the guest's Ethernet.
#[derive(Debug, Clone, Copy)]
pub struct Ethernet {
    /// The guest's MAC address.
    pub guest: EthernetAddress,
    /// The gate's MAC address.
    pub gate: EthernetAddress,
}

impl Ethernet {
    /// The header of a frame of this type from the gate to the guest.
    pub fn to_guest(&self, ether_type: u16) -> [u8; ETHERNET_HEADER] {
        let mut header = [0; ETHERNET_HEADER];
        header[..6].copy_from_slice(self.guest.as_bytes());
        header[6..12].copy_from_slice(self.gate.as_bytes());
        header[12..].copy_from_slice(&ether_type.to_be_bytes());
        header
    }
}

/// A stream of which at least one segment waits for the next.
struct Stream<'a, A> {
    first: Packet<'a, A>,
    flow: Flow<A>,
    next: TcpSeqNumber,
    segment: usize,
    total: usize,
    push: bool,
}

/// Collects the packets of one family in one batch. Borrowed from the batch's buffers, so it cannot outlive it.
pub struct Coalescer<'a, A = Ipv4Addr> {
    ethernet: Ethernet,
    mtu: u16,
    stream: Option<Stream<'a, A>>,
    parts: [&'a [u8]; MAX_PARTS],
    count: usize,
}

impl<'a, A: Family> Coalescer<'a, A> {
    /// An empty one.
    pub const fn new(ethernet: Ethernet, mtu: u16) -> Self {
        Self {
            ethernet,
            mtu,
            stream: None,
            parts: [&[]; MAX_PARTS],
            count: 0,
        }
    }

    /// Takes an admitted packet; frames that are complete by that are delivered, in order.
    pub fn offer(&mut self, admitted: &Admitted<Packet<'a, A>>, sink: &mut impl Deliver) {
        let packet = *admitted.packet();
        let Some(data) = Data::of(&packet) else {
            self.flush(sink);
            self.deliver_alone(&packet, sink);
            return;
        };
        if !self.joins(&packet, &data) {
            self.flush(sink);
        }
        self.append(packet, &data);
        let finished = self
            .stream
            .as_ref()
            .is_some_and(|stream| stream.push || data.payload.len() < stream.segment);
        if finished {
            self.flush(sink);
        }
    }

    /// Delivers what is waiting.
    pub fn flush(&mut self, sink: &mut impl Deliver) {
        let Some(stream) = self.stream.take() else {
            return;
        };
        if self.count == 1 {
            self.count = 0;
            self.deliver_alone(&stream.first, sink);
            return;
        }
        let prefix = self.super_prefix(&stream);
        let len = HEADER_LEN + ETHERNET_HEADER + stream.first.header_len();
        sink.deliver(&prefix[..len], &self.parts[..self.count]);
        self.count = 0;
    }

    fn joins(&self, packet: &Packet<'a, A>, data: &Data<'a>) -> bool {
        let Some(stream) = &self.stream else {
            return false;
        };
        stream.flow == packet.flow()
            && stream.next == data.sequence
            && self.count < MAX_PARTS
            && stream.segment >= MIN_SEGMENT
            && data.payload.len() <= stream.segment
            && stream.total + data.payload.len() <= MAX_PACKET
            && A::alike(stream.first.bytes(), packet.bytes())
            && same_headers(
                stream.first.body(),
                packet.body(),
                packet.header_len() - A::HEADER,
            )
    }

    fn append(&mut self, packet: Packet<'a, A>, data: &Data<'a>) {
        let next = data.sequence + data.payload.len();
        if let Some(stream) = &mut self.stream {
            stream.next = next;
            stream.total += data.payload.len();
            stream.push |= data.push;
        } else {
            self.stream = Some(Stream {
                first: packet,
                flow: packet.flow(),
                next,
                segment: data.payload.len(),
                total: packet.bytes().len(),
                push: data.push,
            });
        }
        self.parts[self.count] = data.payload;
        self.count += 1;
    }

    fn deliver_alone(&self, packet: &Packet<'_, A>, sink: &mut impl Deliver) {
        let mut prefix = [0; MAX_PREFIX];
        let headers = packet.header_len();
        let start = HEADER_LEN + ETHERNET_HEADER;
        prefix[..HEADER_LEN].copy_from_slice(&NetHdr::default().emit());
        prefix[HEADER_LEN..start].copy_from_slice(&self.ethernet.to_guest(A::ETHER_TYPE));
        prefix[start..start + headers].copy_from_slice(&packet.bytes()[..headers]);
        if let Transport::Tcp { flags, .. } = packet.transport()
            && flags.syn
        {
            clamp_mss(&mut prefix[start..start + headers], A::HEADER, self.mtu);
        }
        sink.deliver(&prefix[..start + headers], &[&packet.bytes()[headers..]]);
    }

    fn super_prefix(&self, stream: &Stream<'_, A>) -> [u8; MAX_PREFIX] {
        let mut prefix = [0; MAX_PREFIX];
        let headers = stream.first.header_len();
        let start = HEADER_LEN + ETHERNET_HEADER;
        // All of these are below 64 KiB: `total` is bounded by MAX_PACKET in `joins`.
        let header = NetHdr::partial_csum(short(ETHERNET_HEADER + A::HEADER), short(TCP_CHECKSUM))
            .with_gso(
                A::GSO,
                short(stream.segment),
                short(ETHERNET_HEADER + headers),
            );
        prefix[..HEADER_LEN].copy_from_slice(&header.emit());
        prefix[HEADER_LEN..start].copy_from_slice(&self.ethernet.to_guest(A::ETHER_TYPE));
        let packet = &mut prefix[start..start + headers];
        packet.copy_from_slice(&stream.first.bytes()[..headers]);
        if stream.push {
            packet[A::HEADER + TCP_FLAGS] |= PSH;
        }
        A::set_length(packet, stream.total, 0);
        let pseudo = A::pseudo_header(&stream.flow, stream.total - A::HEADER);
        let at = start + A::HEADER + TCP_CHECKSUM;
        prefix[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
        prefix
    }
}

/// A plain data segment whose checksum holds.
struct Data<'a> {
    sequence: TcpSeqNumber,
    push: bool,
    payload: &'a [u8],
}

impl<'a> Data<'a> {
    fn of<A: Family>(packet: &Packet<'a, A>) -> Option<Self> {
        let flow = packet.flow();
        if flow.protocol != Protocol::Tcp {
            return None;
        }
        let bytes = packet.bytes();
        let payload = &bytes[packet.header_len()..];
        let flags = bytes[A::HEADER + TCP_FLAGS];
        if payload.is_empty() || flags & !PSH != ACK {
            return None;
        }
        let sum = checksum::combine(&[
            A::pseudo_header(&flow, bytes.len() - A::HEADER),
            checksum::data(packet.body()),
        ]);
        (sum == u16::MAX).then(|| Self {
            sequence: TcpPacket::new_unchecked(packet.body()).seq_number(),
            push: flags & PSH != 0,
            payload,
        })
    }
}

/// Whether two TCP headers of one flow, `len` bytes long, agree in what a super-frame has only once:
/// acknowledgement, window and options.
fn same_headers(one: &[u8], other: &[u8], len: usize) -> bool {
    const ACKNOWLEDGEMENT: std::ops::Range<usize> = 8..13;
    const WINDOW: std::ops::Range<usize> = 14..16;
    const URGENT: usize = 18;
    one[ACKNOWLEDGEMENT] == other[ACKNOWLEDGEMENT]
        && one[WINDOW] == other[WINDOW]
        && one[URGENT..len] == other[URGENT..len]
}
