//! The laptop's own cables: plugged into a wall, pulled, plugged elsewhere.

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
};

/// What the laptop is, as far as its cables go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seat {
    /// A namespace of the lab: each cable ends there in one end of a veth pair.
    Namespace,
    /// A machine that is handed a tap descriptor for each cable ([`crate::Lab::tap_fd`]).
    Taps {
        /// Whether each frame has a `virtio_net_hdr` before it.
        vnet_hdr: bool,
    },
}

/// How a tap behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TapMode {
    pub(crate) vnet_hdr: bool,
    pub(crate) nonblocking: bool,
}

/// Opens (and makes, if need be) the tap `name` in the namespace of the calling thread.
pub(crate) fn open_tap(name: &str, mode: TapMode) -> io::Result<OwnedFd> {
    let flags = if mode.nonblocking {
        libc::O_NONBLOCK
    } else {
        0
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags | libc::O_CLOEXEC)
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
    if mode.vnet_hdr {
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
