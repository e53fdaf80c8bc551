//! Segmentation and coalescing of IPv6 against packets that were built one by one.

use std::net::Ipv6Addr;

use proptest::prelude::*;
use sekisho_control::Place;
use sekisho_framelink::{GsoType, HEADER_LEN, NetHdr};
use smoltcp::wire::EthernetAddress;

use super::*;
use crate::gate::admit::Origin;
use crate::gate::fixture::packets_v6::tcp;
use crate::gate::fixture::{GUEST_V6, MTU, SERVER_V6, at, gatekeeper_v6, tunnelled};
use crate::gate::packet::Offload;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

fn noise(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

struct Frames(Vec<Vec<u8>>);

impl Deliver for Frames {
    fn deliver(&mut self, prefix: &[u8], payload: &[&[u8]]) {
        self.0.push([prefix, &payload.concat()].concat());
    }
}

proptest! {
    /// Cut on the way out, joined on the way in: the same bytes.
    #[test]
    fn a_super_packet_of_ipv6_is_cut_and_joined_again(
        len in 1usize..60_000,
        mss in 536u16..1360,
        sequence in any::<u32>(),
        options in prop::sample::select(vec![0usize, 12, 40]),
        push in any::<bool>(),
    ) {
        let payload = noise(len);
        let options = vec![1; options];
        let room = MTU - 60 - u16::try_from(options.len()).unwrap();
        let mss = mss.min(room);
        let flags = if push { ACK | PSH } else { ACK };
        let (from, to) = ((GUEST_V6, 4000), (SERVER_V6, 443));
        let whole = tcp(from, to, (sequence, 7), flags, &options, &payload);
        let packet = Packet::parse_v6(&whole, Offload::Tcp { mss }).unwrap();
        let remote = tunnelled(Place::Remote);
        let mut keeper = gatekeeper_v6();
        let admitted = keeper.admit(packet, Origin::Guest, &remote, at(1)).unwrap();
        let pieces: Vec<_> = payload.chunks(usize::from(mss)).collect();
        let segments: Vec<Vec<u8>> = Segments::new(&admitted, MTU)
            .map(|segment| {
                let (headers, payload) = segment.parts();
                [headers, payload].concat()
            })
            .collect();
        prop_assert_eq!(segments.len(), pieces.len());
        for (index, (segment, piece)) in segments.iter().zip(&pieces).enumerate() {
            let offset = u32::try_from(index * usize::from(mss)).unwrap();
            let flags = if index + 1 == pieces.len() { flags } else { ACK };
            let place = (sequence.wrapping_add(offset), 7);
            prop_assert_eq!(segment, &tcp(from, to, place, flags, &options, piece));
        }

        // The same from the server, as it comes out of the tunnel.
        let came: Vec<Vec<u8>> = pieces
            .iter()
            .enumerate()
            .map(|(index, piece)| {
                let offset = u32::try_from(index * usize::from(mss)).unwrap();
                tcp(to, from, (sequence.wrapping_add(offset), 7), ACK, &options, piece)
            })
            .collect();
        let ethernet = Ethernet {
            guest: EthernetAddress([2; 6]),
            gate: EthernetAddress([4; 6]),
        };
        let mut coalescer: Coalescer<'_, Ipv6Addr> = Coalescer::new(ethernet, MTU);
        let mut frames = Frames(Vec::new());
        for bytes in &came {
            let packet = Packet::parse_v6(bytes, Offload::None).unwrap();
            let admitted = keeper.admit(packet, Origin::Tunnel, &remote, at(1)).unwrap();
            coalescer.offer(&admitted, &mut frames);
        }
        coalescer.flush(&mut frames);
        let headers = 60 + options.len();
        let mut joined = Vec::new();
        for frame in &frames.0 {
            let (header, frame) = frame.split_first_chunk::<HEADER_LEN>().unwrap();
            let header = NetHdr::parse(header);
            prop_assert_eq!(&frame[12..14], &[0x86, 0xdd]);
            let packet = &frame[14..];
            let told = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            prop_assert_eq!(told, packet.len() - 40);
            if header.gso() == Some(GsoType::TcpV6) {
                prop_assert_eq!((header.csum_start, header.csum_offset), (54, 16));
                prop_assert_eq!(usize::from(header.hdr_len), 14 + headers);
                prop_assert_eq!(header.gso_size, mss);
            } else {
                prop_assert_eq!(header, NetHdr::default());
            }
            joined.extend_from_slice(&packet[headers..]);
        }
        prop_assert_eq!(joined, payload);
        prop_assert!(frames.0.len() <= came.len().div_ceil(40) + 1);
    }
}

/// Segments whose headers differ in what a super-frame has only once are not joined.
#[test]
fn segments_of_other_traffic_classes_and_labels_are_not_joined() {
    let remote = tunnelled(Place::Remote);
    let ethernet = Ethernet {
        guest: EthernetAddress([2; 6]),
        gate: EthernetAddress([4; 6]),
    };
    // Traffic class, flow label, hop limit; and none, as the control.
    for (at_byte, frames_wanted) in [(Some(1), 2), (Some(3), 2), (Some(7), 2), (None, 1)] {
        let ends = ((SERVER_V6, 443), (GUEST_V6, 4000));
        let first = tcp(ends.0, ends.1, (1, 7), ACK, &[], &[1; 1000]);
        let mut second = tcp(ends.0, ends.1, (1001, 7), ACK, &[], &[1; 1000]);
        if let Some(byte) = at_byte {
            second[byte] ^= 0x10;
        }
        let mut keeper = gatekeeper_v6();
        let mut coalescer: Coalescer<'_, Ipv6Addr> = Coalescer::new(ethernet, MTU);
        let mut frames = Frames(Vec::new());
        for bytes in [&first, &second] {
            let packet = Packet::parse_v6(bytes, Offload::None).unwrap();
            let admitted = keeper
                .admit(packet, Origin::Tunnel, &remote, at(1))
                .unwrap();
            coalescer.offer(&admitted, &mut frames);
        }
        coalescer.flush(&mut frames);
        assert_eq!(frames.0.len(), frames_wanted, "{at_byte:?}");
    }
}
