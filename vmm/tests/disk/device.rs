//! A host's block device that only says when it is asked that it cannot give up ranges.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use sekisho_vmm::virtio::block::Block;
use tempfile::TempDir;

use crate::virtio_fixture::disk::*;

/// A loop device over a file of a file system that makes no holes (`ntfs-3g`). The kernel believes that
/// it does until it is told otherwise.
struct Stubborn {
    folder: TempDir,
    device: Option<PathBuf>,
}

fn run(program: &str, arguments: &[&Path]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(arguments).stderr(Stdio::null());
    let output = command.output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

impl Stubborn {
    /// `None` where such a device cannot be had, which it says.
    fn new() -> Option<Self> {
        let root = rustix::process::geteuid().is_root();
        if sekisho_skip::skip_unless(root, "a loop device needs root") {
            return None;
        }
        let made = Self::make();
        if made.is_none() {
            sekisho_skip::skip("a loop device over ntfs-3g cannot be made here");
        }
        made
    }

    fn make() -> Option<Self> {
        let mut made = Self {
            folder: tempfile::tempdir().unwrap(),
            device: None,
        };
        let (volume, folder) = (made.folder.path().join("volume"), made.mount());
        File::create(&volume).unwrap().set_len(32 << 20).unwrap();
        fs::create_dir(&folder).unwrap();
        let quick = ["-F", "-Q", "-q"].map(Path::new);
        run("mkntfs", &[&quick[..], &[&volume]].concat())?;
        run("ntfs-3g", &[&volume, &folder])?;
        let image = folder.join("disk");
        File::create(&image).unwrap().set_len(8 << 20).unwrap();
        let show = ["-f", "--show"].map(Path::new);
        made.device = Some(run("losetup", &[&show[..], &[&image]].concat())?.into());
        Some(made)
    }

    fn open(&self) -> File {
        let mut options = File::options();
        let path = self.device.as_ref().unwrap();
        options.read(true).write(true).open(path).unwrap()
    }

    fn mount(&self) -> PathBuf {
        self.folder.path().join("mount")
    }
}

impl Drop for Stubborn {
    fn drop(&mut self) {
        if let Some(device) = &self.device {
            run("losetup", &[Path::new("-d"), device]);
        }
        // Waits for the loop device, which lets go of its file a moment later.
        for _ in 0..50 {
            if run("umount", &[&self.mount()]).is_some() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[test]
fn a_device_that_gives_nothing_up_loses_nothing() {
    let (Some(first), Some(second)) = (Stubborn::new(), Stubborn::new()) else {
        return;
    };
    // The control: asked directly, the kernel drops what was only cached of the range.
    let file = first.open();
    file.write_all_at(&[1; 4096], 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&[2; 4096], 0).unwrap();
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    assert_eq!(fallocate(&file, hole, 0, 4096), Err(Errno::OPNOTSUPP));
    let mut bytes = [0; 4096];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [1; 4096], "this device does not show the trap");
    let block = Block::new(second.open(), false, "d").unwrap();
    let mut disk = Disk::start(block, FLUSH | DISCARD | WRITE_ZEROES);
    disk.write(0, &[3; 16 << 10]);
    assert_eq!(disk.flush(), OK);
    disk.write(0, &[4; 16 << 10]);
    // With odd edges, too.
    assert_eq!(disk.discard(&[(1, 30, 0)]), OK);
    assert_eq!(disk.read(0, 16 << 10), [4; 16 << 10]);
    // Zeroes are zeroes all the same.
    disk.write(64, &[5; 8192]);
    assert_eq!(disk.write_zeroes(&[(64, 8, 1)]), OK);
    assert_eq!(disk.write_zeroes(&[(73, 2, 1)]), OK);
    let read = disk.read(64, 8192);
    assert_eq!(read[..4096], [0; 4096]);
    assert_eq!(read[4096..4608], [5; 512]);
    assert_eq!(read[4608..5632], [0; 1024]);
    assert_eq!(read[5632..], [5; 2560]);
    assert_eq!(disk.counters().errors, 0);
}
