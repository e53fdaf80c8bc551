//! A port that takes on the work OS's MAC, against a model of the kernel: which MAC is on the cable,
//! and what was sent under it.

use std::net::Ipv4Addr;

use sekisho_policy::Direct;

use super::{
    super::endpoints::sample,
    dot1x_tests::demand,
    tests::{MEMBER, World, lease, link, member},
    *,
};

mod any_order;
mod authenticated;
mod cables;
mod ends;

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
