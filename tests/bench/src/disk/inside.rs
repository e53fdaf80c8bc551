//! What runs inside the laptop: starts both VMMs and gives their guests loads in turn.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use sekisho_load::{RAN, READY, Ran};
use serde::{Deserialize, Serialize};

use super::{Kind, START_LIMIT};
use crate::{
    BenchError,
    machine::{self, Machine, Vmm, copy},
    part, program,
};

/// Guest memory in MiB.
const MEMORY: u64 = 256;
/// The kernel's words, for both.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 no_timer_check";
/// Bytes of an image.
const IMAGE: usize = 64 << 20;
/// Kilobytes of the disk in memory: four images and a file system.
const DISK_KIB: usize = 4 * (IMAGE >> 10) + (64 << 10);

/// What this part prints.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Measured {
    /// Requests a second, of ours and of the peer's, for each kind of load.
    pub(super) runs: Vec<Vec<[f64; 2]>>,
}

/// The part: `VMM KERNEL INITRD RUNS`.
pub fn inside(arguments: &[String]) -> Result<(), BenchError> {
    let [vmm, kernel, initrd, runs] = arguments else {
        return Err(BenchError::Missing("VMM KERNEL INITRD RUNS".to_owned()));
    };
    let runs: usize = runs
        .parse()
        .map_err(|_| BenchError::Missing("RUNS is a number".to_owned()))?;
    let folder = tempfile::tempdir().map_err(BenchError::system("make a folder"))?;
    let here = |from: &str, name: &str| copy(from, &folder.path().join(name));
    let (kernel, initrd) = (here(kernel, "kernel")?, here(initrd, "initrd")?);
    let vmm = here(vmm, "vmm")?;
    let images = images()?;

    eprintln!("disk: starting both guests");
    let started = |command: &mut Command, whose| {
        machine::kernel(command, whose, &kernel, &initrd, CMDLINE);
        let mut machine = Machine::start(command, START_LIMIT)?;
        machine.await_line(READY)?;
        Ok::<_, BenchError>(machine)
    };
    let mut ours = started(&mut our_command(&vmm, &images), Vmm::Ours)?;
    let mut peer = started(&mut peers_command(&images), Vmm::Peer)?;

    let mut measured = Measured::default();
    for run in 0..=runs {
        if run == 0 {
            eprintln!("disk: warming up");
        } else {
            eprintln!("disk: run {run} of {runs}");
        }
        let mut rates = Vec::new();
        for kind in Kind::all() {
            let mut pair = [0.0; 2];
            for whose in Vmm::in_turn(run) {
                let (machine, rate) = match whose {
                    Vmm::Ours => (&mut ours, &mut pair[0]),
                    Vmm::Peer => (&mut peer, &mut pair[1]),
                };
                *rate = load(machine, kind)?.rate();
            }
            rates.push(pair);
        }
        if run > 0 {
            measured.runs.push(rates);
        }
    }
    part::tell(&measured)
}

/// One load.
fn load(machine: &mut Machine, kind: Kind) -> Result<Ran, BenchError> {
    // What others wrote is not to be written back meanwhile.
    rustix::fs::sync();
    machine.type_line(&kind.load().to_string())?;
    let (_, answer) = machine.await_line("LOAD-")?;
    let ran = RAN
        .strip_prefix("LOAD-")
        .and_then(|word| answer.strip_prefix(word));
    let ran = ran.and_then(|rest| rest.parse().ok());
    ran.ok_or_else(|| machine.failed("a load failed"))
}

/// The images of both VMMs: NVMe and virtio-blk.
struct Images {
    ours: [PathBuf; 2],
    peers: [PathBuf; 2],
}

/// Makes a file system on a disk in memory, and four images of the same bytes there.
fn images() -> Result<Images, BenchError> {
    let size = format!("rd_size={DISK_KIB}");
    program::run(Command::new("modprobe").args(["brd", "rd_nr=1", &size]))?;
    program::run(Command::new("mke2fs").args(["-q", "-t", "ext4", "/dev/ram0"]))?;
    let place = Path::new("/run/images");
    std::fs::create_dir_all(place).map_err(BenchError::system("make a folder"))?;
    program::run(Command::new("mount").arg("/dev/ram0").arg(place))?;
    let image = |name: &str| {
        let path = place.join(name);
        let fill = || {
            let mut file = File::create(&path)?;
            let piece = vec![0x5a; 1 << 20];
            for _ in 0..IMAGE / piece.len() {
                file.write_all(&piece)?;
            }
            file.sync_all()
        };
        fill().map_err(BenchError::system("write an image"))?;
        Ok::<_, BenchError>(path)
    };
    Ok(Images {
        ours: [image("ours.nvme")?, image("ours.virtio")?],
        peers: [image("peers.nvme")?, image("peers.virtio")?],
    })
}

fn our_command(vmm: &Path, images: &Images) -> Command {
    let mut command = machine::ours(vmm, MEMORY);
    for (image, device) in images.ours.iter().zip(["nvme", "virtio-blk"]) {
        command.arg("--disk");
        command.arg(format!("path={},device={device}", image.display()));
    }
    command
}

fn peers_command(images: &Images) -> Command {
    let mut command = machine::peer("q35", MEMORY);
    let devices = [
        ("nvme", "nvme,drive=nvme,serial=peer"),
        ("virtio", "virtio-blk-pci,drive=virtio"),
    ];
    for (image, (id, device)) in images.peers.iter().zip(devices) {
        let file = image.display();
        command
            .arg("-drive")
            .arg(format!(
                "if=none,id={id},format=raw,file={file},cache=writeback,aio=io_uring"
            ))
            .args(["-device", device]);
    }
    command
}
