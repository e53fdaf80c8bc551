//! Addresses of packet sockets, which rustix does not know.

use std::num::TryFromIntError;

use rustix::net::{
    AddressFamily,
    addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque},
};

/// `struct sockaddr_ll` (packet(7)).
#[repr(C)]
pub(super) struct LinkLayerAddress {
    family: u16,
    /// In network byte order.
    protocol: u16,
    interface: i32,
    hardware: u16,
    packet: u8,
    length: u8,
    address: [u8; 8],
}

impl LinkLayerAddress {
    /// Frames with this `EtherType` on an interface.
    ///
    /// # Errors
    /// The kernel has no interface with such an index.
    pub(super) fn of(interface: u32, protocol: u16) -> Result<Self, TryFromIntError> {
        Ok(Self {
            family: AddressFamily::PACKET.as_raw(),
            protocol: protocol.to_be(),
            interface: i32::try_from(interface)?,
            hardware: 0,
            packet: 0,
            length: 0,
            address: [0; 8],
        })
    }

    /// Those to this station.
    pub(super) fn to(mut self, station: [u8; 6]) -> Self {
        self.address[..6].copy_from_slice(&station);
        self.length = 6;
        self
    }
}

#[allow(unsafe_code)]
// SAFETY: the pointer is to a whole `LinkLayerAddress` that lives through the call of `f`, with its
// exact size, and the type has the layout of `struct sockaddr_ll` (20 bytes, no padding).
unsafe impl SocketAddrArg for LinkLayerAddress {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        const { assert!(size_of::<LinkLayerAddress>() == 20) };
        f(std::ptr::from_ref(self).cast(), 20)
    }
}
