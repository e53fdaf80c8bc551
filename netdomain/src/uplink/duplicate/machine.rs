//! One address from its first probe on: time and frames go in, frames and findings come out. No socket,
//! no clock.

use std::{net::Ipv4Addr, time::Duration};

use super::packet::{Heard, announcement, probe, read};

/// Probes before the address is used (RFC 5227, section 1.1: `PROBE_NUM`).
const PROBES: u8 = 3;
/// Pause after each probe, the last included; up to a quarter longer. The RFC has one to two seconds, and
/// two more at the end (`PROBE_MIN`, `PROBE_MAX`, `ANNOUNCE_WAIT`): made for spanning trees that learn, on
/// ports that hand over nothing for the first seconds. Here the port has just carried a whole exchange of
/// DHCP, whose server should have asked as well (RFC 2131, section 2.2); a station on a cable answers
/// within some milliseconds, one on a radio that dozes within 100 to 300 ms, so one of three reaches it.
/// One that is missed is told of as soon as it speaks.
const PROBE_PAUSE: Duration = Duration::from_millis(100);
/// Announcements, and the pause between them (`ANNOUNCE_NUM`, `ANNOUNCE_INTERVAL`). The first one is
/// not waited for.
const ANNOUNCEMENTS: u8 = 2;
const ANNOUNCE_PAUSE: Duration = Duration::from_secs(2);
/// Shortest time between two defences, and between two words about it (`DEFEND_INTERVAL`).
const DEFEND_PAUSE: Duration = Duration::from_secs(10);

/// What is to be done, or was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send this frame.
    Send(Vec<u8>),
    /// Nobody has it: it may be used. Once, and never after [`Step::Taken`].
    Free,
    /// The station with this MAC has it, or is about to. The last step.
    Taken([u8; 6]),
    /// It is in use here, and the station with this MAC says that it has it as well.
    Disputed([u8; 6]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Probing {
        sent: u8,
    },
    /// In use.
    Held {
        announced: u8,
        quarrel: Option<Quarrel>,
    },
    /// Somebody else's.
    Over,
}

/// Somebody says that an address which is in use here is his.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quarrel {
    /// When it was last said whose it is.
    defended: Duration,
    /// Who has claimed it since then.
    since: Option<[u8; 6]>,
}

/// An address that a port was lent.
#[derive(Debug)]
pub(crate) struct Watch {
    address: Ipv4Addr,
    mac: [u8; 6],
    random: fn() -> u32,
    stage: Stage,
    /// When to act next.
    due: Option<Duration>,
}

impl Watch {
    /// Begins to probe; the first probe is due at once.
    pub(crate) fn new(address: Ipv4Addr, mac: [u8; 6], now: Duration, random: fn() -> u32) -> Self {
        Self {
            address,
            mac,
            random,
            stage: Stage::Probing { sent: 0 },
            due: Some(now),
        }
    }

    /// The address.
    pub(crate) const fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Whether it may be used.
    pub(crate) const fn is_free(&self) -> bool {
        matches!(self.stage, Stage::Held { .. })
    }

    /// When [`Watch::on_time`] wants to be called next.
    pub(crate) const fn due(&self) -> Option<Duration> {
        self.due
    }

    /// Does what is due.
    pub(crate) fn on_time(&mut self, now: Duration) -> Vec<Step> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        match self.stage {
            Stage::Probing { sent } if sent < PROBES => {
                self.stage = Stage::Probing { sent: sent + 1 };
                let longer = PROBE_PAUSE * ((self.random)() % 256) / 1024;
                self.due = Some(now + PROBE_PAUSE + longer);
                vec![Step::Send(probe(self.mac, self.address))]
            }
            Stage::Probing { .. } => {
                let said = self.announce(now, 0, None);
                vec![Step::Free, said]
            }
            Stage::Held {
                announced,
                quarrel: Some(Quarrel {
                    since: Some(by), ..
                }),
            } => self.defend(now, announced, by),
            Stage::Held { announced, quarrel } if announced < ANNOUNCEMENTS => {
                vec![self.announce(now, announced, quarrel)]
            }
            Stage::Held { .. } | Stage::Over => {
                self.due = None;
                Vec::new()
            }
        }
    }

    /// Takes a frame that arrived on the port.
    pub(crate) fn on_frame(&mut self, now: Duration, frame: &[u8]) -> Vec<Step> {
        let Some(heard) = read(frame, self.mac, self.address) else {
            return Vec::new();
        };
        match (self.stage, heard) {
            (Stage::Probing { .. }, Heard::Claim(by) | Heard::Probe(by)) => {
                (self.stage, self.due) = (Stage::Over, None);
                vec![Step::Taken(by)]
            }
            // Section 2.4 (c): it is not given up, for whoever can send two frames could then take it
            // from the work OS and set us looking for another for ever; and it is said once in ten
            // seconds, so that two who both insist do not fill the LAN.
            (Stage::Held { announced, quarrel }, Heard::Claim(by)) => {
                let Some(Quarrel { defended, .. }) = quarrel else {
                    return self.defend(now, announced, by);
                };
                // What neighbours believe is what was said last, so the last word is ours.
                let since = Some(by);
                let quarrel = Some(Quarrel { defended, since });
                self.stage = Stage::Held { announced, quarrel };
                self.due = Some(defended + DEFEND_PAUSE);
                self.on_time(now)
            }
            // A probe is answered by the kernel, as any question for the address, while a wire is open.
            (Stage::Held { .. } | Stage::Over, _) => Vec::new(),
        }
    }

    fn defend(&mut self, now: Duration, announced: u8, by: [u8; 6]) -> Vec<Step> {
        let quarrel = Some(Quarrel {
            defended: now,
            since: None,
        });
        // It is an announcement.
        let said = self.announce(now, announced.max(1), quarrel);
        self.due = None;
        vec![said, Step::Disputed(by)]
    }

    fn announce(&mut self, now: Duration, announced: u8, quarrel: Option<Quarrel>) -> Step {
        self.stage = Stage::Held {
            announced: announced.saturating_add(1).min(ANNOUNCEMENTS),
            quarrel,
        };
        self.due = (announced + 1 < ANNOUNCEMENTS).then(|| now + ANNOUNCE_PAUSE);
        Step::Send(announcement(self.mac, self.address))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame};

    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 43, 77);
    const MAC: [u8; 6] = [2, 0x53, 0x4b, 0, 7, 0x17];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn watch() -> Watch {
        Watch::new(ADDRESS, MAC, Duration::ZERO, || 255)
    }

    /// Sender and target address of what is sent.
    fn sent(step: &Step) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let Step::Send(frame) = step else { return None };
        let ethernet = EthernetFrame::new_checked(&frame[..]).unwrap();
        assert_eq!(
            (ethernet.src_addr(), ethernet.dst_addr()),
            (EthernetAddress(MAC), EthernetAddress::BROADCAST)
        );
        let arp = ArpPacket::new_checked(ethernet.payload()).unwrap();
        let Ok(ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_protocol_addr,
            target_protocol_addr,
            ..
        }) = ArpRepr::parse(&arp)
        else {
            panic!("{arp}");
        };
        Some((source_protocol_addr, target_protocol_addr))
    }

    /// Lets the time pass until nothing is due.
    fn run(watch: &mut Watch) -> Vec<(Duration, Step)> {
        let mut steps = Vec::new();
        while let Some(due) = watch.due() {
            steps.extend(watch.on_time(due).into_iter().map(|step| (due, step)));
        }
        steps
    }

    #[test]
    fn an_address_that_nobody_has_is_free_after_three_probes_and_then_announced() {
        let steps = run(&mut watch());
        let none = Ipv4Addr::UNSPECIFIED;
        let said: Vec<_> = steps.iter().map(|(_, step)| sent(step)).collect();
        let (asks, says) = (Some((none, ADDRESS)), Some((ADDRESS, ADDRESS)));
        assert_eq!(said, [asks, asks, asks, None, says, says]);
        let (free, step) = &steps[3];
        assert_eq!(*step, Step::Free);
        assert!(*free < Duration::from_millis(400), "{free:?}");
        assert_eq!(steps[5].0, steps[4].0 + ANNOUNCE_PAUSE);
    }

    #[test]
    fn a_claim_or_a_probe_of_anothers_takes_it_before_it_is_used() {
        for frame in [announcement(OTHER, ADDRESS), probe(OTHER, ADDRESS)] {
            let mut watch = watch();
            watch.on_time(Duration::ZERO);
            let now = Duration::from_millis(50);
            assert_eq!(watch.on_frame(now, &frame), [Step::Taken(OTHER)]);
            assert_eq!(run(&mut watch), []);
            assert_eq!(watch.on_frame(now, &frame), [], "once");
        }
        // Of another address, our own that came back, or a switch that looks after the station here.
        let mut watch = watch();
        let neighbour = Ipv4Addr::new(192, 168, 43, 78);
        let mut tracked = probe(OTHER, ADDRESS);
        tracked[..6].copy_from_slice(&MAC);
        for frame in [
            tracked,
            announcement(OTHER, neighbour),
            probe(OTHER, neighbour),
            announcement(MAC, ADDRESS),
            probe(MAC, ADDRESS),
        ] {
            assert_eq!(watch.on_frame(Duration::ZERO, &frame), []);
        }
        assert!(run(&mut watch).iter().any(|(_, step)| *step == Step::Free));
    }

    #[test]
    fn the_last_word_about_an_address_in_use_is_ours() {
        let mut watch = watch();
        run(&mut watch);
        let claim = announcement(OTHER, ADDRESS);
        let at = |second: u64| Duration::from_secs(60 + second);
        assert_eq!(watch.on_frame(at(0), &claim).len(), 2);
        assert_eq!(watch.due(), None, "he said it once");
        for second in 1..5 {
            assert_eq!(watch.on_frame(at(second), &claim), []);
        }
        let last = run(&mut watch);
        let said: Vec<_> = last.iter().map(|(at, step)| (*at, sent(step))).collect();
        let ours = Some((ADDRESS, ADDRESS));
        assert_eq!(said, [(at(10), ours), (at(10), None)]);
    }

    #[test]
    fn it_is_defended_once_in_ten_seconds_and_not_given_up() {
        let mut watch = watch();
        run(&mut watch);
        let claim = announcement(OTHER, ADDRESS);
        let mut defences = 0;
        for tenth in 0..1000 {
            let now = Duration::from_millis(60_000 + tenth * 100);
            let steps = watch.on_frame(now, &claim);
            if !steps.is_empty() {
                defences += 1;
                assert_eq!(sent(&steps[0]), Some((ADDRESS, ADDRESS)));
                assert_eq!(steps[1], Step::Disputed(OTHER));
            }
            assert_eq!(watch.on_frame(now, &probe(OTHER, ADDRESS)), []);
        }
        assert_eq!(defences, 10, "in a hundred seconds");
        assert!(watch.is_free());
    }

    proptest! {
        /// Whatever is heard whenever: it is used only if nobody claimed it before, and the frames that we
        /// send are few.
        #[test]
        fn what_others_say_makes_neither_a_loop_nor_a_duplicate(
            heard in prop::collection::vec((0u64..20_000, 0u8..4), 0..100),
        ) {
            let mut watch = watch();
            let (mut now, mut claimed, mut frames) = (Duration::ZERO, false, 0);
            for (pause, what) in heard {
                let until = now + Duration::from_millis(pause);
                while let Some(due) = watch.due().filter(|due| *due <= until) {
                    for step in watch.on_time(due) {
                        prop_assert!(step != Step::Free || !claimed);
                        frames += u64::from(sent(&step).is_some());
                    }
                }
                now = until;
                let frame = match what {
                    0 => announcement(OTHER, ADDRESS),
                    1 => probe(OTHER, ADDRESS),
                    2 => announcement(MAC, ADDRESS),
                    _ => announcement(OTHER, Ipv4Addr::new(192, 168, 43, 1)),
                };
                claimed |= what < 2 && !watch.is_free();
                let steps = watch.on_frame(now, &frame);
                prop_assert!(!steps.contains(&Step::Free));
                frames += steps.iter().filter(|step| sent(step).is_some()).count() as u64;
                prop_assert!(!claimed || !watch.is_free());
            }
            let most = u64::from(PROBES + ANNOUNCEMENTS) + now.as_secs() / DEFEND_PAUSE.as_secs() + 1;
            prop_assert!(frames <= most, "{frames} in {now:?}");
        }

        /// No frame is more than a word about the address, however a true one was damaged, cut or added to.
        #[test]
        fn hostile_frames_are_read_or_passed_over(
            claims in any::<bool>(),
            damage in prop::collection::vec((0usize..42, any::<u8>()), 0..4),
            length in 0usize..42,
            more in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut frame = if claims { announcement(OTHER, ADDRESS) } else { probe(OTHER, ADDRESS) };
            for (at, byte) in &damage {
                frame[*at] = *byte;
            }
            let whole = watch().on_frame(Duration::ZERO, &frame);
            prop_assert!(!damage.is_empty() || whole == [Step::Taken(OTHER)]);
            prop_assert_eq!(watch().on_frame(Duration::ZERO, &frame[..length]), []);
            frame.extend(more);
            for steps in [whole, watch().on_frame(Duration::ZERO, &frame)] {
                prop_assert!(steps.is_empty() || matches!(steps[..], [Step::Taken(_)]));
            }
        }
    }
}
