//! A copy of the office LAN in a stranger's hands, and his own way into the real one.

use std::{net::Ipv4Addr, time::Duration};

use sekisho_lab::{
    Cafe, NetLaptop, Process, ServerIdentity, Wall, address as at, packet::PacketSocket,
};

use crate::{Scene, must};

/// The stranger's end of his cable into the real hall, and the far end.
const NEAR: &str = "192.168.99.1";
const FAR: &str = "192.168.99.2";

/// A LAN with the office's prefix, router, server identifier and search domain.
pub fn lookalike() -> Cafe {
    Cafe {
        router: must(format!("{}/24", at::OFFICE_ROUTER).parse()),
        pool: (
            Ipv4Addr::new(10, 12, 100, 100),
            Ipv4Addr::new(10, 12, 100, 150),
        ),
        extra: vec![
            "dhcp-option-force=option:domain-name,mihon-city.example".to_owned(),
            "dhcp-option-force=option:domain-search,mihon-city.example".to_owned(),
        ],
        ..Cafe::default()
    }
}

/// The copied office: on a LAN of [`lookalike`], the router has the real one's MAC, and the beacon's
/// address is the stranger's.
#[derive(Debug)]
pub struct Hall<'s> {
    scene: &'s Scene,
}

impl<'s> Hall<'s> {
    /// Dresses the cafe's router up.
    pub fn copy(scene: &'s Scene) -> Self {
        let real = must(PacketSocket::open(must(scene.lab.space("office")), "lan")).mac;
        let mac = real.map(|byte| format!("{byte:02x}")).join(":");
        scene.run("cafe", &["ip", "link", "set", "lan", "address", &mac]);
        let beacon = format!("{}/32", at::BEACON.ip());
        scene.run("cafe", &["ip", "addr", "add", &beacon, "dev", "lo"]);
        Self { scene }
    }

    /// A beacon of the stranger's own with these papers: `LAB/NAME.pem` and `.key`. It answers with
    /// the nonce that it is asked for, or with `always`.
    pub fn beacon(&self, name: &str, papers: &str, always: Option<&str>) -> Process {
        let folder = self.scene.lab.dir().display();
        let (certificate, key) = (
            format!("{folder}/{papers}.pem"),
            format!("{folder}/{papers}.key"),
        );
        let (address, port) = (at::BEACON.ip().to_string(), at::BEACON.port().to_string());
        let mut arguments = vec![&*address, &*port, &*certificate, &*key];
        arguments.extend(always);
        self.scene.stage("cafe", name, "beacon.py", &arguments)
    }

    /// The stranger's own beacon with a key of his own. It answers any question.
    pub fn false_beacon(&self) -> Process {
        let papers = must(ServerIdentity::generate("beacon"));
        for (name, text) in [("pem", &papers.certificate), ("key", &papers.key)] {
            let file = self.scene.lab.dir().join(format!("false.{name}"));
            must(std::fs::write(file, text));
        }
        self.beacon("false-beacon", "false", None)
    }

    /// Lays the stranger's own cable into the real hall, where the beacon is reached by it.
    pub fn tunnel(&self) {
        let office = must(self.scene.lab.space("office")).path();
        let office = office.to_string_lossy();
        let add = [
            "ip", "link", "add", "hall", "type", "veth", "peer", "name", "hall",
        ];
        self.scene
            .run("cafe", &[&add[..], &["netns", &office]].concat());
        for (node, address) in [("cafe", NEAR), ("office", FAR)] {
            let address = format!("{address}/30");
            self.scene
                .run(node, &["ip", "addr", "add", &address, "dev", "hall"]);
            self.scene.run(node, &["ip", "link", "set", "hall", "up"]);
        }
        let beacon = at::BEACON;
        let rules = format!(
            "table ip hall {{ \
             chain in {{ type nat hook prerouting priority dstnat; \
             ip daddr {FAR} tcp dport {1} dnat to {0}; }}; \
             chain out {{ type nat hook postrouting priority srcnat; ip saddr {NEAR} masquerade; }}; }}",
            beacon.ip(),
            beacon.port()
        );
        self.scene.run("office", &["nft", &rules]);
    }

    /// Relays conversations with the beacon, each piece late by so many seconds; what the beacon
    /// says goes to `tape`.
    pub fn relay(&self, name: &str, seconds: &str, tape: Option<&str>) -> Process {
        let (address, port) = (at::BEACON.ip().to_string(), at::BEACON.port().to_string());
        let mut arguments = vec![&*address, &*port, FAR, &*port, seconds];
        arguments.extend(tape);
        self.scene.stage("cafe", name, "relay.py", &arguments)
    }

    /// Relays what goes to the gateway's address on the office LAN as well.
    pub fn relay_gateway(&self) {
        let gateway = format!("{}/32", at::GATEWAY_LAN.ip());
        self.scene
            .run("cafe", &["ip", "route", "add", &gateway, "via", FAR]);
        let rules = "table ip hall { chain out { type nat hook postrouting priority srcnat; \
                     oifname hall masquerade; }; }";
        self.scene.run("cafe", &["nft", rules]);
    }

    /// Moves the laptop's cable `eth1` to the copied office.
    pub fn lure(&self) {
        must(self.scene.lab.unplug(at::ETH1));
        must(self.scene.lab.plug(at::ETH1, Wall::Cafe));
    }

    /// The same, where the proof will be given: the oracle then takes the copy for the office, in
    /// which the tunnel may lead to the gateway's LAN side.
    pub fn lure_with_proof(&self) {
        self.lure();
        must(self.scene.lab.note(at::ETH1, Some(Wall::Office)));
    }

    /// Waits until the gate's log, from line `mark` on, says how the question to the beacon ended.
    pub fn answered(&self, laptop: &NetLaptop<'_>, mark: usize, how: &str) {
        must(
            laptop
                .log()
                .wait_after(mark, how, Duration::from_secs(20), |line| {
                    line.contains(how).then_some(())
                }),
        );
    }
}

/// How the gate's log tells of a proof over `eth1`.
pub const PROVEN: &str = "premises port=eth1 proven=true";
/// And of an answer of a server with another key.
pub const NOT_ITS_KEY: &str = "the beacon did not prove its key";
/// And of an answer to another question.
pub const NOT_OUR_QUESTION: &str = "the beacon's answer is not to our question";
/// And of one that took too long.
pub const TOO_FAR: &str = "the beacon's answer took longer than one across the hall";
