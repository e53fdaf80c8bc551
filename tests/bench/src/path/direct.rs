//! The office LAN itself: a guest whose packets go without a tunnel, beside a plain PC at the same
//! switch. Everything is the product's: supervisor, gate, uplink, beacon; only the tap joint stands in
//! the VMM's place. Both ways share the processors with the sink.

use std::{process::Command, time::Duration};

use sekisho_lab::{
    Direct, Lab, NetLaptop, Netns, Options as LabOptions, Setup, UP_LIMIT, Wall, address as at,
};

use super::load::{Carried, SECONDS, Way, judged};
use crate::{
    BenchError, Options,
    report::{Bar, Op, Pairs, Report, Table, median},
};

/// Goodput of the guest, as a part of the plain PC's, at least.
const BAR: f64 = 0.5;
/// The sink, on the office's own network, where the policy has a flow to it.
const SINK: &str = "10.12.10.9";
const PORT: &str = "5201";
/// The plain PC's address.
const PC: &str = "10.12.100.77";
const LIMIT: Duration = Duration::from_secs(30);

const fn name(mode: Direct) -> &'static str {
    match mode {
        Direct::Routed => "routed",
        Direct::Bridged => "bridged",
    }
}

/// Measures.
pub fn run(options: Options) -> Result<Report, BenchError> {
    let mut report = Report::of("direct");
    for mode in [Direct::Routed, Direct::Bridged] {
        measure(mode, options, &mut report)?;
    }
    Ok(report)
}

fn measure(mode: Direct, options: Options, report: &mut Report) -> Result<(), BenchError> {
    let lab = Lab::start(LabOptions {
        captures: false,
        direct: Some(mode),
        ..LabOptions::default()
    })?;
    let guest = format!("{}/32", at::GUEST);
    let ip = |node: &str, words: &str| -> Result<(), BenchError> {
        let words: Vec<&str> = ["ip"].into_iter().chain(words.split(' ')).collect();
        lab.run(node, &words)?.ok()?;
        Ok(())
    };
    if mode == Direct::Routed {
        ip("office", &format!("route replace {guest} dev lan"))?;
    }
    ip("office", &format!("addr add {SINK}/32 dev lo"))?;
    // The sink is on the router itself, which is to ask by ARP in its own name, as for any server behind
    // it: a routed laptop answers nobody else.
    let announce = "echo 2 > /proc/sys/net/ipv4/conf/all/arp_announce";
    lab.run("office", &["sh", "-c", announce])?.ok()?;
    let pc = Netns::create().map_err(BenchError::system("make a network namespace"))?;
    let into = pc.path();
    let into = into.display();
    ip(
        "walls",
        &format!("link add pc type veth peer name lan netns {into}"),
    )?;
    ip("walls", "link set pc master office-lan up")?;
    for words in [
        format!("addr add {PC}/24 dev lan"),
        "link set lan up".to_owned(),
        format!("route add default via {}", at::OFFICE_ROUTER),
    ] {
        let mut command = pc.command("ip");
        command.args(words.split(' '));
        lab.run_command(command, LIMIT)?.ok()?;
    }
    lab.unplug(at::ETH0)?;
    lab.plug(at::ETH1, Wall::Office)?;
    let flow = format!(
        "[[flow]]\nid = \"load\"\nto = {{ segment = \"lgwan\", hosts = [\"{SINK}/32\"] }}\n\
         tcp = [{PORT}]\n\n[[uplink]]"
    );
    let policy = match mode {
        Direct::Routed => lab.papers().policy_with_direct(),
        Direct::Bridged => lab.papers().policy_with_bridged(),
    };
    let policy = policy.replacen("[[uplink]]", &flow, 1);
    let setup = Setup {
        policy: Some(policy),
        ..Setup::default()
    };
    let laptop = NetLaptop::start(&lab, &setup)?;
    laptop.plug_guest()?;
    laptop.wait_direct(0, UP_LIMIT)?;
    if mode == Direct::Bridged {
        laptop.plug_until(at::GUEST_IN_OFFICE)?;
    }

    for way in [Way::Up, Way::Down] {
        let (mut pairs, mut again) = (Pairs::default(), Vec::new());
        for run in 0..options.runs {
            eprintln!(
                "path direct {}: {}, run {} of {}",
                name(mode),
                way.label(),
                run + 1,
                options.runs
            );
            // Each goes first in turn.
            let (ours, plain) = if run % 2 == 0 {
                let ours = guest_load(&lab, &laptop, way)?;
                (ours, plain_load(&lab, &pc, way)?)
            } else {
                let plain = plain_load(&lab, &pc, way)?;
                (guest_load(&lab, &laptop, way)?, plain)
            };
            pairs.push(ours.goodput, plain.goodput);
            again.push(ours.retransmits);
        }
        report
            .tables
            .push(table(mode, way, options.runs, &pairs, again));
        report.bars.push(Bar::new(
            format!(
                "path direct {} {}: goodput, ratio to a plain PC",
                name(mode),
                way.label()
            ),
            pairs.ratio(),
            Op::AtLeast,
            BAR,
        ));
    }
    Ok(())
}

fn table(mode: Direct, way: Way, runs: usize, pairs: &Pairs, again: Vec<f64>) -> Table {
    let mut table = Table::new(
        format!(
            "path direct {} {}: TCP goodput by iperf3 for {SECONDS} s at one switch, medians of {runs} \
             paired runs",
            name(mode),
            way.label()
        ),
        &["way", "Mbit/s", "guest / it (range)", "sent again"],
    );
    let mbit = |value: f64| format!("{:.0}", value * 1e-6);
    table.row([
        "guest, direct".to_owned(),
        mbit(pairs.ours()),
        "-".to_owned(),
        format!("{:.0}", median(again)),
    ]);
    table.row([
        "plain PC".to_owned(),
        mbit(pairs.peer()),
        pairs.ratio_cell(),
        "-".to_owned(),
    ]);
    table
}

/// What iperf3 is called with.
fn client(way: Way) -> Vec<String> {
    let seconds = SECONDS.to_string();
    let mut words: Vec<String> = ["iperf3", "-c", SINK, "-p", PORT, "-t", &seconds, "-J"]
        .map(str::to_owned)
        .into();
    words.extend(["--connect-timeout", "5000"].map(str::to_owned));
    if way == Way::Down {
        words.push("-R".to_owned());
    }
    words
}

fn guest_load(lab: &Lab, laptop: &NetLaptop<'_>, way: Way) -> Result<Carried, BenchError> {
    loaded(lab, || {
        let words = client(way);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Ok(laptop.guest_for(&words, LIMIT)?.ok()?.stdout)
    })
}

fn plain_load(lab: &Lab, pc: &Netns, way: Way) -> Result<Carried, BenchError> {
    loaded(lab, || {
        let words = client(way);
        let mut command: Command = pc.command(&words[0]);
        command.args(&words[1..]);
        Ok(lab.run_command(command, LIMIT)?.ok()?.stdout)
    })
}

/// Loads once, against a server of its own.
fn loaded(
    lab: &Lab,
    load: impl FnOnce() -> Result<String, BenchError>,
) -> Result<Carried, BenchError> {
    let serve = ["iperf3", "-s", "-1", "-B", SINK, "-p", PORT, "--forceflush"];
    let server = lab.spawn("office", "iperf3-server", &serve)?;
    server.wait_line("Server listening", LIMIT)?;
    let said = load()?;
    judged(&said).ok_or_else(|| BenchError::Program {
        program: "iperf3".to_owned(),
        said,
    })
}
