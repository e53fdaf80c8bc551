//! The disks: NVMe and virtio-blk of our VMM against QEMU's, in the QEMU laptop.
//!
//! Both VMMs run at once, each with an NVMe and a virtio-blk disk over images of its own on the same file
//! system: ext4 on a disk in the laptop's memory, so that what is measured is the way there. The guests
//! run the same kernel and the same program, and are given the same load in turn.

mod inside;

use std::{fs, path::Path, time::Duration};

use sekisho_laptop::{
    Cache, Laptop, Options as LaptopOptions, build,
    cpio::Archive,
    kernel::{Flavour, Kernel},
};
use sekisho_load::{Direction, Load, Order};

use self::inside::Measured;
pub use self::inside::inside;
use crate::{
    BenchError, Options,
    boot::busybox,
    part,
    program::ours,
    report::{Bar, Op, Pairs, Report, Table},
};

/// The part that runs inside the laptop.
pub const INSIDE: &str = "disk-inside";

/// Requests a second, at least so many times the peer's.
const LIMIT: f64 = 0.9;

/// How long a load runs.
const LOAD_TIME: Duration = Duration::from_millis(500);
/// How long the laptop, which may be emulated on a busy machine, may take for both guests' start.
const START_LIMIT: Duration = Duration::from_mins(4);
/// Megabytes: two guests, four images and what is cached of them.
const LAPTOP_MEMORY: u32 = 3072;

/// What the guest needs for its disks.
const MODULES: &[&str] = &["virtio_pci", "virtio_blk", "nvme"];

/// PID 1 of the guest.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
until [ -b /dev/vda ] && [ -b /dev/nvme0n1 ]; do /bin/busybox sleep 0.1; done
/bin/busybox stty -echo
/bin/load
/bin/busybox poweroff -f
";

/// A disk and what is done with it.
#[derive(Debug, Clone, Copy)]
struct Kind {
    disk: &'static str,
    device: &'static str,
    direction: Direction,
    order: Order,
    block: u32,
    depth: u32,
}

impl Kind {
    /// All that are measured.
    fn all() -> impl Iterator<Item = Self> {
        const KIB: u32 = 1 << 10;
        let disks = [("nvme", "/dev/nvme0n1"), ("virtio-blk", "/dev/vda")];
        let shapes = [
            (Order::Random, 4 * KIB, 1),
            (Order::Random, 4 * KIB, 32),
            (Order::Sequential, 1024 * KIB, 4),
        ];
        disks.into_iter().flat_map(move |(disk, device)| {
            shapes.into_iter().flat_map(move |(order, block, depth)| {
                [Direction::Read, Direction::Write].map(|direction| Self {
                    disk,
                    device,
                    direction,
                    order,
                    block,
                    depth,
                })
            })
        })
    }

    fn load(self) -> Load {
        Load {
            device: self.device.to_owned(),
            direction: self.direction,
            order: self.order,
            block: self.block,
            depth: self.depth,
            time: LOAD_TIME,
        }
    }

    fn label(self) -> String {
        let direction = match self.direction {
            Direction::Read => "read",
            Direction::Write => "write",
        };
        let what = match self.order {
            Order::Random => "4 KiB random",
            Order::Sequential => "1 MiB sequential",
        };
        format!("{} {what} {direction}, {} deep", self.disk, self.depth)
    }
}

/// Measures.
pub fn run(options: Options) -> Result<Report, BenchError> {
    let cache = Cache::open()?;
    let kernel = Kernel::fetch(&cache, Flavour::Cloud)?;
    let load = build::static_program("sekisho-load", "sekisho-load", &[])?;
    let vmm = ours("sekisho-vmm")?;
    eprintln!("disk: switching the laptop on");
    let laptop = Laptop::start(LaptopOptions {
        memory: LAPTOP_MEMORY,
        ..LaptopOptions::default()
    })?;
    let initrd = laptop.folder().join("guest-initrd");
    write_initrd(&cache, &kernel, &load, &initrd)?;
    let words = [&vmm, &kernel.vmlinux(), &initrd].map(|path| path.to_string_lossy().into_owned());
    let words = [&words[..], &[options.runs.to_string()]].concat();
    // One more run to warm up; what a load waits for beside its time is the emulation.
    let loads = u32::try_from(2 * (options.runs + 1) * Kind::all().count()).unwrap_or(u32::MAX);
    let limit = START_LIMIT + LOAD_TIME * 4 * loads;
    let measured: Measured = part::run_in(&laptop, INSIDE, &words, limit)?;
    laptop.power_off(START_LIMIT)?;
    Ok(judged(&measured, kernel.release()))
}

fn write_initrd(
    cache: &Cache,
    kernel: &Kernel,
    load: &Path,
    path: &Path,
) -> Result<(), BenchError> {
    let busybox = busybox(cache)?;
    let modules = kernel.modules(MODULES)?;
    let write = || -> std::io::Result<()> {
        let mut archive = Archive::new(Vec::new());
        archive.character_device("dev/console", 5, 1)?;
        archive.file("init", 0o755, INIT.as_bytes())?;
        archive.file("bin/busybox", 0o755, &fs::read(&busybox)?)?;
        archive.file("bin/load", 0o755, &fs::read(load)?)?;
        let mut order = String::new();
        for module in &modules {
            let name = module.file_name().unwrap_or_default().to_string_lossy();
            archive.file(&format!("modules/{name}"), 0o644, &fs::read(module)?)?;
            order.extend([&name, "\n"]);
        }
        archive.file("modules/order", 0o644, order.as_bytes())?;
        fs::write(path, archive.finish()?)
    };
    write().map_err(BenchError::system("make the guest's initrd"))
}

fn judged(measured: &Measured, release: &str) -> Report {
    let mut table = Table::new(
        format!(
            "disk: Linux {release} in the QEMU laptop, images on ext4 on a disk in memory, one processor \
             for everything, VMM / q35 with cache=writeback,aio=io_uring, medians of {} paired runs",
            measured.runs.len()
        ),
        &["disk and load", "requests/s", "MiB/s", "ratio (range)"],
    );
    let mut report = Report::of("disk");
    for (index, kind) in Kind::all().enumerate() {
        let mut pairs = Pairs::default();
        for run in &measured.runs {
            if let Some([ours, peer]) = run.get(index) {
                pairs.push(*ours, *peer);
            }
        }
        let mebibytes = f64::from(kind.block) / f64::from(1 << 20);
        table.row([
            kind.label(),
            format!("{:.0} / {:.0}", pairs.ours(), pairs.peer()),
            format!(
                "{:.1} / {:.1}",
                pairs.ours() * mebibytes,
                pairs.peer() * mebibytes
            ),
            pairs.ratio_cell(),
        ]);
        report.bars.push(Bar::new(
            format!("disk: {}, ratio to QEMU's", kind.label()),
            pairs.ratio(),
            Op::AtLeast,
            LIMIT,
        ));
    }
    report.tables.push(table);
    report
}
