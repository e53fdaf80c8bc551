//! Images as QEMU's tools make and judge them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use sekisho_vmm::disk::image::{Changes, ImageError, Plan};
use sekisho_vmm::machine::DiskFormat;

use crate::served::*;
use crate::virtio_fixture::disk::*;
use crate::virtio_fixture::turn_until;
use virtio_drivers::transport::Transport as _;

const SECTORS: u64 = 1 << 15;

/// The same numbers each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// Random requests to a disk, the same to a plain file beside it.
fn exercise(disk: &mut Disk, mirror: &File, seed: u64) {
    let mut numbers = Numbers(seed);
    for round in 0..300_u64 {
        let first = numbers.below(SECTORS - 256);
        let count = 1 + numbers.below(255);
        let (offset, length) = (first * 512, count as usize * 512);
        let segment = (first, count as u32, numbers.below(2) as u32);
        let mut stored = vec![0; length];
        mirror.read_exact_at(&mut stored, offset).unwrap();
        match numbers.below(8) {
            0..=3 => {
                let data = vec![(round + 1) as u8; length];
                disk.write(first, &data);
                mirror.write_all_at(&data, offset).unwrap();
            }
            4 => {
                assert_eq!(disk.write_zeroes(&[segment]), OK);
                mirror.write_all_at(&vec![0; length], offset).unwrap();
            }
            5 => {
                assert_eq!(disk.discard(&[(first, count as u32, 0)]), OK);
                // It reads what it was or zero, each sector for itself, and stays so.
                let now = disk.read(first, length);
                for (new, old) in now.chunks(512).zip(stored.chunks(512)) {
                    assert!(new == old || new == [0; 512]);
                }
                mirror.write_all_at(&now, offset).unwrap();
            }
            6 => assert_eq!(disk.flush(), OK),
            _ => assert!(disk.read(first, length) == stored, "round {round}"),
        }
    }
    assert_eq!(disk.counters().errors, 0);
}

fn compare(raw: &Path, image: &Path) {
    let (raw, image) = (raw.to_str().unwrap(), image.to_str().unwrap());
    qemu_img(&["compare", "-f", "raw", "-F", "qcow2", raw, image]);
}

#[test]
fn a_qcow2_image_is_what_qemu_says_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    let raw = folder.path().join("mirror");
    for (seed, options) in [(1, "cluster_size=65536"), (2, "cluster_size=4096")] {
        let name = path.to_str().unwrap();
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", options, name, "16M"]);
        let mirror = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&raw);
        let mirror = mirror.unwrap();
        mirror.set_len(SECTORS * 512).unwrap();
        for part in 0..2 {
            // Opened again, it is what it was.
            let mut served = Served::start(&qcow2(&path)).unwrap();
            exercise(&mut served.disk, &mirror, seed * 77 + part);
            served.close();
            assert_consistent(&path, false);
            compare(&raw, &path);
        }
    }
}

#[test]
fn an_overlay_holds_the_changes_and_its_base_is_only_read() {
    let folder = tempfile::tempdir().unwrap();
    let [base, overlay, raw] = ["base", "overlay", "mirror"].map(|it| folder.path().join(it));
    let content: Vec<u8> = (0..SECTORS * 512).map(|n| (n / 4099) as u8).collect();
    fs::write(&base, &content).unwrap();
    fs::write(&raw, &content).unwrap();
    let mirror = File::options().read(true).write(true).open(&raw).unwrap();
    for part in 0..2 {
        let mut served = Served::start(&over(&base, &overlay)).unwrap();
        assert!(!is_open_for_writing(&base), "the base is open for writing");
        assert!(is_open_for_writing(&overlay), "nothing is: the control");
        exercise(&mut served.disk, &mirror, 99 + part);
        // The base serves others who read, the overlay nobody else.
        let again = Served::start(&over(&base, &overlay));
        assert!(matches!(again.err(), Some(ImageError::Busy(path)) if path == overlay));
        served.close();
        assert_consistent(&overlay, false);
        compare(&raw, &overlay);
        assert!(fs::read(&base).unwrap() == content, "the base was written");
    }
    // It goes with its base alone.
    let other = folder.path().join("other");
    fs::copy(&base, &other).unwrap();
    let error = Served::start(&over(&other, &overlay))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("holds the changes to"), "{error}");
}

/// Whether this process has the file open for writing.
fn is_open_for_writing(path: &Path) -> bool {
    let path = path.canonicalize().unwrap();
    let open = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(Result::ok);
    let mut same = open.filter(|fd| fs::read_link(fd.path()).is_ok_and(|it| it == path));
    same.any(|fd| {
        let info = Path::new("/proc/self/fdinfo").join(fd.file_name());
        let info = fs::read_to_string(info).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|it| i32::from_str_radix(it.trim(), 8).ok());
        flags.is_some_and(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
    })
}

#[test]
fn temporary_changes_end_with_their_image() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", base.to_str().unwrap(), "16M"]);
    let mut served = Served::start(&qcow2(&base)).unwrap();
    served.disk.write(0, &[5; 4096]);
    served.close();
    let content = fs::read(&base).unwrap();
    for _ in 0..2 {
        let plan = Plan {
            changes: Changes::Temporary,
            ..qcow2(&base)
        };
        let mut served = Served::start(&plan).unwrap();
        assert_eq!(served.disk.read(0, 4096), [5; 4096]);
        served.disk.write(0, &vec![6; 65_536]);
        assert_eq!(served.disk.write_zeroes(&[(64, 8, 1)]), OK);
        assert_eq!(served.disk.flush(), OK);
        let read = served.disk.read(0, 65_536);
        assert_eq!((read[0], read[64 * 512], read[65_535]), (6, 0, 6));
        served.close();
        assert!(fs::read(&base).unwrap() == content, "the base was written");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_read_only_image_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    qemu_img(&["create", "-q", "-f", "qcow2", path.to_str().unwrap(), "16M"]);
    let content = fs::read(&path).unwrap();
    let plan = Plan {
        read_only: true,
        ..qcow2(&path)
    };
    let mut served = Served::start(&plan).unwrap();
    assert!(!is_open_for_writing(&path));
    assert_eq!(served.disk.request(TYPE_OUT, 0, &[1; 512]), IO_ERROR);
    assert_eq!(served.disk.read(7, 512), [0; 512]);
    assert_eq!(served.disk.flush(), OK);
    served.close();
    assert!(fs::read(&path).unwrap() == content);
    // There is nothing to make an overlay for.
    let overlay = folder.path().join("overlay");
    let plan = Plan {
        read_only: true,
        format: DiskFormat::Qcow2,
        ..over(&path, &overlay)
    };
    assert!(matches!(
        Served::start(&plan).err(),
        Some(ImageError::Host { .. })
    ));
}

/// Where the machine is busy a discard may be over before the reset comes; so there are several tries.
#[test]
fn a_reset_ends_a_long_discard() {
    let ended = (0..10).any(|_| a_reset_comes_in_time());
    assert!(ended, "it went on after each reset");
}

/// Resets the disk in the middle of a discard; whether that had not come to its end.
fn a_reset_comes_in_time() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let [base, path] = ["base", "overlay"].map(|it| folder.path().join(it));
    // What is below has to be hidden, cluster by cluster.
    File::create(&base).unwrap().set_len(256 << 30).unwrap();
    let mut served = Served::start(&over(&base, &path)).unwrap();
    let disk = &mut served.disk;
    let alignment: u32 = disk.driver.transport.read_config_space(44).unwrap();
    assert_eq!(alignment, 128, "discard sector alignment");
    let (segments, gigabyte) = (256_u64, 1_u32 << 21);
    let mut bytes = Vec::new();
    for segment in 0..segments {
        bytes.extend((segment << 21).to_le_bytes());
        bytes.extend(gigabyte.to_le_bytes());
        bytes.extend([0; 4]);
    }
    let length = || fs::metadata(&path).unwrap().len();
    let before = length();
    disk.ask(TYPE_DISCARD, 0, &bytes);
    let device = disk.device.clone();
    let busy = || device.lock().unwrap().device().in_flight();
    turn_until(&mut disk.worker, || length() > before);
    disk.driver.transport.set_common(0x14, &[0]);
    let Disk { driver, worker, .. } = &mut *disk;
    turn_until(worker, || driver.transport.status() == 0);
    assert_eq!((busy(), disk.ring.take_used()), (0, None));
    served.close();
    assert_consistent(&path, false);
    // Two second-level tables of 64 KiB a gigabyte, had it gone on.
    fs::metadata(&path).unwrap().len() < segments << 17
}
