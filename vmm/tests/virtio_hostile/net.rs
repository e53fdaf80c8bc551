//! Attacks on the network card: frames, headers, commands; and its link that fills, ends and comes
//! back.

use sekisho_framelink::{FrameLink as _, GsoType, NetHdr, Rules, Segment, SeqPacket};
use virtio_drivers::transport::Transport as _;

use crate::TURNS;
use crate::card::{
    Bench, CSUM, CTRL_VQ, GUEST_CSUM, GUEST_TSO4, HEADER, HOST_TSO4, MRG_RXBUF, STATUS, message,
};
use crate::virtio_fixture::card::{ETHERNET_MTU, MAC, MTU, plug_gate};
use crate::virtio_fixture::hal::take_pages;
use crate::virtio_fixture::ring::{EVENT_IDX, NEXT, WRITE, get, get_u16, put};
use crate::virtio_fixture::{settle, turn_until};

#[test]
fn t36_the_mac_address_cannot_be_changed() {
    let mut bench = Bench::new(CTRL_VQ);
    let command = take_pages(1);
    // VIRTIO_NET_CTRL_MAC_ADDR_SET, which was not offered.
    put(command, &[1, 1, 2, 0, 0, 0, 0, 1]);
    put(command + 64, &[0xee]);
    bench
        .control
        .offer(0, &[(command, 8, 0), (command + 64, 1, WRITE)]);
    bench.driver.kick(&bench.control);
    settle(&mut bench.worker, TURNS);
    assert_eq!(bench.control.take_used(), Some((0, 1)));
    assert_eq!(get(command + 64, 1), [1]);
    bench
        .driver
        .transport
        .write_config_space(0, [9_u8; 6])
        .unwrap();
    let mac: [u8; 6] = bench.driver.transport.read_config_space(0).unwrap();
    assert_eq!(mac, MAC);
    // A frame from another address passes: whose it is, is the gate's business.
    bench.assert_alive();
}

#[test]
fn t38_frames_of_any_protocol_change_nothing_in_the_device() {
    let mut bench = Bench::new(CSUM);
    for kind in [0x0806_u16, 0x0800, 0x86dd, 0x8100, 0x0000, 0xffff] {
        let mut frame = vec![0xff; 64];
        frame[12..14].copy_from_slice(&kind.to_be_bytes());
        bench.send(&message(NetHdr::default(), &frame));
        assert_eq!(bench.at_gate(), [frame]);
    }
    bench.assert_alive();
}

#[test]
fn t39_frames_too_short_or_too_long_are_completed_and_counted() {
    let mut bench = Bench::new(CSUM | HOST_TSO4);
    // The gate tells the guest what is longer than the MTU; what no Ethernet carries ends here.
    let longest = usize::from(ETHERNET_MTU) + 14;
    let mut dropped = 0;
    for length in [0, 1, 13, longest + 1, 65_535, 65_538, 65_539] {
        bench.send(&message(NetHdr::default(), &vec![1; length]));
        dropped += 1;
        assert_eq!(bench.counters().sent_malformed, dropped, "{length}");
        assert_eq!(bench.at_gate().len(), 0);
    }
    for length in [0, 1, 11] {
        bench.send(&vec![0; length.max(1)]);
        dropped += 1;
        assert_eq!(bench.counters().sent_malformed, dropped);
    }
    for length in [14, longest] {
        bench.send(&message(NetHdr::default(), &vec![2; length]));
        assert_eq!(bench.at_gate(), [vec![2; length]]);
    }
    bench.assert_alive();
}

#[test]
fn t40_headers_that_lie_are_dropped_and_the_device_lives() {
    let tso = NetHdr::partial_csum(34, 16);
    let super_frame = |size, hdr_len| tso.with_gso(GsoType::TcpV4, size, hdr_len);
    let good = super_frame(1360, 54);
    let bad = [
        (
            "unknown gso_type",
            NetHdr {
                gso_type: 99,
                ..good
            },
        ),
        (
            "old UFO",
            NetHdr {
                gso_type: 3,
                ..good
            },
        ),
        (
            "ECN bit",
            NetHdr {
                gso_type: 0x81,
                ..good
            },
        ),
        (
            "TSO6 not negotiated",
            NetHdr {
                gso_type: 4,
                ..good
            },
        ),
        ("gso_size 0", super_frame(0, 54)),
        ("gso_size 65535", super_frame(65_535, 54)),
        ("hdr_len past the frame", super_frame(1360, 60_000)),
        (
            "csum_start past the end",
            NetHdr {
                csum_start: 65_535,
                ..good
            },
        ),
        (
            "csum_offset past the end",
            NetHdr {
                csum_offset: 65_535,
                ..good
            },
        ),
        (
            "unknown flag",
            NetHdr {
                flags: 0x80,
                ..good
            },
        ),
        ("segments without checksum", NetHdr { flags: 0, ..good }),
    ];
    let frame = vec![3; 9000];
    let mut bench = Bench::new(CSUM | HOST_TSO4);
    for (number, (name, header)) in (1..).zip(bad) {
        bench.send(&message(header, &frame));
        assert_eq!(bench.counters().sent_malformed, number, "{name}");
        assert_eq!(bench.at_gate().len(), 0, "{name}");
    }
    bench.send(&message(good, &frame));
    assert_eq!(bench.at_gate(), std::slice::from_ref(&frame));
    bench.assert_alive();

    // Nothing negotiated: no flag passes.
    let mut plain = Bench::new(0);
    plain.send(&message(NetHdr::partial_csum(34, 16), &[4; 100]));
    plain.send(&message(good, &frame));
    assert_eq!(plain.counters().sent_malformed, 2);
    assert_eq!(plain.at_gate().len(), 0);
    plain.assert_alive();
}

#[test]
fn a_full_link_stops_the_queue_and_an_empty_one_resumes_it() {
    let mut bench = Bench::new(CSUM | HOST_TSO4 | EVENT_IDX);
    let frame = vec![7; 60_000];
    let header = NetHdr::partial_csum(34, 16).with_gso(GsoType::TcpV4, 1360, 54);
    let buffer = take_pages(17);
    put(buffer, &message(header, &frame));
    let length = u32::try_from(HEADER + frame.len()).unwrap();
    for index in 0..64 {
        bench.transmit.offer(index, &[(buffer, length, 0)]);
    }
    bench.kick();
    let stalled = bench.transmit.used_index();
    assert!((1..64).contains(&stalled), "{stalled} frames went");
    assert_eq!(bench.counters().stalls, 1);
    let mut received = 0;
    let Bench {
        worker,
        gate,
        arena,
        transmit,
        ..
    } = &mut bench;
    turn_until(worker, || {
        received += gate.recv_batch(arena).unwrap();
        received == 64 && transmit.used_index() == 64
    });
    assert!(arena.frames().all(|got| got.frame == frame));
}

#[test]
fn the_end_of_the_link_is_a_pulled_cable_and_a_fresh_one_plugs_it_in() {
    let mut bench = Bench::new(STATUS);
    assert_eq!(bench.driver.transport.device_u16(6), 1);
    let generation = bench.driver.transport.read_config_generation();
    let before = bench.machine.platform.signals(0x40);
    let (_, nobody) = sekisho_framelink::pair().unwrap();
    bench.gate = SeqPacket::from_fd(nobody, Rules::plain(MTU)).unwrap();
    let Bench { worker, driver, .. } = &mut bench;
    turn_until(worker, || driver.transport.device_u16(6) == 0);
    assert_eq!(bench.machine.platform.signals(0x40), before + 1);
    assert_ne!(bench.driver.transport.read_config_generation(), generation);

    // Frames are dropped and given back.
    bench.send(&message(NetHdr::default(), &[1; 60]));
    assert_eq!(bench.counters().sent_link_down, 1);

    bench.gate = plug_gate(&bench.device, Rules::plain(MTU));
    settle(&mut bench.worker, TURNS);
    assert_eq!(bench.driver.transport.device_u16(6), 1);
    assert_eq!(bench.machine.platform.signals(0x40), before + 2);
    bench.assert_alive();
}

#[test]
fn super_frames_are_spread_over_mergeable_buffers() {
    let mut bench = Bench::new(GUEST_CSUM | GUEST_TSO4 | MRG_RXBUF);
    let frame: Vec<u8> = (0..40_000_u32).map(|n| n as u8).collect();
    let header = NetHdr::partial_csum(34, 16)
        .with_gso(GsoType::TcpV4, 1360, 54)
        .emit();
    let segments = [Segment::from(&header[..]), Segment::from(&frame[..])];
    let buffers: Vec<u64> = (0..12).map(|_| take_pages(1)).collect();
    for (index, buffer) in (0..5).zip(&buffers) {
        bench.receive.offer(index, &[(*buffer, 4096, WRITE)]);
    }
    assert_eq!(bench.gate.send_batch(&[&segments]).unwrap(), 1);
    bench.kick_receive();
    // Not enough room: nothing is given until there is.
    assert_eq!(bench.receive.used_index(), 0);
    for (index, buffer) in (5..).zip(&buffers[5..]) {
        bench.receive.offer(index, &[(*buffer, 4096, WRITE)]);
    }
    bench.kick_receive();
    assert_eq!(bench.receive.used_index(), 10);
    assert_eq!(get_u16(buffers[0] + 10), 10);
    let mut joined = Vec::new();
    for (index, buffer) in (0..10).zip(&buffers) {
        let (head, written) = bench.receive.take_used().unwrap();
        assert_eq!(head, index);
        joined.extend(get(*buffer, written as usize));
    }
    assert_eq!(joined[HEADER..], frame);
    assert!(bench.machine.platform.signals(0x41) >= 1);
}

#[test]
fn a_frame_that_no_buffer_can_hold_is_dropped() {
    let mut bench = Bench::new(GUEST_CSUM | GUEST_TSO4);
    let buffer = take_pages(1);
    bench.receive.offer(0, &[(buffer, 100, WRITE)]);
    let header = NetHdr::default().emit();
    for length in [500, 60] {
        let frame = vec![9; length];
        let segments = [Segment::from(&header[..]), Segment::from(&frame[..])];
        assert_eq!(bench.gate.send_batch(&[&segments]).unwrap(), 1);
    }
    bench.kick_receive();
    assert_eq!(bench.receive.take_used(), Some((0, 72)));
    assert_eq!(bench.counters().received_no_room, 1);
}

/// A driver that kicks once for more commands than one turn takes.
#[test]
fn a_pile_of_commands_is_served_to_its_end() {
    let mut bench = Bench::new(CTRL_VQ);
    let command = take_pages(1);
    // VIRTIO_NET_CTRL_RX_PROMISC, off.
    put(command, &[0, 0, 0]);
    bench.control.set_descriptor(0, (command, 3, NEXT, 1));
    bench.control.set_descriptor(1, (command + 64, 1, WRITE, 0));
    for _ in 0..32 {
        bench.control.offer_head(0);
    }
    bench.driver.kick(&bench.control);
    settle(&mut bench.worker, TURNS);
    assert_eq!(bench.control.used_index(), 32);
}
