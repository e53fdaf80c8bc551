//! The packet filter of the uplink's namespace.
//!
//! Everything is dropped in, out and forward; what may pass is the tunnel's five-tuples and the
//! beacon, on ports that are in a set, and ARP with the port's next hop. The text is a pure
//! function of the policy's endpoints. The sets start empty, so that the rules shut everything
//! before any link comes up and again after a restart; [`super::netlink::Sets`] opens and shuts
//! single ports.
//!
//! What the rules do not see: packet sockets. The DHCP client sends through one, so no rule lets
//! DHCP through the kernel's own UDP. ICMP is dropped both ways: no echo replies, and no path-MTU
//! messages that anybody on the way could forge. IPv6 has no rule at all, and is off by sysctl.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::SocketAddrV4,
    process::{Command, Stdio},
};

use sekisho_policy::{Direct, Rate};

use super::{Endpoints, Transport, netlink::MARK};

/// Name of the table, in the families `inet` and `arp`.
pub(crate) const TABLE: &str = "sekisho";

/// The ruleset as text for `nft -f -`. One transaction: it replaces whatever was loaded.
pub fn ruleset(endpoints: &Endpoints) -> String {
    let outside = |transports: &[Transport]| {
        let gateways = endpoints.gateways.iter();
        elements(
            gateways
                .filter(|gateway| transports.contains(&gateway.transport))
                .map(|gateway| gateway.outside),
        )
    };
    let lan = elements(endpoints.gateways.iter().filter_map(|gateway| gateway.lan));
    let beacon = elements(endpoints.beacon.iter().map(|beacon| beacon.address));

    let mut text = String::from("flush ruleset\ntable inet sekisho {\n");
    text.push_str(OWN);
    let doors = [
        Door {
            ports: &["open"],
            peers: "outside",
            protocol: "udp",
            elements: outside(&[Transport::Udp, Transport::Esp]),
        },
        Door {
            ports: &["open"],
            peers: "outside_tcp",
            protocol: "tcp",
            elements: outside(&[Transport::Tcp]),
        },
        Door {
            ports: &["proven"],
            peers: "lan",
            protocol: "udp",
            elements: lan,
        },
        Door {
            ports: &["premises", "asking"],
            peers: "beacon",
            protocol: "tcp",
            elements: beacon,
        },
    ];
    let mut inward = String::from("    iifname . ip daddr != @own drop\n");
    let mut outward = String::from("    oifname . ip saddr != @own drop\n");
    // The sets of ports exist in any case, so that opening a port never depends on the policy.
    for ports in ["open", "proven", "premises", "asking"] {
        let _ = writeln!(text, "  set {ports} {{ type ifname; }}");
    }
    for door in &doors {
        door.write(&mut text, &mut inward, &mut outward);
    }
    if inward.contains("accept") {
        inward.push_str(TOO_LONG);
    }
    text.push_str("  set slow { type ifname; }\n");
    if let Some(rate) = endpoints.slow() {
        inward.insert_str(0, &brake("iifname", rate));
        outward.insert_str(0, &brake("oifname", rate));
    }
    let _ = writeln!(text, "  counter {UNINVITED} {{ }}");
    let _ = writeln!(inward, "    iifname @proven counter name {UNINVITED}");
    let mut forward = String::new();
    let mut split = String::new();
    if endpoints.direct.is_some() {
        text.push_str("  set direct { type ifname . ipv4_addr; }\n");
        forward.push_str(DIRECT);
    }
    if endpoints.direct == Some(Direct::Bridged) {
        let _ = writeln!(text, "  counter {NAMESAKE} {{ }}");
        (split, forward) = member(&doors, &forward);
    }
    for (chain, rules) in [
        ("input", &*inward),
        ("output", &*outward),
        ("forward", &*forward),
    ] {
        let _ = write!(
            text,
            "  chain {chain} {{\n    type filter hook {chain} priority filter; policy drop;\n{rules}  }}\n"
        );
    }
    text.push_str(&split);
    text.push_str(&arp(endpoints.direct == Some(Direct::Bridged)));
    text
}

/// Where the work OS is a member of the LAN, it has the port's own address. Which of the two a packet is
/// for depends on who sent it: what comes from a host and port that the policy names for ourselves
/// (gateways, beacon) is ours, everything else the work OS's. So the work OS speaks with none of
/// those, and nothing has to be remembered. The chain that marks, and the rules of `forward`.
fn member(doors: &[Door], forward: &str) -> (String, String) {
    let mut split = String::from(
        "  chain split {\n    type filter hook prerouting priority raw; policy accept;\n",
    );
    let _ = writeln!(
        split,
        "    iifname . ip saddr @direct counter name {NAMESAKE} drop"
    );
    let mut rules = String::new();
    for door in doors.iter().filter(|door| !door.elements.is_empty()) {
        let Door {
            peers, protocol, ..
        } = door;
        let _ = writeln!(
            split,
            "    iifname . ip daddr @direct ip saddr . {protocol} sport @{peers} accept"
        );
        let _ = writeln!(
            rules,
            "    iifname direct0 ip daddr . {protocol} dport @{peers} drop"
        );
    }
    // A server's answer to the DHCP client, which has its own way to hear it.
    split.push_str("    iifname . ip daddr @direct udp dport 68 drop\n");
    let _ = write!(
        split,
        "    iifname . ip daddr @direct meta mark set {MARK} notrack\n    iifname direct0 meta mark set {MARK} notrack\n  }}\n"
    );
    rules.push_str(forward);
    (split, rules)
}

/// ARP only with the next hop of each port: nobody else on the wire learns that this laptop is
/// there or what its other addresses are. Where the work OS is a member of the LAN, it is spoken for its
/// address with everybody there, as any PC does.
fn arp(member: bool) -> String {
    let pick = |line: &'static str| if member { line } else { "" };
    let (set, inward, outward) = (pick(MEMBER_SET), pick(MEMBER_IN), pick(MEMBER_OUT));
    format!("{ARP_SETS}{set}{ARP_IN}{inward}{ARP_OUT}{outward}{ARP_END}")
}

/// The one ICMP message that is let in, and only about what was sent through a door: a router says that
/// datagrams are too long for what is behind it (RFC 1191). The kernel tells the gate's socket.
const TOO_LONG: &str =
    "    iifname @open icmp type destination-unreachable icmp code 4 ct state related accept\n";

/// The address of each port, which no other port speaks or answers for. The kernel itself would: it
/// takes an address to be the host's and not the port's (RFC 1122, section 3.3.4.2), and what it
/// sends without a socket, such as the reset of a connection that is gone, it routes by the
/// destination alone.
const OWN: &str = "  set own { type ifname . ipv4_addr; }\n";

/// Counts what comes to a proven port's own address through no door, before it is dropped. At an
/// office desk that is next to nothing, unless somebody sits on the cable: who sends to the laptop,
/// or in its name to others, whose answers then come here.
pub(crate) const UNINVITED: &str = "uninvited";
/// Counts what comes from the LAN in the work OS's own name, where it is a member, before it is dropped (the
/// kernel itself would). A switch does not send back what a port says, so there is somebody beside it: a
/// hub, or another with its address. What merely comes to it unasked says nothing: the office's consoles
/// and scanners speak to it as to any PC, and answers come late.
pub(crate) const NAMESAKE: &str = "namesake";
/// Where policy lets packets onto a proven port without a tunnel: between the wire's device and that
/// port, from and to the one address that goes with it. Between ports nothing is ever forwarded.
const DIRECT: &str = "    iifname direct0 oifname . ip saddr @direct accept
    oifname direct0 iifname . ip daddr @direct accept
";
const _: () = assert!(matches!(super::wire::DEVICE.as_bytes(), b"direct0"));

const ARP_SETS: &str = "}
table arp sekisho {
  set nexthop { type ifname . ipv4_addr; }
";
const MEMBER_SET: &str = "  set member { type ifname . ipv4_addr; }\n";
const ARP_IN: &str = "  chain input {
    type filter hook input priority filter; policy drop;
    iifname . arp saddr ip @nexthop accept
";
const MEMBER_IN: &str = "    iifname . arp daddr ip @member accept\n";
const ARP_OUT: &str = "  }
  chain output {
    type filter hook output priority filter; policy drop;
    oifname . arp daddr ip @nexthop accept
";
const MEMBER_OUT: &str = "    oifname . arp saddr ip @member accept\n";
const ARP_END: &str = "  }
}
";

/// Ports of one set may talk to peers of another.
struct Door {
    ports: &'static [&'static str],
    peers: &'static str,
    protocol: &'static str,
    elements: String,
}

impl Door {
    fn write(&self, sets: &mut String, inward: &mut String, outward: &mut String) {
        let Self {
            ports,
            peers,
            protocol,
            elements,
        } = self;
        if elements.is_empty() {
            return;
        }
        let _ = writeln!(
            sets,
            "  set {peers} {{ type ipv4_addr . inet_service; elements = {{ {elements} }} }}"
        );
        for ports in *ports {
            let _ = writeln!(
                inward,
                "    iifname @{ports} ip saddr . {protocol} sport @{peers} ct state established accept"
            );
            let _ = writeln!(
                outward,
                "    oifname @{ports} ip daddr . {protocol} dport @{peers} accept"
            );
        }
    }
}

/// What a brake lets through at once, in bytes: the largest packet that the kernel carries whole
/// (`UDP_SEGMENT` and receive offload stay under 64 KiB), which must be able to pass at all.
const BURST: u32 = 65_536;

/// Drops what a slow port moves beyond a rate, before any door. Dropped and not queued: what waits
/// in a queue of seconds comes too late for whoever waits for it, and the work OS's TCP slows down
/// by loss as it does on any narrow line. The kernel counts, so that no process of ours can look
/// away, and the gate's sockets need not know.
fn brake(direction: &str, rate: Rate) -> String {
    let bytes = rate.bytes_per_second();
    format!("    {direction} @slow limit rate over {bytes} bytes/second burst {BURST} bytes drop\n")
}

fn elements(addresses: impl Iterator<Item = SocketAddrV4>) -> String {
    let mut list: Vec<String> = addresses
        .map(|address| format!("{} . {}", address.ip(), address.port()))
        .collect();
    list.sort_unstable();
    list.dedup();
    list.join(", ")
}

/// Why the packet filter was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The program could not be started.
    #[error("`nft` could not be started ({0}); install the distribution's package nftables")]
    Start(#[source] io::Error),
    /// It refused the rules.
    #[error("`nft` refused the packet filter ({status}): {message}; the links stay down")]
    Refused {
        /// How it ended.
        status: std::process::ExitStatus,
        /// The first lines of what it said.
        message: String,
    },
}

/// Longest part of `nft`'s complaint that is kept.
const MAX_COMPLAINT: usize = 2048;

/// Loads the rules into the network namespace that the calling thread is in.
pub fn load(text: &str) -> Result<(), RulesError> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .env_clear()
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(RulesError::Start)?;
    if let Some(mut stdin) = nft.stdin.take() {
        // A broken pipe shows as nft's own exit status.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = nft.wait_with_output().map_err(RulesError::Start)?;
    if output.status.success() {
        return Ok(());
    }
    let end = output.stderr.len().min(MAX_COMPLAINT);
    Err(RulesError::Refused {
        status: output.status,
        message: String::from_utf8_lossy(&output.stderr[..end])
            .trim()
            .replace('\n', "; "),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::endpoints::sample, *};

    #[test]
    fn text_is_what_it_was() {
        assert_eq!(
            ruleset(&sample()),
            "\
flush ruleset
table inet sekisho {
  set own { type ifname . ipv4_addr; }
  set open { type ifname; }
  set proven { type ifname; }
  set premises { type ifname; }
  set asking { type ifname; }
  set outside { type ipv4_addr . inet_service; elements = { 203.0.113.10 . 51820 } }
  set lan { type ipv4_addr . inet_service; elements = { 10.12.0.2 . 51820 } }
  set beacon { type ipv4_addr . inet_service; elements = { 10.12.0.200 . 8443 } }
  set slow { type ifname; }
  counter uninvited { }
  chain input {
    type filter hook input priority filter; policy drop;
    iifname . ip daddr != @own drop
    iifname @open ip saddr . udp sport @outside ct state established accept
    iifname @proven ip saddr . udp sport @lan ct state established accept
    iifname @premises ip saddr . tcp sport @beacon ct state established accept
    iifname @asking ip saddr . tcp sport @beacon ct state established accept
    iifname @open icmp type destination-unreachable icmp code 4 ct state related accept
    iifname @proven counter name uninvited
  }
  chain output {
    type filter hook output priority filter; policy drop;
    oifname . ip saddr != @own drop
    oifname @open ip daddr . udp dport @outside accept
    oifname @proven ip daddr . udp dport @lan accept
    oifname @premises ip daddr . tcp dport @beacon accept
    oifname @asking ip daddr . tcp dport @beacon accept
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
  }
}
table arp sekisho {
  set nexthop { type ifname . ipv4_addr; }
  chain input {
    type filter hook input priority filter; policy drop;
    iifname . arp saddr ip @nexthop accept
  }
  chain output {
    type filter hook output priority filter; policy drop;
    oifname . arp daddr ip @nexthop accept
  }
}
"
        );
    }

    #[test]
    fn a_slow_port_is_braked_before_any_door() {
        let mut endpoints = sample();
        endpoints
            .uplinks
            .push(super::super::endpoints::sample_sim());
        let text = ruleset(&endpoints);
        for (chain, direction) in [("input", "iifname"), ("output", "oifname")] {
            let rules = text.split(&format!("hook {chain} ")).nth(1).unwrap();
            let first = rules.lines().nth(1).unwrap();
            assert_eq!(
                first,
                format!(
                    "    {direction} @slow limit rate over 32000 bytes/second burst 65536 bytes drop"
                )
            );
        }
    }

    #[test]
    fn without_an_office_there_is_no_door_to_it() {
        let mut endpoints = sample();
        endpoints.beacon = None;
        endpoints.gateways[0].lan = None;
        let text = ruleset(&endpoints);
        assert!(!text.contains("tcp"));
        assert_eq!(
            text.matches("@proven").count(),
            1,
            "it is counted, not let in"
        );
        assert_eq!(text.matches("accept").count(), 2 + 1 + 2);
    }

    #[test]
    fn a_gateway_spoken_to_by_tcp_has_a_door_of_its_own() {
        let mut endpoints = sample();
        let mut tls = endpoints.gateways[0].clone();
        tls.transport = Transport::Tcp;
        tls.outside = "203.0.113.10:443".parse().unwrap();
        tls.lan = None;
        endpoints.gateways.push(tls);
        let text = ruleset(&endpoints);
        for rule in [
            "set outside { type ipv4_addr . inet_service; elements = { 203.0.113.10 . 51820 } }",
            "set outside_tcp { type ipv4_addr . inet_service; elements = { 203.0.113.10 . 443 } }",
            "iifname @open ip saddr . tcp sport @outside_tcp ct state established accept",
            "oifname @open ip daddr . tcp dport @outside_tcp accept",
        ] {
            assert!(text.contains(rule), "{rule} is not in\n{text}");
        }
    }

    #[test]
    fn a_wire_is_forwarded_between_one_port_and_one_address() {
        let mut endpoints = sample();
        assert!(!ruleset(&endpoints).contains("direct"));
        endpoints.direct = Some(Direct::Routed);
        let text = ruleset(&endpoints);
        assert!(
            text.contains("set direct { type ifname . ipv4_addr; }\n"),
            "{text}"
        );
        let forward = text.split("chain forward {").nth(1).unwrap();
        let rules: Vec<&str> = forward.lines().skip(1).take(3).collect();
        assert_eq!(
            rules,
            [
                "    type filter hook forward priority filter; policy drop;",
                "    iifname direct0 oifname . ip saddr @direct accept",
                "    oifname direct0 iifname . ip daddr @direct accept",
            ]
        );
    }

    #[test]
    fn a_member_of_the_lan_has_what_comes_from_nobody_of_ours() {
        let mut endpoints = sample();
        assert!(!ruleset(&endpoints).contains("@member"));
        endpoints.direct = Some(Direct::Bridged);
        let text = ruleset(&endpoints);
        let chain = |name: &str| -> Vec<&str> {
            let rules = text.split(&format!("chain {name} {{")).nth(1).unwrap();
            let rules = rules.lines().skip(2);
            rules.take_while(|line| line.trim() != "}").collect()
        };
        assert_eq!(
            chain("split"),
            [
                "    iifname . ip saddr @direct counter name namesake drop",
                "    iifname . ip daddr @direct ip saddr . udp sport @outside accept",
                "    iifname . ip daddr @direct ip saddr . udp sport @lan accept",
                "    iifname . ip daddr @direct ip saddr . tcp sport @beacon accept",
                "    iifname . ip daddr @direct udp dport 68 drop",
                "    iifname . ip daddr @direct meta mark set 52 notrack",
                "    iifname direct0 meta mark set 52 notrack",
            ]
        );
        assert_eq!(
            chain("forward"),
            [
                "    iifname direct0 ip daddr . udp dport @outside drop",
                "    iifname direct0 ip daddr . udp dport @lan drop",
                "    iifname direct0 ip daddr . tcp dport @beacon drop",
                "    iifname direct0 oifname . ip saddr @direct accept",
                "    oifname direct0 iifname . ip daddr @direct accept",
            ]
        );
        assert!(text.contains("    iifname . arp daddr ip @member accept\n"));
        assert!(text.contains("    oifname . arp saddr ip @member accept\n"));
    }

    #[test]
    fn without_gateways_nothing_passes_but_arp() {
        let text = ruleset(&Endpoints::default());
        assert_eq!(text.matches("accept").count(), 2);
        assert_eq!(text.matches("policy drop").count(), 5);
    }
}
