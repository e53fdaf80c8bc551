//! A desk in an office whose LAN has no inner gateway: the guest's packets go onto the LAN itself.

use std::time::Duration;

use sekisho_lab::{Cafe, NetLaptop, Options, Setup, UP_LIMIT, Wall, address as at};

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
            direct: true,
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

    /// A laptop at its desk, by the cable `eth1` alone: on the LAN, with groupware's page in the
    /// guest.
    pub fn at_the_desk(&self) -> NetLaptop<'_> {
        must(self.lab.unplug(at::ETH0));
        must(self.lab.plug(at::ETH1, Wall::Office));
        let laptop = self.direct_laptop();
        let event = must(laptop.wait_direct(0, UP_LIMIT));
        assert_eq!(event.text("port"), at::ETH1, "{:?}", event.said);
        let page = must(laptop.page(Duration::from_secs(10)));
        assert!(
            page.contains(&self.lab.canary().hex()),
            "another page: {page}"
        );
        laptop
    }
}
