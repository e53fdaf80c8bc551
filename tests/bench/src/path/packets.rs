//! What a packet costs: super-frames into the frame link of one gate, over a wire, out of the frame
//! link of the other. No TCP, no tap: all that is counted is what the two gates do, from the frame
//! link to the wire and back.
//!
//! The gates are pinned, the one that seals to core 0 and the one that opens to core 1. A veth
//! does the receiver's part of the network stack on the sender's core, so the sender's figure has
//! that in it. So many super-frames are on their way at most that none is lost.

use std::{
    net::Ipv4Addr,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Pid,
    thread::{CpuSet, sched_setaffinity},
};
use sekisho_framelink::{
    FrameArena, FrameLink, GsoType, HEADER_LEN, NetHdr, Offloads, Rules, Segment, SeqPacket,
};
use smoltcp::wire::{
    ArpHardware, ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame,
    EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, TcpPacket,
};

use super::cipher;
use super::gates::{Gate, Gates, Guest, Inner};
use super::world::{MTU, PORT, World};
use crate::{
    BenchError, Options,
    report::{Bar, Op, Report, Table, median},
};

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const TCP: usize = 20;
/// Payload of one full packet.
const MSS: usize = MTU as usize - IPV4 - TCP;
/// Packets of one super-frame, as of `UDP_SEGMENT`'s 64 KiB: what a Linux guest sends is as long.
const SEGMENTS: usize = 45;
/// Super-frames on their way at most. Their datagrams fit the receiving socket's buffer also where
/// the kernel cut them and keeps each in a page of its own.
const WINDOW: usize = 8;
/// So few are left when the next ones are sent: several at a time, as a guest's queue gives them.
const REFILL: usize = WINDOW / 2;
/// How long one measurement sends.
const SEND_FOR: Duration = Duration::from_millis(1500);
/// Nothing came for so long: what was on its way is lost.
const LOST: Duration = Duration::from_millis(200);
/// The guest's port.
const SOURCE: u16 = 40_000;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// Most nanoseconds of a processor to seal and send a full packet where the wire takes batches whole.
const SEAL: f64 = 1600.0;
/// The same where the kernel cuts them.
const SEAL_CUT: f64 = 2600.0;
/// The same to receive and open it, on either wire.
const OPEN: f64 = 1800.0;

/// What one measurement showed.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// Processor time of the gate that seals, in nanoseconds a packet.
    sealed: f64,
    /// The same of the gate that opens.
    opened: f64,
    /// Inner bits a second.
    rate: f64,
    /// Packets that did not arrive, of those sent.
    lost: f64,
}

/// Measures.
pub fn run(options: Options) -> Result<Report, BenchError> {
    let world = World::new()?;
    let gates = Gates::start(&world, Guest::Bare)?;
    for (gate, core) in [(&gates.near, 0), (&gates.far, 1)] {
        pin(gate, core)?;
    }
    let mut report = Report::of("packet");
    let mut pump = Pump::new(gates)?;
    pump.open_flow()?;
    let mut costs: [(bool, Vec<Cost>); 2] = [(true, Vec::new()), (false, Vec::new())];
    let mut ciphers = Vec::new();
    for run in 0..options.runs {
        eprintln!(
            "packet: a packet's cost, run {} of {}",
            run + 1,
            options.runs
        );
        ciphers.push(cipher::seal()?);
        for (offload, costs) in &mut costs {
            world.offload(*offload)?;
            costs.push(pump.measure()?);
        }
    }
    let mut table = Table::new(
        format!(
            "packet: what a {MTU}-byte packet costs from frame link to wire and back, gates on \
             cores 0 and 1, medians of {} runs",
            options.runs
        ),
        &[
            "wire",
            "CPU ns to seal and send",
            "in ciphers",
            "to receive and open",
            "in ciphers",
            "Gbit/s",
            "lost %",
        ],
    );
    let cipher = median(ciphers);
    table.row(
        ["the cipher alone", &format!("{cipher:.0}"), "1.00"]
            .map(str::to_owned)
            .into_iter()
            .chain(std::iter::repeat_n("-".to_owned(), 4)),
    );
    for (offload, costs) in &costs {
        let of = |value: fn(&Cost) -> f64| median(costs.iter().map(value).collect());
        let (wire, seal) = if *offload {
            ("takes batches", SEAL)
        } else {
            ("kernel cuts batches", SEAL_CUT)
        };
        let (sealed, opened) = (of(|cost| cost.sealed), of(|cost| cost.opened));
        table.row([
            wire.to_owned(),
            format!("{sealed:.0}"),
            format!("{:.2}", sealed / cipher),
            format!("{opened:.0}"),
            format!("{:.2}", opened / cipher),
            format!("{:.2}", of(|cost| cost.rate) * 1e-9),
            format!("{:.1}", of(|cost| cost.lost) * 100.0),
        ]);
        for (what, value, limit) in [("sent", sealed, seal), ("received", opened, OPEN)] {
            let name = format!("packet {what}, {wire}: CPU ns");
            report.bars.push(Bar::new(name, value, Op::AtMost, limit));
        }
    }
    report.tables.push(table);
    Ok(report)
}

fn pin(gate: &Gate, core: usize) -> Result<(), BenchError> {
    let mut cores = CpuSet::new();
    cores.set(core);
    let id = i32::try_from(gate.process.id())
        .ok()
        .and_then(Pid::from_raw);
    sched_setaffinity(id, &cores).map_err(BenchError::system("pin a gate to a core"))
}

/// Plays both guests.
struct Pump {
    gates: Gates,
    near: SeqPacket,
    far: SeqPacket,
    arena: FrameArena,
    /// Ethernet, IPv4 and TCP header and the payload of a full super-frame.
    frame: Vec<u8>,
    sequence: u32,
}

impl Pump {
    fn new(mut gates: Gates) -> Result<Self, BenchError> {
        let near = end(gates.near.link.take())?;
        let far = end(gates.far.link.take())?;
        let mut pump = Self {
            gates,
            near,
            far,
            arena: FrameArena::new(WINDOW),
            frame: Vec::new(),
            sequence: 1,
        };
        let guest = pump.gates.near.inner;
        let gate = pump.ask_gate(guest)?;
        pump.frame = frame(guest, gate, pump.gates.far.inner.address);
        Ok(pump)
    }

    /// The gate's MAC address, by ARP.
    fn ask_gate(&mut self, guest: Inner) -> Result<EthernetAddress, BenchError> {
        let mut frame = [0; ETHERNET + 28];
        let source_hardware_addr = mac(guest);
        EthernetRepr {
            src_addr: source_hardware_addr,
            dst_addr: EthernetAddress::BROADCAST,
            ethertype: EthernetProtocol::Arp,
        }
        .emit(&mut EthernetFrame::new_unchecked(&mut frame));
        ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr,
            source_protocol_addr: guest.address,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: guest.router,
        }
        .emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET..]));
        send(&mut self.near, NetHdr::default(), &frame)?;
        for _ in 0..16 {
            wait(&self.near, PollFlags::IN, Duration::from_secs(1))?;
            self.near.recv_batch(&mut self.arena)?;
            for received in self.arena.frames() {
                let frame = EthernetFrame::new_unchecked(received.frame);
                let arp = ArpPacket::new_checked(frame.payload());
                let hardware = arp.map(|arp| (arp.operation(), arp.hardware_type()));
                if frame.ethertype() == EthernetProtocol::Arp
                    && hardware == Ok((ArpOperation::Reply, ArpHardware::Ethernet))
                {
                    return Ok(frame.src_addr());
                }
            }
        }
        Err(self.gates.near.process.failed("it does not answer ARP"))
    }

    /// The first packet of the conversation, without which no other is admitted.
    fn open_flow(&mut self) -> Result<(), BenchError> {
        let mut frame = self.frame[..ETHERNET + IPV4 + TCP].to_vec();
        finish(&mut frame, 0, SYN);
        send(&mut self.near, partial(), &frame)?;
        wait(&self.far, PollFlags::IN, Duration::from_secs(5))?;
        self.far.recv_batch(&mut self.arena)?;
        if self.arena.is_empty() {
            return Err(self
                .gates
                .far
                .process
                .failed("the first packet does not arrive"));
        }
        Ok(())
    }

    fn measure(&mut self) -> Result<Cost, BenchError> {
        let before = self.cpu()?;
        let start = Instant::now();
        let (mut sent, mut arrived) = (0_usize, 0_usize);
        let mut on_way = 0_usize;
        let mut filling = true;
        let mut heard = start;
        loop {
            let sending = start.elapsed() < SEND_FOR;
            filling = on_way < if filling { WINDOW } else { REFILL } * MSS * SEGMENTS;
            if sending && filling && self.send_super()? {
                sent += SEGMENTS;
                on_way += SEGMENTS * MSS;
                continue;
            }
            self.far.recv_batch(&mut self.arena)?;
            let payload: usize = self
                .arena
                .frames()
                .map(|frame| frame.frame.len().saturating_sub(ETHERNET + IPV4 + TCP))
                .sum();
            if payload > 0 {
                heard = Instant::now();
                arrived += payload / MSS;
                on_way = on_way.saturating_sub(payload);
                continue;
            }
            if heard.elapsed() > LOST || (!sending && on_way == 0) {
                if !sending {
                    break;
                }
                (on_way, heard) = (0, Instant::now());
            }
            wait(&self.far, PollFlags::IN, Duration::from_millis(10))?;
        }
        let time = start.elapsed();
        let after = self.cpu()?;
        let nanos = |before: Duration, after: Duration, packets: usize| {
            after.saturating_sub(before).as_secs_f64() * 1e9 / count(packets)
        };
        Ok(Cost {
            sealed: nanos(before.0, after.0, sent),
            opened: nanos(before.1, after.1, arrived),
            rate: count(arrived * usize::from(MTU) * 8) / time.as_secs_f64(),
            lost: 1.0 - count(arrived) / count(sent),
        })
    }

    fn cpu(&self) -> Result<(Duration, Duration), BenchError> {
        let gates = (&self.gates.near.process, &self.gates.far.process);
        Ok((gates.0.cpu_time()?, gates.1.cpu_time()?))
    }

    fn send_super(&mut self) -> Result<bool, BenchError> {
        let sequence = self.sequence;
        finish(&mut self.frame, sequence, ACK | PSH);
        let header = partial().with_gso(
            GsoType::TcpV4,
            u16::try_from(MSS).unwrap_or(u16::MAX),
            u16::try_from(ETHERNET + IPV4 + TCP).unwrap_or(u16::MAX),
        );
        let header = header.emit();
        let pieces = [Segment::from(&header[..]), Segment::from(&self.frame[..])];
        let sent = self.near.send_batch(&[&pieces])? == 1;
        if sent {
            let step = u32::try_from(MSS * SEGMENTS).unwrap_or(0);
            self.sequence = sequence.wrapping_add(step);
        }
        Ok(sent)
    }
}

fn end(link: Option<OwnedFd>) -> Result<SeqPacket, BenchError> {
    let link = link.ok_or_else(|| BenchError::Missing("a gate without its link".to_owned()))?;
    let rules = Rules {
        offloads: Offloads {
            csum: true,
            tso4: true,
            tso6: false,
            uso: false,
        },
        mtu: MTU,
    };
    Ok(SeqPacket::from_fd(link, rules)?)
}

fn mac(guest: Inner) -> EthernetAddress {
    guest.mac.parse().unwrap_or(EthernetAddress([0; 6]))
}

fn partial() -> NetHdr {
    NetHdr::partial_csum(34, 16)
}

/// The longest frame of the conversation, but for what [`finish`] fills in.
fn frame(guest: Inner, gate: EthernetAddress, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0x5a; ETHERNET + IPV4 + TCP + MSS * SEGMENTS];
    frame[..ETHERNET + IPV4 + TCP].fill(0);
    EthernetRepr {
        src_addr: mac(guest),
        dst_addr: gate,
        ethertype: EthernetProtocol::Ipv4,
    }
    .emit(&mut EthernetFrame::new_unchecked(&mut frame));
    let mut ip = Ipv4Packet::new_unchecked(&mut frame[ETHERNET..]);
    ip.set_version(4);
    ip.set_header_len(20);
    ip.set_dont_frag(true);
    ip.set_hop_limit(64);
    ip.set_next_header(IpProtocol::Tcp);
    ip.set_src_addr(guest.address);
    ip.set_dst_addr(target);
    let mut tcp = TcpPacket::new_unchecked(&mut frame[ETHERNET + IPV4..]);
    tcp.set_src_port(SOURCE);
    tcp.set_dst_port(PORT);
    tcp.set_header_len(20);
    tcp.set_window_len(u16::MAX);
    frame
}

/// Lengths, sequence number, flags and the sum of the pseudo header, as a guest leaves them.
fn finish(frame: &mut [u8], sequence: u32, flags: u8) {
    let total = frame.len() - ETHERNET;
    let mut ip = Ipv4Packet::new_unchecked(&mut frame[ETHERNET..]);
    ip.set_total_len(u16::try_from(total).unwrap_or(u16::MAX));
    ip.fill_checksum();
    let (source, target) = (ip.src_addr(), ip.dst_addr());
    let pseudo = smoltcp::wire::checksum::pseudo_header_v4(
        &source,
        &target,
        IpProtocol::Tcp,
        u32::try_from(total - IPV4).unwrap_or(u32::MAX),
    );
    let tcp = &mut frame[ETHERNET + IPV4..];
    tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
    tcp[13] = flags;
    tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
}

fn send(link: &mut SeqPacket, header: NetHdr, frame: &[u8]) -> Result<(), BenchError> {
    let header = header.emit();
    debug_assert_eq!(header.len(), HEADER_LEN);
    let pieces = [Segment::from(&header[..]), Segment::from(frame)];
    link.send_batch(&[&pieces])?;
    Ok(())
}

fn wait(link: &SeqPacket, flags: PollFlags, patience: Duration) -> Result<(), BenchError> {
    let timeout = Timespec::try_from(patience).unwrap_or_default();
    match poll(&mut [PollFd::new(&link.as_fd(), flags)], Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(BenchError::system("wait for a frame link")(error)),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "packets of a second, far below 2^52"
)]
pub(super) fn count(packets: usize) -> f64 {
    packets as f64
}
