//! Whose MAC a port has: its card's own, or, on an office LAN of which the work OS is a member, the
//! work OS's.
//!
//! There is one MAC on a cable at any time, as switches with 802.1X or a bound on MACs ask for, and
//! one lease. So a port is proven under its own MAC first; then its link goes down, takes on the work
//! OS's MAC, and everything is done anew under it: 802.1X, lease, proof. It is taken off when the
//! cable leaves, before anything can be sent over the next one.
//!
//! A port that has it and is not proven in time takes it off as well: somebody moved the cable while
//! the link was down, or the LAN does not let this MAC in.

use sekisho_control::{LanMember, Report};

use super::{Action, At, Ports, State};
use crate::uplink::netlink::Link;

/// Changes of the MAC in a row that led to no wire. After so many the port keeps its own until the
/// laptop has slept or the uplink starts anew: each costs the tunnel some seconds.
const MAX_FRUITLESS: u8 = 3;
/// Changes of the MAC in a row that led to no wire that was still there at the end of a minute: more than
/// anybody makes by hand, and an end to the game with a switch that bounces its port whenever it sees
/// another MAC on it.
const MAX_HASTY: u8 = 16;

/// A port that has, or is about to lose, a MAC that is not its card's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Guise {
    /// The card's own.
    own: [u8; 6],
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The link goes down and comes up with the work OS's.
    Donning,
    /// It has the work OS's.
    Worn,
    /// The link goes down and comes up with its own.
    Doffing,
    /// The laptop sleeps, and the card listens under the work OS's for whoever wakes it.
    Asleep,
}

impl Ports {
    /// Takes the work OS's word of itself. Whether it is the first.
    pub(super) fn take_member(&mut self, member: LanMember) -> bool {
        let Some(known) = &mut self.member else {
            self.member = Some(member);
            return true;
        };
        // A gate that was started anew has not heard the work OS's name yet.
        known.host = member.host.or(known.host.take());
        known.class = member.class.or(known.class.take());
        false
    }

    /// What a DHCP client of this port says of itself: more than its MAC where it is the work OS's.
    pub(crate) fn member_at(&self, index: u32) -> Option<&LanMember> {
        let port = self.by_index.get(&index)?;
        let is_member = self.member_mac == Some(port.mac);
        self.member.as_ref().filter(|_| is_member)
    }

    /// The MAC of this port, where its lease is the work OS's.
    pub(crate) fn member_mac_at(&self, index: u32) -> Option<[u8; 6]> {
        self.member_at(index).and(self.member_mac)
    }

    /// Gives a proven port the work OS's MAC. Its proof ends with its link.
    pub(super) fn don(&mut self, index: u32, actions: &mut Vec<Action>) {
        let Some(mac) = self.member_mac else {
            return;
        };
        // With two cables in one office the other one waits: the MAC is on one of them. A card that was given
        // its own back has it, though its cable may be gone.
        let elsewhere = |(of, guise): (&u32, &Guise)| *of == index || guise.stage != Stage::Doffing;
        let taken = self.guises.iter().any(elsewhere);
        if taken || self.fruitless >= MAX_FRUITLESS || self.hasty >= MAX_HASTY {
            return;
        }
        self.fruitless += 1;
        self.hasty += 1;
        self.darken(index, actions);
        let Some(port) = self.by_index.get_mut(&index) else {
            return;
        };
        let own = std::mem::replace(&mut port.mac, mac);
        let stage = Stage::Donning;
        self.guises.insert(index, Guise { own, stage });
        let name = port.name.clone();
        actions.push(Action::Down(index));
        actions.push(Action::SetMac {
            port: At { index, name },
            mac,
            own: Some(own),
        });
        actions.push(Action::Up(index));
    }

    /// Gives a port its own MAC back.
    pub(super) fn doff(&mut self, index: u32, actions: &mut Vec<Action>) {
        let (Some(guise), Some(port)) =
            (self.guises.get_mut(&index), self.by_index.get_mut(&index))
        else {
            return;
        };
        guise.stage = Stage::Doffing;
        port.mac = guise.own;
        port.carrier = false;
        let (mac, name) = (guise.own, port.name.clone());
        actions.push(Action::Down(index));
        actions.push(Action::SetMac {
            port: At { index, name },
            mac,
            own: None,
        });
        if !self.asleep {
            actions.push(Action::Up(index));
        }
    }

    /// A port of which an earlier process left word that the MAC is not its card's.
    pub(super) fn found(&mut self, link: &Link, actions: &mut Vec<Action>) {
        if let Some(own) = link.own.filter(|own| *own != link.mac) {
            let stage = Stage::Doffing;
            self.guises.insert(link.index, Guise { own, stage });
            self.doff(link.index, actions);
        }
    }

    /// Whether the news of a link are older than the last change of its MAC.
    pub(super) fn is_stale(&self, link: &Link) -> bool {
        self.guises
            .get(&link.index)
            .is_some_and(|guise| match guise.stage {
                Stage::Doffing => link.mac != guise.own,
                Stage::Donning | Stage::Worn | Stage::Asleep => link.mac == guise.own,
            })
    }

    /// The carrier was lost, by our own doing or not. Whether the port takes off what it wears, and
    /// is not to be used meanwhile.
    pub(super) fn strip(&mut self, index: u32, actions: &mut Vec<Action>) -> bool {
        let Some(guise) = self.guises.get(&index) else {
            // Somebody pulled the cable: the next one, or the same, is tried afresh.
            self.fruitless = 0;
            return false;
        };
        let strips = guise.stage == Stage::Worn;
        if strips {
            self.doff(index, actions);
        }
        strips
    }

    /// The carrier is back after a change.
    pub(super) fn settle(&mut self, index: u32) {
        match self.guises.get_mut(&index) {
            Some(guise) if guise.stage == Stage::Donning => guise.stage = Stage::Worn,
            Some(guise) if guise.stage == Stage::Doffing => {
                self.guises.remove(&index);
            }
            Some(_) | None => {}
        }
    }

    /// Whether the port has the work OS's MAC, and has to be proven.
    pub(crate) fn is_on_trial(&self, index: u32) -> bool {
        let on_trial = |guise: &Guise| matches!(guise.stage, Stage::Donning | Stage::Worn);
        self.guises.get(&index).is_some_and(on_trial)
    }

    /// The time for a proof under the work OS's MAC is over. It begins again where there is one: a proof
    /// may end without the cable, behind a telephone or a dock.
    pub(super) fn trial_over(&mut self, index: u32, actions: &mut Vec<Action>) {
        let proven = self
            .by_index
            .get(&index)
            .is_some_and(|port| matches!(port.state, State::Leased { proven: true, .. }));
        if self.wire.as_ref().is_some_and(|w| w.port.index == index) {
            self.hasty = 0;
        }
        if !proven && self.is_on_trial(index) {
            self.give_up(index, "where nothing was proven", actions);
        }
    }

    /// The authenticator refuses a port that has the work OS's MAC. There is nothing to wait for: it
    /// may take the laptop's certificate under the card's own MAC only.
    pub(super) fn refused(&mut self, index: u32, actions: &mut Vec<Action>) {
        if self.is_on_trial(index) {
            self.give_up(index, "which 802.1X refused", actions);
        }
    }

    fn give_up(&mut self, index: u32, why: &str, actions: &mut Vec<Action>) {
        self.darken(index, actions);
        self.doff(index, actions);
        let name = self
            .by_index
            .get(&index)
            .map_or("a port", |port| &*port.name);
        let what = format!("{name}: the LAN under the work OS's MAC, {why}");
        actions.push(Action::Report(Report::Ignored { what }));
    }

    /// The laptop goes to sleep; the link is down by now. A port that listens for whoever wakes it
    /// does so under the MAC that the LAN knows.
    pub(super) fn lie_down(&mut self, index: u32, listens: bool, actions: &mut Vec<Action>) {
        match self.guises.get_mut(&index) {
            Some(guise) if listens && guise.stage == Stage::Worn => guise.stage = Stage::Asleep,
            Some(guise) if guise.stage != Stage::Doffing => self.doff(index, actions),
            Some(_) | None => {}
        }
    }

    /// It woke up; the links are still down.
    pub(super) fn get_up(&mut self, actions: &mut Vec<Action>) {
        (self.fruitless, self.hasty) = (0, 0);
        let asleep =
            |(index, guise): (&u32, &Guise)| (guise.stage == Stage::Asleep).then_some(*index);
        let indices: Vec<u32> = self.guises.iter().filter_map(asleep).collect();
        for index in indices {
            self.doff(index, actions);
        }
    }
}
