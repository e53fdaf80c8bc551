//! What is needed from the distribution, and its installation.

use std::process::{Command, Stdio};

use crate::steps::{Failure, done, say};

/// A reason to have packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// To compile and link the workspace.
    Build,
    /// The networks outside the laptop.
    Lab,
    /// The machine that plays the laptop.
    Laptop,
    /// Checks that other people's tools make for the tests.
    Judges,
    /// Peers to measure against.
    Bench,
    /// What libFuzzer itself is built with.
    Fuzz,
}

impl Need {
    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Build => &["gcc", "libc6-dev", "cmake", "make"],
            Self::Lab => &[
                "busybox-static",
                "bind9-dnsutils",
                "curl",
                "dbus-daemon",
                "dhcpcd-base",
                "dnsmasq-base",
                "faketime",
                "hostapd",
                "iproute2",
                "iputils-ping",
                "libcharon-extra-plugins",
                "libglib2.0-bin",
                "libstrongswan-extra-plugins",
                "libstrongswan-standard-plugins",
                "modemmanager",
                "netcat-openbsd",
                "nftables",
                "nginx-light",
                "oathtool",
                "ocserv",
                "openconnect",
                "python3-dbusmock",
                "python3-scapy",
                "radvd",
                "softhsm2",
                "strongswan-charon",
                "strongswan-swanctl",
                "tcpdump",
                "wireguard-go",
                "wireguard-tools",
                "wpasupplicant",
            ],
            Self::Laptop => &[
                "busybox-static",
                "e2fsprogs",
                "fdisk",
                "hostapd",
                "iproute2",
                "kmod",
                "libstrongswan-standard-plugins",
                "libtss2-tcti-device0",
                "lz4",
                "mmdebstrap",
                "mtools",
                "python3",
                "qemu-system-x86",
                "strongswan-charon",
                "strongswan-swanctl",
                "swtpm",
                "tpm2-tools",
                "wpasupplicant",
                "xz-utils",
            ],
            Self::Judges => &[
                "acpica-tools",
                "dmidecode",
                "edid-decode",
                "fonts-ipafont-gothic",
                "gir1.2-gtk-vnc-2.0",
                "gvncviewer",
                "ntfs-3g",
                "python3-gi",
                "qemu-utils",
                "swtpm",
                "systemd",
            ],
            Self::Bench => &["ethtool", "iperf3"],
            Self::Fuzz => &["g++"],
        }
    }
}

/// Installs what is missing; costs a moment where nothing is.
pub(crate) fn install(needs: &[Need]) -> Result<(), Failure> {
    let mut wanted: Vec<&str> = needs
        .iter()
        .flat_map(|need| need.packages())
        .copied()
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    let missing: Vec<&str> = wanted
        .into_iter()
        .filter(|package| !installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let started = say(&format!(
        "installing from the distribution: {}",
        missing.join(" ")
    ));
    // An index that is not there yet, or names a version that the archive replaced.
    if !apt(&[
        &["install", "--yes", "--no-install-recommends"],
        &missing[..],
    ]
    .concat())?
    {
        apt(&["update"])?;
        if !apt(&[
            &["install", "--yes", "--no-install-recommends"],
            &missing[..],
        ]
        .concat())?
        {
            return Err(Failure::Packages(missing.join(" ")));
        }
    }
    done(started);
    Ok(())
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|answer| answer.stdout == b"installed")
}

/// Runs apt-get quietly; its words come out only when it fails.
fn apt(arguments: &[&str]) -> Result<bool, Failure> {
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|id| id.stdout.trim_ascii() == b"0");
    let mut command = if root {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("apt-get");
        sudo
    };
    let answer = command
        .args(arguments)
        .args([
            "--quiet=2",
            "-o",
            "Dpkg::Use-Pty=0",
            "-o",
            "DPkg::Lock::Timeout=300",
        ])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::Start("apt-get".to_owned(), error))?;
    if !answer.status.success() {
        eprint!("{}", String::from_utf8_lossy(&answer.stderr));
    }
    Ok(answer.status.success())
}
