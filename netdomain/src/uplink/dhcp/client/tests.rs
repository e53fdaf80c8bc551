//! The client against a server that is written here, honest or not. Time is a number.

use proptest::prelude::*;
use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr};

use super::{
    super::packet::{Reply, ReplyKind, server::write_reply},
    *,
};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 43, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 43, 66);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 43, 50);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const START: Duration = Duration::from_secs(1000);

fn fixed() -> u32 {
    0x5eed
}

fn client() -> Client {
    Client::new(MAC, START, fixed)
}

fn claimed(address: Ipv4Addr) -> bool {
    address == GATEWAY
}

fn reply(kind: ReplyKind, server: Ipv4Addr) -> Reply {
    Reply {
        kind,
        xid: fixed(),
        address: ADDRESS,
        server,
        mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
        router: Some(SERVER),
        lease: Some(3600),
        mac: SERVER_MAC,
        portal: false,
        ignored: Vec::new(),
    }
}

fn hear(client: &mut Client, now: Duration, reply: &Reply) -> Vec<Step> {
    client.on_frame(now, &write_reply(reply, MAC, &[]), &claimed)
}

/// What a sent frame is.
fn sent(steps: &[Step]) -> Option<(DhcpMessageType, Option<Ipv4Addr>, bool)> {
    let frame = steps.iter().find_map(|step| match step {
        Step::Send(frame) => Some(frame),
        _ => None,
    })?;
    let packet = DhcpPacket::new_checked(&frame[14 + 20 + 8..]).unwrap();
    let repr = DhcpRepr::parse(&packet).unwrap();
    Some((
        repr.message_type,
        repr.requested_ip,
        frame[..6] == [0xff; 6],
    ))
}

fn bound(now: Duration) -> Client {
    let mut client = client();
    assert!(sent(&client.on_time(START)).is_some());
    let steps = hear(&mut client, now, &reply(ReplyKind::Offer, SERVER));
    assert_eq!(
        sent(&steps),
        Some((DhcpMessageType::Request, Some(ADDRESS), true))
    );
    let steps = hear(&mut client, now, &reply(ReplyKind::Ack, SERVER));
    assert_eq!(
        steps,
        [Step::Bound(Lease {
            address: ADDRESS,
            prefix: 24,
            router: SERVER,
            server: SERVER
        })]
    );
    client
}

#[test]
fn an_address_that_somebody_else_has_is_given_back_and_another_asked_for_after_a_pause() {
    let now = START + Duration::from_secs(1);
    let mut client = bound(now);
    let steps = client.decline(now);
    assert_eq!(
        sent(&steps),
        Some((DhcpMessageType::Decline, Some(ADDRESS), true))
    );
    let Step::Send(frame) = &steps[0] else {
        panic!("{steps:?}");
    };
    let packet = DhcpPacket::new_checked(&frame[14 + 20 + 8..]).unwrap();
    let codes: Vec<u8> = packet.options().map(|option| option.kind).collect();
    assert_eq!(codes, [53, 61, 54, 50], "RFC 2131, table 5");
    assert_eq!(client.decline(now), [], "once");
    assert!(client.due() >= now + Duration::from_secs(10));
    // What the server still says of it counts for nothing.
    assert_eq!(hear(&mut client, now, &reply(ReplyKind::Ack, SERVER)), []);
    let again = client.on_time(client.due());
    assert_eq!(sent(&again).unwrap().0, DhcpMessageType::Discover);
}

/// T13: the laptop asks whether there is a portal, and is told once a lease.
#[test]
fn t13_a_captive_portal_is_told_with_the_lease() {
    for (says, portal) in [
        (&b"https://192.168.43.1/accept"[..], true),
        (&b"\xff\x00 no address at all"[..], true),
        (&b"urn:ietf:params:capport:unrestricted"[..], false),
    ] {
        let option = [DhcpOption {
            kind: 114,
            data: says,
        }];
        let mut client = client();
        let asked = client.on_time(START);
        let Some(Step::Send(frame)) = asked.first() else {
            panic!("nothing sent");
        };
        let packet = DhcpPacket::new_checked(&frame[14 + 20 + 8..]).unwrap();
        let wanted = packet.options().find(|option| option.kind == 55).unwrap();
        assert!(wanted.data.contains(&114));
        let mut told = Vec::new();
        for (kind, now) in [
            (ReplyKind::Offer, START),
            (ReplyKind::Ack, START),
            (ReplyKind::Ack, START + Duration::from_mins(31)),
        ] {
            client.on_time(now);
            let frame = write_reply(&reply(kind, SERVER), MAC, &option);
            told.extend(client.on_frame(now, &frame, &claimed));
        }
        let count = told.iter().filter(|step| **step == Step::Portal).count();
        assert_eq!(count, usize::from(portal), "{told:?}");
        assert!(
            !told.iter().any(|step| matches!(step, Step::Ignored(_))),
            "{told:?}"
        );
    }
}

#[test]
fn discovers_at_once_and_then_ever_slower() {
    let mut client = client();
    let mut now = START;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let steps = client.on_time(now);
        assert_eq!(sent(&steps), Some((DhcpMessageType::Discover, None, true)));
        pauses.push(client.due().saturating_sub(now).as_secs());
        now = client.due();
    }
    assert_eq!(pauses, [1, 2, 4, 9, 19, 19, 19, 19]);
}

#[test]
fn a_lease_is_renewed_with_its_server_then_with_anybody_then_lost() {
    let mut client = bound(START);
    let hour = Duration::from_hours(1);
    assert_eq!(client.due(), START + hour / 2);
    let (mut unicast, mut broadcast) = (0, 0);
    loop {
        let now = client.due();
        let steps = client.on_time(now);
        if steps == [Step::Lost] {
            assert_eq!(now, START + hour);
            break;
        }
        match sent(&steps) {
            Some((DhcpMessageType::Request, None, false)) => {
                assert!(now < START + hour / 8 * 7);
                unicast += 1;
            }
            Some((DhcpMessageType::Request, None, true)) => broadcast += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!((2..10).contains(&unicast), "{unicast}");
    assert!((2..10).contains(&broadcast), "{broadcast}");
    // And looks for another one.
    let now = client.due();
    let steps = client.on_time(now);
    assert_eq!(sent(&steps), Some((DhcpMessageType::Discover, None, true)));
}

#[test]
fn a_renewed_lease_is_no_news_and_a_changed_one_is() {
    let mut client = bound(START);
    let now = client.due();
    let _ = client.on_time(now);
    assert_eq!(hear(&mut client, now, &reply(ReplyKind::Ack, SERVER)), []);
    assert_eq!(client.due(), now + Duration::from_mins(30));
    let now = client.due();
    let _ = client.on_time(now);
    let moved = Reply {
        router: Some(OTHER),
        ..reply(ReplyKind::Ack, SERVER)
    };
    assert!(matches!(
        &hear(&mut client, now, &moved)[..],
        [Step::Bound(Lease { router: OTHER, .. })]
    ));
}

/// A neighbour that answers in the server's place, or says no in its name.
#[test]
fn only_the_chosen_server_is_heard() {
    let mut client = client();
    let _ = client.on_time(START);
    let _ = hear(&mut client, START, &reply(ReplyKind::Offer, SERVER));
    for kind in [ReplyKind::Ack, ReplyKind::Nak] {
        let steps = hear(&mut client, START, &reply(kind, OTHER));
        assert!(matches!(&steps[..], [Step::Ignored(_)]), "{steps:?}");
    }
    let foreign = Reply {
        xid: 7,
        ..reply(ReplyKind::Ack, SERVER)
    };
    assert_eq!(hear(&mut client, START, &foreign), []);
    assert!(matches!(
        &hear(&mut client, START, &reply(ReplyKind::Ack, SERVER))[..],
        [Step::Bound(_)]
    ));
    // Not asked, not heard: a lease cannot be taken away between renewals.
    assert_eq!(hear(&mut client, START, &reply(ReplyKind::Nak, SERVER)), []);
    assert_eq!(hear(&mut client, START, &reply(ReplyKind::Ack, SERVER)), []);
}

#[test]
fn leases_that_no_host_could_use_are_refused() {
    let mut client = client();
    let _ = client.on_time(START);
    let good = reply(ReplyKind::Offer, SERVER);
    let zero = Ipv4Addr::UNSPECIFIED;
    let bad = [
        Reply {
            address: zero,
            ..good.clone()
        },
        Reply {
            address: Ipv4Addr::LOCALHOST,
            ..good.clone()
        },
        Reply {
            address: Ipv4Addr::new(169, 254, 1, 1),
            ..good.clone()
        },
        Reply {
            address: Ipv4Addr::new(224, 0, 0, 1),
            ..good.clone()
        },
        Reply {
            address: GATEWAY,
            ..good.clone()
        },
        Reply {
            router: None,
            ..good.clone()
        },
        Reply {
            router: Some(zero),
            ..good.clone()
        },
        Reply {
            router: Some(ADDRESS),
            ..good.clone()
        },
        Reply {
            mask: Some(Ipv4Addr::new(255, 0, 255, 0)),
            ..good.clone()
        },
        Reply {
            mask: Some(zero),
            ..good.clone()
        },
    ];
    let mut reports = 0;
    for offer in &bad {
        for step in hear(&mut client, START, offer) {
            assert!(matches!(step, Step::Ignored(_)), "{offer:?}: {step:?}");
            reports += 1;
        }
    }
    assert_eq!(
        reports, REPORTS_PER_SENDING,
        "a flood is not reported whole"
    );
    let steps = hear(&mut client, START, &good);
    assert!(sent(&steps).is_some(), "a good one is still taken");
}

#[test]
fn lease_times_are_bounded() {
    for (seconds, kept) in [
        (Some(0), 60),
        (Some(5), 60),
        (None, 60),
        (Some(u32::MAX), 86_400),
    ] {
        let mut client = client();
        let _ = client.on_time(START);
        let _ = hear(&mut client, START, &reply(ReplyKind::Offer, SERVER));
        let ack = Reply {
            lease: seconds,
            ..reply(ReplyKind::Ack, SERVER)
        };
        let _ = hear(&mut client, START, &ack);
        assert_eq!(client.due(), START + Duration::from_secs(kept) / 2);
    }
}

#[test]
fn a_server_that_always_says_no_is_asked_ever_less_often() {
    let mut client = client();
    let mut now = START;
    for _ in 0..12 {
        now = client.due();
        let _ = client.on_time(now);
        let _ = hear(&mut client, now, &reply(ReplyKind::Offer, SERVER));
        let _ = hear(&mut client, now, &reply(ReplyKind::Nak, SERVER));
    }
    assert!(client.due() >= now + MAX_PAUSE);
}

fn any_reply() -> impl Strategy<Value = Reply> {
    let address = || {
        prop_oneof![
            Just(ADDRESS),
            Just(SERVER),
            Just(OTHER),
            Just(GATEWAY),
            any::<u32>().prop_map(Ipv4Addr::from),
        ]
    };
    (
        prop::sample::select(vec![ReplyKind::Offer, ReplyKind::Ack, ReplyKind::Nak]),
        address(),
        address(),
        prop::option::of(address()),
        prop::option::of(any::<u32>().prop_map(Ipv4Addr::from)),
        prop::option::of(any::<u32>()),
    )
        .prop_map(|(kind, server, address, router, mask, lease)| Reply {
            address,
            mask,
            router,
            lease,
            ..reply(kind, server)
        })
}

proptest! {
    /// Whatever servers say: what is sent is bounded by time, what is bound is a host's address, and
    /// the client always has something due that is not in the past for long.
    #[test]
    fn no_server_can_keep_it_busy(
        replies in prop::collection::vec((0u64..4000, any_reply()), 0..120),
    ) {
        let mut client = client();
        let mut now = START;
        let mut frames: u64 = 0;
        let mut held = false;
        for (later, reply) in replies {
            now += Duration::from_millis(later);
            let mut steps = client.on_time(now);
            steps.extend(hear(&mut client, now, &reply));
            for step in steps {
                match step {
                    Step::Send(_) => frames += 1,
                    Step::Bound(lease) => {
                        held = true;
                        prop_assert!(usable(lease.address) && lease.address != GATEWAY);
                        prop_assert!(usable(lease.router) && lease.router != lease.address);
                    }
                    Step::Lost => {
                        prop_assert!(held, "nothing is lost that was not held");
                        held = false;
                    }
                    Step::Ignored(_) | Step::Portal => {}
                }
            }
            prop_assert!(client.due() > now);
        }
        // Each pause of at least a second allows a discover and a request.
        prop_assert!(frames <= 2 * ((now.saturating_sub(START)).as_secs() + 2));
    }
}
