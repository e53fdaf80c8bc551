//! The work OS starts by stock UEFI firmware: Debian's OVMF on our board, in the QEMU laptop, starts
//! Debian's kernel, from outside and from an NVMe disk, keeps its variables over a reset of the machine
//! and a killed VMM, and refuses what Secure Boot does not know.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sekisho_laptop::exec::{ExecClient, Said, Start};
use sekisho_laptop::{Cache, GuestImage, Laptop, Options, Running, build, debian, start_disk};

/// Firmware takes its time under emulation.
const BOOT: Duration = Duration::from_mins(4);
const SOON: Duration = Duration::from_mins(1);

const TEST_PORT: &str = "jp.sekisho.test.0";
/// What the kernel says first when firmware started it.
const STARTED_BY_FIRMWARE: &str = "efi: EFI v";
/// A variable of the test's own.
const VARIABLE: &str = "/sys/firmware/efi/efivars/SekishoTest-7f0e4c55-6f9b-4b6e-9a43-5f2c3c1d8a11";
/// Kept over the power, for boot services and for the work OS.
const ATTRIBUTES: &str = "\\007\\000\\000\\000";

struct Bench {
    laptop: Laptop,
    image: GuestImage,
    ovmf: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let image = GuestImage::build(&build::target_dir().join("work-os")).expect("image");
        let laptop = Laptop::start(Options {
            cr8_workaround: true,
            ports: vec![TEST_PORT.to_owned()],
            ..Options::default()
        })
        .expect("laptop");
        Self {
            laptop,
            image,
            ovmf: Self::package_file("ovmf", "usr/share/OVMF"),
        }
    }

    /// A machine's own copy of the variables that the package has under this name.
    fn variables(&self, name: &str) -> PathBuf {
        let copy = self.laptop.folder().join(name);
        fs::copy(self.ovmf.join(name), &copy).expect("variables");
        copy
    }

    /// Starts firmware and kernel.
    fn start(&self, variables: &Path) -> Running {
        self.start_program(&self.image.kernel, variables)
    }

    fn start_program(&self, program: &Path, variables: &Path) -> Running {
        let [kernel, initrd] =
            [program, &self.image.initrd].map(|path| path.to_string_lossy().into_owned());
        let arguments = [
            "--kernel",
            &kernel,
            "--initrd",
            &initrd,
            "--cmdline",
            &self.cmdline(),
        ];
        self.start_machine(variables, &arguments)
    }

    /// Says more than a work OS at its user's.
    fn cmdline(&self) -> String {
        format!("{} loglevel=7", self.image.cmdline.replace(" quiet", ""))
    }

    fn start_machine(&self, variables: &Path, arguments: &[&str]) -> Running {
        let vmm = build::target_dir().join("debug/sekisho-vmm");
        let code = self.ovmf.join("OVMF_CODE_4M.fd");
        let firmware = format!("code={},vars={}", code.display(), variables.display());
        let console = format!("name={TEST_PORT},device=/dev/virtio-ports/{TEST_PORT}");
        let vmm = vmm.to_string_lossy();
        let mut line = vec![
            &*vmm,
            "run",
            "--firmware",
            &firmware,
            "--memory",
            "512M",
            "--serial",
            "stdio",
            "--console",
            &console,
        ];
        line.extend(arguments);
        self.laptop.spawn(&line).expect("VMM")
    }

    /// A file of a package of the distribution.
    fn package_file(package: &str, path: &str) -> PathBuf {
        let cache = Cache::open().expect("cache");
        let folder = cache.folder(package, |folder| debian::unpack(package, folder));
        folder.expect(package).join(path)
    }

    fn guest(&self) -> ExecClient {
        let port = self.laptop.port(TEST_PORT).expect("port");
        let guest = ExecClient::new(port).expect("client");
        guest.hello(BOOT).expect("the work OS answers");
        guest
    }
}

fn said(guest: &ExecClient, script: &str) -> String {
    let output = guest.run(&["sh", "-c", script], SOON).expect("run");
    assert!(output.status.success(), "{script}: {}", output.said());
    output.text()
}

/// Waits for the VMM's end; its exit status.
fn ended(vmm: &mut Running) -> Option<i32> {
    let deadline = Instant::now() + SOON;
    let mut output = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match vmm.next(left).expect("VMM") {
            Some(Said::Ended(status)) => return status.code,
            Some(Said::Stdout(bytes) | Said::Stderr(bytes)) => output.extend(bytes),
            None => panic!("the VMM goes on: {}", String::from_utf8_lossy(&output)),
        }
    }
}

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
    for line in ["SMBIOS 3.0", "ACPI: RSDP", "SEKISH", "DMI: Sekisho"] {
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

/// Exit status of a VMM whose guest asked for a reset.
const RESET_STATUS: i32 = 3;

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

/// Other people's EFI programs, as the distribution's packages have them, from a disk: each says who it
/// is. `memtest86+` is not here: it wants a display.
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

/// Other people's tools for a TPM, in a folder of their own in the work OS.
const TPM2: &str = "cd /tools && TPM2TOOLS_TCTI=device:/dev/tpmrm0 \
    ./ld-linux-x86-64.so.2 --library-path /tools ./tpm2";

/// Packs tpm2-tools with what they load into an archive that is a disk.
fn pack_tpm2(archive: &Path) {
    let program = Path::new("/usr/bin/tpm2");
    let loaded = Command::new("ldd").arg(program).output().expect("ldd");
    let loaded = String::from_utf8_lossy(&loaded.stdout).into_owned();
    let mut files: Vec<PathBuf> = loaded
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect();
    let esys = files
        .iter()
        .find(|path| path.ends_with("libtss2-esys.so.0"));
    let esys = esys.expect("tpm2 is installed (Debian package tpm2-tools)");
    // What is loaded by its name alone.
    files.push(esys.with_file_name("libtss2-tcti-device.so.0"));
    files.push(program.to_owned());
    files.sort();
    files.dedup();
    let mut tar = Command::new("tar");
    tar.args([
        "--dereference",
        "--hard-dereference",
        "--absolute-names",
        "--create",
        "--file",
    ])
    .arg(archive);
    tar.args(["--transform", "s,.*/,,"]).args(files);
    assert!(tar.status().expect("tar").success());
}

/// Where swtpm keeps its state in the laptop.
const TPM: &str = "/tmp/tpm";

/// Starts swtpm in the laptop, and waits until it can be connected to.
fn start_swtpm(laptop: &Laptop) -> Running {
    let line = format!(
        "mkdir {TPM} && exec swtpm socket --tpm2 --seccomp action=kill --tpmstate dir={TPM} \
         --ctrl type=unixio,path={TPM}/control"
    );
    let swtpm = laptop.spawn(&["sh", "-c", &line]).expect("swtpm");
    let there = format!("until [ -S {TPM}/control ]; do sleep 0.1; done");
    laptop.run(&["sh", "-c", &there]).expect("swtpm");
    swtpm
}

/// What is sealed to the state in which the firmware starts the kernel is unsealed after a reboot, and
/// not in another state (the control). The TPM is swtpm's; the driver is Linux' own.
#[test]
fn linux_seals_to_the_tpm_and_unseals_after_a_reboot() {
    /// The firmware hashes what it starts, four times over.
    const MEASURED: Duration = Duration::from_mins(8);
    let bench = Bench::new();
    let tools = bench.laptop.folder().join("tools.tar");
    pack_tpm2(&tools);
    let _swtpm = start_swtpm(&bench.laptop);
    let variables = bench.variables("OVMF_VARS_4M.fd");
    let [kernel, initrd] =
        [&bench.image.kernel, &bench.image.initrd].map(|path| path.to_string_lossy().into_owned());
    let (disk, tpm, cmdline) = (
        format!("path={},readonly=on", tools.display()),
        format!("socket={TPM}/control"),
        bench.cmdline(),
    );
    let arguments = [
        "--kernel",
        &kernel,
        "--initrd",
        &initrd,
        "--cmdline",
        &cmdline,
        "--disk",
        &disk,
        "--tpm",
        &tpm,
    ];
    let unpack = "mkdir -p /tools && tar -x -f /dev/vda -C /tools";

    let began = Instant::now();
    let mut vmm = bench.start_machine(&variables, &arguments);
    vmm.wait_for(STARTED_BY_FIRMWARE, MEASURED)
        .expect("a kernel");
    let guest = bench.guest();
    println!("from the VMM's start to user space: {:?}", began.elapsed());
    let log = said(&guest, "dmesg");
    let about: Vec<&str> = log
        .lines()
        .filter(|line| line.to_lowercase().contains("tpm"))
        .collect();
    println!("{}", about.join("\n"));
    for complaint in [
        "ACPI Error",
        "ACPI BIOS Error",
        "[Firmware Bug]",
        "tpm tpm0: ",
    ] {
        assert!(!log.contains(complaint), "{complaint}: {log}");
    }
    said(&guest, unpack);
    let properties = said(&guest, &format!("{TPM2} getcap properties-fixed"));
    assert!(
        properties.contains("\"2.0\"") && properties.contains("\"IBM\""),
        "{properties}"
    );
    // The firmware has measured, and its log came to the kernel.
    let log = said(
        &guest,
        "mount -t securityfs securityfs /sys/kernel/security && \
         wc -c < /sys/kernel/security/tpm0/binary_bios_measurements",
    );
    assert!(log.trim().parse::<u32>().expect("a length") > 1000, "{log}");

    let sealed = said(
        &guest,
        &format!(
            "{{ ({TPM2} createprimary -Q -C o -G ecc -c p) && \
             ({TPM2} createpolicy -Q --policy-pcr -l sha256:0,4,7 -L policy) && \
             (cd /tools && echo -n of-this-laptop > secret) && \
             ({TPM2} create -Q -C p -i secret -L policy -u pub -r priv); }} >&2 && \
             cd /tools && tar -c pub priv | base64"
        ),
    );
    let reset = ["sh", "-c", "reboot -f"].map(str::to_owned).to_vec();
    let _resetting = guest
        .spawn(Start {
            argv: reset,
            ..Start::default()
        })
        .expect("reset");
    assert_eq!(ended(&mut vmm), Some(RESET_STATUS));

    let _vmm = bench.start_machine(&variables, &arguments);
    guest.sync(MEASURED).expect("the work OS answers again");
    let unseal = format!("{TPM2} unseal -c s -p pcr:sha256:0,4,7");
    let unsealed = said(
        &guest,
        &format!(
            "({unpack} && cd /tools && base64 -d | tar -x) <<'END' && \
             {{ ({TPM2} createprimary -Q -C o -G ecc -c p) && \
             ({TPM2} load -Q -C p -u pub -r priv -c s); }} >&2 && {unseal}\n{sealed}\nEND\n"
        ),
    );
    assert_eq!(unsealed, "of-this-laptop");
    let digest = "11".repeat(32);
    let extend = format!("{TPM2} pcrextend 7:sha256={digest}");
    said(&guest, &extend);
    let refused = guest.run(&["sh", "-c", &unseal], SOON).expect("run");
    println!("{}", refused.said());
    assert!(!refused.status.success(), "in another state");
}
