//! The machine against a model of ModemManager that does what it likes.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn wish() -> Wish {
    Wish {
        apn: Some("mihon.closed.example".into()),
        networks: vec!["44010".into()],
        roaming: false,
        interfaces: vec!["wwan0".into()],
    }
}

fn path(text: &str) -> ObjectPath {
    ObjectPath::new(text).unwrap()
}

fn modem(state: ModemState) -> Modem {
    Modem {
        path: path("/m/0"),
        state,
        registration: Registration::Home,
        operator: Some("44010".into()),
        name: "Mihon Mobile".into(),
        signal: Some(63),
        bearers: vec![path("/b/0")],
    }
}

fn bearer() -> BearerState {
    BearerState {
        connected: true,
        interface: "wwan0".into(),
        apn: "mihon.closed.example".into(),
        config: Config {
            method: Method::Static,
            address: Some(Ipv4Addr::new(100, 64, 7, 2)),
            prefix: 30,
            gateway: Some(Ipv4Addr::new(100, 64, 7, 1)),
            mtu: Some(1430),
        },
    }
}

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn answers(session: &mut Session, now: Duration, answer: Answer) -> Vec<Action> {
    session.on(now, Event::Answer(Some(answer)))
}

fn calls(actions: &[Action]) -> Vec<&Call> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Call(call) => Some(call),
            Action::Tell(_) => None,
        })
        .collect()
}

fn told(actions: &[Action]) -> Option<&Finding> {
    actions.iter().find_map(|action| match action {
        Action::Tell(finding) => Some(finding),
        Action::Call(_) => None,
    })
}

#[test]
fn from_a_modem_that_is_off_to_a_bearer() {
    let mut session = Session::new(wish());
    assert_eq!(calls(&session.on(at(0), Event::Time)), [&Call::Modems]);
    let off = Answer::Modems(vec![modem(ModemState::Disabled)]);
    let actions = answers(&mut session, at(1), off);
    assert_eq!(told(&actions).unwrap().found, ModemFound::Starting);
    assert_eq!(calls(&actions), [&Call::Enable(path("/m/0"))]);

    // It is on; the next look is not put off for that.
    let actions = answers(&mut session, at(900), Answer::Done);
    assert_eq!(calls(&actions), [&Call::Modems]);
    let bare = Modem {
        bearers: Vec::new(),
        ..modem(ModemState::Registered)
    };
    let actions = answers(&mut session, at(901), Answer::Modems(vec![bare]));
    assert_eq!(told(&actions).unwrap().found, ModemFound::Connecting);
    assert_eq!(calls(&actions), [&Call::Connect(path("/m/0"))]);

    let actions = answers(&mut session, at(3000), Answer::Done);
    assert_eq!(calls(&actions), [&Call::Modems]);
    let up = Answer::Modems(vec![modem(ModemState::Connected)]);
    let actions = answers(&mut session, at(3001), up);
    assert_eq!(calls(&actions), [&Call::Bearer(path("/b/0"))]);
    let actions = answers(&mut session, at(3002), Answer::Bearer(bearer()));
    let finding = told(&actions).unwrap();
    assert_eq!(finding.found, ModemFound::Connected);
    assert_eq!(finding.bearer.as_ref().unwrap().mtu, Some(1430));
    assert_eq!(finding.operator, "Mihon Mobile (44010)");
}

/// A session that has told a bearer.
fn connected() -> Session {
    let mut session = Session::new(wish());
    session.on(at(0), Event::Time);
    let up = Answer::Modems(vec![modem(ModemState::Connected)]);
    answers(&mut session, at(1), up);
    let actions = answers(&mut session, at(2), Answer::Bearer(bearer()));
    assert!(told(&actions).unwrap().bearer.is_some());
    session
}

#[test]
fn without_a_named_interface_a_modems_own_will_do() {
    for (interface, found) in [
        ("wwan0", ModemFound::Connected),
        ("wwp0s20f0u6", ModemFound::Connected),
        ("eth0", ModemFound::OtherInterface),
        ("", ModemFound::OtherInterface),
    ] {
        let mut session = Session::new(Wish {
            interfaces: Vec::new(),
            ..wish()
        });
        session.on(at(0), Event::Time);
        let up = Answer::Modems(vec![modem(ModemState::Connected)]);
        answers(&mut session, at(1), up);
        let state = BearerState {
            interface: interface.into(),
            ..bearer()
        };
        let actions = answers(&mut session, at(2), Answer::Bearer(state));
        assert_eq!(told(&actions).unwrap().found, found, "{interface}");
    }
}

/// Back in its own network the modem is connected at once, however often it was out of it.
#[test]
fn a_network_that_is_right_again_is_not_waited_for() {
    let mut session = connected();
    let in_network = |operator: &str, state| {
        Answer::Modems(vec![Modem {
            operator: Some(operator.into()),
            bearers: Vec::new(),
            ..modem(state)
        }])
    };
    for round in 1..20 {
        let now = at(round * 1000);
        assert_eq!(calls(&session.on(now, Event::Changed)), [&Call::Modems]);
        let actions = answers(
            &mut session,
            now,
            in_network("44020", ModemState::Connected),
        );
        assert_eq!(calls(&actions), [&Call::Disconnect(path("/m/0"))]);
        assert_eq!(told(&actions).unwrap().found, ModemFound::WrongNetwork);
        let now = now + at(300);
        let actions = answers(&mut session, now, Answer::Done);
        assert_eq!(calls(&actions), [&Call::Modems]);
        let actions = answers(
            &mut session,
            now,
            in_network("44010", ModemState::Registered),
        );
        assert_eq!(told(&actions).unwrap().found, ModemFound::Connecting);
        assert_eq!(calls(&actions), [&Call::Connect(path("/m/0"))]);
        let now = now + at(300);
        answers(&mut session, now, Answer::Done);
        let up = Answer::Modems(vec![modem(ModemState::Connected)]);
        answers(&mut session, now, up);
        let actions = answers(&mut session, now, Answer::Bearer(bearer()));
        assert!(told(&actions).unwrap().bearer.is_some());
    }
}

#[test]
fn silence_takes_the_bearer_back() {
    let mut session = connected();
    session.on(at(5000), Event::Changed);
    let by = session.due();
    assert_eq!(by, at(5000) + ANSWERS_WITHIN);
    let actions = session.on(by, Event::Time);
    let finding = told(&actions).unwrap();
    assert_eq!(finding.found, ModemFound::Absent);
    assert_eq!(finding.bearer, None);
}

#[test]
fn an_answer_of_another_type_takes_the_bearer_back() {
    for answer in [None, Some(Answer::Done), Some(Answer::Bearer(bearer()))] {
        let mut session = connected();
        session.on(at(5000), Event::Changed);
        let actions = session.on(at(5001), Event::Answer(answer));
        assert_eq!(told(&actions).unwrap().bearer, None);
    }
}

#[test]
fn what_fails_is_tried_ever_more_seldom() {
    let mut session = Session::new(wish());
    let bare = || {
        Answer::Modems(vec![Modem {
            bearers: Vec::new(),
            ..modem(ModemState::Registered)
        }])
    };
    let (mut now, mut tries) = (Duration::ZERO, Vec::new());
    while now < Duration::from_mins(10) {
        let mut actions = session.on(now, Event::Time);
        while let Some(call) = calls(&actions).first().copied().cloned() {
            actions = match call {
                Call::Modems => answers(&mut session, now, bare()),
                Call::Connect(_) => {
                    tries.push(now);
                    session.on(now, Event::Answer(None))
                }
                other => panic!("{other:?}"),
            };
        }
        now = session.due().max(now + at(1));
    }
    assert!((10..=16).contains(&tries.len()), "{tries:?}");
    assert!(tries[1] <= tries[0] + Duration::from_secs(3));
    let last = tries.len() - 1;
    assert!(tries[last] >= tries[last - 1] + LONGEST_PAUSE);
    assert_eq!(
        session.told.as_ref().map(|told| told.found),
        Some(ModemFound::Refused),
        "why it is not connected is told all the while"
    );
}

fn state() -> impl Strategy<Value = ModemState> {
    prop_oneof![
        1 => Just(ModemState::Failed),
        1 => Just(ModemState::SimMissing),
        1 => Just(ModemState::Unknown),
        1 => Just(ModemState::Locked),
        1 => Just(ModemState::Disabled),
        1 => Just(ModemState::Changing),
        1 => Just(ModemState::Searching),
        3 => Just(ModemState::Registered),
        1 => Just(ModemState::Connecting),
        6 => Just(ModemState::Connected),
    ]
}

fn any_modem() -> impl Strategy<Value = Modem> {
    let registration = prop_oneof![
        4 => Just(Registration::Home),
        1 => Just(Registration::Roaming),
        1 => Just(Registration::None)
    ];
    let operator = prop_oneof![
        4 => Just(Some("44010".to_owned())),
        1 => Just(Some("44020".to_owned())),
        1 => Just(None)
    ];
    (state(), registration, operator, 0usize..3).prop_map(
        |(state, registration, operator, bearers)| Modem {
            registration,
            operator,
            bearers: (0..bearers).map(|n| path(&format!("/b/{n}"))).collect(),
            ..modem(state)
        },
    )
}

fn any_bearer() -> impl Strategy<Value = BearerState> {
    let method = prop_oneof![
        4 => Just(Method::Static), 1 => Just(Method::Dhcp), 1 => Just(Method::Ppp), 1 => Just(Method::Unknown)
    ];
    (prop::bool::weighted(0.8), method, 0u8..8).prop_map(|(connected, method, flaws)| {
        let mut state = bearer();
        state.connected = connected;
        state.config.method = method;
        match flaws {
            0 => state.interface = "eth0".into(),
            1 => state.apn = "internet".into(),
            2 => state.config.gateway = None,
            3 => state.config.address = None,
            _ => {}
        }
        state
    })
}

/// What may come: whether an answer is of the type that its call has is left to chance.
fn event() -> impl Strategy<Value = (u64, Event)> {
    let answer = prop_oneof![
        prop::collection::vec(any_modem(), 0..3).prop_map(|mut modems| {
            for (number, modem) in modems.iter_mut().enumerate() {
                modem.path = path(&format!("/m/{number}"));
            }
            Answer::Modems(modems)
        }),
        any_bearer().prop_map(Answer::Bearer),
        Just(Answer::Done),
    ];
    let event = prop_oneof![
        2 => Just(Event::Changed),
        6 => prop::option::weighted(0.9, answer).prop_map(Event::Answer),
        2 => Just(Event::Time),
    ];
    (0u64..3000, event)
}

proptest! {
    /// After any history, a bearer is told only on grounds that the last look gave, and a modem is
    /// connected only where policy allows it.
    #[test]
    fn a_bearer_has_its_grounds(events in prop::collection::vec(event(), 0..200)) {
        let mut session = Session::new(wish());
        let mut now = Duration::ZERO;
        let (mut asked, mut modems, mut bearers): (Option<Call>, Vec<Modem>, Vec<BearerState>) =
            Default::default();
        let (mut told, mut looks, mut deeds) = (None::<Finding>, Vec::new(), Vec::new());
        for (pause, event) in events {
            now += at(pause);
            if let Event::Answer(Some(answer)) = &event {
                match (&asked, answer) {
                    (Some(Call::Modems), Answer::Modems(all)) => {
                        modems.clone_from(all);
                        bearers.clear();
                    }
                    (Some(Call::Bearer(_)), Answer::Bearer(one)) => bearers.push(one.clone()),
                    _ => {}
                }
            }
            let answered = matches!(event, Event::Answer(_));
            if answered {
                asked = None;
            }
            let actions = session.on(now, event);
            prop_assert!(calls(&actions).len() <= 1, "{:?}", actions);
            for action in actions {
                match action {
                    Action::Tell(finding) => {
                        prop_assert_ne!(told.as_ref(), Some(&finding));
                        told = Some(finding);
                    }
                    Action::Call(call) => {
                        match &call {
                            Call::Modems => looks.push(now),
                            Call::Bearer(_) => {}
                            Call::Connect(at) => {
                                deeds.push(now);
                                let modem = modems.iter().find(|modem| modem.path == *at).unwrap();
                                prop_assert_eq!(modem.operator.as_deref(), Some("44010"));
                                prop_assert_eq!(modem.registration, Registration::Home);
                            }
                            Call::Enable(_) | Call::Disconnect(_) => deeds.push(now),
                        }
                        asked = Some(call);
                    }
                }
            }
            let Some(told) = &told else {
                continue;
            };
            prop_assert_eq!(told.bearer.is_some(), told.found == ModemFound::Connected);
            if answered && let Some(bearer) = &told.bearer && asked.is_none() {
                // Judged just now, or by a look before this one that nothing has contradicted.
                let allowed = |modem: &Modem| {
                    modem.operator.as_deref() == Some("44010")
                        && modem.registration == Registration::Home
                };
                prop_assert!(modems.iter().any(allowed));
                let up: Vec<_> = bearers.iter().filter(|bearer| bearer.connected).collect();
                prop_assert_eq!(up.len(), 1);
                prop_assert_eq!(&up[0].interface, &bearer.interface);
                prop_assert_eq!(&up[0].apn, "mihon.closed.example");
                prop_assert_eq!(&bearer.interface, "wwan0");
                let usable = matches!(up[0].config.method, Method::Static | Method::Dhcp);
                prop_assert!(usable);
            }
            // Nothing is done to the modem while a bearer stands.
            if matches!(asked, Some(Call::Enable(_) | Call::Connect(_) | Call::Disconnect(_))) {
                prop_assert_eq!(&told.bearer, &None);
            }
        }
        prop_assert!(looks.windows(2).all(|pair| pair[1] >= pair[0] + LOOK_PAUSE));
        // A pause of two seconds at least, but for one deed that follows another of its own accord.
        let often = deeds.windows(3).filter(|three| three[2] < three[0] + FIRST_PAUSE).count();
        prop_assert!(often <= deeds.len() / 2 + 1, "{:?}", deeds);
    }
}
