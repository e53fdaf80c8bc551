//! Images that lie.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::served::*;
use crate::virtio_fixture::disk::*;

/// Makes an image with these arguments; what opening it says.
fn refusal(folder: &Path, arguments: &[&str]) -> String {
    let path = folder.join("disk.qcow2");
    let _ = fs::remove_file(&path);
    let mut all = vec!["create", "-q", "-f", "qcow2"];
    all.extend(arguments);
    all.extend([path.to_str().unwrap(), "16M"]);
    qemu_img(&all);
    let error = Served::start(&qcow2(&path)).err();
    error.map(|it| it.to_string()).unwrap_or_default()
}

#[test]
fn an_image_opens_no_file_that_nobody_named() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, vec![7; 16 << 20]).unwrap();
    let secret = secret.to_str().unwrap();
    assert_eq!(refusal(folder.path(), &[]), "", "the control");
    for (arguments, reason) in [
        (vec!["-b", secret, "-F", "raw"], "it names the backing file"),
        (
            vec![
                "--object",
                "secret,id=s,data=x",
                "-o",
                "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
            ],
            "it is encrypted",
        ),
        (
            vec!["-o", &format!("data_file={secret}.data")],
            "its data are in another file",
        ),
        (vec!["-o", "compat=0.10"], "its version is 2"),
        (
            vec!["-o", "cluster_size=2M"],
            "its clusters have 2^21 bytes",
        ),
        (vec!["-o", "refcount_bits=1"], "counts have not 16 bits"),
        (
            vec!["-o", "extended_l2=on"],
            "features that are not supported (0x10)",
        ),
        (
            vec!["-o", "compression_type=zstd"],
            "features that are not supported (0x8)",
        ),
    ] {
        let said = refusal(folder.path(), &arguments);
        assert!(said.contains(reason), "{arguments:?}: {said}");
    }
    // A base is held to the same.
    let base = folder.path().join("disk.qcow2");
    refusal(folder.path(), &["-b", secret, "-F", "raw"]);
    let overlay = folder.path().join("overlay");
    let plan = sekisho_vmm::disk::image::Plan {
        changes: sekisho_vmm::disk::image::Changes::Overlay(&overlay),
        ..qcow2(&base)
    };
    let said = Served::start(&plan).err().unwrap().to_string();
    assert!(said.contains("it names the backing file"), "{said}");
    assert!(!overlay.exists());
}

/// Tables full of nonsense: each request is answered, with its data or with an error, and the disk
/// comes to rest.
#[test]
fn tables_of_nonsense_are_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.qcow2");
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "cluster_size=4096",
        path.to_str().unwrap(),
        "16M",
    ]);
    let mut served = Served::start(&qcow2(&path)).unwrap();
    for sector in 0..64 {
        served.disk.write(sector * 64, &[9; 4096]);
    }
    served.close();
    let good = fs::read(&path).unwrap();
    let (mut opened, mut failed) = (0, 0);
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..150 {
        let file = File::create(&path).unwrap();
        file.write_all_at(&good, 0).unwrap();
        for _ in 0..=round % 8 {
            // Behind the header proper: tables, counts, and what follows them.
            let at = 104 + next() % (good.len() as u64 - 112);
            let at = at - at % 8;
            let value = match next() % 3 {
                0 => next(),
                1 => (next() % (good.len() as u64)) & !0xfff | 1 << 63,
                _ => u64::MAX,
            };
            file.write_all_at(&value.to_be_bytes(), at).unwrap();
        }
        let Ok(mut served) = Served::start(&qcow2(&path)) else {
            continue;
        };
        opened += 1;
        let disk = &mut served.disk;
        for sector in [0, 64, 640, 4000, 20_000, 32_000] {
            disk.request(TYPE_OUT, sector, &[3; 8192]);
            disk.write_zeroes(&[(sector, 16, 1)]);
            disk.discard(&[(sector, 256, 0)]);
            disk.request(TYPE_IN, sector, &[]);
        }
        disk.flush();
        failed += usize::from(disk.counters().errors > 0);
        served.close();
    }
    assert!(
        opened > 50 && failed > 0,
        "{opened} opened, {failed} failed"
    );
}
