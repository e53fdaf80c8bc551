//! TUN devices (Linux `Documentation/networking/tuntap.rst`).
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// `TUNSETIFF`, and the flags of a device for IP packets without a header of the driver's.
pub(super) const TUNSETIFF: u32 = 0x4004_54ca;
const IFF_TUN: libc::c_short = 0x0001;
const IFF_NO_PI: libc::c_short = 0x1000;

/// Makes one in the network namespace of this thread; it lives as long as the descriptor. A read
/// gives one packet, a write takes one.
pub(super) fn create(name: &str) -> io::Result<OwnedFd> {
    let device: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    // SAFETY: all-zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(room)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = IFF_TUN | IFF_NO_PI;
    // SAFETY: `TUNSETIFF` reads and writes one `ifreq`, which lives through the call.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF.into(), &raw mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(device.into())
}
