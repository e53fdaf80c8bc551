//! Segmentation against a reference, coalescing as its inverse.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the numbers of a test are small"
)]

use std::os::fd::AsFd as _;

use proptest::prelude::*;
use sekisho_control::{PathId, Place};
use sekisho_framelink::{GsoType, HEADER_LEN, NetHdr};
use smoltcp::wire::{EthernetAddress, Ipv4Packet, TcpPacket};

use super::*;
use crate::gate::admit::{Gatekeeper, Origin};
use crate::gate::fixture::{GUEST, MTU, SERVER, at, gatekeeper, tcp, tunnelled};
use crate::gate::packet::Offload;
use crate::gate::situation::Reason;
use crate::tunnel::IpFd;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const FIN: u8 = 0x01;
const CWR: u8 = 0x80;

fn cut(bytes: &[u8], offload: Offload) -> Vec<Vec<u8>> {
    let packet = Packet::parse(bytes, offload).unwrap();
    let mut keeper = gatekeeper();
    let admitted = keeper
        .admit(packet, Origin::Guest, &tunnelled(Place::Remote), at(1))
        .unwrap();
    Segments::new(&admitted, MTU)
        .map(|segment| {
            let (headers, payload) = segment.parts();
            [headers, payload].concat()
        })
        .collect()
}

fn noise(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 256) as u8).collect()
}

proptest! {
    /// Against packets that were built one by one.
    #[test]
    fn segments_are_what_a_stack_without_offload_would_send(
        len in 1usize..60_000,
        mss in 536u16..1380,
        sequence in any::<u32>(),
        flags in prop::sample::select(vec![ACK, ACK | PSH, ACK | FIN, ACK | CWR | PSH]),
        options in prop::sample::select(vec![0usize, 12, 40]),
    ) {
        let payload = noise(len);
        let options = vec![1; options];
        let mss = mss.min(MTU - 40 - options.len() as u16);
        let (from, to) = ((GUEST, 4000), (SERVER, 443));
        let whole = tcp(from, to, (sequence, 7), flags, &options, &payload);
        let segments = cut(&whole, Offload::Tcp { mss });
        let pieces: Vec<_> = payload.chunks(usize::from(mss)).collect();
        prop_assert_eq!(segments.len(), pieces.len());
        let last = pieces.len() - 1;
        for (index, (segment, piece)) in segments.iter().zip(&pieces).enumerate() {
            let offset = (index * usize::from(mss)) as u32;
            let mut flags = flags;
            if index != last {
                flags &= !(PSH | FIN);
            }
            if index != 0 {
                flags &= !CWR;
            }
            let place = (sequence.wrapping_add(offset), 7);
            let mut expected = tcp(from, to, place, flags, &options, piece);
            let mut ip = Ipv4Packet::new_unchecked(&mut expected);
            ip.set_ident(0x1234u16.wrapping_add(index as u16));
            ip.fill_checksum();
            prop_assert_eq!(segment, &expected, "segment {}", index);
        }
    }

    /// Whatever is cut and opened again arrives as it was sent, in as few frames as possible.
    #[test]
    fn coalescing_undoes_segmentation(
        len in 1usize..120_000,
        mss in 536usize..1380,
        push in any::<bool>(),
        swap in prop::option::of(0usize..20),
    ) {
        let payload = noise(len);
        let mut sequence = 1u32;
        let mut packets = Vec::new();
        let pieces = payload.chunks(mss).count();
        for (index, piece) in payload.chunks(mss).enumerate() {
            let flags = if push && index == pieces - 1 { ACK | PSH } else { ACK };
            packets.push(tcp((SERVER, 443), (GUEST, 4000), (sequence, 9), flags, &[], piece));
            sequence += piece.len() as u32;
        }
        let swapped = swap.filter(|&at| at + 1 < packets.len());
        if let Some(at) = swapped {
            packets.swap(at, at + 1);
        }
        let frames = coalesce(&packets);
        let mut assembled = vec![0; len];
        let mut covered = 0;
        for (header, frame) in &frames {
            let bytes = completed(header, frame);
            let segment = TcpPacket::new_checked(&bytes[20..]).unwrap();
            let start = (segment.seq_number().0 - 1) as usize;
            let data = segment.payload();
            assembled[start..start + data.len()].copy_from_slice(data);
            covered += data.len();
            prop_assert!(bytes.len() <= 65_535);
            prop_assert_eq!(header.gso() == Some(GsoType::TcpV4), data.len() > mss);
        }
        prop_assert_eq!(covered, len);
        prop_assert_eq!(assembled, payload);
        if swapped.is_none() {
            let per_frame = (65_535 - 40) / mss;
            prop_assert!(frames.len() <= pieces.div_ceil(per_frame.min(64)));
        }
    }
}

#[derive(Default)]
struct Frames(Vec<(NetHdr, Vec<u8>)>);

impl Deliver for Frames {
    fn deliver(&mut self, prefix: &[u8], payload: &[&[u8]]) {
        let (header, start) = prefix.split_first_chunk::<HEADER_LEN>().unwrap();
        let mut frame = start.to_vec();
        for piece in payload {
            frame.extend_from_slice(piece);
        }
        self.0.push((NetHdr::parse(header), frame));
    }
}

fn open_flow(keeper: &mut Gatekeeper) {
    let bytes = tcp((GUEST, 4000), (SERVER, 443), (1, 1), ACK, &[], b"");
    let packet = Packet::parse(&bytes, Offload::None).unwrap();
    keeper
        .admit(packet, Origin::Guest, &tunnelled(Place::Remote), at(1))
        .unwrap();
}

fn coalesce(packets: &[Vec<u8>]) -> Vec<(NetHdr, Vec<u8>)> {
    let mut keeper = gatekeeper();
    open_flow(&mut keeper);
    let ethernet = Ethernet {
        guest: EthernetAddress([2, 0, 0, 0, 0, 1]),
        gate: EthernetAddress([2, 0, 0, 0, 0, 2]),
    };
    let mut coalescer = Coalescer::new(ethernet, MTU);
    let mut frames = Frames::default();
    for bytes in packets {
        let packet = Packet::parse(bytes, Offload::None).unwrap();
        let admitted = keeper
            .admit(packet, Origin::Tunnel, &tunnelled(Place::Remote), at(1))
            .unwrap();
        coalescer.offer(&admitted, &mut frames);
    }
    coalescer.flush(&mut frames);
    frames.0
}

/// The packet in a frame, its checksum completed as the guest would, both checksums checked.
fn completed(header: &NetHdr, frame: &[u8]) -> Vec<u8> {
    let mut bytes = frame[14..].to_vec();
    assert!(
        Ipv4Packet::new_checked(&bytes[..])
            .unwrap()
            .verify_checksum()
    );
    if header.needs_csum() {
        assert_eq!((header.csum_start, header.csum_offset), (34, 16));
        let sum = !smoltcp::wire::checksum::data(&bytes[20..]);
        bytes[36..38].copy_from_slice(&sum.to_be_bytes());
    }
    let segment = TcpPacket::new_checked(&bytes[20..]).unwrap();
    assert!(segment.verify_checksum(&SERVER.into(), &GUEST.into()));
    bytes
}

/// `MSS` option with this value, padded to four bytes by itself.
fn mss_option(mss: u16) -> [u8; 4] {
    let [high, low] = mss.to_be_bytes();
    [2, 4, high, low]
}

#[test]
fn the_mss_is_clamped_both_ways_and_only_down() {
    for (offered, seen) in [(1460, 1380), (1380, 1380), (536, 536)] {
        for shift in [0, 1] {
            // An option at an odd offset: NOP first, and three behind.
            let mut options = vec![1; shift];
            options.extend_from_slice(&mss_option(offered));
            options.resize(if shift == 0 { 4 } else { 8 }, 1);
            let syn = tcp((GUEST, 4000), (SERVER, 443), (1, 0), 0x02, &options, b"");
            let out = cut(&syn, Offload::None).remove(0);
            let at = 40 + shift + 2;
            assert_eq!(out[at..at + 2], u16::to_be_bytes(seen));
            let segment = TcpPacket::new_checked(&out[20..]).unwrap();
            assert!(segment.verify_checksum(&GUEST.into(), &SERVER.into()));

            let answer = tcp((SERVER, 443), (GUEST, 4000), (1, 2), 0x12, &options, b"");
            let (header, frame) = coalesce(&[answer]).remove(0);
            let bytes = completed(&header, &frame);
            assert_eq!(bytes[at..at + 2], u16::to_be_bytes(seen));
        }
    }
}

#[test]
fn a_segment_with_a_broken_checksum_is_never_vouched_for() {
    let segment = |sequence| {
        tcp(
            (SERVER, 443),
            (GUEST, 4000),
            (sequence, 9),
            ACK,
            &[],
            &[7; 1000],
        )
    };
    let mut broken = segment(1001);
    broken[500] ^= 1;
    let frames = coalesce(&[segment(1), broken.clone(), segment(2001)]);
    assert_eq!(frames.len(), 3);
    assert_eq!(
        frames[1].1[14..],
        broken,
        "as it came, for the guest to judge"
    );
    assert!(!frames[1].0.needs_csum());
}

#[test]
fn other_flows_acknowledgements_and_options_do_not_join() {
    let base = |port, sequence, acknowledgement, options: &[u8]| {
        let place = (sequence, acknowledgement);
        tcp(
            (SERVER, 443),
            (GUEST, port),
            place,
            ACK,
            options,
            &[7; 1000],
        )
    };
    let mut keeper_flows = vec![
        base(4000, 1, 9, &[]),
        base(4000, 1001, 10, &[]),
        base(4000, 2001, 10, &[1; 4]),
        base(4000, 4001, 10, &[1; 4]),
    ];
    assert_eq!(coalesce(&keeper_flows).len(), 4);
    keeper_flows.truncate(1);
    keeper_flows.push(base(4000, 1001, 9, &[]));
    assert_eq!(coalesce(&keeper_flows).len(), 1);
}

/// The tunnel of an engine that is up: it leaves packets as they are.
fn ip_fd() -> IpFd {
    let mut tunnel = IpFd::default();
    tunnel.set_up(true);
    tunnel
}

fn admitted_syn(path: &mut Path, situation: Situation, tunnel: &mut IpFd) -> Result<(), SealError> {
    path.change(Leave::of(&situation));
    let bytes = tcp((GUEST, 4000), (SERVER, 443), (1, 0), 0x02, &[], b"");
    let packet = Packet::parse(&bytes, Offload::None).unwrap();
    let admitted = gatekeeper()
        .admit(packet, Origin::Guest, &situation, at(1))
        .unwrap();
    path.send(&admitted, tunnel, MTU, at(1))
}

#[test]
fn a_packet_in_clear_never_leaves_by_a_socket_for_sealed_ones() {
    let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut path = Path::default();
    let office = tunnelled(Place::Office);
    let mut buffer = [0; 2048];

    admitted_syn(&mut path, office, &mut ip_fd()).unwrap();
    assert_eq!(path.flush(ours.as_fd(), Outlet::Gateway), Ok(Flushed::All));
    assert_eq!(path.dropped, 1);
    assert!(theirs.recv(&mut buffer).is_err(), "a packet in clear left");

    // To the engine it goes, whole.
    admitted_syn(&mut path, office, &mut ip_fd()).unwrap();
    assert_eq!(path.flush(ours.as_fd(), Outlet::Engine), Ok(Flushed::All));
    let len = theirs.recv(&mut buffer).unwrap();
    let packet = Packet::parse(&buffer[..len], Offload::None).unwrap();
    assert_eq!(packet.flow().destination, SERVER);
}

#[test]
fn an_engine_that_is_not_up_takes_nothing() {
    let mut path = Path::default();
    let refused = admitted_syn(&mut path, tunnelled(Place::Remote), &mut IpFd::default());
    assert_eq!(refused, Err(SealError::NoSession));
}

#[test]
fn an_engine_with_a_full_queue_loses_nothing() {
    let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    ours.set_nonblocking(true).unwrap();
    // How many messages the kernel queues is its owner's choice; room for bytes is ours.
    socket2::SockRef::from(&ours)
        .set_send_buffer_size(8192)
        .unwrap();
    let (mut path, mut tunnel) = (Path::default(), ip_fd());
    let situation = tunnelled(Place::Remote);
    path.change(Leave::of(&situation));
    let payload = noise(45 * 1380);
    let whole = tcp((GUEST, 4000), (SERVER, 443), (1, 7), ACK, &[], &payload);
    let packet = Packet::parse(&whole, Offload::Tcp { mss: 1380 }).unwrap();
    let admitted = gatekeeper()
        .admit(packet, Origin::Guest, &situation, at(1))
        .unwrap();
    path.send(&admitted, &mut tunnel, MTU, at(1)).unwrap();

    let (mut came, mut buffer, mut full) = (Vec::new(), [0; 2048], 0);
    while !path.is_empty() {
        full += u32::from(path.flush(ours.as_fd(), Outlet::Engine) == Ok(Flushed::Full));
        while let Ok(len) = theirs.recv(&mut buffer) {
            came.extend_from_slice(&buffer[40..len]);
        }
    }
    assert!(full > 0, "the queue was never full: the test shows nothing");
    assert_eq!((came, path.dropped), (payload, 0));
}

/// T22: what the office admitted and a full socket held back does not leave over the cafe's wire.
#[test]
fn t22_what_waits_does_not_outlive_the_place_it_was_admitted_in() {
    let wait = |situation: &Situation| {
        let mut path = Path::default();
        admitted_syn(&mut path, *situation, &mut ip_fd()).unwrap();
        path
    };
    let office = tunnelled(Place::Office);
    let Situation::Tunnelled { kind, side, .. } = office else {
        panic!("there is a way out");
    };
    let other = |gateway, place| Situation::Tunnelled {
        gateway: GatewayId(gateway),
        path: PathId(2),
        kind,
        side,
        place,
    };
    let closed = Situation::Closed(Reason::Connecting);
    for after in [other(0, Place::Remote), other(1, Place::Office), closed] {
        let mut path = wait(&office);
        path.change(Leave::of(&after));
        assert!(path.is_empty(), "{after:?}");
        assert_eq!(path.dropped, 1);
    }
    // Another path under the same circumstances takes it along.
    let mut path = wait(&office);
    path.change(Leave::of(&other(0, Place::Office)));
    assert!(!path.is_empty());
}
