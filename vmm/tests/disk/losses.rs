//! What survives the VMM's death and a host without room.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sekisho_skip::skip_unless;

use crate::served::*;
use crate::virtio_fixture::disk::*;

const IMAGE: &str = "SEKISHO_TEST_IMAGE";

/// The child's part: writes and flushes without end, and says what was acknowledged.
#[test]
fn child() {
    let Some(path) = std::env::var_os(IMAGE).map(PathBuf::from) else {
        return;
    };
    let mut served = Served::start(&qcow2(&path)).unwrap();
    for round in 0_u64.. {
        let byte = (round % 250 + 1) as u8;
        // Each round its own cluster, and one that all share.
        served.disk.write(round % 250 * 128 + 1, &[byte; 1024]);
        served.disk.write(0, &[byte; 512]);
        served.disk.discard(&[((round + 125) % 250 * 128, 128, 0)]);
        assert_eq!(served.disk.flush(), OK);
        println!("flushed {round}");
        served.disk.write(round % 250 * 128 + 64, &[byte; 4096]);
    }
}

#[test]
fn an_acknowledged_flush_survives_the_death_of_the_vmm() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    for rounds in [3, 40, 160] {
        qemu_img(&["create", "-q", "-f", "qcow2", path.to_str().unwrap(), "16M"]);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "losses::child", "--nocapture"])
            .env(IMAGE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut last = 0_u64;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(round) = line.split("flushed ").nth(1) {
                last = round.parse().unwrap();
                if last == rounds {
                    // In the middle of whatever it does.
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(last >= rounds);
        assert_consistent(&path, true);
        for round in last.saturating_sub(100)..=last {
            let byte = (round % 250 + 1) as u8;
            let offset = (round % 250 * 128 + 1) * 512;
            assert!(
                qemu_io_reads(&path, byte, offset, 1024),
                "{round} of {last}"
            );
        }
        // The control: it looks.
        assert!(!qemu_io_reads(&path, 251, 512, 1024));
    }
}

/// A file system of a few MiB.
struct Small(PathBuf);

impl Small {
    fn size(&self, options: &str) -> bool {
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(&self.0);
        command.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_host_is_the_guests_error_and_loses_nothing_written_before() {
    let root = rustix::process::geteuid().is_root();
    if skip_unless(root, "a small file system needs root") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let small = Small(folder.path().to_owned());
    if skip_unless(small.size("size=2m"), "no file system can be mounted here") {
        return;
    }
    let path = folder.path().join("disk.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", path.to_str().unwrap(), "16M"]);
    let mut served = Served::start(&qcow2(&path)).unwrap();
    let disk = &mut served.disk;
    let content = |n: u64| vec![n as u8 + 1; 65_536];
    let write = |disk: &mut Disk, n: u64| disk.request(TYPE_OUT, n * 128, &content(n));
    for n in 0..8 {
        assert_eq!(write(disk, n), OK);
    }
    assert_eq!(disk.flush(), OK);
    let taken = (8..64).take_while(|n| write(disk, *n) == OK).count() as u64;
    assert!((4..40).contains(&taken), "{taken} of a full host");
    for n in 0..8 + taken {
        assert!(
            disk.read(n * 128, 65_536) == vec![n as u8 + 1; 65_536],
            "{n}"
        );
    }
    // With room it goes on, and everything is there.
    assert!(small.size("remount,size=32m"));
    for n in 8 + taken..64 {
        assert_eq!(write(disk, n), OK, "{n}");
    }
    assert_eq!(disk.flush(), OK);
    served.close();
    assert_consistent(&path, true);
    for n in 0..64 {
        assert!(reads(&path, n), "{n}");
    }
}

fn reads(path: &Path, n: u64) -> bool {
    qemu_io_reads(path, n as u8 + 1, n << 16, 65_536)
}
