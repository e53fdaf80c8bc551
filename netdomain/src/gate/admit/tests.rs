//! Admission as the guest and the gateway try it.

use std::net::Ipv4Addr;

use sekisho_control::Place;

use super::*;
use crate::gate::fixture::{GUEST, RESOLVER, SERVER, at, gatekeeper, tcp, tunnelled};
use crate::gate::situation::Reason;

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
