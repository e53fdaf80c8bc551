//! How long a packet of the work OS may be on the way in use: what the device file says, or less where
//! a network outside carries less (`PPPoE`, another tunnel, a modem).
//!
//! The kernel hears of it by ICMP (RFC 1191), tells the socket, and refuses longer datagrams. The work
//! OS is told the same in its turn: by the same message, and by the segment size of its connections.
//! An ICMP message can be forged by whoever sees the datagrams; so it makes packets no shorter than
//! [`MIN_MTU`]. Datagrams that are too long even so are cut by our kernel, one by one.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt::ip_mtu;
use sekisho_control::PathId;

use super::device::MIN_MTU;
use super::engine::Gate;
use super::path::Outlet;
use crate::moment::Moment;
use crate::tunnel::{Tunnel as _, WireGuard};

/// Headers of IPv4 and UDP around what the tunnel sealed.
const HEADERS: u32 = 20 + 8;
/// `WireGuard` pads to this (whitepaper, section 5.4.6): what is no multiple of it would be longer
/// sealed than it looks.
const PADDING: u16 = 16;
const _: () = assert!(MIN_MTU.is_multiple_of(PADDING));
/// After this it is tried whether longer packets pass again (RFC 1191, section 6.3). It costs the first
/// of them.
const FORGET: Duration = Duration::from_mins(10);

/// Room for packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// What the device file says.
    most: u16,
    /// Less, until then.
    less: Option<(u16, Moment)>,
}

impl Room {
    /// As the device file says.
    pub(super) const fn new(most: u16) -> Self {
        Self { most, less: None }
    }

    /// Bytes of the longest packet.
    pub(super) fn mtu(&self) -> u16 {
        self.less.map_or(self.most, |(mtu, _)| mtu)
    }

    /// The network outside carries packets of `outer` bytes. Whether packets have another length now.
    pub(super) fn narrow(&mut self, outer: u32, now: Moment) -> bool {
        let before = self.mtu();
        let overhead = HEADERS + u32::try_from(WireGuard::OVERHEAD).unwrap_or(0);
        let inner = u16::try_from(outer.saturating_sub(overhead)).unwrap_or(u16::MAX);
        let inner = inner - inner % PADDING;
        let fits = inner.max(MIN_MTU).min(self.most);
        self.less = Some((fits, now + FORGET));
        fits != before
    }

    /// There is another way, or it may have become wider.
    pub(super) fn widen(&mut self) {
        self.less = None;
    }

    /// Whether the way was narrow for so long that it is tried again.
    pub(super) fn is_stale(&self, now: Moment) -> bool {
        self.less.is_some_and(|(_, until)| now >= until)
    }
}

impl Gate {
    /// Datagrams were too long for a path: packets become shorter from now on. Those that were lost are
    /// repeated by whoever sent them, as on any network.
    pub(super) fn narrow(&mut self, path: PathId, now: Moment) {
        let Some(socket) = self.sockets.sender(path) else {
            return;
        };
        if socket.outlet() != Outlet::Gateway {
            return;
        }
        let Ok(outer) = ip_mtu(socket.as_fd()) else {
            return;
        };
        if self.room.narrow(outer, now) {
            tracing::info!(?path, outer, inner = self.room.mtu(), "a narrow way");
            self.fit();
        }
    }

    /// Another way: as long as ever, until it says otherwise.
    pub(super) fn widen(&mut self) {
        self.room.widen();
        self.fit();
    }

    /// The same way after a long time.
    pub(super) fn refit(&mut self, now: Moment) {
        if self.room.is_stale(now) {
            self.widen();
        }
    }

    fn fit(&mut self) {
        self.keeper.limit(self.room.mtu());
        self.path.refit();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn a_narrow_way_is_told_and_forgotten() {
        let mut room = Room::new(1420);
        // PPPoE as it is in Japan.
        assert!(room.narrow(1454, at(0)));
        assert!(!room.narrow(1454, at(0)), "once");
        assert_eq!(room.mtu(), 1392);
        assert!(!room.is_stale(at(599)));
        assert!(room.is_stale(at(600)));
        room.widen();
        assert_eq!(room.mtu(), 1420);
    }

    #[test]
    fn a_forged_message_makes_no_packets_short() {
        let mut room = Room::new(1420);
        assert!(room.narrow(552, at(0)));
        assert_eq!(room.mtu(), MIN_MTU);
        assert!(!room.narrow(1340, at(1)));
        assert_eq!(room.mtu(), MIN_MTU);
    }

    proptest! {
        /// Whatever is told: never shorter than the floor, never longer than the device file says, and
        /// above the floor it fits, sealed and padded.
        #[test]
        fn what_fits_fits(most in MIN_MTU..=1440, outer in any::<u32>()) {
            let mut room = Room::new(most);
            let changed = room.narrow(outer, at(0));
            prop_assert_eq!(changed, room.mtu() != most);
            prop_assert!((MIN_MTU..=most).contains(&room.mtu()));
            let longest = u32::from(room.mtu().next_multiple_of(PADDING).min(most));
            let sealed = longest + HEADERS + u32::try_from(WireGuard::OVERHEAD).unwrap();
            prop_assert!(sealed <= outer || room.mtu() == MIN_MTU);
        }
    }
}
