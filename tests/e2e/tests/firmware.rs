//! The work OS starts by stock UEFI firmware: Debian's OVMF on our board, in the QEMU laptop, starts
//! Debian's kernel, keeps its variables over a reset of the machine and a killed VMM, and refuses what
//! Secure Boot does not know.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sekisho_laptop::exec::{ExecClient, Said, Start};
use sekisho_laptop::{Cache, GuestImage, Laptop, Options, Running, build, debian};

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
        let cache = Cache::open().expect("cache");
        let package = cache
            .folder("ovmf", |folder| debian::unpack("ovmf", folder))
            .expect("ovmf");
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
            ovmf: package.join("usr/share/OVMF"),
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
        let vmm = build::target_dir().join("debug/sekisho-vmm");
        let code = self.ovmf.join("OVMF_CODE_4M.fd");
        let firmware = format!("code={},vars={}", code.display(), variables.display());
        let console = format!("name={TEST_PORT},device=/dev/virtio-ports/{TEST_PORT}");
        let cmdline = format!("{} loglevel=7", self.image.cmdline.replace(" quiet", ""));
        let [vmm, kernel, initrd] =
            [&vmm, program, &self.image.initrd].map(|path| path.to_string_lossy().into_owned());
        self.laptop
            .spawn(&[
                &vmm,
                "run",
                "--firmware",
                &firmware,
                "--kernel",
                &kernel,
                "--initrd",
                &initrd,
                "--cmdline",
                &cmdline,
                "--memory",
                "512M",
                "--serial",
                "stdio",
                "--console",
                &console,
            ])
            .expect("VMM")
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

    let cache = Cache::open().expect("cache");
    let package = cache
        .folder("shim-signed", |folder| {
            debian::unpack("shim-signed", folder)
        })
        .expect("shim");
    let shim = package.join("usr/lib/shim/shimx64.efi.signed");
    let mut vmm = bench.start_program(&shim, &variables);
    // It finds no boot loader behind itself, and says so.
    let told = vmm.wait_for("grubx64.efi", BOOT).expect("shim runs");
    println!("{told}");
}
