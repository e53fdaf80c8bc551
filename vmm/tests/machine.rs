//! The whole program with guests of a few instructions: they run wherever `/dev/kvm` opens, also
//! where it only interprets, because they use nothing but plain integer instructions and ports.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends there")]

mod guest_fixture;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use guest_fixture::code::Code;
use guest_fixture::{Bench, kernel, vmm, wait};
use rustix::fs::{FlockOperation, flock};
use rustix::pipe::PipeFlags;

#[test]
fn a_guest_that_shuts_down_ends_with_0() {
    let Some(bench) = Bench::new(&Code::default().print("off").switch_off()) else {
        return;
    };
    assert_eq!(bench.run(&mut bench.command()), (0, b"off".to_vec()));
}

#[test]
fn a_guest_that_resets_ends_with_3() {
    for code in [
        Code::default().out8(0xcf9, 2).out8(0xcf9, 6),
        Code::default().out8(0x64, 0xfe),
    ] {
        let Some(bench) = Bench::new(&code.raw(&[0xf4])) else {
            return;
        };
        assert_eq!(bench.run(&mut bench.command()).0, 3);
    }
}

#[test]
fn a_triple_fault_is_told_and_ends_with_4() {
    // There is no IDT: an undefined instruction is the end.
    let Some(bench) = Bench::new(&Code::default().raw(&[0x0f, 0x0b])) else {
        return;
    };
    let output = wait(bench.command().spawn().unwrap());
    assert_eq!(output.status.code(), Some(4));
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("triple fault"), "{log}");
}

#[test]
fn what_is_not_there_reads_as_ones() {
    let code = Code::default()
        .echo8(0x2f8)
        .echo8(0x60)
        .echo_memory(0xc000_0000)
        .echo_memory(0xb00f_0000)
        .switch_off();
    let Some(bench) = Bench::new(&code) else {
        return;
    };
    assert_eq!(bench.run(&mut bench.command()), (0, vec![0xff; 4]));
}

#[test]
fn the_host_bridge_and_the_tables_are_there() {
    let code = Code::default()
        .out32(0xcf8, 0x8000_0000)
        .echo8(0xcfc)
        .echo8(0xcfd)
        .echo_memory(0xb000_0002)
        .echo_memory(0xb000_0003)
        .echo_memory(0xe_0000)
        .echo_memory(0xe_0001)
        .echo_memory(0xe_0002)
        .switch_off();
    let Some(bench) = Bench::new(&code) else {
        return;
    };
    let (code, serial) = bench.run(&mut bench.command());
    assert_eq!((code, &serial[..]), (0, &b"\x86\x80\xc0\x29RSD"[..]));
}

/// An ELF kernel starts in 32-bit mode and finds its start information by `ebx`.
#[test]
fn an_elf_kernel_starts_by_its_pvh_entry() {
    let code = Code::default()
        .echo_rbx(0)
        .echo_rbx(1)
        .echo_rbx(2)
        .echo_rbx(3)
        .echo_behind_rbx(24) // command line
        .echo_behind_rbx(32) // RSDP
        .follow_rbx(16) // list of modules
        .echo_behind_rbx(0)
        .switch_off();
    let Some(bench) = Bench::with_kernel(&kernel::pvh_elf(&code.0)) else {
        return;
    };
    fs::write(bench.path("initrd"), b"initrd").unwrap();
    let mut command = bench.command();
    command.arg("--initrd").arg(bench.path("initrd"));
    command.args(["--cmdline", "quiet"]);
    let magic = 0x336e_c578_u32.to_le_bytes();
    let (status, serial) = bench.run(&mut command);
    assert_eq!((status, &serial[..4]), (0, &magic[..]));
    assert_eq!(&serial[4..], b"qRi");
}

#[test]
fn an_elf_file_without_a_pvh_entry_is_refused_with_what_to_give_instead() {
    let mut image = kernel::pvh_elf(&[0xf4]);
    // The note's type.
    image[0xc8] = 17;
    let Some(bench) = Bench::with_kernel(&image) else {
        return;
    };
    let output = wait(bench.command().spawn().unwrap());
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("without a PVH entry"), "{text}");
    assert!(text.contains("give a 64-bit bzImage"), "{text}");
}

#[test]
fn a_string_of_port_reads_is_one_read_each() {
    // Each reads the first byte of the host bridge's vendor; read as one dword they would be its
    // vendor and device.
    let code = Code::default()
        .out32(0xcf8, 0x8000_0000)
        .string_in(0xcfc, 0x20_0000, 4)
        .echo_memory(0x20_0000)
        .echo_memory(0x20_0001)
        .echo_memory(0x20_0002)
        .echo_memory(0x20_0003)
        .switch_off();
    let Some(bench) = Bench::new(&code) else {
        return;
    };
    assert_eq!(bench.run(&mut bench.command()), (0, vec![0x86; 4]));
}

/// More than the pipe holds, and nobody reads.
#[test]
fn a_reader_of_the_serial_port_that_stalls_does_not_stop_the_guest() {
    const PIPE: usize = 4096;
    let code = Code::default().print_many(b'x', 8192).switch_off();
    let Some(bench) = Bench::new(&code) else {
        return;
    };
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
    rustix::pipe::fcntl_setpipe_size(&write, PIPE).unwrap();
    let mut command = bench.command_without_serial();
    command.args(["--serial", "stdio"]).stdout(write);
    let child = command.spawn().unwrap();
    drop(command);
    assert_eq!(wait(child).status.code(), Some(0));
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut fs::File::from(read), &mut text).unwrap();
    assert!((1..=PIPE).contains(&text.len()), "{}", text.len());
}

#[test]
fn a_guest_with_images_ends_and_leaves_them_whole() {
    let Some(bench) = Bench::new(&Code::default().switch_off()) else {
        return;
    };
    let (base, overlay) = (bench.path("base"), bench.path("overlay"));
    fs::write(&base, vec![7; 1 << 20]).unwrap();
    let mut command = bench.command();
    for (keys, device) in [
        (format!("overlay={}", overlay.display()), "nvme"),
        ("changes=temporary".to_owned(), "virtio-blk"),
    ] {
        let disk = format!("path={},{keys},device={device}", base.display());
        command.args(["--disk", &disk]);
    }
    assert_eq!(bench.run(&mut command).0, 0);
    let checked = Command::new("qemu-img")
        .args(["compare", "-f", "raw", "-F", "qcow2"])
        .args([&base, &overlay])
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
    // An image that is to bring in another file is the person's to decide on.
    let disk = format!("path={},format=qcow2", overlay.display());
    let output = wait(bench.command().args(["--disk", &disk]).spawn().unwrap());
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("which is never opened by itself"), "{said}");
}

#[test]
fn what_is_written_has_one_machine() {
    let Some(bench) = Bench::new(&Code::default().switch_off()) else {
        return;
    };
    let path = bench.path("disk");
    fs::write(&path, vec![0; 1 << 20]).unwrap();
    // Another machine's, as far as the kernel knows.
    let other = fs::File::open(&path).unwrap();
    for (lock, readonly, status) in [
        (FlockOperation::LockExclusive, "off", 1),
        (FlockOperation::LockExclusive, "on", 1),
        (FlockOperation::LockShared, "off", 1),
        (FlockOperation::LockShared, "on", 0),
        (FlockOperation::Unlock, "off", 0),
    ] {
        flock(&other, lock).unwrap();
        let disk = format!("path={},readonly={readonly}", path.display());
        let output = wait(bench.command().args(["--disk", &disk]).spawn().unwrap());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert_eq!(said.contains("is in use by another machine"), status == 1);
    }
}

#[test]
fn what_is_wrong_is_said_in_a_sentence() {
    let refused = |arguments: &[&str]| {
        let output = wait(
            vmm()
                .args(arguments)
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = refused(&["run", "--kernel", "/nowhere"]);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("--kernel /nowhere cannot be opened"),
        "{text}"
    );
    let (code, text) = refused(&["run", "--kernel", "k", "--disk", "path=x,ro=on"]);
    assert_eq!(code, Some(2));
    assert!(text.contains("the keys are path, format"), "{text}");
    let (code, text) = refused(&["run", "--kernel", "k", "--control", "fd:1"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("standard"), "{text}");
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"kernel = \"k\"\ncpu = 2\n").unwrap();
    let (code, text) = refused(&["run", "--config", file.path().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(text.contains("line 2") && text.contains("`cpu`"), "{text}");
}
