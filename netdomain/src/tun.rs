//! The TUN device that joins gate and uplink on the office LAN: one IPv4 packet a message, with a
//! `virtio_net_hdr` before it (kernel documentation, `networking/tuntap`; `linux/if_tun.h`).
//!
//! The uplink opens it, the gate asks the kernel whether that is what it was handed.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use sekisho_framelink::HEADER_LEN;

/// `_IOW('T', 202, int)`, `_IOW('T', 216, int)`, `_IOW('T', 220, int)`, `_IOW('T', 208, unsigned)`.
const SET_INTERFACE: u32 = 0x4004_54ca;
const SET_HEADER_SIZE: u32 = 0x4004_54d8;
const SET_LITTLE_ENDIAN: u32 = 0x4004_54dc;
const SET_OFFLOAD: u32 = 0x4004_54d0;
/// `_IOR('T', 210, unsigned)`, `_IOR('T', 215, int)`.
pub(crate) const GET_INTERFACE: u32 = 0x8004_54d2;
pub(crate) const GET_HEADER_SIZE: u32 = 0x8004_54d7;

/// `IFF_TUN`, `IFF_NO_PI`, `IFF_VNET_HDR`.
const KIND: u16 = 0x0001 | 0x1000 | 0x4000;
/// `TUN_F_CSUM`, `TUN_F_TSO4`: what the reader may be left with.
const OFFLOAD: libc::c_ulong = 0x01 | 0x02;

/// `struct ifreq` with the flags of the interface.
#[repr(C)]
#[derive(Default)]
struct Interface {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    rest: [u8; 22],
}
const _: () = assert!(size_of::<Interface>() == size_of::<libc::ifreq>());

/// Makes the device `name` in the network namespace of the calling thread. It is down, and gone
/// with its last descriptor.
pub(crate) fn create(name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = open("/dev/net/tun", flags, Mode::empty())?;
    let mut interface = Interface {
        flags: KIND,
        ..Interface::default()
    };
    let len = name.len().min(libc::IFNAMSIZ - 1);
    interface.name[..len].copy_from_slice(&name.as_bytes()[..len]);
    let header = c_int::try_from(HEADER_LEN).map_err(io::Error::other)?;
    let little: c_int = 1;
    let fd = device.as_raw_fd();
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, the next two read one `int` each, and
    // TUNSETOFFLOAD takes its value as the argument. All live through their calls.
    unsafe {
        done(libc::ioctl(fd, SET_INTERFACE.into(), &raw mut interface))?;
        done(libc::ioctl(fd, SET_HEADER_SIZE.into(), &raw const header))?;
        done(libc::ioctl(fd, SET_LITTLE_ENDIAN.into(), &raw const little))?;
        done(libc::ioctl(fd, SET_OFFLOAD.into(), OFFLOAD))?;
    }
    Ok(device)
}

fn done(answer: c_int) -> io::Result<()> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether the kernel says that this is such a device.
pub(crate) fn is_one(device: impl AsFd) -> bool {
    let mut interface = Interface::default();
    let mut header: c_int = 0;
    let fd = device.as_fd().as_raw_fd();
    // SAFETY: TUNGETIFF writes one `struct ifreq`, TUNGETVNETHDRSZ one `int`; both live through the
    // calls. Descriptors of another kind do not know the requests and write nothing.
    let known = unsafe {
        libc::ioctl(fd, GET_INTERFACE.into(), &raw mut interface) == 0
            && libc::ioctl(fd, GET_HEADER_SIZE.into(), &raw mut header) == 0
    };
    known && interface.flags & KIND == KIND && usize::try_from(header) == Ok(HEADER_LEN)
}
