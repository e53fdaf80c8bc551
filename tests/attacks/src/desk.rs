//! A desk in an office whose LAN has no inner gateway: the guest's packets go onto the LAN itself.

use std::time::Duration;

use sekisho_lab::{Cafe, Direct, NetLaptop, Netns, Options, Setup, UP_LIMIT, Wall, address as at};

use crate::{Scene, must};

/// Where the city's routers look for the guest's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// On the office LAN.
    Office,
    /// Behind the gateway's tunnel.
    Tunnel,
}

impl Scene {
    /// A world in which the office LAN has no inner gateway.
    pub fn direct(cafe: Cafe) -> Option<Self> {
        let scene = Self::of(Options {
            cafe,
            direct: Some(Direct::Routed),
            ..Options::default()
        })?;
        scene.route_guest(Found::Office);
        Some(scene)
    }

    /// The city's routing has found out where the guest's address is.
    pub fn route_guest(&self, found: Found) {
        let guest = format!("{}/32", at::GUEST);
        match found {
            Found::Office => {
                let lan = ["ip", "route", "replace", &guest, "dev", "lan"];
                self.run("office", &lan);
                let office = [
                    "ip",
                    "route",
                    "replace",
                    &guest,
                    "via",
                    "10.12.0.1",
                    "dev",
                    "office",
                ];
                self.run("gateway", &office);
            }
            Found::Tunnel => {
                self.run("office", &["ip", "route", "del", &guest]);
                self.run("gateway", &["ip", "route", "del", &guest]);
            }
        }
    }

    /// How such a city sets its laptops up.
    pub fn direct_setup(&self) -> Setup {
        Setup {
            policy: Some(self.lab.papers().policy_with_direct()),
            ..Setup::default()
        }
    }

    /// A laptop that is on, not necessarily anywhere.
    pub fn direct_laptop(&self) -> NetLaptop<'_> {
        let laptop = must(NetLaptop::start(&self.lab, &self.direct_setup()));
        must(laptop.plug_guest());
        laptop
    }

    /// A world in whose office the guest is a member of the LAN.
    pub fn bridged(cafe: Cafe) -> Option<Self> {
        Self::of(Options {
            cafe,
            direct: Some(Direct::Bridged),
            ..Options::default()
        })
    }

    /// A host on the office LAN.
    pub fn neighbour(&self, address: std::net::Ipv4Addr) -> Netns {
        let space = must(Netns::create());
        let into = space.path().display().to_string();
        let name = format!("pc{}", address.octets()[3]);
        let link = [
            "ip", "link", "add", &name, "type", "veth", "peer", "name", "lan", "netns",
        ];
        self.run("walls", &[&link[..], &[&*into]].concat());
        let join = ["ip", "link", "set", &name, "master", "office-lan", "up"];
        self.run("walls", &join);
        for words in [
            "link set lo up".to_owned(),
            format!("addr add {address}/24 dev lan"),
            "link set lan up".to_owned(),
            format!("route add default via {}", at::OFFICE_ROUTER),
        ] {
            let mut command = space.command("ip");
            command.args(words.split(' '));
            must(must(self.lab.run_command(command, Duration::from_secs(10))).ok());
        }
        space
    }

    /// A laptop at its desk whose guest is a member of the LAN, with groupware's page in the guest.
    pub fn member_at_the_desk(&self) -> NetLaptop<'_> {
        must(self.lab.unplug(at::ETH0));
        must(self.lab.plug(at::ETH1, Wall::Office));
        let setup = Setup {
            policy: Some(self.lab.papers().policy_with_bridged()),
            ..Setup::default()
        };
        let laptop = must(NetLaptop::start(&self.lab, &setup));
        must(laptop.plug_guest());
        self.joined(&laptop, 0);
        self.page(&laptop);
        laptop
    }

    /// Waits until the guest's packets go onto the LAN, and lets the guest ask for its address.
    pub fn joined(&self, laptop: &NetLaptop<'_>, mark: usize) {
        let event = must(laptop.wait_direct(mark, UP_LIMIT));
        assert_eq!(event.text("port"), at::ETH1, "{:?}", event.said);
        assert_eq!(
            event.text("address"),
            at::GUEST_IN_OFFICE.to_string(),
            "{:?}",
            event.said
        );
        self.addressed(laptop, at::GUEST_IN_OFFICE);
    }

    /// Lets the guest ask until it has this address, as a work OS does each time its cable is plugged
    /// in.
    pub fn addressed(&self, laptop: &NetLaptop<'_>, address: std::net::Ipv4Addr) {
        must(laptop.plug_until(address));
    }

    /// A laptop at its desk, by the cable `eth1` alone: on the LAN, with groupware's page in the
    /// guest.
    pub fn at_the_desk(&self) -> NetLaptop<'_> {
        must(self.lab.unplug(at::ETH0));
        must(self.lab.plug(at::ETH1, Wall::Office));
        let laptop = self.direct_laptop();
        let event = must(laptop.wait_direct(0, UP_LIMIT));
        assert_eq!(event.text("port"), at::ETH1, "{:?}", event.said);
        self.page(&laptop);
        laptop
    }
}
