//! A work OS on a disk, as a person has it: Debian by the distribution's own tools, with the shim, the
//! boot loader and the kernel that its makers signed, and a graphical login.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use crate::build;
use crate::debian::{self, Cache, FetchError};
use crate::guest::GuestError;
use crate::start_disk::{self, Root};

/// Of the root file system; the configuration names it too.
const UUID: &str = "5ec15b0a-7f0e-4c55-9a43-5f2c3c1d8a11";
/// Where the test's program is in the EFI system partition.
const PROGRAM: &str = "sekisho-laptop-init";
const SYSTEM_PARTITION: u64 = 64 << 20;
/// The system takes some 900 MiB.
const ROOT: u64 = 1536 << 20;

/// What is installed beside the system itself.
const PACKAGES: &[&str] = &[
    "dbus",
    "dmidecode",
    "efibootmgr",
    "grub-efi-amd64-signed",
    "initramfs-tools",
    "lightdm",
    "lightdm-gtk-greeter",
    "linux-image-amd64",
    "lz4",
    "mokutil",
    "nvme-cli",
    "openbox",
    "shim-signed",
    "systemd-sysv",
    "udev",
    "xserver-xorg-core",
    "xserver-xorg-input-libinput",
];

/// What nobody reads here, and drivers of hardware that is not there.
const LEFT_OUT: &[&str] = &[
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/lib/modules/*/kernel/drivers/media/*",
    "/lib/modules/*/kernel/drivers/infiniband/*",
    "/lib/modules/*/kernel/drivers/net/wireless/*",
    "/lib/modules/*/kernel/drivers/gpu/drm/amd/*",
    "/lib/modules/*/kernel/drivers/gpu/drm/i915/*",
    "/lib/modules/*/kernel/drivers/gpu/drm/nouveau/*",
    "/lib/modules/*/kernel/drivers/gpu/drm/radeon/*",
    "/lib/modules/*/kernel/drivers/net/ethernet/*",
    "/lib/modules/*/kernel/drivers/scsi/*",
    "/lib/modules/*/kernel/drivers/staging/*",
    "/lib/modules/*/kernel/drivers/iio/*",
    "/lib/modules/*/kernel/sound/*",
    "/usr/share/icons/*/cursors/*",
    "/usr/share/icons/*/[1-9]*x[1-9]*/*",
];

/// What is done before the packages are configured, and after; the root is the argument.
const PREPARE: &str = include_str!("../installed/prepare.sh");
const CONFIGURE: &str = include_str!("../installed/configure.sh");

/// Debian, installed.
#[derive(Debug, Clone)]
pub struct InstalledDebian {
    disk: PathBuf,
}

impl InstalledDebian {
    /// The person who can log in, and the password.
    pub const PERSON: (&'static str, &'static str) = ("hanako", "kyoto");
    /// Where its root file system begins on its disk, in bytes.
    pub const ROOT_OFFSET: u64 = start_disk::START + SYSTEM_PARTITION;

    /// Takes it from the cache, or installs it first, which takes minutes.
    pub fn fetch(cache: &Cache) -> Result<Self, FetchError> {
        let mut recipe = DefaultHasher::new();
        (PACKAGES, LEFT_OUT, PREPARE, CONFIGURE).hash(&mut recipe);
        let name = format!("installed-debian-{:016x}", recipe.finish());
        let folder = cache.folder(&name, install)?;
        Ok(Self {
            disk: folder.join("disk.img"),
        })
    }

    /// A copy of the disk at `path` for one machine, with the program by which tests run commands.
    pub fn copy(&self, path: &Path) -> Result<(), GuestError> {
        let program = build::static_program("sekisho-laptop", PROGRAM, &[])?;
        let (from, to) = (self.disk.to_string_lossy(), path.to_string_lossy());
        debian::run("cp", &["--sparse=always", &from, &to], None)?;
        start_disk::add(path, &[(PROGRAM, &program)])?;
        Ok(())
    }

    /// Copies of its kernel and its initrd in `folder`, to be started without firmware.
    pub fn boot_files(&self, folder: &Path) -> Result<[PathBuf; 2], FetchError> {
        let root = start_disk::START + SYSTEM_PARTITION;
        let system = format!("{}?offset={root}", self.disk.display());
        let ask = |request: &str| debian::run("debugfs", &["-R", request, &system], None);
        let list = ask("ls -p /boot")?;
        let copy = |prefix: &str| {
            let name = list.split('/').find(|word| word.starts_with(prefix));
            let name = name.ok_or_else(|| FetchError::Incomplete(self.disk.clone()))?;
            let to = folder.join(name);
            ask(&format!("dump /boot/{name} {}", to.display()))?;
            Ok(to)
        };
        Ok([copy("vmlinuz-")?, copy("initrd.img-")?])
    }
}

fn install(folder: &Path) -> Result<(), FetchError> {
    eprintln!("installing Debian on a disk; this takes some minutes");
    let tree = folder.join("tree");
    let scripts = build::workspace().join("tests/laptop/installed");
    let hook = |when: &str, script: &str| {
        format!("--{when}-hook=sh {} \"$1\"", scripts.join(script).display())
    };
    let suite = debian::suite()?;
    let mut arguments = vec![
        "--quiet".to_owned(),
        "--variant=minbase".to_owned(),
        "--format=directory".to_owned(),
        format!("--include={}", PACKAGES.join(",")),
        "--dpkgopt=force-unsafe-io".to_owned(),
        hook("essential", "prepare.sh"),
        hook("customize", "configure.sh"),
    ];
    arguments.extend(
        LEFT_OUT
            .iter()
            .map(|path| format!("--dpkgopt=path-exclude={path}")),
    );
    arguments.push(suite);
    arguments.push(tree.to_string_lossy().into_owned());
    arguments.extend(debian::sources());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    debian::run("mmdebstrap", &arguments, None)?;
    let menu = folder.join("grub.cfg");
    let script = format!("search.fs_uuid {UUID} root\nconfigfile ($root)/boot/grub/grub.cfg\n");
    let cannot = |path: &Path| {
        let path = path.to_owned();
        move |source| FetchError::Cache { path, source }
    };
    fs::write(&menu, script).map_err(cannot(&menu))?;
    let of = |path: &str| tree.join(path);
    let shim = of("usr/lib/shim/shimx64.efi.signed");
    let grub = of("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed");
    let files: [(&str, &Path); 5] = [
        ("EFI/BOOT/BOOTX64.EFI", &shim),
        ("EFI/BOOT/grubx64.efi", &grub),
        ("EFI/debian/shimx64.efi", &shim),
        ("EFI/debian/grubx64.efi", &grub),
        ("EFI/debian/grub.cfg", &menu),
    ];
    let root = Root {
        tree: &tree,
        size: ROOT,
        uuid: UUID,
    };
    let disk = folder.join("disk.img");
    start_disk::make_with_root(&disk, SYSTEM_PARTITION, &files, root)?;
    fs::remove_dir_all(&tree).map_err(cannot(&tree))
}
