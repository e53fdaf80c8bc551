//! The work OS starts by stock UEFI firmware: Debian's OVMF on our board, in the QEMU laptop, starts
//! Debian's kernel, from outside and from an NVMe disk, keeps its variables over a reset of the machine
//! and a killed VMM, refuses what Secure Boot does not know, and draws on the screen.

mod bench;
mod desktop;
mod laptop;
mod memory;
#[path = "../picture/mod.rs"]
mod picture;
mod sound;
mod tpm;

use std::fs;
use std::path::Path;
use std::time::Instant;

use sekisho_laptop::exec::{ExecClient, Start};
use sekisho_laptop::{build, start_disk};

use bench::*;

/// A variable of the test's own.
const VARIABLE: &str = "/sys/firmware/efi/efivars/SekishoTest-7f0e4c55-6f9b-4b6e-9a43-5f2c3c1d8a11";
/// Kept over the power, for boot services and for the work OS.
const ATTRIBUTES: &str = "\\007\\000\\000\\000";

#[test]
fn stock_firmware_starts_a_stock_kernel_and_keeps_its_variables() {
    let bench = Bench::new();
    let variables = bench.variables("OVMF_VARS_4M.fd");

    let began = Instant::now();
    let mut vmm = bench.start(&variables);
    let boot = vmm.wait_for(STARTED_BY_FIRMWARE, BOOT).expect("a kernel");
    println!("from the VMM's start to the kernel: {:?}", began.elapsed());
    assert!(!boot.contains("Security Violation"), "{boot}");
    let guest = bench.guest();
    println!("to user space: {:?}", began.elapsed());

    // What firmware was told is what the kernel finds.
    let log = said(&guest, "dmesg");
    let found = [
        "SMBIOS 3.0",
        "ACPI: RSDP",
        "SEKISH",
        "DMI: Sekisho",
        // Behind Hyper-V, which is for Windows.
        "Hypervisor detected: KVM",
    ];
    for line in found {
        assert!(log.contains(line), "no {line}: {log}");
    }
    for complaint in [
        "ACPI BIOS Error",
        "ACPI Error",
        "ACPI BIOS Warning",
        "[Firmware Bug]",
    ] {
        assert!(!log.contains(complaint), "{complaint}: {log}");
    }

    said(
        &guest,
        &format!(
            "mount -t efivarfs efivarfs /sys/firmware/efi/efivars && \
             printf '{ATTRIBUTES}kept' > {VARIABLE} && sync"
        ),
    );
    // Ends the VMM by a reset of the machine; no orderly shutdown of the guest.
    let reset = ["sh", "-c", "echo b > /proc/sysrq-trigger"];
    let _resetting = guest
        .spawn(Start {
            argv: reset.map(str::to_owned).to_vec(),
            ..Start::default()
        })
        .expect("reset");
    assert_eq!(ended(&mut vmm), Some(RESET_STATUS));

    let began = Instant::now();
    let _vmm = bench.start(&variables);
    guest.sync(BOOT).expect("the work OS answers again");
    println!("the second time, to user space: {:?}", began.elapsed());
    let kept = said(
        &guest,
        &format!("mount -t efivarfs efivarfs /sys/firmware/efi/efivars && tail -c 4 {VARIABLE}"),
    );
    assert_eq!(kept, "kept");
    // Two machines cannot have the same variables.
    let mut second = bench.start(&variables);
    let refused = second
        .wait_for("another machine that runs has them", SOON)
        .expect("refused");
    println!("{refused}");
}

/// Windows is not to be had here; Linux looks for Hyper-V too where it finds no KVM, and then uses the
/// same clock, timers and hypercalls.
#[test]
fn a_work_os_that_knows_hyper_v_alone_uses_its_clock_and_timers() {
    let bench = Bench::new();
    let clock = "cat /sys/devices/system/clocksource/clocksource0/current_clocksource";
    let mut first = None;
    for (paravirt, detected, source) in [
        ("kvm", "Hypervisor detected: KVM", "kvm-clock"),
        (
            "hyper-v",
            "Hypervisor detected: Microsoft Hyper-V",
            "hyperv_clocksource_tsc_page",
        ),
    ] {
        let mut vmm = bench.start_directly(&["--paravirt", paravirt, "--cpus", "2"]);
        if let Some(guest) = &first {
            ExecClient::sync(guest, BOOT).expect("the work OS answers again");
        }
        let guest = first.get_or_insert_with(|| bench.guest());
        let log = said(guest, "dmesg");
        assert!(log.contains(detected), "{paravirt}: {log}");
        assert_eq!(said(guest, clock).trim(), source, "{paravirt}: {log}");
        // SynIC's registers are the guest's to write, of which KVM tells the VMM: it runs on. A guest that was
        // offered none has none (the control).
        for register in ["0x40000080", "0x40000082", "0x40000083"] {
            let write = format!(
                "printf '\\000\\000\\000\\000\\000\\000\\000\\000' | \
                 dd of=/dev/cpu/1/msr bs=8 seek=$(({register})) oflag=seek_bytes conv=notrunc 2>&1"
            );
            let written = guest.run(&["sh", "-c", &write], SOON).expect("run");
            println!("{paravirt} {register}: {}", written.said());
            assert_eq!(written.status.success(), paravirt == "hyper-v");
        }
        let counts = said(guest, "cat /proc/interrupts");
        let timers = counts
            .lines()
            .find(|line| line.trim_start().starts_with("HVS:"));
        println!("{paravirt}: {timers:?}");
        assert_eq!(timers.is_some(), paravirt == "hyper-v", "{counts}");
        let _off = guest.spawn(Start {
            argv: vec!["poweroff".to_owned(), "-f".to_owned()],
            ..Start::default()
        });
        assert_eq!(ended(&mut vmm), Some(0), "{paravirt}");
    }
}

/// Packages of the distribution and what of them starts first, and next.
const SHIM: (&str, &str) = ("shim-signed", "usr/lib/shim/shimx64.efi.signed");
const GRUB: (&str, &str) = (
    "grub-efi-amd64-signed",
    "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
);

/// Debian's kernel is signed for Debian's shim, whose key the firmware does not have: with Secure Boot it
/// does not start. Debian's shim, which Microsoft signed, does (the control).
#[test]
fn secure_boot_refuses_what_it_does_not_know() {
    const NOT_STARTED: &str = "BdsDxe: failed to start";
    let bench = Bench::new();
    let variables = bench.variables("OVMF_VARS_4M.ms.fd");
    let mut vmm = bench.start(&variables);
    let told = vmm.wait_for(NOT_STARTED, BOOT).expect("firmware refuses");
    assert!(!told.contains(STARTED_BY_FIRMWARE), "{told}");
    drop(vmm);

    let shim = Bench::package_file(SHIM.0, SHIM.1);
    let mut vmm = bench.start_program(&shim, &variables);
    // It finds no boot loader behind itself, and says so.
    let told = vmm.wait_for("grubx64.efi", BOOT).expect("shim runs");
    println!("{told}");
}

/// The chain that Debian ships, from a disk: shim, which Microsoft signed, GRUB and the kernel, which
/// Debian signed. Then the kernel's own driver works on a second disk, and what it flushed outlives the
/// VMM.
#[test]
fn secure_boot_starts_debian_from_an_nvme_disk() {
    let bench = Bench::new();
    let variables = bench.variables("OVMF_VARS_4M.ms.fd");
    let folder = bench.laptop.folder().to_owned();
    let (menu, disk, data) = (
        folder.join("grub.cfg"),
        folder.join("disk.img"),
        folder.join("data.img"),
    );
    let script = format!("linux /vmlinuz {}\ninitrd /initrd\nboot\n", bench.cmdline());
    fs::write(&menu, script).expect("menu");
    start_disk::make(
        &disk,
        128 << 20,
        &[
            ("EFI/BOOT/BOOTX64.EFI", &Bench::package_file(SHIM.0, SHIM.1)),
            ("EFI/BOOT/grubx64.efi", &Bench::package_file(GRUB.0, GRUB.1)),
            ("EFI/debian/grub.cfg", &menu),
            ("vmlinuz", &bench.image.kernel),
            ("initrd", &bench.image.initrd),
        ],
    )
    .expect("disk");
    let file = fs::File::create(&data).expect("data");
    file.set_len(64 << 20).expect("data");

    let began = Instant::now();
    let disks = [
        format!("path={},device=nvme,readonly=on", disk.display()),
        format!("path={},device=nvme", data.display()),
    ];
    let vmm = bench.start_machine(&variables, &["--disk", &disks[0], "--disk", &disks[1]]);
    let guest = bench.guest();
    println!("from the VMM's start to user space: {:?}", began.elapsed());
    let secure = said(
        &guest,
        "mount -t efivarfs efivarfs /sys/firmware/efi/efivars && tail -c 1 \
         /sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c | od -An -tu1",
    );
    assert_eq!(secure.trim(), "1", "Secure Boot is off");

    let found = said(
        &guest,
        "cd /sys/block && for disk in nvme*; do \
         echo $disk $(cat $disk/device/serial $disk/device/model $disk/size $disk/ro); done",
    );
    println!("{found}");
    let second = found
        .lines()
        .find(|line| line.contains("sekisho-1 Sekisho NVMe disk 131072 0"))
        .expect("the second disk");
    assert!(found.contains("sekisho-0 Sekisho NVMe disk 262144 1"));
    let second = second.split(' ').next().unwrap_or_default();
    let sum = said(
        &guest,
        &format!(
            "dd if=/dev/urandom of=/tmp/random bs=64k count=128 2>/dev/null && \
             dd if=/tmp/random of=/dev/{second} bs=256k seek=7 conv=fsync 2>/dev/null && \
             echo 3 > /proc/sys/vm/drop_caches && \
             dd if=/dev/{second} bs=256k skip=7 count=32 2>/dev/null | cmp - /tmp/random && \
             sha256sum < /tmp/random"
        ),
    );
    let log = said(&guest, "dmesg | grep -i nvme");
    println!("{log}");
    for complaint in ["error", "fail", "timeout", "missing", "invalid", "reset"] {
        assert!(
            !log.to_lowercase().contains(complaint),
            "{complaint}: {log}"
        );
    }
    vmm.signal(9).expect("kill");
    let kept = bench
        .laptop
        .run(&[
            "sh",
            "-c",
            &format!(
                "dd if={} bs=256k skip=7 count=32 2>/dev/null | sha256sum",
                data.display()
            ),
        ])
        .expect("sum");
    assert_eq!(kept.text(), sum);
}

/// Firmware's own driver finds the screen, takes the mode that the screen prefers and draws: its shell's
/// text, in the console's grey on black. Before it does, nothing is shown (the control).
#[test]
fn stock_firmware_draws_on_the_screen() {
    const VIEW: &str = "/run/view";
    const SHOWS_NOTHING: &str = "screen shows nothing";
    let bench = Bench::new();
    let variables = bench.variables("OVMF_VARS_4M.fd");
    let file = bench.laptop.folder().join("firmware.png");
    let (vmm, picture) = (build::target_dir().join("debug/sekisho-vmm"), file.clone());
    let screenshot = || {
        let [vmm, picture] = [&vmm, &picture].map(|path| path.to_string_lossy());
        let line = [&*vmm, "screenshot", "--socket", VIEW, &*picture];
        let output = bench.laptop.run(&line).expect("a screenshot");
        (output.status.success(), output.said())
    };
    let display = format!("mode=1280x720,view={VIEW}");
    let mut machine = bench.start_machine(&variables, &["--display", &display]);
    let began = Instant::now();
    let first = loop {
        let (_, said) = screenshot();
        if !said.contains("cannot be asked") {
            break said;
        }
        assert!(began.elapsed() < SOON, "{said}");
    };
    assert!(first.contains(SHOWS_NOTHING), "{first}");
    machine
        .wait_for("UEFI Interactive Shell", BOOT)
        .expect("shell");
    let (done, said) = screenshot();
    assert!(done, "{said}");
    let (sides, pixels) = picture::decode(&file);
    println!("{}: {sides:?}", file.display());
    assert_eq!(sides, (1280, 720));
    let drawn = pixels.chunks_exact(3).filter(|pixel| *pixel != [0, 0, 0]);
    let drawn = drawn.count();
    println!("{drawn} pixels are not black");
    // A line of text at least, and the most of the screen empty.
    assert!((400..1280 * 720 / 2).contains(&drawn), "{drawn}");
}

/// Other people's EFI programs, as the distribution's packages have them, from a disk: each says who it
/// is. `memtest86+` is in `memory.rs`: it says nothing but on the screen.
#[test]
fn other_peoples_programs_start_from_the_disk() {
    let bench = Bench::new();
    let folder = bench.laptop.folder().to_owned();
    let (settings, entry) = (folder.join("loader.conf"), folder.join("entry.conf"));
    fs::write(&settings, "timeout 60\n").expect("settings");
    let title = "What systemd-boot has found";
    fs::write(
        &entry,
        format!("title {title}\nefi /EFI/other/program.efi\n"),
    )
    .expect("entry");
    for (package, path, says) in [
        (
            "grub-efi-amd64-bin",
            "usr/lib/grub/x86_64-efi/monolithic/grubx64.efi",
            "GNU GRUB",
        ),
        (
            "systemd-boot-efi",
            "usr/lib/systemd/boot/efi/systemd-bootx64.efi",
            title,
        ),
        ("ipxe", "boot/ipxe.efi", "iPXE"),
    ] {
        let disk = folder.join(format!("{package}.img"));
        let program = Bench::package_file(package, path);
        let files: [(&str, &Path); 4] = [
            ("EFI/BOOT/BOOTX64.EFI", &program),
            // systemd-boot does not offer itself.
            ("EFI/other/program.efi", &program),
            ("loader/loader.conf", &settings),
            ("loader/entries/entry.conf", &entry),
        ];
        start_disk::make(&disk, 64 << 20, &files).expect("disk");
        let variables = bench.variables("OVMF_VARS_4M.fd");
        let disk = format!("path={},device=nvme,readonly=on", disk.display());
        let mut vmm = bench.start_machine(&variables, &["--disk", &disk]);
        let began = Instant::now();
        vmm.wait_for(says, BOOT).expect(package);
        println!("{package}: {:?}", began.elapsed());
    }
    // Where there is nothing to start, there is the firmware's own shell.
    let variables = bench.variables("OVMF_VARS_4M.fd");
    let mut vmm = bench.start_machine(&variables, &[]);
    vmm.wait_for("UEFI Interactive Shell", BOOT).expect("shell");
}
