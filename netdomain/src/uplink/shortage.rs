//! What could not be opened for want of descriptors or memory. Nothing on the network changes when there
//! is room again, so it is tried again by the clock.

use std::time::Duration;

use sekisho_control::{PathId, UplinkToGate};

use super::ports::Action;

/// The pause before it is tried again: a person waits, and whoever took the descriptors may still hold
/// them.
const PAUSE: Duration = Duration::from_secs(1);
/// More than this does not wait: some ports' clients and paths. The next cable or lease begins anew.
const MAX: usize = 64;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Shortage {
    actions: Vec<Action>,
    due: Option<Duration>,
    again: bool,
}

impl Shortage {
    /// This could not be done. Whether that is news.
    pub(super) fn add(&mut self, action: Action, now: Duration) -> bool {
        if self.actions.len() < MAX {
            self.actions.push(action);
            self.due.get_or_insert(now + PAUSE);
        }
        !self.again
    }

    /// The port's DHCP client is not wanted any more.
    pub(super) fn stopped(&mut self, index: u32) {
        self.retain(|action| !matches!(action, Action::StartDhcp(of, _) if *of == index));
    }

    /// The path is not wanted any more.
    pub(super) fn cut(&mut self, path: PathId) {
        self.retain(|action| {
            !matches!(action, Action::OpenPath { path: UplinkToGate::Path { id, .. }, .. } if *id == path)
        });
    }

    fn retain(&mut self, wanted: impl FnMut(&Action) -> bool) {
        self.actions.retain(wanted);
        if self.actions.is_empty() {
            self.due = None;
        }
    }

    /// When something is to be tried again.
    pub(super) const fn due(&self) -> Option<Duration> {
        self.due
    }

    /// What is to be tried now; until [`Shortage::tried`] it is no news that it fails.
    pub(super) fn take(&mut self, now: Duration) -> Vec<Action> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.due = None;
        self.again = true;
        std::mem::take(&mut self.actions)
    }

    /// All that was taken has been tried.
    pub(super) const fn tried(&mut self) {
        self.again = false;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use sekisho_control::{Side, UplinkKind};

    use super::super::ports::Bound;
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn dhcp(index: u32) -> Action {
        Action::StartDhcp(index, [2, 0, 0, 0, 0, 1])
    }

    fn path(id: u32) -> Action {
        Action::OpenPath {
            from: Bound {
                port: "eth0".into(),
                address: Ipv4Addr::LOCALHOST,
            },
            path: UplinkToGate::Path {
                id: PathId(id),
                port: "eth0".into(),
                kind: UplinkKind::Wired,
                rank: 1,
                gateway: "honcho-1".into(),
                side: Side::Outside,
                peer: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1),
            },
        }
    }

    #[test]
    fn what_failed_is_tried_again_after_a_pause_and_told_once() {
        let mut shortage = Shortage::default();
        assert!(shortage.add(dhcp(2), at(0)));
        assert!(shortage.add(path(1), at(100)));
        assert_eq!(shortage.due(), Some(at(1000)));
        assert_eq!(shortage.take(at(999)), []);
        assert_eq!(shortage.take(at(1000)), [dhcp(2), path(1)]);
        assert!(!shortage.add(path(1), at(1000)), "no news");
        shortage.tried();
        assert_eq!(shortage.take(at(2000)), [path(1)]);
        shortage.tried();
        assert_eq!(shortage.due(), None);
    }

    #[test]
    fn what_is_not_wanted_any_more_is_not_opened() {
        let mut shortage = Shortage::default();
        for action in [dhcp(2), path(1), path(2), dhcp(3)] {
            shortage.add(action, at(0));
        }
        shortage.stopped(2);
        shortage.cut(PathId(1));
        assert_eq!(shortage.take(at(1000)), [path(2), dhcp(3)]);
        shortage.tried();
        shortage.add(path(2), at(1000));
        shortage.cut(PathId(2));
        assert_eq!(shortage.due(), None);
    }

    #[test]
    fn no_more_waits_than_a_laptop_can_have() {
        let mut shortage = Shortage::default();
        for id in 0..1000 {
            shortage.add(path(id), at(0));
        }
        assert_eq!(shortage.take(at(1000)).len(), MAX);
    }
}
