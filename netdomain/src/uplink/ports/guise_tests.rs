//! A port that takes on the work OS's MAC, against a model of the kernel: which MAC is on the cable,
//! and what was sent under it.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use sekisho_policy::Direct;

use super::{
    super::endpoints::sample,
    dot1x_tests::demand,
    tests::{MEMBER, World, lease, link, member, standing},
    *,
};

const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The kernel's side of the port `eth0`.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the kernel's own flags, each apart"
)]
struct Kernel {
    up: bool,
    cable: bool,
    losses: u32,
    mac: [u8; 6],
    own: Option<[u8; 6]>,
    wake: bool,
    /// News that were not read yet.
    news: Vec<Link>,
    /// The port has a MAC for which a proof is due.
    trial: bool,
    /// The MAC that the supplicant of this carrier was started under.
    asks_as: Option<[u8; 6]>,
    /// The MAC that the authenticator has let in.
    let_in: Option<[u8; 6]>,
}

impl Kernel {
    fn new() -> Self {
        Self {
            up: true,
            cable: true,
            losses: 0,
            mac: OWN,
            own: None,
            wake: false,
            news: Vec::new(),
            trial: false,
            asks_as: None,
            let_in: None,
        }
    }

    fn tell(&mut self) {
        self.news.push(Link {
            mac: self.mac,
            own: self.own,
            up: self.up,
            ..link(0, self.up && self.cable, self.losses)
        });
    }

    fn lose(&mut self, was: bool) {
        self.losses += u32::from(was && !(self.up && self.cable));
        self.tell();
    }

    fn plug(&mut self, cable: bool) {
        let was = self.up && self.cable;
        self.cable = cable;
        self.let_in = None;
        self.lose(was);
    }

    fn does(&mut self, actions: &[Action]) {
        for action in actions {
            let was = self.up && self.cable;
            match action {
                Action::Up(0) => {
                    self.up = true;
                    self.lose(was);
                }
                Action::BeginDot1x(_) => self.asks_as = Some(self.mac),
                Action::EndDot1x(0) => self.asks_as = None,
                Action::Down(0) => {
                    self.up = false;
                    self.let_in = None;
                    self.lose(was);
                }
                Action::SetMac { port, mac, own } if port.index == 0 => {
                    assert!(!self.up, "the MAC of a link that is up was set");
                    (self.mac, self.own, self.trial) = (*mac, *own, own.is_some());
                    self.tell();
                }
                Action::Wake(0, wake) => self.wake = *wake,
                Action::StartDhcp(0, mac) => {
                    assert_eq!(*mac, self.mac, "a lease under another MAC than the port's");
                }
                _ => {}
            }
        }
    }
}

/// A desk: the machine, the kernel, and what is open.
struct Desk {
    ports: Ports,
    kernel: Kernel,
    world: World,
}

impl Desk {
    fn new() -> Self {
        Self::of(sample())
    }

    /// At a switch that has to let in each MAC.
    fn with_dot1x() -> Self {
        let mut endpoints = sample();
        demand(&mut endpoints);
        Self::of(endpoints)
    }

    fn of(mut endpoints: Endpoints) -> Self {
        endpoints.direct = Some(Direct::Bridged);
        endpoints.wake_on_lan = true;
        let mut desk = Self {
            ports: Ports::new(endpoints, Vec::new()).for_member(Some(MEMBER)),
            kernel: Kernel::new(),
            world: World::default(),
        };
        desk.on(Event::GateAttached);
        desk.kernel.tell();
        desk.read_all();
        desk
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        let actions = self.ports.on(event);
        self.world.does(&actions);
        self.kernel.does(&actions);
        actions
    }

    /// Another process, with what the last one left on the card.
    fn begin_anew(&mut self) {
        self.ports = Ports::new(self.ports.endpoints.clone(), Vec::new()).for_member(Some(MEMBER));
        self.world = World::default();
        self.kernel.news.clear();
        self.kernel.trial = false;
        (self.kernel.asks_as, self.kernel.let_in) = (None, None);
        self.on(Event::GateAttached);
        self.kernel.tell();
        self.read();
    }

    fn read(&mut self) {
        if !self.kernel.news.is_empty() {
            let news = self.kernel.news.remove(0);
            self.on(Event::Link(news));
        }
    }

    fn read_all(&mut self) {
        while !self.kernel.news.is_empty() {
            self.read();
        }
    }

    fn prove(&mut self) {
        self.on(Event::Gate(GateToUplink::Premises {
            port: "eth0".into(),
            proven: true,
        }));
    }

    fn ask(&mut self) -> Vec<Action> {
        self.on(Event::Gate(GateToUplink::AskWire {
            port: "eth0".into(),
            address: Ipv4Addr::new(10, 250, 7, 23),
            mtu: 1420,
            member: member(),
        }))
    }

    /// As it goes at the desk: proven under the own MAC, and then under the work OS's.
    fn seated() -> (Self, OpenWire) {
        let mut desk = Self::new();
        desk.on(Event::Bound(0, lease(50)));
        desk.prove();
        desk.ask();
        desk.read_all();
        assert_eq!(desk.kernel.mac, MEMBER);
        desk.on(Event::Bound(0, lease(77)));
        desk.prove();
        let opened = desk.ask();
        let [Action::OpenWire(wire)] = &opened[..] else {
            panic!("{opened:?}");
        };
        let wire = wire.clone();
        (desk, wire)
    }
}

#[test]
fn the_wire_of_a_member_has_the_lease_of_its_mac() {
    let (desk, wire) = Desk::seated();
    assert_eq!(wire.address, lease(77).address);
    let place = wire.lan.unwrap();
    assert_eq!((place.address, place.prefix), (wire.address, 24));
    assert_eq!(place.router, lease(77).router);
    assert_eq!(desk.ports.member_at(0), Some(&member()));
}

#[test]
fn t22_the_mac_goes_with_the_cable() {
    let (mut desk, wire) = Desk::seated();
    desk.kernel.plug(false);
    let news = desk.kernel.news.remove(0);
    let actions = desk.on(Event::Link(news));
    assert_eq!(actions[0], Action::ShutWire(wire));
    // Before the next cable is looked at.
    desk.read_all();
    assert_eq!((desk.kernel.mac, desk.kernel.own), (OWN, None));
    desk.kernel.plug(true);
    desk.read_all();
    assert_eq!(desk.ports.member_at(0), None);
    assert_eq!(
        desk.world.dhcp,
        [0].into(),
        "it looks for a lease of its own"
    );
}

/// The cable was moved in the moment in which the link was down for the change: nobody proves
/// anything there, and the MAC is taken off.
#[test]
fn t22_a_cable_that_moved_during_the_change_costs_a_minute_of_the_mac() {
    let mut desk = Desk::new();
    desk.on(Event::Bound(0, lease(50)));
    desk.prove();
    desk.ask();
    desk.read_all();
    assert!(desk.kernel.trial);
    desk.on(Event::Bound(0, lease(9)));
    assert_eq!(desk.ask(), [], "nothing is proven there");
    desk.on(Event::TrialOver(0));
    desk.read_all();
    assert_eq!(desk.kernel.mac, OWN);
    assert_eq!(desk.world.dhcp, [0].into());
}

#[test]
fn two_cables_in_one_office_do_not_both_take_on_the_mac() {
    let mut desk = Desk::new();
    desk.on(Event::Bound(0, lease(50)));
    desk.prove();
    desk.ask();
    desk.read_all();
    assert_eq!(desk.kernel.mac, MEMBER);
    // Proven while the first one is being proven anew.
    desk.on(Event::Link(link(1, true, 0)));
    desk.on(Event::Bound(1, lease(51)));
    desk.on(Event::Gate(GateToUplink::Premises {
        port: "eth1".into(),
        proven: true,
    }));
    let asks = Event::Gate(GateToUplink::AskWire {
        port: "eth1".into(),
        address: Ipv4Addr::new(10, 250, 7, 23),
        mtu: 1420,
        member: member(),
    });
    assert_eq!(desk.on(asks.clone()), []);
    // It does once the first one is out of it.
    desk.kernel.plug(false);
    desk.read_all();
    desk.kernel.plug(true);
    desk.read_all();
    assert_eq!(desk.kernel.mac, OWN);
    let changes = desk.on(asks);
    let on_the_other =
        |action: &Action| matches!(action, Action::SetMac { port, .. } if port.index == 1);
    assert!(changes.iter().any(on_the_other), "{changes:?}");
}

/// A cable that goes from the laptop's own port into its dock's: the first port has no carrier any more.
#[test]
fn a_port_whose_cable_is_gone_does_not_keep_the_mac_from_another() {
    let (mut desk, _) = Desk::seated();
    desk.kernel.plug(false);
    desk.read_all();
    assert_eq!(desk.kernel.mac, OWN);
    desk.on(Event::Link(link(1, true, 0)));
    desk.on(Event::Bound(1, lease(51)));
    desk.on(Event::Gate(GateToUplink::Premises {
        port: "eth1".into(),
        proven: true,
    }));
    let changes = desk.on(Event::Gate(GateToUplink::AskWire {
        port: "eth1".into(),
        address: Ipv4Addr::new(10, 250, 7, 23),
        mtu: 1420,
        member: member(),
    }));
    let on_the_other =
        |action: &Action| matches!(action, Action::SetMac { port, .. } if port.index == 1);
    assert!(changes.iter().any(on_the_other), "{changes:?}");
}

#[test]
fn a_proof_that_ends_without_the_cable_ends_the_mac() {
    let (mut desk, _) = Desk::seated();
    desk.on(Event::TrialOver(0));
    assert!(desk.ports.is_on_trial(0), "proven: until the next one");
    desk.on(Event::Gate(GateToUplink::Premises {
        port: "eth0".into(),
        proven: false,
    }));
    desk.on(Event::TrialOver(0));
    assert!(!desk.ports.is_on_trial(0));
    desk.read_all();
    assert_eq!(desk.kernel.mac, OWN);
}

#[test]
fn a_lan_that_does_not_take_the_mac_is_not_asked_for_ever() {
    let mut desk = Desk::new();
    let mut changes = 0;
    for _ in 0..10 {
        desk.on(Event::Bound(0, lease(50)));
        desk.prove();
        changes += u32::from(!desk.ask().is_empty());
        desk.read_all();
        desk.on(Event::TrialOver(0));
        desk.read_all();
        assert_eq!(desk.kernel.mac, OWN);
    }
    assert_eq!(changes, 3);
    // Sleep is a fresh start.
    desk.on(Event::Suspend);
    desk.on(Event::Resume);
    desk.read_all();
    desk.on(Event::Bound(0, lease(50)));
    desk.prove();
    assert!(!desk.ask().is_empty());
}

#[test]
fn a_card_that_has_the_work_oss_mac_itself_asks_for_the_lease_again_by_name() {
    let mut desk = Desk::new();
    desk.kernel.mac = MEMBER;
    desk.ports.by_index.get_mut(&0).unwrap().mac = MEMBER;
    desk.on(Event::Bound(0, lease(50)));
    desk.prove();
    let actions = desk.ask();
    assert!(actions.contains(&Action::StartDhcp(0, MEMBER)));
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::Down(_)))
    );
    desk.on(Event::Bound(0, lease(50)));
    desk.prove();
    assert!(matches!(desk.ask()[..], [Action::OpenWire(_)]));
}

/// A gate says when, and not which MAC: a message that named one would be none of the protocol's.
#[test]
fn t36_a_gate_that_has_fallen_names_no_mac() {
    let (desk, _) = Desk::seated();
    assert_eq!(desk.kernel.mac, MEMBER);
    let word = serde_json::to_value(member()).unwrap();
    assert!(serde_json::from_value::<LanMember>(word.clone()).is_ok());
    let mut with_mac = word;
    with_mac["mac"] = serde_json::json!([2, 0, 0, 0, 0, 9]);
    assert!(serde_json::from_value::<LanMember>(with_mac).is_err());
    // And where the supervisor named none, no port changes its own.
    let mut desk = Desk::new();
    desk.ports.member_mac = None;
    desk.on(Event::Bound(0, lease(50)));
    desk.prove();
    assert_eq!(desk.ask(), []);
    assert_eq!(desk.kernel.mac, OWN);
}

/// A switch that lets the work OS's MAC in and bounces the port as soon as it sees it.
#[test]
fn a_port_that_is_bounced_at_each_change_keeps_its_own_mac_in_the_end() {
    let mut desk = Desk::new();
    let bounced = |desk: &mut Desk| {
        desk.on(Event::Bound(0, lease(50)));
        desk.prove();
        let changes = !desk.ask().is_empty();
        desk.read_all();
        if changes {
            desk.on(Event::Bound(0, lease(77)));
            desk.prove();
            assert!(matches!(desk.ask()[..], [Action::OpenWire(_)]));
        }
        desk.kernel.plug(false);
        desk.read_all();
        desk.kernel.plug(true);
        desk.read_all();
        assert_eq!(desk.kernel.mac, OWN);
        changes
    };
    let changes = (0..40).filter(|_| bounced(&mut desk)).count();
    assert_eq!(changes, 16);
    // A wire that is there at the end of the minute begins the count anew.
    let (mut desk, _) = Desk::seated();
    desk.on(Event::TrialOver(0));
    assert_eq!(desk.ports.hasty, 0);
}

#[test]
fn a_member_is_authenticated_anew_under_its_own_mac() {
    let mut desk = Desk::with_dot1x();
    desk.on(Event::Standing(0, Standing::Authenticated));
    desk.on(Event::Bound(0, lease(50)));
    desk.prove();
    desk.ask();
    desk.read_all();
    assert_eq!(desk.kernel.mac, MEMBER);
    // Nothing that was agreed under the card's own MAC counts, whatever the gate says.
    desk.on(Event::Bound(0, lease(77)));
    desk.prove();
    assert_eq!(desk.ask(), []);
    desk.on(Event::Standing(0, Standing::Authenticated));
    desk.prove();
    assert_eq!(desk.ask(), [], "another lease than the one before");
    desk.on(Event::Bound(0, lease(77)));
    desk.prove();
    assert!(matches!(desk.ask()[..], [Action::OpenWire(_)]));
    // A refusal once it was authenticated ends the wire; the supplicant asks anew, without a change.
    let wire = desk.ports.wire.clone().unwrap();
    let actions = desk.on(Event::Standing(0, Standing::Refused));
    assert_eq!(actions[0], Action::ShutWire(wire));
    assert_eq!(desk.kernel.mac, MEMBER);
}

#[test]
fn a_switch_that_refuses_the_work_oss_mac_has_the_cards_own_again_at_once() {
    let mut desk = Desk::with_dot1x();
    let mut changes = 0;
    loop {
        desk.on(Event::Standing(0, Standing::Authenticated));
        desk.on(Event::Bound(0, lease(50)));
        desk.prove();
        if desk.ask().is_empty() {
            break;
        }
        changes += 1;
        desk.read_all();
        assert_eq!(desk.kernel.mac, MEMBER);
        desk.on(Event::Standing(0, Standing::Refused));
        desk.read_all();
        assert_eq!((desk.kernel.mac, desk.kernel.own), (OWN, None));
        assert!(desk.world.dot1x.contains(&0), "it is asked anew");
    }
    assert_eq!(changes, 3);
}

#[test]
fn a_new_process_gives_back_what_the_last_one_left_on() {
    let mut desk = Desk::new();
    (desk.kernel.mac, desk.kernel.own) = (MEMBER, Some(OWN));
    desk.begin_anew();
    assert_eq!(desk.world.dhcp, [].into(), "nothing is sent under it");
    desk.read_all();
    assert_eq!((desk.kernel.mac, desk.kernel.own), (OWN, None));
    assert_eq!(desk.world.dhcp, [0].into());
}

/// A process that ends at the desk, awake or asleep, leaves a card that is deaf and has its own MAC.
#[test]
fn a_process_that_ends_leaves_no_card_that_listens() {
    for sleeps in [false, true] {
        let (mut desk, _) = Desk::seated();
        if sleeps {
            desk.on(Event::Suspend);
        }
        assert!(desk.kernel.wake);
        assert_eq!(desk.kernel.mac, MEMBER);
        desk.on(Event::End);
        assert!(!desk.kernel.wake && !desk.kernel.up, "asleep: {sleeps}");
        assert_eq!((desk.kernel.mac, desk.kernel.own), (OWN, None));
        // One that was killed leaves it as it was, and the next one takes it off.
        let (mut desk, _) = Desk::seated();
        if sleeps {
            desk.on(Event::Suspend);
        }
        desk.begin_anew();
        desk.read_all();
        assert!(!desk.kernel.wake, "asleep: {sleeps}");
        assert_eq!((desk.kernel.mac, desk.kernel.own), (OWN, None));
        assert_eq!(desk.world.dhcp, [0].into());
    }
}

/// E19: a magic packet wakes the laptop at the desk that it was proven at, and nowhere else.
#[test]
fn a_magic_packet_wakes_at_the_proven_desk_and_nowhere_else() {
    let (mut desk, _) = Desk::seated();
    assert!(desk.kernel.wake);
    desk.on(Event::Suspend);
    desk.read_all();
    assert!(desk.kernel.wake && !desk.kernel.up);
    assert_eq!(desk.kernel.mac, MEMBER, "by the MAC that the LAN knows");
    desk.on(Event::Resume);
    desk.read_all();
    assert!(!desk.kernel.wake && desk.kernel.up);
    assert_eq!(desk.kernel.mac, OWN);

    // Whatever ends the proof ends it.
    let ends = [
        Event::LeaseLost(0),
        Event::Gate(GateToUplink::Premises {
            port: "eth0".into(),
            proven: false,
        }),
        Event::GateLost,
    ];
    for end in ends {
        let (mut desk, _) = Desk::seated();
        desk.on(end.clone());
        assert!(!desk.kernel.wake, "{end:?}");
        desk.on(Event::Suspend);
        assert!(!desk.kernel.wake, "{end:?}");
        assert_eq!(desk.kernel.mac, OWN, "{end:?}");
    }
    let (mut desk, _) = Desk::seated();
    desk.kernel.plug(false);
    desk.read_all();
    assert!(!desk.kernel.wake);
    // And where policy does not say so, it is switched off and never on.
    let mut ports = Ports::new(sample(), Vec::new());
    ports.on(Event::GateAttached);
    let actions = ports.on(Event::Link(link(0, true, 0)));
    assert!(actions.contains(&Action::Wake(0, false)));
    ports.on(Event::Bound(0, lease(50)));
    let proven = ports.on(Event::Gate(GateToUplink::Premises {
        port: "eth0".into(),
        proven: true,
    }));
    assert!(!proven.contains(&Action::Wake(0, true)));
}

#[derive(Debug, Clone)]
enum Do {
    Plug(bool),
    Read,
    Bound,
    Prove(bool),
    Ask,
    Stand(Standing),
    Trial,
    Gate(bool),
    Sleep(bool),
    /// The process ends, in an orderly way or not, and another one begins.
    End(bool),
}

fn step() -> impl Strategy<Value = Do> {
    prop_oneof![
        3 => any::<bool>().prop_map(Do::Plug),
        8 => Just(Do::Read),
        4 => Just(Do::Bound),
        4 => prop::bool::weighted(0.8).prop_map(Do::Prove),
        4 => Just(Do::Ask),
        4 => standing().prop_map(Do::Stand),
        1 => Just(Do::Trial),
        1 => any::<bool>().prop_map(Do::Gate),
        1 => any::<bool>().prop_map(Do::Sleep),
        1 => any::<bool>().prop_map(Do::End),
    ]
}

proptest! {
    /// Whatever happens in whatever order, a wire is open only under the work OS's MAC on a link that
    /// the machine believes proven, and, where policy demands it, that the authenticator let in under that
    /// MAC; and with the cable out and all news read, the card has its own.
    #[test]
    fn a_wire_is_a_members_and_without_a_cable_the_mac_is_the_cards(
        dot1x: bool,
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut desk = if dot1x { Desk::with_dot1x() } else { Desk::new() };
        for step in steps {
            match step {
                Do::Plug(cable) if cable != desk.kernel.cable => desk.kernel.plug(cable),
                Do::Read => desk.read(),
                Do::Bound if desk.world.dhcp.contains(&0) => {
                    desk.on(Event::Bound(0, lease(50)));
                }
                Do::Prove(true) => desk.prove(),
                Do::Prove(false) => {
                    desk.on(Event::Gate(GateToUplink::Premises {
                        port: "eth0".into(),
                        proven: false,
                    }));
                }
                Do::Ask => {
                    desk.ask();
                }
                Do::Trial if desk.kernel.trial => {
                    desk.on(Event::TrialOver(0));
                }
                Do::Stand(standing) if let Some(mac) = desk.kernel.asks_as => {
                    desk.kernel.let_in = (standing == Standing::Authenticated).then_some(mac);
                    desk.on(Event::Standing(0, standing));
                }
                Do::Plug(_) | Do::Bound | Do::Trial | Do::Stand(_) => {}
                Do::Gate(there) => {
                    desk.on(if there { Event::GateAttached } else { Event::GateLost });
                }
                Do::End(orderly) => {
                    if orderly {
                        desk.on(Event::End);
                        prop_assert_eq!((desk.kernel.mac, desk.kernel.own), (OWN, None));
                        prop_assert!(!desk.kernel.wake && !desk.kernel.up);
                    }
                    desk.begin_anew();
                    prop_assert!(!desk.kernel.wake, "what a killed process left");
                }
                Do::Sleep(asleep) => {
                    if asleep != desk.ports.asleep {
                        desk.on(if asleep { Event::Suspend } else { Event::Resume });
                    }
                }
            }
            prop_assert!(desk.ports.wire.is_none() || desk.ports.gate);
            if desk.ports.wire.is_some() {
                prop_assert_eq!(desk.kernel.mac, MEMBER);
                prop_assert!(desk.ports.any_proven());
                // The loss of a cable is news to the machine once it has read it.
                let unread = !desk.kernel.news.is_empty();
                prop_assert!(!dot1x || unread || desk.kernel.let_in == Some(MEMBER));
            }
            prop_assert!(!desk.kernel.wake || desk.ports.any_proven() || desk.ports.asleep);
        }
        desk.on(Event::Resume);
        if desk.kernel.cable {
            desk.kernel.plug(false);
        }
        desk.read_all();
        // The cable went while the link was down for the change.
        if desk.kernel.trial {
            desk.on(Event::TrialOver(0));
            desk.read_all();
        }
        prop_assert_eq!(desk.kernel.mac, OWN);
        prop_assert!(desk.ports.wire.is_none() && !desk.kernel.wake);
        // And the next cable is used as ever.
        desk.kernel.plug(true);
        desk.read_all();
        prop_assert_eq!(&desk.world.dhcp, &[0].into());
        prop_assert_eq!(desk.ports.member_at(0), None);
    }
}
