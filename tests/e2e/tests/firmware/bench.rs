//! The board of these tests: firmware and VMM in the QEMU laptop.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sekisho_laptop::exec::{ExecClient, Said, Start};
use sekisho_laptop::{Cache, GuestImage, Laptop, Options, Running, build, debian};

/// Firmware takes its time under emulation.
pub(crate) const BOOT: Duration = Duration::from_mins(4);
pub(crate) const SOON: Duration = Duration::from_mins(1);

pub(crate) const TEST_PORT: &str = "jp.sekisho.test.0";
/// What the kernel says first when firmware started it.
pub(crate) const STARTED_BY_FIRMWARE: &str = "efi: EFI v";
/// Exit status of a VMM whose guest asked for a reset.
pub(crate) const RESET_STATUS: i32 = 3;

/// The QEMU laptop, what starts in it, and the firmware.
pub(crate) struct Bench {
    pub(crate) laptop: Laptop,
    pub(crate) image: GuestImage,
    ovmf: PathBuf,
}

impl Bench {
    pub(crate) fn new() -> Self {
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
    pub(crate) fn variables(&self, name: &str) -> PathBuf {
        let copy = self.laptop.folder().join(name);
        fs::copy(self.ovmf.join(name), &copy).expect("variables");
        copy
    }

    /// Starts firmware and kernel.
    pub(crate) fn start(&self, variables: &Path) -> Running {
        self.start_program(&self.image.kernel, variables)
    }

    pub(crate) fn start_program(&self, program: &Path, variables: &Path) -> Running {
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
    pub(crate) fn cmdline(&self) -> String {
        format!("{} loglevel=7", self.image.cmdline.replace(" quiet", ""))
    }

    pub(crate) fn start_machine(&self, variables: &Path, arguments: &[&str]) -> Running {
        self.run(&[], &self.with_firmware(variables, arguments))
    }

    fn with_firmware(&self, variables: &Path, arguments: &[&str]) -> Vec<String> {
        let code = self.ovmf.join("OVMF_CODE_4M.fd");
        let firmware = format!("code={},vars={}", code.display(), variables.display());
        let words = ["--firmware", &firmware].into_iter();
        words
            .chain(arguments.iter().copied())
            .map(str::to_owned)
            .collect()
    }

    /// Starts the kernel without firmware.
    pub(crate) fn start_directly(&self, arguments: &[&str]) -> Running {
        self.start_directly_under(&[], arguments)
    }

    /// As [`Bench::start_directly`], by another program that is given the VMM's command line.
    pub(crate) fn start_directly_under(&self, program: &[&str], arguments: &[&str]) -> Running {
        let [kernel, initrd] = [&self.image.kernel, &self.image.initrd]
            .map(|path| path.to_string_lossy().into_owned());
        let cmdline = self.cmdline();
        let boot = [
            "--kernel",
            &kernel,
            "--initrd",
            &initrd,
            "--cmdline",
            &cmdline,
        ];
        let words = boot.iter().chain(arguments).map(|word| (*word).to_owned());
        self.run(program, &words.collect::<Vec<_>>())
    }

    /// Starts the VMM, by another program where there is one.
    fn run(&self, program: &[&str], arguments: &[String]) -> Running {
        let start = Start {
            argv: Self::line(program, arguments),
            ..Start::default()
        };
        self.laptop.spawn_with(start).expect("VMM")
    }

    fn line(program: &[&str], arguments: &[String]) -> Vec<String> {
        let vmm = build::target_dir().join("debug/sekisho-vmm");
        let vmm = vmm.to_string_lossy();
        let console = format!("name={TEST_PORT},device=/dev/virtio-ports/{TEST_PORT}");
        let own = [&*vmm, "run", "--serial", "stdio", "--console", &console];
        let line = program.iter().chain(&own).map(|word| (*word).to_owned());
        line.chain(arguments.iter().cloned()).collect()
    }

    /// Like [`Bench::start_machine`], with a supervisor; a line that is written to it presses the power
    /// button.
    pub(crate) fn start_supervised(&self, variables: &Path, arguments: &[&str]) -> Running {
        let button = build::target_dir().join("debug/power-button");
        let start = Start {
            argv: Self::line(
                &[&button.to_string_lossy()],
                &self.with_firmware(variables, arguments),
            ),
            stdin: true,
            ..Start::default()
        };
        self.laptop.spawn_with(start).expect("VMM")
    }

    /// A file of a package of the distribution.
    pub(crate) fn package_file(package: &str, path: &str) -> PathBuf {
        let cache = Cache::open().expect("cache");
        let folder = cache.folder(package, |folder| debian::unpack(package, folder));
        folder.expect(package).join(path)
    }

    pub(crate) fn guest(&self) -> ExecClient {
        self.guest_within(BOOT)
    }

    pub(crate) fn guest_within(&self, limit: Duration) -> ExecClient {
        let port = self.laptop.port(TEST_PORT).expect("port");
        let guest = ExecClient::new(port).expect("client");
        guest.hello(limit).expect("the work OS answers");
        guest
    }
}

pub(crate) fn said(guest: &ExecClient, script: &str) -> String {
    let output = guest.run(&["sh", "-c", script], SOON).expect("run");
    assert!(output.status.success(), "{script}: {}", output.said());
    output.text()
}

/// Waits for the VMM's end; its exit status.
pub(crate) fn ended(vmm: &mut Running) -> Option<i32> {
    ended_within(vmm, SOON)
}

pub(crate) fn ended_within(vmm: &mut Running, limit: Duration) -> Option<i32> {
    let deadline = Instant::now() + limit;
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
