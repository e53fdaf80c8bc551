//! Whoever says of each address that he has it.

use std::collections::BTreeMap;

/// Addresses that a port gives back, one exchange of DHCP after the other, before one is used in spite of
/// him who has them all, as it is on ports that are not the work OS's.
const MOST: u8 = 3;

/// How many addresses each port gave back since its DHCP began.
#[derive(Debug, Default)]
pub(crate) struct Declined(BTreeMap<u32, u8>);

impl Declined {
    /// Somebody has the address that this port was lent. Whether it is given back. A port on trial gives
    /// back each: it has another MAC to go back to, and its trial ends. One whose card has the work
    /// OS's MAC by itself has none, and would be kept off every LAN.
    pub(crate) fn gives_back(&mut self, port: u32, on_trial: bool) -> bool {
        let times = self.0.entry(port).or_default();
        *times = times.saturating_add(1);
        on_trial || *times <= MOST
    }

    /// The DHCP of this port is over.
    pub(crate) fn forget(&mut self, port: u32) {
        self.0.remove(&port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_every_address_does_not_keep_a_card_off_the_lan_for_ever() {
        let mut declined = Declined::default();
        for _ in 0..3 {
            assert!(declined.gives_back(0, false));
        }
        assert!(!declined.gives_back(0, false));
        // Another port, and another cable, begin afresh.
        assert!(declined.gives_back(1, false));
        declined.forget(0);
        assert!(declined.gives_back(0, false));
    }

    #[test]
    fn a_port_on_trial_gives_back_every_one() {
        let mut declined = Declined::default();
        assert!((0..300).all(|_| declined.gives_back(0, true)));
    }
}
