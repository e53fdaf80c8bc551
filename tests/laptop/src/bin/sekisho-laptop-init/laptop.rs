//! The laptop: the build machine's programs under a real kernel with real KVM.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::mount::{MountFlags, mount_bind, mount_move};
use sekisho_laptop::config::{AtBoot, LAPTOP_EXEC_PORT, SharedFolder};

use crate::machine::{Beside, mount_at};
use crate::services::{Services, command};
use crate::{Failure, ports, power, say};

/// Mount tag of the build machine's root.
const ROOT_TAG: &str = "root";

/// Large messages: each is a round trip to the emulator. The virtio transport takes no more.
const MESSAGE_SIZE: u32 = 512_000;

/// How long console ports may take to appear after their driver was loaded.
const PORT_LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn run(
    modules_dir: &Path,
    at_boot: Option<&AtBoot>,
    beside: Beside,
) -> Result<(), Failure> {
    let cmdline = fs::read_to_string("/proc/cmdline")?;
    build_root("/new")?;
    say("root is there");
    for share in SharedFolder::parse_all(&cmdline) {
        mount_share(&share)?;
    }
    enter("/new")?;
    bind_modules(modules_dir)?;
    rustix::system::sethostname(b"laptop")?;
    ports::link_names()?;
    power::on_signals()?;

    let port = ports::find(LAPTOP_EXEC_PORT, PORT_LIMIT)?;
    beside.wait()?;
    say("ready");
    let mut services = Services::default();
    let serve = ["/proc/self/exe", "serve", &port.to_string_lossy()];
    services.start(serve.map(str::to_owned).to_vec())?;
    if let Some(at_boot) = at_boot {
        for port in &at_boot.ports {
            ports::find(port, PORT_LIMIT)?;
        }
        services.start_work(at_boot)?;
    }
    // Best effort and off the way: some programs look for the loopback address.
    let _ = command("ip")
        .args(["link", "set", "lo", "up"])
        .stdin(Stdio::null())
        .spawn();
    services.supervise()
}

/// The build machine's root, read-only, under a layer in memory that takes all writes.
fn build_root(at: &str) -> Result<(), Failure> {
    // Nobody changes system files while a laptop runs, so its cache need not ask.
    let options = format!("trans=virtio,version=9p2000.L,msize={MESSAGE_SIZE},cache=loose");
    mount_at(ROOT_TAG, "/lower", "9p", MountFlags::RDONLY, &options)?;
    mount_at("tmpfs", "/layer", "tmpfs", MountFlags::empty(), "mode=0755")?;
    fs::create_dir_all("/layer/upper")?;
    fs::create_dir_all("/layer/work")?;
    let layers = "lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work";
    mount_at("overlay", at, "overlay", MountFlags::empty(), layers)?;
    for part in ["dev", "proc", "sys"] {
        let target = format!("{at}/{part}");
        fs::create_dir_all(&target)?;
        mount_move(format!("/{part}"), target)?;
    }
    mount_at(
        "tmpfs",
        &format!("{at}/tmp"),
        "tmpfs",
        MountFlags::empty(),
        "mode=1777",
    )?;
    mount_at(
        "tmpfs",
        &format!("{at}/run"),
        "tmpfs",
        MountFlags::empty(),
        "mode=0755",
    )?;
    Ok(())
}

fn mount_share(share: &SharedFolder) -> Result<(), Failure> {
    // Both sides may write here, so nothing but mapped pages is cached.
    let options = format!("trans=virtio,version=9p2000.L,msize={MESSAGE_SIZE},cache=mmap");
    let flags = if share.writable {
        MountFlags::empty()
    } else {
        MountFlags::RDONLY
    };
    mount_at(
        &share.tag,
        &format!("/new{}", share.path.display()),
        "9p",
        flags,
        &options,
    )
}

/// Makes `at` the root. Moved, not just chrooted into: programs that make namespaces of their own
/// must find a root that `pivot_root` and user namespaces accept.
fn enter(at: &str) -> Result<(), Failure> {
    std::env::set_current_dir(at)?;
    mount_move(".", "/")?;
    std::os::unix::fs::chroot(".")?;
    std::env::set_current_dir("/")?;
    Ok(())
}

/// So that `modprobe`, also the kernel's own, finds what the initrd did not load.
fn bind_modules(modules_dir: &Path) -> Result<(), Failure> {
    let Some(release) = modules_dir.file_name() else {
        return Ok(());
    };
    let target = Path::new("/usr/lib/modules").join(release);
    fs::create_dir_all(&target)?;
    mount_bind(modules_dir, &target)?;
    Ok(())
}
