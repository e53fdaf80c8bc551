//! What an idle desktop costs: an installed Debian at its graphical login, in our VMM and in QEMU, in the
//! QEMU laptop.
//!
//! Both run at once and are looked at over the same spans of time. Both have a copy of the same disk, whose
//! kernel they start without firmware, the same devices and a screen that nobody looks at from afar: ours shown by the seat with
//! its server for viewers, QEMU's by its own.

mod inside;

use std::time::Duration;

use sekisho_laptop::{Cache, InstalledDebian, Laptop, Options as LaptopOptions};

pub use self::inside::inside;
use self::inside::{Cost, Measured};
use crate::{
    BenchError, Options, part,
    program::ours,
    report::{Bar, Op, Pairs, Report, Table},
};

/// The part that runs inside the laptop.
pub const INSIDE: &str = "idle-inside";

/// At most so much of the peer's.
const LIMIT: f64 = 1.0;
/// One span that is looked at.
const SPAN: Duration = Duration::from_secs(10);
/// From power-on to the login's picture, where everything is emulated twice.
const LOGIN_LIMIT: Duration = Duration::from_mins(10);
/// Megabytes: two desktops.
const LAPTOP_MEMORY: u32 = 4096;

/// Measures.
pub fn run(options: Options) -> Result<Report, BenchError> {
    let cache = Cache::open()?;
    let debian = InstalledDebian::fetch(&cache)?;
    let (vmm, seat) = (ours("sekisho-vmm")?, ours("sekisho-seat")?);
    eprintln!("idle: switching the laptop on");
    let laptop = Laptop::start(LaptopOptions {
        memory: LAPTOP_MEMORY,
        ..LaptopOptions::default()
    })?;
    let disks = ["ours.img", "peer.img"].map(|name| laptop.folder().join(name));
    for disk in &disks {
        debian.copy(disk)?;
    }
    let [our_disk, peers_disk] = &disks;
    let [kernel, initrd] = debian.boot_files(laptop.folder())?;
    let words = [&vmm, &seat, &kernel, &initrd, our_disk, peers_disk]
        .map(|path| path.to_string_lossy().into_owned());
    let words = [&words[..], &[options.runs.to_string()]].concat();
    let spans = u32::try_from(options.runs + 1).unwrap_or(u32::MAX);
    let limit = LOGIN_LIMIT * 2 + SPAN * 2 * spans;
    let measured: Measured = part::run_in(&laptop, INSIDE, &words, limit)?;
    Ok(judged(&measured))
}

fn judged(measured: &Measured) -> Report {
    let pairs = |value: fn(&Cost) -> f64| {
        let mut pairs = Pairs::default();
        for [ours, peer] in &measured.spans {
            pairs.push(value(ours), value(peer));
        }
        pairs
    };
    let exits = pairs(|cost| cost.exits);
    let processor = pairs(|cost| cost.processor);
    let rows = [
        ("exits a second", &exits, 1.0, 0),
        ("of them halts", &pairs(|cost| cost.halts), 1.0, 0),
        (
            "of them accesses to ports and devices",
            &pairs(|cost| cost.accesses),
            1.0,
            1,
        ),
        ("processor time of the VMM, ms a second", &processor, 1e3, 2),
        ("of it the guest's own", &pairs(|cost| cost.guest), 1e3, 2),
        (
            "processor time of the seat, ms a second",
            &pairs(|cost| cost.seat),
            1e3,
            2,
        ),
        (
            "both together",
            &pairs(|cost| cost.processor + cost.seat),
            1e3,
            2,
        ),
    ];
    let mut table = Table::new(
        format!(
            "idle: Debian at its graphical login in the QEMU laptop, VMM with seat / q35 with VNC, medians \
             of {} spans of {} s of both at once",
            measured.spans.len(),
            SPAN.as_secs()
        ),
        &["what", "ours / QEMU's", "ratio (range)"],
    );
    for (name, pairs, scale, digits) in rows {
        table.row([
            name.to_owned(),
            format!(
                "{:.digits$} / {:.digits$}",
                pairs.ours() * scale,
                pairs.peer() * scale
            ),
            if pairs.peer() > 0.0 {
                pairs.ratio_cell()
            } else {
                "-".to_owned()
            },
        ]);
    }
    let mut report = Report::of("idle");
    report.tables.push(table);
    for (name, pairs) in [("exits", &exits), ("processor time of the VMM", &processor)] {
        report.bars.push(Bar::new(
            format!("idle: {name}, ratio to QEMU's"),
            pairs.ratio(),
            Op::AtMost,
            LIMIT,
        ));
    }
    report
}
