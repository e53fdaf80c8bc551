//! What a guest is made of: the options of `sekisho-vmm run`, which a TOML machine file may give
//! by the same names. Unknown names are refused in both.

mod options;

pub use self::options::ValueError;

use std::fmt;
use std::path::PathBuf;

use sekisho_seatlink::Mode;
use serde::Deserialize;

use crate::cpu::{MAX_CPUS, Paravirt};

/// The MTU of the guest's NIC where nothing else is said: inside a `WireGuard` tunnel.
pub const DEFAULT_MTU: u16 = 1420;

/// The machine as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Linux kernel: a bzImage, or an ELF file with a PVH entry. With firmware, which starts it then:
    /// any EFI program.
    pub kernel: Option<PathBuf>,
    /// UEFI firmware, which starts the kernel or finds what to start.
    pub firmware: Option<Firmware>,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    #[serde(default)]
    pub cmdline: String,
    /// Guest memory.
    #[serde(default)]
    pub memory: Size,
    /// Number of processors.
    #[serde(default = "one")]
    pub cpus: u8,
    /// Which hypervisor the guest finds [default: with firmware both, because Windows looks for
    /// Hyper-V; otherwise KVM].
    pub paravirt: Option<Paravirt>,
    /// Disks, in the order in which the guest finds them.
    #[serde(default)]
    pub disk: Vec<Disk>,
    /// NICs.
    #[serde(default)]
    pub net: Vec<Net>,
    /// Console ports.
    #[serde(default)]
    pub console: Vec<Console>,
    /// The screen; without it the guest has none.
    pub display: Option<Screen>,
    /// TPM 2.0.
    pub tpm: Option<Tpm>,
    /// What of the host makes it a laptop; without it it is a desk's machine.
    pub laptop: Option<Laptop>,
    /// The sound card; without it the guest has none.
    pub sound: Option<Sound>,
    /// COM1.
    #[serde(default)]
    pub serial: Serial,
    /// PS/2 keyboard and mouse.
    #[serde(default)]
    pub ps2: bool,
    /// The supervisor's channel, `fd:N`.
    pub control: Option<String>,
    /// Where the control socket is made.
    pub socket: Option<PathBuf>,
    /// User to run as once everything is open.
    pub user: Option<u32>,
}

fn one() -> u8 {
    1
}

/// A number of bytes, written as `512M` or `2G`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Size(pub u64);

impl Default for Size {
    fn default() -> Self {
        Self(512 << 20)
    }
}

/// UEFI firmware.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Firmware {
    /// OVMF's CODE file.
    pub code: PathBuf,
    /// A copy of its VARS file that is this machine's own.
    pub vars: PathBuf,
}

/// A disk image.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Image or block device.
    pub path: PathBuf,
    /// What is in it.
    #[serde(default)]
    pub format: DiskFormat,
    /// Holds the changes, as qcow2; then `path` is only read. It is made if it is not there.
    pub overlay: Option<PathBuf>,
    /// What becomes of the changes.
    #[serde(default)]
    pub changes: DiskChanges,
    /// Refuse writes.
    #[serde(default)]
    pub readonly: bool,
    /// What the guest sees of it.
    #[serde(default)]
    pub device: DiskDevice,
}

/// How an image holds a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFormat {
    /// Byte by byte.
    #[default]
    Raw,
    /// As QEMU's qcow2, version 3.
    Qcow2,
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        })
    }
}

/// What becomes of what the guest writes to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskChanges {
    /// It is kept.
    #[default]
    Kept,
    /// It is gone when the VMM ends, at power-off as at a crash; `path` is only read.
    Temporary,
}

/// The device that a disk is to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskDevice {
    /// Virtio: the fastest, for an operating system that has a driver.
    #[default]
    VirtioBlk,
    /// NVMe: what Windows knows by itself.
    Nvme,
}

/// A NIC and the frame link behind it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// `fd:N`, or the path of a `SOCK_SEQPACKET` socket; without it the cable is out until the
    /// supervisor attaches a link.
    pub link: Option<Endpoint>,
    /// Hardware address.
    pub mac: Mac,
    /// The largest packet that the guest may send.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
}

fn default_mtu() -> u16 {
    DEFAULT_MTU
}

/// A named console port and what is behind it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Console {
    /// The name that the guest sees in `/dev/virtio-ports`.
    pub name: String,
    /// A stream socket; without it and `device` the host's end is closed until the supervisor
    /// attaches one.
    pub socket: Option<Endpoint>,
    /// A character device.
    pub device: Option<PathBuf>,
}

/// The screen and who looks at it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Screen {
    /// The seat's `SOCK_SEQPACKET` socket; without it nobody looks until the supervisor attaches one.
    pub seat: Option<Endpoint>,
    /// Where `sekisho-vmm screenshot` asks: a path to listen at, or an inherited socket that listens.
    pub view: Option<Endpoint>,
    /// Whether a virtio graphics card stands beside the frame buffer, for an operating system that has a
    /// driver.
    #[serde(default)]
    pub gpu: bool,
    /// What the screen tells the guest that it likes best.
    #[serde(default)]
    pub mode: ScreenMode,
}

/// Sides of a screen, written as `1920x1080`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ScreenMode(pub Mode);

impl Default for ScreenMode {
    /// What most laptops' panels have.
    fn default() -> Self {
        Self(Mode::FULL_HD)
    }
}

/// The swtpm behind the TPM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tpm {
    /// Its control channel: `fd:N`, or the path of its `SOCK_STREAM` socket.
    pub socket: Endpoint,
}

/// The host's battery, mains adapter and lid.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Laptop {
    /// The folder with a folder for each power supply, `/sys/class/power_supply`.
    pub supplies: PathBuf,
    /// The lid's state, `/proc/acpi/button/lid/…/state`; without it the lid is open.
    pub lid: Option<PathBuf>,
}

/// Where the sound card's jacks lead.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Sound {
    /// Nowhere: what is played is thrown away, what is recorded is silence.
    Null,
    /// To WAV files, for tests.
    File {
        /// Gets what the guest plays.
        output: PathBuf,
        /// What the guest records.
        input: Option<PathBuf>,
    },
}

/// An inherited descriptor or a path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Endpoint {
    /// `fd:N`, kept as written.
    Inherited(String),
    /// A path in the file system.
    Path(PathBuf),
}

/// Where COM1 leads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "String")]
pub enum Serial {
    /// There is no COM1.
    #[default]
    None,
    /// To the terminal that the VMM was started on.
    Stdio,
    /// Into a file.
    File(PathBuf),
}

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mac(pub [u8; 6]);

impl Default for Machine {
    /// A machine with nothing to start.
    fn default() -> Self {
        Self {
            kernel: None,
            firmware: None,
            initrd: None,
            cmdline: String::new(),
            memory: Size::default(),
            cpus: one(),
            paravirt: None,
            disk: Vec::new(),
            net: Vec::new(),
            console: Vec::new(),
            display: None,
            tpm: None,
            laptop: None,
            sound: None,
            serial: Serial::None,
            ps2: false,
            control: None,
            socket: None,
            user: None,
        }
    }
}

impl Machine {
    /// Reads a machine file.
    pub fn from_toml(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Which hypervisor the guest finds.
    pub fn paravirt(&self) -> Paravirt {
        let usual = || match self.firmware {
            Some(_) => Paravirt::Both,
            None => Paravirt::Kvm,
        };
        self.paravirt.unwrap_or_else(usual)
    }

    /// Whether there is a PS/2 keyboard and mouse: who has a screen has them too.
    pub fn has_ps2(&self) -> bool {
        self.ps2 || self.display.is_some()
    }

    /// Checks what single values cannot tell.
    pub fn check(&self) -> Result<(), ValueError> {
        if self.kernel.is_none() && self.firmware.is_none() {
            return Err(ValueError::Nothing);
        }
        if !(1..=MAX_CPUS).contains(&self.cpus) {
            return Err(ValueError::Cpus(self.cpus));
        }
        for net in &self.net {
            if net.mtu < 576 {
                return Err(ValueError::Mtu(net.mtu.to_string()));
            }
        }
        for disk in &self.disk {
            if disk.overlay.is_some() && disk.changes == DiskChanges::Temporary {
                return Err(ValueError::TwoPlaces);
            }
        }
        for console in &self.console {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            if console.name.is_empty()
                || console.name.len() > 64
                || !console.name.bytes().all(plain)
            {
                return Err(ValueError::Name(console.name.clone()));
            }
            if console.socket.is_some() && console.device.is_some() {
                return Err(ValueError::ConsoleEnd(console.name.clone()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_file_says_the_same_as_the_options() {
        let machine = Machine::from_toml(
            r#"
            kernel = "vmlinuz"
            initrd = "initrd"
            cmdline = "console=ttyS0"
            memory = "1G"
            cpus = 2
            paravirt = "hyper-v"
            serial = "file=/tmp/log"
            control = "fd:3"
            sound = "file=played.wav,input=said.wav"

            [[disk]]
            path = "root.img"
            readonly = true

            [[disk]]
            path = "windows.img"
            device = "nvme"
            format = "qcow2"
            overlay = "today.qcow2"

            [[disk]]
            path = "tools.img"
            changes = "temporary"

            [[net]]
            link = "fd:4"
            mac = "02:53:4b:00:07:17"

            [[console]]
            name = "jp.sekisho.agent.0"
            socket = "fd:5"

            [display]
            seat = "fd:6"
            mode = "1280x800"

            [tpm]
            socket = "/run/swtpm"

            [laptop]
            supplies = "/sys/class/power_supply"
            lid = "/proc/acpi/button/lid/LID0/state"
            "#,
        )
        .unwrap();
        machine.check().unwrap();
        assert_eq!(machine.paravirt(), "hyper-v".parse().unwrap());
        assert_eq!(machine.memory, "1G".parse().unwrap());
        let disks = [
            "path=root.img,readonly=on",
            "path=windows.img,device=nvme,format=qcow2,overlay=today.qcow2",
            "path=tools.img,changes=temporary",
        ];
        assert_eq!(machine.disk, disks.map(|disk| disk.parse().unwrap()));
        let net = "link=fd:4,mac=02:53:4b:00:07:17,mtu=1420";
        assert_eq!(machine.net, [net.parse().unwrap()]);
        let console = "name=jp.sekisho.agent.0,socket=fd:5";
        assert_eq!(machine.console, [console.parse().unwrap()]);
        assert_eq!(
            machine.display,
            Some("seat=fd:6,mode=1280x800".parse().unwrap())
        );
        let sound = Sound::File {
            output: "played.wav".into(),
            input: Some("said.wav".into()),
        };
        assert_eq!(machine.sound, Some(sound));
        assert_eq!(machine.serial, Serial::File("/tmp/log".into()));
        assert_eq!(machine.tpm, Some("socket=/run/swtpm".parse().unwrap()));
        let laptop = "supplies=/sys/class/power_supply,lid=/proc/acpi/button/lid/LID0/state";
        assert_eq!(machine.laptop, Some(laptop.parse().unwrap()));
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = Machine::from_toml("kernel = \"k\"\nmemroy = \"1G\"").unwrap_err();
        assert!(error.to_string().contains("memroy"), "{error}");
        let error = "path=x,ro=on".parse::<Disk>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "`ro` is unknown here: the keys are path, format, overlay, changes, readonly, device"
        );
    }
}
