//! The VMM's start, end and memory: Debian's cloud kernel and a user space that says how late it is
//! and switches off, on one processor, in the QEMU laptop.
//!
//! Against QEMU's `microvm` with KVM, the same kernel and initrd, in the same laptop, turn by turn.
//! Where the laptop is emulated its seconds are not a laptop's, but they are the same for both.

mod inside;
mod memory;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sekisho_laptop::{
    Cache, Laptop, Options as LaptopOptions,
    cpio::Archive,
    debian::{self, FetchError},
    kernel::{Flavour, Kernel},
};

pub use self::inside::inside;
use self::inside::{Boot, Held, Measured, Started};
use crate::{
    BenchError, Options, part,
    program::ours,
    report::{Bar, Op, Pairs, Report, Table, median},
};

/// The part that runs inside the laptop.
pub const INSIDE: &str = "boot-inside";

/// The guest's time at its init, at most so many times the peer's.
const UPTIME: f64 = 0.28;
/// From the start of the process to its exit, likewise.
const TOTAL: f64 = 0.38;
/// From the start of the process to the guest's init, by firmware, at most so many times q35's.
const BY_FIRMWARE: f64 = 0.8;
/// Memory beside the guest's, in MiB.
const BESIDE: f64 = 8.0;

/// How long one start may take inside a laptop that is emulated on a busy machine. The first one by
/// firmware makes all its variables, for which QEMU's flash takes two minutes there.
const START_LIMIT: Duration = Duration::from_mins(5);

/// PID 1 of the guest. With `sekisho.hold` it stays, for whoever wants to look at the VMM.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
echo \"UPTIME-AT-INIT $(/bin/busybox cat /proc/uptime)\"
read words </proc/cmdline
case \"$words\" in *sekisho.hold*) /bin/busybox sleep 60;; esac
/bin/busybox poweroff -f
";

/// Measures.
pub fn run(options: Options) -> Result<Report, BenchError> {
    let cache = Cache::open()?;
    let kernel = Kernel::fetch(&cache, Flavour::Cloud)?;
    let measured = measure(&cache, &kernel, options, None)?;
    Ok(judged(&measured, kernel.release()))
}

/// Measures the start by UEFI firmware, against QEMU's `q35` with the same firmware.
pub fn run_firmware(options: Options) -> Result<Report, BenchError> {
    let cache = Cache::open()?;
    let kernel = Kernel::fetch(&cache, Flavour::Cloud)?;
    let ovmf = cache.folder("ovmf", |folder| debian::unpack("ovmf", folder))?;
    let ovmf = ovmf.join("usr/share/OVMF");
    let measured = measure(&cache, &kernel, options, Some(&ovmf))?;
    let pairs = |value: fn(&Started) -> f64| {
        let mut pairs = Pairs::default();
        for [ours, peer] in &measured.by_firmware {
            pairs.push(value(ours), value(peer));
        }
        pairs
    };
    let mut table = Table::new(
        format!(
            "firmware: OVMF starts Linux {} with a tiny user space, one processor, in the QEMU \
             laptop, VMM / q35, medians of {} paired runs",
            kernel.release(),
            measured.by_firmware.len()
        ),
        &["from start to guest's init", "VMM / q35", "ratio (range)"],
    );
    let time = pairs(|started| started.to_init);
    for (name, pairs, digits) in [
        ("seconds", &time, 2),
        ("exits", &pairs(|started| count(started.exits)), 0),
        (
            "of them accesses to ports and devices",
            &pairs(|started| count(started.accesses)),
            0,
        ),
    ] {
        table.row([
            name.to_owned(),
            format!("{:.digits$} / {:.digits$}", pairs.ours(), pairs.peer()),
            pairs.ratio_cell(),
        ]);
    }
    let mut report = Report::of("firmware");
    report.tables.push(table);
    report.bars.push(Bar::new(
        "firmware: start to guest's init, ratio to q35",
        time.ratio(),
        Op::AtMost,
        BY_FIRMWARE,
    ));
    Ok(report)
}

/// Switches a laptop on and starts both VMMs in it in turn; by the firmware in the folder `ovmf`, or
/// directly.
fn measure(
    cache: &Cache,
    kernel: &Kernel,
    options: Options,
    ovmf: Option<&Path>,
) -> Result<Measured, BenchError> {
    let vmm = ours("sekisho-vmm")?;
    eprintln!("boot: switching the laptop on");
    let laptop = Laptop::start(LaptopOptions {
        cr8_workaround: ovmf.is_some(),
        ..LaptopOptions::default()
    })?;
    let initrd = laptop.folder().join("guest-initrd");
    write_initrd(cache, &initrd)?;
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let mut words = vec![
        path(&vmm),
        path(&kernel.vmlinuz()),
        path(&initrd),
        options.runs.to_string(),
    ];
    for file in ["OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"] {
        words.extend(ovmf.map(|folder| path(&folder.join(file))));
    }
    // Two warm ones, and two timed and two held ones a run.
    let starts = u32::try_from(2 + 4 * options.runs).unwrap_or(u32::MAX);
    let measured = part::run_in(&laptop, INSIDE, &words, START_LIMIT * starts)?;
    laptop.power_off(START_LIMIT)?;
    Ok(measured)
}

fn write_initrd(cache: &Cache, path: &Path) -> Result<(), BenchError> {
    let busybox = busybox(cache)?;
    let write = || -> std::io::Result<()> {
        let mut archive = Archive::new(Vec::new());
        archive.character_device("dev/console", 5, 1)?;
        archive.folder("proc")?;
        archive.file("init", 0o755, INIT.as_bytes())?;
        archive.file("bin/busybox", 0o755, &fs::read(&busybox)?)?;
        fs::write(path, archive.finish()?)
    };
    write().map_err(BenchError::system("make the guest's initrd"))
}

pub(crate) fn busybox(cache: &Cache) -> Result<PathBuf, BenchError> {
    let root = cache.folder("busybox-static", |folder| {
        debian::unpack("busybox-static", folder)
    })?;
    // Where it lies depends on the release.
    let found = ["bin/busybox", "usr/bin/busybox"]
        .map(|path| root.join(path))
        .into_iter()
        .find(|path| path.is_file());
    Ok(found.ok_or_else(|| FetchError::Incomplete(root.join("bin/busybox")))?)
}

fn count(exits: u64) -> f64 {
    f64::from(u32::try_from(exits).unwrap_or(u32::MAX))
}

fn judged(measured: &Measured, release: &str) -> Report {
    let runs = measured.ours.len();
    let pairs = |value: fn(&Boot) -> f64| {
        let mut pairs = Pairs::default();
        for (ours, peer) in measured.ours.iter().zip(&measured.peer) {
            pairs.push(value(ours), value(peer));
        }
        pairs
    };
    let rows = [
        ("guest's uptime at its init", pairs(|boot| boot.uptime)),
        ("start to guest's init", pairs(|boot| boot.to_init)),
        ("start to exit", pairs(|boot| boot.total)),
    ];
    let mut times = Table::new(
        format!(
            "boot: Linux {release} with a tiny user space, one processor, in the QEMU laptop, VMM \
             / microvm, medians of {runs} paired runs"
        ),
        &["from .. to", "seconds", "ratio (range)"],
    );
    for (name, pairs) in &rows {
        times.row([
            (*name).to_owned(),
            format!("{:.2} / {:.2}", pairs.ours(), pairs.peer()),
            pairs.ratio_cell(),
        ]);
    }
    let first: Vec<f64> = held(&measured.ours_held, |held| held.first_instruction);
    times.row([
        "start to guest's first instruction".to_owned(),
        format!("{:.3} / -", median(first)),
        "-".to_owned(),
    ]);
    let mut memory = Table::new(
        "boot: memory of the VMM's process while the guest's init runs, VMM / microvm",
        &["resident", "MiB"],
    );
    let beside = |helds: &[Held]| median(held(helds, |held| Some(held.beside_kib / 1024.0)));
    let guest = |helds: &[Held]| median(held(helds, |held| Some(held.guest_kib / 1024.0)));
    let both = |value: &dyn Fn(&[Held]) -> f64| {
        format!(
            "{:.1} / {:.1}",
            value(&measured.ours_held),
            value(&measured.peer_held)
        )
    };
    memory.row(["beside the guest's memory".to_owned(), both(&beside)]);
    memory.row(["the guest's memory".to_owned(), both(&guest)]);

    let mut report = Report::of("boot");
    report.tables.extend([times, memory]);
    report.bars.extend([
        Bar::new(
            "boot: guest's uptime at its init, ratio to microvm",
            rows[0].1.ratio(),
            Op::AtMost,
            UPTIME,
        ),
        Bar::new(
            "boot: start to exit, ratio to microvm",
            rows[2].1.ratio(),
            Op::AtMost,
            TOTAL,
        ),
        Bar::new(
            "boot: memory beside the guest's, MiB",
            beside(&measured.ours_held),
            Op::AtMost,
            BESIDE,
        ),
    ]);
    report
}

fn held(all: &[Held], value: fn(&Held) -> Option<f64>) -> Vec<f64> {
    all.iter().filter_map(value).collect()
}
