//! Sends and receives batches of datagrams: `UDP_SEGMENT` out, `recvmmsg` with `UDP_GRO` in.
//!
//! The only module of the gate with `unsafe`: rustix has neither control message.
#![allow(unsafe_code)]

use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;

use bytes::BytesMut;
use rustix::io::Errno;

use crate::tunnel::SegBatch;

/// Most messages of one system call. With receive offload each is up to 64 KiB: one megabyte.
const BATCH: usize = 16;
/// The same, as the kernel counts it.
const BATCH_COUNT: libc::c_uint = 16;
const _: () = assert!(BATCH_COUNT as usize == BATCH);
/// The same while the kernel joins datagrams: more would leave the processor's cache before they are
/// opened, and save no time.
const JOINED_COUNT: libc::c_uint = 2;
/// The longest message, receive offload included.
const SLOT: usize = 65_536;
/// Sizes of what a control message and a socket option carry: a `u16` and an `int`.
const SEGMENT_SIZE: libc::c_uint = 2;
const INT_SIZE: libc::socklen_t = 4;
const _: () = assert!(size_of::<u16>() == 2 && size_of::<libc::c_int>() == 4);
/// Room for one control message with an `int`.
const CONTROL: usize = 64;

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// Memory for one batch of received messages, of one datagram each or of several that the kernel
/// joined. Datagrams are opened where they lie; their memory is taken again once all are dropped.
pub struct Inbox {
    slots: [BytesMut; BATCH],
    /// Length of the datagrams of each message but the last, which may be shorter.
    segments: [usize; BATCH],
    control: Box<[Control; BATCH]>,
    headers: Box<[libc::mmsghdr; BATCH]>,
    pieces: Box<[libc::iovec; BATCH]>,
    /// The last batch had joined datagrams.
    joined: bool,
}

// SAFETY: the pointers in `headers` and `pieces` are written before each system call and read by
// nobody after it, so it makes no difference which thread holds them in between.
unsafe impl Send for Inbox {}

impl Default for Inbox {
    fn default() -> Self {
        // SAFETY: all-zero is a valid `mmsghdr` and a valid `iovec`: null pointers, zero lengths.
        let (header, piece) = unsafe { (zeroed::<libc::mmsghdr>(), zeroed::<libc::iovec>()) };
        Self {
            slots: std::array::from_fn(|_| BytesMut::with_capacity(SLOT)),
            segments: [1; BATCH],
            control: Box::new([Control([0; CONTROL]); BATCH]),
            headers: Box::new([header; BATCH]),
            pieces: Box::new([piece; BATCH]),
            joined: false,
        }
    }
}

impl Inbox {
    /// Receives up to [`BATCH`] messages, and says whether there may be more now. Without `offload` no control
    /// message is taken, so that a Unix socket brings no descriptors: the kernel closes them.
    pub fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        offload: bool,
    ) -> Result<(usize, bool), Errno> {
        let wanted = if self.joined {
            JOINED_COUNT
        } else {
            BATCH_COUNT
        };
        for (index, slot) in self.slots.iter_mut().enumerate().take(wanted as usize) {
            slot.clear();
            // No new memory, but where a datagram of the last batch is still held.
            slot.reserve(SLOT);
            self.pieces[index] = libc::iovec {
                iov_base: slot.spare_capacity_mut().as_mut_ptr().cast(),
                iov_len: SLOT,
            };
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = ptr::null_mut();
            header.msg_namelen = 0;
            header.msg_iov = &raw mut self.pieces[index];
            header.msg_iovlen = 1;
            (header.msg_control, header.msg_controllen) = if offload {
                (self.control[index].0.as_mut_ptr().cast(), CONTROL)
            } else {
                (ptr::null_mut(), 0)
            };
            header.msg_flags = 0;
        }
        // SAFETY: at least `wanted` headers are filled, each with one piece and one or no control
        // buffer that this structure owns and that live through the call; the lengths are theirs.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                wanted,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
            )
        };
        self.joined = false;
        let Ok(received) = usize::try_from(received) else {
            return match last_error() {
                Errno::AGAIN | Errno::INTR => Ok((0, false)),
                error => Err(error),
            };
        };
        for index in 0..received {
            let len = usize::try_from(self.headers[index].msg_len)
                .unwrap_or(0)
                .min(SLOT);
            let truncated = self.headers[index].msg_hdr.msg_flags & libc::MSG_TRUNC != 0;
            let len = if truncated { 0 } else { len };
            let segment = self.segment_size(index).unwrap_or(len).max(1);
            // SAFETY: the slot has room for `SLOT` bytes from its start, and the kernel has written the
            // first `len` of them.
            unsafe { self.slots[index].set_len(len) };
            self.segments[index] = segment;
            self.joined |= segment < len;
        }
        Ok((received, received == wanted as usize))
    }

    /// Reads up to [`BATCH`] packets from a TUN device, one a call, and says whether there may be more
    /// now.
    pub fn read_packets(&mut self, tun: BorrowedFd<'_>) -> Result<(usize, bool), Errno> {
        self.joined = false;
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.clear();
            slot.reserve(SLOT);
            let read = rustix::io::read(tun, slot.spare_capacity_mut());
            match read.map(|(packet, _)| packet.len()) {
                Ok(0) | Err(Errno::AGAIN | Errno::INTR) => return Ok((index, false)),
                Ok(len) => {
                    // SAFETY: the slot was empty, and the kernel has written `len` bytes to it.
                    unsafe { slot.set_len(len) };
                    self.segments[index] = len;
                }
                Err(error) if index == 0 => return Err(error),
                Err(_) => return Ok((index, false)),
            }
        }
        Ok((BATCH, true))
    }

    /// Takes the datagrams of one message of the last batch.
    pub fn take(&mut self, message: usize) -> impl Iterator<Item = BytesMut> {
        let segment = self.segments[message];
        let slot = &mut self.slots[message];
        std::iter::from_fn(move || {
            let len = segment.min(slot.len());
            (len > 0).then(|| slot.split_to(len))
        })
    }

    /// The size of the datagrams that the kernel joined into one, if it did.
    fn segment_size(&self, index: usize) -> Option<usize> {
        let header = &self.headers[index].msg_hdr;
        // SAFETY: the kernel filled `msg_control` up to `msg_controllen`, which lies in our buffer.
        let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
        while !control.is_null() {
            // SAFETY: `control` is not null, so it points to a whole `cmsghdr` within our buffer.
            let message = unsafe { *control };
            if message.cmsg_level == libc::SOL_UDP && message.cmsg_type == libc::UDP_GRO {
                // SAFETY: a `UDP_GRO` message carries an `int`; the read may be unaligned.
                let size =
                    unsafe { ptr::read_unaligned(libc::CMSG_DATA(control).cast::<libc::c_int>()) };
                return usize::try_from(size).ok().filter(|&size| size > 0);
            }
            // SAFETY: `control` came from this header.
            control = unsafe { libc::CMSG_NXTHDR(header, control) };
        }
        None
    }
}

/// Sends a batch with one system call, or fails without having sent anything.
pub(super) fn send_batch(socket: BorrowedFd<'_>, batch: &SegBatch) -> Result<(), Errno> {
    if batch.count() == 1 {
        return send(socket, batch.bytes());
    }
    let mut piece = libc::iovec {
        iov_base: batch.bytes().as_ptr().cast_mut().cast(),
        iov_len: batch.bytes().len(),
    };
    let mut control = Control([0; CONTROL]);
    // SAFETY: all-zero is a valid `msghdr`.
    let mut header = unsafe { zeroed::<libc::msghdr>() };
    header.msg_iov = &raw mut piece;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    // A segment is shorter than 64 KiB.
    let segment = u16::try_from(batch.segment()).unwrap_or(u16::MAX);
    // SAFETY: `CONTROL` bytes are room for one `cmsghdr` with a `u16`, and the buffer is aligned
    // for it; `CMSG_FIRSTHDR` of a buffer with room is not null.
    unsafe {
        header.msg_controllen = libc::CMSG_SPACE(SEGMENT_SIZE) as usize;
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = libc::SOL_UDP;
        (*message).cmsg_type = libc::UDP_SEGMENT;
        (*message).cmsg_len = libc::CMSG_LEN(SEGMENT_SIZE) as usize;
        ptr::write_unaligned(libc::CMSG_DATA(message).cast::<u16>(), segment);
    }
    // SAFETY: the header's one piece and its control buffer live through the call; the kernel only
    // reads them.
    let sent = unsafe {
        libc::sendmsg(
            socket.as_raw_fd(),
            &raw const header,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    if sent < 0 { Err(last_error()) } else { Ok(()) }
}

/// Sends one datagram.
pub fn send(socket: BorrowedFd<'_>, datagram: &[u8]) -> Result<(), Errno> {
    use rustix::net::{SendFlags, send};
    send(socket, datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map(|_| ())
}

/// Gives a TUN device one packet.
pub(super) fn write_packet(tun: BorrowedFd<'_>, packet: &[u8]) -> Result<(), Errno> {
    rustix::io::write(tun, packet).map(|_| ())
}

/// Asks the kernel to join datagrams of one sender on this socket.
pub fn enable_receive_offload(socket: impl AsFd) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an `int` that lives through the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_GRO,
            (&raw const on).cast(),
            INT_SIZE,
        )
    };
    if done < 0 { Err(last_error()) } else { Ok(()) }
}

fn last_error() -> Errno {
    std::io::Error::last_os_error()
        .raw_os_error()
        .map_or(Errno::IO, Errno::from_raw_os_error)
}
