//! Console ports by their names, without udev.
//!
//! A port appears in two steps (device, then name), each announced by a kernel event; the names
//! become links in `/dev/virtio-ports` as udev would make them.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use crate::Failure;

const FOLDER: &str = "/dev/virtio-ports";

/// Multicast group of the kernel's own events (the other one is udevd's).
const KERNEL_GROUP: u32 = 1;

/// Multicast group of changes of network links (`RTMGRP_LINK`, rtnetlink(7)).
const LINK_GROUP: u32 = 1;

/// Tells of devices that come and go.
pub(crate) struct DeviceEvents(OwnedFd);

impl DeviceEvents {
    /// Listens from now on.
    pub(crate) fn listen() -> Result<Self, Failure> {
        Self::netlink(Some(netlink::KOBJECT_UEVENT), KERNEL_GROUP)
    }

    /// Listens to changes of network links.
    pub(crate) fn listen_links() -> Result<Self, Failure> {
        // NETLINK_ROUTE is protocol 0.
        Self::netlink(None, LINK_GROUP)
    }

    fn netlink(protocol: Option<rustix::net::Protocol>, groups: u32) -> Result<Self, Failure> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self(socket))
    }

    /// Waits for an event; what it says is not told: look again at what you care for. `false`
    /// if `deadline` passed first.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        let left = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec::try_from(left).unwrap_or(Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            })
        });
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        if !matches!(poll(&mut fds, left.as_ref()), Ok(1..)) {
            return false;
        }
        // One event or an overflow: both mean "look again".
        let mut event = [0_u8; 8192];
        let _ = recv(&self.0, &mut event, RecvFlags::DONTWAIT);
        true
    }
}

/// Links the ports that exist, and in the background those that come later.
pub(crate) fn link_names() -> Result<(), Failure> {
    fs::create_dir_all(FOLDER)?;
    let events = DeviceEvents::listen()?;
    link_all();
    thread::spawn(move || {
        loop {
            events.wait(None);
            link_all();
        }
    });
    Ok(())
}

/// Whether the board has a device with console ports, which may be about to appear.
pub(crate) fn console_exists() -> bool {
    // A bound device is a link named after it; the driver's own files are not.
    fs::read_dir("/sys/bus/virtio/drivers/virtio_console").is_ok_and(|entries| {
        entries
            .filter_map(Result::ok)
            .any(|entry| entry.file_name().to_string_lossy().starts_with("virtio"))
    })
}

/// Waits until the named port exists; gives its device.
pub(crate) fn find(name: &str, limit: Duration) -> Result<PathBuf, Failure> {
    let events = DeviceEvents::listen()?;
    let deadline = Instant::now() + limit;
    loop {
        if let Some((_, device)) = named().into_iter().find(|(found, _)| found == name) {
            return Ok(device);
        }
        if !events.wait(Some(deadline)) {
            return Err(format!("no console port is named {name}").into());
        }
    }
}

fn link_all() {
    for (name, device) in named() {
        // It may be there already.
        let _ = symlink(device, PathBuf::from(FOLDER).join(name));
    }
}

/// Names and devices of the ports that have a name.
fn named() -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir("/sys/class/virtio-ports") else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = fs::read_to_string(entry.path().join("name")).ok()?;
            let name = name.trim();
            let plain = !name.is_empty() && !name.contains('/');
            plain.then(|| {
                (
                    name.to_owned(),
                    PathBuf::from("/dev").join(entry.file_name()),
                )
            })
        })
        .collect()
}
