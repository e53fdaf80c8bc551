//! Admission alone: from the guest's frame to the verdict, in this thread, without any socket.
//!
//! The peer is admission itself under a policy of ten flows: the ratio says what five thousand flows
//! cost. It is measured for packets of known conversations, for first packets that make an entry in
//! the connection table, and for refused ones, which are looked up each time. And the table is
//! offered a million conversations, to see that it keeps to its memory and to whom it has.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use sekisho_control::{PathId, Place, Side, UplinkKind};
use sekisho_framelink::NetHdr;
use sekisho_netdomain::gate::admit::{Gatekeeper, Origin, Rule, TABLE_MEMORY, Terms};
use sekisho_netdomain::gate::device::Device;
use sekisho_netdomain::gate::edge::{Edge, Reply, Taken};
use sekisho_netdomain::gate::packet::{Offload, Packet};
use sekisho_netdomain::gate::situation::{GatewayId, Situation};
use sekisho_netdomain::moment::Moment;
use sekisho_policy::{Admission, Clock, Floor, PrivateKey, Trust, verify};

use crate::{
    BenchError, Options, part,
    report::{Bar, Op, Pairs, Report, Table},
};

/// Flows of the two policies, and what the many may cost (the project's bar).
const FEW: usize = 10;
const MANY: usize = 5000;
const RATIO: f64 = 1.3;
/// Packets a second, in millions, that frames of 64 bytes must reach (the project's bar).
const MPPS: f64 = 1.0;
/// Memory of the table with a million conversations offered to it, in MiB: its own bound, and as
/// much again for what the rest of admission leaves on the heap.
const MEMORY: f64 = 4.0;
/// Conversations that the table is offered.
const MILLION: u32 = 1_000_000;
/// Conversations among which known packets are drawn: a busy browser's.
const KNOWN: u32 = 1000;
/// Packets that are timed at once.
const BATCH: u32 = 20_000;
/// Slices of each run, of which the best counts.
const SLICES: usize = 5;
/// Pause between them: a thread that goes first must sleep now and then.
const REST: Duration = Duration::from_millis(20);

const GUEST: Ipv4Addr = Ipv4Addr::new(172, 16, 7, 23);
const DEVICE: Device = Device {
    address: GUEST,
    prefix: 24,
    router: Ipv4Addr::new(172, 16, 7, 1),
    v6: None,
    mac: smoltcp::wire::EthernetAddress([0x02, 0x53, 0x4b, 0x00, 0x07, 0x17]),
    mtu: 1420,
};
const SITUATION: Situation = Situation::Tunnelled {
    gateway: GatewayId(0),
    path: PathId(1),
    kind: UplinkKind::Wired,
    side: Side::Outside,
    place: Place::Remote,
};
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const PORT: u16 = 443;
/// No flow names it.
const CLOSED_PORT: u16 = 444;
/// An Ethernet frame without its checksum, as "64 bytes" are counted.
const FRAME: usize = 60;

/// Which packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    Known,
    First,
    Refused,
}

impl Load {
    const ALL: [Self; 3] = [Self::Known, Self::First, Self::Refused];

    const fn label(self) -> &'static str {
        match self {
            Self::Known => "known conversations",
            Self::First => "first packets",
            Self::Refused => "refused packets",
        }
    }
}

/// Measures.
pub fn run(options: Options) -> Result<Report, BenchError> {
    let _seat = part::Seat::take(0)?;
    let mut report = Report::of("admit");
    // First of all: what others give back to the heap would be taken again without a trace.
    report.append(million()?);
    let mut table = Table::new(
        format!(
            "admit: one thread, policy of {MANY} flows / of {FEW}, medians of {} paired runs (each \
             the best of {SLICES} slices of {BATCH} packets)",
            options.runs
        ),
        &["packets", "ns/packet", "ratio (range)"],
    );
    for load in Load::ALL {
        let mut pairs = Pairs::default();
        let (mut many, mut few) = (Bench::new(MANY)?, Bench::new(FEW)?);
        for run in 0..options.runs {
            eprintln!(
                "admit: {}, run {} of {}",
                load.label(),
                run + 1,
                options.runs
            );
            let mut best = (f64::INFINITY, f64::INFINITY);
            for slice in 0..SLICES {
                // Whoever goes first goes second in the next slice.
                if (run + slice).is_multiple_of(2) {
                    best.0 = best.0.min(many.verdicts(load)?);
                    best.1 = best.1.min(few.verdicts(load)?);
                } else {
                    best.1 = best.1.min(few.verdicts(load)?);
                    best.0 = best.0.min(many.verdicts(load)?);
                }
                std::thread::sleep(REST);
            }
            pairs.push(best.0, best.1);
        }
        table.row([
            load.label().to_owned(),
            format!("{:.0} / {:.0}", pairs.ours() * 1e9, pairs.peer() * 1e9),
            pairs.ratio_cell(),
        ]);
        report.bars.push(Bar::new(
            format!(
                "admit {}: cost under {MANY} flows, ratio to {FEW}",
                load.label()
            ),
            pairs.ratio(),
            Op::AtMost,
            RATIO,
        ));
    }
    report.tables.push(table);
    report.append(frames(options)?);
    Ok(report)
}

/// Frames of 64 bytes from the link's checked header to the verdict.
fn frames(options: Options) -> Result<Report, BenchError> {
    let mut report = Report::default();
    let mut bench = Bench::new(MANY)?;
    let mut rates = Vec::new();
    for _ in 0..options.runs {
        let mut best = f64::INFINITY;
        for _ in 0..SLICES {
            best = best.min(bench.frames()?);
            std::thread::sleep(REST);
        }
        rates.push(1e-6 / best);
    }
    let rate = crate::report::median(rates);
    let mut table = Table::new(
        format!(
            "admit: frames of 64 bytes through edge and admission, {MANY} flows, {KNOWN} conversations"
        ),
        &["", "Mpps"],
    );
    table.row(["one thread".to_owned(), format!("{rate:.2}")]);
    report.tables.push(table);
    report.bars.push(Bar::new(
        "admit: frames of 64 bytes, millions a second",
        rate,
        Op::AtLeast,
        MPPS,
    ));
    Ok(report)
}

/// A million conversations, each answered, so that none of them gives way to the next.
fn million() -> Result<Report, BenchError> {
    let mut report = Report::default();
    let before = resident()?;
    let mut bench = Bench::new(FEW)?;
    let (mut held, mut refused, mut first_refusal) = (0_u32, 0_u32, None);
    for number in 0..MILLION {
        let (peer, port) = conversation(number, FEW);
        match bench.packet(Origin::Guest, (GUEST, port), (peer, PORT), SYN)? {
            None => {
                held += 1;
                bench.packet(Origin::Tunnel, (peer, PORT), (GUEST, port), SYN | ACK)?;
            }
            Some(Rule::FlowTableFull) => {
                refused += 1;
                first_refusal.get_or_insert(number);
            }
            Some(rule) => return Err(unexpected(rule)),
        }
    }
    let grown = resident()?.saturating_sub(before);
    // Whoever had a conversation has it still: the first tenth was long before any refusal.
    for number in 0..first_refusal.unwrap_or(MILLION) / 10 {
        let (peer, port) = conversation(number, FEW);
        let answer = bench.packet(Origin::Tunnel, (peer, PORT), (GUEST, port), ACK)?;
        if let Some(rule) = answer {
            return Err(unexpected(rule));
        }
    }
    let mut table = Table::new(
        format!("admit: {MILLION} conversations at once, in a table of {TABLE_MEMORY} bytes"),
        &["", "conversations"],
    );
    for (what, count) in [
        ("held", held),
        ("refused by name, flow-table-full", refused),
        ("before the first refusal", first_refusal.unwrap_or(MILLION)),
    ] {
        table.row([what.to_owned(), count.to_string()]);
    }
    report.tables.push(table);
    report.bars.push(Bar::new(
        format!("admit: memory with {MILLION} conversations offered, MiB"),
        mebibytes(grown),
        Op::AtMost,
        MEMORY,
    ));
    Ok(report)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "bytes of this process are far below 2^52"
)]
fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Memory of this process that is there, in bytes, without the pages of its program, which come as it
/// first runs through them (proc(5), status).
fn resident() -> Result<usize, BenchError> {
    let path = "/proc/self/status";
    let text = std::fs::read_to_string(path).map_err(BenchError::system("read our own memory"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes: usize = line
        .and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .ok_or_else(|| BenchError::Missing(format!("{path} says nothing about memory")))?;
    Ok(kibibytes << 10)
}

fn unexpected(rule: Rule) -> BenchError {
    BenchError::Missing(format!("admission refused what it should admit: {rule:?}"))
}

/// The peer and our port of conversation `number`: spread over all flows, no two alike.
fn conversation(number: u32, flows: usize) -> (Ipv4Addr, u16) {
    let flows = u32::try_from(flows).unwrap_or(1);
    let (flow, rest) = (number % flows, number / flows);
    let (host, port) = (rest % 200, rest / 200);
    let network = 0x0a00_0000 | (flow << 8);
    // A million conversations over ten flows of 200 hosts need 500 ports.
    let port = 1024 + u16::try_from(port % 60_000).unwrap_or(0);
    (Ipv4Addr::from_bits(network | (host + 1)), port)
}

/// Admission under a policy of so many flows.
struct Bench {
    flows: usize,
    keeper: Gatekeeper,
    edge: Edge,
    reply: Reply,
    now: Moment,
    /// The next conversation that nobody has had.
    fresh: u32,
    frame: [u8; FRAME],
}

impl Bench {
    fn new(flows: usize) -> Result<Self, BenchError> {
        let now = Moment::from_boot(Duration::from_secs(1000));
        let terms = Terms {
            address: GUEST,
            v6: None,
            mtu: DEVICE.mtu,
            resolvers: Vec::new(),
        };
        let mut bench = Self {
            flows,
            keeper: Gatekeeper::new(admission(flows)?, terms, now),
            edge: Edge::new(DEVICE, true, now),
            reply: Reply::with_mtu(DEVICE.mtu),
            now,
            fresh: KNOWN,
            frame: [0; FRAME],
        };
        for number in 0..KNOWN {
            let (peer, port) = conversation(number, flows);
            for (origin, from, to, flags) in [
                (Origin::Guest, (GUEST, port), (peer, PORT), SYN),
                (Origin::Tunnel, (peer, PORT), (GUEST, port), SYN | ACK),
            ] {
                if let Some(rule) = bench.packet(origin, from, to, flags)? {
                    return Err(unexpected(rule));
                }
            }
        }
        Ok(bench)
    }

    /// The rule that refuses one packet, if one does.
    fn packet(
        &mut self,
        origin: Origin,
        from: (Ipv4Addr, u16),
        to: (Ipv4Addr, u16),
        flags: u8,
    ) -> Result<Option<Rule>, BenchError> {
        write_frame(&mut self.frame, from, to, flags);
        let packet = Packet::parse(&self.frame[14..], Offload::None)
            .map_err(|error| BenchError::Missing(error.to_string()))?;
        let verdict = self.keeper.admit(packet, origin, &SITUATION, self.now);
        Ok(verdict.err().map(|refusal| refusal.rule))
    }

    /// Seconds a packet of this load, from its bytes to the verdict.
    fn verdicts(&mut self, load: Load) -> Result<f64, BenchError> {
        // First packets make entries that last a minute; let the former ones expire.
        self.now = self.now + Duration::from_mins(2);
        let begin = self.fresh;
        let start = Instant::now();
        for number in 0..BATCH {
            let (which, port, flags) = match load {
                Load::Known => (number.wrapping_mul(7) % KNOWN, PORT, ACK),
                Load::First => (begin + number, PORT, SYN),
                Load::Refused => (begin + number, CLOSED_PORT, SYN),
            };
            let (peer, own) = conversation(which, self.flows);
            let refused = self.packet(Origin::Guest, (GUEST, own), (peer, port), flags)?;
            if refused.is_some() != (load == Load::Refused) {
                return Err(BenchError::Missing(format!(
                    "{}: another verdict than meant: {refused:?}",
                    load.label()
                )));
            }
        }
        let seconds = start.elapsed().as_secs_f64() / f64::from(BATCH);
        if load == Load::First {
            self.fresh += BATCH;
        }
        Ok(seconds)
    }

    /// Seconds a frame of 64 bytes, from the link's header to the verdict.
    fn frames(&mut self) -> Result<f64, BenchError> {
        let header = NetHdr::default();
        let start = Instant::now();
        for number in 0..BATCH {
            let (peer, port) = conversation(number.wrapping_mul(7) % KNOWN, self.flows);
            write_frame(&mut self.frame, (GUEST, port), (peer, PORT), ACK);
            let taken = self
                .edge
                .take(&header, &self.frame, &mut self.reply, self.now);
            let Taken::Transit(packet) = taken else {
                return Err(BenchError::Missing("the edge kept a packet".to_owned()));
            };
            let verdict = self
                .keeper
                .admit(packet, Origin::Guest, &SITUATION, self.now);
            if let Err(refusal) = verdict {
                return Err(unexpected(refusal.rule));
            }
        }
        Ok(start.elapsed().as_secs_f64() / f64::from(BATCH))
    }
}

/// A frame with a TCP segment without data. Its checksums are not looked at on this way.
fn write_frame(frame: &mut [u8; FRAME], from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8) {
    frame[..6].copy_from_slice(sekisho_netdomain::gate::edge::GATE_MAC.as_bytes());
    frame[6..12].copy_from_slice(DEVICE.mac.as_bytes());
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..26].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame[26..30].copy_from_slice(&from.0.octets());
    frame[30..34].copy_from_slice(&to.0.octets());
    frame[34..36].copy_from_slice(&from.1.to_be_bytes());
    frame[36..38].copy_from_slice(&to.1.to_be_bytes());
    frame[46] = 5 << 4;
    frame[47] = flags;
}

/// A compiled policy whose flows each name a network of their own.
fn admission(flows: usize) -> Result<Admission, BenchError> {
    let mut text = String::from(
        r#"schema = 1
[policy]
id = "jp.mihon-city"
version = 1
issued = "2026-01-01T00:00:00+09:00"
expires = "2099-01-01T00:00:00+09:00"
[segments.lgwan]
prefixes = ["10.0.0.0/8"]
[forbidden]
prefixes = ["10.99.0.0/16"]
reason = "forbidden"
[[uplink]]
kind = "wired"
rank = 1
[vpn]
kill_switch = "always"
[[vpn.gateway]]
name = "honcho-1"
kind = "wireguard"
address = "203.0.113.10:51820"
public_key = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk="
uplinks = ["wired"]
"#,
    );
    for flow in 0..flows {
        let (high, low) = (flow / 256, flow % 256);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "[[flow]]\nid = \"flow-{flow}\"\n\
             to = {{ segment = \"lgwan\", hosts = [\"10.{high}.{low}.0/24\"] }}\n\
             tcp = [443, 8443]\n"
        );
    }
    let refused = |error: &dyn std::fmt::Display| {
        BenchError::Missing(format!("the policy of this benchmark is refused: {error}"))
    };
    let signer = PrivateKey::from_seed(&[3; 32]);
    let signature = signer.sign(text.as_bytes()).to_file();
    let trust = Trust::parse(&signer.public_pem()).map_err(|error| refused(&error))?;
    let clock = Clock::system(Floor::default());
    let policy = verify(text.as_bytes(), signature.as_bytes(), &trust, &clock)
        .map_err(|error| refused(&error))?;
    Ok(Admission::compile(&policy))
}
