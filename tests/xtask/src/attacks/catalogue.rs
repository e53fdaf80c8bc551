//! The attacks by number, in a line each, and what shows that their tests can fail.

/// One entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attack {
    /// Its number in the catalogue of attacks.
    pub(super) id: &'static str,
    /// What the attacker does.
    pub(super) does: &'static str,
    /// The positive control: what turns the same judgement red, or what passes where the attack
    /// does not.
    pub(super) control: &'static str,
}

/// How each test on the lab's cables ends (`Scene::holds`).
const ORACLE: &str = "a deliberate leak on the same wires turns the oracle red";

const fn attack(id: &'static str, does: &'static str, control: &'static str) -> Attack {
    Attack { id, does, control }
}

/// In the order of their numbers.
pub(super) const CATALOGUE: &[Attack] = &[
    attack(
        "T01",
        "DHCP hands out routes that win over any default route",
        "the lease's own router is in the routing table that is searched; the oracle's leak",
    ),
    attack(
        "T03",
        "the LAN's prefix covers the city's or public addresses",
        ORACLE,
    ),
    attack(
        "T04",
        "the wire's DNS names a false gateway; a peer with another key sits on the gateway's address",
        "the false gateway hears handshakes; the true one is taken afterwards; the oracle's leak",
    ),
    attack(
        "T05",
        "router advertisements: default route, more specific routes, prefix, resolver",
        "another host on the LAN believes the same advertisements; the oracle's leak",
    ),
    attack(
        "T06",
        "IPv6 by SLAAC and DHCPv6 beside the IPv4 tunnel, and a guest that tries to use it",
        "another seat on the LAN gets an address and an answer; the oracle's leak",
    ),
    attack(
        "T08",
        "ARP in the next hop's name; a socket that leads elsewhere than it says",
        "the attacker does take in sealed datagrams; the oracle's leak",
    ),
    attack(
        "T09",
        "asks by ARP for the inner addresses",
        "the wire's own address is answered; the oracle's leak",
    ),
    attack(
        "T12",
        "the guest asks other resolvers than the gate: DNS, DoT, DoH",
        "the gate's own question is found inside the tunnel by the same search; the oracle's leak",
    ),
    attack(
        "T13",
        "a captive portal: names, connections and pages are its own",
        "another seat on the LAN is led to the portal's page; the oracle's leak",
    ),
    attack(
        "T17",
        "evil twin, open or weakly protected Wi-Fi",
        "a station without our rules joins the open twin; the office's own network is joined afterwards",
    ),
    attack(
        "T18",
        "all UDP to the gateway is dropped",
        "it is open again once the datagrams pass; the oracle's leak",
    ),
    attack(
        "T19",
        "a copy of the office: subnet, gateway's address and MAC, DHCP server, search domain, beacon with another key",
        "the same laptop knows the true office; the oracle's leak",
    ),
    attack(
        "T20",
        "relays the beacon, and the gateway's LAN side, over a path to the real hall",
        "the slow relay is believed without its delay; the office's flow opens for the fast one; the oracle's leak",
    ),
    attack(
        "T21",
        "says again what the beacon said yesterday",
        "the recorded answer was believed when it was new; the same server with today's nonce is believed",
    ),
    attack(
        "T22",
        "moves the proven laptop by its cable to a stranger's hub",
        "the flow of the office is open before; the hub's capture has frames of the tunnel; the oracle's leak",
    ),
    attack(
        "T23",
        "pulls the cable that carries the tunnel, again and again, under load",
        ORACLE,
    ),
    attack(
        "T25",
        "a hub at the desk: hears all, injects frames from another MAC",
        "the injected frames are counted on the laptop's cable; the oracle's leak",
    ),
    attack(
        "T26",
        "captures from the power button on",
        "a firmware that boots from the network turns the same oracle red",
    ),
    attack(
        "T27",
        "shutdown, reset, panic of the work OS and of the laptop, power cut",
        "a canary written onto the same wire by root turns the oracle red",
    ),
    attack(
        "T28",
        "kills gate, uplink and the wired supplicant at random points",
        ORACLE,
    ),
    attack(
        "T29",
        "kills the gate, and what joins the guest to it",
        ORACLE,
    ),
    attack(
        "T30",
        "descriptors run out, the disk is full, the packet filter is flushed",
        "with descriptors, room or rules again it is open; the oracle's leak",
    ),
    attack(
        "T31",
        "sleep in the office and waking elsewhere; sleep in the middle of a handshake",
        "the office is proven afresh after waking there; the oracle's leak",
    ),
    attack(
        "T32",
        "an empty clock battery, a clock far ahead, a clock that jumps, a policy that expires",
        "with the right clock it is open; the oracle's leak",
    ),
    attack(
        "T33",
        "new programs in place, an upgrade that breaks off or is killed, an older policy",
        "whole programs and the newer policy open again; the oracle's leak",
    ),
    attack(
        "T34",
        "the policy is missing, empty, cut, unreadable, or a stranger's",
        ORACLE,
    ),
    attack(
        "T35",
        "the guest forges source addresses",
        "the same packet with the guest's own address passes; the oracle's leak",
    ),
    attack(
        "T36",
        "the guest changes its MAC, or has many",
        "an honest packet passes in the same run, and it alone",
    ),
    attack(
        "T38",
        "the guest plays router, DHCP server, ARP poisoner",
        "an honest packet passes in the same run, and it alone",
    ),
    attack(
        "T39",
        "frames of odd lengths",
        "frames of the right lengths pass in the same run",
    ),
    attack(
        "T40",
        "offload headers that lie",
        "right headers pass in the same run",
    ),
    attack(
        "T41",
        "rings that break the rules",
        "right rings are served by the same code",
    ),
    attack(
        "T44",
        "a flood of connections",
        "a download lives through it; the oracle's leak",
    ),
    attack(
        "T45",
        "data in names for the city's resolver",
        "names below the bound pass and are found inside the tunnel; the oracle's leak",
    ),
    attack(
        "T46",
        "USB tether, second NIC, radio, plugged in while it runs; machines inside the work OS",
        "the same cards, used by hand, are seen in the same captures; a translated nested network passes",
    ),
    attack(
        "T49",
        "a policy with flipped bits, by an unknown key, without a signature",
        "the untouched policy is accepted by the same code",
    ),
    attack(
        "T50",
        "an older policy, or another of the same version",
        "the newer one is accepted by the same code",
    ),
];
