//! Whether a magic packet to a card wakes the laptop (`linux/ethtool_netlink.h`; kernel
//! documentation, `networking/ethtool-netlink`).

use rustix::{io::Errno, net::netlink::GENERIC};

use super::{
    NetlinkError, Requests, failed,
    wire::{ACK, REQUEST, Writer},
    wireless::find_family,
};

/// `ETHTOOL_MSG_WOL_SET`, `ETHTOOL_A_WOL_HEADER`, `ETHTOOL_A_WOL_MODES`, `ETHTOOL_A_HEADER_DEV_INDEX`.
const SET_WAKE: u8 = 10;
const WAKE_HEADER: u16 = 1;
const WAKE_MODES: u16 = 2;
const HEADER_INDEX: u16 = 1;
/// `ETHTOOL_A_BITSET_NOMASK`, `_SIZE`, `_VALUE`: the modes that are given are all that are wanted.
const BITS_ALL: u16 = 1;
const BITS_SIZE: u16 = 2;
const BITS_VALUE: u16 = 4;
/// `WOL_MODE_COUNT`, and the bit of `WAKE_MAGIC`.
const MODES: u32 = 8;
const MAGIC: u32 = 1 << 5;

/// Asks ethtool's family.
#[derive(Debug)]
pub(crate) struct Ethtool {
    requests: Requests,
    family: u16,
}

impl Ethtool {
    /// Opens the netlink socket, in the caller's network namespace. `None` where the kernel has no
    /// such family.
    pub(crate) fn open() -> Result<Option<Self>, NetlinkError> {
        let mut requests = Requests::open(Some(GENERIC))?;
        let family = find_family(&mut requests, b"ethtool\0")?;
        Ok(family.map(|family| Self { requests, family }))
    }

    /// Lets the card wake the laptop at a magic packet and at nothing else, or at nothing at all.
    /// Whether the card can do that.
    pub(crate) fn set_wake(&mut self, index: u32, magic: bool) -> Result<bool, NetlinkError> {
        let sequence = self.requests.next_sequence();
        let mut request = Writer::default();
        write_wake(&mut request, self.family, sequence, index, magic);
        match self.requests.acknowledged(&request, sequence) {
            Ok(()) => Ok(true),
            // The card knows no waking, or not this one; or it is gone.
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NODEV) => Ok(false),
            Err(errno) => Err(failed("set whether a card wakes the laptop")(errno)),
        }
    }
}

fn write_wake(request: &mut Writer, family: u16, sequence: u32, index: u32, magic: bool) {
    let modes = if magic { MAGIC } else { 0 };
    request.message(family, REQUEST | ACK, sequence, |m| {
        m.raw(&[SET_WAKE, 1, 0, 0]);
        m.nested(WAKE_HEADER, |header| {
            header.attribute(HEADER_INDEX, &index.to_ne_bytes());
        });
        m.nested(WAKE_MODES, |bits| {
            bits.attribute(BITS_ALL, &[]);
            bits.attribute(BITS_SIZE, &MODES.to_ne_bytes());
            bits.attribute(BITS_VALUE, &modes.to_ne_bytes());
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `ethtool -s eth0 wol g` says for the interface with index 7, but for the bits' words.
    #[test]
    fn the_message_asks_for_the_magic_packet_alone() {
        let mut request = Writer::default();
        write_wake(&mut request, 0x15, 9, 7, true);
        let bytes = request.bytes();
        assert_eq!(bytes[4..6], 0x15_u16.to_ne_bytes());
        assert_eq!(bytes[16..20], [10, 1, 0, 0]);
        let header = [12, 0, 1, 0x80, 8, 0, 1, 0, 7, 0, 0, 0];
        assert_eq!(bytes[20..32], header);
        let modes = [
            24, 0, 2, 0x80, 4, 0, 1, 0, 8, 0, 2, 0, 8, 0, 0, 0, 8, 0, 4, 0, 0x20, 0, 0, 0,
        ];
        assert_eq!(bytes[32..], modes);
        let mut none = Writer::default();
        write_wake(&mut none, 0x15, 9, 7, false);
        assert_eq!(none.bytes()[52..], [0; 4]);
    }
}
