//! Admission as the guest and the gateway try it.

use std::net::Ipv4Addr;

use sekisho_control::{PathId, Place, Side, UplinkKind};

use super::*;
use crate::gate::fixture::{
    GUEST, RESOLVER, SERVER, at, gatekeeper, gatekeeper_under, tcp, tunnelled,
};
use crate::gate::packet::Offload;
use crate::gate::situation::{GatewayId, Reason};

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;
const REMOTE: Situation = tunnelled(Place::Remote);
const OFFICE: Situation = tunnelled(Place::Office);
const FILES: Ipv4Addr = Ipv4Addr::new(10, 12, 30, 4);

type Verdict = Result<(), Rule>;

fn try_it(
    keeper: &mut Gatekeeper,
    bytes: &[u8],
    origin: Origin,
    situation: Situation,
    seconds: u64,
) -> Verdict {
    let packet = Packet::parse(bytes, Offload::None).unwrap();
    keeper
        .admit(packet, origin, &situation, at(seconds))
        .map(|_| ())
        .map_err(|refusal| refusal.rule)
}

fn out(to: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    tcp((GUEST, 4000), to, (1, 1), flags, &[], b"")
}

fn back(from: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    tcp(from, (GUEST, 4000), (1, 1), flags, &[], b"")
}

fn named(keeper: &Gatekeeper, verdict: Verdict) -> String {
    match verdict {
        Ok(()) => "allowed".to_owned(),
        Err(Rule::Policy(id)) => keeper.rules().name(id).to_owned(),
        Err(rule) => rule.name().unwrap().to_owned(),
    }
}

#[test]
fn nothing_is_admitted_while_closed() {
    let mut keeper = gatekeeper();
    let closed = Situation::Closed(Reason::Started);
    for origin in [Origin::Guest, Origin::Resolver, Origin::Tunnel] {
        let verdict = try_it(&mut keeper, &out((SERVER, 443), SYN), origin, closed, 1);
        assert_eq!(verdict, Err(Rule::Closed));
    }
}

#[test]
fn the_rule_of_policy_is_named() {
    let mut keeper = gatekeeper();
    for (to, name) in [
        ((SERVER, 443), "allowed"),
        ((FILES, 445), "default-deny"),
        ((Ipv4Addr::new(10, 99, 0, 1), 443), "forbidden"),
        ((Ipv4Addr::new(8, 8, 8, 8), 53), "default-deny"),
    ] {
        let verdict = try_it(&mut keeper, &out(to, SYN), Origin::Guest, REMOTE, 1);
        assert_eq!(named(&keeper, verdict), name, "{to:?}");
    }
}

#[test]
fn answers_come_in_and_others_do_not() {
    let mut keeper = gatekeeper();
    try_it(
        &mut keeper,
        &out((SERVER, 443), SYN),
        Origin::Guest,
        REMOTE,
        1,
    )
    .unwrap();
    let answer = back((SERVER, 443), SYN | ACK);
    try_it(&mut keeper, &answer, Origin::Tunnel, REMOTE, 1).unwrap();
    for stranger in [back((SERVER, 444), SYN | ACK), back((SERVER, 443), SYN)] {
        // A bare SYN on a port of a known connection is one more segment of it; the guest judges.
        let known = stranger == back((SERVER, 443), SYN);
        let verdict = try_it(&mut keeper, &stranger, Origin::Tunnel, REMOTE, 1);
        assert_eq!(verdict.is_ok(), known);
    }
}

#[test]
fn leaving_the_office_ends_what_only_the_office_allows() {
    let mut keeper = gatekeeper();
    let (ask, answer) = (out((FILES, 445), SYN), back((FILES, 445), SYN | ACK));
    try_it(&mut keeper, &ask, Origin::Guest, OFFICE, 1).unwrap();
    try_it(&mut keeper, &answer, Origin::Tunnel, OFFICE, 1).unwrap();
    let data = out((FILES, 445), ACK);
    let verdict = try_it(&mut keeper, &data, Origin::Guest, REMOTE, 2);
    assert_eq!(named(&keeper, verdict), "default-deny");
    let late = try_it(
        &mut keeper,
        &back((FILES, 445), ACK),
        Origin::Tunnel,
        REMOTE,
        2,
    );
    assert!(late.is_err());
    // What both places allow goes on.
    let other = out((SERVER, 443), SYN);
    try_it(&mut keeper, &other, Origin::Guest, OFFICE, 3).unwrap();
    try_it(
        &mut keeper,
        &back((SERVER, 443), SYN | ACK),
        Origin::Tunnel,
        REMOTE,
        4,
    )
    .unwrap();
}

#[test]
fn a_young_gate_takes_up_what_the_guest_could_have_begun_and_an_old_one_does_not() {
    for (seconds, admitted) in [(10, true), (121, false)] {
        let mut keeper = gatekeeper();
        let data = back((SERVER, 443), ACK);
        let verdict = try_it(&mut keeper, &data, Origin::Tunnel, REMOTE, seconds);
        assert_eq!(verdict.is_ok(), admitted, "after {seconds} s");
    }
    let mut keeper = gatekeeper();
    for bytes in [
        back((FILES, 445), ACK),
        back((SERVER, 443), SYN),
        back((SERVER, 443), SYN | ACK),
        back((SERVER, 443), RST | ACK),
    ] {
        assert!(try_it(&mut keeper, &bytes, Origin::Tunnel, REMOTE, 10).is_err());
    }
}

#[test]
fn the_resolver_asks_policys_servers_only() {
    use smoltcp::wire::{IpProtocol, Ipv4Packet};
    let mut keeper = gatekeeper();
    let mut question = out((RESOLVER, 53), SYN);
    question.truncate(28);
    question[22..24].copy_from_slice(&53u16.to_be_bytes());
    question[24..26].copy_from_slice(&8u16.to_be_bytes());
    let mut ip = Ipv4Packet::new_unchecked(&mut question);
    ip.set_total_len(28);
    ip.set_next_header(IpProtocol::Udp);
    try_it(&mut keeper, &question, Origin::Resolver, REMOTE, 1).unwrap();
    assert!(try_it(&mut keeper, &question, Origin::Guest, REMOTE, 1).is_err());
    question[19] = 54;
    let elsewhere = try_it(&mut keeper, &question, Origin::Resolver, REMOTE, 1);
    assert_eq!(elsewhere, Err(Rule::DnsRefused));
}

/// An ICMP error, with the packet that it quotes.
fn error(from: Ipv4Addr, to: Ipv4Addr, quoted: &[u8]) -> Vec<u8> {
    let mut bytes = tcp((from, 0), (to, 0), (0, 0), 0, &[], b"");
    bytes.truncate(20);
    bytes.extend_from_slice(&[3, 4, 0, 0, 0, 0, 5, 100]);
    bytes.extend_from_slice(&quoted[..28]);
    bytes[9] = 1;
    let total = u16::try_from(bytes.len()).unwrap();
    bytes[2..4].copy_from_slice(&total.to_be_bytes());
    bytes
}

#[test]
fn icmp_errors_pass_for_known_connections_only() {
    let mut keeper = gatekeeper();
    let (known, unknown) = (out((SERVER, 443), SYN), out((SERVER, 444), SYN));
    try_it(&mut keeper, &known, Origin::Guest, REMOTE, 1).unwrap();
    let router = Ipv4Addr::new(10, 12, 0, 1);
    let about = |packet: &[u8]| error(router, GUEST, packet);
    try_it(&mut keeper, &about(&known), Origin::Tunnel, REMOTE, 1).unwrap();
    let stranger = try_it(&mut keeper, &about(&unknown), Origin::Tunnel, REMOTE, 1);
    assert_eq!(stranger, Err(Rule::NoFlow));
}

/// The guest writes errors about a connection that it has to somebody else: a datagram of its own
/// making, to any address, past every rule.
#[test]
fn icmp_errors_of_the_guest_go_only_to_whom_they_quote() {
    let mut keeper = gatekeeper();
    let known = out((SERVER, 443), SYN);
    try_it(&mut keeper, &known, Origin::Guest, REMOTE, 1).unwrap();
    let answer = back((SERVER, 443), SYN | ACK);
    for elsewhere in [Ipv4Addr::new(10, 99, 0, 1), Ipv4Addr::new(8, 8, 8, 8)] {
        let smuggled = error(GUEST, elsewhere, &answer);
        let verdict = try_it(&mut keeper, &smuggled, Origin::Guest, REMOTE, 1);
        assert_eq!(verdict, Err(Rule::NoFlow), "{elsewhere}");
    }
    let honest = error(GUEST, SERVER, &answer);
    try_it(&mut keeper, &honest, Origin::Guest, REMOTE, 1).unwrap();
}

/// An error about an office connection would otherwise still reach the office's servers from the
/// cafe, for as long as the connection is remembered.
#[test]
fn icmp_errors_about_office_connections_end_with_the_office() {
    let mut keeper = gatekeeper();
    let (ask, answer) = (out((FILES, 445), SYN), back((FILES, 445), SYN | ACK));
    try_it(&mut keeper, &ask, Origin::Guest, OFFICE, 1).unwrap();
    let about = error(GUEST, FILES, &answer);
    try_it(&mut keeper, &about, Origin::Guest, OFFICE, 1).unwrap();
    let verdict = try_it(&mut keeper, &about, Origin::Guest, REMOTE, 2);
    assert_eq!(named(&keeper, verdict), "default-deny");
}

/// What an error quotes is short, what it may carry behind that is a packet's worth of anything.
#[test]
fn icmp_errors_from_a_forbidden_network_stay_outside() {
    let mut keeper = gatekeeper();
    let known = out((SERVER, 443), SYN);
    try_it(&mut keeper, &known, Origin::Guest, REMOTE, 1).unwrap();
    let smuggled = error(Ipv4Addr::new(10, 99, 0, 1), GUEST, &known);
    let verdict = try_it(&mut keeper, &smuggled, Origin::Tunnel, REMOTE, 1);
    assert_eq!(named(&keeper, verdict), "forbidden");
}

/// A router inside, or whoever plays one, tells of an MTU that no path has, so that every packet
/// would become twenty.
#[test]
fn icmp_errors_tell_of_no_mtu_below_the_floor() {
    let mut keeper = gatekeeper();
    let known = out((SERVER, 443), SYN);
    try_it(&mut keeper, &known, Origin::Guest, REMOTE, 1).unwrap();
    let router = Ipv4Addr::new(10, 12, 0, 1);
    for (mtu, verdict) in [
        (0u16, Err(Rule::LowMtu)),
        (68, Err(Rule::LowMtu)),
        (1279, Err(Rule::LowMtu)),
        (1280, Ok(())),
    ] {
        let mut told = error(router, GUEST, &known);
        told[26..28].copy_from_slice(&mtu.to_be_bytes());
        let came = try_it(&mut keeper, &told, Origin::Tunnel, REMOTE, 1);
        assert_eq!(came, verdict, "{mtu}");
    }
}

const UPDATES: Ipv4Addr = Ipv4Addr::new(10, 12, 13, 8);
/// Connections that the SIM may not carry.
const WIRED_ONLY: &str = r#"
[[flow]]
id = "updates"
to = { segment = "lgwan", hosts = ["10.12.13.8/32"] }
tcp = [8530]
uplinks = ["wired"]
"#;

const fn over(kind: UplinkKind, gateway: u8, path: u32) -> Situation {
    Situation::Tunnelled {
        gateway: GatewayId(gateway),
        path: PathId(path),
        kind,
        side: Side::Outside,
        place: Place::Remote,
    }
}

/// Every connection is decided anew when place or uplink change: with the first packet either way,
/// whoever sends it. What is allowed both before and after goes on.
#[test]
fn every_change_of_situation_decides_about_every_connection_anew() {
    let wired = over(UplinkKind::Wired, 0, 1);
    let sim = over(UplinkKind::Sim, 0, 2);
    for first in [Origin::Guest, Origin::Tunnel] {
        let mut keeper = gatekeeper_under(WIRED_ONLY);
        for peer in [(UPDATES, 8530), (SERVER, 443)] {
            try_it(&mut keeper, &out(peer, SYN), Origin::Guest, wired, 1).unwrap();
            try_it(
                &mut keeper,
                &back(peer, SYN | ACK),
                Origin::Tunnel,
                wired,
                1,
            )
            .unwrap();
        }
        let packet = |peer| match first {
            Origin::Tunnel => back(peer, ACK),
            _ => out(peer, ACK),
        };
        let verdict = try_it(&mut keeper, &packet((UPDATES, 8530)), first, sim, 2);
        assert_eq!(named(&keeper, verdict), "default-deny");
        try_it(&mut keeper, &packet((SERVER, 443)), first, sim, 2).unwrap();
        // Back on the cable, the connection that was ended is not known any more: a late answer
        // stays outside once the gate is too old to take up connections by the server's word.
        let late = back((UPDATES, 8530), ACK);
        let verdict = try_it(&mut keeper, &late, Origin::Tunnel, wired, 300);
        assert_eq!(verdict, Err(Rule::NoFlow));
    }
}

/// Another gateway of the same city changes nothing of what policy says: connections live on, which
/// is what the second gateway is for. Closed admits nothing of them meanwhile.
#[test]
fn another_gateway_keeps_connections_and_a_closed_gate_none() {
    let mut keeper = gatekeeper();
    let (first, second) = (over(UplinkKind::Wired, 0, 1), over(UplinkKind::Wired, 1, 2));
    let peer = (SERVER, 443);
    try_it(&mut keeper, &out(peer, SYN), Origin::Guest, first, 1).unwrap();
    try_it(
        &mut keeper,
        &back(peer, SYN | ACK),
        Origin::Tunnel,
        first,
        1,
    )
    .unwrap();
    let closed = Situation::Closed(Reason::GatewaySilent);
    for (bytes, origin) in [
        (out(peer, ACK), Origin::Guest),
        (back(peer, ACK), Origin::Tunnel),
    ] {
        let verdict = try_it(&mut keeper, &bytes, origin, closed, 200);
        assert_eq!(verdict, Err(Rule::Closed));
        try_it(&mut keeper, &bytes, origin, second, 201).unwrap();
    }
}

/// A class of bandwidth belongs to the rule that allows a connection under the present
/// circumstances, and to its answers and errors, too.
#[test]
fn a_class_of_bandwidth_follows_the_connection() {
    let mut keeper = gatekeeper_under(
        r#"
[[flow]]
id = "updates"
to = { segment = "lgwan", hosts = ["10.12.13.8/32"] }
tcp = [8530]
bandwidth = "bulk"
[bandwidth]
bulk = { up = "16kbit/s", down = "16kbit/s" }
"#,
    );
    let peer = (UPDATES, 8530);
    try_it(&mut keeper, &out(peer, SYN), Origin::Guest, REMOTE, 1).unwrap();
    let flood = |keeper: &mut Gatekeeper, bytes: &[u8], origin| {
        (0..100_000).find_map(|_| try_it(keeper, bytes, origin, REMOTE, 1).err())
    };
    for (bytes, origin) in [
        (back(peer, ACK), Origin::Tunnel),
        (out(peer, ACK), Origin::Guest),
    ] {
        let refused = flood(&mut keeper, &bytes, origin).expect("the bucket runs dry");
        assert_eq!(keeper.name(refused), "bandwidth.bulk");
    }
    let about = error(Ipv4Addr::new(10, 12, 0, 1), GUEST, &out(peer, SYN));
    let verdict = try_it(&mut keeper, &about, Origin::Tunnel, REMOTE, 1);
    assert!(matches!(verdict, Err(Rule::Bandwidth(Some(_)))));
    // Others have their own.
    try_it(
        &mut keeper,
        &out((SERVER, 443), SYN),
        Origin::Guest,
        REMOTE,
        1,
    )
    .unwrap();
}
