//! Tap devices: opening them, their offloads, their carrier.

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
};

/// Bytes of the `virtio_net_hdr` before each frame: the one with `num_buffers`, as on the frame link.
const HEADER_LEN: libc::c_int = 12;

/// Opens (and makes, if need be) the tap `name`, non-blocking, in the namespace of the calling thread.
pub(crate) fn open_tap(name: &str, vnet_hdr: bool) -> io::Result<OwnedFd> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::other(format!(
            "{name} is too long for an interface name"
        )));
    }
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let mut bits = libc::IFF_TAP | libc::IFF_NO_PI;
    if vnet_hdr {
        bits |= libc::IFF_VNET_HDR;
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(bits).map_err(io::Error::other)?;
    // SAFETY: TUNSETIFF reads an `ifreq`, which lives until the call returns.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw const request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file.into())
}

/// Makes a tap with `virtio_net_hdr` speak as the frame link does, and lets the kernel leave to the
/// other side what the gate grants a guest: checksums and TCP segmentation.
pub(crate) fn grant_offloads(tap: &OwnedFd) -> io::Result<()> {
    let length = HEADER_LEN;
    // SAFETY: TUNSETVNETHDRSZ reads an int, which lives until the call returns.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const length) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let offloads = libc::c_ulong::from(libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6);
    // SAFETY: TUNSETOFFLOAD takes its flags by value.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Plugs or pulls the tap's cable, as its owner sees it.
pub(crate) fn set_carrier(tap: &OwnedFd, up: bool) -> io::Result<()> {
    let carrier = libc::c_int::from(up);
    // SAFETY: TUNSETCARRIER reads an int, which lives until the call returns.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETCARRIER, &raw const carrier) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
