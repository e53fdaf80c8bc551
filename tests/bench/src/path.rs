//! The whole path of a packet: from a TCP stack that plays the guest through a tap, the frame link,
//! the gate, the tunnel and a wire to a gate that plays the gateway, and up to a TCP stack again.
//!
//! Against three other `WireGuard`s in user space and against the wire alone, between the same two
//! namespaces. All share the machine's processors: client, server, both tunnel ends and the kernel.
//! So a figure is what this machine carries when it plays both ends, and only ratios carry over.
//!
//! A veth carries a batch of datagrams whole, as a network card with UDP segmentation does. Of the
//! contenders only our gate makes batches, so it is also measured over a wire that does not.

mod cipher;
pub mod direct;
mod gates;
mod latency;
mod load;
pub mod packets;
mod peers;
mod world;

use std::{net::Ipv4Addr, time::Duration};

use self::{
    gates::{Gates, Guest},
    load::{Carried, Way, carry},
    peers::{Kind, Peer},
    world::World,
};
use crate::{
    BenchError, Options,
    program::Daemon,
    report::{Bar, Op, Pairs, Report, Table, median},
};

/// At least so many times the goodput of the best other `WireGuard`.
const LIMIT: f64 = 3.0;

/// Measures.
pub fn run(options: Options) -> Result<Report, BenchError> {
    let world = World::new()?;
    let peers = [Kind::WireGuardGo, Kind::Boringtun, Kind::Gotatun];
    let peers = peers.map(|kind| Peer::start(kind, &world).map(|peer| (kind, peer)));
    let peers = peers.into_iter().collect::<Result<Vec<_>, _>>()?;
    let gates = Gates::start(&world, Guest::Stack)?;
    let ours = Contender {
        label: "",
        target: Gates::TARGET,
        offload: true,
        tunnels: Some((&gates.near.process, &gates.far.process)),
        joints: gates.near.joint.as_ref().zip(gates.far.joint.as_ref()),
    };
    let mut contenders = vec![
        Contender {
            label: "gates",
            ..ours
        },
        Contender {
            label: "gates, kernel cuts batches",
            offload: false,
            ..ours
        },
    ];
    let first = contenders.len();
    contenders.extend(
        peers
            .iter()
            .map(|(kind, peer)| Contender::peer(*kind, peer)),
    );
    let others = first..contenders.len();
    contenders.push(Contender {
        label: "bare wire",
        target: world.far.outer,
        offload: true,
        tunnels: None,
        joints: None,
    });
    let mut report = Report::of("path");
    for way in [Way::Up, Way::Down] {
        let samples = measure(&world, &contenders, way, options.runs)?;
        report.tables.push(table(&contenders, &samples, way));
        let ratios = others.clone().map(|place| against(&samples, place).ratio());
        report.bars.push(Bar::new(
            format!("path {}: goodput, ratio to the best other", way.label()),
            ratios.fold(f64::INFINITY, f64::min),
            Op::AtLeast,
            LIMIT,
        ));
    }
    report
        .tables
        .push(latency::measure(&world, &contenders, options.runs)?);
    Ok(report)
}

/// One way from the guest to the sink.
#[derive(Clone, Copy)]
struct Contender<'a> {
    label: &'static str,
    target: Ipv4Addr,
    /// Whether the wire takes batches of datagrams whole.
    offload: bool,
    /// Processes of the tunnel: near and far.
    tunnels: Option<(&'a Daemon, &'a Daemon)>,
    /// Processes in the VMM's place, likewise.
    joints: Option<(&'a Daemon, &'a Daemon)>,
}

impl<'a> Contender<'a> {
    fn peer(kind: Kind, peer: &'a Peer) -> Self {
        Self {
            label: kind.label(),
            target: kind.target(),
            offload: true,
            tunnels: Some((&peer.near.process, &peer.far.process)),
            joints: None,
        }
    }

    fn sample(&self, world: &World, way: Way) -> Result<Sample, BenchError> {
        world.offload(self.offload)?;
        let before = (cpu(self.tunnels)?, cpu(self.joints)?);
        let carried = carry(world, self.target, way)?;
        let after = (cpu(self.tunnels)?, cpu(self.joints)?);
        let each = |before: (Duration, Duration), after: (Duration, Duration)| {
            let spent = |before: Duration, after: Duration| {
                after.saturating_sub(before).as_secs_f64() / carried.packets
            };
            let (near, far) = (spent(before.0, after.0), spent(before.1, after.1));
            match way {
                Way::Up => (near, far),
                Way::Down => (far, near),
            }
        };
        let (tunnel_out, tunnel_in) = each(before.0, after.0);
        let (joint_out, joint_in) = each(before.1, after.1);
        Ok(Sample {
            carried,
            tunnel_out,
            tunnel_in,
            joint: joint_out + joint_in,
        })
    }
}

/// What one contender did in one run. Processor time is in seconds a full packet, with that for
/// the acknowledgements in it.
struct Sample {
    carried: Carried,
    /// At the end where the data goes into the tunnel.
    tunnel_out: f64,
    /// At the end where it comes out.
    tunnel_in: f64,
    /// Of both processes in the VMM's place.
    joint: f64,
}

fn cpu(processes: Option<(&Daemon, &Daemon)>) -> Result<(Duration, Duration), BenchError> {
    match processes {
        Some((near, far)) => Ok((near.cpu_time()?, far.cpu_time()?)),
        None => Ok((Duration::ZERO, Duration::ZERO)),
    }
}

/// Samples by contender, then by run.
fn measure(
    world: &World,
    contenders: &[Contender<'_>],
    way: Way,
    runs: usize,
) -> Result<Vec<Vec<Sample>>, BenchError> {
    let mut samples: Vec<Vec<Sample>> = contenders.iter().map(|_| Vec::new()).collect();
    for run in 0..runs {
        eprintln!("path: {}, run {} of {runs}", way.label(), run + 1);
        // Each goes first in turn.
        for turn in 0..contenders.len() {
            let place = (run + turn) % contenders.len();
            samples[place].push(contenders[place].sample(world, way)?);
        }
    }
    Ok(samples)
}

/// Our goodput (the first contender's) beside another's, run by run.
fn against(samples: &[Vec<Sample>], place: usize) -> Pairs {
    let mut pairs = Pairs::default();
    for (ours, peer) in samples[0].iter().zip(&samples[place]) {
        pairs.push(ours.carried.goodput, peer.carried.goodput);
    }
    pairs
}

fn table(contenders: &[Contender<'_>], samples: &[Vec<Sample>], way: Way) -> Table {
    let runs = samples.first().map_or(0, Vec::len);
    let seconds = samples
        .iter()
        .flatten()
        .map(|sample| sample.carried.time.as_secs_f64());
    let seconds = median(seconds.collect());
    let mut table = Table::new(
        format!(
            "path {}: TCP goodput by iperf3 for {seconds:.0} s, both ends on this machine, medians \
             of {runs} paired runs",
            way.label()
        ),
        &[
            "way",
            "Mbit/s",
            "gates / it (range)",
            "CPU ns/packet, into tunnel",
            "out of tunnel",
            "in VMM's place",
            "sent again",
        ],
    );
    for (place, contender) in contenders.iter().enumerate() {
        let of = |value: fn(&Sample) -> f64| median(samples[place].iter().map(value).collect());
        let cost = |has: bool, value: f64| {
            if has {
                format!("{:.0}", value * 1e9)
            } else {
                "-".to_owned()
            }
        };
        let tunnel = contender.tunnels.is_some();
        table.row([
            contender.label.to_owned(),
            format!("{:.0}", of(|sample| sample.carried.goodput) * 1e-6),
            if place == 0 {
                "-".to_owned()
            } else {
                against(samples, place).ratio_cell()
            },
            cost(tunnel, of(|sample| sample.tunnel_out)),
            cost(tunnel, of(|sample| sample.tunnel_in)),
            cost(contender.joints.is_some(), of(|sample| sample.joint)),
            format!("{:.0}", of(|sample| sample.carried.retransmits)),
        ]);
    }
    table
}
