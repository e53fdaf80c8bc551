//! Asks paths that wait, with the second key: a handshake and nothing else. What it proves, and why the
//! laptop's own key must not be used for it, is in the situation ([`super::situation`]).

use std::net::SocketAddrV4;
use std::time::Duration;

use bytes::BytesMut;
use gotatun::noise::index_table::IndexTable;
use sekisho_control::PathId;

use super::engine::Gate;
use super::plan::TunnelPlan;
use super::situation::{Event, MAX_PATHS};
use crate::moment::Moment;
use crate::tunnel::{Datagram, Identity, Opened, Roaming as _, WireGuard};

/// First bytes of a handshake's answer and of a cookie (`WireGuard` whitepaper, section 5.4), and where
/// the index stands by which each says whom it is for.
const ANSWER: [u8; 4] = [2, 0, 0, 0];
const ANSWER_TO: usize = 8;
const COOKIE: [u8; 4] = [3, 0, 0, 0];
const COOKIE_TO: usize = 4;
/// In a handshake: the index of whoever sends it.
const SENDER: usize = 4;

/// A path that is asked.
struct Asked {
    path: PathId,
    tunnel: WireGuard,
    /// By which an answer is known.
    index: [u8; 4],
}

/// The second key, and what is under way with it. One tunnel a path: an answer is the path's that it came
/// over.
pub(super) struct Standby {
    key: [u8; 32],
    mtu: u16,
    /// Below which no handshake was to be stamped at that time. One for all, and it goes with the time:
    /// where the wall clock is behind, a tunnel made later would else be behind those before it, and
    /// the gateway takes its handshakes for repeated ones.
    floor: (Duration, Moment),
    indices: IndexTable,
    asked: Vec<Asked>,
}

impl Standby {
    pub(super) fn new(key: [u8; 32], mtu: u16, floor: Duration, now: Moment) -> Self {
        Self {
            key,
            mtu,
            floor: (floor, now),
            indices: IndexTable::from_os_rng(),
            asked: Vec::new(),
        }
    }

    /// Leaves a handshake with `gateway` for `path` in `out`. Gives the newest stamp.
    fn ask(
        &mut self,
        path: PathId,
        gateway: [u8; 32],
        out: &mut Datagram,
        now: Moment,
    ) -> Option<Duration> {
        if self.asked.iter().all(|asked| asked.path != path) {
            if self.asked.len() >= MAX_PATHS {
                return None;
            }
            let identity = Identity {
                private: self.key,
                gateway,
                stamp_floor: self.floor.0 + now.since(self.floor.1),
                mtu: self.mtu,
            };
            self.asked.push(Asked {
                path,
                tunnel: WireGuard::new(&identity, &self.indices, now),
                index: [0; 4],
            });
        }
        let asked = self.asked.iter_mut().find(|asked| asked.path == path)?;
        asked.tunnel.initiate(out, now);
        asked.index = *out.bytes().get(SENDER..)?.first_chunk()?;
        Some(asked.tunnel.last_stamp())
    }

    /// Whether a datagram that came over this path is for the second key.
    pub(super) fn is_for(&self, path: PathId, datagram: &[u8]) -> bool {
        let to = match datagram.first_chunk() {
            Some(&ANSWER) => ANSWER_TO,
            Some(&COOKIE) => COOKIE_TO,
            _ => return false,
        };
        let index = datagram.get(to..).and_then(<[u8]>::first_chunk);
        self.asked
            .iter()
            .any(|asked| asked.path == path && index == Some(&asked.index))
    }

    /// Whether it proves that the gateway lives at the end of this path.
    pub(super) fn answers(
        &mut self,
        path: PathId,
        datagram: BytesMut,
        from: SocketAddrV4,
        now: Moment,
    ) -> bool {
        let Some(asked) = self.asked.iter_mut().find(|asked| asked.path == path) else {
            return false;
        };
        let mut unsent = Datagram::default();
        let opened = asked.tunnel.open(datagram, from, &mut unsent, now);
        let proven = matches!(opened, Opened::Answer { proven: true });
        if proven {
            // Nothing is ever sent by this session.
            asked.tunnel.reset(now);
        }
        proven
    }

    /// The path is gone.
    pub(super) fn forget(&mut self, path: PathId) {
        self.asked.retain(|asked| asked.path != path);
    }
}

impl Gate {
    /// Asks over a path that waits.
    pub(super) fn check(&mut self, path: PathId, now: Moment) {
        let Some(gateway) = self.sockets.sender(path).map(|socket| socket.gateway) else {
            return;
        };
        let plan = self.plan.gateways.get(usize::from(gateway.0));
        let (Some(standby), Some(TunnelPlan::WireGuard(key))) =
            (&mut self.standby, plan.map(|gateway| gateway.tunnel))
        else {
            return;
        };
        let mut datagram = std::mem::take(&mut self.datagram);
        if let Some(stamp) = standby.ask(path, key, &mut datagram, now) {
            if let Err(error) = self.stamp.keep(stamp) {
                tracing::warn!("{error}");
            }
            self.findings.asked(path);
            self.send_on(path, datagram.bytes());
        }
        self.datagram = datagram;
    }

    /// The second key was answered over this path.
    pub(super) fn checked(&mut self, path: PathId, now: Moment) {
        self.findings.heard(path);
        self.happen(Event::Checked(path), now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use gotatun::x25519::{PublicKey, StaticSecret};

    use super::*;

    const SECOND: [u8; 32] = [5; 32];
    const GATEWAY: [u8; 32] = [9; 32];
    const ADDRESS: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 1);

    fn at(millis: u64) -> Moment {
        Moment::from_boot(Duration::from_millis(millis))
    }

    fn public(private: [u8; 32]) -> [u8; 32] {
        PublicKey::from(&StaticSecret::from(private)).to_bytes()
    }

    fn gateway(private: [u8; 32]) -> WireGuard {
        let identity = Identity {
            private,
            gateway: public(SECOND),
            stamp_floor: Duration::ZERO,
            mtu: 1420,
        };
        WireGuard::new(&identity, &IndexTable::from_os_rng(), at(0))
    }

    /// Asks over a path; what the gateway says.
    fn ask(standby: &mut Standby, path: u32, peer: &mut WireGuard, millis: u64) -> BytesMut {
        let (mut question, mut answer) = (Datagram::new(), Datagram::new());
        standby
            .ask(PathId(path), public(GATEWAY), &mut question, at(millis))
            .unwrap();
        let opened = peer.open(question.bytes().into(), ADDRESS, &mut answer, at(millis));
        if !matches!(opened, Opened::Answer { .. }) {
            return BytesMut::new();
        }
        answer.bytes().into()
    }

    #[test]
    fn only_the_gateways_own_answer_over_the_same_path_counts() {
        let mut standby = Standby::new(SECOND, 1420, Duration::ZERO, at(0));
        let mut right = gateway(GATEWAY);
        let one = ask(&mut standby, 1, &mut right, 100);
        let two = ask(&mut standby, 2, &mut right, 300);
        assert!(
            !one.is_empty() && !two.is_empty(),
            "the gateway answers each"
        );
        assert!(!standby.is_for(PathId(2), &one));
        assert!(standby.is_for(PathId(1), &one));
        assert!(standby.answers(PathId(1), one.clone(), ADDRESS, at(310)));
        assert!(!standby.answers(PathId(1), one, ADDRESS, at(320)), "again");
        let mut forged = two.clone();
        forged[60] ^= 1;
        assert!(!standby.answers(PathId(2), forged, ADDRESS, at(330)));
        standby.forget(PathId(2));
        assert!(!standby.is_for(PathId(2), &two));
        assert!(!standby.answers(PathId(2), two, ADDRESS, at(340)));
        // Another's key: it cannot even read the question.
        assert!(ask(&mut standby, 3, &mut gateway([8; 32]), 500).is_empty());
        for noise in [&[][..], &[2, 0, 0, 0], &[3, 0, 0, 0, 0, 0, 0], &[4; 92]] {
            assert!(!standby.is_for(PathId(3), noise));
        }
    }

    /// A path that is asked later is not behind those before it, or the gateway would take its question for
    /// a repeated one.
    #[test]
    fn every_path_is_answered_also_where_the_wall_clock_is_behind() {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let newest = wall.unwrap() + Duration::from_hours(1);
        let mut standby = Standby::new(SECOND, 1420, newest, at(0));
        let mut right = gateway(GATEWAY);
        for (path, millis) in [(1, 100), (1, 5100), (2, 5400), (1, 10_200), (3, 10_500)] {
            let answer = ask(&mut standby, path, &mut right, millis);
            assert!(!answer.is_empty(), "path {path} after {millis} ms");
        }
    }
}
