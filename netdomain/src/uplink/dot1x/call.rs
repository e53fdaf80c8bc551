//! The first call to an authenticator: `EAPOL-Start` (IEEE 802.1X-2020, 11.3 and 11.4).
//!
//! An authenticator that saw the carrier come begins by itself. One that did not, because only the
//! supplicant is new, waits to be called, and `wpa_supplicant` calls it two seconds after it began.
//! At a desk that is two seconds without the office, so the keeper calls in its place, once.

use std::io;

use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, netdevice::name_to_index, sendto,
    socket_with,
};

use crate::uplink::link_layer::LinkLayerAddress;

/// `ETH_P_PAE`.
const EAPOL: u16 = 0x888e;
/// The nearest authenticator, and no bridge passes it on (Table 11-1: the PAE group address).
const PAE_GROUP: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x03];
/// Version 1, as `wpa_supplicant` speaks it; `EAPOL-Start`; no body.
const START: [u8; 4] = [1, 1, 0, 0];

/// Sends it from the port's own MAC address.
pub(super) fn call(port: &str) -> io::Result<()> {
    // Protocol 0: it receives nothing.
    let socket = socket_with(
        AddressFamily::PACKET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    let index = name_to_index(&socket, port)?;
    let to = LinkLayerAddress::of(index, EAPOL).map_err(io::Error::other)?;
    sendto(&socket, &START, SendFlags::empty(), &to.to(PAE_GROUP))?;
    Ok(())
}
