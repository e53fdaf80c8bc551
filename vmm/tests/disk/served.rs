//! A virtio disk over an image that is served, and what QEMU's tools say of the image.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use sekisho_vmm::disk::image::requests::Closer;
use sekisho_vmm::disk::image::{Changes, Image, ImageError, Plan};
use sekisho_vmm::machine::DiskFormat;
use sekisho_vmm::sandbox::{Thread, filter};
use sekisho_vmm::virtio::block::Block;

use crate::virtio_fixture::disk::{DISCARD, Disk, FLUSH, WRITE_ZEROES};

pub(crate) struct Served {
    pub(crate) disk: Disk,
    closer: Closer,
}

/// A qcow2 image without anything below it.
pub(crate) fn qcow2(path: &Path) -> Plan<'_> {
    Plan {
        path,
        format: DiskFormat::Qcow2,
        read_only: false,
        changes: Changes::Kept,
    }
}

/// A raw base with this overlay.
pub(crate) fn over<'a>(path: &'a Path, overlay: &'a Path) -> Plan<'a> {
    Plan {
        path,
        format: DiskFormat::Raw,
        read_only: false,
        changes: Changes::Overlay(overlay),
    }
}

impl Served {
    pub(crate) fn start(plan: &Plan<'_>) -> Result<Self, ImageError> {
        let (requests, service) = open(plan)?.split().unwrap();
        let closer = service.closer();
        // Closed in as in the VMM: a system call too many ends the test program.
        let filter = filter(Thread::Image).unwrap();
        std::thread::spawn(move || {
            shrink_heap();
            filter.install().unwrap();
            service.run();
        });
        let block = Block::new(requests, plan.read_only, "d").unwrap();
        let features = if plan.read_only {
            FLUSH
        } else {
            FLUSH | DISCARD | WRITE_ZEROES
        };
        let disk = Disk::start(block, features);
        Ok(Self { disk, closer })
    }

    /// As at the guest's end.
    pub(crate) fn close(self) {
        assert!(self.closer.close(Duration::from_secs(20)));
    }
}

/// Has glibc read for once what it reads when a thread's heap shrinks; the VMM has one heap for all.
fn shrink_heap() {
    let blocks: Vec<Vec<u8>> = (0..64).map(|_| vec![1; 100 << 10]).collect();
    drop(std::hint::black_box(blocks));
}

fn tool(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program} (package qemu-utils): {error}"))
}

/// Opens an image. A program that another test is just starting has our descriptors, and with them
/// locks that we have let go, until it has begun.
fn open(plan: &Plan<'_>) -> Result<Image, ImageError> {
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        match Image::open(plan) {
            Err(ImageError::Busy(_)) if Instant::now() < end => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

/// `qemu-img` with these arguments, which has to be content.
pub(crate) fn qemu_img(arguments: &[&str]) -> String {
    let output = tool("qemu-img", arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {text}{error}");
    text
}

/// Whether `qemu-io` reads this byte there.
pub(crate) fn qemu_io_reads(path: &Path, byte: u8, offset: u64, length: usize) -> bool {
    let read = format!("read -P {byte} {offset} {length}");
    let path = path.to_str().unwrap();
    tool("qemu-io", &["-r", "-f", "qcow2", "-c", &read, path])
        .status
        .success()
}

/// The image has no errors; clusters that belong to nothing may be left by a crash.
pub(crate) fn assert_consistent(path: &Path, leaks: bool) {
    let output = tool(
        "qemu-img",
        &["check", "-f", "qcow2", path.to_str().unwrap()],
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let code = output.status.code();
    assert!(
        code == Some(0) || (leaks && code == Some(3)),
        "{code:?}: {text}"
    );
}
