//! How long the guest is without an answer when its way changes: a question each five milliseconds to
//! a server behind the gateway, the real programs in namespaces, a download and an upload as load.
//!
//! There is no peer that does the same; the limits are what the project has set itself.

use std::time::{Duration, Instant};

use sekisho_lab::{
    Event, Lab, NetLaptop, Options as LabOptions, Prober, Setup, Wall, address as at,
};

use crate::{
    BenchError, Options,
    report::{Bar, Op, Report, Table, median, percentile},
};

/// Changes of each kind in one run.
const CHANGES: usize = 6;
/// A way that is not back by then fails the benchmark.
const PATIENCE: Duration = Duration::from_secs(10);
/// A question that is not answered so long after it was asked is lost.
const LOST: Duration = Duration::from_millis(700);
/// A way that was found silent is not taken again before this (`retry.first` of the lab's policy), and
/// some more.
const PARDON: Duration = Duration::from_millis(2500);

/// What happens to the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// The office's cable is plugged in beside the cafe's.
    Planned,
    /// The cable in use is pulled, another one is ready.
    Carrier,
    /// The network of the cable in use falls silent, another one is ready.
    Silence,
    /// It takes nothing any more, but goes on bringing what the gateway sends.
    Deafness,
    /// The gateway starts again and knows the laptop no more.
    Gateway,
}

impl Change {
    const ALL: [Self; 5] = [
        Self::Planned,
        Self::Carrier,
        Self::Silence,
        Self::Deafness,
        Self::Gateway,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Planned => "planned: office cable plugged in",
            Self::Carrier => "cable pulled, another ready",
            Self::Silence => "network silent, another ready",
            Self::Deafness => "network takes nothing, another ready",
            Self::Gateway => "gateway started again",
        }
    }

    /// Most milliseconds without an answer: in the middle, and of ninety-nine of a hundred.
    const fn limits(self) -> (f64, f64) {
        match self {
            Self::Planned => (50.0, 100.0),
            Self::Carrier => (100.0, 1000.0),
            Self::Silence => (1000.0, 1000.0),
            Self::Deafness => (2000.0, 3000.0),
            Self::Gateway => (2000.0, 2000.0),
        }
    }
}

/// What one change cost.
#[derive(Debug, Clone, Copy)]
struct Found {
    /// Milliseconds without an answer.
    outage: f64,
    /// Questions that were never answered.
    lost: usize,
}

/// Measures.
pub fn run(options: Options) -> Result<Report, BenchError> {
    let lab = Lab::start(LabOptions::default())?;
    lab.unplug(at::ETH1)?;
    let laptop = NetLaptop::start_up(&lab, &Setup::default())?;
    laptop.page(PATIENCE)?;
    let canary = laptop.canary().hex();
    let load = format!(
        "while :; do curl -s -m 5 -o /dev/null 'http://10.12.10.5/download?rate=1000000&canary={canary}'; \
         yes {canary} | head -c 300000 | curl -s -m 5 -o /dev/null -T - http://10.12.10.6/; done"
    );
    let _load = laptop.guest_spawn("load", &["sh", "-c", &load])?;
    let prober = Prober::open(&laptop)?;
    let scene = Scene {
        lab: &lab,
        laptop: &laptop,
        prober: &prober,
    };
    let found = prober.during(|| scene.all(options.runs * CHANGES))?;

    let mut report = Report::of("switch");
    let mut table = Table::new(
        format!(
            "switch: without an answer, questions 5 ms apart, under load, {} changes each",
            options.runs * CHANGES
        ),
        &[
            "change",
            "p50 ms",
            "p99 ms",
            "longest ms",
            "questions lost (median)",
        ],
    );
    for (change, found) in found {
        let outages: Vec<_> = found.iter().map(|found| found.outage).collect();
        let lost: Vec<_> = found.iter().map(|found| count(found.lost)).collect();
        let (middle, slow) = (median(outages.clone()), percentile(outages.clone(), 99));
        table.row([
            change.label().to_owned(),
            format!("{middle:.0}"),
            format!("{slow:.0}"),
            format!("{:.0}", percentile(outages, 100)),
            format!("{:.0}", median(lost.clone())),
        ]);
        let (most, at_worst) = change.limits();
        let bar = |what: &str, value, limit| {
            Bar::new(
                format!("switch, {}: {what}", change.label()),
                value,
                Op::AtMost,
                limit,
            )
        };
        report.bars.push(bar("p50 ms", middle, most));
        report.bars.push(bar("p99 ms", slow, at_worst));
        if change == Change::Planned {
            report
                .bars
                .push(bar("questions lost in all", lost.iter().sum(), 0.0));
        }
    }
    report.tables.push(table);
    Ok(report)
}

/// A laptop under load.
struct Scene<'s> {
    lab: &'s Lab,
    laptop: &'s NetLaptop<'s>,
    prober: &'s Prober,
}

impl Scene<'_> {
    fn all(&self, times: usize) -> Result<Vec<(Change, Vec<Found>)>, BenchError> {
        let mut all = Vec::new();
        for change in Change::ALL {
            let mut found = Vec::new();
            if change == Change::Carrier {
                self.second_cable()?;
            }
            for time in 0..times {
                let cost = match change {
                    Change::Planned => self.planned(),
                    Change::Carrier => self.carrier(),
                    Change::Silence => self.silence(&["saddr", "daddr"]),
                    Change::Deafness => self.silence(&["saddr"]),
                    Change::Gateway => self.gateway(),
                }?;
                eprintln!(
                    "switch: {}, {} of {times}: {:.0} ms",
                    change.label(),
                    time + 1,
                    cost.outage
                );
                found.push(cost);
            }
            all.push((change, found));
        }
        Ok(all)
    }

    /// What a change cost that began then.
    fn cost(&self, start: Instant) -> Result<Found, BenchError> {
        if !self
            .prober
            .wait(start + Duration::from_millis(100), PATIENCE)
        {
            return Err(self.failed("no answer any more"));
        }
        std::thread::sleep(LOST);
        let end = Instant::now();
        Ok(Found {
            outage: self.prober.outage(start, end).as_secs_f64() * 1e3,
            lost: self
                .prober
                .lost(start, end.checked_sub(LOST).unwrap_or(start)),
        })
    }

    fn failed(&self, what: &str) -> BenchError {
        BenchError::Program {
            program: "the laptop".to_owned(),
            said: format!("{what}: {}", self.laptop.events().tail()),
        }
    }

    fn planned(&self) -> Result<Found, BenchError> {
        let mark = self.laptop.events().mark();
        let start = Instant::now();
        self.lab.plug(at::ETH1, Wall::Office)?;
        self.laptop.wait_event(mark, "office", PATIENCE, |event| {
            event.is("gate", "situation") && event.text("place") == "onprem"
        })?;
        let found = self.cost(start)?;
        let mark = self.laptop.events().mark();
        self.lab.unplug(at::ETH1)?;
        self.laptop.wait_event(mark, "remote", PATIENCE, |event| {
            event.is("gate", "situation") && event.text("place") == "remote"
        })?;
        self.cost(Instant::now())?;
        Ok(found)
    }

    fn second_cable(&self) -> Result<(), BenchError> {
        let mark = self.laptop.events().mark();
        self.lab.plug(at::ETH1, Wall::Cafe)?;
        self.leased(mark, at::ETH1).map(drop)
    }

    fn leased(&self, mark: usize, port: &str) -> Result<Event, BenchError> {
        let event = self.laptop.wait_event(mark, "a lease", PATIENCE, |event| {
            event.is("uplink", "uplink")
                && event.text("port") == port
                && event.text("event") == "leased"
        })?;
        Ok(event)
    }

    fn carrier(&self) -> Result<Found, BenchError> {
        let port = self.port_in_use();
        let mark = self.laptop.events().mark();
        let start = Instant::now();
        self.lab.unplug(&port)?;
        let found = self.cost(start)?;
        self.lab.plug(&port, Wall::Cafe)?;
        self.leased(mark, &port)?;
        Ok(found)
    }

    /// The cafe's router drops the datagrams of the cable in use, those that come from it or go to it.
    fn silence(&self, directions: &[&str]) -> Result<Found, BenchError> {
        let port = self.port_in_use();
        let address = self.address(&port)?;
        let drops = directions
            .iter()
            .map(|direction| format!("ip {direction} {address} meta l4proto udp drop; "))
            .collect::<Vec<_>>()
            .concat();
        let rules = format!(
            "table ip silent {{ chain pass {{ type filter hook forward priority filter; {drops}}}; }}"
        );
        let start = Instant::now();
        self.lab.run("cafe", &["nft", &rules])?.ok()?;
        let found = self.cost(start)?;
        if self.port_in_use() == port {
            return Err(self.failed("the silent way is still in use"));
        }
        self.lab
            .run("cafe", &["nft", "delete table ip silent"])?
            .ok()?;
        std::thread::sleep(PARDON);
        Ok(found)
    }

    fn gateway(&self) -> Result<Found, BenchError> {
        let start = Instant::now();
        self.lab.restart_gateway()?;
        self.cost(start)
    }

    /// The port that carries the tunnel, as the gate last said.
    fn port_in_use(&self) -> String {
        let all = self.laptop.events().all();
        let last = all
            .iter()
            .rfind(|event| event.is("gate", "situation") && event.text("situation") == "tunnelled");
        last.map_or_else(
            || at::ETH0.to_owned(),
            |event| event.text("port").to_owned(),
        )
    }

    /// The address that a port last got.
    fn address(&self, port: &str) -> Result<String, BenchError> {
        let mut command = self.laptop.uplink_space()?.command("ip");
        command.args(["-4", "-o", "addr", "show", "dev", port]);
        let said = self.lab.run_command(command, PATIENCE)?.ok()?.stdout;
        said.split_whitespace()
            .find_map(|word| word.split_once('/').map(|(address, _)| address.to_owned()))
            .ok_or_else(|| self.failed("a port in use without an address"))
    }
}

#[expect(clippy::cast_precision_loss, reason = "questions of a second")]
fn count(questions: usize) -> f64 {
    questions as f64
}
