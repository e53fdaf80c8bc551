//! Admission of IPv6, and that it is a world of its own.

use std::net::Ipv6Addr;

use proptest::prelude::*;
use sekisho_control::{Place, WireId};

use super::*;
use crate::gate::fixture::packets_v6::{icmp_raw, tcp, udp};
use crate::gate::fixture::{
    GUEST, GUEST_V6, SERVER, SERVER_V6, at, gatekeeper, gatekeeper_v6, tcp as tcp_v4, tunnelled,
};
use crate::gate::packet::Offload;
use crate::gate::situation::Reason;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
const REMOTE: Situation = tunnelled(Place::Remote);

fn try_it(
    keeper: &mut Gatekeeper,
    bytes: &[u8],
    origin: Origin,
    situation: Situation,
    seconds: u64,
) -> Result<(), Rule> {
    let packet = Packet::parse_v6(bytes, Offload::None).unwrap();
    keeper
        .admit(packet, origin, &situation, at(seconds))
        .map(|_| ())
        .map_err(|refusal| refusal.rule)
}

fn syn() -> Vec<u8> {
    tcp((GUEST_V6, 4000), (SERVER_V6, 443), (1, 0), SYN, &[], &[])
}

#[test]
fn nothing_of_ipv6_is_admitted_without_a_party_to_it() {
    let mut keeper = gatekeeper();
    for origin in [Origin::Guest, Origin::Tunnel, Origin::Resolver] {
        assert_eq!(
            try_it(&mut keeper, &syn(), origin, REMOTE, 1),
            Err(Rule::Ipv6)
        );
    }
    let mut keeper = gatekeeper_v6();
    assert_eq!(
        try_it(&mut keeper, &syn(), Origin::Guest, REMOTE, 1),
        Ok(())
    );
}

#[test]
fn no_wire_of_an_office_carries_it_and_no_closed_gate() {
    let mut keeper = gatekeeper_v6();
    let direct = Situation::Direct { wire: WireId(1) };
    let closed = Situation::Closed(Reason::Started);
    for (origin, situation, rule) in [
        (Origin::Guest, direct, Rule::Ipv6),
        (Origin::Wire, direct, Rule::Ipv6),
        (Origin::Guest, closed, Rule::Closed),
        (Origin::Tunnel, closed, Rule::Closed),
    ] {
        assert_eq!(try_it(&mut keeper, &syn(), origin, situation, 1), Err(rule));
    }
}

/// The resolver asks over IPv4 alone.
#[test]
fn no_question_of_the_gates_own_goes_by_ipv6() {
    let mut keeper = gatekeeper_v6();
    let question = udp((GUEST_V6, 5000), (SERVER_V6, 53), b"question");
    let verdict = try_it(&mut keeper, &question, Origin::Resolver, REMOTE, 1);
    assert_eq!(verdict, Err(Rule::DnsRefused));
}

/// The same ports, and the address of IPv4 in that of IPv6: another conversation all the same.
#[test]
fn a_conversation_of_one_family_opens_nothing_to_the_other() {
    let mut keeper = gatekeeper_v6();
    let packet = tcp_v4((GUEST, 4000), (SERVER, 443), (1, 0), SYN, &[], &[]);
    let packet = Packet::parse(&packet, Offload::None).unwrap();
    keeper.admit(packet, Origin::Guest, &REMOTE, at(1)).unwrap();
    // After two minutes nothing is taken up in the middle.
    let late = 200;
    let packet = tcp_v4((GUEST, 4001), (SERVER, 443), (1, 0), SYN, &[], &[]);
    let packet = Packet::parse(&packet, Offload::None).unwrap();
    keeper
        .admit(packet, Origin::Guest, &REMOTE, at(late))
        .unwrap();
    for source in [
        SERVER_V6,
        SERVER.to_ipv6_mapped(),
        SERVER.to_ipv6_compatible(),
    ] {
        let answer = tcp((source, 443), (GUEST_V6, 4001), (1, 2), ACK, &[], b"x");
        let verdict = try_it(&mut keeper, &answer, Origin::Tunnel, REMOTE, late);
        assert_eq!(verdict, Err(Rule::NoFlow), "{source}");
    }
    let own = tcp((GUEST_V6, 4001), (SERVER_V6, 443), (1, 0), SYN, &[], &[]);
    assert_eq!(
        try_it(&mut keeper, &own, Origin::Guest, REMOTE, late),
        Ok(())
    );
    let answer = tcp((SERVER_V6, 443), (GUEST_V6, 4001), (1, 2), ACK, &[], b"x");
    let verdict = try_it(&mut keeper, &answer, Origin::Tunnel, REMOTE, late);
    assert_eq!(verdict, Ok(()));
}

#[test]
fn an_echo_is_answered_by_whom_it_was_sent_to() {
    let mut keeper = gatekeeper_v6();
    let ping = |kind| [kind, 0, 0, 0, 0, 7, 0, 1];
    let other = Ipv6Addr::new(0x2001, 0xdb8, 0x12, 0x10, 0, 0, 0, 6);
    let reply = |from| icmp_raw((from, GUEST_V6), 64, &ping(129));
    let sent = icmp_raw((GUEST_V6, SERVER_V6), 64, &ping(128));
    let into =
        |keeper: &mut Gatekeeper, bytes: &[u8]| try_it(keeper, bytes, Origin::Tunnel, REMOTE, 1);
    assert_eq!(into(&mut keeper, &reply(SERVER_V6)), Err(Rule::NoFlow));
    assert_eq!(try_it(&mut keeper, &sent, Origin::Guest, REMOTE, 1), Ok(()));
    assert_eq!(into(&mut keeper, &reply(SERVER_V6)), Ok(()));
    assert_eq!(into(&mut keeper, &reply(other)), Err(Rule::NoFlow));
}

proptest! {
    /// Whatever the source, only the guest's own address passes; whatever the destination, only what
    /// policy names.
    #[test]
    fn only_the_guests_own_address_and_only_policys_networks(
        source in prop_oneof![Just(GUEST_V6), any::<Ipv6Addr>()],
        destination in prop_oneof![Just(SERVER_V6), any::<Ipv6Addr>()],
        flip in 0..128u32,
        at_source in any::<bool>(),
    ) {
        let turned = |address: Ipv6Addr| Ipv6Addr::from_bits(address.to_bits() ^ (1 << flip));
        let (source, destination) = if at_source {
            (turned(source), destination)
        } else {
            (source, turned(destination))
        };
        let packet = udp((source, 4000), (destination, 7000), b"x");
        let allowed = destination.segments()[..4] == SERVER_V6.segments()[..4];
        let verdict = try_it(&mut gatekeeper_v6(), &packet, Origin::Guest, REMOTE, 1);
        prop_assert_eq!(verdict.is_ok(), source == GUEST_V6 && allowed);
    }
}
